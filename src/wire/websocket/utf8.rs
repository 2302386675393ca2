//! Checks whether bytes that arrive in pieces are UTF-8.

/// Checks a text message piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    /// The first bytes of a character that was cut by the end of the last piece.
    cut: [u8; 4],
    len: usize,
}

impl Utf8 {
    /// Checks the next piece. Returns whether the message can still be UTF-8.
    #[must_use]
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return true };
            bytes = rest;
            if let Some(slot) = self.cut.get_mut(self.len) {
                *slot = byte;
            }
            self.len = self.len.saturating_add(1);
            match std::str::from_utf8(self.cut.get(..self.len).unwrap_or_default()) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        if let Err(error) = std::str::from_utf8(bytes) {
            let rest = bytes.get(error.valid_up_to()..).unwrap_or_default();
            let cut = self.cut.get_mut(..rest.len());
            let (None, Some(cut)) = (error.error_len(), cut) else { return false };
            cut.copy_from_slice(rest);
            self.len = rest.len();
        }
        true
    }

    /// Whether the message may end here, with no character cut.
    #[must_use]
    pub(super) fn is_whole(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn check(bytes: &[u8], step: usize) -> bool {
        let mut utf8 = Utf8::default();
        bytes.chunks(step).all(|piece| utf8.push(piece)) && utf8.is_whole()
    }

    #[test]
    fn a_character_may_be_cut_and_a_wrong_one_is_known_at_any_cut() {
        for step in 1..6 {
            for good in ["", "a", "\u{e9}", "\u{20ac}uro", "\u{1f600}\u{1f600}", "a\u{10ffff}"] {
                assert!(check(good.as_bytes(), step), "{good:?}");
            }
            for bad in [
                &b"\xff"[..],
                b"\xc3",
                b"\xc3(",
                b"\xe2\x82",
                b"\xed\xa0\x80",
                b"\xf4\x90\x80\x80",
                b"\xc0\x80",
                b"\x80",
            ] {
                assert!(!check(bad, step), "{bad:?}");
            }
        }
    }

    quickcheck! {
        fn pieces_are_judged_as_the_whole_is(bytes: Vec<u8>, text: String, step: usize) -> bool {
            let step = step % 5 + 1;
            check(&bytes, step) == std::str::from_utf8(&bytes).is_ok() && check(text.as_bytes(), step)
        }
    }
}
