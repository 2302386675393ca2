//! When things happened on a connection, and how often.
//!
//! This file owns the instants and the rates. It must not act on them: that is for [`timers`](super::timers).

use std::time::{Duration, Instant};

use super::liveness::Liveness;
use super::message::Message;

#[derive(Debug)]
pub(super) struct Clock {
    pub(super) began: Instant,
    /// When the peer's silence began, as far as it can be held against it.
    pub(super) silent_since: Instant,
    /// When a frame last came, or one of ours last went that was no PING.
    pub(super) active: Instant,
    /// When, in this silence or this pause, the peer was last sent a PING.
    pub(super) pinged: Option<Instant>,
    pub(super) liveness: Liveness,
    pub(super) paused_since: Option<Instant>,
    pub(super) unanswered_resets: Rate,
    pub(super) settings_frames: Rate,
    pub(super) header_bytes: Rate,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            silent_since: now,
            active: now,
            pinged: None,
            liveness: Liveness::default(),
            paused_since: None,
            unanswered_resets: Rate::default(),
            settings_frames: Rate::default(),
            header_bytes: Rate::default(),
        }
    }

    pub(super) fn received(&mut self, now: Instant) {
        self.silent_since = now;
        self.active = now;
        self.pinged = None;
        self.liveness.heard();
    }

    /// A PING of ours was answered.
    pub(super) fn answered(&mut self, id: u32) {
        self.liveness.answered(id);
    }

    /// A frame goes out. `asks`: it is a PING of ours.
    pub(super) fn sent(&mut self, now: Instant, message: &Message, asks: bool) {
        match message {
            // One that nobody answers keeps nothing alive.
            Message::Ping(id) if asks => return self.liveness.sent_ping(*id),
            Message::Data { data, .. } if !data.is_empty() => self.liveness.sent_data(),
            _ => {}
        }
        self.active = now;
    }
}

/// How often something happened in the current window of time, or how much of it.
#[derive(Debug, Default)]
pub(super) struct Rate {
    window: Option<Instant>,
    count: u32,
}

impl Rate {
    /// Counts one more, and says how many there are.
    pub(super) fn count(&mut self, now: Instant, window: Duration) -> u32 {
        self.add(1, now, window)
    }

    /// Counts so much more, and says how much there is.
    pub(super) fn add(&mut self, more: u32, now: Instant, window: Duration) -> u32 {
        match self.window {
            Some(began) if now.saturating_duration_since(began) < window => {
                self.count = self.count.saturating_add(more);
            }
            _ => {
                self.window = Some(now);
                self.count = more;
            }
        }
        self.count
    }
}
