//! Resets an unread stream that keeps the socket from being read, if it holds up readers of other streams.
//!
//! This module owns which stream is reset, and when. It must not pause the reading, which is the budget's job
//! ([`flow`](super::flow)), or measure the pause, which is the clock's job.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::event::Event;
use super::stream::{End, Stream};
use crate::wire::spdy::{RstStatus, StreamId};

impl Connection {
    /// Sets after which time a stream is reset, if `stream_stall_timeout` does not say it.
    pub(crate) fn give_up_stalled(&mut self, after: Option<Duration>) {
        self.give_up_after = self.give_up_after.or(after);
    }

    /// When the stream with the most unread bytes is reset. `None` if reading is not paused, or the stream holds up no
    /// reader.
    ///
    /// The time starts again after each reset, so that the next stream has time to be read.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        let after = self.give_up_after?;
        let paused = self.clock.paused_since?;
        let since = self.given_up.map_or(paused, |last| last.max(paused));
        self.holds_up_others(self.fullest()?).then(|| since.checked_add(after)).flatten()
    }

    /// Resets the stream with the most unread bytes and drops these, so that the other streams go on.
    pub(super) fn give_up_fullest(&mut self, now: Instant) {
        let (Some(after), Some(id)) = (self.give_up_after, self.fullest()) else { return };
        self.given_up = Some(now);
        // Not CANCEL, which a peer may take for an orderly end of the stream.
        self.reset_as(id, RstStatus::INTERNAL_ERROR, End::Stalled(after));
        // The reader gets this error even if the peer had ended the stream before, since unread bytes were dropped.
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.end.replace(End::Stalled(after)) != Some(End::Stalled(after))
        {
            self.events.push_back(Event::Ended(id));
        }
        self.note_pause(now);
    }

    /// Whether a task waits for bytes of another stream, or for the answer to one. A stream that the peer would open
    /// cannot be known.
    fn holds_up_others(&self, id: StreamId) -> bool {
        let unanswered = |stream: &Stream| stream.ours && !stream.answered && stream.end.is_none();
        self.streams.values().any(|stream| stream.id != id && (stream.reader_waits || unanswered(stream)))
    }

    /// Notes that a task waits for bytes of this stream. If reading is paused, another stream may have to be reset for
    /// it, so the driver is woken to check its timers.
    pub(super) fn begins_to_wait(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !std::mem::replace(&mut stream.reader_waits, true) && self.budget.is_spent() {
            self.output_added = self.output_added.wrapping_add(1);
        }
    }
}
