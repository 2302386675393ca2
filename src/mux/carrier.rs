//! What carries a connection's frames: SPDY on the IO itself or inside WebSocket, or channel messages over WebSocket.
//!
//! Owns the choice between them. To everything above they are the same frames, streams and endings.

use std::io;
use std::time::Instant;

use bytes::BytesMut;
use tokio_util::codec::Decoder;

use super::buffer::WriteBatch;
use super::channels::Channels;
use super::tunnel::Tunnel;
use crate::protocol::Protocol;
use crate::session::Config;
use crate::session::ConnectionError;
use crate::session::{Connection, Role};
use crate::wire::spdy::{Codec, Frame, Headers, StreamId};

#[derive(Debug)]
pub(super) enum Carrier {
    Spdy(Box<Codec>),
    Channels(Box<Channels>),
    Tunnel(Box<Tunnel>),
}

impl Carrier {
    pub(super) fn new(role: Role, protocol: Option<Protocol>, ports: &[u16], config: &Config) -> Self {
        match protocol {
            Some(Protocol::Channel(subprotocol)) => {
                Self::Channels(Box::new(Channels::session(role, subprotocol, &config.limits)))
            }
            Some(Protocol::PortChannels(subprotocol)) => {
                Self::Channels(Box::new(Channels::ports(role, subprotocol, ports, &config.limits)))
            }
            Some(Protocol::Tunnel) => Self::Tunnel(Box::new(Tunnel::new(role, config))),
            _ => Self::Spdy(Box::new(Codec::with_compression(config.limits.clone(), config.header_compression))),
        }
    }

    /// What of a configuration fits the carrier.
    pub(super) fn fit(&self, config: Config) -> Config {
        match self {
            Self::Spdy(_) => config,
            Self::Channels(channels) => channels.fit(config),
            Self::Tunnel(_) => config,
        }
    }

    /// The headers of the streams that a client has without asking for them. `None`: it opens what it likes.
    pub(super) fn given(&self) -> Option<Vec<Headers>> {
        match self {
            Self::Spdy(_) => None,
            Self::Channels(channels) => Some(channels.given()),
            Self::Tunnel(_) => None,
        }
    }

    /// The stream on which the peer says its last, where the carrier knows it, and whether one can tell that it is whole.
    pub(super) fn last_word(&self) -> Option<(StreamId, bool)> {
        match self {
            Self::Spdy(_) => None,
            Self::Channels(channels) => channels.last_word(),
            Self::Tunnel(_) => None,
        }
    }

    /// Whether this end can say of a stream that nothing more comes on it.
    pub(super) fn half_closes(&self) -> bool {
        match self {
            Self::Spdy(_) => true,
            Self::Channels(channels) => channels.half_closes(),
            Self::Tunnel(_) => true,
        }
    }

    /// Whether nothing that could still be said at either end would reach anybody.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Spdy(_) => false,
            Self::Channels(channels) => channels.is_over(),
            Self::Tunnel(_) => false,
        }
    }

    /// The next frame of the peer's. `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`] and [`ConnectionError::PeerClosed`] where the peer has said its last, and all that is
    /// wrong with its bytes.
    pub(super) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, ConnectionError> {
        match self {
            Self::Spdy(codec) => Ok(codec.decode(src)?),
            Self::Channels(channels) => channels.decode(src),
            Self::Tunnel(tunnel) => tunnel.decode(src),
        }
    }

    /// Appends a frame of ours. `ended`: what the connection has ended with, if it has.
    pub(super) fn encode(
        &mut self,
        frame: Frame,
        ended: Option<&ConnectionError>,
        out: &mut WriteBatch,
    ) -> io::Result<()> {
        match self {
            Self::Spdy(codec) => {
                let payload = codec.encode_head(frame, out.heads());
                out.push(payload.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?);
                Ok(())
            }
            Self::Channels(channels) => channels.encode(frame, ended, out),
            Self::Tunnel(tunnel) => tunnel.encode(frame, ended, out),
        }
    }

    /// Appends what the peer wants answered below the frames.
    pub(super) fn answer_below(&mut self, out: &mut WriteBatch) -> io::Result<()> {
        match self {
            Self::Tunnel(tunnel) => tunnel.answer(out),
            _ => {
                let _ = out;
                Ok(())
            }
        }
    }

    /// Lets the streams that are given be opened, which costs no byte on the wire.
    pub(super) fn answer(&mut self, connection: &mut Connection, now: Instant) {
        let mut nothing = WriteBatch::default();
        while let Some(frame) = connection.poll_frame(now) {
            // Nothing is written, so that nothing can fail.
            let _ = self.encode(frame, None, &mut nothing);
        }
    }

    /// What a SPDY peer would have answered, and the carrier answers for it.
    pub(super) fn echo(&mut self) -> Option<Frame> {
        match self {
            Self::Spdy(_) => None,
            Self::Channels(channels) => channels.echo(),
            Self::Tunnel(_) => None,
        }
    }

    /// Whether there is something to decode though no byte waits: what the last one began may not be all told.
    pub(super) fn has_more(&self) -> bool {
        match self {
            Self::Spdy(_) => false,
            Self::Channels(channels) => channels.has_more(),
            Self::Tunnel(tunnel) => tunnel.has_more(),
        }
    }

    pub(super) fn is_between_frames(&self) -> bool {
        match self {
            Self::Spdy(codec) => codec.is_between_frames(),
            Self::Channels(channels) => channels.is_between_messages(),
            Self::Tunnel(tunnel) => tunnel.is_between_frames(),
        }
    }

    /// Gives back what comes again by itself when it is needed.
    pub(super) fn release(&mut self) {
        match self {
            Self::Spdy(codec) => codec.release(),
            Self::Channels(channels) => channels.release(),
            Self::Tunnel(tunnel) => tunnel.release(),
        }
    }
}
