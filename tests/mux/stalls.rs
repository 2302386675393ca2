//! Unread streams, and peers that do not read: what waits, what goes on, and what is held.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kubestream::mux::{Config, FlowControl};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Frame, SettingId, Settings};
use kubestream::{ConnectionError, Initiator, StreamError};
use tokio::io::duplex;
use tokio::time::{Instant, sleep, timeout};

use support::peer::{Peer, data, fin, syn, window_update};
use support::{accept, client, config, named, pattern, read_to_fin, server, until};

/// What the budget allows to be held, plus one read of the socket.
const HELD: usize = 1024 * 1024 + 2 * 64 * 1024 + 128 * 1024;

#[tokio::test(start_paused = true)]
async fn between_two_of_ours_an_unread_stream_stops_no_other() {
    let (near, far) = duplex(64 * 1024);
    let (client, _one) = client(near, Config::default());
    let (server, _two) = server(far, Config::default());
    let mut unread = client.open(named("unread")).await.unwrap();
    let mut held = accept(&server).await;
    unread.answered().await.unwrap();
    let (_recv, mut filling) = unread.split();
    let filler = tokio::spawn(async move {
        filling.send(pattern(0, 3 << 20)).await.unwrap();
        filling
    });

    let mut busy = client.open(named("busy")).await.unwrap();
    let (mut reading, _send) = accept(&server).await.split();
    let sent = pattern(1, 10 << 20);
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        for piece in 0..10 {
            busy.send(sent.slice(piece << 20..(piece + 1) << 20)).await.unwrap();
        }
        busy.finish();
        busy
    });
    let all = timeout(Duration::from_secs(600), read_to_fin(&mut reading)).await.expect("not blocked");
    assert!(all == expected);
    writer.await.unwrap();
    let stats = server.stats();
    assert_eq!(stats.stalled_by, None);
    assert!(stats.unread < 80 * 1024, "{} unread: the window was not grown", stats.unread);

    // And nothing of the unread stream is lost.
    let mut came = Vec::new();
    while came.len() < 3 << 20 {
        came.extend_from_slice(&held.data().await.unwrap().unwrap());
    }
    assert!(came == pattern(0, 3 << 20));
    filler.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unread_stream_of_many_tiny_writes_stops_no_other_either() {
    let (near, far) = duplex(64 * 1024);
    let (client, _one) = client(near, Config::default());
    let (server, _two) = server(far, Config::default());
    let mut unread = client.open(named("unread")).await.unwrap();
    let mut held = accept(&server).await;
    unread.answered().await.unwrap();
    let crumbs = tokio::spawn(async move {
        for at in 0..40_000u32 {
            unread.send(Bytes::copy_from_slice(&[at as u8])).await.unwrap();
            // Typed keys, each in a frame of its own.
            sleep(Duration::from_millis(1)).await;
        }
        unread
    });
    sleep(Duration::from_secs(60)).await;

    let mut busy = client.open(named("busy")).await.unwrap();
    let accepted = timeout(Duration::from_secs(600), accept(&server)).await;
    let mut reading = accepted.unwrap_or_else(|_| panic!("blocked: {:?}", server.stats()));
    busy.send(pattern(1, 1 << 20)).await.unwrap();
    busy.finish();
    let mut all = Vec::new();
    while let Some(data) = timeout(Duration::from_secs(600), reading.data()).await.expect("not blocked") {
        all.extend_from_slice(&data.unwrap());
    }
    assert!(all == pattern(1, 1 << 20));

    let mut came = Vec::new();
    while came.len() < 40_000 {
        came.extend_from_slice(&held.data().await.unwrap().unwrap());
    }
    assert!(came.iter().zip(0..40_000u32).all(|(byte, at)| *byte == at as u8));
    crumbs.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_windows_stalls_at_the_budget_is_named_and_goes_on_once_read() {
    let (near, far) = duplex(64 * 1024);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    peer.say(syn(3, &[])).await;
    let (mut unread, _send) = accept(&mux).await.split();
    let (mut other, _answer) = accept(&mux).await.split();
    let talker = tokio::spawn(async move {
        for part in 0..100 {
            peer.say(data(1, pattern(part, 32 * 1024))).await;
            peer.say(data(3, pattern(part, 100))).await;
        }
        peer.say(fin(1)).await;
        peer.say(fin(3)).await;
        peer
    });
    until(|| mux.stats().stalled_by.is_some()).await;
    let reader = tokio::spawn(async move { read_to_fin(&mut other).await });
    sleep(Duration::from_secs(3600)).await;
    let stats = mux.stats();
    assert_eq!(stats.stalled_by, Some(1));
    assert!((1 << 20..HELD).contains(&stats.unread), "{} unread", stats.unread);
    assert!(!talker.is_finished() && !reader.is_finished(), "only the socket can slow such a peer down");

    let all = read_to_fin(&mut unread).await;
    assert!(all == (0..100).flat_map(|part| pattern(part, 32 * 1024)).collect::<Vec<u8>>());
    assert!(reader.await.unwrap() == (0..100).flat_map(|part| pattern(part, 100)).collect::<Vec<u8>>());
    assert_eq!((mux.stats().stalled_by, mux.stats().unread), (None, 0));
    talker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_unread_stream_lets_the_others_go_on() {
    let (near, far) = duplex(64 * 1024);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    peer.say(syn(3, &[])).await;
    let unread = accept(&mux).await;
    let (mut other, _answer) = accept(&mux).await.split();
    let talker = tokio::spawn(async move {
        for part in 0..100 {
            peer.say(data(1, pattern(part, 32 * 1024))).await;
        }
        peer.say(data(3, "at last")).await;
        peer.say(fin(3)).await;
        peer
    });
    until(|| mux.stats().stalled_by == Some(1)).await;
    drop(unread);
    assert_eq!(read_to_fin(&mut other).await, b"at last");
    talker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn small_pieces_are_charged_for_their_bookkeeping() {
    let (near, far) = duplex(64 * 1024);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    let (mut unread, _send) = accept(&mux).await.split();
    let talker = tokio::spawn(async move {
        for at in 0..20_000u32 {
            peer.say(data(1, vec![at as u8])).await;
        }
        peer.say(fin(1)).await;
        peer
    });
    sleep(Duration::from_secs(60)).await;
    assert!(mux.stats().unread < HELD, "{} unread", mux.stats().unread);
    let all = read_to_fin(&mut unread).await;
    assert!(all.len() == 20_000 && all.iter().zip(0..20_000u32).all(|(byte, at)| *byte == at as u8));
    talker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stall_beyond_its_timeout_fails_the_waiters_and_names_the_stream() {
    let (near, far) = duplex(64 * 1024);
    let (mux, driver) = server(near, config(|config| config.stall_timeout = Some(Duration::from_secs(20))));
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    peer.say(syn(3, &[])).await;
    let mut unread = accept(&mux).await;
    let mut waiting = accept(&mux).await;
    let talker = tokio::spawn(async move {
        for part in 0..100 {
            peer.say(data(1, pattern(part, 32 * 1024))).await;
        }
        peer.hear_all().await
    });
    until(|| mux.stats().stalled_by.is_some()).await;
    let since = Instant::now();
    let error = waiting.data().await.unwrap().unwrap_err();
    assert!(matches!(&error, StreamError::Connection(ConnectionError::Stalled { stream: 1, .. })), "{error:?}");
    assert_eq!(error.initiator(), Initiator::User);
    assert!((19..=21).contains(&since.elapsed().as_secs()));

    let mut came = 0;
    let error = loop {
        match unread.data().await.unwrap() {
            Ok(data) => came += data.len(),
            Err(error) => break error,
        }
    };
    assert!(came >= 1 << 20, "what had come is not lost");
    assert!(matches!(error, StreamError::Connection(ConnectionError::Stalled { .. })));
    drop((unread, waiting));
    assert!(matches!(driver.await.unwrap(), Err(ConnectionError::Stalled { .. })));
    assert_eq!(talker.await.unwrap().last(), Some(&support::peer::goaway(3)), "the peer is told");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_makes_writers_wait_and_is_still_heard() {
    let (near, far) = duplex(64 * 1024);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    let (mut recv, mut send) = accept(&mux).await.split();
    let writer = tokio::spawn(async move {
        let mut sent = 0;
        while sent < 10 << 20 {
            send.send(pattern(0, 10_000)).await.unwrap();
            sent += 10_000;
        }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!writer.is_finished());
    let talker = tokio::spawn(async move {
        for part in 0..50 {
            peer.say(data(1, pattern(part, 30_000))).await;
        }
        peer.say(fin(1)).await;
        peer
    });
    let all = read_to_fin(&mut recv).await;
    assert!(all.len() == 1_500_000, "reading is not gated on writing");
    assert!(mux.stats().sent <= 64 * 1024);
    talker.await.unwrap();
    writer.abort();
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_room_and_takes_no_more_than_there_is() {
    let (near, far) = duplex(1024);
    let (mux, _driver) = client(near, config(|config| config.send_buffer = 10_000));
    let (_recv, mut send) = mux.open(named("full")).await.unwrap().split();
    sleep(Duration::from_millis(1)).await;
    let mut queued = 0;
    while let Some(sent) = send.send(pattern(0, 4000)).now_or_never() {
        sent.unwrap();
        queued += 4000;
        assert!(queued < 1 << 20, "nothing limits it");
        sleep(Duration::from_millis(1)).await;
    }
    // What is being written, what fills the buffer, and the write that filled it.
    assert!((10_000..10_000 + 256 * 1024 + 3 * 4000).contains(&queued), "{queued}");
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn windows_are_obeyed_from_the_moment_the_peer_shows_it_has_them() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut first = mux.open(named("first")).await.unwrap();
    peer.hear_syn().await;
    peer.say(Frame::Settings(Settings::single(SettingId::INITIAL_WINDOW_SIZE, 10_000))).await;
    let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
    rtt.unwrap();
    first.send(pattern(0, 30_000)).await.unwrap();
    let mut came = hear_data(&mut peer, 1, 10_000).await;
    let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
    rtt.expect("no more than the window came before the PING");

    peer.say(window_update(1, 15_000)).await;
    came.extend(hear_data(&mut peer, 1, 15_000).await);
    peer.say(window_update(1, 15_000)).await;
    came.extend(hear_data(&mut peer, 1, 5_000).await);
    assert!(came == pattern(0, 30_000));

    // The session's window is 64 KiB for all streams together, however large their own windows are.
    let mut second = mux.open(named("second")).await.unwrap();
    peer.hear_syn().await;
    peer.say(window_update(3, 1 << 20)).await;
    second.send(pattern(1, 200_000)).await.unwrap();
    hear_data(&mut peer, 3, 64 * 1024 - 30_000).await;
    let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
    rtt.unwrap();
    peer.say(window_update(0, 1 << 20)).await;
    hear_data(&mut peer, 3, 200_000 - (64 * 1024 - 30_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_windows_is_sent_none_of_their_frames_and_waited_for_none() {
    for control in [FlowControl::Auto, FlowControl::Off] {
        let (near, far) = duplex(4 << 20);
        let (mux, _driver) = client(near, config(|config| config.spdy.flow_control = control));
        let mut peer = Peer::new(far);
        let mut stream = mux.open(named("go")).await.unwrap();
        peer.hear_syn().await;
        stream.send(pattern(0, 1 << 20)).await.unwrap();
        assert!(hear_data(&mut peer, 1, 1 << 20).await == pattern(0, 1 << 20));
        for part in 0..50 {
            peer.say(data(1, pattern(part, 30_000))).await;
        }
        peer.say(fin(1)).await;
        let (mut recv, _send) = stream.split();
        assert_eq!(read_to_fin(&mut recv).await.len(), 1_500_000);
        let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
        rtt.expect("the PING is the first frame since");
    }
}

/// Reads exactly that much DATA of one stream, and in between the session's WINDOW_UPDATEs.
async fn hear_data(peer: &mut Peer, id: u32, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        match peer.hear().await {
            Some(Frame::Data { id: on, data, .. }) if on.get() == id => all.extend_from_slice(&data),
            Some(Frame::WindowUpdate { id, .. }) if id == StreamId::SESSION => {}
            // A peer that is silent while it is waited for gets PINGs.
            Some(Frame::Ping(_)) => {}
            other => panic!("{other:?} after {} of {len} bytes", all.len()),
        }
    }
    assert_eq!(all.len(), len);
    all
}
