//! What time does to a connection: keepalive, idleness, stalls, and the rates of what a peer may do.
//!
//! Owns the instants. They are handed in: nothing here asks what time it is.

use std::time::{Duration, Instant};

use super::connection::{Connection, Role};
use super::frame::Frame;
use crate::error::ConnectionError;

#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    /// When the peer's silence began, as far as it can be held against it.
    silent_since: Instant,
    /// The last frame in either direction.
    active: Instant,
    /// When, since the peer was last heard of, it was sent a PING.
    pinged: Option<Instant>,
    /// DATA of ours has gone out since the peer was last heard of.
    sent_data: bool,
    paused_since: Option<Instant>,
    /// When, during the pause, the peer was last sent a PING.
    probed: Option<Instant>,
    pub(super) unanswered_resets: Rate,
    pub(super) settings_frames: Rate,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            silent_since: now,
            active: now,
            pinged: None,
            sent_data: false,
            paused_since: None,
            probed: None,
            unanswered_resets: Rate::default(),
            settings_frames: Rate::default(),
        }
    }

    pub(super) fn received(&mut self, now: Instant) {
        self.silent_since = now;
        self.active = now;
        self.pinged = None;
        self.sent_data = false;
    }

    pub(super) fn sent(&mut self, now: Instant, frame: &Frame) {
        self.active = now;
        self.sent_data |= matches!(frame, Frame::Data { data, .. } if !data.is_empty());
    }
}

/// How often something happened in the current window of time.
#[derive(Debug, Default)]
pub(super) struct Rate {
    window: Option<Instant>,
    count: u32,
}

impl Rate {
    /// Counts one more, and says how many there are.
    pub(super) fn count(&mut self, now: Instant, window: Duration) -> u32 {
        match self.window {
            Some(began) if now.saturating_duration_since(began) < window => self.count = self.count.saturating_add(1),
            _ => {
                self.window = Some(now);
                self.count = 1;
            }
        }
        self.count
    }
}

impl Connection {
    /// When [`handle_timeout`](Self::handle_timeout) has to be called next. It may come to nothing: what happens meanwhile
    /// moves the timers on, and they are looked at again then.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let idle = self.config.idle_timeout.and_then(|idle| self.clock.active.checked_add(idle));
        let alive = self.keepalive_deadline();
        let stalled = self.stall_deadline();
        [idle, alive, stalled, self.trial_deadline()].into_iter().flatten().min()
    }

    /// Lets the time be `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        self.note_pause(now);
        let past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if past(self.trial_deadline()) {
            self.end_trial();
        }
        if past(self.stall_deadline())
            && let (Some(after), Some(stream)) = (self.config.stall_timeout, self.fullest())
        {
            return self.close(ConnectionError::Stalled { stream: stream.get(), after });
        }
        if past(self.keepalive_deadline()) {
            if self.clock.paused_since.is_some() {
                self.clock.probed = Some(now);
            } else if self.clock.pinged.is_some() {
                return self.close(ConnectionError::KeepaliveTimeout(self.config.keepalive_timeout));
            } else {
                self.clock.pinged = Some(now);
            }
            self.keepalive_ping();
        }
        if let Some(idle) = self.config.idle_timeout
            && past(self.clock.active.checked_add(idle))
        {
            self.close(ConnectionError::IdleTimeout(idle));
        }
    }

    /// Notes whether reading is paused, which stops the clock of the peer's silence.
    pub(super) fn note_pause(&mut self, now: Instant) {
        match (self.budget.is_spent(), self.clock.paused_since) {
            (true, None) => self.clock.paused_since = Some(now),
            (false, Some(_)) => {
                self.clock.paused_since = None;
                self.clock.probed = None;
                self.clock.silent_since = now;
            }
            _ => {}
        }
    }

    fn keepalive_deadline(&self) -> Option<Instant> {
        let interval = self.config.keepalive_interval?;
        if self.is_silent() {
            return None;
        }
        if let Some(paused) = self.clock.paused_since {
            // Unread, the peer's end cannot be seen. A write to a client that is gone fails, and that can; but a server
            // that may be finishing is left alone.
            let server = self.role == Role::Server;
            let since = self.clock.probed.unwrap_or(paused);
            return server.then(|| since.checked_add(self.config.pause_probe_interval)).flatten();
        }
        // A Go peer whose process does not read its stdin reads nothing at all, our PING included: behind DATA of ours
        // its silence proves nothing, and the kernel finds out whether its host is dead.
        let Some(pinged) = self.clock.pinged else { return self.clock.silent_since.checked_add(interval) };
        if self.clock.sent_data && !self.windows {
            return None;
        }
        // After a halt of ours the PING goes out late, and the peer has its time all the same.
        let timeout = self.config.keepalive_timeout;
        let answered =
            pinged.checked_add(timeout.checked_sub(interval).filter(|left| !left.is_zero()).unwrap_or(timeout))?;
        let heard = self.clock.silent_since.checked_add(self.config.keepalive_timeout.max(interval))?;
        Some(answered.max(heard))
    }

    /// A server answers in a round trip. One that does not may be waiting for more than a window's worth.
    fn trial_deadline(&self) -> Option<Instant> {
        const TRIAL: Duration = Duration::from_secs(10);
        (self.on_trial && self.has_unsent()).then(|| self.clock.began.checked_add(TRIAL)).flatten()
    }

    fn stall_deadline(&self) -> Option<Instant> {
        self.clock.paused_since?.checked_add(self.config.stall_timeout?)
    }
}
