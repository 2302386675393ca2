//! Writes WebSocket frames: heads, masks and Close payloads.

use bytes::{BufMut, BytesMut};

use super::opcode::{FIN, MASKED, MAX_CONTROL, Opcode};

/// Appends the head of an unfragmented message or of a control frame. This crate never sends fragments, because Go's
/// servers do not reassemble them. `key` is the mask, for a client.
pub fn encode_head(opcode: Opcode, len: usize, key: Option<[u8; 4]>, out: &mut BytesMut) {
    out.put_u8(FIN | opcode.bits());
    let masked = if key.is_some() { MASKED } else { 0 };
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ ..=125), _) => out.put_u8(masked | short),
        (_, Ok(medium)) => {
            out.put_u8(masked | 126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(len as u64);
        }
    }
    if let Some(key) = key {
        out.put_slice(&key);
    }
}

/// The payload of a Close frame (§5.5.1). The reason is cut to fit into a control frame.
#[must_use]
pub fn close_payload(code: u16, reason: &str) -> BytesMut {
    let mut room = reason.len().min(MAX_CONTROL.saturating_sub(2));
    while !reason.is_char_boundary(room) {
        room = room.saturating_sub(1);
    }
    let mut payload = BytesMut::new();
    payload.put_u16(code);
    payload.put_slice(reason.get(..room).unwrap_or_default().as_bytes());
    payload
}

/// Masks or unmasks bytes in place (§5.3). If they are not the first bytes of a payload, the caller must have rotated
/// the key.
pub fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Generates the masking keys of a client. They are unpredictable (§10.3), and come from the system's random generator
/// in batches of 64.
#[derive(Debug)]
pub struct Masks {
    keys: [u8; 256],
    used: usize,
}

impl Default for Masks {
    fn default() -> Self {
        Self { keys: [0; 256], used: usize::MAX }
    }
}

impl Masks {
    /// The next key.
    ///
    /// # Errors
    /// The system's random generator failed.
    pub fn next_key(&mut self) -> std::io::Result<[u8; 4]> {
        if self.used >= self.keys.len() {
            getrandom::fill(&mut self.keys)?;
            self.used = 0;
        }
        let key = self.keys.get(self.used..).and_then(|keys| keys.first_chunk::<4>());
        self.used = self.used.saturating_add(4);
        key.copied().ok_or_else(|| std::io::ErrorKind::Other.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Row 32 of docs/security.md, gorilla's CVE of 2026: keys from a weak source repeat.
    #[test]
    fn masks_do_not_repeat() {
        let mut masks = Masks::default();
        let keys: Vec<[u8; 4]> = (0..10_000).map(|_| masks.next_key().unwrap()).collect();
        // Among 10,000 random numbers of 32 bits, 0.01 repetitions are expected.
        assert!(keys.iter().collect::<HashSet<_>>().len() > 9_990);
        for at in 0..4 {
            let seen: HashSet<u8> = keys.iter().map(|key| key[at]).collect();
            assert_eq!(seen.len(), 256, "every value of byte {at}");
        }
    }

    #[test]
    fn a_mask_taken_twice_is_none() {
        for len in [0, 1, 3, 4, 7, 8, 9, 31, 100] {
            let plain: Vec<u8> = (0..len).collect();
            let mut bytes = plain.clone();
            mask(&mut bytes, [1, 2, 3, 4]);
            assert!(bytes.iter().zip(&plain).enumerate().all(|(at, (byte, plain))| byte ^ plain == 1 + (at % 4) as u8));
            mask(&mut bytes, [1, 2, 3, 4]);
            assert_eq!(bytes, plain);
        }
    }
}
