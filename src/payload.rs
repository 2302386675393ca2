//! Payloads as they are handed on: slices of the read buffer, or copies of what is too small to pin it.
//!
//! Owns that choice, for every carrier.

use bytes::{Bytes, BytesMut};

/// Payloads below this are copied out of the read buffer, so that a reader who keeps a few bytes never keeps all of it:
/// what unread bytes pin is at most some 64 times what the receive budget counts.
const COPY_BELOW: usize = 2 * 1024;
const COPY_BUFFER: usize = 8 * 1024;

/// Makes payloads of what was split off a read buffer.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    copies: BytesMut,
}

impl Payloads {
    pub(crate) fn take(&mut self, piece: BytesMut) -> Bytes {
        if piece.is_empty() {
            return Bytes::new();
        }
        if piece.len() >= COPY_BELOW {
            return piece.freeze();
        }
        if self.copies.capacity() < piece.len() && !self.copies.try_reclaim(COPY_BUFFER) {
            self.copies = BytesMut::with_capacity(COPY_BUFFER);
        }
        self.copies.extend_from_slice(&piece);
        self.copies.split().freeze()
    }

    /// Gives the copy buffer back.
    pub(crate) fn release(&mut self) {
        self.copies = BytesMut::new();
    }
}
