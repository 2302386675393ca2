//! Reads frames from bytes that belong to another buffer.
//!
//! This module owns the copies that reading needs: heads and control frames are copied, and payloads are slices of the
//! bytes, or copies if they are masked. It must not know what a frame means.

use crate::wire::spdy::{Codec, CodecError, Frame};
use crate::wire::websocket::{self, Piece, WebSocketError};
use crate::wire::{SpdyConfig, WebSocketConfig};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::side::{Both, Side};

/// A decoder of frames that can take payloads as slices.
trait Framing {
    type Frame;
    type Error;

    /// Takes the next frame, or the next piece of one, out of the copied bytes.
    fn copied(&mut self, held: &mut BytesMut) -> Result<Option<Self::Frame>, Self::Error>;

    /// Takes the next payload bytes of a data frame that has begun.
    fn payload(&mut self, src: &mut Bytes) -> Result<Option<Self::Frame>, Self::Error>;

    /// How many bytes must be copied before the next frame can be read.
    fn missing(&self, held: &BytesMut) -> usize;
}

/// Reads the next frame. `None` means that all of `src` is used up. `held` keeps the copy of a frame's beginning, which
/// is never longer than one control frame.
fn next<F: Framing>(framing: &mut F, held: &mut BytesMut, src: &mut Bytes) -> Result<Option<F::Frame>, F::Error> {
    loop {
        if let Some(frame) = framing.copied(held)? {
            return Ok(Some(frame));
        }
        if let Some(frame) = framing.payload(src)? {
            return Ok(Some(frame));
        }
        if src.is_empty() {
            return Ok(None);
        }
        let missing = framing.missing(held).min(src.len());
        held.extend_from_slice(&src.split_to(missing));
    }
}

/// The SPDY frames of one side, DATA in pieces.
#[derive(Debug)]
pub(super) struct Frames {
    codec: Codec,
    held: BytesMut,
}

impl Frames {
    pub(super) fn both(config: &SpdyConfig) -> Both<Self> {
        let new = || Self { codec: Codec::new(config.clone()), held: BytesMut::new() };
        Both { client: new(), server: new() }
    }

    /// Returns `None` when all of `src` is used up.
    pub(super) fn next(&mut self, src: &mut Bytes) -> Result<Option<Frame>, CodecError> {
        next(&mut self.codec, &mut self.held, src)
    }

    pub(super) fn is_between_frames(&self) -> bool {
        self.held.is_empty() && self.codec.is_between_frames()
    }
}

impl Framing for Codec {
    type Frame = Frame;
    type Error = CodecError;

    fn copied(&mut self, held: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        self.decode(held)
    }

    fn payload(&mut self, src: &mut Bytes) -> Result<Option<Frame>, CodecError> {
        Ok(self.decode_data(src))
    }

    fn missing(&self, held: &BytesMut) -> usize {
        self.missing(held)
    }
}

/// The WebSocket frames of one side.
#[derive(Debug)]
pub(super) struct Messages {
    decoder: websocket::Decoder,
    held: BytesMut,
    closed: bool,
}

impl Messages {
    pub(super) fn both(config: &WebSocketConfig) -> Both<Self> {
        let new = |side| Self {
            decoder: websocket::Decoder::new(side == Side::Client, config.max_message, config.max_fragments),
            held: BytesMut::new(),
            closed: false,
        };
        Both { client: new(Side::Client), server: new(Side::Server) }
    }

    /// Returns `None` when all of `src` is used up. Nothing after a Close is read.
    pub(super) fn next(&mut self, src: &mut Bytes) -> Result<Option<Piece>, WebSocketError> {
        if self.closed {
            src.clear();
        }
        let piece = next(&mut self.decoder, &mut self.held, src)?;
        self.closed |= matches!(piece, Some(Piece::Close(_)));
        Ok(piece)
    }

    pub(super) fn is_between_messages(&self) -> bool {
        self.held.is_empty() && self.decoder.is_between_messages()
    }
}

impl Framing for websocket::Decoder {
    type Frame = Piece;
    type Error = WebSocketError;

    fn copied(&mut self, held: &mut BytesMut) -> Result<Option<Piece>, WebSocketError> {
        self.decode(held)
    }

    fn payload(&mut self, src: &mut Bytes) -> Result<Option<Piece>, WebSocketError> {
        self.decode_data(src)
    }

    fn missing(&self, held: &BytesMut) -> usize {
        self.missing(held)
    }
}
