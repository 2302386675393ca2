//! What a hostile peer can make one connection hold, counted as the allocator does: bytes that are unread count little,
//! and may hold much.
//!
//! Time is virtual and passes only while no task can run. The tests take turns, since all of them count.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kubestream::exec::Streams;
use kubestream::mux::{Config, Multiplexer, RstStatus, Stream};
use kubestream::portforward::{PortForward, PortForwardServer};
use kubestream::unstable::wire::spdy::Frame;
use kubestream::upgrade::{Protocol, Upgraded, Version};
use stats_alloc::Region;
use support::memory::{ALLOCATOR, Counting, grown, play, turn};
use support::peer::{Peer, data, fin, reply, resets, syn};
use support::{pattern, server, until};
use tokio::io::{DuplexStream, duplex};
use tokio::time::sleep;

#[global_allocator]
static GLOBAL: &Counting = ALLOCATOR;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a connection holds beside what it counts: its buffers, until it has been silent for a second.
const A_FEW_BUFFERS: usize = 3 * MIB;

fn upgraded(io: DuplexStream, protocol: Protocol) -> Upgraded<DuplexStream> {
    Upgraded::new(io, Bytes::new(), Some(protocol))
}

/// A stream with as many bytes of headers as a block may have.
fn with_long_headers(id: u32, pairs: &[(&str, &str)]) -> Frame {
    let long = "x".repeat(15 * KIB);
    let filler = ["a", "b", "c", "d"].map(|name| (name, &long[..]));
    syn(id, &[pairs, &filler].concat())
}

/// A server with a stream that its peer has ended, whose further bytes are dropped, and so many that nobody reads.
async fn with_unread_streams(streams: u32) -> (Multiplexer, Peer, Stream, Vec<Stream>) {
    let (near, far) = duplex(256 * KIB);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    let ended = support::accept(&mux).await;
    peer.say(fin(1)).await;
    let mut unread = Vec::new();
    for at in 1..=streams {
        peer.say(syn(2 * at + 1, &[])).await;
        unread.push(support::accept(&mux).await);
    }
    (mux, peer, ended, unread)
}

/// Row 16: a slice keeps the whole buffer that it was read into. Between the small pieces on streams that nobody reads,
/// the peer sends what is dropped, so that each piece comes in a buffer of its own.
#[test]
fn small_unread_pieces_hold_no_large_buffers() {
    const STREAMS: u32 = 300;
    let _turn = turn();
    for piece in [300, 2 * KIB, 20 * KIB] {
        play(async {
            let (mux, mut peer, ended, unread) = with_unread_streams(STREAMS).await;
            let before = Region::new(ALLOCATOR);
            let (bytes, filler) = (pattern(0, piece), pattern(1, 32 * KIB));
            for at in 1..=STREAMS {
                peer.say(data(2 * at + 1, bytes.clone())).await;
                for _ in 0..4 {
                    peer.say(data(1, filler.clone())).await;
                }
            }
            let counted = STREAMS as usize * piece;
            // A small rest of a piece that came in two reads counts as more.
            until(|| mux.stats().unread >= counted).await;
            let held = grown(&before);
            assert!(held < counted + A_FEW_BUFFERS, "{held} bytes for {counted}");
            sleep(Duration::from_secs(5)).await;
            let held = grown(&before);
            assert!(held < counted + MIB, "{held} bytes for {counted}, after the buffers were freed");
            for mut stream in unread {
                let mut read = Vec::new();
                while read.len() < piece {
                    read.extend(stream.data().await.unwrap().unwrap());
                }
                assert_eq!(read, bytes);
            }
            drop((ended, peer));
        });
    }
}

/// Row 16: frames of 32 KiB, as Go's peers send, stay slices. They hold less than five times their bytes.
#[test]
fn large_unread_pieces_hold_a_few_times_their_bytes_at_most() {
    const STREAMS: u32 = 20;
    let _turn = turn();
    play(async {
        let (mux, mut peer, ended, unread) = with_unread_streams(STREAMS).await;
        let before = Region::new(ALLOCATOR);
        let piece = pattern(0, 32 * KIB);
        for at in 1..=STREAMS {
            peer.say(data(2 * at + 1, piece.clone())).await;
            for _ in 0..4 {
                peer.say(data(1, piece.clone())).await;
            }
        }
        let counted = STREAMS as usize * piece.len();
        until(|| mux.stats().unread >= counted).await;
        let held = grown(&before);
        assert!(held < 5 * counted + A_FEW_BUFFERS, "{held} bytes for {counted}");
        drop((ended, unread, peer));
    });
}

/// Row 8: a half that waits for its other half needs none of its headers any more.
#[test]
fn half_a_forwarded_connection_holds_no_headers() {
    const HALVES: u32 = 400;
    let _turn = turn();
    play(async {
        let (near, far) = duplex(256 * KIB);
        let (mux, driver) = Multiplexer::server(upgraded(near, Protocol::SpdyPortForward), Config::default());
        tokio::spawn(driver);
        let mut forward = PortForwardServer::new(mux.clone()).unwrap();
        let mut peer = Peer::new(far);
        let before = Region::new(ALLOCATOR);
        let served = tokio::spawn(async move { forward.accept().await.is_none() });
        for at in 0..HALVES {
            let request = at.to_string();
            let pairs = [("streamtype", "data"), ("port", "80"), ("requestid", &request[..])];
            peer.say(with_long_headers(2 * at + 1, &pairs)).await;
        }
        until(|| mux.stats().streams == HALVES as usize).await;
        sleep(Duration::from_secs(2)).await;
        let held = grown(&before);
        assert!(held < HALVES as usize * 2 * KIB + MIB, "{held} bytes");
        assert!(!served.is_finished());
        drop(peer);
    });
}

/// Row 8: nobody accepts a stream that a server opens, so a client keeps none.
#[test]
fn a_client_of_a_session_refuses_what_its_server_opens() {
    const STREAMS: u32 = 500;
    let _turn = turn();
    play(async {
        let (near, far) = duplex(256 * KIB);
        let protocol = Protocol::SpdyExec(Version::V4);
        let (mux, driver) = Multiplexer::client(upgraded(near, protocol), Config::default());
        tokio::spawn(driver);
        let mut peer = Peer::new(far);
        let opens = async {
            for _ in 0..2 {
                let (id, _) = peer.hear_syn().await;
                peer.say(reply(id)).await;
            }
            peer
        };
        let (exec, peer) = tokio::join!(mux.exec(Streams { stdout: true, ..Streams::default() }), opens);
        let exec = exec.unwrap();
        refuses(peer, STREAMS, || mux.stats().streams).await;
        drop(exec);

        let (near, far) = duplex(256 * KIB);
        let (mux, driver) = Multiplexer::client(upgraded(near, Protocol::SpdyPortForward), Config::default());
        tokio::spawn(driver);
        let forward = PortForward::new(mux).unwrap();
        refuses(Peer::new(far), STREAMS, || forward.multiplexer().stats().streams).await;
    });
}

async fn refuses(mut peer: Peer, streams: u32, known: impl Fn() -> usize) {
    let (before, known_before) = (Region::new(ALLOCATOR), known());
    let mut frames = Vec::new();
    for at in 1..=streams {
        peer.say(with_long_headers(2 * at, &[])).await;
        while let Some(frame) = peer.hear().now_or_never() {
            frames.push(frame.unwrap());
        }
    }
    while resets(&frames).len() < streams as usize {
        frames.push(peer.hear().await.unwrap());
    }
    assert!(resets(&frames).iter().all(|(_, status)| *status == RstStatus::REFUSED_STREAM));
    assert_eq!(known(), known_before, "no stream is kept");
    let held = grown(&before);
    assert!(held < A_FEW_BUFFERS, "{held} bytes");
}
