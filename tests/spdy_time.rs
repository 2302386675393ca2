//! What passing time does to a SPDY connection, in virtual time.
//!
//! Holds keepalive, idleness and stalls. `spdy_connection.rs` tests which reads and bytes make a stall.

use std::time::Duration;

use kubestream::mux::{GoAwayStatus, RstStatus};
use kubestream::unstable::session::{Config, ReadOutcome, Role};
use kubestream::unstable::wire::spdy::Frame;
use kubestream::{ConnectionError, StreamError};
use support::connection::{End, config, data, goaway, id, initial_window, reply, rst, syn};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn silence_is_pinged_each_ten_seconds_and_ends_at_sixty() {
    let mut client = End::client(Config::default());
    client.passes(seconds(9));
    assert_eq!(client.says(), []);
    client.passes(seconds(1));
    assert_eq!(client.says(), [Frame::Ping(1)]);
    client.passes(seconds(9));
    client.gets(Frame::Ping(1));
    client.passes(seconds(9));
    assert_eq!((client.says(), client.error()), (vec![], None), "any frame restarts it");
    for ping in [3, 5, 7, 9, 11] {
        client.passes(seconds(1));
        assert_eq!(client.says(), [Frame::Ping(ping)]);
        client.passes(seconds(9));
        assert_eq!((client.says(), client.error()), (vec![], None));
    }
    client.passes(seconds(1));
    assert_eq!(
        client.error().as_deref(),
        Some("the peer sent nothing for 60 s and answered no PING: it counts as dead")
    );
    assert_eq!(client.says(), [], "no peer is left to read it");
}

#[test]
fn after_a_halt_of_our_own_the_peer_still_has_its_time_to_answer() {
    let mut client = End::client(Config::default());
    client.now += seconds(1000);
    client.connection.handle_timeout(client.now);
    assert_eq!(client.says(), [Frame::Ping(1)]);
    client.passes(seconds(29));
    assert_eq!(client.error(), None);
    client.passes(seconds(1));
    assert!(matches!(client.connection.error(), Some(ConnectionError::KeepaliveTimeout(_))));
}

#[test]
fn silence_behind_our_data_proves_nothing_about_a_peer_without_windows() {
    // If a process leaves its stdin unread, Go's server reads nothing at all. Output that it sends meanwhile does not
    // change that, nor does an answer to a PING.
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.gets(reply(stream));
    client.writes(stream, "not read by anyone");
    client.says();
    client.gets(data(stream, "a line"));
    client.passes(seconds(10));
    assert_eq!(client.says(), [Frame::Ping(1)]);
    client.gets(Frame::Ping(1));
    client.passes(seconds(3600));
    assert_eq!((client.says().len(), client.error()), (1, None), "one PING waits at a time");

    // A peer with windows would have read the PING.
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.gets_all([initial_window(65536), reply(stream)]);
    client.writes(stream, "x");
    client.says();
    client.passes(seconds(60));
    assert!(matches!(client.connection.error(), Some(ConnectionError::KeepaliveTimeout(_))));
}

#[test]
fn a_key_that_is_typed_to_a_dead_peer_does_not_keep_it_alive() {
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.gets(reply(stream));
    for _ in 0..4 {
        client.passes(seconds(10));
        client.says();
    }
    client.writes(stream, "x");
    client.says();
    client.passes(seconds(20));
    assert!(matches!(client.connection.error(), Some(ConnectionError::KeepaliveTimeout(_))));
}

#[test]
fn a_peer_that_has_answered_five_pings_in_a_row_behind_our_data_has_read_it() {
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.gets(reply(stream));
    client.writes(stream, "x");
    client.says();
    for ping in [1, 3, 5, 7, 9] {
        client.passes(seconds(10));
        assert_eq!(client.says(), [Frame::Ping(ping)]);
        client.gets(Frame::Ping(ping));
    }
    for _ in 0..6 {
        assert_eq!(client.error(), None);
        client.passes(seconds(10));
        client.says();
    }
    assert!(matches!(client.connection.error(), Some(ConnectionError::KeepaliveTimeout(_))));
}

#[test]
fn pings_that_nobody_answers_keep_no_connection_from_being_idle() {
    let mut client = End::client(config(|config| config.idle_timeout = Some(seconds(600))));
    let stream = client.opens();
    client.gets(reply(stream));
    client.writes(stream, "x");
    client.says();
    for _ in 0..60 {
        assert_eq!(client.error(), None);
        client.passes(seconds(10));
        client.says();
    }
    assert_eq!(
        client.error().as_deref(),
        Some("the connection was idle for 600 s: nothing was received, and nothing was sent except unanswered PINGs")
    );
}

#[test]
fn the_peers_silence_does_not_count_while_we_do_not_read() {
    for role in [Role::Client, Role::Server] {
        let mut end = End::new(role, Config::default());
        let stream = if role == Role::Client { 2 } else { 1 };
        end.gets_all([syn(stream), data(stream, vec![0; 2 << 20])]);
        end.says();
        end.passes(seconds(300));
        assert_eq!(end.error(), None);
        assert_eq!(end.says().len(), 1, "one PING waits at a time");
        end.reads(stream);
        end.passes(seconds(0));
        end.passes(seconds(9));
        assert_eq!(end.says(), [], "the clock starts when reading does");
        end.passes(seconds(1));
        assert_eq!(end.says().len(), 1);
        end.passes(seconds(49));
        assert_eq!(end.error(), None);
    }
}

#[test]
fn a_client_that_does_not_read_keeps_what_stands_in_between_open() {
    let mut client = End::client(Config::default());
    client.gets_all([syn(2), data(2, vec![0; 2 << 20])]);
    client.says();
    let mut pings = 0;
    for _ in 0..90 {
        client.passes(seconds(1));
        pings += client.says().len();
    }
    assert_eq!(pings, 9, "every ten seconds");
}

#[test]
fn a_server_that_does_not_read_probes_at_each_interval() {
    let mut server = End::server(Config::default());
    server.gets_all([syn(1), data(1, vec![0; 2 << 20])]);
    server.says();
    let mut pings = Vec::new();
    for _ in 0..90 {
        server.passes(seconds(1));
        pings.extend(server.says());
    }
    assert_eq!(pings, (1..=18).map(|ping| Frame::Ping(2 * ping)).collect::<Vec<_>>(), "every five seconds");
}

#[test]
fn a_connection_without_keepalive_waits_for_ever_and_an_idle_one_ends() {
    let mut client = End::client(config(|config| {
        config.keepalive_interval = None;
        config.idle_timeout = None;
    }));
    assert_eq!(client.connection.poll_timeout(), None);
    client.passes(seconds(1_000_000));
    assert_eq!((client.says(), client.error()), (vec![], None));

    let mut client = End::client(config(|config| {
        config.keepalive_interval = None;
        config.idle_timeout = Some(seconds(100));
    }));
    client.passes(seconds(99));
    client.gets(Frame::Ping(2));
    client.passes(seconds(1));
    assert_eq!(client.says(), [Frame::Ping(2)]);
    client.passes(seconds(99));
    assert_eq!(client.error(), None, "a frame of ours counts too");
    client.passes(seconds(1));
    assert_eq!(
        client.error().as_deref(),
        Some("the connection was idle for 100 s: nothing was received, and nothing was sent except unanswered PINGs")
    );
    assert_eq!(client.says(), [goaway(0, GoAwayStatus::OK)]);
}

fn stalling() -> End {
    let mut server = End::server(config(|config| {
        config.stall_timeout = Some(seconds(60));
        config.receive_budget = 100_000;
    }));
    server.gets_all([syn(1), syn(3), data(3, "a bit"), data(1, vec![0; 200_000])]);
    server.says();
    server
}

#[test]
fn a_stall_fails_everybody_after_its_timeout_and_names_the_stream() {
    let mut server = stalling();
    server.passes(seconds(59));
    assert_eq!((server.error(), server.connection.stalled_by()), (None, Some(id(1))));
    server.passes(seconds(1));
    assert_eq!(server.error().as_deref(), Some("this end left stream 1 unread for 60 s, which stalled the connection"));
    assert_eq!(server.connection.read(id(3)).unwrap(), ReadOutcome::Data("a bit".into()), "no byte is dropped");
}

/// What is dropped must not look like the end, however much of the stream had ended before.
#[test]
fn a_stream_that_is_given_up_for_another_is_never_an_end() {
    for (peers, ours) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut server = End::server(config(|config| {
            config.receive_budget = 100_000;
            config.keepalive_interval = None;
            config.stream_stall_timeout = Some(seconds(20));
        }));
        server.gets_all([syn(1), syn(3)]);
        for stream in [1, 3] {
            server.accepts(stream);
        }
        if ours {
            server.connection.finish(id(1));
        }
        server.says();
        server.gets(Frame::Data { id: id(1), fin: peers, data: vec![0; 200_000].into() });
        assert_eq!(server.connection.read(id(3)).unwrap(), ReadOutcome::Blocked);
        server.passes(seconds(19));
        assert!(!server.connection.wants_read());
        server.passes(seconds(1));
        assert!(server.connection.wants_read() && server.connection.unread() == 0);
        let given_up = server.connection.read(id(1));
        assert!(matches!(given_up, Err(StreamError::Stalled { .. })), "{peers} {ours}: {given_up:?}");
        // A peer for which the stream has ended is not told.
        let told = if peers && ours { vec![] } else { vec![rst(1, RstStatus::INTERNAL_ERROR)] };
        assert_eq!((server.says(), server.error()), (told, None), "{peers} {ours}");
        server.gets(data(3, "at last"));
        assert_eq!(server.reads(3).0, b"at last");
        for stream in [1, 3] {
            server.connection.reset(id(stream), RstStatus::CANCEL);
            server.connection.release(id(stream));
        }
        server.says();
        assert_eq!(server.connection.stream_count(), 0);
    }
}

#[test]
fn a_slow_reader_is_no_stall() {
    // Each read makes room and each frame takes it at once. Reading pauses again and again, but never for long.
    let mut server = stalling();
    for _ in 0..30 {
        server.passes(seconds(10));
        server.reads(1);
        server.gets(data(1, vec![0; 200_000]));
        assert!(!server.connection.wants_read());
        assert_eq!(server.error(), None);
    }
    server.passes(seconds(60));
    assert!(matches!(server.connection.error(), Some(ConnectionError::Stalled { stream: 1, .. })));
}
