//! How large the window of each stream is, and when it is granted again.
//!
//! This file owns the growth of windows and its limits. It must not judge what a path holds, which is the job of
//! [`path`](super::path).
//!
//! A window starts at `stream_receive_budget`. When half of it has been read, it grows at once by the stream's share of
//! half of `receive_budget`. From there on it follows the path: after each round trip in which half of it came and was
//! read, it may grow by one byte for each byte that is read, until it is twice as large. While ever more comes in a
//! round trip, a quarter is enough, and it may grow by two bytes for each, or by 64 if the sender has filled it. The
//! budget counts nothing that a window has grown by, so that an unread stream never pauses the reading. Instead all
//! windows together have a limit. Once it is known what the path holds, the window of a new stream grows to that as soon
//! as half of it has been read, or at once if its user expects many bytes. An eighth of the limit is not for such leaps.
//! When only that much is left, idle streams lend what their windows have grown by.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::flow::DEFAULT_WINDOW;
use super::phase::Phase;
use crate::wire::spdy::StreamId;

/// How often all streams are looked through for idle ones, at most.
const LENDING: Duration = Duration::from_secs(1);

impl Connection {
    /// With flow control, notes that bytes of a stream have arrived.
    pub(super) fn note_received(&mut self, id: StreamId, bytes: usize, now: Instant) {
        if !self.windows {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let window = &stream.receive_window;
        stream.usage.received(bytes, window.target(), window.grown(), &mut self.path, now);
        if window.comes_near_due(bytes) {
            self.measure(now);
        }
    }

    /// With flow control, notes that a stream's reader has taken bytes, or that they are dropped.
    pub(super) fn note_read(&mut self, id: StreamId, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|_| self.windows) {
            let window = &stream.receive_window;
            stream.usage.read(bytes, window.target(), &mut self.path);
        }
    }

    /// Handles the answer to a PING if it was a measurement. Returns whether it was.
    pub(super) fn note_answer(&mut self, ping: u32, now: Instant) -> bool {
        let Some(busy) = self.path.answered(ping, now) else { return false };
        if busy {
            self.measure(now);
        }
        true
    }

    /// Sends a PING to measure the next round trip, if it is time.
    fn measure(&mut self, now: Instant) {
        let useful = self.config.spdy.max_window_growth > 0 && matches!(self.phase, Phase::Open) && !self.is_silent();
        if useful && self.path.may_begin(now) {
            let ping = self.queue_ping();
            self.path.begin(ping, now);
        }
    }

    /// Makes room for the stream in the limit of all windows: what the windows of idle streams have grown by no longer
    /// counts. The peer may use these windows once more, and what is unread then counts against the pool.
    fn lend_what_is_idle(&mut self, to: StreamId) {
        let Some(now) = self.streams.get(&to).and_then(|stream| stream.usage.heard()) else { return };
        if self.lent_at.is_some_and(|at| now.saturating_duration_since(at) < LENDING) {
            return;
        }
        self.lent_at = Some(now);
        for stream in self.streams.values_mut() {
            let before = stream.holding();
            if before.grown > 0 && before.unread == 0 && stream.id != to && stream.usage.is_idle(now) {
                stream.lent = true;
                let after = stream.holding();
                self.budget.moved(before, after);
            }
        }
    }

    /// With flow control, lets the window of a new stream be at once what the path is known to hold, because many bytes
    /// are expected on it: without that the first window costs a round trip.
    pub fn expect_bulk(&mut self, id: StreamId) {
        let most = self.config.spdy.max_stream_window;
        let (fair, spare) = (self.fair_growth(), self.spare_growth());
        let known = self.path.known();
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| self.windows && stream.end.is_none()) else {
            return;
        };
        let before = stream.holding();
        let window = &mut stream.receive_window;
        let (grown, most) = (window.grown() as usize, most.saturating_sub(window.target() as usize));
        let by = known.min(fair).saturating_sub(grown).min(spare).min(most);
        // Smaller growth is not worth a frame.
        if by < DEFAULT_WINDOW as usize {
            return;
        }
        window.grow(u32::try_from(by).unwrap_or(0));
        stream.control.window_update = true;
        let after = stream.holding();
        self.budget.moved(before, after);
        self.schedule_control(id);
    }

    /// By how much a window may grow if all that are in use share the limit.
    fn fair_growth(&self) -> usize {
        self.config.spdy.max_window_growth.checked_div(self.path.users()).unwrap_or(0)
    }

    /// By how much windows may grow in leaps: an eighth, and the first growth of a stream, are not for these.
    fn spare_growth(&self) -> usize {
        let all = self.config.spdy.max_window_growth;
        let at_once = (self.config.receive_budget / 2).min(all);
        all.saturating_sub(self.budget.grown()).saturating_sub((all / 8).max(at_once))
    }

    /// With flow control, grants the peer the bytes that were read, when they are due, and makes the window larger or
    /// smaller.
    pub(super) fn grant(&mut self, id: StreamId) {
        let (most, all) = (self.config.spdy.max_stream_window, self.config.spdy.max_window_growth);
        if self.windows && all.saturating_sub(self.budget.grown()) <= all / 8 {
            self.lend_what_is_idle(id);
        }
        let at_once = (self.config.receive_budget / 2).min(all);
        let known = self.path.known();
        let own = at_once.checked_div(self.path.users()).unwrap_or(0);
        let (fair, spare) = (self.fair_growth(), self.spare_growth());
        let free = all.saturating_sub(self.budget.grown());
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let before = stream.holding();
        let (window, usage) = (&mut stream.receive_window, &mut stream.usage);
        if stream.end.is_some() {
            // Nothing more can come, so only the unread bytes still need the window.
            window.shrink_to_hold(stream.charged);
            let after = stream.holding();
            return self.budget.moved(before, after);
        }
        if !self.windows {
            return;
        }
        // Bytes that are dropped as they arrive hold nothing, so their window takes nothing from the others.
        let (grown, free, spare) = match window.grown() as usize {
            grown if stream.discard => (grown, usize::MAX, usize::MAX),
            grown => (grown, free, spare),
        };
        // The others may need what this stream has more than they.
        let excess = if free < all / 8 { grown.saturating_sub(fair) } else { 0 };
        let surplus = (usage.surplus as usize).max(excess).min(grown.saturating_sub(own));
        let surplus = if stream.lent { grown } else { surplus };
        if surplus > 0 {
            // These bytes are not granted again.
            let shrunk = window.shrink(u32::try_from(surplus).unwrap_or(u32::MAX));
            usage.surplus = usage.surplus.saturating_sub(shrunk);
        }
        let due = window.is_due();
        if due && surplus == 0 {
            let most = most.saturating_sub(window.target() as usize);
            // A stream that was judged itself keeps to that.
            let known = if usage.is_new() { known.min(fair).saturating_sub(grown).min(spare) } else { 0 };
            let first = own.saturating_sub(grown).min(free).max(known).min(most);
            // Other windows, which have not grown yet, may have their first growth at any time.
            let next = (usage.take_growth(spare) as usize).min(fair.saturating_sub(grown));
            let next = next.min(free.saturating_sub(at_once)).min(most);
            // Smaller growth is not worth a frame.
            let by = if first >= DEFAULT_WINDOW as usize / 4 { first.max(next) } else { next };
            let by = u32::try_from(by).unwrap_or(0);
            window.grow(by);
            usage.room = usage.room.saturating_sub(by);
        }
        stream.lent &= window.grown() > 0;
        stream.control.window_update |= due;
        let after = stream.holding();
        self.budget.moved(before, after);
        if due {
            self.schedule_control(id);
        }
    }
}
