//! The carrier of a connection, chosen by the negotiated protocol.
//!
//! This file owns the choice, and hides it: modules above see the same messages, streams and endings with every
//! carrier.

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
            Some(Protocol::WebSocketExec(subprotocol)) => {
                Kind::Channels(Box::new(Channels::exec(role, subprotocol, &config.websocket)))
            }
            Some(Protocol::LegacyPortForward(subprotocol)) => {
                Kind::Channels(Box::new(Channels::legacy_ports(role, subprotocol, ports, &config.websocket)))
            }
            Some(Protocol::TunneledPortForward) => Kind::Tunnel(Box::new(Tunnel::new(role, config))),
            _ => Kind::Spdy(Box::new(Codec::new(config.spdy.clone()))),
        })
    }

    /// Adjusts a configuration to the carrier.
    pub(crate) fn fit(&self, config: Config) -> Config {
        match &self.0 {
            Kind::Spdy(_) => config,
            Kind::Channels(channels) => channels.fit(config),
            Kind::Tunnel(_) => config,
        }
    }

    /// The streams that both ends have from the start. `None` if both ends open streams as they need.
    pub(crate) fn given(&self) -> Option<Vec<Given>> {
        match &self.0 {
            Kind::Channels(channels) => Some(channels.streams()),
            Kind::Spdy(_) | Kind::Tunnel(_) => None,
        }
    }

    /// The stream with the peer's last word, if the carrier knows it, and whether the end of that word can be
    /// recognised.
    pub(crate) fn last_word(&self) -> Option<(StreamId, bool)> {
        match &self.0 {
            Kind::Spdy(_) => None,
            Kind::Channels(channels) => channels.last_word(),
            Kind::Tunnel(_) => None,
        }
    }

    /// Whether this end can half-close a stream.
    pub(crate) fn half_closes(&self) -> bool {
        match &self.0 {
            Kind::Spdy(_) => true,
            Kind::Channels(channels) => channels.half_closes(),
            Kind::Tunnel(_) => true,
        }
    }

    /// Whether this end has sent everything, and further messages of the peer would be ignored.
    pub(crate) fn is_over(&self) -> bool {
        match &self.0 {
            Kind::Spdy(_) => false,
            Kind::Channels(channels) => channels.is_over(),
            Kind::Tunnel(_) => false,
        }
    }

    /// Decodes the peer's next message. Returns `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`] and [`ConnectionError::PeerClosed`] after the peer's Close, and an error for bytes
    /// that are not valid.
    pub(crate) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Message>, ConnectionError> {
        match &mut self.0 {
            Kind::Spdy(codec) => Ok(codec.decode(src)?.map(Message::from)),
            Kind::Channels(channels) => channels.decode(src),
            Kind::Tunnel(tunnel) => tunnel.decode(src),
        }
    }

    /// Encodes a message to `out`. `ended`: the error that the connection ended with, if it has ended.
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

    /// Encodes the answer to a WebSocket PING below SPDY, if one is due.
    pub(crate) fn answer_below(&mut self, out: &mut WriteBatch) -> io::Result<()> {
        match &mut self.0 {
            Kind::Tunnel(tunnel) => tunnel.answer(out),
            Kind::Spdy(_) | Kind::Channels(_) => Ok(()),
        }
    }

    /// Whether [`decode`](Self::decode) may return a message although the buffer is empty: the last bytes may have
    /// contained several.
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

    /// Frees buffers that are allocated again when they are needed.
    pub(crate) fn release(&mut self) {
        match &mut self.0 {
            Kind::Spdy(codec) => codec.release(),
            Kind::Channels(channels) => channels.release(),
            Kind::Tunnel(tunnel) => tunnel.release(),
        }
    }
}
