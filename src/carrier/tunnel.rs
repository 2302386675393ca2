//! The tunnel: SPDY inside WebSocket, `SPDY/3.1+portforward.k8s.io`. Binary WebSocket messages carry the bytes of SPDY
//! frames.
//!
//! This module owns the two layers and their ends. This end sends one SPDY frame in each WebSocket message. A message
//! from the peer may contain any part of the byte stream.

use std::io;

use bytes::{Bytes, BytesMut};

use super::batch::WriteBatch;
use super::messages::Messages;
use crate::session::{Config, ConnectionError, Message, Role};
use crate::wire::Payloads;
use crate::wire::spdy::{Codec, Frame, Pieces};
use crate::wire::websocket::{Fault, Opcode, Piece, WebSocketError};

#[derive(Debug)]
pub(super) struct Tunnel {
    websocket: Messages,
    frames: Pieces,
    /// The rest of the last message's payload.
    payload: Bytes,
    payloads: Payloads,
    codec: Codec,
    heads: BytesMut,
    /// The payload of a WebSocket PING that is not answered yet.
    pong: Option<Bytes>,
    ended: Option<ConnectionError>,
}

impl Tunnel {
    pub(super) fn new(role: Role, config: &Config) -> Self {
        Self {
            websocket: Messages::new(role, &config.websocket),
            frames: Pieces::new(&config.spdy),
            payload: Bytes::new(),
            payloads: Payloads::default(),
            codec: Codec::new(config.spdy.clone()),
            heads: BytesMut::new(),
            pong: None,
            ended: None,
        }
    }

    pub(super) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Message>, ConnectionError> {
        loop {
            if let Some(mut frame) = self.frames.next(&mut self.payload)? {
                if let Frame::Data { data, .. } = &mut frame {
                    *data = self.payloads.keep(std::mem::take(data));
                }
                return Ok(Some(frame.into()));
            }
            match &self.ended {
                Some(ConnectionError::Closed) if !self.is_between_frames() => return Err(ConnectionError::Lost),
                Some(error) => return Err(error.clone()),
                None => {}
            }
            match self.websocket.decode(src)? {
                None => return Ok(None),
                // Go's servers send an error as text, and close.
                Some(Piece::Data { text: true, .. }) => return Err(WebSocketError::from(Fault::Text).into()),
                Some(Piece::Data { payload, .. }) => self.payload = payload,
                Some(Piece::Ping(payload)) => self.pong = Some(payload),
                Some(Piece::Pong(_)) => {}
                Some(Piece::Close(reason)) => self.ended = Some(self.websocket.ended(reason)),
            }
        }
    }

    /// Encodes the answer to a WebSocket PING, if one is due.
    pub(super) fn answer(&mut self, out: &mut WriteBatch) -> io::Result<()> {
        match self.pong.take() {
            Some(payload) => self.websocket.put(Opcode::Pong, &payload, out),
            None => Ok(()),
        }
    }

    pub(super) fn encode(
        &mut self,
        message: Message,
        ended: Option<&ConnectionError>,
        out: &mut WriteBatch,
    ) -> io::Result<()> {
        let last = if let Message::Goodbye { status, .. } = &message { Some(*status) } else { None };
        self.heads.clear();
        let payload = self.codec.encode_head(message.into(), &mut self.heads);
        let payload = payload.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.websocket.put_message(Opcode::Binary, &self.heads, payload, out)?;
        last.map_or(Ok(()), |status| self.websocket.put_close(status, ended, out))
    }

    /// Whether more frames may be decoded without more bytes.
    pub(super) fn has_more(&self) -> bool {
        self.ended.is_some() || !self.payload.is_empty()
    }

    pub(super) fn is_between_frames(&self) -> bool {
        self.websocket.is_between_messages() && self.payload.is_empty() && self.frames.is_between_frames()
    }

    pub(super) fn release(&mut self) {
        self.websocket.release();
        self.frames.release();
        self.payloads.release();
        self.codec.release();
        self.heads = BytesMut::new();
    }
}
