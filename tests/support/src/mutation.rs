//! Numbers that look like chance, and what libFuzzer does to an input: for the replay of the fuzz targets, and for the framers of the
//! interop suite.
//!
//! Owns no input, and no choice of what to change.

/// Bytes that mean something, and what is beside them.
pub(crate) const TELLING: [u8; 8] = [0, 1, 2, 3, 0x7f, 0x80, 0xfe, 0xff];

/// xorshift64: any numbers do, as long as they are the same tomorrow.
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 1).expect("63 bits").checked_rem(limit).unwrap_or(0)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.next() >> 56).expect("8 bits")
    }
}

/// One to four changes of the kinds that libFuzzer makes.
pub(crate) fn mutate(input: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(6) {
            0 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            1 if at < input.len() => input[at] = TELLING[numbers.below(8)],
            2 => input.insert(at, numbers.byte()),
            3 => drop(input.drain(at..at + numbers.below(input.len() - at + 1))),
            4 => input.truncate(at),
            5 => {
                let from = numbers.below(other.len() + 1);
                let length = numbers.below((other.len() - from).min(200) + 1);
                drop(input.splice(at..at, other[from..from + length].iter().copied()));
            }
            _ => {}
        }
    }
}
