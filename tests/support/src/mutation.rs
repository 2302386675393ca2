//! Pseudorandom numbers, and libFuzzer's kinds of mutation: for the replay of the fuzz targets, and for the framers of
//! the interop suite.
//!
//! Holds no inputs, and does not choose what is changed.

/// Bytes with a meaning, and their neighbours.
pub const TELLING: [u8; 8] = [0, 1, 2, 3, 0x7f, 0x80, 0xfe, 0xff];

/// xorshift64. Any numbers will do if they are the same in every run.
#[derive(Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    /// Neighbouring seeds would begin with similar numbers. This spreads them.
    pub fn seeded(seed: u64) -> Self {
        let mut numbers = Self(seed.max(1));
        for _ in 0..8 {
            numbers.draw();
        }
        numbers
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.draw() >> 1).expect("63 bits").checked_rem(limit).unwrap_or(0)
    }

    pub fn byte(&mut self) -> u8 {
        u8::try_from(self.draw() >> 56).expect("8 bits")
    }

    pub fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub fn bytes(&mut self, below: usize) -> Vec<u8> {
        (0..self.below(below)).map(|_| self.byte()).collect()
    }

    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A number of 32 bits, mostly at the edge of a range.
    pub fn word(&mut self) -> u32 {
        match self.below(8) {
            0 => u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
            1 => *self.choose(&[0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_ffff, 0x00ff_ffff]),
            2 => 0,
            _ => u32::from(self.byte() % 16),
        }
    }
}

/// Makes one to four changes of libFuzzer's kinds.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
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
