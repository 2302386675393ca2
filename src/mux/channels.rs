//! Channel messages over WebSocket as the frames of a connection.
//!
//! Owns what each frame becomes on such a connection, and what each message does. The five channels are five streams
//! with fixed ids, made at once at both ends, so that what a server sends in its first packet has somewhere to go: what
//! SPDY asks and answers to make a stream is answered here.
//!
//! | frame | a client's message | a server's |
//! |---|---|---|
//! | DATA | the channel and its bytes | the same |
//! | FIN on stdin | v5's CLOSE, before v5 nothing | – |
//! | any other FIN, RST_STREAM | nothing: only the connection ends | nothing |
//! | PING | PING, or PONG | the same |
//! | GOAWAY | Close | Close |

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};

use super::buffer::WriteBatch;
use super::messages::Messages;
use crate::channel::{self, Channel, Event, Subprotocol};
use crate::config::{Config, FlowControl, Limits};
use crate::error::ConnectionError;
use crate::spdy::{Frame, Headers, Role, RstStatus, StreamId};
use crate::websocket::{CloseReason, Fault, Opcode, Piece, WebSocketError};

/// The streams of a connection, in the order of their ids: 1, 3, 5, 7, 9.
const STREAMS: [Channel; 5] = [Channel::Error, Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Resize];
/// Their types, as SPDY's headers name them.
const TYPES: [&str; 5] = ["error", "stdin", "stdout", "stderr", "resize"];

#[derive(Debug)]
pub(super) struct Channels {
    subprotocol: Subprotocol,
    websocket: Messages,
    messages: channel::Decoder,
    echoes: VecDeque<Frame>,
    /// What the last PING of the peer's wants repeated: the last alone is answered (RFC 6455 §5.5.3).
    pong: Bytes,
    /// A server's streams that are neither taken nor refused yet, and the lowest taken that it writes.
    unsettled: Vec<StreamId>,
    greeted: Option<Channel>,
    /// How the peer ended the connection.
    ended: Option<ConnectionError>,
}

impl Channels {
    pub(super) fn new(role: Role, subprotocol: Subprotocol, limits: &Limits) -> Self {
        let server = role == Role::Server;
        let offered = TYPES.iter().enumerate().map(|(at, kind)| syn(at, kind));
        let echoes = if server { offered.collect() } else { VecDeque::new() };
        Self {
            subprotocol,
            websocket: Messages::new(role, limits),
            messages: if server {
                channel::Decoder::server(subprotocol)
            } else {
                channel::Decoder::client(subprotocol)
            },
            echoes,
            pong: Bytes::new(),
            unsettled: (0..STREAMS.len()).map(id_at).collect(),
            greeted: None,
            ended: None,
        }
    }

    /// The subprotocols have no windows, and always five streams.
    pub(super) fn fit(mut config: Config) -> Config {
        config.flow_control = FlowControl::Off;
        config.limits.max_streams = config.limits.max_streams.max(STREAMS.len());
        config
    }

    pub(super) fn given(&self) -> Option<&'static [&'static str]> {
        // A server opens none, and need not.
        Some(if self.websocket.role() == Role::Client { &TYPES } else { &[] })
    }

    pub(super) fn echo(&mut self) -> Option<Frame> {
        self.echoes.pop_front()
    }

    pub(super) fn has_more(&self) -> bool {
        self.ended.is_some() || !self.echoes.is_empty()
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
                    if text && self.websocket.role() == Role::Client && !self.subprotocol.is_base64() {
                        return Err(WebSocketError::from(Fault::Text).into());
                    }
                    match self.messages.decode(first, last, payload)? {
                        None => {}
                        Some(Event::Data { channel, data }) => {
                            return Ok(Some(Frame::Data { id: id_of(channel), fin: false, data }));
                        }
                        // The outputs are not the client's to close.
                        Some(Event::Close(channel)) if channel.is_clients() => return Ok(Some(fin(channel))),
                        Some(Event::Close(_)) => {}
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
        if matches!(ended, ConnectionError::Closed) && self.websocket.role() == Role::Client {
            // The outputs have no end of their own.
            let outputs = [Channel::Stdout, Channel::Stderr, Channel::Error];
            self.echoes.extend(outputs.map(fin));
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
            Frame::Data { id, fin, data } => {
                let channel = channel_of(id).filter(|channel| self.sends_on(*channel));
                let Some(channel) = channel else {
                    if !data.is_empty() {
                        self.echoes.push_back(Frame::RstStream { id, status: RstStatus::INVALID_STREAM });
                    }
                    return Ok(());
                };
                if !data.is_empty() {
                    self.put_message(channel, data, out)?;
                }
                if fin
                    && channel == Channel::Stdin
                    && let Some(close) = self.subprotocol.encode_close(channel)
                {
                    self.websocket.put(Opcode::Binary, &close, out)?;
                }
            }
            Frame::SynStream { id, .. } => self.echoes.push_back(match channel_of(id) {
                Some(_) => Frame::SynReply { id, fin: false, headers: Headers::new() },
                None => Frame::RstStream { id, status: RstStatus::REFUSED_STREAM },
            }),
            Frame::SynReply { id, .. } => {
                let taken = channel_of(id).filter(|channel| self.sends_on(*channel));
                self.greeted = self.greeted.into_iter().chain(taken).min_by_key(|channel| channel.number());
                self.settle(id, out)?;
            }
            Frame::RstStream { id, .. } => self.settle(id, out)?,
            Frame::Ping(id) if self.is_ours(id) => self.websocket.put(Opcode::Ping, &id.to_be_bytes(), out)?,
            Frame::Ping(_) => {
                let payload = self.pong.clone();
                self.websocket.put(Opcode::Pong, &payload, out)?;
            }
            Frame::GoAway { status, .. } => self.websocket.put_close(status, ended, out)?,
            Frame::Settings(_) | Frame::Headers { .. } | Frame::WindowUpdate { .. } => {}
        }
        Ok(())
    }

    /// Once it is settled which streams there are, a server says that it is there, with an empty message on the lowest
    /// channel that it writes. Clients wait for that.
    fn settle(&mut self, id: StreamId, out: &mut WriteBatch) -> io::Result<()> {
        let before = self.unsettled.len();
        self.unsettled.retain(|unsettled| *unsettled != id);
        match self.greeted {
            Some(channel) if before == 1 && self.unsettled.is_empty() && self.websocket.role() == Role::Server => {
                self.put_message(channel, Bytes::new(), out)
            }
            _ => Ok(()),
        }
    }

    fn put_message(&mut self, channel: Channel, data: Bytes, out: &mut WriteBatch) -> io::Result<()> {
        if self.subprotocol.is_base64() {
            let mut message = BytesMut::with_capacity(self.subprotocol.encoded_len(data.len()));
            self.subprotocol.encode(channel, &data, &mut message);
            return self.websocket.put_message(Opcode::Text, &[], message.freeze(), out);
        }
        self.websocket.put_message(Opcode::Binary, &[self.subprotocol.channel_byte(channel)], data, out)
    }

    fn sends_on(&self, channel: Channel) -> bool {
        channel.is_clients() == (self.websocket.role() == Role::Client)
    }

    /// Whether a PING with this id is one that this end sends.
    fn is_ours(&self, id: u32) -> bool {
        (id & 1 == 1) == (self.websocket.role() == Role::Client)
    }
}

fn id_of(channel: Channel) -> StreamId {
    id_at(STREAMS.iter().position(|known| *known == channel).unwrap_or(0))
}

fn id_at(at: usize) -> StreamId {
    StreamId::new(u32::try_from(at).unwrap_or(0).saturating_mul(2).saturating_add(1))
}

fn channel_of(id: StreamId) -> Option<Channel> {
    STREAMS.into_iter().find(|channel| id_of(*channel) == id)
}

fn fin(channel: Channel) -> Frame {
    Frame::Data { id: id_of(channel), fin: true, data: Bytes::new() }
}

fn syn(at: usize, kind: &str) -> Frame {
    Frame::SynStream {
        id: id_at(at),
        associated: StreamId::SESSION,
        priority: 0,
        slot: 0,
        fin: false,
        unidirectional: false,
        headers: Headers::from_iter([("streamtype", kind)]),
    }
}
