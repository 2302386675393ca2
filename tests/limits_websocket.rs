//! What a WebSocket peer can cost, as the allocator counts it: rows 28 and 29 of the threats, and the budget for unread
//! bytes.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kubestream::ConnectionError;
use kubestream::exec::Streams;
use kubestream::mux::Config;
use kubestream::mux::Headers;
use kubestream::mux::SpdyConfig;
use kubestream::protocol::Subprotocol;
use kubestream::tap::{Side, Tap, TapEvent as Event};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use kubestream::upgrade::{Protocol, Version};
use stats_alloc::Region;
use support::memory::{ALLOCATOR, Counting, grown, play, turn};
use support::websocket::{BINARY, PING, WebSocketPeer, frame};
use support::{exec_client, exec_server, until};
use tokio::io::duplex;
use tokio::time::sleep;
use tokio_util::codec::Encoder;

#[global_allocator]
static GLOBAL: &Counting = ALLOCATOR;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Row 28: memory for a message is allocated as its bytes arrive, not by its length field, and the bytes are not
/// collected.
#[test]
fn a_message_that_never_comes_whole_costs_what_has_come_of_it() {
    let _turn = turn();
    const CONNECTIONS: usize = 100;
    // The longest allowed message, on stdin and on an unknown channel.
    for channel in [0u8, 77] {
        let head = [0x82, 0xff, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0, channel];
        play(async {
            let mut ends = Vec::new();
            for _ in 0..CONNECTIONS {
                let (near, far) = duplex(4 * KIB);
                let (mux, driver) = exec_server(near, Subprotocol::V5);
                let process = mux.accept_exec(Streams::PIPES).await.unwrap();
                let mut peer = WebSocketPeer::client(far);
                peer.hear().await.unwrap();
                ends.push((peer, process, mux, driver));
            }
            let before = Region::new(ALLOCATOR);
            for (peer, ..) in &mut ends {
                peer.raw(&head).await;
                for _ in 0..100 {
                    peer.raw(b"x").await;
                    tokio::task::yield_now().await;
                }
            }
            sleep(Duration::from_millis(1)).await;
            let each = grown(&before) / CONNECTIONS;
            assert!(each < 16 * KIB, "{each} bytes for 115 of them on channel {channel}");
        });
    }
}

/// Row 29: one answer waits, however often the peer asks.
#[test]
fn a_peer_that_pings_and_does_not_read_costs_next_to_nothing() {
    let _turn = turn();
    for protocol in [Protocol::WebSocketExec(Subprotocol::V5), Protocol::TunneledPortForward] {
        play(async {
            let (near, far) = duplex(KIB);
            let (mux, _driver) = exec_server(near, protocol);
            let mut peer = WebSocketPeer::client(far);
            let before = Region::new(ALLOCATOR);
            let ping = frame(0x80 | PING, &[7; 125], true);
            let mut most = 0;
            for _ in 0..100_000 {
                // While there is room for answers it is read, and also when there is none.
                assert!(peer.try_raw(&ping).await);
                most = most.max(grown(&before));
            }
            assert!(most < 64 * KIB, "{most} bytes, {protocol}");
            assert!(mux.takes_streams(), "{protocol}");
        });
    }
}

/// Messages of one byte, each charged with the cost of its bookkeeping.
#[test]
fn an_output_nobody_reads_costs_no_more_than_the_budget_and_a_few_buffers() {
    let _turn = turn();
    for size in [1, 100, 32 * KIB] {
        play(async {
            let (near, far) = duplex(256 * KIB);
            let (mux, _driver) = exec_client(near, Subprotocol::V5);
            let mut exec = mux.exec(Streams::OUTPUT).await.unwrap();
            let _unread = exec.stdout.take().unwrap();
            let mut peer = WebSocketPeer::server(far);
            let message = frame(0x80 | BINARY, &vec![1; size + 1], false);
            let flight: Vec<u8> = message.repeat(64 * KIB / message.len() + 1);
            let before = Region::new(ALLOCATOR);
            let flood = tokio::spawn(async move {
                for _ in 0..16 * MIB / flight.len() {
                    peer.raw(&flight).await;
                }
            });
            until(|| mux.stats().stalled_by == Some(5)).await;
            sleep(Duration::from_secs(5)).await;
            assert!(!flood.is_finished());
            let held = grown(&before);
            assert!(held < 3 * MIB, "{held} bytes for messages of {size}");
            flood.abort();
        });
    }
}

/// Feeds a tap, takes all events and keeps none. Returns the number of events, and the fault if there was one.
fn tapped(tap: &mut Tap, side: Side, bytes: impl Into<Bytes>) -> (usize, Option<ConnectionError>) {
    tap.feed(side, bytes.into());
    let (mut count, mut fault) = (0, None);
    while let Some(event) = tap.poll_event() {
        count += 1;
        if let Event::Fault { error, .. } = event {
            fault = Some(error);
        }
    }
    (count, fault)
}

/// A tap's memory is bounded by its limits, however much passes: streams, headers, frames that never become complete,
/// statuses and sizes.
#[test]
fn a_tap_keeps_nothing_of_what_passes() {
    let _turn = turn();
    let before = Region::new(ALLOCATOR);
    // 32 MB of DATA in frames of 16 MiB, and a message of the greatest length.
    let mut tap = Tap::new(Protocol::SpdyExec(Version::V4), &[], &Config::default());
    let (mut codec, mut wire) = (Codec::new(SpdyConfig::default()), BytesMut::new());
    let headers = Headers::from_iter([("streamtype", "stdin")]);
    let (id, associated) = (StreamId::new(1), StreamId::SESSION);
    let syn = Frame::SynStream { id, associated, priority: 0, slot: 0, fin: false, unidirectional: false, headers };
    codec.encode(syn, &mut wire).unwrap();
    tapped(&mut tap, Side::Client, wire.split().freeze());
    // Each piece is a buffer of its own, as if it had been read. A tap that kept a slice would keep the whole buffer.
    let piece = || Bytes::from(vec![b'x'; 64 * KIB]);
    let mut most = 0;
    for _ in 0..2 {
        tapped(&mut tap, Side::Client, &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..]);
        for _ in 0..255 {
            assert_eq!(tapped(&mut tap, Side::Client, piece()).0, 1);
            most = most.max(grown(&before));
        }
        assert_eq!(tapped(&mut tap, Side::Client, piece().slice(1..)).0, 1);
    }
    let mut messages = Tap::new(Protocol::WebSocketExec(Subprotocol::V5), &[], &Config::default());
    tapped(&mut messages, Side::Server, &[0x82, 127, 0, 0, 0, 0, 2, 0, 0, 0, 1][..]);
    for _ in 0..500 {
        tapped(&mut messages, Side::Server, piece());
        most = most.max(grown(&before));
    }
    assert!(most < 512 * KIB, "{most} bytes");

    // An incomplete control frame in each direction, and an endless error stream.
    for side in [Side::Client, Side::Server] {
        let mut head = vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff];
        assert!(matches!(tapped(&mut tap, side, head.clone()), (_, Some(ConnectionError::Malformed(_)))));
        head[5] = 0;
        let mut other = Tap::new(Protocol::SpdyPortForward, &[], &Config::default());
        let before = Region::new(ALLOCATOR);
        tapped(&mut other, side, head);
        assert!(grown(&before) < 16 * KIB);
    }
    let mut statuses = Tap::new(Protocol::WebSocketExec(Subprotocol::V1), &[], &Config::default());
    let before = Region::new(ALLOCATOR);
    let error = frame(0x80 | BINARY, &[3; 60 * KIB], false);
    for _ in 0..50 {
        tapped(&mut statuses, Side::Server, error.clone());
    }
    assert!(grown(&before) < MIB, "{}", grown(&before));
    // And an endless size.
    let mut sizes = Tap::new(Protocol::WebSocketExec(Subprotocol::V5), &[], &Config::default());
    let before = Region::new(ALLOCATOR);
    tapped(&mut sizes, Side::Client, frame(0x80 | BINARY, b"\x04{", true));
    let more = frame(0x80 | BINARY, &[&[4][..], &[b' '; 60 * KIB]].concat(), true);
    for _ in 0..50 {
        tapped(&mut sizes, Side::Client, more.clone());
    }
    assert!(grown(&before) < MIB, "{}", grown(&before));
}

/// A flood of streams ends the following, and costs no more than the limit allows.
#[test]
fn a_tap_follows_no_more_streams_than_its_limit() {
    let _turn = turn();
    for protocol in [Protocol::SpdyPortForward, Protocol::SpdyExec(Version::V4)] {
        let (mut codec, mut wire) = (Codec::new(SpdyConfig::default()), BytesMut::new());
        let before = Region::new(ALLOCATOR);
        let mut tap = Tap::new(protocol, &[], &Config::default());
        let mut at = 0;
        let fault = loop {
            let (long, number) = ("x".repeat(10 * KIB), at.to_string());
            let headers = [("streamtype", "data"), ("port", "80"), ("requestid", &number), ("more", &long)];
            let (id, associated, headers) =
                (StreamId::new(2 * at + 1), StreamId::SESSION, headers.into_iter().collect());
            let syn =
                Frame::SynStream { id, associated, priority: 0, slot: 0, fin: false, unidirectional: false, headers };
            codec.encode(syn, &mut wire).unwrap();
            at += 1;
            assert!(at < 2000, "the tap follows any number of streams");
            if let (_, Some(fault)) = tapped(&mut tap, Side::Client, wire.split().freeze()) {
                break fault;
            }
        };
        assert!(matches!(fault, ConnectionError::LimitExceeded { limit: "max_streams", value: 1024 }) && at == 1025);
        assert!(grown(&before) < 2 * MIB, "{}", grown(&before));
    }
}
