//! What a stream that nobody reads costs the others, once nothing of the peer's is read for its sake.
//!
//! Owns who is given up, for whom and when. That nothing is read is the budget's doing, and for how long is the clock's.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::event::Event;
use super::stream::{End, Stream};
use crate::wire::spdy::{RstStatus, StreamId};

impl Connection {
    /// Has a stream that nobody reads given up after so long, where it is not configured otherwise.
    pub(crate) fn give_up_stalled(&mut self, after: Option<Duration>) {
        self.config.stream_stall_timeout = self.config.stream_stall_timeout.or(after);
    }

    /// When the stream with the most unread bytes is given up. `None`: nothing stalls, or nobody is held up by it.
    ///
    /// Each that is given up begins the time anew: the next may be read in it.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        let after = self.config.stream_stall_timeout?;
        let paused = self.clock.paused_since?;
        let since = self.given_up.map_or(paused, |last| last.max(paused));
        self.holds_up_others(self.fullest()?).then(|| since.checked_add(after)).flatten()
    }

    /// Ends the stream with the most unread bytes, which are dropped, so that the others go on.
    pub(super) fn give_up_fullest(&mut self, now: Instant) {
        let (Some(after), Some(id)) = (self.config.stream_stall_timeout, self.fullest()) else { return };
        self.given_up = Some(now);
        // Neither end is to take it for an end of the stream: CANCEL may be one.
        self.reset_as(id, RstStatus::INTERNAL_ERROR, End::Stalled(after));
        // Nor may its reader, though the peer had ended it before: what it has not read is dropped.
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.end.replace(End::Stalled(after)) != Some(End::Stalled(after))
        {
            self.events.push_back(Event::Ended(id));
        }
        self.note_pause(now);
    }

    /// Whether somebody waits for what cannot be read for this stream's sake: bytes of another, or an answer. What the peer would
    /// open is not known.
    fn holds_up_others(&self, id: StreamId) -> bool {
        let unanswered = |stream: &Stream| stream.ours && !stream.answered && stream.end.is_none();
        self.streams.values().any(|stream| stream.id != id && (stream.reader_waits || unanswered(stream)))
    }

    /// Somebody begins to wait for bytes. While nothing is read that may be what another stream is given up for, and the driver has to look at
    /// the time again.
    pub(super) fn begins_to_wait(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !std::mem::replace(&mut stream.reader_waits, true) && self.budget.is_spent() {
            self.output_added = self.output_added.wrapping_add(1);
        }
    }
}
