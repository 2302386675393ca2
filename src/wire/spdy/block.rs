//! The compression of header blocks: one zlib stream in each direction, for the life of the connection (SPDY/3.1
//! §2.6.10.1).
//!
//! This module owns the two zlib states, and decides when they are allocated. It must not interpret a header.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::headers::{HeaderError, Headers};
use crate::wire::SpdyConfig;

/// The dictionary of SPDY/3, with the Adler-32 checksum 0xE3C6A7C2. SPDY/2 has another one.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
const DICTIONARY_ADLER32: u32 = 0xe3c6_a7c2;

/// The last bytes of a sync flush: the length of an empty stored block, and its complement. Go's inflater returns data
/// only at such a flush, so a block that ends in any other way hangs it.
const SYNC_FLUSH: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// How far back a zlib stream can refer.
const WINDOW: usize = 32 * 1024;

/// The zlib header of our stream (RFC 1950 §2.2): deflate, a 2 KiB window, a preset dictionary.
const ZLIB_HEADER: [u8; 2] = [0x38, 0x30];

/// Writes header blocks.
///
/// The state is created at the first block, and may be dropped after any block. A block ends on a byte boundary, so a
/// new raw deflater can continue the same zlib stream, without references to earlier blocks. Therefore all deflaters
/// are raw, and the zlib header is written by hand.
#[derive(Debug)]
pub(super) struct Deflater {
    compresses: bool,
    started: bool,
    state: Option<Compress>,
    plain: Vec<u8>,
    /// [`KEEP`], but for tests, which share the count with others that run at the same time.
    keep: usize,
}

impl Drop for Deflater {
    fn drop(&mut self) {
        self.release();
    }
}

/// Spare deflaters, for reuse. A deflater takes 250 KiB, and a connection needs it only while it opens streams.
/// Allocating one for each connection of a server would leave as many holes in the heap.
static SPARE: Mutex<Vec<Compress>> = Mutex::new(Vec::new());
const SPARES: usize = 4;

/// How many connections have a deflater now, and how many may keep theirs from one block to the next. When a host comes
/// back, thousands of clients open their streams within a second. Beyond this number a block is a few dozen bytes longer,
/// because it cannot refer to the one before.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
const KEEP: usize = 32;

impl Deflater {
    pub(super) fn new(compresses: bool) -> Self {
        Self { compresses, started: false, state: None, plain: Vec::new(), keep: KEEP }
    }

    /// Appends the compressed block to `out`.
    pub(super) fn block(&mut self, headers: &Headers, out: &mut BytesMut) -> Result<(), HeaderError> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        headers.encode(&mut plain);
        let result = if self.compresses {
            self.deflate(&plain, out)
        } else {
            self.store(&plain, out);
            Ok(())
        };
        self.plain = plain;
        if IN_USE.load(Ordering::Relaxed) > self.keep {
            self.give_back();
        }
        result
    }

    /// Frees the memory: zlib's state takes some 300 KiB, and an exec session needs it only for a moment.
    pub(super) fn release(&mut self) {
        self.plain = Vec::new();
        self.give_back();
    }

    fn give_back(&mut self) {
        if let Some(mut state) = self.state.take() {
            IN_USE.fetch_sub(1, Ordering::Relaxed);
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
            // If zlib leaves room in the output, it has written the whole flush.
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

/// A deflater with level 1 and a window of 2 KiB. A block takes 0.3 µs, and with level 9 it would take 4 µs and be as
/// long. The window has to hold the dictionary of 1,423 bytes.
fn new_deflater() -> Compress {
    const WINDOW_BITS: u8 = 11;
    IN_USE.fetch_add(1, Ordering::Relaxed);
    let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    spare.unwrap_or_else(|| Compress::new_with_window_bits(Compression::fast(), false, WINDOW_BITS))
}

/// Reads header blocks. It must be given every block of its direction, including those of refused streams.
///
/// The state takes 47 KiB, and may be dropped between two blocks. A new raw inflater can continue the same zlib stream,
/// if it is given the bytes that the peer can still refer to.
#[derive(Debug, Default)]
pub(super) struct Inflater {
    started: bool,
    state: Option<Decompress>,
    /// The last inflated bytes, at first with the dictionary before them: as many as a zlib window holds.
    history: Vec<u8>,
    /// The last inflated block, in room that is used again.
    plain: Vec<u8>,
}

/// The most room, in bytes, that is kept for the next inflated block.
const KEPT: usize = 4 * 1024;

impl Inflater {
    /// Inflates and parses one whole block.
    pub(super) fn block(&mut self, block: &[u8], limits: &SpdyConfig) -> Result<Headers, HeaderError> {
        if !block.ends_with(&SYNC_FLUSH) {
            return Err(HeaderError::NotFlushed);
        }
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let headers = self.inflate(block, limits.max_header_block, &mut plain).and_then(|()| {
            self.remember(&plain);
            Headers::parse(&plain, limits)
        });
        // A tap reads on for hours without releasing anything.
        if plain.capacity() <= KEPT {
            self.plain = plain;
        }
        headers
    }

    /// Frees the memory, except the history.
    pub(super) fn release(&mut self) {
        self.state = None;
        self.plain = Vec::new();
        self.history.shrink_to_fit();
    }

    fn remember(&mut self, plain: &[u8]) {
        self.history.extend_from_slice(plain);
        // The history may grow to twice the window, so that not every block has to move it.
        if self.history.len() > WINDOW.saturating_mul(2) {
            self.history.drain(..self.history.len().saturating_sub(WINDOW));
        }
    }

    /// Inflates a block in small steps, and checks the limit after each: 16 KiB can inflate to 16 MiB. After an error
    /// the zlib stream cannot be continued.
    fn inflate(&mut self, block: &[u8], limit: usize, plain: &mut Vec<u8>) -> Result<(), HeaderError> {
        let state = match &mut self.state {
            Some(state) => state,
            None => self.state.insert(resume(!std::mem::replace(&mut self.started, true), &self.history)?),
        };
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
                Ok(_) if input.is_empty() => return Ok(()),
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

/// Creates the first inflater of a stream, or one that continues after `history`.
fn resume(first: bool, history: &[u8]) -> Result<Decompress, HeaderError> {
    let mut state = Decompress::new(first);
    let window = history.get(history.len().saturating_sub(WINDOW)..).unwrap_or_default();
    if !first && !window.is_empty() {
        state.set_dictionary(window).map_err(|_| HeaderError::Inflate)?;
    }
    Ok(state)
}

/// By how much one of zlib's 64-bit totals has grown. It never grows by more than `most`, the room that zlib was given.
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
        let (mut deflater, mut inflater) = (Deflater::new(true), Inflater::default());
        deflater.keep = usize::MAX;
        let mut sizes = Vec::new();
        for block in 0..40 {
            let id = block.to_string();
            let pairs = [("streamtype", "data"), ("port", "8080"), ("requestid", id.as_str())];
            let wire = deflated(&mut deflater, &pairs);
            assert_eq!(inflater.block(&wire, &SpdyConfig::default()), Ok(pairs.into_iter().collect()));
            sizes.push(wire.len());
            if block % 5 == 4 {
                deflater.release();
                assert!(deflater.state.is_none());
            }
        }
        assert!(sizes[1] < 40 && sizes[5] > sizes[6], "only the first block after a release is large: {sizes:?}");
    }

    #[test]
    fn beside_many_others_a_connection_keeps_no_deflater_and_goes_on() {
        let (mut deflater, mut inflater) = (Deflater::new(true), Inflater::default());
        deflater.keep = 0;
        for block in 0..3 {
            let id = block.to_string();
            let pairs = [("streamtype", "data"), ("port", "8080"), ("requestid", id.as_str())];
            let wire = deflated(&mut deflater, &pairs);
            assert!(deflater.state.is_none());
            assert_eq!(inflater.block(&wire, &SpdyConfig::default()), Ok(pairs.into_iter().collect()));
        }
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
            assert_eq!(inflater.block(&wire, &SpdyConfig::default()), Ok(headers), "block {block}");
            if block % 7 == 0 {
                inflater.release();
            }
            assert!(inflater.history.len() <= 3 * WINDOW);
        }
    }

    #[test]
    fn a_block_cannot_refer_to_what_another_connection_read() {
        let plain = |value: &str| {
            let mut plain = Vec::new();
            Headers::from_iter([("authorization", value)]).encode(&mut plain);
            plain
        };
        for _ in 0..8 {
            let (mut mine, mut others) = (Inflater::default(), Inflater::default());
            let mut peer = Compress::new(Compression::best(), true);
            peer.set_dictionary(DICTIONARY).unwrap();
            let mut blocks = ["a secret of some length", "a secret of some length"].map(|value| {
                let mut wire = Vec::with_capacity(1024);
                peer.compress_vec(&plain(value), &mut wire, FlushCompress::Sync).unwrap();
                wire
            });
            assert!(blocks[1].len() < 24, "the second block refers to the first one");
            assert!(mine.block(&blocks[0], &SpdyConfig::default()).is_ok());
            mine.release();
            // The head of a zlib stream, and the block of another one.
            let mut wire = vec![0x78, 0x01];
            wire.append(&mut blocks[1]);
            assert_eq!(others.block(&wire, &SpdyConfig::default()), Err(HeaderError::Inflate));
        }
    }

    #[test]
    fn stored_blocks_are_read_and_hold_no_state() {
        let (mut deflater, mut inflater) = (Deflater::new(false), Inflater::default());
        let long = "x".repeat(10_000);
        for pairs in [&[("a", "b")][..], &[], &[("c", &long)]] {
            let wire = deflated(&mut deflater, pairs);
            assert_eq!(inflater.block(&wire, &SpdyConfig::default()), Ok(pairs.iter().copied().collect()));
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
        assert_eq!(inflater.block(&bomb, &SpdyConfig::default()), Err(HeaderError::TooLong { limit: 64 * 1024 }));
        let inflated = inflater.state.unwrap().total_out();
        assert!(inflated <= 64 * 1024 + 1024, "inflated {inflated} bytes");
    }

    #[test]
    fn a_stream_that_ends_is_cut_or_wants_another_dictionary_is_refused() {
        let limits = SpdyConfig::default();
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
