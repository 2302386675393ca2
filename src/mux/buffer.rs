//! The bytes that were read from the IO and are not decoded yet.
//!
//! Owns their memory and its alignment. It must not know what the bytes mean.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

const PAGE: usize = 4096;
/// While little comes: an idle connection keeps no more.
const SMALL: usize = 4 * 1024;
/// While much comes. Larger ones read no faster here and are pinned longer by a slice somebody keeps.
const LARGE: usize = 128 * 1024;
/// With less room than this left a new buffer is begun.
const ROOM: usize = 32 * 1024;
/// Buffers that are kept to be used again: as many as a spent receive budget fills, and then some.
const SPARES: usize = 16;

/// Where the IO is read to. Payloads leave as slices of it; a buffer whose slices are all gone is used again.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    /// The buffers before this one, oldest first, which their readers may have let go meanwhile.
    spares: VecDeque<BytesMut>,
    busy: bool,
}

impl ReadBuffer {
    /// The bytes not decoded yet.
    pub(super) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// The buffer with room behind its bytes.
    pub(super) fn with_room(&mut self) -> &mut BytesMut {
        let room = self.bytes.capacity().saturating_sub(self.bytes.len());
        if self.busy && room < ROOM {
            // The one let go last is the likeliest to be in a cache.
            let free = self.spares.iter_mut().rposition(|spare| spare.try_reclaim(LARGE.saturating_add(PAGE)));
            let free = free.and_then(|at| self.spares.remove(at));
            let mut next = free.unwrap_or_else(|| BytesMut::with_capacity(LARGE.saturating_add(PAGE)));
            align(&mut next);
            next.extend_from_slice(&self.bytes);
            self.bytes.clear();
            if self.spares.len() >= SPARES {
                self.spares.pop_front();
            }
            self.spares.push_back(std::mem::replace(&mut self.bytes, next));
        } else if room == 0 {
            self.bytes.reserve(SMALL);
        }
        &mut self.bytes
    }

    /// Learns from how much a read brought.
    pub(super) fn filled(&mut self, read: usize) {
        self.busy |= read >= SMALL;
    }

    /// Gives the memory back while nothing comes.
    pub(super) fn release(&mut self) {
        self.busy = false;
        self.spares = VecDeque::new();
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }
}

/// Skips to the next page. A copy whose destination lies a few bytes past its source, modulo the page, is ten times
/// slower on some processors, and an allocator puts every large block just there.
fn align(empty: &mut BytesMut) {
    empty.clear();
    let past = empty.as_ptr().addr() % PAGE;
    if past > 0 {
        let skip = PAGE.saturating_sub(past);
        empty.resize(skip, 0);
        empty.advance(skip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    #[test]
    fn a_busy_buffer_begins_on_a_page_and_keeps_what_was_not_decoded() {
        let mut buffer = ReadBuffer::default();
        buffer.with_room().put_slice(b"part of a head");
        buffer.filled(SMALL);
        let bytes = buffer.with_room();
        assert_eq!(bytes.as_ptr().addr() % PAGE, 0);
        assert_eq!(&bytes[..], b"part of a head");
        assert!(bytes.capacity() - bytes.len() >= ROOM);
    }

    #[test]
    fn a_buffer_whose_slices_are_gone_is_used_again() {
        let mut buffer = ReadBuffer { busy: true, ..ReadBuffer::default() };
        let mut seen = std::collections::HashSet::new();
        for _ in 0..20 {
            let bytes = buffer.with_room();
            seen.insert(bytes.as_ptr().addr());
            bytes.put_bytes(0, LARGE);
            drop(buffer.bytes().split().freeze());
        }
        assert!(seen.len() <= 2, "two buffers in turn, not {}", seen.len());
    }
}
