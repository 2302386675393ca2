//! What a socket was given that its peer may have yet to take.
//!
//! Owns the guess: no kernel tells, and a reset takes back what the peer's has not taken. It must not know what for.

use std::time::Duration;

use tokio::time::Instant;

use crate::session::SURELY_TAKEN;

/// Bytes that a socket was given of late.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Without a pause in which all of them were surely taken.
    bytes: u64,
    last: Option<Instant>,
}

impl Given {
    /// The socket was given some more. `pause`: how long a peer that reads may take for what its socket was given.
    pub(crate) fn more(&mut self, bytes: usize, now: Instant, pause: Duration) {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= pause) {
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.last = Some(now);
    }

    /// When a peer that reads has surely taken all of it. `None`: its kernel had room for it anyway.
    pub(crate) fn taken_at(&self, pause: Duration) -> Option<Instant> {
        self.last.filter(|_| self.bytes > SURELY_TAKEN)?.checked_add(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_kernel_takes_at_once_is_taken_after_a_pause() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut given = Given::default();
        assert_eq!(given.taken_at(second), None);
        given.more(64 * 1024, now, second);
        assert_eq!(given.taken_at(second), None);
        given.more(1, now + second / 2, second);
        assert_eq!(given.taken_at(second), Some(now + second / 2 + second));
        // It has read those since.
        given.more(1, now + 2 * second, second);
        assert_eq!(given.taken_at(second), None);
    }
}
