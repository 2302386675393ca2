//! Channel messages over WebSocket: what all forms of them do alike.
//!
//! Owns PINGs, Closes and the two kinds of messages, bytes and base64 text. Which channels there are, and what a message on each of them
//! says, is for [`exec`](super::exec) and [`legacy_ports`](super::legacy_ports). Both ends have all streams from the start, so that what a
//! server sends in its first packet has somewhere to go.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};

use super::batch::WriteBatch;
use super::exec;
use super::legacy_ports;
use super::messages::Messages;
use super::wire::Wire;
use crate::protocol::Subprotocol;
use crate::session::{Config, ConnectionError, FlowControl, Given, Message, Role};
use crate::wire::Limits;
use crate::wire::channel::ChannelError;
use crate::wire::spdy::StreamId;
use crate::wire::websocket::{CloseReason, Fault, Opcode, Piece, WebSocketError};

#[derive(Debug)]
pub(super) struct Channels {
    websocket: Messages,
    subprotocol: Subprotocol,
    form: Form,
    /// Messages that one WebSocket message, or the Close, has said together.
    said: VecDeque<Message>,
    /// What the last PING of the peer's wants repeated: the last alone is answered (RFC 6455 §5.5.3).
    pong: Bytes,
    /// How the peer ended the connection.
    ended: Option<ConnectionError>,
}

/// Which channels there are.
#[derive(Debug)]
enum Form {
    Exec(exec::Reader, exec::Writer),
    LegacyPorts(legacy_ports::Reader, legacy_ports::Writer),
}

impl Channels {
    /// Exec or attach.
    pub(super) fn exec(role: Role, subprotocol: Subprotocol, limits: &Limits) -> Self {
        let form = Form::Exec(exec::Reader::new(role, subprotocol), exec::Writer::new(role, subprotocol));
        Self::new(role, subprotocol, form, limits)
    }

    /// Legacy port-forward.
    pub(super) fn legacy_ports(role: Role, subprotocol: Subprotocol, ports: &[u16], limits: &Limits) -> Self {
        let ports = ports.get(..subprotocol.max_ports()).unwrap_or(ports);
        let reader = legacy_ports::Reader::new(role, subprotocol, ports);
        Self::new(role, subprotocol, Form::LegacyPorts(reader, legacy_ports::Writer::new(role, ports)), limits)
    }

    fn new(role: Role, subprotocol: Subprotocol, form: Form, limits: &Limits) -> Self {
        Self {
            websocket: Messages::new(role, limits),
            subprotocol,
            form,
            said: VecDeque::new(),
            pong: Bytes::new(),
            ended: None,
        }
    }

    /// Channels have no windows, and always the same streams. Many clients answer PINGs only while their program reads, and Kubernetes'
    /// servers send them none: their silence is no death.
    pub(super) fn fit(&self, mut config: Config) -> Config {
        config.flow_control = FlowControl::Off;
        if self.websocket.role() == Role::Server {
            config.keepalive_timeout = None;
        }
        config.limits.max_streams = config.limits.max_streams.max(self.streams().len());
        config
    }

    /// All streams there are, in the order of their ids: 1, 3, 5, and so on.
    pub(super) fn streams(&self) -> Vec<Given> {
        match &self.form {
            Form::Exec(_, writer) => writer.streams(),
            Form::LegacyPorts(_, writer) => writer.streams(),
        }
    }

    /// The stream on which the peer says its last, and whether its end can be told.
    pub(super) fn last_word(&self) -> Option<(StreamId, bool)> {
        match &self.form {
            Form::Exec(reader, _) => reader.last_word(),
            Form::LegacyPorts(..) => None,
        }
    }

    /// Of a client's streams only stdin has an end, in v5. A server's all have one: that of the session, or of all pairs.
    pub(super) fn half_closes(&self) -> bool {
        self.websocket.role() == Role::Server
            || match &self.form {
                Form::Exec(..) => self.subprotocol.has_close(),
                Form::LegacyPorts(..) => false,
            }
    }

    pub(super) fn has_more(&self) -> bool {
        self.ended.is_some() || !self.said.is_empty()
    }

    /// Whether a server has nothing more to say on any channel, nor its client anything that could reach anybody.
    pub(super) fn is_over(&self) -> bool {
        match &self.form {
            // The session says so itself.
            Form::Exec(..) => false,
            Form::LegacyPorts(_, writer) => writer.is_over(),
        }
    }

    pub(super) fn is_between_messages(&self) -> bool {
        self.websocket.is_between_messages()
    }

    pub(super) fn release(&mut self) {
        self.websocket.release();
        self.said.shrink_to_fit();
        self.pong = Bytes::copy_from_slice(&self.pong);
    }

    pub(super) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Message>, ConnectionError> {
        loop {
            if let Some(message) = self.said.pop_front() {
                return Ok(Some(message));
            }
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            match self.websocket.decode(src)? {
                None => return Ok(None),
                Some(Piece::Data { first, last, text, payload }) => {
                    // Go's servers take either kind from anybody, and Python's client sends strings as text. Nobody's
                    // server sends text where bytes were agreed on.
                    if text && self.websocket.role() == Role::Client && !self.subprotocol.is_base64() {
                        return Err(WebSocketError::from(Fault::Text).into());
                    }
                    if let Some(message) = self.read(first, last, payload)? {
                        return Ok(Some(message));
                    }
                }
                Some(Piece::Ping(payload)) => {
                    self.pong = payload;
                    // One id for all: the connection queues one answer an id.
                    return Ok(Some(Message::Ping(if self.websocket.role() == Role::Client { 0 } else { 1 })));
                }
                Some(Piece::Pong(payload)) => {
                    let id = payload.first_chunk().map(|id| u32::from_be_bytes(*id));
                    if let Some(id) = id.filter(|&id| payload.len() == 4 && self.is_ours(id)) {
                        return Ok(Some(Message::Ping(id)));
                    }
                }
                Some(Piece::Close(reason)) => self.end(reason),
            }
        }
    }

    fn read(&mut self, first: bool, last: bool, payload: Bytes) -> Result<Option<Message>, ChannelError> {
        match &mut self.form {
            Form::Exec(reader, _) => reader.read(first, last, payload),
            Form::LegacyPorts(reader, _) => {
                reader.read(first, last, payload, &mut self.said)?;
                Ok(self.said.pop_front())
            }
        }
    }

    fn end(&mut self, reason: Option<CloseReason>) {
        let ended = self.websocket.ended(reason);
        match &self.form {
            Form::Exec(reader, _) => reader.end(&ended, &mut self.said),
            Form::LegacyPorts(reader, _) => reader.end(&ended, &mut self.said),
        }
        self.ended = Some(ended);
    }

    pub(super) fn encode(
        &mut self,
        message: Message,
        ended: Option<&ConnectionError>,
        out: &mut WriteBatch,
    ) -> io::Result<()> {
        match message {
            Message::Ping(id) if self.is_ours(id) => self.websocket.put(Opcode::Ping, &id.to_be_bytes(), out),
            Message::Ping(_) => {
                let payload = self.pong.clone();
                self.websocket.put(Opcode::Pong, &payload, out)
            }
            Message::Goodbye { status, .. } => self.websocket.put_close(status, ended, out),
            Message::Settings(_) | Message::Headers { .. } | Message::Window { .. } => Ok(()),
            message => {
                let mut wire = Wire::new(&mut self.websocket, self.subprotocol, out);
                match &mut self.form {
                    Form::Exec(_, writer) => writer.write(message, &mut wire),
                    Form::LegacyPorts(_, writer) => writer.write(message, &mut wire),
                }
            }
        }
    }

    /// Whether a PING with this id is one that this end sends.
    fn is_ours(&self, id: u32) -> bool {
        self.websocket.role().sends_ping(id)
    }
}
