//! What a peer may do to a SPDY connection and what it may not: one end without IO, against single frames.
//!
//! Holds the limits and rules that end a stream or the connection. `spdy_flow.rs` has windows and endings,
//! `spdy_time.rs` has time, and `spdy_model.rs` checks what must hold for any sequence of events.

use std::time::Duration;

use kubestream::mux::FlowControl;
use kubestream::mux::{GoAwayStatus, Headers, RstStatus};
use kubestream::unstable::session::{Event, ReadOutcome};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Frame, Setting, SettingId, Settings};
use kubestream::{ConnectionError, Initiator, StreamError};
use support::connection::{
    End, config, data, fin, goaway, headers, id, initial_window, opening, reply, rst, syn, window_update,
};

/// A kind of harm: its name, and its frames for a stream or a turn.
type Way<T> = (&'static str, fn(u32) -> T);

fn many_streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|stream| 2 * stream + 1)
}

/// Row 8.
#[test]
fn of_ten_thousand_streams_only_as_many_as_may_live_are_taken() {
    let mut server = End::server(config(|config| config.spdy.max_streams = 16));
    for stream in many_streams(10_000) {
        server.gets(syn(stream));
        assert!(server.connection.stream_count() <= 16);
        let expected = if stream < 32 { vec![] } else { vec![rst(stream, RstStatus::REFUSED_STREAM)] };
        assert_eq!(server.says(), expected);
    }
    assert_eq!(server.events().len(), 16);

    server.connection.release(id(1));
    server.gets(rst(1, RstStatus::CANCEL));
    server.gets(syn(20_001));
    assert_eq!(server.events().last(), Some(&Event::Incoming(id(20_001))), "there is room for one again");
    assert_eq!(server.connection.stream_count(), 16);
}

/// Row 8 and CVE-2025-8671: a stream that has ended on the wire still costs something until it has been handled.
#[test]
fn streams_that_end_before_they_are_handled_count_until_they_are() {
    let ways: [Way<[Frame; 2]>; 4] = [
        ("a window update of zero", |stream| [syn(stream), window_update(stream, 0)]),
        ("an answer to the peer's own stream", |stream| [syn(stream), reply(stream)]),
        ("one-way, and its end comes", |stream| [opening(stream, false, true), fin(stream)]),
        ("one-way, and ends as it begins", |stream| [opening(stream, true, true), headers(stream, true)]),
    ];
    for (way, frames) in ways {
        let mut server = End::server(config(|config| config.spdy.max_streams = 16));
        for stream in many_streams(1000) {
            server.gets_all(frames(stream));
            server.says();
        }
        assert_eq!(server.connection.stream_count(), 16, "{way}: each is held until it is dropped");
        assert_eq!(server.error(), None, "{way}");
        for stream in many_streams(1000) {
            server.connection.release(id(stream));
        }
        server.says();
        assert_eq!(server.connection.stream_count(), 0, "{way}");
        server.gets(syn(2001));
        assert_eq!(server.connection.stream_count(), 1, "{way}: there is room again");
    }
}

/// The same for streams that were accepted and reset, while their handlers go on.
#[test]
fn streams_reset_by_the_peer_count_until_their_handlers_let_go() {
    let mut server = End::server(config(|config| config.spdy.max_streams = 16));
    for stream in many_streams(1000) {
        server.gets(syn(stream));
        if server.connection.take_headers(id(stream)).is_some() {
            server.connection.reply(id(stream), Headers::new()).unwrap();
        }
        server.says();
        server.gets(rst(stream, RstStatus::CANCEL));
    }
    assert_eq!(server.connection.stream_count(), 16);
}

/// Row 9, CVE-2023-44487.
#[test]
fn streams_reset_before_anybody_took_them_are_counted_and_others_are_not() {
    type Taking = (&'static str, fn(&mut End, u32));
    // client-go resets each data stream of a port-forward when it is done, thousands per minute.
    let answered: Taking = ("answered", |server, stream| {
        server.accepts(stream);
        server.says();
    });
    // The port is still being dialled when the client gives up.
    let taken: Taking = ("taken", |server, stream| drop(server.connection.take_headers(id(stream)).unwrap()));
    let unsent: Taking = ("accepted, but the reply has not been sent", |server, stream| server.accepts(stream));
    let mut server = End::server(config(|_| {}));
    let mut stream = 1;
    for (how, take) in [answered, taken, unsent] {
        for _ in 0..10_000 {
            server.gets(syn(stream));
            take(&mut server, stream);
            server.gets(rst(stream, RstStatus::CANCEL));
            server.connection.release(id(stream));
            stream += 2;
        }
        assert_eq!((server.error(), server.connection.stream_count()), (None, 0), "{how}");
    }
    // A caller that takes them and keeps them has at most as many as may be open.
    let mut slow = End::server(config(|config| config.spdy.max_streams = 16));
    for stream in many_streams(1000) {
        slow.gets(syn(stream));
        slow.connection.take_headers(id(stream));
        slow.gets(rst(stream, RstStatus::CANCEL));
        slow.says();
    }
    assert_eq!((slow.error(), slow.connection.stream_count()), (None, 16));

    let mut resets = |server: &mut End, count: u32| {
        for _ in 0..count {
            server.gets_all([syn(stream), rst(stream, RstStatus::CANCEL)]);
            assert_eq!(server.connection.stream_count(), 0, "it leaves the backlog");
            stream += 2;
        }
        stream - 2
    };
    for _ in 0..3 {
        resets(&mut server, 200);
        assert_eq!(server.error(), None);
        server.passes(Duration::from_secs(30));
        server.says();
    }
    let last = resets(&mut server, 201);
    server.ended_by("the peer exceeded the limit `max_unanswered_resets` (200)", last);
}

/// Row 10.
#[test]
fn a_peer_that_makes_us_answer_and_does_not_read_is_ended_by_the_queue() {
    let ways: [Way<Frame>; 5] = [
        ("PING", |turn| Frame::Ping(2 * turn + 1)),
        ("SYN_STREAM beyond the limit", |turn| syn(2 * turn + 1)),
        ("SYN_REPLY for an unknown stream", |turn| reply(2 * turn + 1002)),
        ("HEADERS for an unknown stream", |turn| headers(2 * turn + 1001, false)),
        ("defective headers", |turn| match syn(2 * turn + 1) {
            Frame::SynStream { id, associated, priority, slot, fin, unidirectional, .. } => {
                let headers = Headers::from_iter([("", "x")]);
                Frame::SynStream { id, associated, priority, slot, fin, unidirectional, headers }
            }
            frame => frame,
        }),
    ];
    for (way, frame) in ways {
        let mut server = End::server(config(|config| config.spdy.max_streams = 0));
        (0..1024).for_each(|turn| server.gets(frame(turn)));
        assert_eq!(server.error(), None, "{way}");
        server.gets(frame(1024));
        let error = server.error().unwrap();
        assert_eq!(error, "the peer exceeded the limit `max_queued_replies` (1024)", "{way}");
        assert_eq!(server.says().len(), 1, "{way}: only GOAWAY is left to be sent");
        assert_eq!(server.connection.error().unwrap().initiator(), Initiator::Remote);
    }
}

/// Row 11: no rate of PINGs ends a session, because one PING for each DATA frame must work.
#[test]
fn pings_are_answered_once_an_id_and_a_hundred_thousand_are_no_crime() {
    let mut server = End::server(config(|_| {}));
    for turn in 0..100_000 {
        server.gets(Frame::Ping(2 * turn + 1));
        assert_eq!(server.says(), [Frame::Ping(2 * turn + 1)]);
    }
    for _ in 0..100_000 {
        server.gets(Frame::Ping(7));
    }
    assert_eq!(server.says(), [Frame::Ping(7)], "one answer waits for each id");
    server.gets(Frame::Ping(2));
    assert_eq!((server.says(), server.events()), (vec![], vec![Event::Pong(2)]), "an even id is the echo of ours");
}

/// Row 7.
#[test]
fn settings_may_come_often_but_not_all_the_time() {
    let mut client = End::client(config(|_| {}));
    for _ in 0..3 {
        (0..32).for_each(|_| client.gets(Frame::Settings(Settings::default())));
        assert_eq!(client.error(), None);
        client.passes(Duration::from_secs(30));
        client.says();
    }
    (0..33).for_each(|_| client.gets(initial_window(1)));
    assert_eq!(client.error().as_deref(), Some("the peer exceeded the limit `max_settings_frames` (32)"));
}

/// Row 4: blocks within their limit. Each is inflated, even if its frame is then ignored.
#[test]
fn header_blocks_are_many_bytes_at_times_but_not_all_the_time() {
    fn headers(turn: u32) -> Headers {
        // 1,000 bytes: 4 for the count of pairs, and for each pair 8 besides its own bytes. Values of the same name are
        // joined.
        let pairs = if turn.is_multiple_of(2) { 1 } else { 4 };
        (0..pairs).map(|_| ("a", vec![b'x'; 996 / pairs - 9])).collect()
    }
    let ways: [Way<Frame>; 4] = [
        ("streams of which one may be open", |turn| match opening(2 * turn + 1, false, false) {
            Frame::SynStream { id, associated, priority, slot, fin, unidirectional, .. } => {
                Frame::SynStream { id, associated, priority, slot, fin, unidirectional, headers: headers(turn) }
            }
            other => other,
        }),
        ("replies to unknown streams", |turn| Frame::SynReply {
            id: id(2 * turn + 2),
            fin: false,
            headers: headers(turn),
        }),
        ("headers for unknown streams", |turn| Frame::Headers {
            id: id(2 * turn + 1),
            fin: false,
            headers: headers(turn),
        }),
        ("headers of a stream", |turn| Frame::Headers { id: id(1), fin: false, headers: headers(turn) }),
    ];
    for (way, frame) in ways {
        let mut server = End::server(config(|config| {
            (config.spdy.max_streams, config.spdy.max_header_bytes) = (1, 10_000);
        }));
        let mut turns = 0..;
        for _ in 0..3 {
            turns.by_ref().take(10).for_each(|turn| server.gets(frame(turn)));
            assert_eq!(server.error(), None, "{way}");
            server.passes(Duration::from_secs(30));
            server.says();
        }
        turns.by_ref().take(11).for_each(|turn| server.gets(frame(turn)));
        let error = server.error();
        assert_eq!(error.as_deref(), Some("the peer exceeded the limit `max_header_bytes` (10000)"), "{way}");
        assert!(matches!(server.says().last(), Some(Frame::GoAway { .. })), "{way}");
    }
}

/// What kubectl opens for each connection of a port-forward, 5,000 times per second for as long as the rate is counted.
#[test]
fn no_client_that_opens_streams_comes_near_the_limit_of_header_bytes() {
    let mut server = End::server(config(|_| {}));
    for connection in 0..150_000u32 {
        let number = connection.to_string();
        for kind in ["error", "data"] {
            let headers = Headers::from_iter([("streamtype", kind), ("port", "65535"), ("requestid", &number)]);
            server.gets(Frame::Headers { id: id(1), fin: false, headers });
            server.says();
        }
    }
    assert_eq!(server.error(), None);
}

#[test]
fn the_peers_maximum_of_streams_makes_us_wait_and_the_first_of_two_values_counts() {
    let mut client = End::client(config(|_| {}));
    let max = |value| Setting::new(0, SettingId::MAX_CONCURRENT_STREAMS, value);
    client.gets(Frame::Settings(Settings::new(false, vec![max(2), max(9)])));
    let (first, second) = (client.opens(), client.opens());
    assert!(matches!(client.connection.open(Headers::new()), Ok(None)));
    client.says();
    client.events();

    client.gets_all([reply(first), fin(first)]);
    assert!(!client.events().contains(&Event::CanOpen), "half of it is still open");
    client.finishes(first);
    assert_eq!(client.says(), [fin(first)]);
    assert!(client.events().contains(&Event::CanOpen));
    assert_eq!(client.opens(), 5);
    assert!(matches!(client.connection.open(Headers::new()), Ok(None)));
    client.gets(rst(second, RstStatus::REFUSED_STREAM));
    assert!(client.events().contains(&Event::CanOpen));
}

/// Row 12.
#[test]
fn window_updates_of_zero_or_too_much_cost_the_stream_or_the_connection() {
    let too_much = (1u32 << 31) - 64 * 1024;
    for delta in [0, too_much, StreamId::MAX.get()] {
        let mut client = End::client(config(|_| {}));
        let stream = client.opens();
        let other = client.opens();
        client.says();
        client.gets(window_update(stream, delta));
        assert_eq!(client.says().last(), Some(&rst(stream, RstStatus::FLOW_CONTROL_ERROR)), "{delta}");
        let error = client.connection.write(id(stream), "x".into()).unwrap_err();
        assert!(matches!(error, StreamError::Broken(RstStatus::FLOW_CONTROL_ERROR)), "{error}");
        assert_eq!(client.error(), None);
        client.writes(other, "still there");
        assert_eq!(client.says(), [data(other, "still there")]);

        client.gets(window_update(0, if delta == too_much { delta + 100 } else { delta }));
        client.ended_by("protocol violation by the peer: a WINDOW_UPDATE of the session by 0, or beyond 2^31 - 1", 0);
    }
    let mut client = End::client(config(|_| {}));
    let stream = client.opens();
    client.gets_all([window_update(stream, too_much - 1), window_update(0, too_much - 1)]);
    assert!(!client.says().contains(&rst(stream, RstStatus::FLOW_CONTROL_ERROR)), "2^31 - 1 is allowed");
    assert_eq!(client.error(), None);
}

#[test]
fn window_updates_for_streams_that_are_gone_or_never_were_are_ignored() {
    let mut client = End::client(config(|_| {}));
    let stream = client.opens();
    client.gets(rst(stream, RstStatus::CANCEL));
    client.connection.release(id(stream));
    client.says();
    for target in [stream, 77, 78] {
        client.gets_all([window_update(target, 0), window_update(target, StreamId::MAX.get())]);
    }
    assert_eq!((client.error(), client.connection.stream_count()), (None, 0));
}

/// Row 13.
#[test]
fn any_initial_windows_in_any_order_never_panic_and_never_let_a_byte_too_many_go() {
    fn property(steps: Vec<(u32, u16, u32)>) {
        let mut client = End::client(config(|config| config.spdy.max_settings_frames = u32::MAX));
        let stream = client.opens();
        // What the peer lets us send on the stream, by the rules of the draft.
        let (mut allowed, mut initial) = (0i64, 0i64);
        client.gets_all([initial_window(0), window_update(0, 1 << 30)]);
        client.says();
        for (window, bytes, delta) in steps {
            // Mostly values that hold something back, and that shrink below what was already sent.
            let (window, delta) =
                if delta % 8 == 0 { (window >> 4, (delta >> 8) + 1) } else { (window % 70_000, delta % 20_000 + 1) };
            allowed += i64::from(window) - initial + i64::from(delta);
            initial = i64::from(window);
            client.gets_all([initial_window(window), window_update(stream, delta)]);
            let _ = client.connection.write(id(stream), vec![0; usize::from(bytes)].into());
            let sent = i64::try_from(support::connection::carried(&client.says())).unwrap();
            assert!(sent <= allowed.max(0), "{sent} bytes through a window of {allowed}");
            allowed -= sent;
            if client.error().is_some() {
                return;
            }
        }
    }
    quickcheck::quickcheck(property as fn(Vec<(u32, u16, u32)>));
}

#[test]
fn an_initial_window_beyond_31_bits_ends_the_connection() {
    let mut client = End::client(config(|_| {}));
    client.gets(initial_window(1 << 31));
    client.ended_by("protocol violation by the peer: an initial window of more than 2^31 - 1", 0);

    let mut client = End::client(config(|_| {}));
    let stream = client.opens();
    client.gets_all([window_update(stream, 1 << 30), initial_window(StreamId::MAX.get())]);
    assert!(matches!(client.connection.error(), Some(ConnectionError::Protocol(_))), "it lifts an open stream's");
}

/// Row 14: Go regularly sends DATA on streams that it has reset.
#[test]
fn data_on_streams_that_were_is_ignored_and_on_streams_that_never_were_is_counted() {
    let mut server = End::server(config(|_| {}));
    server.gets(syn(7));
    server.connection.reset(id(7), RstStatus::CANCEL);
    server.connection.release(id(7));
    assert_eq!(server.says(), [rst(7, RstStatus::CANCEL)]);
    for _ in 0..1000 {
        // Our own ids are unknown too, because we have opened no stream.
        server.gets_all([data(7, vec![0; 60_000]), data(5, vec![0; 60_000]), fin(7)]);
    }
    assert_eq!((server.error(), server.says()), (None, vec![]));
    assert_eq!((server.connection.unread(), server.connection.stream_count()), (0, 0));
    for end in [fin(1), rst(1, RstStatus::CANCEL)] {
        let mut server = End::server(config(|_| {}));
        server.gets(syn(1));
        server.accepts(1);
        server.says();
        server.gets_all([end, data(1, vec![0; 60_000])]);
        assert_eq!((server.error(), server.says()), (None, vec![]), "its handler still uses it");
        assert_eq!((server.connection.unread(), server.connection.stream_count()), (0, 1));
    }

    // Each is charged 256 bytes, however short it is.
    (0..256).for_each(|_| server.gets(data(9, "x")));
    assert_eq!(server.error(), None);
    server.gets(data(2, "x"));
    server.ended_by("the peer exceeded the limit `max_stray_data` (65536)", 7);
}

#[test]
fn data_on_stream_0_ends_the_connection() {
    for mut end in [End::server(config(|_| {})), End::client(config(|_| {}))] {
        end.gets(data(0, "x"));
        end.ended_by("protocol violation by the peer: DATA on stream 0", 0);
    }
}

/// Row 15.
#[test]
fn data_beyond_the_window_costs_the_stream_only_where_windows_are_law() {
    let with = |flow_control| {
        let mut server = End::server(config(|config| config.spdy.flow_control = flow_control));
        server.gets_all([syn(1), syn(3)]);
        server.accepts(1);
        server.says();
        server.gets(data(1, vec![0; 64 * 1024]));
        let asks = if flow_control == FlowControl::Strict { vec![Frame::Ping(2)] } else { vec![] };
        assert_eq!(server.says(), asks, "all of a window may come");
        server.gets(data(1, "x"));
        server
    };
    let mut strict = with(FlowControl::Strict);
    assert_eq!(strict.says(), [rst(1, RstStatus::FLOW_CONTROL_ERROR)]);
    assert_eq!(strict.connection.unread(), 0);
    strict.gets(data(3, "another stream lives"));
    assert_eq!((strict.error(), strict.reads(3).0.len()), (None, 20));

    for mode in [FlowControl::Auto, FlowControl::Off] {
        let mut server = with(mode);
        assert_eq!((server.says(), server.reads(1).0.len()), (vec![], 64 * 1024 + 1));
    }
}

#[test]
fn data_beyond_the_sessions_window_ends_a_strict_connection() {
    let mut client = End::new(
        kubestream::unstable::session::Role::Client,
        config(|config| config.spdy.flow_control = FlowControl::Strict),
    );
    // The session's first WINDOW_UPDATE has not been sent, so its window is 64 KiB.
    client.gets_all([syn(2), syn(4), data(2, vec![0; 40_000]), data(4, vec![0; 40_000])]);
    assert_eq!(client.error().as_deref(), Some("protocol violation by the peer: DATA beyond the session's window"));
}

/// Row 16.
#[test]
fn unread_bytes_stop_the_reading_and_say_whose_they_are() {
    let mut server = End::server(config(|config| {
        config.stream_receive_budget = 1000;
        config.receive_budget = 10_000;
    }));
    server.gets_all([syn(1), syn(3)]);
    server.gets_all([data(1, vec![1; 1000]), data(3, vec![3; 11_000])]);
    assert!(server.connection.wants_read(), "each stream has its share, and the pool is exactly full");
    server.gets(data(3, "x"));
    assert!(!server.connection.wants_read());
    assert_eq!(server.connection.stalled_by(), Some(id(3)));
    assert_eq!(server.connection.unread(), 1000 + 11_000 + 256, "short pieces count as 256 bytes");

    // Reading another stream does not help.
    server.reads(1);
    assert!(!server.connection.wants_read());
    server.reads(3);
    assert!(server.connection.wants_read());
    assert_eq!((server.connection.stalled_by(), server.connection.unread()), (None, 0));
}

#[test]
fn what_nobody_will_read_gives_its_budget_back() {
    for let_go in [
        (|end: &mut End| end.connection.discard(id(1))) as fn(&mut End),
        |end| end.connection.release(id(1)),
        |end| end.connection.reset(id(1), RstStatus::CANCEL),
    ] {
        let mut server = End::server(config(|_| {}));
        server.gets_all([syn(1), data(1, vec![0; 2 << 20])]);
        assert!(!server.connection.wants_read());
        let_go(&mut server);
        server.gets(data(1, vec![0; 2 << 20]));
        assert_eq!((server.connection.wants_read(), server.connection.unread()), (true, 0));
    }
}

/// Row 17.
#[test]
fn stream_ids_of_the_wrong_side_used_or_going_down_end_the_connection() {
    let other_side = "protocol violation by the peer: SYN_STREAM with a stream id of the wrong side";
    let not_above = "protocol violation by the peer: SYN_STREAM with a stream id that is not above all ids before it";
    for (streams, error) in [
        (&[0][..], other_side),
        (&[2], other_side),
        (&[1, 1], not_above),
        (&[5, 3], not_above),
        (&[1, 3, 4], other_side),
    ] {
        let mut server = End::server(config(|_| {}));
        server.gets_all(streams.iter().map(|stream| syn(*stream)));
        let taken = if streams.len() > 1 { *streams[..streams.len() - 1].iter().max().unwrap() } else { 0 };
        server.ended_by(error, taken);
    }
    let mut client = End::client(config(|_| {}));
    client.gets(syn(1));
    client.ended_by(other_side, 0);

    // Reset, released and forgotten: the id still counts as used.
    let mut server = End::server(config(|_| {}));
    server.gets_all([syn(StreamId::MAX.get()), rst(StreamId::MAX.get(), RstStatus::CANCEL)]);
    assert_eq!(server.connection.stream_count(), 0);
    server.gets(syn(StreamId::MAX.get()));
    server.ended_by(not_above, StreamId::MAX.get());
}

/// Row 18.
#[test]
fn answers_that_nobody_waits_for_cost_their_stream_alone() {
    let mut client = End::client(config(|_| {}));
    let (first, second) = (client.opens(), client.opens());
    client.says();
    client.gets_all([reply(first), reply(first)]);
    assert_eq!(client.says(), [rst(first, RstStatus::STREAM_IN_USE)], "twice");
    client.gets(syn(2));
    client.gets(reply(2));
    assert_eq!(client.says(), [rst(2, RstStatus::PROTOCOL_ERROR)], "for a stream that the peer opened");
    client.gets(reply(99));
    assert_eq!(client.says(), [rst(99, RstStatus::INVALID_STREAM)], "for a stream that never existed");
    client.connection.release(id(first));
    client.gets(reply(first));
    assert_eq!(client.says(), [], "for a stream that has ended: late, but no fault");

    client.gets(Frame::SynReply { id: id(second), fin: false, headers: Headers::from_iter([("", "x")]) });
    assert_eq!(client.says(), [rst(second, RstStatus::PROTOCOL_ERROR)], "with defective headers");
    assert!(client.events().contains(&Event::Answered(id(second))), "the opener need not wait");
    let answer = client.connection.answer(id(second));
    assert!(matches!(answer, Some(Err(StreamError::Broken(RstStatus::PROTOCOL_ERROR)))), "{answer:?}");
    assert_eq!(client.error(), None);
}

#[test]
fn headers_frames_are_taken_and_mean_no_more_than_their_fin() {
    let mut server = End::server(config(|_| {}));
    server.gets_all([syn(1), headers(1, false), data(1, "x"), headers(1, true)]);
    assert_eq!(server.reads(1), (b"x".to_vec(), ReadOutcome::Finished));
    server.gets(headers(3, false));
    assert_eq!(server.says(), [rst(3, RstStatus::INVALID_STREAM)]);
}

#[test]
fn headers_that_go_cannot_read_are_not_sent() {
    let mut client = End::client(config(|_| {}));
    for name in ["", "connection", "two words"] {
        let error = client.connection.open(Headers::from_iter([(name, "x")])).unwrap_err();
        assert!(matches!(error, ConnectionError::InvalidHeader(_)), "{error}");
        assert_eq!(error.initiator(), Initiator::User);
    }
    assert_eq!((client.says(), client.connection.stream_count()), (vec![], 0));
    assert_eq!(client.opens(), 1, "no id was used up");
}

#[test]
fn nothing_is_taken_from_a_peer_that_broke_the_rules() {
    let mut server = End::server(config(|_| {}));
    server.gets_all([syn(1), data(1, "before"), syn(2)]);
    server.gets_all([syn(3), data(1, "after"), Frame::Ping(1)]);
    assert!(!server.connection.wants_read());
    assert_eq!(server.says(), [goaway(1, GoAwayStatus::PROTOCOL_ERROR)]);
    assert_eq!(server.connection.read(id(1)).unwrap(), ReadOutcome::Data("before".into()));
    let error = server.connection.read(id(1)).unwrap_err();
    assert!(matches!(error, StreamError::Connection(ConnectionError::Protocol(_))), "{error}");
    assert_eq!(error.initiator(), Initiator::Remote);
    server.connection.release(id(1));
    assert_eq!(server.connection.stream_count(), 0, "what ends after the connection leaves nothing either");
}
