//! What a peer's silence proves.
//!
//! This module owns which PINGs a live peer would have answered. It must not know the time or the wire.
//!
//! A Go peer has no flow control, and reads nothing at all while one of its readers is blocked on our DATA. So its
//! silence after such DATA proves nothing. Neither bytes from the peer nor one answered PING prove that it has read the
//! DATA. Its library, spdystream, distributes frames over [`WORKERS`] workers, and gives PINGs to the workers in turn.
//! A worker that waits for a reader blocks only its own queue, until that is full. So a peer has read everything only
//! if it has answered as many PINGs in a row as it has workers, all sent after the last DATA.

/// How many workers share the frames that a spdystream connection reads (its `FRAME_WORKERS`).
const WORKERS: u32 = 5;
/// How many PINGs in a row must be unanswered before a silent peer counts as dead.
const SEVERAL: u32 = 3;

/// The PINGs that this end has sent, and whether they were answered.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    /// The peer may have unread DATA of ours.
    exposed: bool,
    /// The id of the next answer that the current row needs.
    expected: Option<u32>,
    /// How many PINGs in a row, sent after the last DATA, were answered.
    answered: u32,
    /// How many PINGs were sent since the peer was last heard that a live peer would have answered.
    unanswered: u32,
}

impl Liveness {
    /// Notes that DATA is sent, which may keep the peer from reading on.
    pub(super) fn sent_data(&mut self) {
        *self = Self { exposed: true, unanswered: self.unanswered, ..Self::default() };
    }

    /// Notes that a PING is sent, for any reason.
    pub(super) fn sent_ping(&mut self, id: u32) {
        self.expected.get_or_insert(id);
    }

    /// Notes that a PING is sent because the peer is silent. `has_windows`: the peer has flow control, so DATA cannot
    /// keep it from reading.
    pub(super) fn asked(&mut self, has_windows: bool) {
        if has_windows || !self.exposed {
            self.unanswered = self.unanswered.saturating_add(1);
        }
    }

    /// Notes that the peer has answered a PING.
    pub(super) fn answered(&mut self, id: u32) {
        // Answers with lower ids than the expected one do not count: their PINGs were sent before the last DATA.
        let Some(ahead) =
            self.expected.map(|expected| id.wrapping_sub(expected)).filter(|ahead| *ahead <= i32::MAX as u32)
        else {
            return;
        };
        self.answered = if ahead == 0 { self.answered.saturating_add(1) } else { 1 };
        self.expected = Some(id.wrapping_add(2));
        self.exposed &= self.answered < WORKERS;
    }

    /// Whether the peer's program has received all DATA, whether or not its readers have read it.
    pub(super) fn has_taken_all(&self) -> bool {
        !self.exposed || self.answered > 0
    }

    /// Notes that bytes came from the peer.
    pub(super) fn heard(&mut self) {
        self.unanswered = 0;
    }

    /// Whether a live peer would have answered by now, given enough time.
    pub(super) fn is_dead_silence(&self) -> bool {
        self.unanswered >= SEVERAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(liveness: &mut Liveness, id: u32) {
        liveness.asked(false);
        liveness.sent_ping(id);
    }

    #[test]
    fn several_pings_that_nothing_holds_up_make_a_death() {
        let mut liveness = Liveness::default();
        for id in [1, 3] {
            ask(&mut liveness, id);
            assert!(!liveness.is_dead_silence());
        }
        ask(&mut liveness, 5);
        assert!(liveness.is_dead_silence());
        liveness.sent_data();
        assert!(liveness.is_dead_silence(), "what was asked before the DATA is not held up by it");
        liveness.heard();
        assert!(!liveness.is_dead_silence());
    }

    #[test]
    fn behind_data_silence_proves_nothing_until_every_worker_has_answered() {
        let mut liveness = Liveness::default();
        liveness.sent_data();
        for id in [1, 3, 5, 7, 9, 11] {
            ask(&mut liveness, id);
        }
        assert!(!liveness.is_dead_silence());
        // One of five is stuck in the queue of a worker that waits.
        for id in [1, 3, 5, 7, 11] {
            liveness.answered(id);
            liveness.heard();
        }
        for id in [13, 15, 17] {
            ask(&mut liveness, id);
        }
        assert!(!liveness.is_dead_silence());
        for id in [13, 15, 17, 19] {
            liveness.answered(id);
            liveness.heard();
        }
        for id in [21, 23, 25] {
            ask(&mut liveness, id);
        }
        assert!(liveness.is_dead_silence(), "five in a row");
    }

    #[test]
    fn an_answer_to_a_ping_ahead_of_the_data_says_nothing_of_it() {
        let mut liveness = Liveness::default();
        for id in [u32::MAX - 4, u32::MAX - 2] {
            ask(&mut liveness, id);
        }
        liveness.sent_data();
        for id in [u32::MAX, 1, 3, 5] {
            ask(&mut liveness, id);
        }
        for id in [u32::MAX - 4, u32::MAX - 2, u32::MAX, 1, 3, 5] {
            liveness.answered(id);
        }
        assert!(liveness.exposed, "four of the six came behind the DATA");
        ask(&mut liveness, 7);
        liveness.answered(7);
        assert!(!liveness.exposed);
    }
}
