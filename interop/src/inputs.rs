//! Inputs for framers: recorded sessions, changed sessions, and invented sessions with something broken.
//!
//! Makes the inputs, always the same ones for a seed. It does not know what a framer reads in them, and does not use
//! this library's codec.

use std::fs;
use std::path::{Path, PathBuf};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use support::mutation::{Numbers, TELLING, mutate};

/// The dictionary of SPDY/3.1's header compression.
pub const DICTIONARY: &[u8] = include_bytes!("../../src/wire/spdy/dictionary.bin");
const SYN_STREAM: u8 = 1;
const SYN_REPLY: u8 = 2;
const SETTINGS: u8 = 4;
const HEADERS: u8 = 8;

/// Every input ends with this frame. A framer that is between two frames there reads it; any other does not.
const MARK: [u8; 12] = [0x80, 3, 0, 6, 0, 0, 0, 4, 0x5e, 0xed, 0x5e, 0xed];

/// The last bytes of a sync flush.
const FLUSH: [u8; 4] = [0, 0, 0xff, 0xff];

/// An endless sequence of inputs.
#[derive(Debug)]
pub struct Inputs {
    numbers: Numbers,
    sessions: Vec<Vec<u8>>,
    /// The recorded sessions that have not been returned unchanged yet.
    whole: Vec<Vec<u8>>,
}

impl Inputs {
    /// The inputs of a seed. The recorded sessions come first.
    ///
    /// # Panics
    /// Panics if a session cannot be read.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut sessions: Vec<_> =
            files(&root.join("fuzz/corpus/frame")).iter().map(|path| fs::read(path).expect("a seed")).collect();
        for path in files(&root.join("fuzz/corpus/header_block")) {
            sessions.push(headers_of(&fs::read(path).expect("a seed")));
        }
        let mut whole = sessions.clone();
        for directory in files(&root.join("tests/data/captures")) {
            if directory.is_dir() {
                for path in files(&directory) {
                    let bytes = fs::read(path).expect("a recorded session");
                    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the head of an upgrade");
                    whole.push(bytes[head + 4..].to_vec());
                }
            }
        }
        Self { numbers: Numbers::seeded(seed), sessions, whole }
    }

    fn session(&mut self) -> Vec<u8> {
        self.numbers.choose(&self.sessions).clone()
    }

    fn make(&mut self) -> Vec<u8> {
        if let Some(session) = self.whole.pop() {
            return session;
        }
        match self.numbers.below(16) {
            0 => self.numbers.bytes(300),
            1..=4 => {
                let (mut input, other) = (self.session(), self.session());
                mutate(&mut input, &other, &mut self.numbers);
                input
            }
            5..=9 => {
                let parts = take_apart(&self.session());
                self.broken(parts)
            }
            _ => {
                let parts = (0..=self.numbers.below(5)).map(|_| Part::any(&mut self.numbers)).collect();
                self.broken(parts)
            }
        }
    }

    /// Joins the parts again, with up to three of them broken.
    fn broken(&mut self, mut parts: Vec<Part>) -> Vec<u8> {
        let mut zlib = Zlib { level: self.numbers.choose(&[1, 1, 9, 0]).to_owned(), dictionary: DICTIONARY };
        let other = self.session();
        for _ in 0..self.numbers.below(4) {
            match self.numbers.below(16) {
                0 => zlib.dictionary = if self.numbers.one_in(2) { b"another" } else { &[] },
                1 => {
                    let at = self.numbers.below(parts.len() + 1);
                    match self.numbers.below(3) {
                        0 => drop((at < parts.len()).then(|| parts.remove(at))),
                        1 => parts.insert(at, Part::any(&mut self.numbers)),
                        _ => parts.reverse(),
                    }
                }
                _ if parts.is_empty() => {}
                _ => {
                    let at = self.numbers.below(parts.len());
                    parts[at].break_one_thing(&other, &mut self.numbers);
                }
            }
        }
        zlib.put_together(&parts)
    }
}

impl Iterator for Inputs {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut input = self.make();
        input.extend(MARK);
        Some(input)
    }
}

/// The files of a directory, ordered by name.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// The parts of a frame.
#[derive(Clone, Debug)]
struct Part {
    first: [u8; 4],
    flags: u8,
    /// A wrong value for the length field.
    lie: Option<u32>,
    /// The uncompressed part.
    plain: Vec<u8>,
    block: Option<Block>,
}

#[derive(Clone, Debug)]
struct Block {
    plain: Vec<u8>,
    end: FlushCompress,
    /// How many bytes to cut off the end of the compressed part, and what to put there instead.
    cut: usize,
    tail: Vec<u8>,
}

impl Block {
    fn new(plain: Vec<u8>) -> Self {
        Self { plain, end: FlushCompress::Sync, cut: 0, tail: Vec::new() }
    }
}

impl Part {
    fn control(kind: u8, flags: u8, plain: Vec<u8>, block: Option<Block>) -> Self {
        Self { first: [0x80, 3, 0, kind], flags, lie: None, plain, block }
    }

    /// A frame of any type with nothing broken, except what only a session can judge.
    fn any(numbers: &mut Numbers) -> Self {
        const KINDS: [u8; 18] = [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 6, 7, 8, 8, 9, 10];
        let kind = *numbers.choose(&KINDS);
        let flags = u8::from(numbers.one_in(3));
        let id = if numbers.one_in(20) { numbers.word() } else { u32::from(numbers.byte() % 8) + 1 }.to_be_bytes();
        match kind {
            0 => {
                let first = id.map(|byte| byte & 0x7f);
                let length = if numbers.one_in(50) { 20_000 } else { 40 };
                Self { first, flags, lie: None, plain: numbers.bytes(length), block: None }
            }
            SYN_STREAM => {
                let associated = if numbers.one_in(4) { numbers.word() } else { 0 }.to_be_bytes();
                let plain = [&id[..], &associated, &[numbers.byte(), numbers.byte()]].concat();
                let flags = flags | if numbers.one_in(4) { 2 } else { 0 };
                Self::control(kind, flags, plain, Some(Block::new(any_headers(numbers))))
            }
            SYN_REPLY | HEADERS => Self::control(kind, flags, id.to_vec(), Some(Block::new(any_headers(numbers)))),
            SETTINGS => {
                let count = numbers.below(6);
                let mut plain = u32::try_from(count).expect("a few").to_be_bytes().to_vec();
                for _ in 0..count {
                    plain.extend([numbers.byte() % 4, 0, 0, numbers.byte() % 10]);
                    plain.extend(numbers.word().to_be_bytes());
                }
                Self::control(kind, flags, plain, None)
            }
            6 => Self::control(kind, 0, numbers.word().to_be_bytes().to_vec(), None),
            // CREDENTIAL, an obsolete type.
            10 => Self::control(kind, flags, numbers.bytes(40), None),
            _ => {
                let value = if numbers.one_in(2) { numbers.word() } else { u32::from(numbers.byte()) + 1 };
                Self::control(kind, 0, [id, value.to_be_bytes()].concat(), None)
            }
        }
    }

    fn break_one_thing(&mut self, other: &[u8], numbers: &mut Numbers) {
        let at = numbers.below(self.plain.len());
        match numbers.below(if self.block.is_some() { 16 } else { 8 }) {
            0 => self.first[numbers.below(4)] ^= 1 << numbers.below(8),
            1 => self.first[3] = if numbers.one_in(4) { numbers.byte() } else { numbers.byte() % 12 },
            2 => self.flags = if numbers.one_in(2) { 1 << numbers.below(8) } else { numbers.byte() },
            3 => {
                let length = u32::try_from(self.plain.len()).expect("not so long");
                let near = length.wrapping_add_signed(*numbers.choose(&[-8, -4, -1, 1, 4, 8]));
                self.lie = Some(if numbers.one_in(4) { numbers.word() } else { near } & 0xff_ffff);
            }
            4 if !self.plain.is_empty() => self.plain[at] = *numbers.choose(&TELLING),
            5 if self.plain.len() >= at + 4 => {
                let at = at & !3;
                self.plain[at..at + 4].copy_from_slice(&numbers.word().to_be_bytes());
            }
            // A reserved bit, or the highest bit of a number.
            6 if !self.plain.is_empty() => self.plain[at & !3] ^= 0x80,
            7 if numbers.one_in(2) => self.plain.extend(numbers.bytes(9)),
            7 => self.plain.truncate(at),
            kind => {
                if let Some(block) = &mut self.block {
                    block.break_one_thing(kind, other, numbers);
                }
            }
        }
    }
}

impl Block {
    fn break_one_thing(&mut self, kind: usize, other: &[u8], numbers: &mut Numbers) {
        match kind {
            8 => {
                // One of the numbers in it: the count of pairs, or the length of a name or value.
                let at = *numbers.choose(&numbers_in(&self.plain));
                if let Some(Ok(field)) = self.plain.get(at..at + 4).map(<[u8; 4]>::try_from) {
                    let near = u32::from_be_bytes(field).wrapping_add_signed(*numbers.choose(&[-4, -1, 1, 4]));
                    let number = if numbers.one_in(3) { numbers.word() } else { near };
                    self.plain[at..at + 4].copy_from_slice(&number.to_be_bytes());
                }
            }
            9 | 10 => mutate(&mut self.plain, other, numbers),
            11 => {
                let ends = [FlushCompress::None, FlushCompress::Partial, FlushCompress::Full, FlushCompress::Finish];
                self.end = *numbers.choose(&ends);
                if numbers.one_in(2) {
                    self.tail = FLUSH.to_vec();
                }
            }
            12 if numbers.one_in(2) => self.tail = [&numbers.bytes(8)[..], &FLUSH].concat(),
            12 => self.tail = numbers.bytes(8),
            13 => self.cut = 1 + numbers.below(6),
            _ => {
                let Some(mut pairs) = pairs_of(&self.plain).filter(|pairs| !pairs.is_empty()) else { return };
                let (at, again) = (numbers.below(pairs.len()), numbers.choose(&pairs).clone());
                let (name, value) = &mut pairs[at];
                match numbers.below(7) {
                    0 => pairs.push(again),
                    1 => pairs.push((again.0, numbers.bytes(5))),
                    2 => pairs.push((again.0.to_ascii_uppercase(), numbers.bytes(5))),
                    3 => value.insert(numbers.below(value.len() + 1), 0),
                    4 => value.insert(numbers.below(value.len() + 1), numbers.byte()),
                    5 => name.insert(numbers.below(name.len() + 1), numbers.byte()),
                    _ => name.clear(),
                }
                self.plain = block_of(&pairs);
            }
        }
    }
}

fn any_headers(numbers: &mut Numbers) -> Vec<u8> {
    const NAMES: [&str; 12] = [
        "streamtype",
        "port",
        "requestid",
        ":host",
        "x-a",
        "a",
        "b_c",
        "Streamtype",
        "connection",
        "content-length",
        "n\u{e4}me",
        "a b",
    ];
    const VALUES: [&str; 7] = ["error", "8080", "0", "", "one\0two", "v\u{e4}lue", "text/html"];
    let pairs: Vec<_> = (0..numbers.below(6))
        .map(|_| {
            // The first names are those that are sent in practice.
            let names = if numbers.one_in(8) { &NAMES[..] } else { &NAMES[..7] };
            let name = numbers.choose(names).as_bytes().to_vec();
            let value = match numbers.below(200) {
                0 => numbers.bytes(40_000),
                1..=20 => numbers.bytes(30),
                _ => numbers.choose(&VALUES).as_bytes().to_vec(),
            };
            (name, value)
        })
        .collect();
    block_of(&pairs)
}

type Pair = (Vec<u8>, Vec<u8>);

fn block_of(pairs: &[Pair]) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).expect("not so long").to_be_bytes();
    let mut plain = number(pairs.len()).to_vec();
    for (name, value) in pairs {
        for part in [name, value] {
            plain.extend(number(part.len()));
            plain.extend(part);
        }
    }
    plain
}

/// The positions of the numbers in a block, as far as it can be parsed.
fn numbers_in(plain: &[u8]) -> Vec<usize> {
    let (mut found, mut at) = (vec![0], 4usize);
    while let Some(Ok(field)) = plain.get(at..at.saturating_add(4)).map(<[u8; 4]>::try_from) {
        found.push(at);
        at = at.saturating_add(4).saturating_add(u32::from_be_bytes(field) as usize);
    }
    found
}

/// The pairs of a valid block.
fn pairs_of(plain: &[u8]) -> Option<Vec<Pair>> {
    let fields = numbers_in(plain);
    let text = |at: usize, end: Option<&usize>| plain.get(at + 4..end.copied().unwrap_or(plain.len()));
    let texts: Vec<_> = (1..fields.len()).map(|n| text(fields[n], fields.get(n + 1))).collect::<Option<_>>()?;
    let pairs: Vec<_> = texts.chunks_exact(2).map(|pair| (pair[0].to_vec(), pair[1].to_vec())).collect();
    (block_of(&pairs) == plain).then_some(pairs)
}

/// The frames of a session. Their blocks are inflated until the first that fails.
fn take_apart(session: &[u8]) -> Vec<Part> {
    let mut inflate = Some(Decompress::new(true));
    let (mut parts, mut rest) = (Vec::new(), session);
    while let Some((head, behind)) = rest.split_at_checked(8) {
        let first = <[u8; 4]>::try_from(&head[..4]).expect("four bytes");
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
        let (body, behind) = behind.split_at(behind.len().min(length as usize));
        rest = behind;
        let fixed = match first {
            [0x80, 3, 0, SYN_STREAM] => 10,
            [0x80, 3, 0, SYN_REPLY | HEADERS] => 4,
            _ => body.len(),
        };
        let (plain, compressed) = body.split_at(fixed.min(body.len()));
        let block = if compressed.is_empty() { None } else { inflated(&mut inflate, compressed) };
        let plain = if block.is_some() { plain } else { body };
        let lie = (body.len() != length as usize).then_some(length);
        parts.push(Part { first, flags: head[4], lie, plain: plain.to_vec(), block: block.map(Block::new) });
    }
    parts
}

/// Inflates a block. After the first failure it returns nothing for any block.
fn inflated(inflate: &mut Option<Decompress>, compressed: &[u8]) -> Option<Vec<u8>> {
    const ENOUGH: usize = 1 << 16;
    let state = inflate.as_mut()?;
    let (mut plain, before) = (Vec::with_capacity(ENOUGH), state.total_in());
    loop {
        let at = usize::try_from(state.total_in() - before).expect("not so long");
        match state.decompress_vec(&compressed[at..], &mut plain, FlushDecompress::Sync) {
            Ok(Status::Ok | Status::BufError) if plain.len() < ENOUGH => return Some(plain),
            Err(error) if error.needs_dictionary().is_some() && state.set_dictionary(DICTIONARY).is_ok() => {}
            _ => {
                *inflate = None;
                return None;
            }
        }
    }
}

/// How blocks are compressed again.
struct Zlib {
    level: u32,
    dictionary: &'static [u8],
}

impl Zlib {
    fn put_together(&self, parts: &[Part]) -> Vec<u8> {
        let (mut wire, mut state) = (Vec::new(), None);
        for part in parts {
            let mut body = part.plain.clone();
            if let Some(block) = &part.block {
                self.compress(block, &mut state, &mut body);
            }
            let length = part.lie.unwrap_or_else(|| u32::try_from(body.len()).expect("not so long"));
            wire.extend(part.first);
            wire.extend((u32::from(part.flags) << 24 | length & 0xff_ffff).to_be_bytes());
            wire.extend(body);
        }
        wire
    }

    fn compress(&self, block: &Block, state: &mut Option<Compress>, body: &mut Vec<u8>) {
        let deflate = state.get_or_insert_with(|| {
            let mut new = Compress::new(Compression::new(self.level), true);
            if !self.dictionary.is_empty() {
                new.set_dictionary(self.dictionary).expect("a new one takes it");
            }
            new
        });
        let mut compressed = Vec::with_capacity(block.plain.len() * 2 + 4096);
        deflate.compress_vec(&block.plain, &mut compressed, block.end).expect("it can always be compressed");
        if matches!(block.end, FlushCompress::Finish) {
            *state = None;
        }
        compressed.truncate(compressed.len().saturating_sub(block.cut));
        body.extend(compressed);
        body.extend(&block.tail);
    }
}

/// A seed of the fuzz target `header_block` as a session: a good block, then one for each piece of the seed. A piece is
/// a length in units of 8, with the highest bit set for "compressed already", and its bytes.
fn headers_of(seed: &[u8]) -> Vec<u8> {
    let zlib = Zlib { level: 1, dictionary: DICTIONARY };
    let good = [("streamtype", "error"), ("port", "8080"), ("requestid", "0")];
    let good: Vec<Pair> =
        good.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
    let id = vec![0, 0, 0, 1];
    let mut parts = vec![Part::control(SYN_REPLY, 0, id.clone(), Some(Block::new(block_of(&good))))];
    let mut rest = seed;
    while let Some((&length, behind)) = rest.split_first() {
        let (piece, behind) = behind.split_at(behind.len().min(usize::from(length & 0x7f) * 8));
        rest = behind;
        parts.push(if length & 0x80 == 0 {
            Part::control(HEADERS, 0, id.clone(), Some(Block::new(piece.to_vec())))
        } else {
            Part::control(HEADERS, 0, [&id, piece, &FLUSH].concat(), None)
        });
    }
    zlib.put_together(&parts)
}
