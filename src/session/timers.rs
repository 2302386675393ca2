//! The timers of a connection: keepalive, idle time, stalls.
//!
//! This file owns when each timer is due and what it does then. It must not read the time, which is passed in, or
//! decide what silence proves, which is the job of [`liveness`](super::liveness).

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::error::ConnectionError;
use super::message::Message;
use super::role::Role;

impl Connection {
    /// When [`handle_timeout`](Self::handle_timeout) has to be called next. That call may do nothing, since events in
    /// between can move a timer. Ask again after it.
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

    /// Runs the timers that are due at `now`.
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

    /// Notes whether reading is paused. While it is, the peer's silence is not counted.
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

    /// When the next PING is due, because the peer is silent or reading is paused. Both ends send PINGs, because hops
    /// cut idle connections. While a server does not read, it cannot see that its client has ended, but a write to a
    /// lost client fails.
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

    /// When a silent peer counts as dead. Each PING has one interval to be answered, also if it was sent late because
    /// this end was halted.
    fn death_due(&self) -> Option<Instant> {
        let (interval, timeout) = (self.config.keepalive_interval?, self.config.keepalive_timeout?);
        let clock = &self.clock;
        if self.is_silent() || clock.paused_since.is_some() || !clock.liveness.is_dead_silence() {
            return None;
        }
        let answered = clock.pinged?.checked_add(interval)?;
        Some(answered.max(clock.silent_since.checked_add(timeout)?))
    }

    /// Whether the peer has received everything, as far as this end can know.
    pub(crate) fn has_taken_all(&self) -> bool {
        self.windows || self.clock.liveness.has_taken_all()
    }

    /// Sends a PING to find out whether the peer is alive, also after the peer's last word.
    pub(crate) fn ask(&mut self) {
        if self.is_closed() {
            return;
        }
        if self.session_has_ended() {
            self.last_message = Some(Message::Ping(self.take_ping_id()));
        } else if !self.is_silent() {
            self.keepalive_ping();
        }
    }

    /// Queues a PING, unless one is queued already. A peer that reads nothing for hours would otherwise fill the queue
    /// of answers.
    pub(super) fn keepalive_ping(&mut self) {
        if !self.replies.iter().any(|frame| matches!(frame, Message::Ping(id) if self.role.sends_ping(*id))) {
            self.queue_ping();
        }
    }

    /// When a client stops waiting for the server's first frame. A server with flow control sends it within a round
    /// trip. A server without may wait for more DATA than one window.
    fn trial_deadline(&self) -> Option<Instant> {
        const TRIAL: Duration = Duration::from_secs(10);
        (self.on_trial && self.has_unsent()).then(|| self.clock.began.checked_add(TRIAL)).flatten()
    }

    fn stall_deadline(&self) -> Option<Instant> {
        self.clock.paused_since?.checked_add(self.config.stall_timeout?)
    }
}
