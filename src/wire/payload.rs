//! Payloads for readers: slices of the read buffer, or copies if they are small.
//!
//! This module owns the choice between slice and copy, for every transport.

use bytes::{Bytes, BytesMut};

/// Payloads below this size are copied out of the read buffer, so that a reader that keeps a few bytes does not keep
/// the whole buffer alive. So unread bytes occupy at most some 64 times the memory that the receive budget counts.
const COPY_BELOW: usize = 2 * 1024;
const COPY_BUFFER: usize = 8 * 1024;

/// Makes payloads from pieces of a read buffer.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    copies: BytesMut,
}

impl Payloads {
    pub(crate) fn take(&mut self, piece: BytesMut) -> Bytes {
        if piece.is_empty() {
            return Bytes::new();
        }
        if piece.len() >= COPY_BELOW { piece.freeze() } else { self.copy(&piece) }
    }

    /// As [`take`](Self::take), for a piece that is already a slice.
    pub(crate) fn keep(&mut self, piece: Bytes) -> Bytes {
        if piece.len() >= COPY_BELOW || piece.is_empty() { piece } else { self.copy(&piece) }
    }

    fn copy(&mut self, piece: &[u8]) -> Bytes {
        if self.copies.capacity() < piece.len() && !self.copies.try_reclaim(COPY_BUFFER) {
            self.copies = BytesMut::with_capacity(COPY_BUFFER);
        }
        self.copies.extend_from_slice(piece);
        self.copies.split().freeze()
    }

    /// Frees the copy buffer.
    pub(crate) fn release(&mut self) {
        self.copies = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_of_a_few_bytes_does_not_keep_the_message_they_came_in() {
        let message = Bytes::from(vec![7; 64 * 1024]);
        let mut payloads = Payloads::default();
        let small = payloads.keep(message.slice(8..COPY_BELOW));
        assert!(message.is_unique() && small == message[8..COPY_BELOW]);

        let large = payloads.keep(message.slice(..COPY_BELOW));
        assert!(!message.is_unique() && large.as_ptr() == message.as_ptr(), "not copied");
    }
}
