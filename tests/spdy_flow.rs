//! Windows and endings on a SPDY connection: transcripts of two ends without IO.
//!
//! Holds flow control against each kind of peer, and how streams and connections end. `spdy_time.rs` has time.

use std::time::Duration;

use kubestream::mux::FlowControl;
use kubestream::mux::{GoAwayStatus, Headers, RstStatus};
use kubestream::unstable::session::{Config, Event, ReadOutcome, Role, WriteOutcome};
use kubestream::unstable::wire::spdy::{Frame, SettingId, Settings};
use kubestream::{ConnectionError, StreamError};
use support::connection::{
    End, carried, config, converse, data, fin, goaway, id, initial_window, reply, rst, syn, window_update,
};

const KIB: usize = 1024;

fn with_flow(flow_control: FlowControl) -> Config {
    config(|config| config.spdy.flow_control = flow_control)
}

fn pair(client: Config, server: Config) -> (End, End) {
    let client = End::new(Role::Client, client);
    let server = End { now: client.now, ..End::server(server) };
    (client, server)
}

/// A stream of the client that the server has accepted.
fn open_stream(client: &mut End, server: &mut End) -> u32 {
    let stream = client.opens();
    converse(client, server);
    server.accepts(stream);
    converse(client, server);
    stream
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_server_says_nothing_before_the_clients_first_frame() {
    for flow_control in [FlowControl::Auto, FlowControl::Strict, FlowControl::Off] {
        let mut server = End::server(with_flow(flow_control));
        assert_eq!((server.says(), server.connection.has_output()), (vec![], false), "{flow_control:?}");
        server.passes(seconds(9));
        assert_eq!(server.says(), [], "{flow_control:?}");
    }
}

#[test]
fn a_client_announces_its_window_in_its_first_flight_and_a_server_of_ours_answers_with_its_own() {
    let (mut client, mut server) = pair(Config::default(), config(|config| config.stream_receive_budget = 100_000));
    assert_eq!(client.says(), [initial_window(65536)]);
    server.gets(initial_window(65536));
    let raise = (32 + 16) * 1024 * 1024 - 64 * 1024;
    assert_eq!(server.says(), [initial_window(100_000), window_update(0, raise)]);
    client.gets(initial_window(100_000));
    assert_eq!(client.says(), [window_update(0, raise)]);
}

#[test]
fn a_go_peer_gets_all_bytes_at_once_and_not_one_window_update() {
    // Go's client: no SETTINGS, no windows.
    let mut server = End::server(Config::default());
    server.gets_all([syn(1), syn(3)]);
    server.accepts(1);
    server.accepts(3);
    assert_eq!(server.says(), [reply(1), reply(3)]);
    for _ in 0..100 {
        server.gets(data(3, vec![0; 32 * KIB]));
        assert_eq!(server.reads(3).0.len(), 32 * KIB);
        server.writes(1, vec![0; 100 * KIB]);
        assert_eq!(carried(&server.says()), 100 * KIB, "far beyond a window that is never extended");
    }

    // Go's server ignores our SETTINGS.
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.gets(reply(stream));
    client.says();
    for _ in 0..100 {
        client.gets(data(stream, vec![0; 32 * KIB]));
        client.reads(stream);
        client.writes(stream, vec![0; 100 * KIB]);
        let said = client.says();
        assert!(said.iter().all(|frame| matches!(frame, Frame::Data { .. })), "{said:?}");
        assert_eq!(carried(&said), 100 * KIB);
    }
}

#[test]
fn between_two_of_ours_a_stream_nobody_reads_holds_no_other_up() {
    for (client, server) in [(FlowControl::Auto, FlowControl::Auto), (FlowControl::Strict, FlowControl::Strict)] {
        let (mut client, mut server) = pair(with_flow(client), with_flow(server));
        let (unread, read) = (open_stream(&mut client, &mut server), open_stream(&mut client, &mut server));
        for _ in 0..8 {
            if let Ok(WriteOutcome::Queued) = server.connection.write(id(unread), vec![7; 100 * KIB].into()) {}
        }
        let mut total = 0;
        for _ in 0..200 {
            server.writes(read, vec![9; 100 * KIB]);
            converse(&mut client, &mut server);
            total += client.reads(read).0.len();
            converse(&mut client, &mut server);
            assert!(client.connection.wants_read());
        }
        total += client.reads(read).0.len();
        assert_eq!(total, 200 * 100 * KIB);

        // When it is read, the rest comes.
        let mut late = 0;
        while let (piece, ReadOutcome::Blocked) = client.reads(unread)
            && !piece.is_empty()
        {
            late += piece.len();
            converse(&mut client, &mut server);
        }
        assert_eq!(late, 300 * KIB, "the send buffer, and the write that filled it");
    }
}

#[test]
fn windows_of_any_announced_size_carry_all_bytes() {
    for (share, pool, bytes) in [
        (0, 1 << 20, 2_000),
        (1, 0, 2_000),
        (100, 1 << 20, 70_000),
        (10_000, 0, 300_000),
        (70_000, 1 << 20, 300_000),
        (1 << 20, 1 << 20, 3_000_000),
    ] {
        for flow_control in [FlowControl::Auto, FlowControl::Strict] {
            let limited = || {
                config(|config| {
                    config.spdy.flow_control = flow_control;
                    config.stream_receive_budget = share;
                    config.receive_budget = pool;
                })
            };
            let (mut client, mut server) = pair(limited(), limited());
            let stream = open_stream(&mut client, &mut server);
            for client_writes in [true, false] {
                let (from, to) = if client_writes { (&mut client, &mut server) } else { (&mut server, &mut client) };
                from.writes(stream, vec![1; bytes]);
                let mut read = 0;
                loop {
                    converse(from, to);
                    match to.reads(stream).0.len() {
                        0 => break,
                        more => read += more,
                    }
                }
                assert_eq!((read, from.error(), to.error()), (bytes, None, None), "{share} {pool} {flow_control:?}");
            }
        }
    }
}

#[test]
fn whoever_announces_windows_is_obeyed_from_then_on_and_from_the_first_byte() {
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.gets(reply(stream));
    client.writes(stream, vec![0; 100 * KIB]);
    assert_eq!(carried(&client.says()), 100 * KIB, "neither side has announced windows");
    client.gets(window_update(stream, 36 * KIB as u32));
    client.writes(stream, vec![0; 50 * KIB]);
    assert_eq!(carried(&client.says()), 0, "64 + 36 KiB: what went before counts");
    client.gets(window_update(stream, 10 * KIB as u32));
    assert_eq!(carried(&client.says()), 0, "the session's window is still overdrawn");
    client.gets(window_update(0, 1 << 20));
    assert_eq!(carried(&client.says()), 10 * KIB);
    client.gets(initial_window(80 * KIB as u32));
    assert_eq!(carried(&client.says()), 16 * KIB, "64 KiB became 80");
    client.gets(initial_window(0));
    client.gets(window_update(stream, 79 * KIB as u32));
    assert_eq!(carried(&client.says()), 0, "the window was 80 KiB below zero");
    client.gets(window_update(stream, 2 * KIB as u32));
    assert_eq!(carried(&client.says()), KIB);
}

/// spdystream-rs' server announces how many streams it takes, and grants no bytes.
#[test]
fn a_limit_on_the_streams_is_no_word_of_windows() {
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.gets(Frame::Settings(Settings::single(SettingId::MAX_CONCURRENT_STREAMS, 100)));
    client.gets(reply(stream));
    client.says();
    client.writes(stream, vec![0; 100 * KIB]);
    assert_eq!(carried(&client.says()), 100 * KIB);
    client.gets(data(stream, vec![0; 100 * KIB]));
    client.reads(stream);
    assert_eq!(client.says(), [], "nothing that it would not understand");
}

#[test]
fn before_the_server_has_spoken_no_more_than_a_window_leaves() {
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.writes(stream, vec![0; 200 * KIB]);
    assert_eq!(carried(&client.says()), 64 * KIB, "it may have windows, and may not know yet that we have them");
    client.gets(reply(stream));
    assert_eq!(carried(&client.says()), 136 * KIB, "it has announced none, as Go never does");
}

#[test]
fn strict_keeps_to_the_windows_of_a_peer_that_announces_none() {
    let mut client = End::client(with_flow(FlowControl::Strict));
    let stream = client.opens();
    client.gets(reply(stream));
    client.says();
    client.writes(stream, vec![0; 100 * KIB]);
    assert_eq!(carried(&client.says()), 64 * KIB);
    client.gets_all([window_update(0, 1 << 20), window_update(stream, 100)]);
    assert_eq!(carried(&client.says()), 100);

    client.gets(data(stream, vec![0; 32 * KIB]));
    assert_eq!(client.says(), [Frame::Ping(1)], "it measures the path");
    client.reads(stream);
    assert!(matches!(client.says()[..], [Frame::WindowUpdate { id, .. }] if id.get() == stream), "half is due");
}

#[test]
fn a_strict_end_forgives_what_left_before_its_smaller_window_was_known() {
    let small = || {
        config(|config| {
            config.spdy.flow_control = FlowControl::Strict;
            config.stream_receive_budget = 1000;
        })
    };
    let (mut client, mut server) = pair(small(), small());
    let stream = client.opens();
    client.writes(stream, vec![0; 100 * KIB]);
    let flight = client.says();
    assert_eq!(carried(&flight), 64 * KIB, "the initial window of the draft");
    server.gets_all(flight);
    let mut read = server.reads(stream).0.len();
    loop {
        converse(&mut client, &mut server);
        match server.reads(stream).0.len() {
            0 => break,
            more => read += more,
        }
    }
    assert_eq!((read, client.error(), server.error()), (100 * KIB, None, None));
}

#[test]
fn off_neither_tells_nor_obeys() {
    let mut client = End::new(Role::Client, with_flow(FlowControl::Off));
    assert_eq!(client.says(), []);
    let stream = client.opens();
    client.gets_all([initial_window(0), window_update(stream, 5), window_update(0, 5), reply(stream)]);
    client.writes(stream, vec![0; 100 * KIB]);
    client.gets(data(stream, vec![0; 100 * KIB]));
    client.reads(stream);
    let said = client.says();
    assert_eq!(carried(&said), 100 * KIB);
    assert!(!said.iter().any(|frame| matches!(frame, Frame::WindowUpdate { .. } | Frame::Settings(_))));
}

#[test]
fn writers_wait_for_a_full_buffer_and_streams_take_turns() {
    let mut client = End::client(config(|config| config.send_buffer = 50 * KIB));
    let (first, second) = (client.opens(), client.opens());
    client.gets_all([reply(first), reply(second)]);
    client.events();
    client.writes(first, vec![1; 100 * KIB]);
    client.writes(second, vec![2; 100 * KIB]);
    assert_eq!(client.connection.write(id(first), "more".into()).unwrap(), WriteOutcome::Blocked);
    assert_eq!(client.connection.write_slice(id(first), b"more").unwrap(), None);
    client.events();

    let order: Vec<u32> = client
        .says()
        .iter()
        .filter_map(|frame| if let Frame::Data { id, .. } = frame { Some(id.get()) } else { None })
        .collect();
    assert_eq!(order, [first, second, first, second, first, second, first, second]);
    assert_eq!(client.events(), [Event::Writable(id(first))], "only a writer that was told to wait");
    assert_eq!(client.connection.write_slice(id(first), &[0; 100_000]).unwrap(), Some(50 * KIB));
}

#[test]
fn the_more_urgent_stream_goes_first() {
    let mut client = End::client(Config::default());
    let (bulk, urgent) = (client.opens(), client.opens());
    client.connection.set_priority(id(bulk), 7);
    client.writes(bulk, vec![0; 64 * KIB]);
    client.writes(urgent, "now");
    let said = client.says();
    let first = said.iter().position(|frame| matches!(frame, Frame::Data { .. })).unwrap();
    assert_eq!(said[first], data(urgent, "now"));
}

#[test]
fn each_half_ends_by_itself_and_a_stream_that_is_over_leaves_nothing() {
    let (mut client, mut server) = pair(Config::default(), Config::default());
    let stream = open_stream(&mut client, &mut server);
    client.writes(stream, "wc -c");
    client.finishes(stream);
    client.finishes(stream);
    assert!(!client.connection.is_sent(id(stream)));
    converse(&mut client, &mut server);
    assert!(client.connection.is_sent(id(stream)));
    assert!(matches!(client.connection.write(id(stream), "x".into()), Err(StreamError::Finished)));
    assert_eq!(server.reads(stream), (b"wc -c".to_vec(), ReadOutcome::Finished));

    server.writes(stream, "5");
    server.finishes(stream);
    converse(&mut client, &mut server);
    assert_eq!(client.reads(stream), (b"5".to_vec(), ReadOutcome::Finished));
    for end in [&mut client, &mut server] {
        end.connection.release(id(stream));
        assert_eq!((end.connection.stream_count(), end.says()), (0, vec![]), "both directions have ended: no RST");
    }
}

#[test]
fn what_came_before_a_reset_is_still_read() {
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.says();
    client.gets_all([reply(stream), data(stream, "output"), rst(stream, RstStatus::CANCEL)]);
    assert!(client.connection.has_ended(id(stream)));
    assert!(matches!(client.connection.write(id(stream), "x".into()), Err(StreamError::Reset(RstStatus::CANCEL))));
    assert_eq!(client.reads(stream), (b"output".to_vec(), ReadOutcome::Reset(RstStatus::CANCEL)));
    client.gets(fin(stream));
    assert_eq!(client.reads(stream).1, ReadOutcome::Reset(RstStatus::CANCEL), "the first end counts");
    client.connection.release(id(stream));
    assert_eq!((client.connection.stream_count(), client.says()), (0, vec![]), "a reset is not answered");
}

#[test]
fn a_stream_reset_here_is_reset_there_once_and_what_waited_is_dropped() {
    let mut client = End::client(Config::default());
    let stream = client.opens();
    client.says();
    client.gets_all([reply(stream), data(stream, "unread")]);
    client.writes(stream, "unsent");
    client.connection.reset(id(stream), RstStatus::CANCEL);
    client.connection.reset(id(stream), RstStatus::INTERNAL_ERROR);
    assert_eq!(client.says(), [rst(stream, RstStatus::CANCEL)]);
    client.connection.reset(id(stream), RstStatus::CANCEL);
    assert_eq!((client.says(), client.connection.unread()), (vec![], 0));
    assert!(matches!(client.connection.read(id(stream)), Err(StreamError::Finished)));
    assert!(matches!(client.connection.answer(id(stream)), Some(Ok(()))));
    client.connection.release(id(stream));
    client.gets_all([data(stream, "late"), fin(stream)]);
    assert_eq!((client.connection.stream_count(), client.says(), client.error()), (0, vec![], None));
}

#[test]
fn a_stream_reset_here_before_its_answer_has_no_answer_to_wait_for() {
    let mut client = End::client(Config::default());
    let stream = client.opens();
    assert!(client.connection.answer(id(stream)).is_none());
    client.connection.reset(id(stream), RstStatus::CANCEL);
    assert!(matches!(client.connection.answer(id(stream)), Some(Err(StreamError::Finished))));
}

#[test]
fn go_away_comes_last_behind_all_that_was_written() {
    let (mut client, mut server) = pair(Config::default(), Config::default());
    let stream = open_stream(&mut client, &mut server);
    server.writes(stream, vec![1; 200 * KIB]);
    server.finishes(stream);
    server.connection.go_away();
    assert!(matches!(server.connection.open(Headers::new()), Err(ConnectionError::Closed)));
    assert!(matches!(server.connection.ping(), Err(ConnectionError::Closed)));

    let mut said = server.says();
    assert_eq!(carried(&said), 64 * KIB, "the window");
    assert!(server.error().is_none(), "a reset is not answered");
    client.gets_all(said.drain(..));
    let mut read = 0;
    while server.error().is_none() {
        read += client.reads(stream).0.len();
        server.gets_all(client.says());
        said = server.says();
        client.gets_all(said.clone());
    }
    assert_eq!(said.last(), Some(&goaway(stream, GoAwayStatus::OK)));
    assert_eq!((server.error().unwrap(), server.says()), ("the connection is closed".to_owned(), vec![]));
    let (rest, end) = client.reads(stream);
    assert_eq!((read + rest.len(), end), (200 * KIB, ReadOutcome::Finished));
}

#[test]
fn streams_that_come_while_we_go_away_are_refused() {
    let mut server = End::server(Config::default());
    server.gets_all([initial_window(1), syn(1)]);
    server.writes(1, "held up by the window");
    server.connection.go_away();
    server.says();
    server.gets(syn(3));
    assert_eq!(server.says(), [rst(3, RstStatus::REFUSED_STREAM)]);
    server.connection.release(id(1));
    server.gets(rst(1, RstStatus::CANCEL));
    assert_eq!(server.says(), [goaway(3, GoAwayStatus::OK)]);
}

#[test]
fn what_comes_after_the_peers_go_away_is_still_read_and_answered_streams_live_on() {
    let mut client = End::client(Config::default());
    let (answered, not_answered) = (client.opens(), client.opens());
    client.says();
    let unsent = client.opens();
    // Go says 0, whatever it has accepted.
    client.gets_all([reply(answered), goaway(0, GoAwayStatus::OK), data(answered, "the end"), fin(answered)]);
    assert!(client.connection.is_going_away());
    for stream in [not_answered, unsent] {
        assert!(client.events().contains(&Event::Answered(id(stream))) || stream == unsent);
        let answer = client.connection.answer(id(stream));
        assert!(matches!(answer, Some(Err(StreamError::Reset(RstStatus::REFUSED_STREAM)))));
        client.connection.release(id(stream));
    }
    assert!(matches!(client.connection.open(Headers::new()), Err(ConnectionError::GoneAway { last_good: 0, .. })));
    assert_eq!(client.reads(answered), (b"the end".to_vec(), ReadOutcome::Finished));
    client.writes(answered, "we may still write");
    client.finishes(answered);
    let expected = Frame::Data { id: id(answered), fin: true, data: "we may still write".into() };
    let ended = goaway(0, GoAwayStatus::OK);
    assert_eq!(
        client.says(),
        [expected, ended],
        "no stream is opened with a peer that accepts none, and nothing is left"
    );
    client.connection.release(id(answered));
    assert_eq!(client.connection.stream_count(), 0);
}

/// A client with a status stream and stdin, both accepted, that must be silent after the status.
fn exec_client(despite_reset: bool) -> (End, u32, u32) {
    let mut client = End::client(Config::default());
    let (status, stdin) = (client.opens(), client.opens());
    client.says();
    client.gets_all([reply(status), reply(stdin)]);
    client.connection.stop_sending_after(id(status), despite_reset);
    (client, status, stdin)
}

#[test]
fn after_the_last_word_nothing_is_said_and_all_is_read() {
    let (mut client, status, stdin) = exec_client(false);
    client.writes(stdin, "queued");
    client.gets(Frame::Ping(2));
    client.gets(data(status, "{}"));
    assert!(client.connection.is_silent());
    assert_eq!((client.says(), client.connection.has_output()), (vec![], false), "what waited is dropped");
    assert!(matches!(client.connection.write(id(stdin), "x".into()), Err(StreamError::SessionEnded)));

    // No frame, timer or call makes it write again.
    client.gets_all([Frame::Ping(4), initial_window(1), window_update(0, 0), syn(2), syn(2)]);
    client.connection.reset(id(stdin), RstStatus::CANCEL);
    client.passes(seconds(3600));
    assert_eq!(client.says(), []);

    let (mut client, status, stdin) = exec_client(false);
    client.gets_all([data(status, "{"), data(status, "}"), fin(status), data(stdin, "late"), fin(stdin)]);
    assert_eq!(client.reads(status), (b"{}".to_vec(), ReadOutcome::Finished));
    assert_eq!(client.reads(stdin), (b"late".to_vec(), ReadOutcome::Finished));
    client.connection.release(id(status));
    client.connection.release(id(stdin));
    assert_eq!(client.connection.stream_count(), 0, "a frame that is never sent does not keep a stream");
    client.connection.go_away();
    let goodbye = goaway(0, GoAwayStatus::OK);
    assert!(client.connection.has_output(), "a goodbye is waiting");
    assert_eq!((client.says(), client.error().as_deref()), (vec![goodbye], Some("the connection is closed")));
}

#[test]
fn an_empty_or_discarded_last_word_is_none() {
    let (mut client, status, stdin) = exec_client(false);
    client.gets_all([data(status, ""), data(stdin, "x")]);
    assert!(!client.connection.is_silent());
    client.gets(rst(status, RstStatus::CANCEL));
    client.gets(data(status, "after its end"));
    assert!(!client.connection.is_silent());
}

#[test]
fn a_reset_of_the_first_protocols_error_stream_does_not_end_it() {
    let (mut client, status, _) = exec_client(true);
    client.gets(rst(status, RstStatus::CANCEL));
    assert_eq!(client.reads(status).1, ReadOutcome::Blocked);
    client.gets(data(status, "command terminated"));
    assert!(client.connection.is_silent());
    assert_eq!(client.reads(status).0, b"command terminated");
}

#[test]
fn a_connection_that_is_used_and_trimmed_goes_on() {
    let stored = config(|config| config.spdy.compress_headers = false);
    let (mut client, mut server) = pair(Config::default(), stored);
    for _ in 0..50 {
        let stream = open_stream(&mut client, &mut server);
        client.writes(stream, "x");
        client.connection.trim();
        server.connection.trim();
        client.finishes(stream);
        converse(&mut client, &mut server);
        assert_eq!(server.reads(stream), (b"x".to_vec(), ReadOutcome::Finished));
        server.finishes(stream);
        converse(&mut client, &mut server);
        for end in [&mut client, &mut server] {
            end.connection.release(id(stream));
            assert_eq!(end.connection.stream_count(), 0);
        }
    }
}
