//! Channel messages over WebSocket as the frames of a connection.
//!
//! Owns what all such connections do alike: messages, PINGs and Closes. Which streams there are, and what a message on each
//! channel does, is the [`session`](super::session)'s or the [`ports`](super::ports)'. All streams are made at once at both
//! ends, so that what a server sends in its first packet has somewhere to go: what SPDY asks and answers to make a stream is
//! answered here.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};

use super::buffer::WriteBatch;
use super::messages::Messages;
use super::ports::Ports;
use super::session::Session;
use crate::protocol::Subprotocol;
use crate::session::ConnectionError;
use crate::session::Role;
use crate::session::{Config, FlowControl};
use crate::wire::Limits;
use crate::wire::spdy::{Frame, Headers, StreamId};
use crate::wire::websocket::{CloseReason, Fault, Opcode, Piece, WebSocketError};

#[derive(Debug)]
pub(super) struct Channels {
    websocket: Messages,
    layout: Layout,
    echoes: Echoes,
    /// What the last PING of the peer's wants repeated: the last alone is answered (RFC 6455 §5.5.3).
    pong: Bytes,
    /// How the peer ended the connection.
    ended: Option<ConnectionError>,
}

/// Frames that the peer would have sent, were it one of SPDY.
pub(super) type Echoes = VecDeque<Frame>;

/// Which channels there are.
#[derive(Debug)]
enum Layout {
    Session(Session),
    Ports(Ports),
}

impl Channels {
    pub(super) fn session(role: Role, subprotocol: Subprotocol, limits: &Limits) -> Self {
        Self::new(role, Layout::Session(Session::new(role, subprotocol)), limits)
    }

    pub(super) fn ports(role: Role, subprotocol: Subprotocol, ports: &[u16], limits: &Limits) -> Self {
        Self::new(role, Layout::Ports(Ports::new(role, subprotocol, ports)), limits)
    }

    fn new(role: Role, layout: Layout, limits: &Limits) -> Self {
        let mut channels = Self {
            websocket: Messages::new(role, limits),
            layout,
            echoes: Echoes::new(),
            pong: Bytes::new(),
            ended: None,
        };
        if role == Role::Server {
            let offered = channels.streams().into_iter().zip(0..).map(|(headers, at)| syn(id_at(at), headers));
            channels.echoes = offered.collect();
        }
        channels
    }

    /// The subprotocols have no windows, and always the same streams. Many clients answer PINGs only while their program reads, and
    /// Kubernetes' servers ask none of them: their silence is no death.
    pub(super) fn fit(&self, mut config: Config) -> Config {
        config.flow_control = FlowControl::Off;
        if self.websocket.role() == Role::Server {
            config.keepalive_timeout = None;
        }
        config.limits.max_streams = config.limits.max_streams.max(self.layout.count());
        config
    }

    /// The headers of all streams, in the order of their ids: 1, 3, 5, and so on.
    fn streams(&self) -> Vec<Headers> {
        match &self.layout {
            Layout::Session(session) => session.streams(),
            Layout::Ports(ports) => ports.streams(),
        }
    }

    /// The streams that a client has without asking. A server opens none, and need not.
    pub(super) fn given(&self) -> Vec<Headers> {
        if self.websocket.role() == Role::Client { self.streams() } else { Vec::new() }
    }

    /// The stream on which the peer says its last, and whether one can tell that it is whole.
    pub(super) fn last_word(&self) -> Option<(StreamId, bool)> {
        match &self.layout {
            Layout::Session(session) => session.last_word(),
            Layout::Ports(_) => None,
        }
    }

    /// Of a client's streams only stdin has an end, in v5. A server's all have one: that of the session, or of all pairs.
    pub(super) fn half_closes(&self) -> bool {
        self.websocket.role() == Role::Server
            || match &self.layout {
                Layout::Session(session) => session.subprotocol().has_close(),
                Layout::Ports(_) => false,
            }
    }

    pub(super) fn echo(&mut self) -> Option<Frame> {
        self.echoes.pop_front()
    }

    pub(super) fn has_more(&self) -> bool {
        self.ended.is_some() || !self.echoes.is_empty()
    }

    /// Whether a server has nothing more to say on any channel, nor its client anything that could reach anybody.
    pub(super) fn is_over(&self) -> bool {
        match &self.layout {
            // A session says so itself.
            Layout::Session(_) => false,
            Layout::Ports(ports) => ports.is_over(),
        }
    }

    pub(super) fn is_between_messages(&self) -> bool {
        self.websocket.is_between_messages()
    }

    pub(super) fn release(&mut self) {
        self.websocket.release();
        self.echoes.shrink_to_fit();
        self.pong = Bytes::copy_from_slice(&self.pong);
    }

    pub(super) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, ConnectionError> {
        loop {
            if let Some(frame) = self.echoes.pop_front() {
                return Ok(Some(frame));
            }
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            match self.websocket.decode(src)? {
                None => return Ok(None),
                Some(Piece::Data { first, last, text, payload }) => {
                    // Go's servers take either kind from anybody, and Python's client sends strings as text. Nobody's
                    // server sends text where bytes were agreed on.
                    if text && self.websocket.role() == Role::Client && !self.is_base64() {
                        return Err(WebSocketError::from(Fault::Text).into());
                    }
                    let said = match &mut self.layout {
                        Layout::Session(session) => session.decode(first, last, payload)?,
                        Layout::Ports(ports) => ports.decode(first, last, payload, &mut self.echoes)?,
                    };
                    if said.is_some() {
                        return Ok(said);
                    }
                }
                Some(Piece::Ping(payload)) => {
                    self.pong = payload;
                    // One id for all: the connection queues one answer an id.
                    return Ok(Some(Frame::Ping(if self.websocket.role() == Role::Client { 0 } else { 1 })));
                }
                Some(Piece::Pong(payload)) => {
                    let id = payload.first_chunk().map(|id| u32::from_be_bytes(*id));
                    if let Some(id) = id.filter(|&id| payload.len() == 4 && self.is_ours(id)) {
                        return Ok(Some(Frame::Ping(id)));
                    }
                }
                Some(Piece::Close(reason)) => self.end(reason),
            }
        }
    }

    fn end(&mut self, reason: Option<CloseReason>) {
        let ended = self.websocket.ended(reason);
        match &self.layout {
            Layout::Session(session) => session.end(&ended, &mut self.echoes),
            Layout::Ports(ports) => ports.end(&ended, &mut self.echoes),
        }
        self.ended = Some(ended);
    }

    pub(super) fn encode(
        &mut self,
        frame: Frame,
        ended: Option<&ConnectionError>,
        out: &mut WriteBatch,
    ) -> io::Result<()> {
        match frame {
            Frame::Ping(id) if self.is_ours(id) => self.websocket.put(Opcode::Ping, &id.to_be_bytes(), out),
            Frame::Ping(_) => {
                let payload = self.pong.clone();
                self.websocket.put(Opcode::Pong, &payload, out)
            }
            Frame::GoAway { status, .. } => self.websocket.put_close(status, ended, out),
            Frame::Settings(_) | Frame::Headers { .. } | Frame::WindowUpdate { .. } => Ok(()),
            frame => {
                let mut wire = Wire { websocket: &mut self.websocket, subprotocol: self.layout.subprotocol(), out };
                match &mut self.layout {
                    Layout::Session(session) => session.encode(frame, &mut wire, &mut self.echoes),
                    Layout::Ports(ports) => ports.encode(frame, &mut wire, &mut self.echoes),
                }
            }
        }
    }

    fn is_base64(&self) -> bool {
        self.layout.subprotocol().is_base64()
    }

    /// Whether a PING with this id is one that this end sends.
    fn is_ours(&self, id: u32) -> bool {
        self.websocket.role().sends_ping(id)
    }
}

impl Layout {
    /// How many streams there are.
    fn count(&self) -> usize {
        match self {
            Self::Session(_) => Session::COUNT,
            Self::Ports(ports) => ports.count(),
        }
    }

    fn subprotocol(&self) -> Subprotocol {
        match self {
            Self::Session(session) => session.subprotocol(),
            Self::Ports(ports) => ports.subprotocol(),
        }
    }
}

/// Where messages go.
pub(super) struct Wire<'a> {
    websocket: &'a mut Messages,
    subprotocol: Subprotocol,
    out: &'a mut WriteBatch,
}

impl Wire<'_> {
    pub(super) fn role(&self) -> Role {
        self.websocket.role()
    }

    /// A message on a channel: its bytes are not copied but to be masked, or to become base64.
    pub(super) fn put(&mut self, channel: u8, data: Bytes) -> io::Result<()> {
        if self.subprotocol.is_base64() {
            let mut message = BytesMut::with_capacity(self.subprotocol.encoded_len(data.len()));
            self.subprotocol.encode_numbered(channel, &data, &mut message);
            return self.websocket.put_message(Opcode::Text, &[], message.freeze(), self.out);
        }
        self.websocket.put_message(Opcode::Binary, &[self.subprotocol.number_byte(channel)], data, self.out)
    }

    /// A message that is no channel's.
    pub(super) fn put_raw(&mut self, message: &[u8]) -> io::Result<()> {
        self.websocket.put(Opcode::Binary, message, self.out)
    }
}

/// The id of a stream by its place.
pub(super) fn id_at(at: usize) -> StreamId {
    StreamId::new(u32::try_from(at).unwrap_or(0).saturating_mul(2).saturating_add(1))
}

/// The place of a stream by its id.
pub(super) fn place_of(id: StreamId) -> usize {
    usize::try_from(id.get() / 2).unwrap_or(usize::MAX)
}

pub(super) fn fin(id: StreamId) -> Frame {
    Frame::Data { id, fin: true, data: Bytes::new() }
}

fn syn(id: StreamId, headers: Headers) -> Frame {
    Frame::SynStream {
        id,
        associated: StreamId::SESSION,
        priority: 0,
        slot: 0,
        fin: false,
        unidirectional: false,
        headers,
    }
}
