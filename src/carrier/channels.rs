//! WebSocket channels: the parts that exec and legacy port-forward share.
//!
//! This module owns PINGs, Closes, and the two kinds of messages, bytes and base64 text. It must not know which
//! channels exist or what their messages mean, which is the job of [`exec`](super::exec) and
//! [`legacy_ports`](super::legacy_ports). Both ends have all streams from the start, so that data in the server's first
//! packet finds its stream.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};

use super::batch::WriteBatch;
use super::exec;
use super::legacy_ports;
use super::messages::Messages;
use super::wire::Wire;
use crate::protocol::Subprotocol;
use crate::session::{Config, ConnectionError, Given, Message, Role};
use crate::wire::channel::{ChannelError, data_len};
use crate::wire::spdy::StreamId;
use crate::wire::websocket::{CloseReason, Fault, Opcode, Piece, WebSocketError};
use crate::wire::{FlowControl, WebSocketConfig};

#[derive(Debug)]
pub(super) struct Channels {
    websocket: Messages,
    subprotocol: Subprotocol,
    form: Form,
    /// Further messages from the last WebSocket message or Close, which [`decode`](Self::decode) returns first.
    said: VecDeque<Message>,
    /// The payload of the peer's last PING. Only the last PING is answered (RFC 6455 §5.5.3).
    pong: Bytes,
    /// How the peer ended the connection, if it has.
    ended: Option<ConnectionError>,
}

/// Which channels exist.
#[derive(Debug)]
enum Form {
    Exec(exec::Reader, exec::Writer),
    LegacyPorts(legacy_ports::Reader, legacy_ports::Writer),
}

impl Channels {
    /// Creates the carrier of an exec or attach session.
    pub(super) fn exec(role: Role, subprotocol: Subprotocol, config: &WebSocketConfig) -> Self {
        let form = Form::Exec(exec::Reader::new(role, subprotocol), exec::Writer::new(role, subprotocol));
        Self::new(role, subprotocol, form, config)
    }

    /// Creates the carrier of a legacy port-forward.
    pub(super) fn legacy_ports(role: Role, subprotocol: Subprotocol, ports: &[u16], config: &WebSocketConfig) -> Self {
        let ports = ports.get(..subprotocol.max_ports()).unwrap_or(ports);
        let reader = legacy_ports::Reader::new(role, subprotocol, ports);
        Self::new(role, subprotocol, Form::LegacyPorts(reader, legacy_ports::Writer::new(role, ports)), config)
    }

    fn new(role: Role, subprotocol: Subprotocol, form: Form, config: &WebSocketConfig) -> Self {
        Self {
            websocket: Messages::new(role, config),
            subprotocol,
            form,
            said: VecDeque::new(),
            pong: Bytes::new(),
            ended: None,
        }
    }

    /// Adjusts a configuration: channels have no flow control, and a fixed set of streams. The longest message includes
    /// its channel byte and is counted in base64, because peers limit whole messages. A server does not judge its client
    /// by silence. Many clients answer PINGs only while their program reads, and Kubernetes' servers send none.
    pub(super) fn fit(&self, mut config: Config) -> Config {
        config.spdy.flow_control = FlowControl::Off;
        config.max_data_frame = data_len(self.subprotocol, config.max_data_frame);
        if self.websocket.role() == Role::Server {
            config.keepalive_timeout = None;
        }
        config.spdy.max_streams = config.spdy.max_streams.max(self.stream_count());
        config
    }

    fn stream_count(&self) -> usize {
        match &self.form {
            Form::Exec(..) => exec::STREAM_COUNT,
            Form::LegacyPorts(_, writer) => writer.count(),
        }
    }

    /// All streams, in the order of their ids: 1, 3, 5 and so on.
    pub(super) fn streams(&self) -> Vec<Given> {
        match &self.form {
            Form::Exec(_, writer) => writer.streams(),
            Form::LegacyPorts(_, writer) => writer.streams(),
        }
    }

    /// The stream with the peer's last word, and whether the end of that word can be recognised.
    pub(super) fn last_word(&self) -> Option<(StreamId, bool)> {
        match &self.form {
            Form::Exec(reader, _) => reader.last_word(),
            Form::LegacyPorts(..) => None,
        }
    }

    /// Whether this end can half-close streams. A client can do so only for stdin, in v5. All streams of a server end
    /// with the session, or with all pairs.
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

    /// Whether a server has sent everything on all channels, and would ignore further data of its client.
    pub(super) fn is_over(&self) -> bool {
        match &self.form {
            // The exec session ends the connection itself.
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
                    check_text(text, self.websocket.role(), self.subprotocol)?;
                    if let Some(message) = self.read(first, last, payload)? {
                        return Ok(Some(message));
                    }
                }
                Some(Piece::Ping(payload)) => {
                    self.pong = payload;
                    // All PINGs get the same id, because the connection queues one answer for each id.
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

    /// Whether this end sends PINGs with this id.
    fn is_ours(&self, id: u32) -> bool {
        self.websocket.role().sends_ping(id)
    }
}

/// Checks the kind of a message that came to the end with this role. Go's servers accept text and binary messages from
/// every client, and Python's client sends strings as text. No known server sends text in a subprotocol of binary
/// messages.
pub(crate) fn check_text(text: bool, role: Role, subprotocol: Subprotocol) -> Result<(), WebSocketError> {
    if text && role == Role::Client && !subprotocol.is_base64() { Err(Fault::Text.into()) } else { Ok(()) }
}
