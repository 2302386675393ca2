//! WebSocket frames out of bytes that somebody else keeps: of a piece as much is copied as heads and control frames need, and what
//! they carry is a slice of it, where it is not masked.

use std::ops::{Index, IndexMut};

use bytes::{Bytes, BytesMut};

use super::Side;
use crate::config::Limits;
use crate::websocket::{self, Piece, WebSocketError};

/// One side's WebSocket frames.
#[derive(Debug)]
pub(super) struct Messages {
    frames: websocket::Decoder,
    /// The beginning of a frame: its head, or all of one of control.
    held: BytesMut,
    closed: bool,
}

impl Messages {
    pub(super) fn both(limits: &Limits) -> Both<Self> {
        let new = |side| Self {
            frames: websocket::Decoder::new(side == Side::Client, limits.max_message, limits.max_fragments),
            held: BytesMut::new(),
            closed: false,
        };
        Both { client: new(Side::Client), server: new(Side::Server) }
    }

    /// `None`: all of `src` is used up.
    pub(super) fn next(&mut self, src: &mut Bytes) -> Result<Option<Piece>, WebSocketError> {
        loop {
            if self.closed {
                src.clear();
            }
            if let Some(piece) = self.frames.decode(&mut self.held)? {
                self.closed = matches!(piece, Piece::Close(_));
                return Ok(Some(piece));
            }
            if let Some(piece) = self.frames.decode_data(src)? {
                return Ok(Some(piece));
            }
            if src.is_empty() {
                return Ok(None);
            }
            let missing = self.frames.missing(&self.held).min(src.len());
            self.held.extend_from_slice(&src.split_to(missing));
        }
    }

    pub(super) fn is_between_messages(&self) -> bool {
        self.held.is_empty() && self.frames.is_between_messages()
    }
}

/// The client's and the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Both<T> {
    pub(super) client: T,
    pub(super) server: T,
}

impl<T> Index<Side> for Both<T> {
    type Output = T;

    fn index(&self, side: Side) -> &T {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}

impl<T> IndexMut<Side> for Both<T> {
    fn index_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}
