//! Header blocks compressed: one zlib stream a direction, for as long as the connection lives (SPDY/3.1 §2.6.10.1).
//!
//! Owns the two zlib states and when they exist. It must not interpret a header.

use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::headers::{HeaderError, Headers};
use crate::wire::{HeaderCompression, Limits};

/// The text both ends know beforehand: Adler-32 0xE3C6A7C2. SPDY/2's is another one.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
const DICTIONARY_ADLER32: u32 = 0xe3c6_a7c2;

/// What a sync flush ends with: the length and its complement of an empty stored block. Go's inflater hands data over
/// only there, so a block that ends in any other way hangs it.
const SYNC_FLUSH: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// How far back a zlib stream can refer.
const WINDOW: usize = 32 * 1024;

/// The zlib header of our stream (RFC 1950 §2.2): deflate, a 2 KiB window, a preset dictionary.
const ZLIB_HEADER: [u8; 2] = [0x38, 0x30];

/// Writes header blocks.
///
/// The state is made at the first block and may be dropped after any other: a block ends on a byte boundary, so a
/// fresh raw deflater, which cannot refer to what came before it, goes on with the same zlib stream. Hence all are raw,
/// and the zlib header is written by hand.
#[derive(Debug)]
pub(super) struct Deflater {
    compression: HeaderCompression,
    started: bool,
    state: Option<Compress>,
    plain: Vec<u8>,
}

impl Drop for Deflater {
    fn drop(&mut self) {
        self.release();
    }
}

/// Deflaters that no connection needs now. They are 250 KiB each, and as many connections as a server has would leave as
/// many holes in the heap, for the moment in which each opens its streams.
static SPARE: Mutex<Vec<Compress>> = Mutex::new(Vec::new());
const SPARES: usize = 4;

impl Deflater {
    pub(super) fn new(compression: HeaderCompression) -> Self {
        Self { compression, started: false, state: None, plain: Vec::new() }
    }

    /// Appends the compressed block to `out`.
    pub(super) fn block(&mut self, headers: &Headers, out: &mut BytesMut) -> Result<(), HeaderError> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        headers.encode(&mut plain);
        let result = match self.compression {
            HeaderCompression::Deflate => self.deflate(&plain, out),
            HeaderCompression::Stored => {
                self.store(&plain, out);
                Ok(())
            }
        };
        self.plain = plain;
        result
    }

    /// Gives the memory back: zlib's state is some 300 KiB, and an exec session needs it for a moment only.
    pub(super) fn release(&mut self) {
        self.plain = Vec::new();
        if let Some(mut state) = self.state.take() {
            state.reset();
            let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < SPARES {
                spare.push(state);
            }
        }
    }

    fn deflate(&mut self, plain: &[u8], out: &mut BytesMut) -> Result<(), HeaderError> {
        let state = self.state.get_or_insert_with(new_deflater);
        if !std::mem::replace(&mut self.started, true) {
            out.extend_from_slice(&ZLIB_HEADER);
            out.extend_from_slice(&DICTIONARY_ADLER32.to_be_bytes());
            state.set_dictionary(DICTIONARY).map_err(|_| HeaderError::Inflate)?;
        }
        let mut input = plain;
        let mut chunk = [0u8; 1024];
        loop {
            let (before_in, before_out) = (state.total_in(), state.total_out());
            state.compress(input, &mut chunk, FlushCompress::Sync).map_err(|_| HeaderError::Inflate)?;
            let written = advance(before_out, state.total_out(), chunk.len());
            out.extend_from_slice(chunk.get(..written).unwrap_or_default());
            input = input.get(advance(before_in, state.total_in(), input.len())..).unwrap_or_default();
            // zlib has written the whole flush once it leaves room in the output.
            if input.is_empty() && written < chunk.len() {
                return Ok(());
            }
        }
    }

    fn store(&mut self, plain: &[u8], out: &mut BytesMut) {
        if !std::mem::replace(&mut self.started, true) {
            out.extend_from_slice(&[0x78, 0x01]);
        }
        for piece in plain.chunks(usize::from(u16::MAX)) {
            let len = u16::try_from(piece.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&[0x00]);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&(!len).to_le_bytes());
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(&[0x00]);
        out.extend_from_slice(&SYNC_FLUSH);
    }
}

/// Level 1 and a 2 KiB window: 0.3 µs a block where level 9 takes 4 µs, for the same bytes. The window has to hold the
/// 1,423-byte dictionary.
fn new_deflater() -> Compress {
    const WINDOW_BITS: u8 = 11;
    let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    spare.unwrap_or_else(|| Compress::new_with_window_bits(Compression::fast(), false, WINDOW_BITS))
}

/// Reads header blocks. Every block of the direction has to pass through, those of refused streams too.
///
/// The state, 47 KiB, may be dropped between two blocks: a fresh raw inflater that is given what the peer can still refer
/// to goes on with the same zlib stream.
#[derive(Debug, Default)]
pub(super) struct Inflater {
    started: bool,
    state: Option<Decompress>,
    /// The end of what was inflated, the dictionary before it: as much as a zlib window holds.
    history: Vec<u8>,
}

impl Inflater {
    /// Inflates and parses one whole block.
    pub(super) fn block(&mut self, block: &[u8], limits: &Limits) -> Result<Headers, HeaderError> {
        if !block.ends_with(&SYNC_FLUSH) {
            return Err(HeaderError::NotFlushed);
        }
        let plain = self.inflate(block, limits.max_header_block)?;
        self.remember(&plain);
        Headers::parse(plain, limits)
    }

    /// Gives the memory back but for the history.
    pub(super) fn release(&mut self) {
        self.state = None;
        self.history.shrink_to_fit();
    }

    fn remember(&mut self, plain: &[u8]) {
        self.history.extend_from_slice(plain);
        // Twice as much is let come together, so that not every block moves all of it.
        if self.history.len() > WINDOW.saturating_mul(2) {
            self.history.drain(..self.history.len().saturating_sub(WINDOW));
        }
    }

    /// In small steps against the limit: 16 KiB can inflate to 16 MiB, and a block given up halfway leaves the stream
    /// undecodable, so that nothing is gained by going on.
    fn inflate(&mut self, block: &[u8], limit: usize) -> Result<BytesMut, HeaderError> {
        let state = match &mut self.state {
            Some(state) => state,
            None => self.state.insert(resume(!std::mem::replace(&mut self.started, true), &self.history)?),
        };
        let mut plain = BytesMut::new();
        let mut input = block;
        let mut chunk = [0u8; 1024];
        loop {
            let (before_in, before_out) = (state.total_in(), state.total_out());
            let outcome = state.decompress(input, &mut chunk, FlushDecompress::Sync);
            input = input.get(advance(before_in, state.total_in(), input.len())..).unwrap_or_default();
            let written = advance(before_out, state.total_out(), chunk.len());
            plain.extend_from_slice(chunk.get(..written).unwrap_or_default());
            if plain.len() > limit {
                return Err(HeaderError::TooLong { limit });
            }
            match outcome {
                Ok(Status::StreamEnd) => return Err(HeaderError::StreamEnd),
                Ok(_) if written == chunk.len() => {}
                Ok(_) if input.is_empty() => return Ok(plain),
                Ok(_) => return Err(HeaderError::Inflate),
                Err(error) => match error.needs_dictionary() {
                    Some(DICTIONARY_ADLER32) => {
                        state.set_dictionary(DICTIONARY).map_err(|_| HeaderError::Inflate)?;
                        self.history = DICTIONARY.to_vec();
                    }
                    Some(adler) => return Err(HeaderError::Dictionary { adler }),
                    None => return Err(HeaderError::Inflate),
                },
            }
        }
    }
}

/// The first inflater of a stream, or one that goes on behind `history`.
fn resume(first: bool, history: &[u8]) -> Result<Decompress, HeaderError> {
    let mut state = Decompress::new(first);
    let window = history.get(history.len().saturating_sub(WINDOW)..).unwrap_or_default();
    if !first && !window.is_empty() {
        state.set_dictionary(window).map_err(|_| HeaderError::Inflate)?;
    }
    Ok(state)
}

/// How far one of zlib's 64-bit totals went, which is never more than the `most` it was given room for.
fn advance(before: u64, after: u64, most: usize) -> usize {
    usize::try_from(after.wrapping_sub(before)).unwrap_or(most).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deflated(deflater: &mut Deflater, pairs: &[(&str, &str)]) -> BytesMut {
        let mut out = BytesMut::new();
        deflater.block(&pairs.iter().copied().collect(), &mut out).unwrap();
        out
    }

    fn raw(plain: &[u8], flush: FlushCompress) -> Vec<u8> {
        let mut state = Compress::new(Compression::fast(), true);
        state.set_dictionary(DICTIONARY).unwrap();
        let mut out = Vec::with_capacity(plain.len() + 4096);
        state.compress_vec(plain, &mut out, flush).unwrap();
        out
    }

    #[test]
    fn the_dictionary_is_spdy_3s() {
        let mut state = Compress::new(Compression::fast(), true);
        assert_eq!(state.set_dictionary(DICTIONARY).unwrap(), DICTIONARY_ADLER32);
        assert_eq!(DICTIONARY.len(), 1423);
    }

    #[test]
    fn a_released_deflater_goes_on_with_the_same_stream() {
        let (mut deflater, mut inflater) = (Deflater::new(HeaderCompression::Deflate), Inflater::default());
        let mut sizes = Vec::new();
        for block in 0..40 {
            let id = block.to_string();
            let pairs = [("streamtype", "data"), ("port", "8080"), ("requestid", id.as_str())];
            let wire = deflated(&mut deflater, &pairs);
            assert_eq!(inflater.block(&wire, &Limits::default()), Ok(pairs.into_iter().collect()));
            sizes.push(wire.len());
            if block % 5 == 4 {
                deflater.release();
                assert!(deflater.state.is_none());
            }
        }
        assert!(sizes[1] < 40 && sizes[5] > sizes[6], "only the first block after a release is large: {sizes:?}");
    }

    #[test]
    fn a_released_inflater_still_knows_what_the_peer_refers_to() {
        let mut peer = Compress::new(Compression::best(), true);
        peer.set_dictionary(DICTIONARY).unwrap();
        let mut inflater = Inflater::default();
        for block in 0..3_000 {
            let id = format!("{block} {}", "x".repeat(block % 50));
            let headers: Headers = [("streamtype", "data"), ("port", "8080"), ("requestid", &id)].into_iter().collect();
            let mut plain = Vec::new();
            headers.encode(&mut plain);
            let mut wire = Vec::with_capacity(1024);
            peer.compress_vec(&plain, &mut wire, FlushCompress::Sync).unwrap();
            assert_eq!(inflater.block(&wire, &Limits::default()), Ok(headers), "block {block}");
            if block % 7 == 0 {
                inflater.release();
            }
            assert!(inflater.history.len() <= 3 * WINDOW);
        }
    }

    #[test]
    fn stored_blocks_are_read_and_hold_no_state() {
        let (mut deflater, mut inflater) = (Deflater::new(HeaderCompression::Stored), Inflater::default());
        let long = "x".repeat(10_000);
        for pairs in [&[("a", "b")][..], &[], &[("c", &long)]] {
            let wire = deflated(&mut deflater, pairs);
            assert_eq!(inflater.block(&wire, &Limits::default()), Ok(pairs.iter().copied().collect()));
        }
        assert!(deflater.state.is_none());
    }

    #[test]
    fn a_zlib_bomb_is_stopped_at_the_limit() {
        let mut bomb = Vec::with_capacity(64 * 1024);
        let mut state = Compress::new(Compression::best(), true);
        state.compress_vec(&vec![0; 12 << 20], &mut bomb, FlushCompress::Sync).unwrap();
        assert_eq!(state.total_in(), 12 << 20, "some 12 KiB that stand for 12 MiB");
        let mut inflater = Inflater::default();
        assert_eq!(inflater.block(&bomb, &Limits::default()), Err(HeaderError::TooLong { limit: 64 * 1024 }));
        let inflated = inflater.state.unwrap().total_out();
        assert!(inflated <= 64 * 1024 + 1024, "inflated {inflated} bytes");
    }

    #[test]
    fn a_stream_that_ends_is_cut_or_wants_another_dictionary_is_refused() {
        let limits = Limits::default();
        let block = |bytes: &[u8]| Inflater::default().block(bytes, &limits);
        let good = raw(&[0; 4], FlushCompress::Sync);
        assert_eq!(block(&good), Ok(Headers::new()));

        assert_eq!(block(&good[..good.len() - 1]), Err(HeaderError::NotFlushed));
        assert_eq!(block(&raw(&[0; 4], FlushCompress::Partial)), Err(HeaderError::NotFlushed));
        let mut finished = raw(&[0; 4], FlushCompress::Finish);
        finished.extend(SYNC_FLUSH);
        assert_eq!(block(&finished), Err(HeaderError::StreamEnd));
        let mut other = good.clone();
        other[2..6].copy_from_slice(&0x1234_5678u32.to_be_bytes());
        assert_eq!(block(&other), Err(HeaderError::Dictionary { adler: 0x1234_5678 }));
        assert_eq!(block(&[0xff, 0xff, 0x00, 0x00, 0xff, 0xff]), Err(HeaderError::Inflate));
        assert_eq!(block(&SYNC_FLUSH), Err(HeaderError::Inflate));
    }
}
