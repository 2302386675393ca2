//! The bytes between the IO and the codec: one read buffer, one batch of writes.
//!
//! Owns their memory and its alignment. It must not know what the bytes mean.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

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

/// Frames on their way to the IO: heads gathered in one buffer, payloads as they are, all of it in one vectored write.
#[derive(Debug, Default)]
pub(super) struct WriteBatch {
    heads: BytesMut,
    /// How many bytes of `heads` go before each payload. What is behind the last of them goes at the end.
    payloads: VecDeque<(usize, Bytes)>,
    /// Bytes of `heads` that the entries of `payloads` account for.
    accounted: usize,
    payload_bytes: usize,
}

impl WriteBatch {
    /// Where the next head is appended.
    pub(super) fn heads(&mut self) -> &mut BytesMut {
        &mut self.heads
    }

    /// Appends a payload behind the heads so far.
    pub(super) fn push(&mut self, payload: Bytes) {
        if !payload.is_empty() {
            let before = self.heads.len().saturating_sub(self.accounted);
            self.accounted = self.heads.len();
            self.payload_bytes = self.payload_bytes.saturating_add(payload.len());
            self.payloads.push_back((before, payload));
        }
    }

    pub(super) fn is_full(&self) -> bool {
        // What is masked or encoded is in `heads`, and is no less worth one write.
        const BYTES: usize = 256 * 1024;
        const PAYLOADS: usize = 31;
        self.remaining() >= BYTES || self.payloads.len() >= PAYLOADS
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn release(&mut self) {
        if !self.has_remaining() {
            self.clear();
        }
    }
}

impl Buf for WriteBatch {
    fn remaining(&self) -> usize {
        self.heads.len().saturating_add(self.payload_bytes)
    }

    fn chunk(&self) -> &[u8] {
        match self.payloads.front() {
            Some((0, payload)) => payload,
            Some((before, _)) => self.heads.get(..*before).unwrap_or_default(),
            None => &self.heads,
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut heads = &self.heads[..];
        let mut pieces = self.payloads.iter().flat_map(|(before, payload)| {
            let (head, rest) = heads.split_at_checked(*before).unwrap_or((heads, &[]));
            heads = rest;
            [head, &payload[..]]
        });
        let mut filled = 0usize;
        let mut put = |piece: &'a [u8]| {
            let slot = slices.get_mut(filled).filter(|_| !piece.is_empty());
            if let Some(slot) = slot {
                *slot = IoSlice::new(piece);
                filled = filled.saturating_add(1);
            }
        };
        pieces.by_ref().for_each(&mut put);
        drop(pieces);
        put(heads);
        filled
    }

    fn advance(&mut self, count: usize) {
        let mut count = count;
        while let Some((before, payload)) = self.payloads.front_mut() {
            let head = count.min(*before);
            self.heads.advance(head);
            self.accounted = self.accounted.saturating_sub(head);
            *before = before.saturating_sub(head);
            count = count.saturating_sub(head);
            let body = count.min(payload.len());
            payload.advance(body);
            self.payload_bytes = self.payload_bytes.saturating_sub(body);
            count = count.saturating_sub(body);
            if *before > 0 || !payload.is_empty() {
                return;
            }
            self.payloads.pop_front();
        }
        self.heads.advance(count.min(self.heads.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    fn batch(parts: &[(Vec<u8>, Vec<u8>)]) -> (WriteBatch, Vec<u8>) {
        let (mut batch, mut whole) = (WriteBatch::default(), Vec::new());
        for (head, payload) in parts {
            batch.heads().put_slice(head);
            batch.push(Bytes::from(payload.clone()));
            whole.extend(head);
            whole.extend(payload);
        }
        (batch, whole)
    }

    #[test]
    fn a_batch_is_its_heads_and_payloads_in_order_however_it_is_written() {
        fn property(parts: Vec<(Vec<u8>, Vec<u8>)>, steps: Vec<u8>) -> bool {
            let (mut batch, whole) = batch(&parts);
            let mut written = Vec::<u8>::new();
            let mut steps = steps.into_iter().cycle().map(usize::from);
            while batch.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 64];
                let count = batch.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                let step = steps.next().unwrap_or(1).clamp(1, seen.len());
                assert!(seen.starts_with(batch.chunk()));
                written.extend(&seen[..step]);
                batch.advance(step);
                assert_eq!(batch.remaining(), whole.len() - written.len());
            }
            written == whole
        }
        quickcheck::quickcheck(property as fn(Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>) -> bool);
    }

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
