//! Futures dropped half-way, over an IO of one byte per call: nothing is lost and nothing happens twice.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;

use futures_util::FutureExt;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::PortForwardServer;
use kubestream::unstable::wire::spdy::{Frame, SettingId, Settings};
use kubestream::upgrade::{Protocol, Upgraded};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use support::fragment::Fragmented;
use support::peer::{Peer, carried, fin, goaway, reply};
use support::{client, config, named, pattern, server};

/// Calls, polls once and drops, until a first poll is ready.
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
        assert_eq!((incoming.id(), incoming.headers()), (round * 2 + 1, &named(&name)));
        let theirs = incoming.reply();
        pestered(async || ours.answered().await.unwrap()).await;
        drop((ours, theirs));
    }
    assert!(server.accept().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn open_that_waits_for_the_peers_limit_opens_once() {
    let (near, far) = bytewise();
    let (mux, _driver) = client(near, Config::default());
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

/// A task that can be woken. It exists while any waker of it does.
#[derive(Default)]
struct Task {
    woken: AtomicBool,
    _one_of: Arc<()>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_again_and_again_costs_no_memory() {
    let (near, _far) = duplex(64);
    let (mux, _driver) = client(near, Config::default());
    let mut stream = mux.open(named("quiet")).await.unwrap();
    let counted = Arc::new(Task::default());
    let waker = Waker::from(Arc::clone(&counted));
    let mut cx = Context::from_waker(&waker);
    // As in a loop that selects between these and a frequent event.
    for _ in 0..1000 {
        assert!(std::pin::pin!(mux.accept()).poll(&mut cx).is_pending());
        assert!(std::pin::pin!(mux.closed()).poll(&mut cx).is_pending());
        assert!(std::pin::pin!(stream.data()).poll(&mut cx).is_pending());
    }
    assert!(Arc::strong_count(&counted) < 10, "{} wakers are kept", Arc::strong_count(&counted));
}

/// A connection of several days on which tasks come and go. Each waits for its end, for a stream, or to open one. A
/// task that has stopped waiting is forgotten, and a task that waits all along is woken at the end.
#[tokio::test(start_paused = true)]
async fn who_has_stopped_waiting_is_forgotten() {
    let (near, far) = duplex(1024);
    let upgraded = Upgraded::new(near, Bytes::new(), Some(Protocol::SpdyPortForward));
    let (mux, driver) = Multiplexer::server(upgraded, Config::default());
    let driver = tokio::spawn(driver);
    let mut peer = Peer::new(far);
    peer.say(Frame::Settings(Settings::single(SettingId::MAX_CONCURRENT_STREAMS, 0))).await;
    let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
    rtt.unwrap();
    let server = PortForwardServer::new(mux.clone()).unwrap();
    let waits = |kind: usize| -> Pin<Box<dyn Future<Output = ()> + '_>> {
        match kind {
            0 => Box::pin(async { drop(mux.accept().await) }),
            1 => Box::pin(async { drop(mux.open(named("refused")).await) }),
            2 => Box::pin(async { drop(mux.closed().await) }),
            _ => Box::pin(server.client_gone()),
        }
    };
    let poll = |wait: &mut Pin<Box<dyn Future<Output = ()> + '_>>, task: &Arc<Task>| {
        let waker = Waker::from(Arc::clone(task));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    };
    let mut patient = Vec::new();
    for kind in 0..4 {
        let (mut wait, task) = (waits(kind), Arc::new(Task::default()));
        poll(&mut wait, &task);
        patient.push((wait, task));
        let hasty = Arc::new(());
        for _ in 0..10_000 {
            let [one, other] = [(); 2].map(|()| Arc::new(Task { _one_of: Arc::clone(&hasty), ..Task::default() }));
            let mut wait = waits(kind);
            // The future is moved to another task.
            poll(&mut wait, &one);
            poll(&mut wait, &other);
        }
        assert_eq!(Arc::strong_count(&hasty), 1, "tasks of kind {kind} and the one that counts them");
    }
    drop(peer);
    driver.await.unwrap().unwrap_err();
    for (kind, (wait, task)) in patient.into_iter().enumerate() {
        assert!(task.woken.load(Ordering::Relaxed), "a task of kind {kind} is never woken");
        wait.await;
    }
}
