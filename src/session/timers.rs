//! What time does to a connection: keepalive, idleness, stalls.
//!
//! This file owns when each timer is due and what it does then. The instants are handed in: nothing here asks what time it is. What a
//! silence proves is for [`liveness`](super::liveness) to say.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::error::ConnectionError;
use super::message::Message;
use super::role::Role;

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
