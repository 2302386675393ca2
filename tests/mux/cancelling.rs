//! Futures dropped half-way, over an IO of one byte a call: nothing is lost and nothing happens twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use kubestream::mux::{Config, FlowControl, Multiplexer};
use kubestream::spdy::{Frame, SettingId, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use crate::support::fragment::Fragmented;
use crate::support::peer::{Peer, carried, fin, goaway, reply};
use crate::support::{client, config, named, pattern, server};

/// Calls, polls once and drops, until it is ready at the first poll.
async fn pestered<T>(mut call: impl AsyncFnMut() -> T) -> T {
    for polls in 0..1_000_000 {
        if let Some(result) = call().now_or_never() {
            return result;
        }
        if polls % 1000 == 999 {
            sleep(Duration::from_millis(1)).await;
        }
        tokio::task::yield_now().await;
    }
    panic!("never ready");
}

fn bytewise() -> (Fragmented<DuplexStream>, Fragmented<DuplexStream>) {
    let (near, far) = duplex(64);
    (Fragmented::bytewise(near), Fragmented::bytewise(far))
}

fn pair() -> (Multiplexer, Multiplexer) {
    let (near, far) = bytewise();
    let small = || config(|config| config.send_buffer = 1000);
    (client(near, small()).0, server(far, small()).0)
}

#[tokio::test(start_paused = true)]
async fn open_accept_and_answered_happen_once() {
    let (client, server) = pair();
    for round in 0..20 {
        let name = round.to_string();
        let mut ours = pestered(async || client.open(named(&name)).await.unwrap()).await;
        let incoming = pestered(async || server.accept().await.unwrap().unwrap()).await;
        assert_eq!((incoming.id().get(), incoming.headers()), (round * 2 + 1, &named(&name)));
        let theirs = incoming.reply();
        pestered(async || ours.answered().await.unwrap()).await;
        drop((ours, theirs));
    }
    assert!(server.accept().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn open_that_waits_for_the_peers_limit_opens_once() {
    let (near, far) = bytewise();
    // With windows it would grant the session's once it has SETTINGS.
    let (mux, _driver) = client(near, config(|config| config.flow_control = FlowControl::Off));
    let mut peer = Peer::new(far);
    peer.say(Frame::Settings(Settings::single(SettingId::MAX_CONCURRENT_STREAMS, 1))).await;
    let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
    rtt.unwrap();
    let mut streams = Vec::new();
    for round in 0..10 {
        streams.push(pestered(async || mux.open(named("one")).await.unwrap()).await);
        assert!(mux.open(named("two")).now_or_never().is_none());
        let (id, _) = peer.hear_syn().await;
        assert_eq!(id, round * 2 + 1);
        peer.say(reply(id)).await;
        peer.say(fin(id)).await;
        streams[round as usize].finish();
        assert_eq!(peer.hear().await, Some(fin(id)));
    }
}

#[tokio::test(start_paused = true)]
async fn data_and_send_lose_nothing_and_double_nothing() {
    let (client, server) = pair();
    let mut ours = client.open(named("both ways")).await.unwrap();
    let theirs = server.accept().await.unwrap().unwrap().reply();
    ours.answered().await.unwrap();
    let (mut recv, mut send) = theirs.split();
    let echo = tokio::spawn(async move {
        while let Some(data) = pestered(async || recv.data().await).await {
            let data = data.unwrap();
            pestered(async || send.send(data.clone()).await.unwrap()).await;
        }
    });
    let (mut recv, mut send) = ours.split();
    let writer = tokio::spawn(async move {
        for seed in 0..50 {
            pestered(async || send.send(pattern(seed, 300)).await.unwrap()).await;
        }
    });
    let mut all = Vec::new();
    while let Some(data) = pestered(async || recv.data().await).await {
        all.extend_from_slice(&data.unwrap());
    }
    assert!(all == (0..50).flat_map(|seed| pattern(seed, 300)).collect::<Vec<u8>>());
    writer.await.unwrap();
    echo.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn read_write_and_flush_lose_nothing_and_double_nothing() {
    let (client, server) = pair();
    let mut ours = client.open(named("as an IO")).await.unwrap();
    let mut theirs = server.accept().await.unwrap().unwrap().reply();
    let sent = pattern(0, 15_000);
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        let mut rest = sent;
        while !rest.is_empty() {
            let written = pestered(async || ours.write(&rest).await.unwrap()).await;
            let _ = rest.split_to(written);
        }
        pestered(async || ours.flush().await.unwrap()).await;
        ours.shutdown().await.unwrap();
        ours
    });
    let mut all = Vec::new();
    loop {
        let mut buf = [0; 7];
        match pestered(async || theirs.read(&mut buf).await.unwrap()).await {
            0 => break,
            read => all.extend_from_slice(&buf[..read]),
        }
    }
    assert!(all == expected);
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_shutdown_goes_on() {
    let (near, far) = bytewise();
    let (mux, driver) = client(near, Config::default());
    let mut stream = mux.open(named("tail")).await.unwrap();
    stream.send(pattern(0, 5000)).await.unwrap();
    stream.finish();
    assert!(mux.shutdown().now_or_never().is_none());
    let mut peer = Peer::new(far);
    let frames = peer.hear_all().await;
    assert!(carried(&frames, 1) == (pattern(0, 5000).to_vec(), true));
    assert_eq!(frames.last(), Some(&goaway(0)));
    drop(peer);
    pestered(async || mux.shutdown().await.unwrap()).await;
    pestered(async || mux.closed().await.unwrap()).await;
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropped_pings_do_not_answer_for_others() {
    let (client, _server) = pair();
    for _ in 0..20 {
        assert!(client.ping().now_or_never().is_none());
        sleep(Duration::from_millis(3)).await;
    }
    client.ping().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiting_again_and_again_costs_no_memory() {
    struct Counted(AtomicUsize);
    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (near, _far) = duplex(64);
    let (mux, _driver) = client(near, Config::default());
    let mut stream = mux.open(named("quiet")).await.unwrap();
    let counted = Arc::new(Counted(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&counted));
    let mut cx = Context::from_waker(&waker);
    // As in a loop that selects between these and something that happens often.
    for _ in 0..1000 {
        assert!(std::pin::pin!(mux.accept()).poll(&mut cx).is_pending());
        assert!(std::pin::pin!(mux.closed()).poll(&mut cx).is_pending());
        assert!(std::pin::pin!(stream.data()).poll(&mut cx).is_pending());
    }
    assert!(Arc::strong_count(&counted) < 10, "{} wakers are kept", Arc::strong_count(&counted));
}
