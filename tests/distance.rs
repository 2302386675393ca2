//! Transfers over a long path, in virtual time: how many round trips they take, and what they do to others.
//!
//! Holds the windows to the path, with drivers and an IO that delays. `spdy_windows.rs` has the frames.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::time::Duration;

use bytes::Bytes;
use kubestream::mux::{Headers, Multiplexer, Stream};
use kubestream::upgrade::{Protocol, Upgraded};
use support::config;
use support::distance::Path;
use tokio::time::Instant;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// Two ends with drivers, a round trip apart.
fn far_apart(protocol: Option<Protocol>, growth: usize) -> (Multiplexer, Multiplexer) {
    let (near, far) = Path::new(ROUND_TRIP).ends();
    let config = || config(|config| config.spdy.max_window_growth = growth);
    let (client, driver) = Multiplexer::client(Upgraded::new(near, Bytes::new(), protocol), config());
    tokio::spawn(driver);
    let (server, driver) = Multiplexer::server(Upgraded::new(far, Bytes::new(), protocol), config());
    tokio::spawn(driver);
    (client, server)
}

/// A stream, as each end has it.
async fn open(client: &Multiplexer, server: &Multiplexer) -> (Stream, Stream) {
    let ours = client.open(Headers::from_iter([("streamtype", "data")])).await.unwrap();
    let theirs = server.accept().await.unwrap().unwrap().reply();
    (ours, theirs)
}

async fn write(mut stream: Stream, bytes: usize) -> Stream {
    let piece = Bytes::from(vec![7; 64 * KIB]);
    for _ in 0..bytes / piece.len() {
        stream.send(piece.clone()).await.unwrap();
    }
    stream
}

async fn read(stream: &mut Stream, bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        left -= stream.data().await.unwrap().unwrap().len();
    }
}

/// Sends bytes over some streams at once, to the server or to the client. Returns the number of round trips.
async fn trips(client: &Multiplexer, server: &Multiplexer, streams: usize, bytes: usize, to_server: bool) -> f64 {
    let began = Instant::now();
    let mut readers = Vec::new();
    let mut writers = Vec::new();
    for _ in 0..streams {
        let (ours, theirs) = open(client, server).await;
        let (from, mut to) = if to_server { (ours, theirs) } else { (theirs, ours) };
        writers.push(tokio::spawn(write(from, bytes / streams)));
        readers.push(tokio::spawn(async move { read(&mut to, bytes / streams).await }));
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let trips = began.elapsed().as_secs_f64() / ROUND_TRIP.as_secs_f64();
    println!("{streams} streams, to the server: {to_server}: {trips:.1} round trips");
    trips
}

#[tokio::test(start_paused = true)]
async fn a_window_follows_the_path() {
    for protocol in [None, Some(Protocol::TunneledPortForward)] {
        for to_server in [false, true] {
            let (client, server) = far_apart(protocol, 32 * MIB);
            assert!(trips(&client, &server, 1, 64 * MIB, to_server).await <= 5.5, "{protocol:?}");
            // What the path holds is known by now.
            assert!(trips(&client, &server, 1, 64 * MIB, to_server).await <= 4.5, "{protocol:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_windows_of_several_streams_follow_the_path_together() {
    for protocol in [None, Some(Protocol::TunneledPortForward)] {
        for to_server in [false, true] {
            let (client, server) = far_apart(protocol, 32 * MIB);
            assert!(trips(&client, &server, 8, 64 * MIB, to_server).await <= 8.5, "{protocol:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_growth_a_stream_has_one_window_in_each_round_trip() {
    let (client, server) = far_apart(None, 0);
    let trips = trips(&client, &server, 1, 2 * MIB, false).await;
    assert!((32.0..36.0).contains(&trips), "{trips}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_no_longer_read_holds_up_nobody_however_large_its_window_is() {
    let (client, server) = far_apart(None, 32 * MIB);
    let (mut ours, theirs) = open(&client, &server).await;
    let writer = tokio::spawn(write(theirs, 256 * MIB));
    read(&mut ours, 64 * MIB).await;
    tokio::time::sleep(ROUND_TRIP * 20).await;
    let unread = client.stats().unread;
    assert!((16 * MIB..=32 * MIB + 64 * KIB).contains(&unread), "{unread}");
    assert!(!writer.is_finished() && client.stats().stalled_by.is_none());
    assert!(trips(&client, &server, 2, 8 * MIB, false).await <= 10.0);
    assert!(client.stats().unread == unread && client.stats().stalled_by.is_none());
    read(&mut ours, 192 * MIB).await;
    writer.await.unwrap();
}
