//! Frames out of bytes that somebody else keeps: of a piece as much is copied as heads and control frames need, and what they
//! carry is a slice of it.
//!
//! Owns what was copied. For SPDY inside something else, and for who only watches.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::codec::{Codec, CodecError};
use super::frame::Frame;
use crate::wire::Limits;

/// What one side says.
#[derive(Debug)]
pub(crate) struct Pieces {
    codec: Codec,
    /// The beginning of a frame: no more than a whole one of control.
    held: BytesMut,
}

impl Pieces {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { codec: Codec::new(limits.clone()), held: BytesMut::new() }
    }

    /// The next frame, DATA in pieces. `None`: all of `src` is used up.
    pub(crate) fn next(&mut self, src: &mut Bytes) -> Result<Option<Frame>, CodecError> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.held)? {
                return Ok(Some(frame));
            }
            if let Some(frame) = self.codec.decode_data(src) {
                return Ok(Some(frame));
            }
            if src.is_empty() {
                return Ok(None);
            }
            let missing = self.codec.missing(&self.held).min(src.len());
            self.held.extend_from_slice(&src.split_to(missing));
        }
    }

    pub(crate) fn is_between_frames(&self) -> bool {
        self.held.is_empty() && self.codec.is_between_frames()
    }

    /// Gives back what comes again by itself when it is needed.
    pub(crate) fn release(&mut self) {
        self.codec.release();
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }
}
