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

use bytes::{BufMut, Bytes, BytesMut};

use super::buffer::WriteBatch;
use crate::channel::{self, Channel, ChannelError, Event, Subprotocol};
use crate::config::{Config, FlowControl, Limits};
use crate::error::ConnectionError;
use crate::spdy::{Frame, Headers, Role, RstStatus, StreamId};
use crate::websocket::{self, Fault, Masks, Opcode, Piece, WebSocketError, close_payload, encode_head, mask};

/// The streams of a connection, in the order of their ids: 1, 3, 5, 7, 9.
const STREAMS: [Channel; 5] = [Channel::Error, Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Resize];
/// Their types, as SPDY's headers name them.
const TYPES: [&str; 5] = ["error", "stdin", "stdout", "stderr", "resize"];

#[derive(Debug)]
pub(super) struct Channels {
    role: Role,
    subprotocol: Subprotocol,
    frames: websocket::Decoder,
    messages: channel::Decoder,
    /// A client's.
    masks: Option<Masks>,
    echoes: VecDeque<Frame>,
    /// What the last PING of the peer's wants repeated: the last alone is answered (RFC 6455 §5.5.3).
    pong: Bytes,
    /// A server's streams that are neither taken nor refused yet, and the lowest taken that it writes.
    unsettled: usize,
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
            role,
            subprotocol,
            frames: websocket::Decoder::new(server, limits.max_message, limits.max_fragments),
            messages: if server {
                channel::Decoder::server(subprotocol)
            } else {
                channel::Decoder::client(subprotocol)
            },
            masks: (!server).then(Masks::default),
            echoes,
            pong: Bytes::new(),
            unsettled: STREAMS.len(),
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
        (self.role == Role::Client).then_some(&TYPES)
    }

    pub(super) fn echo(&mut self) -> Option<Frame> {
        self.echoes.pop_front()
    }

    pub(super) fn is_between_messages(&self) -> bool {
        self.frames.is_between_messages()
    }

    pub(super) fn release(&mut self) {
        self.frames.release();
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
            match self.frames.decode(src)? {
                None => return Ok(None),
                Some(Piece::Data { first, last, text, payload }) => {
                    // Go's servers take either kind from anybody, and Python's client sends strings as text. Nobody's
                    // server sends text where bytes were agreed on.
                    if text && self.role == Role::Client && !self.subprotocol.is_base64() {
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
                    return Ok(Some(Frame::Ping(if self.role == Role::Client { 0 } else { 1 })));
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

    /// Only 1000 says that all is well, as for client-go; to a server it is all the same.
    fn end(&mut self, reason: Option<websocket::CloseReason>) {
        let (code, reason) = reason.map_or((None, String::new()), |reason| (Some(reason.code), reason.reason));
        self.ended = Some(match (code, self.role) {
            (Some(NORMAL), Role::Client) => {
                let outputs = [Channel::Stdout, Channel::Stderr, Channel::Error];
                self.echoes.extend(outputs.map(fin));
                ConnectionError::Closed
            }
            (None | Some(NORMAL | GOING_AWAY), Role::Server) => ConnectionError::Closed,
            _ => ConnectionError::PeerClosed { code, reason },
        });
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
                    self.put(Opcode::Binary, &close, out)?;
                }
            }
            Frame::SynStream { id, .. } => self.echoes.push_back(match channel_of(id) {
                Some(_) => Frame::SynReply { id, fin: false, headers: Headers::new() },
                None => Frame::RstStream { id, status: RstStatus::REFUSED_STREAM },
            }),
            Frame::SynReply { id, .. } => {
                let taken = channel_of(id).filter(|channel| self.sends_on(*channel));
                self.greeted = self.greeted.into_iter().chain(taken).min_by_key(|channel| channel.number());
                self.settle(out)?;
            }
            Frame::RstStream { .. } => self.settle(out)?,
            Frame::Ping(id) if self.is_ours(id) => self.put(Opcode::Ping, &id.to_be_bytes(), out)?,
            Frame::Ping(_) => {
                let payload = self.pong.clone();
                self.put(Opcode::Pong, &payload, out)?;
            }
            Frame::GoAway { .. } => {
                let (code, reason) = close_reason(ended);
                self.put(Opcode::Close, &close_payload(code, &reason), out)?;
            }
            Frame::Settings(_) | Frame::Headers { .. } | Frame::WindowUpdate { .. } => {}
        }
        Ok(())
    }

    /// Once it is settled which streams there are, a server says that it is there, with an empty message on the lowest
    /// channel that it writes. Clients wait for that.
    fn settle(&mut self, out: &mut WriteBatch) -> io::Result<()> {
        let before = self.unsettled;
        self.unsettled = before.saturating_sub(1);
        match self.greeted {
            Some(channel) if before == 1 && self.role == Role::Server => self.put_message(channel, Bytes::new(), out),
            _ => Ok(()),
        }
    }

    fn put_message(&mut self, channel: Channel, data: Bytes, out: &mut WriteBatch) -> io::Result<()> {
        let opcode = if self.subprotocol.is_base64() { Opcode::Text } else { Opcode::Binary };
        let key = self.key()?;
        encode_head(opcode, self.subprotocol.encoded_len(data.len()), key, out.heads());
        let start = out.heads().len();
        match key {
            None if !self.subprotocol.is_base64() => {
                out.heads().put_u8(self.subprotocol.channel_byte(channel));
                out.push(data);
            }
            None => self.subprotocol.encode(channel, &data, out.heads()),
            Some(key) if self.subprotocol.is_base64() => {
                self.subprotocol.encode(channel, &data, out.heads());
                mask(out.heads().get_mut(start..).unwrap_or_default(), key);
            }
            Some(mut key) => {
                out.heads().put_u8(self.subprotocol.channel_byte(channel) ^ key[0]);
                key.rotate_left(1);
                put_masked(&data, key, out.heads());
            }
        }
        Ok(())
    }

    /// A frame with few bytes.
    fn put(&mut self, opcode: Opcode, payload: &[u8], out: &mut WriteBatch) -> io::Result<()> {
        let key = self.key()?;
        encode_head(opcode, payload.len(), key, out.heads());
        match key {
            Some(key) => put_masked(payload, key, out.heads()),
            None => out.heads().put_slice(payload),
        }
        Ok(())
    }

    fn key(&mut self) -> io::Result<Option<[u8; 4]>> {
        self.masks.as_mut().map(Masks::next_key).transpose()
    }

    fn sends_on(&self, channel: Channel) -> bool {
        channel.is_clients() == (self.role == Role::Client)
    }

    /// Whether a PING with this id is one that this end sends.
    fn is_ours(&self, id: u32) -> bool {
        (id & 1 == 1) == (self.role == Role::Client)
    }
}

/// Appends a masked copy, in steps that are still in the nearest cache when they are masked.
fn put_masked(data: &[u8], key: [u8; 4], out: &mut BytesMut) {
    const STEP: usize = 4 * 1024;
    for step in data.chunks(STEP) {
        let start = out.len();
        out.put_slice(step);
        mask(out.get_mut(start..).unwrap_or_default(), key);
    }
}

const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;

/// What a Close frame says of the end (RFC 6455 §7.4.1).
fn close_reason(ended: Option<&ConnectionError>) -> (u16, String) {
    let Some(error) = ended else { return (NORMAL, String::new()) };
    let code = match error {
        ConnectionError::Closed => return (NORMAL, String::new()),
        // What it said is said back.
        ConnectionError::PeerClosed { code, .. } => return (code.unwrap_or(NORMAL), String::new()),
        ConnectionError::WebSocket(error) => error.close_code(),
        ConnectionError::Channel(ChannelError::NotBase64) => 1007,
        ConnectionError::Channel(_) | ConnectionError::Protocol(_) => 1002,
        ConnectionError::IdleTimeout(_) | ConnectionError::Stalled { .. } => GOING_AWAY,
        ConnectionError::LimitExceeded { .. } => 1008,
        _ => 1011,
    };
    (code, error.to_string())
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
