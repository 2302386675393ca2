//! Estimates whether a socket's peer may still have unread bytes that were written to the socket.
//!
//! A kernel does not report that, and a reset destroys the bytes that the peer's kernel has not received. This file
//! only estimates; the relay decides what to do.

use std::time::Duration;

use tokio::time::Instant;

use crate::session::SURELY_TAKEN;

/// Counts the bytes that were written to a socket recently.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    /// The bytes since the last long pause. In that pause the peer surely read all earlier bytes.
    bytes: u64,
    last: Option<Instant>,
}

impl Unconfirmed {
    /// Counts more bytes. `pause` is the time in which a live peer surely reads all bytes that were written to the
    /// socket.
    pub(crate) fn add(&mut self, bytes: usize, now: Instant, pause: Duration) {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= pause) {
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.last = Some(now);
    }

    /// When a live peer has surely read all bytes. `None` if they are so few that the kernel had room for them.
    pub(crate) fn received_at(&self, pause: Duration) -> Option<Instant> {
        self.last.filter(|_| self.bytes > SURELY_TAKEN)?.checked_add(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_kernel_takes_at_once_is_taken_after_a_pause() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut unconfirmed = Unconfirmed::default();
        assert_eq!(unconfirmed.received_at(second), None);
        unconfirmed.add(64 * 1024, now, second);
        assert_eq!(unconfirmed.received_at(second), None);
        unconfirmed.add(1, now + second / 2, second);
        assert_eq!(unconfirmed.received_at(second), Some(now + second / 2 + second));
        // After a long pause the count begins anew.
        unconfirmed.add(1, now + 2 * second, second);
        assert_eq!(unconfirmed.received_at(second), None);
    }
}
