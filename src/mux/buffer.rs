//! The bytes that were read from the IO and are not decoded yet.
//!
//! This module owns the memory of these bytes and its alignment. It must not interpret them.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

const PAGE: usize = 4096;
/// The size of the buffer while few bytes arrive: an idle connection keeps no more.
const SMALL: usize = 4 * 1024;
/// The size of the buffer while many bytes arrive. Larger buffers do not read faster, and a slice that a reader keeps
/// would pin more memory.
const LARGE: usize = 128 * 1024;
/// If less room than this is left, a new buffer is started.
const ROOM: usize = 32 * 1024;
/// How many buffers slices may keep alive before small ones are copied. A reader that keeps up has taken most of them by
/// then.
const KEPT: usize = 8;
/// How many buffers are kept for reuse: a few more than a full receive budget fills.
const SPARES: usize = 16;

/// The buffer that the IO is read into. Payloads are slices of it. When all slices of a buffer are dropped, the buffer
/// is used again.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    /// The buffers before this one, oldest first. Readers may have dropped their slices in the meantime.
    spares: VecDeque<BytesMut>,
    busy: bool,
    /// How many buffers were begun since the readers' slices were last thinned out.
    begun: usize,
}

impl ReadBuffer {
    /// The bytes not decoded yet.
    pub(super) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// The buffer, with room after its bytes.
    pub(super) fn with_room(&mut self) -> &mut BytesMut {
        let room = self.bytes.capacity().saturating_sub(self.bytes.len());
        if self.busy && room < ROOM {
            // The newest free buffer is the most likely to be in a CPU cache.
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
            self.begun = self.begun.saturating_add(1);
        } else if room == 0 {
            self.bytes.reserve(SMALL);
            self.begun = self.begun.saturating_add(1);
        }
        &mut self.bytes
    }

    /// Whether slices that are still held may keep [`KEPT`] buffers alive. The caller then copies small ones.
    pub(super) fn keeps_many(&mut self) -> bool {
        let many = self.begun >= KEPT;
        if many {
            self.begun = 0;
        }
        many
    }

    /// Adjusts the buffer's size to the number of bytes that a read returned.
    pub(super) fn filled(&mut self, read: usize) {
        self.busy |= read >= SMALL;
    }

    /// Frees the memory of an idle connection.
    pub(super) fn release(&mut self) {
        self.busy = false;
        self.spares = VecDeque::new();
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }
}

/// Skips to the start of the next page. On some processors a copy is ten times slower if its destination lies a few
/// bytes after its source, modulo the page size. Allocators place every large block at such an address.
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
