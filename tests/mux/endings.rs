//! How connections end, in an orderly way and otherwise.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kubestream::mux::GoAwayStatus;
use kubestream::mux::{Config, Multiplexer};
use kubestream::unstable::wire::spdy::Frame;
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::upgrade::Upgraded;
use kubestream::{ConnectionError, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep, timeout};

use support::io::{NeverShut, WriteBroken};
use support::peer::{Peer, carried, data, fin, goaway, reply, syn};
use support::{accept, client, config, named, pattern, read_to_fin, server, tcp_pair, until};

#[tokio::test(start_paused = true)]
async fn goaway_is_the_last_frame_and_the_peers_end_is_waited_for() {
    let (near, far) = duplex(16 * 1024);
    let (mux, driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut streams = [mux.open(named("a")).await.unwrap(), mux.open(named("b")).await.unwrap()];
    for (stream, seed) in streams.iter_mut().zip(0..) {
        stream.send(pattern(seed, 700_000)).await.unwrap();
    }
    let closing = tokio::spawn({
        let mux = mux.clone();
        async move { mux.shutdown().await }
    });

    let frames = peer.hear_all().await;
    assert_eq!(frames.last(), Some(&goaway(0)));
    assert_eq!(frames.iter().filter(|frame| matches!(frame, Frame::GoAway { .. })).count(), 1);
    assert!(carried(&frames, 1).0 == pattern(0, 700_000));
    assert!(carried(&frames, 3).0 == pattern(1, 700_000));

    // The write side is shut down, so the peer has read an end. It may still send.
    for _ in 0..20 {
        sleep(Duration::from_secs(9)).await;
        peer.say(data(1, pattern(2, 10_000))).await;
    }
    assert!(!closing.is_finished() && !driver.is_finished());
    drop(peer);
    closing.await.unwrap().unwrap();
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_not_waited_for_beyond_the_linger() {
    let (near, far) = duplex(16 * 1024);
    let (mux, _driver) = client(near, config(|config| config.linger = Duration::from_secs(7)));
    let mut peer = Peer::new(far);
    let asked = Instant::now();
    mux.shutdown().await.unwrap();
    assert!((7..9).contains(&asked.elapsed().as_secs()));
    assert_eq!(peer.hear_all().await, [goaway(0)]);
}

/// The kernels hold the tail of a peer that has not read it yet. If the connection were closed, the peer's next bytes
/// would cause a reset, which destroys the tail.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_that_may_still_be_reading_has_the_time_of_a_tail() {
    let (near, far) = duplex(1024 * 1024);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut stream = mux.open(named("tail")).await.unwrap();
    peer.hear_syn().await;
    // The peer has no windows, and so gets everything at once.
    peer.say(reply(1)).await;
    stream.send(pattern(0, 500_000)).await.unwrap();
    let asked = Instant::now();
    let closing = tokio::spawn(async move { mux.shutdown().await });
    sleep(Duration::from_secs(4 * 60)).await;
    assert!(!closing.is_finished(), "it may still be reading");
    peer.say(data(1, Bytes::from_static(b"still here"))).await;
    closing.await.unwrap().unwrap();
    assert_eq!(asked.elapsed().as_secs(), 5 * 60, "bytes from it do not show that it has read");
    assert!(carried(&peer.hear_all().await, 1).0 == pattern(0, 500_000));
}

/// Row 31: only the driver still has something to write, and the peer takes nothing.
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_of_the_last_bytes_is_given_up() {
    let (near, far) = duplex(1024);
    let (mux, driver) = client(near, Config::default());
    let mut stream = mux.open(named("tail")).await.unwrap();
    stream.send(pattern(0, 10_000)).await.unwrap();
    let asked = Instant::now();
    let closed = mux.shutdown().await;
    let patience = Config::default().flush_timeout;
    assert!(matches!(closed, Err(ConnectionError::FlushTimeout(after)) if after == patience), "{closed:?}");
    assert_eq!(asked.elapsed().as_secs(), patience.as_secs());
    driver.await.unwrap().unwrap_err();
    drop(far);
}

/// Row 31: after a failure, the last bytes are not worth a longer wait.
#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_rules_and_takes_nothing_is_given_up_at_the_linger() {
    let (near, far) = duplex(1024);
    let (mux, driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut stream = mux.open(named("tail")).await.unwrap();
    stream.send(pattern(0, 10_000)).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    peer.say(syn(1, &[])).await;
    let broke = Instant::now();
    let closed = mux.closed().await;
    assert!(matches!(closed, Err(ConnectionError::Protocol(_))), "{closed:?}");
    assert_eq!(broke.elapsed().as_secs(), Config::default().linger.as_secs());
    driver.await.unwrap().unwrap_err();
}

/// Row 31: what the peer has sent is read to its end, but only up to the linger.
#[tokio::test(start_paused = true)]
async fn a_peer_that_is_silent_after_a_failed_write_is_given_up_at_the_linger() {
    let (near, far) = duplex(16 * 1024);
    let (near, broken) = WriteBroken::new(near);
    let (mux, driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut stream = mux.open(named("one way")).await.unwrap();
    peer.hear_syn().await;
    broken.store(true, Ordering::Relaxed);
    stream.send(pattern(0, 10_000)).await.unwrap();
    let failed = Instant::now();
    let closed = mux.closed().await;
    assert!(matches!(closed, Err(ConnectionError::Io(_))), "{closed:?}");
    assert_eq!(failed.elapsed().as_secs(), Config::default().linger.as_secs());
    driver.await.unwrap().unwrap_err();
}

/// Row 31.
#[tokio::test(start_paused = true)]
async fn an_end_that_does_not_get_through_is_given_up_at_the_linger() {
    let (near, far) = duplex(16 * 1024);
    let (mux, driver) = client(NeverShut(near), Config::default());
    let asked = Instant::now();
    mux.shutdown().await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), Config::default().linger.as_secs());
    driver.await.unwrap().unwrap();
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn two_ends_that_shut_down_at_once_with_full_pipes_both_end_well() {
    let (near, far) = duplex(1024);
    let (client, one) = client(near, Config::default());
    let (server, two) = server(far, Config::default());
    let mut ours = client.open(named("both ways")).await.unwrap();
    let mut theirs = accept(&server).await;
    ours.answered().await.unwrap();
    ours.send(pattern(0, 60_000)).await.unwrap();
    theirs.send(pattern(1, 60_000)).await.unwrap();

    let began = Instant::now();
    let (first, second) = tokio::join!(client.shutdown(), server.shutdown());
    first.unwrap();
    second.unwrap();
    assert!(began.elapsed().as_secs() < 10, "neither end waits for the other to give up");
    assert!(client.stats().sent > 60_000 && server.stats().sent > 60_000);
    one.await.unwrap().unwrap();
    two.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_shutdown_every_handle_says_closed() {
    let (near, far) = duplex(16 * 1024);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut stream = mux.open(named("held")).await.unwrap();
    peer.hear_syn().await;
    peer.say(reply(1)).await;
    peer.say(data(1, "in time")).await;
    until(|| mux.stats().unread > 0).await;
    let closing = tokio::spawn({
        let mux = mux.clone();
        async move { mux.shutdown().await }
    });
    assert_eq!(peer.hear_all().await, [goaway(0)]);
    drop(peer);
    closing.await.unwrap().unwrap();

    assert_eq!(stream.data().await.unwrap().unwrap(), "in time");
    let closed = |error: &StreamError| matches!(error, StreamError::Connection(ConnectionError::Closed));
    assert!(closed(&stream.data().await.unwrap().unwrap_err()));
    assert!(closed(&stream.send(Bytes::from_static(b"late")).await.unwrap_err()));
    assert!(matches!(mux.open(named("late")).await, Err(ConnectionError::Closed)));
    assert!(matches!(mux.ping().await, Err(ConnectionError::Closed)));
    assert!(mux.accept().await.is_none());
    mux.closed().await.unwrap();
    mux.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_its_driver_every_handle_fails() {
    let (near, far) = duplex(16 * 1024);
    let (mux, driver) = Multiplexer::client(Upgraded::from_io(near), Config::default());
    let stream = mux.open(named("orphan")).await.unwrap();
    let mut unanswered = mux.open(named("unanswered")).await.unwrap();
    let (mut recv, mut send) = stream.split();
    let waiting = [
        tokio::spawn({
            let mux = mux.clone();
            async move { mux.accept().await.unwrap().unwrap_err() }
        }),
        tokio::spawn({
            let mux = mux.clone();
            async move { mux.ping().await.unwrap_err() }
        }),
        tokio::spawn({
            let mux = mux.clone();
            async move { mux.shutdown().await.unwrap_err() }
        }),
        tokio::spawn(async move { connection_error(recv.data().await.unwrap().unwrap_err()) }),
        tokio::spawn(async move { connection_error(unanswered.answered().await.unwrap_err()) }),
        tokio::spawn(async move {
            while send.send(Bytes::from(vec![0; 100_000])).await.is_ok() {}
            connection_error(send.send(Bytes::new()).await.unwrap_err())
        }),
    ];
    sleep(Duration::from_secs(1)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    drop(driver);
    for task in waiting {
        let error = task.await.unwrap();
        assert!(matches!(error, ConnectionError::DriverGone), "{error:?}");
    }
    assert!(matches!(mux.open(named("late")).await, Err(ConnectionError::DriverGone)));
    assert!(matches!(mux.closed().await, Err(ConnectionError::DriverGone)));
    drop(far);
}

/// A task that waits for the end is told what went wrong, and not that everything was written.
#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_after_a_write_has_failed_ends_with_that() {
    let (near, mut far) = duplex(64 * 1024);
    let (near, broken) = WriteBroken::new(near);
    let (mux, mut driver) = Multiplexer::client(Upgraded::from_io(near), Config::default());
    let mut stream = mux.open(named("data")).await.unwrap();
    assert!((&mut driver).now_or_never().is_none());
    let mut first_flight = [0; 1000];
    assert!(far.read(&mut first_flight).await.unwrap() > 0);
    broken.store(true, Ordering::Relaxed);
    stream.send(Bytes::from_static(b"lost")).await.unwrap();
    assert!((&mut driver).now_or_never().is_none(), "what the peer sent before is still readable");
    assert!(mux.shutdown().now_or_never().is_none());
    drop(driver);
    assert!(matches!(mux.closed().await, Err(ConnectionError::Io(_))), "{:?}", mux.closed().await);
}

fn connection_error(error: StreamError) -> ConnectionError {
    match error {
        StreamError::Connection(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_without_goaway_is_a_loss_and_what_came_before_is_still_read() {
    for cut in [false, true] {
        let (near, far) = duplex(16 * 1024);
        let (mux, driver) = client(near, Config::default());
        let mut peer = Peer::new(far);
        let mut stream = mux.open(named("cut")).await.unwrap();
        peer.hear_syn().await;
        peer.say(reply(1)).await;
        peer.say(data(1, "what came")).await;
        if cut {
            // GOAWAY does not help if a frame is cut short.
            peer.say(goaway(1)).await;
            let mut io = peer.into_io();
            io.write_all(&[0, 0, 0, 1, 0, 0, 0, 9, b'h', b'a', b'l', b'f']).await.unwrap();
            drop(io);
        } else {
            drop(peer);
        }
        assert!(matches!(driver.await.unwrap(), Err(ConnectionError::Lost)));
        let mut came = Vec::new();
        let lost = loop {
            match stream.data().await.unwrap() {
                Ok(data) => came.extend_from_slice(&data),
                Err(error) => break error,
            }
        };
        assert_eq!(came, if cut { &b"what camehalf"[..] } else { b"what came" });
        assert!(matches!(lost, StreamError::Connection(ConnectionError::Lost)));
        assert!(matches!(mux.accept().await, Some(Err(ConnectionError::Lost))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_rules_is_told_so_and_waited_for() {
    let (near, far) = duplex(16 * 1024);
    let (mux, driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(3, &[])).await;
    peer.say(syn(1, &[])).await;
    let told = Frame::GoAway { last_good: StreamId::new(3), status: GoAwayStatus::PROTOCOL_ERROR };
    assert_eq!(peer.hear_all().await, [told]);
    assert!(!driver.is_finished(), "it lingers, so that the GOAWAY is not lost");
    drop(peer);
    assert!(matches!(driver.await.unwrap(), Err(ConnectionError::Protocol(_))));
    assert!(matches!(mux.closed().await, Err(ConnectionError::Protocol(_))));
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_loses_nothing_of_what_the_peer_sent() {
    let (near, far) = duplex(16 * 1024);
    let (near, broken) = WriteBroken::new(near);
    let (mux, driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let stream = mux.open(named("one way")).await.unwrap();
    peer.hear_syn().await;
    peer.say(reply(1)).await;
    let (mut recv, mut send) = stream.split();
    broken.store(true, Ordering::Relaxed);
    send.send(pattern(0, 100_000)).await.unwrap();

    let peer = tokio::spawn(async move {
        // In all longer than the linger, but never silent for so long.
        for part in 0..20 {
            sleep(Duration::from_secs(3)).await;
            peer.say(data(1, pattern(part, 50_000))).await;
        }
        peer.say(fin(1)).await;
    });
    let all = read_to_fin(&mut recv).await;
    let sent: Vec<u8> = (0..20).flat_map(|part| pattern(part, 50_000)).collect();
    assert!(all == sent);
    peer.await.unwrap();

    let error = driver.await.unwrap().unwrap_err();
    assert!(matches!(&error, ConnectionError::Io(io) if io.kind() == std::io::ErrorKind::BrokenPipe), "{error:?}");
    assert!(matches!(send.send(Bytes::new()).await, Err(StreamError::Connection(ConnectionError::Io(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_whose_last_bytes_could_not_be_written_is_no_success() {
    let (near, far) = duplex(16 * 1024);
    let (near, broken) = WriteBroken::new(near);
    let (mux, driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut stream = mux.open(named("tail")).await.unwrap();
    peer.hear_syn().await;
    stream.send(pattern(0, 1 << 20)).await.unwrap();
    until(|| mux.stats().sent > 1000).await;
    let closing = tokio::spawn({
        let mux = mux.clone();
        async move { mux.shutdown().await }
    });
    sleep(Duration::from_millis(1)).await;
    broken.store(true, Ordering::Relaxed);
    peer.say(Frame::Ping(2)).await;
    peer.hear().await;
    let closed = closing.await.unwrap();
    assert!(matches!(closed, Err(ConnectionError::Io(_))), "{closed:?}");
    assert!(matches!(driver.await.unwrap(), Err(ConnectionError::Io(_))));
}

#[tokio::test]
async fn over_tcp_a_peer_that_goes_on_sending_after_our_end_is_not_reset() {
    for round in 0..50 {
        let (near, far) = tcp_pair().await;
        let (mux, driver) = client(near, Config::default());
        let mut peer = Peer::new(far);
        let mut stream = mux.open(named("ours")).await.unwrap();
        stream.send(pattern(round, 300_000)).await.unwrap();
        stream.finish();
        drop(stream);
        drop(mux);

        // It first sends what fills the pipes, then reads ours.
        for _ in 0..20 {
            assert!(peer.try_say(data(1, pattern(0, 30_000))).await, "round {round}");
        }
        let frames = peer.hear_all().await;
        assert!(carried(&frames, 1) == (pattern(round, 300_000).to_vec(), true), "round {round}");
        assert_eq!(frames.last(), Some(&goaway(0)));
        for _ in 0..20 {
            assert!(peer.try_say(data(1, pattern(0, 30_000))).await, "round {round}");
        }
        drop(peer);
        driver.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn over_tcp_what_a_peer_sent_before_it_reset_us_is_read() {
    for round in 0..50 {
        let (near, far) = tcp_pair().await;
        let (mux, driver) = client(near, Config::default());
        let mut peer = Peer::new(far);
        let stream = mux.open(named("stream")).await.unwrap();
        peer.hear_syn().await;
        let (mut recv, mut send) = stream.split();
        send.send(pattern(0, 200_000)).await.unwrap();
        until(|| mux.stats().sent > 1000).await;
        peer.say(reply(1)).await;
        peer.say(data(1, pattern(round, 60_000))).await;
        peer.say(fin(1)).await;
        // With unread bytes of ours, this is a reset.
        drop(peer);
        assert!(read_to_fin(&mut recv).await == pattern(round, 60_000), "round {round}");
        drop((recv, send, mux));
        let _ = driver.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_shuts_its_write_side_alone_has_ended_the_connection() {
    let (near, far) = duplex(16 * 1024);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    let mut stream = accept(&mux).await;
    stream.send(pattern(0, 200_000)).await.unwrap();
    stream.finish();
    drop(stream);
    let mut io = peer.into_io();
    io.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(60), io.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection ends");
}
