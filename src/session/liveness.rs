//! What a peer's silence proves.
//!
//! Owns which PINGs a live peer cannot leave unanswered. It must not know the time or the wire.
//!
//! A Go peer without windows reads nothing at all while one of its readers is blocked on DATA of ours, so behind such DATA its silence
//! proves nothing. Neither do bytes of its own, nor one answer to a PING: spdystream hands frames to [`WORKERS`] workers, the PINGs to
//! each in turn, and a worker that waits for a reader holds up its own queue alone until that is full. Only a peer that has answered as
//! many PINGs in a row as it has workers, all of them sent behind the last DATA, has nothing of ours unread.

/// How many workers share the frames that a spdystream connection reads (its `FRAME_WORKERS`).
const WORKERS: u32 = 5;
/// Unanswered PINGs in a row that make a silence a death.
const SEVERAL: u32 = 3;

/// The PINGs of one end, and what became of them.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    /// DATA of ours may be unread.
    exposed: bool,
    /// The next answer that the row of them needs.
    expected: Option<u32>,
    /// Answers in a row to PINGs that were sent behind the last DATA.
    answered: u32,
    /// PINGs, since the peer was last heard of, that a live peer would have answered.
    unanswered: u32,
}

impl Liveness {
    /// DATA goes to a peer that may be unable to read on because of it.
    pub(super) fn sent_data(&mut self) {
        *self = Self { exposed: true, unanswered: self.unanswered, ..Self::default() };
    }

    /// A PING of ours goes.
    pub(super) fn sent_ping(&mut self, id: u32) {
        self.expected.get_or_insert(id);
    }

    /// A PING is sent because the peer is silent. `has_windows`: no DATA of ours can keep it from reading.
    pub(super) fn asked(&mut self, has_windows: bool) {
        if has_windows || !self.exposed {
            self.unanswered = self.unanswered.saturating_add(1);
        }
    }

    /// The peer has answered a PING.
    pub(super) fn answered(&mut self, id: u32) {
        // Before the PING that is waited for: it was sent ahead of the last DATA.
        let Some(ahead) =
            self.expected.map(|expected| id.wrapping_sub(expected)).filter(|ahead| *ahead <= i32::MAX as u32)
        else {
            return;
        };
        self.answered = if ahead == 0 { self.answered.saturating_add(1) } else { 1 };
        self.expected = Some(id.wrapping_add(2));
        self.exposed &= self.answered < WORKERS;
    }

    /// Whether the peer has taken all DATA that was sent off the wire, whether or not anybody there has read it.
    pub(super) fn has_taken_all(&self) -> bool {
        !self.exposed || self.answered > 0
    }

    /// Anything came from the peer.
    pub(super) fn heard(&mut self) {
        self.unanswered = 0;
    }

    /// Whether a live peer would have answered by now, had it the time.
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
