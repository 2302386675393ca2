//! How much a path holds: what a stream's reader takes in one round trip.
//!
//! This file owns the round trips, which are measured by PINGs, and what each stream got in them. It must not send a
//! PING or change a window, which is the job of [`windows`](super::windows).

use std::time::{Duration, Instant};

/// A shorter path is full with the window that a stream gets at once: half a MiB in this time is 10 Gbit/s. A larger
/// window would only let bytes wait in the sockets, where they leave the processor's cache: in trials over loopback it
/// cost a fifth of the throughput.
const SHORT: Duration = Duration::from_micros(500);
/// The least time between the PINGs of two measurements. On a shorter path the windows are large enough without them.
const SPACING: Duration = Duration::from_millis(10);
/// How long the shortest round trip counts. After that the path may be another one.
const SHORTEST_FOR: Duration = Duration::from_secs(30);
/// By how many bytes a window may grow for each that is read, while more comes in each round trip.
const AHEAD: u32 = 2;
/// The same if the sender has filled the window too, so that nothing but the window is known to limit it. A connection
/// that has been in use can send a large window at once, and reaches it in two round trips with this pace, in place of
/// six.
const FAST: u32 = 64;
/// How long a stream is without bytes before it counts as idle.
const IDLE: Duration = Duration::from_secs(10);

/// The round trips of a connection.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// The number of this period: a round trip has an odd number, and the time between two an even one.
    period: u32,
    /// The PING that is not answered yet, and when it was sent.
    asked: Option<(u32, Option<Instant>)>,
    began: Option<Instant>,
    shortest: Option<(Duration, Instant)>,
    last: Option<Trip>,
    /// A stream gets many bytes in this round trip, so that the next one is worth measuring.
    busy: bool,
    /// How much the path held for one stream of late.
    holds: u64,
    /// How many streams have had bytes in this period, and had some in the last round trip.
    users: usize,
    last_users: usize,
}

/// A round trip that is over.
#[derive(Clone, Copy, Debug)]
struct Trip {
    period: u32,
    took: Duration,
    /// The shortest round trip of late. The rest of this one was spent in queues, which a larger window would only make
    /// longer.
    shortest: Duration,
}

impl Path {
    /// Whether a round trip may begin: none is under way, and the last one began some time ago.
    pub(super) fn may_begin(&self, now: Instant) -> bool {
        let spaced = self.began.is_none_or(|began| now.saturating_duration_since(began) >= SPACING);
        self.asked.is_none() && spaced
    }

    /// Begins a round trip: this PING is queued.
    pub(super) fn begin(&mut self, ping: u32, now: Instant) {
        self.turn();
        self.asked = Some((ping, None));
        self.began = Some(now);
        self.busy = false;
    }

    /// Notes that a PING is sent.
    pub(super) fn sent(&mut self, ping: u32, now: Instant) {
        if let Some((asked, sent)) = &mut self.asked
            && *asked == ping
        {
            sent.get_or_insert(now);
        }
    }

    /// Ends the round trip if its PING is answered. Returns whether the next one is worth measuring. `None` if it was
    /// no PING of ours, or is not sent yet.
    pub(super) fn answered(&mut self, ping: u32, now: Instant) -> Option<bool> {
        let (_, sent) = self.asked.filter(|(asked, _)| *asked == ping)?;
        let took = now.saturating_duration_since(sent?);
        let known = self
            .shortest
            .filter(|(shortest, at)| *shortest < took && now.saturating_duration_since(*at) < SHORTEST_FOR);
        let (shortest, _) = *self.shortest.insert(known.unwrap_or((took, now)));
        self.last = Some(Trip { period: self.period, took, shortest });
        self.last_users = self.users;
        self.asked = None;
        // What no stream shows again is forgotten little by little.
        self.holds = self.holds.saturating_sub(self.holds / 4);
        self.turn();
        Some(self.busy)
    }

    /// How many streams had bytes in the last round trip, or in the first one so far, at least 1.
    pub(super) fn users(&self) -> usize {
        let so_far = if self.last.is_none() { self.users } else { 0 };
        self.last_users.max(so_far).max(1)
    }

    /// The window that the path was found to be worth, so that a new stream need not find out again. 0 if that is not
    /// known, or if the path is short.
    pub(super) fn known(&self) -> usize {
        let is_long = self.last.is_some_and(|trip| trip.shortest >= SHORT);
        if is_long { usize::try_from(self.holds.saturating_mul(2)).unwrap_or(usize::MAX) } else { 0 }
    }

    fn turn(&mut self) {
        self.period = self.period.wrapping_add(1);
        self.users = 0;
    }
}

/// What one stream has got in a period, and what follows for its window.
#[derive(Debug, Default)]
pub(super) struct Usage {
    period: u32,
    /// The window at the stream's first byte of the period.
    window: u32,
    received: u64,
    read: u64,
    heard: Option<Instant>,
    /// Bytes that the reader has taken since the window last grew, or might have.
    fuel: u32,
    /// How much the path held in the round trip that was judged last.
    held: u64,
    /// By how many bytes the window may grow for each that is read. 0 before a round trip was judged.
    pace: u32,
    /// By how much the window may still grow, because it was used.
    pub(super) room: u32,
    /// By how much the window is larger than it need be.
    pub(super) surplus: u32,
}

impl Usage {
    /// Notes that bytes have arrived for the reader. `window`: the stream's window, and `grown` by how much it is
    /// larger than at first.
    pub(super) fn received(&mut self, bytes: usize, window: u32, grown: u32, path: &mut Path, now: Instant) {
        self.turn(window, path);
        if self.heard.is_some() && self.is_idle(now) {
            (self.room, self.surplus) = (0, self.surplus.max(grown / 2));
            // If it was this stream that showed what the path holds, that is too long ago.
            if self.held >= path.holds / 2 {
                path.holds = 0;
            }
        }
        self.heard = Some(now);
        self.received = self.received.saturating_add(bytes as u64);
        path.busy |= self.received >= u64::from(self.window / 4);
    }

    /// Notes that the reader has taken bytes.
    pub(super) fn read(&mut self, bytes: usize, window: u32, path: &mut Path) {
        self.turn(window, path);
        self.read = self.read.saturating_add(bytes as u64);
        self.fuel = self.fuel.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Takes the growth of a window that is due: from one byte to [`FAST`] for each that was read. `spare` limits what is
    /// beyond [`AHEAD`].
    pub(super) fn take_growth(&mut self, spare: usize) -> u32 {
        let fuel = std::mem::take(&mut self.fuel);
        let spare = u32::try_from(spare).unwrap_or(u32::MAX);
        let slow = fuel.saturating_mul(self.pace.min(AHEAD));
        slow.max(fuel.saturating_mul(self.pace).min(spare)).min(self.room)
    }

    /// Whether no round trip of the stream was judged yet.
    pub(super) fn is_new(&self) -> bool {
        self.pace == 0
    }

    /// When the last bytes came.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Whether no bytes have come for a while.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.heard.is_none_or(|heard| now.saturating_duration_since(heard) >= IDLE)
    }

    /// Begins a new period, and judges the round trip before it.
    fn turn(&mut self, window: u32, path: &mut Path) {
        if self.period == path.period {
            return;
        }
        if let Some(trip) = path.last.filter(|trip| trip.period == self.period) {
            let held = self.judge(trip, window);
            path.holds = path.holds.max(held);
        }
        path.users = path.users.saturating_add(1);
        *self = Self { period: path.period, window, received: 0, read: 0, ..*self };
    }

    /// Returns how much the path held.
    fn judge(&mut self, trip: Trip, window: u32) -> u64 {
        // Bytes that had arrived before, and are read only now, say nothing of the path. Nor do bytes that nobody
        // reads.
        let bytes = self.received.min(self.read);
        let shortened = u128::from(bytes).saturating_mul(trip.shortest.as_nanos()).checked_div(trip.took.as_nanos());
        let held = shortened.and_then(|held| u64::try_from(held).ok()).unwrap_or(bytes);
        let before = std::mem::replace(&mut self.held, held);
        // While TCP begins, its sender sends twice as much in each round trip, and the window has to stay ahead of it.
        let accelerates = held / 3 >= before / 2;
        let is_filled = held >= u64::from(self.window / 2);
        // A single round trip may seem to bring more only because of where in a burst its PING fell.
        let again = self.pace != 1;
        self.pace = match accelerates {
            true if again && is_filled => FAST,
            true => AHEAD,
            false => 1,
        };
        // A window is granted again when half of it is read. So it does not hold the sender up only if it is twice what
        // the path holds.
        let is_used = held >= u64::from(if accelerates { self.window / 4 } else { self.window / 2 });
        if is_used && trip.shortest >= SHORT {
            (self.room, self.surplus) = (window.saturating_mul(self.pace), 0);
        } else if held < u64::from(self.window / 6) && !accelerates {
            let enough = u32::try_from(held.saturating_mul(4)).unwrap_or(u32::MAX);
            (self.room, self.surplus) = (0, window.saturating_sub(enough));
        } else {
            self.room = 0;
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1024;

    /// One stream with a window of 64 KiB and a growth of 32 KiB, on a path of 100 ms.
    struct World {
        path: Path,
        usage: Usage,
        now: Instant,
        ping: u32,
    }

    impl World {
        fn new() -> Self {
            Self { path: Path::default(), usage: Usage::default(), now: Instant::now(), ping: 1 }
        }

        /// A round trip of so many milliseconds in which bytes arrive and are read.
        fn trip(&mut self, milliseconds: u64, received: u32, read: u32) {
            self.ping += 2;
            self.path.begin(self.ping, self.now);
            self.path.sent(self.ping, self.now);
            self.usage.received(received as usize, 64 * KIB, 32 * KIB, &mut self.path, self.now);
            self.usage.read(read as usize, 64 * KIB, &mut self.path);
            self.now += Duration::from_millis(milliseconds);
            assert!(self.path.answered(self.ping, self.now).is_some());
            self.usage.received(0, 64 * KIB, 32 * KIB, &mut self.path, self.now);
        }
    }

    #[test]
    fn a_window_may_grow_after_a_round_trip_in_which_half_of_it_came_and_was_read() {
        let least = 32 * KIB;
        for (received, read, room) in [(least, least, 64 * KIB), (least - 1, 64 * KIB, 0), (64 * KIB, least - 1, 0)] {
            let mut world = World::new();
            world.trip(100, 31 * KIB, 31 * KIB);
            world.trip(100, received, read);
            assert_eq!(world.usage.room, room, "{received} {read}");
        }
    }

    #[test]
    fn a_window_grows_sooner_and_faster_while_more_comes_in_each_round_trip() {
        let mut world = World::new();
        for (bytes, room) in [(10, 0), (15, 0), (16, 0), (24, 128), (35, 64), (36, 64), (54, 128)] {
            world.trip(100, bytes * KIB, bytes * KIB);
            assert_eq!(world.usage.room, room * KIB, "{bytes}");
        }
    }

    #[test]
    fn a_window_that_is_filled_and_brings_more_in_two_round_trips_may_grow_much_faster() {
        let mut world = World::new();
        for (bytes, pace) in [(31, AHEAD), (32, 1), (63, AHEAD), (64, 1), (20, 1), (33, AHEAD), (64, FAST), (64, 1)] {
            world.trip(100, bytes * KIB, bytes * KIB);
            assert_eq!(world.usage.pace, pace, "{bytes}");
        }
        let mut world = World::new();
        world.trip(100, 32 * KIB, 32 * KIB);
        assert_eq!(world.usage.pace, FAST, "nothing came before the first bytes");
        assert_eq!(world.usage.take_growth(10 << 20), 64 * 32 * KIB);
        world.usage.fuel = 2 * KIB;
        assert_eq!(world.usage.take_growth(0), 4 * KIB, "without spare bytes it grows as slowly as others");
    }

    #[test]
    fn what_one_stream_shows_of_the_path_is_known_for_others_until_it_comes_back_from_idling() {
        let mut world = World::new();
        assert_eq!(world.path.known(), 0);
        world.trip(100, 60 * KIB, 60 * KIB);
        assert_eq!(world.path.known(), 120 * 1024);
        world.trip(100, 30 * KIB, 30 * KIB);
        assert_eq!(world.path.known(), 90 * 1024, "it is forgotten little by little");
        world.now += IDLE;
        world.usage.received(1, 64 * KIB, 32 * KIB, &mut world.path, world.now);
        assert_eq!(world.path.known(), 0);
        let mut short = World::new();
        short.trip(0, 60 * KIB, 60 * KIB);
        assert_eq!(short.path.known(), 0, "over a short path no window need grow");
    }

    #[test]
    fn time_in_queues_does_not_count_until_it_is_the_path() {
        let mut world = World::new();
        world.trip(100, 64 * KIB, 64 * KIB);
        world.trip(100, 64 * KIB, 64 * KIB);
        assert_eq!(world.usage.room, 64 * KIB);
        world.trip(201, 64 * KIB, 64 * KIB);
        assert_eq!(world.usage.room, 0, "what a longer queue holds is not the path's");
        world.now += SHORTEST_FOR;
        world.trip(201, 64 * KIB, 64 * KIB);
        assert!(world.usage.room > 0);
    }

    #[test]
    fn a_window_that_is_hardly_used_or_was_idle_is_larger_than_it_need_be() {
        let mut world = World::new();
        world.trip(100, 11 * KIB, 11 * KIB);
        world.trip(100, 11 * KIB, 11 * KIB);
        assert_eq!(world.usage.surplus, 0);
        world.trip(100, 10 * KIB, 11 * KIB);
        assert_eq!(world.usage.surplus, 24 * KIB, "all but four times what the path holds");
        world.trip(100, 64 * KIB, 64 * KIB);
        assert_eq!((world.usage.surplus, world.usage.room), (0, 128 * KIB));
        world.now += IDLE;
        world.usage.received(1, 64 * KIB, 32 * KIB, &mut world.path, world.now);
        assert_eq!((world.usage.surplus, world.usage.room), (16 * KIB, 0));
    }

    #[test]
    fn over_a_short_path_a_window_does_not_grow() {
        let mut world = World::new();
        world.trip(0, 64 * KIB, 64 * KIB);
        world.trip(1, 64 * KIB, 64 * KIB);
        assert_eq!(world.usage.room, 0);
    }

    #[test]
    fn an_answer_counts_once_and_only_after_its_question() {
        let (mut path, now) = (Path::default(), Instant::now());
        assert!(path.may_begin(now) && path.answered(1, now).is_none());
        path.begin(1, now);
        assert!(!path.may_begin(now + SPACING), "one at a time");
        assert!(path.answered(1, now).is_none(), "it is not sent yet");
        path.sent(3, now);
        path.sent(1, now);
        assert!(path.answered(3, now).is_none());
        assert_eq!(path.answered(1, now), Some(false));
        assert!(path.answered(1, now).is_none());
        assert!(!path.may_begin(now) && path.may_begin(now + SPACING));
    }
}
