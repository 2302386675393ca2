//! Windows that follow the path: transcripts of one end that reads, and of a peer that is played, a round trip away.
//!
//! Holds what a window grows to, what makes it grow and shrink, and what a peer cannot make it do. `distance.rs` has
//! the time that transfers take.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::time::Duration;

use bytes::Bytes;
use kubestream::ConnectionError;
use kubestream::unstable::session::{Config, Event, ReadOutcome};
use kubestream::unstable::wire::spdy::Frame;
use support::connection::{End, config, data, id, initial_window, reply};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const START: usize = 64 * KIB;
/// What a window grows by as soon as its reader has read: half of the receive budget.
const AT_ONCE: usize = 512 * KIB;
const ROUND_TRIP: Duration = Duration::from_millis(100);
static PIECE: Bytes = Bytes::from_static(&[0; 32 * KIB]);

/// How the peer answers PINGs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Once,
    Twice,
    Never,
    /// Before it can have got them, and for ever more of them.
    Early,
    /// After so many round trips.
    Late(usize),
}

/// A stream, as its peer sees it.
struct Course {
    stream: u32,
    window: usize,
    read: usize,
    granted: usize,
}

struct World {
    end: End,
    courses: Vec<Course>,
    answers: Answers,
    /// PINGs to answer, and after how many more round trips.
    pings: Vec<(usize, u32)>,
    pinged: usize,
}

impl World {
    fn new(config: Config, streams: usize, answers: Answers) -> Self {
        let mut end = End::client(config);
        let opened: Vec<u32> = (0..streams).map(|_| end.opens()).collect();
        end.says();
        end.gets(initial_window(64 * KIB as u32));
        end.gets_all(opened.iter().map(|stream| reply(*stream)));
        let course = |stream: &u32| Course { stream: *stream, window: START, read: 0, granted: START };
        let courses = opened.iter().map(course).collect();
        let mut world = Self { end, courses, answers, pings: Vec::new(), pinged: 0 };
        world.hears();
        world
    }

    /// Takes the frames of the end. A window never grows by more than 64 times what the reader has read, beyond what it gets
    /// at once and what other streams have shown of the path.
    fn hears(&mut self) {
        for frame in self.end.says() {
            match frame {
                Frame::WindowUpdate { id, delta } => {
                    // What is known of the path from other streams.
                    let known = 2 * self.courses.iter().map(|course| course.read).max().unwrap_or_default();
                    let course = self.courses.iter_mut().find(|course| course.stream == id.get());
                    if let Some(course) = course {
                        course.window += delta as usize;
                        course.granted += delta as usize;
                        assert!(course.granted <= START + AT_ONCE + 65 * course.read + known);
                    }
                }
                Frame::Ping(ping) => {
                    self.pinged += 1;
                    let trips = if let Answers::Late(trips) = self.answers { trips } else { 1 };
                    if self.answers != Answers::Never {
                        self.pings.push((trips, ping));
                    }
                }
                Frame::Data { .. } | Frame::Settings(_) => {}
                frame => panic!("{frame:?}"),
            }
        }
    }

    /// The peer sends up to so many bytes on a stream, in as far as it may.
    fn sends(&mut self, at: usize, bytes: usize) {
        let course = &mut self.courses[at];
        let mut left = bytes.min(course.window);
        course.window -= left;
        while left > 0 {
            let piece = left.min(PIECE.len());
            left -= piece;
            self.end.gets(data(course.stream, PIECE.slice(..piece)));
            if self.answers == Answers::Early {
                self.end.gets_all((0..20).map(|ping| Frame::Ping(2 * ping + 1)));
            }
        }
        self.hears();
    }

    fn reads(&mut self, at: usize) -> usize {
        let stream = self.courses[at].stream;
        let mut read = 0;
        while let ReadOutcome::Data(piece) = self.end.connection.read(id(stream)).unwrap() {
            read += piece.len();
        }
        self.courses[at].read += read;
        self.hears();
        read
    }

    /// A round trip passes. Then the answers arrive, and after them up to so many bytes on each of the streams, which
    /// are read.
    fn trip(&mut self, streams: &[usize], bytes: usize) {
        self.passes(ROUND_TRIP);
        for at in streams {
            self.sends(*at, bytes);
        }
        for at in streams {
            self.reads(*at);
        }
    }

    fn passes(&mut self, time: Duration) {
        self.end.passes(time);
        let due = |(trips, ping): &(usize, u32)| (*trips == 1).then_some(*ping);
        let answered: Vec<u32> = self.pings.iter().filter_map(due).collect();
        self.pings.retain(|ping| due(ping).is_none());
        self.pings.iter_mut().for_each(|(trips, _)| *trips -= 1);
        for ping in answered {
            let times = if self.answers == Answers::Twice { 2 } else { 1 };
            self.end.gets_all((0..times).map(|_| Frame::Ping(ping)));
        }
        self.hears();
    }

    fn trips(&mut self, count: usize, streams: &[usize], bytes: usize) {
        for _ in 0..count {
            self.trip(streams, bytes);
        }
    }

    fn window(&self, at: usize) -> usize {
        self.courses[at].window
    }
}

#[test]
fn a_window_that_the_sender_fills_reaches_its_limit_in_two_round_trips() {
    let mut world = World::new(Config::default(), 1, Answers::Once);
    world.trip(&[0], usize::MAX);
    assert_eq!(world.window(0), START + AT_ONCE, "no round trip is known yet");
    world.trip(&[0], usize::MAX);
    let most = 27 * MIB..=28 * MIB;
    assert!(most.contains(&world.window(0)), "{}", world.window(0));
    world.trips(8, &[0], usize::MAX);
    assert!(most.contains(&world.window(0)), "{}", world.window(0));
    assert_eq!(world.pinged, 10, "one PING in each round trip");
    assert!(!world.end.events().iter().any(|event| matches!(event, Event::Pong(_))), "no answer to a user's PING");
}

#[test]
fn a_window_grows_no_further_than_the_path_holds() {
    // Half a MiB above what the window gets at once, and 4 MiB, in each round trip.
    for bytes in [MIB, 4 * MIB] {
        let mut world = World::new(Config::default(), 1, Answers::Once);
        world.trips(60, &[0], bytes);
        assert!((bytes..=6 * bytes).contains(&world.window(0)), "{bytes}: {}", world.window(0));
    }
    let mut world = World::new(Config::default(), 1, Answers::Once);
    world.trips(60, &[0], 200 * KIB);
    assert!(world.window(0) <= START + AT_ONCE, "it holds less than the window gets at once");
}

#[test]
fn no_way_to_answer_pings_makes_a_window_grow_beyond_what_was_delivered_and_read() {
    for answers in [Answers::Never, Answers::Early] {
        let mut world = World::new(Config::default(), 1, answers);
        world.trips(50, &[0], usize::MAX);
        assert!(world.window(0) <= START + AT_ONCE, "{answers:?}: {}", world.window(0));
        assert!(world.pinged <= if answers == Answers::Never { 1 } else { 50 }, "{answers:?}: {}", world.pinged);
    }
    // `hears` holds the growth against what was read.
    for answers in [Answers::Twice, Answers::Late(2), Answers::Late(10)] {
        let mut world = World::new(Config::default(), 1, answers);
        world.trips(100, &[0], usize::MAX);
        assert!(world.window(0) <= 28 * MIB, "{answers:?}: {}", world.window(0));
        // A peer that delivers little gets little, however long it says that the path is.
        let mut world = World::new(Config::default(), 1, answers);
        world.trips(100, &[0], 10 * KIB);
        assert!(world.window(0) <= START + AT_ONCE, "{answers:?}: {}", world.window(0));
    }
}

#[test]
fn a_reader_that_does_not_keep_up_gets_no_larger_window() {
    let mut world = World::new(Config::default(), 1, Answers::Once);
    for _ in 0..50 {
        // It reads everything at once, and then nothing for twenty round trips.
        world.sends(0, usize::MAX);
        (0..20).for_each(|_| world.passes(ROUND_TRIP));
        world.reads(0);
    }
    assert!(world.window(0) <= START + AT_ONCE, "{}", world.window(0));
}

#[test]
fn a_reader_that_stops_holds_one_window_and_pauses_nothing() {
    let mut world = World::new(Config::default(), 3, Answers::Once);
    world.trips(20, &[0], usize::MAX);
    let window = world.window(0);
    for _ in 0..10 {
        world.passes(ROUND_TRIP);
        world.sends(0, usize::MAX);
    }
    let connection = &world.end.connection;
    assert!(connection.unread() == window && window <= 28 * MIB, "{window} {}", connection.unread());
    assert!(connection.wants_read() && connection.stalled_by().is_none());
    // The others share what is left.
    world.trips(50, &[1, 2], usize::MAX);
    let all: usize = (0..3).map(|at| world.window(at)).sum::<usize>() + window;
    assert!(all <= 3 * START + 32 * MIB, "{all}");
    assert!(world.window(1) >= MIB && world.window(2) >= MIB, "{} {}", world.window(1), world.window(2));
    assert!(world.end.connection.wants_read());
    assert_eq!(world.reads(0), window);
}

#[test]
fn unread_bytes_in_the_smallest_pieces_pause_nothing_either() {
    let small = config(|config| config.spdy.max_stream_window = 4 * MIB);
    let mut world = World::new(small, 1, Answers::Once);
    world.trips(20, &[0], usize::MAX);
    let (stream, window) = (world.courses[0].stream, world.window(0));
    assert!((3 * MIB..=4 * MIB).contains(&window), "{window}");
    for _ in 0..window / 257 {
        world.end.gets_all([data(stream, PIECE.slice(..1)), data(stream, PIECE.slice(..256))]);
    }
    assert!(world.end.connection.unread() > window * 3 / 2 && world.end.connection.wants_read());
}

#[test]
fn a_window_is_given_back_after_idling_unless_it_is_used_again() {
    let mut world = World::new(Config::default(), 2, Answers::Once);
    world.trips(20, &[0], usize::MAX);
    let window = world.window(0);
    assert!(window >= 27 * MIB);
    world.passes(Duration::from_secs(30));
    let mut messages = 0;
    while world.window(0) > START + AT_ONCE {
        world.passes(Duration::from_secs(1));
        world.sends(0, 100 * KIB);
        world.reads(0);
        messages += 1;
        assert!(messages <= 400, "{}", world.window(0));
    }
    assert!(world.end.error().is_none());
    // What it gave back is there for another, and for itself.
    for at in [1, 0] {
        world.trips(20, &[at], usize::MAX);
        let other = world.window(1 - at);
        assert!(world.window(at) >= (27 * MIB).min(31 * MIB - other), "{at}: {} {other}", world.window(at));
    }

    let mut world = World::new(Config::default(), 1, Answers::Once);
    world.trips(20, &[0], usize::MAX);
    world.passes(Duration::from_secs(30));
    world.trip(&[0], usize::MAX);
    assert!((13 * MIB..=15 * MIB).contains(&world.window(0)), "{}", world.window(0));
    world.trips(5, &[0], usize::MAX);
    assert!(world.window(0) >= 27 * MIB, "{}", world.window(0));
}

#[test]
fn streams_that_need_more_than_there_is_come_to_share_it() {
    let mut world = World::new(Config::default(), 4, Answers::Once);
    world.trips(20, &[0], usize::MAX);
    world.trips(60, &[0, 1, 2, 3], usize::MAX);
    let windows: Vec<usize> = (0..4).map(|at| world.window(at)).collect();
    assert!(windows.iter().all(|window| (4 * MIB..=10 * MIB).contains(window)), "{windows:?}");
}

/// Opens a stream on which many bytes are expected, and returns by how much its window grows at once.
fn opens_for_bulk(world: &mut World) -> usize {
    let stream = world.end.opens();
    world.end.connection.expect_bulk(id(stream));
    let said = world.end.says();
    match &said[..] {
        [Frame::SynStream { .. }] => 0,
        [Frame::SynStream { .. }, Frame::WindowUpdate { id, delta }] if id.get() == stream => *delta as usize,
        said => panic!("{said:?}"),
    }
}

#[test]
fn a_new_stream_for_many_bytes_has_at_once_what_the_path_is_known_to_hold() {
    let mut world = World::new(Config::default(), 1, Answers::Once);
    assert_eq!(opens_for_bulk(&mut world), 0, "nothing is known yet");
    world.trips(30, &[0], MIB);
    let grown = opens_for_bulk(&mut world);
    assert!((MIB..=2 * MIB).contains(&grown), "{grown}");
}

#[test]
fn new_streams_for_many_bytes_leave_an_eighth_of_the_limit_to_others() {
    let config = Config::default();
    let all = config.spdy.max_window_growth;
    let mut world = World::new(config, 1, Answers::Once);
    world.trips(30, &[0], 4 * MIB);
    let grown = world.window(0) - START;
    let new: usize = (0..100).map(|_| opens_for_bulk(&mut world)).sum();
    assert!((all / 2..=all - all / 8).contains(&(grown + new)), "{grown} and {new} of {all}");
}

#[test]
fn a_stream_that_ends_or_is_dropped_leaves_its_growth_to_others() {
    let mut world = World::new(Config::default(), 3, Answers::Once);
    world.trips(20, &[0], usize::MAX);
    let (ended, dropped) = (world.courses[0].stream, world.courses[1].stream);
    world.end.gets(Frame::Data { id: id(ended), fin: true, data: "the end".into() });
    world.trips(20, &[1], usize::MAX);
    assert!(world.window(1) >= 27 * MIB, "{}", world.window(1));
    world.end.connection.reset(id(dropped), kubestream::mux::RstStatus::CANCEL);
    world.end.connection.release(id(dropped));
    world.end.says();
    world.trips(20, &[2], usize::MAX);
    assert!(world.window(2) >= 27 * MIB, "{}", world.window(2));
}

#[test]
fn a_stream_whose_bytes_are_dropped_keeps_to_the_path_and_takes_nothing_from_others() {
    let mut world = World::new(Config::default(), 2, Answers::Once);
    world.trips(5, &[0], usize::MAX);
    world.end.connection.discard(id(world.courses[0].stream));
    for _ in 0..15 {
        world.passes(ROUND_TRIP);
        // What is dropped counts as read.
        world.courses[0].read += world.window(0);
        world.sends(0, usize::MAX);
    }
    assert!(world.window(0) >= 27 * MIB, "{}", world.window(0));
    world.trips(20, &[1], usize::MAX);
    assert!(world.window(1) >= 27 * MIB, "{}", world.window(1));
}

#[test]
fn a_peer_without_windows_gets_no_pings_for_them() {
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.says();
    client.gets(reply(stream));
    for _ in 0..1000 {
        client.passes(Duration::from_millis(1));
        client.gets(data(stream, vec![0; 32 * KIB]));
        client.reads(stream);
        assert_eq!(client.says(), []);
    }
}

#[test]
fn a_growth_of_0_keeps_windows_as_they_start_and_asks_nothing() {
    let fixed = config(|config| config.spdy.max_window_growth = 0);
    let mut world = World::new(fixed, 1, Answers::Once);
    world.trips(20, &[0], usize::MAX);
    assert_eq!((world.window(0), world.pinged), (START, 0));
}

#[test]
fn an_unanswered_measurement_is_no_sign_of_death_and_no_sign_of_life() {
    let idle = config(|config| config.idle_timeout = Some(Duration::from_secs(45)));
    for (config, seconds) in [(Config::default(), 60), (idle, 45)] {
        let mut world = World::new(config, 1, Answers::Never);
        world.trips(3, &[0], usize::MAX);
        assert_eq!(world.pinged, 1);
        world.end.passes(Duration::from_secs(seconds - 1));
        assert_eq!(world.end.error(), None);
        world.end.passes(Duration::from_secs(2));
        match world.end.connection.error() {
            Some(ConnectionError::KeepaliveTimeout(after) | ConnectionError::IdleTimeout(after)) => {
                assert_eq!(after.as_secs(), seconds);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A peer is not bound by a window that it ignores. What it sends beyond the window counts like any unread bytes.
#[test]
fn a_peer_that_ignores_a_window_that_has_grown_gets_one_window_and_the_budget() {
    let mut world = World::new(Config::default(), 1, Answers::Once);
    for _ in 0..12 {
        world.trip(&[0], usize::MAX);
    }
    let grown = world.courses[0].window;
    assert!(grown > 20 * MIB, "{grown}");
    let mut sent = 0;
    while world.end.connection.wants_read() {
        world.end.gets(data(world.courses[0].stream, PIECE.clone()));
        sent += PIECE.len();
    }
    assert!(sent <= 28 * MIB + MIB + 2 * PIECE.len(), "{sent} bytes were taken");
}

/// Connections that are kept open and silent, one after another, as those of HTTP are.
#[test]
fn streams_that_have_gone_silent_leave_their_growth_to_others() {
    const STREAMS: usize = 6;
    let mut world = World::new(Config::default(), STREAMS, Answers::Once);
    for at in 0..STREAMS {
        for _ in 0..12 {
            world.trip(&[at], usize::MAX);
        }
        assert!(world.courses[at].window > 20 * MIB, "stream {at}: {}", world.courses[at].window);
        world.passes(Duration::from_secs(20));
    }
    // A silent stream may still use its window once, and then has the window that it began with.
    let before = world.courses[0].window;
    for _ in 0..40 {
        world.trip(&[0], MIB);
    }
    assert!(world.courses[0].window < before);
    assert!(world.end.connection.wants_read());
}
