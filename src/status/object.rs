//! Finds where a JSON object ends.
//!
//! Does not parse the object: whether it is well-formed, and what it says, is for serde.

/// Finds the end of a JSON object without parsing it, over any split of its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct ObjectScanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

pub(super) enum Scan {
    /// An object ends after this many of the bytes just given.
    Whole(usize),
    /// The object goes on, or has not begun.
    Part,
    /// The bytes do not begin with an object.
    NotAnObject,
}

impl ObjectScanner {
    /// Whether an object has begun and not ended.
    pub(super) fn inside(&self) -> bool {
        self.depth > 0
    }

    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scan {
        for (before, &byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' if self.depth > 0 => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' => self.depth = self.depth.saturating_add(1),
                b'[' if self.depth > 0 => self.depth = self.depth.saturating_add(1),
                b'}' | b']' if self.depth > 0 => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Scan::Whole(before.saturating_add(1));
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth > 0 => {}
                _ => return Scan::NotAnObject,
            }
        }
        Scan::Part
    }
}
