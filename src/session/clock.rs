//! When events happened on a connection, and how often.
//!
//! This file owns the instants and the rates. It must not act on them, which is the job of [`timers`](super::timers).

use std::time::{Duration, Instant};

use super::liveness::Liveness;
use super::message::Message;

#[derive(Debug)]
pub(super) struct Clock {
    pub(super) began: Instant,
    /// When the peer's silence began. Time in which this end did not read is not counted.
    pub(super) silent_since: Instant,
    /// When a frame was last received, or a frame other than a PING was last sent.
    pub(super) active: Instant,
    /// When the last PING was sent in the current silence or pause.
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

    /// Notes the answer to a PING.
    pub(super) fn answered(&mut self, id: u32) {
        self.liveness.answered(id);
    }

    /// Notes that a message is sent. `asks`: it is a PING of this end, not an answer.
    pub(super) fn sent(&mut self, now: Instant, message: &Message, asks: bool) {
        match message {
            // A PING does not count as activity: if it is unanswered, the connection is idle.
            Message::Ping(id) if asks => return self.liveness.sent_ping(*id),
            Message::Data { data, .. } if !data.is_empty() => self.liveness.sent_data(),
            _ => {}
        }
        self.active = now;
    }
}

/// Counts events, or amounts, in the current window of time.
#[derive(Debug, Default)]
pub(super) struct Rate {
    window: Option<Instant>,
    count: u32,
}

impl Rate {
    /// Counts one more event, and returns how many happened in the window.
    pub(super) fn count(&mut self, now: Instant, window: Duration) -> u32 {
        self.add(1, now, window)
    }

    /// Adds an amount, and returns the total in the window.
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
