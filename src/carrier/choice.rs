//! Which carrier a connection has.
//!
//! Owns the choice. To everything above all carriers have the same messages, streams and endings.

use std::io;

use bytes::BytesMut;
use tokio_util::codec::Decoder;

use super::batch::WriteBatch;
use super::channels::Channels;
use super::tunnel::Tunnel;
use crate::protocol::Protocol;
use crate::session::{Config, ConnectionError, Given, Message, Role};
use crate::wire::spdy::{Codec, StreamId};

/// Reads and writes the messages of one connection.
#[derive(Debug)]
pub(crate) struct Carrier(Kind);

#[derive(Debug)]
enum Kind {
    Spdy(Box<Codec>),
    Channels(Box<Channels>),
    Tunnel(Box<Tunnel>),
}

impl Carrier {
    pub(crate) fn new(role: Role, protocol: Option<Protocol>, ports: &[u16], config: &Config) -> Self {
        Self(match protocol {
            Some(Protocol::Channel(subprotocol)) => {
                Kind::Channels(Box::new(Channels::exec(role, subprotocol, &config.limits)))
            }
            Some(Protocol::PortChannels(subprotocol)) => {
                Kind::Channels(Box::new(Channels::legacy_ports(role, subprotocol, ports, &config.limits)))
            }
            Some(Protocol::Tunnel) => Kind::Tunnel(Box::new(Tunnel::new(role, config))),
            _ => Kind::Spdy(Box::new(Codec::with_compression(config.limits.clone(), config.header_compression))),
        })
    }

    /// What of a configuration fits the carrier.
    pub(crate) fn fit(&self, config: Config) -> Config {
        match &self.0 {
            Kind::Spdy(_) => config,
            Kind::Channels(channels) => channels.fit(config),
            Kind::Tunnel(_) => config,
        }
    }

    /// All streams there are, where both ends have them from the start. `None`: either end opens what it likes.
    pub(crate) fn given(&self) -> Option<Vec<Given>> {
        match &self.0 {
            Kind::Channels(channels) => Some(channels.streams()),
            Kind::Spdy(_) | Kind::Tunnel(_) => None,
        }
    }

    /// The stream on which the peer says its last, where the carrier knows it, and whether one can tell that it is whole.
    pub(crate) fn last_word(&self) -> Option<(StreamId, bool)> {
        match &self.0 {
            Kind::Spdy(_) => None,
            Kind::Channels(channels) => channels.last_word(),
            Kind::Tunnel(_) => None,
        }
    }

    /// Whether this end can say of a stream that nothing more comes on it.
    pub(crate) fn half_closes(&self) -> bool {
        match &self.0 {
            Kind::Spdy(_) => true,
            Kind::Channels(channels) => channels.half_closes(),
            Kind::Tunnel(_) => true,
        }
    }

    /// Whether nothing that could still be said at either end would reach anybody.
    pub(crate) fn is_over(&self) -> bool {
        match &self.0 {
            Kind::Spdy(_) => false,
            Kind::Channels(channels) => channels.is_over(),
            Kind::Tunnel(_) => false,
        }
    }

    /// The next frame of the peer's. `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`] and [`ConnectionError::PeerClosed`] where the peer has said its last, and all that is
    /// wrong with its bytes.
    pub(crate) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Message>, ConnectionError> {
        match &mut self.0 {
            Kind::Spdy(codec) => Ok(codec.decode(src)?.map(Message::from)),
            Kind::Channels(channels) => channels.decode(src),
            Kind::Tunnel(tunnel) => tunnel.decode(src),
        }
    }

    /// Appends a frame of ours. `ended`: what the connection has ended with, if it has.
    pub(crate) fn encode(
        &mut self,
        message: Message,
        ended: Option<&ConnectionError>,
        out: &mut WriteBatch,
    ) -> io::Result<()> {
        match &mut self.0 {
            Kind::Spdy(codec) => {
                let payload = codec.encode_head(message.into(), out.heads());
                out.push(payload.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?);
                Ok(())
            }
            Kind::Channels(channels) => channels.encode(message, ended, out),
            Kind::Tunnel(tunnel) => tunnel.encode(message, ended, out),
        }
    }

    /// Appends what the peer wants answered below the frames.
    pub(crate) fn answer_below(&mut self, out: &mut WriteBatch) -> io::Result<()> {
        match &mut self.0 {
            Kind::Tunnel(tunnel) => tunnel.answer(out),
            _ => {
                let _ = out;
                Ok(())
            }
        }
    }

    /// Whether there is something to decode though no byte waits: what the last one began may not be all told.
    pub(crate) fn has_more(&self) -> bool {
        match &self.0 {
            Kind::Spdy(_) => false,
            Kind::Channels(channels) => channels.has_more(),
            Kind::Tunnel(tunnel) => tunnel.has_more(),
        }
    }

    pub(crate) fn is_between_frames(&self) -> bool {
        match &self.0 {
            Kind::Spdy(codec) => codec.is_between_frames(),
            Kind::Channels(channels) => channels.is_between_messages(),
            Kind::Tunnel(tunnel) => tunnel.is_between_frames(),
        }
    }

    /// Gives back what comes again by itself when it is needed.
    pub(crate) fn release(&mut self) {
        match &mut self.0 {
            Kind::Spdy(codec) => codec.release(),
            Kind::Channels(channels) => channels.release(),
            Kind::Tunnel(tunnel) => tunnel.release(),
        }
    }
}
