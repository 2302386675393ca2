//! What time does to a connection: keepalive, idleness, stalls, and the rates of what a peer may do.
//!
//! Owns the instants. They are handed in: nothing here asks what time it is. What a silence proves is [`liveness`](super::liveness)'s.

use std::time::{Duration, Instant};

use super::connection::{Connection, Role};
use super::error::ConnectionError;
use super::liveness::Liveness;
use super::message::Message;

#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    /// When the peer's silence began, as far as it can be held against it.
    silent_since: Instant,
    /// When a frame last came, or one of ours last went that was no PING.
    active: Instant,
    /// When, in this silence or this pause, the peer was last sent a PING.
    pinged: Option<Instant>,
    liveness: Liveness,
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

impl Connection {
    /// When [`handle_timeout`](Self::handle_timeout) has to be called next. It may come to nothing: what happens meanwhile
    /// moves the timers on, and they are looked at again then.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let idle = self.config.idle_timeout.and_then(|idle| self.clock.active.checked_add(idle));
        [idle, self.ping_due(), self.death_due(), self.stall_deadline(), self.given_up_at(), self.trial_deadline()]
            .into_iter()
            .flatten()
            .min()
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
        if past(self.given_up_at()) {
            self.give_up_fullest(now);
        }
        if past(self.stall_deadline())
            && let (Some(after), Some(stream)) = (self.config.stall_timeout, self.fullest())
        {
            return self.close(ConnectionError::Stalled { stream: stream.get(), after });
        }
        if past(self.death_due()) {
            let timeout = self.config.keepalive_timeout.unwrap_or_default();
            return self.close(ConnectionError::KeepaliveTimeout(timeout));
        }
        if past(self.ping_due()) {
            self.clock.pinged = Some(now);
            if self.clock.paused_since.is_none() {
                self.clock.liveness.asked(self.windows);
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
                self.clock.received(now);
            }
            _ => {}
        }
    }

    /// When the peer is sent a PING, because it is silent or because it is not read. Either end does so: hops in between cut what is
    /// idle. A server that does not read cannot see its client's end, but a write to a client that is gone fails.
    fn ping_due(&self) -> Option<Instant> {
        let interval = self.config.keepalive_interval?;
        if self.is_silent() {
            return None;
        }
        let (since, wait) = match (self.clock.paused_since, self.role) {
            (None, _) => (self.clock.silent_since, interval),
            (Some(paused), Role::Client) => (paused, interval),
            (Some(paused), Role::Server) => (paused, interval.min(self.config.pause_probe_interval)),
        };
        self.clock.pinged.unwrap_or(since).checked_add(wait)
    }

    /// When the peer's silence is its death. Each PING has an interval for its answer, one that went out late after a halt of ours too.
    fn death_due(&self) -> Option<Instant> {
        let (interval, timeout) = (self.config.keepalive_interval?, self.config.keepalive_timeout?);
        let clock = &self.clock;
        if self.is_silent() || clock.paused_since.is_some() || !clock.liveness.is_dead_silence() {
            return None;
        }
        let answered = clock.pinged?.checked_add(interval)?;
        Some(answered.max(clock.silent_since.checked_add(timeout)?))
    }

    /// Whether nothing of ours is on its way to the peer any more, as far as one can know.
    pub(crate) fn has_taken_all(&self) -> bool {
        self.windows || self.clock.liveness.has_taken_all()
    }

    /// Sends a PING to find out whether the peer is there, behind its last word too.
    pub(crate) fn ask(&mut self) {
        if self.is_closed() {
            return;
        }
        if self.is_hushed() {
            self.last_message = Some(Message::Ping(self.take_ping_id()));
        } else if !self.is_silent() {
            self.keepalive_ping();
        }
    }

    /// One that still waits to be sent is enough: those of hours would fill the queue of answers.
    pub(super) fn keepalive_ping(&mut self) {
        if !self.replies.iter().any(|frame| matches!(frame, Message::Ping(id) if self.role.sends_ping(*id))) {
            self.queue_ping();
        }
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
