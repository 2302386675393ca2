//! Decodes frames from borrowed buffers. Frame heads and control frames are copied, and DATA payloads are slices of the
//! buffer.
//!
//! This module owns the copied bytes. It is used for SPDY inside another protocol, and for a tap, which only observes.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::codec::{Codec, CodecError};
use super::frame::Frame;
use crate::wire::SpdyConfig;

/// The frames of one direction.
#[derive(Debug)]
pub(crate) struct Pieces {
    codec: Codec,
    /// The beginning of a frame. It is never longer than a control frame.
    held: BytesMut,
}

impl Pieces {
    pub(crate) fn new(limits: &SpdyConfig) -> Self {
        Self { codec: Codec::new(limits.clone()), held: BytesMut::new() }
    }

    /// Decodes the next frame. DATA comes in pieces. Returns `None` when all of `src` is used up.
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

    /// Frees buffers that are allocated again when they are needed.
    pub(crate) fn release(&mut self) {
        self.codec.release();
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }
}
