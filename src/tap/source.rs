//! Reads the messages of one side out of bytes that belong to another buffer.
//!
//! This module owns the copies that reading needs: heads and control frames are copied, and payloads are slices of the
//! bytes, or copies if they are masked. What the messages of a form are, its reader in [`carrier`](crate::carrier)
//! says. This module must not know streams.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::side::Side;
use crate::carrier::{ExecReader, LegacyPortsReader, check_text};
use crate::protocol::{Protocol, Subprotocol};
use crate::session::{Config, ConnectionError, Message, Role};
use crate::wire::channel::ChannelError;
use crate::wire::spdy::{Headers, Pieces};
use crate::wire::websocket::{CloseReason, Decoder, Fault, Piece, WebSocketError};
use crate::wire::{SpdyConfig, WebSocketConfig};

/// How many bytes of headers one byte on the wire may inflate to, on average. The peers of Kubernetes reach three.
const INFLATION: usize = 16;

/// What a side says next.
pub(super) enum Said {
    Message(Message),
    /// A WebSocket Close.
    Close(Option<CloseReason>),
    /// Something that is nobody's message, such as a PONG.
    Nothing,
}

/// The messages of one side.
#[derive(Debug)]
pub(super) struct Source(Form);

#[derive(Debug)]
enum Form {
    Spdy(Spdy),
    Tunnel { websocket: WebSocket, carried: Bytes, spdy: Spdy },
    Exec { websocket: WebSocket, subprotocol: Subprotocol, reader: ExecReader },
    LegacyPorts { websocket: WebSocket, subprotocol: Subprotocol, reader: LegacyPortsReader, more: VecDeque<Message> },
}

impl Source {
    pub(super) fn new(side: Side, protocol: Protocol, ports: &[u16], config: &Config) -> Self {
        let (role, websocket) = (reader_of(side), || WebSocket::new(side, &config.websocket));
        // Go's servers read the frames of channels with golang.org/x/net/websocket, which takes each fragment for a
        // message: its first byte is a channel there, and data here. A tunnel carries bytes, which fragments do not
        // change, and a server's fragments are read by clients as RFC 6455 says.
        let channels = || match side {
            Side::Client => websocket().without_fragments(),
            Side::Server => websocket(),
        };
        Self(match protocol {
            Protocol::SpdyExec(_) | Protocol::SpdyPortForward => Form::Spdy(Spdy::new(&config.spdy)),
            Protocol::TunneledPortForward => {
                Form::Tunnel { websocket: websocket(), carried: Bytes::new(), spdy: Spdy::new(&config.spdy) }
            }
            Protocol::WebSocketExec(subprotocol) => {
                let reader = ExecReader::new(role, subprotocol);
                Form::Exec { websocket: channels(), subprotocol, reader }
            }
            Protocol::LegacyPortForward(subprotocol) => {
                let reader = LegacyPortsReader::new(role, subprotocol, ports);
                Form::LegacyPorts { websocket: channels(), subprotocol, reader, more: VecDeque::new() }
            }
        })
    }

    /// Reads on. `None` means that all of `src` is used up.
    pub(super) fn next(&mut self, src: &mut Bytes) -> Result<Option<Said>, ConnectionError> {
        match &mut self.0 {
            Form::Spdy(spdy) => Ok(spdy.next(src)?.map(Said::Message)),
            Form::Tunnel { websocket, carried, spdy } => {
                if let Some(message) = spdy.next(carried)? {
                    return Ok(Some(Said::Message(message)));
                }
                Ok(match websocket.next(src)? {
                    // A Go server sends a text message to report an error, and closes the connection.
                    Some(Piece::Data { text: true, .. }) => return Err(WebSocketError::from(Fault::Text).into()),
                    Some(Piece::Data { payload, .. }) => {
                        *carried = payload;
                        Some(Said::Nothing)
                    }
                    other => other.map(said),
                })
            }
            Form::Exec { websocket, subprotocol, reader } => {
                websocket.next_on_channel(src, *subprotocol, |first, last, payload| reader.read(first, last, payload))
            }
            Form::LegacyPorts { websocket, subprotocol, reader, more } => {
                if let Some(message) = more.pop_front() {
                    return Ok(Some(Said::Message(message)));
                }
                websocket.next_on_channel(src, *subprotocol, |first, last, payload| {
                    reader.read(first, last, payload, more)?;
                    Ok(more.pop_front())
                })
            }
        }
    }

    pub(super) fn is_between_frames(&self) -> bool {
        match &self.0 {
            Form::Spdy(spdy) => spdy.pieces.is_between_frames(),
            Form::Tunnel { websocket, spdy, .. } => websocket.is_between_frames() && spdy.pieces.is_between_frames(),
            Form::Exec { websocket, .. } | Form::LegacyPorts { websocket, .. } => websocket.is_between_frames(),
        }
    }
}

/// The role of the end that reads what a side sends.
fn reader_of(side: Side) -> Role {
    match side {
        Side::Client => Role::Server,
        Side::Server => Role::Client,
    }
}

fn said(piece: Piece) -> Said {
    match piece {
        Piece::Close(reason) => Said::Close(reason),
        Piece::Data { .. } | Piece::Ping(_) | Piece::Pong(_) => Said::Nothing,
    }
}

/// SPDY frames, DATA in pieces.
#[derive(Debug)]
struct Spdy {
    pieces: Pieces,
    /// Bytes of headers beyond [`INFLATION`] times the bytes on the wire.
    inflated: usize,
    max_header_bytes: usize,
}

impl Spdy {
    fn new(config: &SpdyConfig) -> Self {
        Self { pieces: Pieces::new(config), inflated: 0, max_header_bytes: config.max_header_bytes }
    }

    fn next(&mut self, src: &mut Bytes) -> Result<Option<Message>, ConnectionError> {
        let before = src.len();
        let frame = self.pieces.next(src)?;
        let paid = before.saturating_sub(src.len()).saturating_mul(INFLATION);
        self.inflated = self.inflated.saturating_sub(paid);
        let Some(message) = frame.map(Message::from) else { return Ok(None) };
        self.inflated = self.inflated.saturating_add(message.headers().map_or(0, Headers::block_len));
        if self.inflated > self.max_header_bytes {
            return Err(ConnectionError::LimitExceeded {
                limit: "max_header_bytes",
                value: self.max_header_bytes as u64,
            });
        }
        Ok(Some(message))
    }
}

/// WebSocket frames.
#[derive(Debug)]
struct WebSocket {
    role: Role,
    decoder: Decoder,
    /// The copy of a frame's beginning, never longer than one control frame.
    held: BytesMut,
    closed: bool,
}

impl WebSocket {
    fn new(side: Side, config: &WebSocketConfig) -> Self {
        let decoder = Decoder::new(side == Side::Client, config.max_message, config.max_fragments);
        Self { role: reader_of(side), decoder, held: BytesMut::new(), closed: false }
    }

    fn without_fragments(self) -> Self {
        Self { decoder: self.decoder.without_fragments(), ..self }
    }

    /// Returns `None` when all of `src` is used up. Nothing after a Close is read.
    fn next(&mut self, src: &mut Bytes) -> Result<Option<Piece>, WebSocketError> {
        if self.closed {
            src.clear();
        }
        let piece = loop {
            if let Some(piece) = self.decoder.decode(&mut self.held)? {
                break piece;
            }
            if let Some(piece) = self.decoder.decode_data(src)? {
                break piece;
            }
            if src.is_empty() {
                return Ok(None);
            }
            let missing = self.decoder.missing(&self.held).min(src.len());
            self.held.extend_from_slice(&src.split_to(missing));
        };
        self.closed |= matches!(piece, Piece::Close(_));
        Ok(Some(piece))
    }

    /// As [`next`](Self::next), where each message is one of a channel, which `read` reads in pieces.
    fn next_on_channel(
        &mut self,
        src: &mut Bytes,
        subprotocol: Subprotocol,
        read: impl FnOnce(bool, bool, Bytes) -> Result<Option<Message>, ChannelError>,
    ) -> Result<Option<Said>, ConnectionError> {
        Ok(match self.next(src)? {
            Some(Piece::Data { first, last, text, payload }) => {
                check_text(text, self.role, subprotocol)?;
                Some(read(first, last, payload)?.map_or(Said::Nothing, Said::Message))
            }
            other => other.map(said),
        })
    }

    fn is_between_frames(&self) -> bool {
        self.held.is_empty() && self.decoder.is_between_messages()
    }
}
