//! Bytes that a socket was given and that its peer may not have received yet.
//!
//! This module owns that estimate. No kernel reports what the peer's program has read, and a reset discards whatever
//! the peer's kernel has not received. The callers decide what to do about it.

use std::time::Duration;

use tokio::time::Instant;

/// The smallest receive buffer that a kernel starts with anywhere: 64 KiB. A peer's kernel has room for this much even if the peer
/// reads nothing. Beyond it a silent peer may still have bytes to read, and closing the connection on bytes that arrive meanwhile
/// resets it and discards them.
pub(crate) const ALWAYS_RECEIVED: u64 = 64 * 1024;

/// Counts the bytes that a socket was given recently.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    /// Bytes since the last pause that was long enough for the peer to read everything.
    bytes: u64,
    last: Option<Instant>,
}

impl Unconfirmed {
    /// Counts `bytes` that the socket was given now. A peer that reads has read everything after a `pause` of this length.
    pub(crate) fn add(&mut self, bytes: usize, now: Instant, pause: Duration) {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= pause) {
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.last = Some(now);
    }

    /// When a peer that reads has received everything. `None` means that the peer's kernel had room for all of it
    /// anyway.
    pub(crate) fn received_at(&self, pause: Duration) -> Option<Instant> {
        self.last.filter(|_| self.bytes > ALWAYS_RECEIVED)?.checked_add(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_kernel_takes_at_once_is_received_after_a_pause() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut unconfirmed = Unconfirmed::default();
        assert_eq!(unconfirmed.received_at(second), None);
        unconfirmed.add(64 * 1024, now, second);
        assert_eq!(unconfirmed.received_at(second), None);
        unconfirmed.add(1, now + second / 2, second);
        assert_eq!(unconfirmed.received_at(second), Some(now + second / 2 + second));
        // The peer has read the earlier bytes meanwhile.
        unconfirmed.add(1, now + 2 * second, second);
        assert_eq!(unconfirmed.received_at(second), None);
    }
}
