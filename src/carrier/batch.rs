//! The bytes of several messages, ready to be written to the IO at once.
//!
//! This module owns how the bytes are collected for one write. It must not interpret them.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// The bytes that are written next, in one vectored write: frame heads are collected in one buffer, and payloads are
/// not copied.
#[derive(Debug, Default)]
pub(crate) struct WriteBatch {
    heads: BytesMut,
    /// The payloads, each with the number of bytes of `heads` that precede it. The remaining bytes of `heads` follow
    /// the last payload.
    payloads: VecDeque<(usize, Bytes)>,
    /// The number of bytes of `heads` that precede some payload.
    accounted: usize,
    payload_bytes: usize,
}

impl WriteBatch {
    /// The buffer to which the next head has to be appended.
    pub(crate) fn heads(&mut self) -> &mut BytesMut {
        &mut self.heads
    }

    /// Appends a payload after the heads so far.
    pub(crate) fn push(&mut self, payload: Bytes) {
        if !payload.is_empty() {
            let before = self.heads.len().saturating_sub(self.accounted);
            self.accounted = self.heads.len();
            self.payload_bytes = self.payload_bytes.saturating_add(payload.len());
            self.payloads.push_back((before, payload));
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        // Masked and base64 payloads are in `heads`, so all bytes count.
        const BYTES: usize = 256 * 1024;
        const PAYLOADS: usize = 31;
        self.remaining() >= BYTES || self.payloads.len() >= PAYLOADS
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn release(&mut self) {
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
}
