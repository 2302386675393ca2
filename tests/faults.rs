//! Faults in the driver and the connection that a review found and that are fixed. Each test is named after the cause.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt};
use kubestream::mux::{Config, Multiplexer};
use kubestream::unstable::session::*;
use kubestream::unstable::wire::spdy::*;
use kubestream::upgrade::Upgraded;
use kubestream::{ConnectionError, StreamError};
use support::peer::*;
use support::*;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio::time::{sleep, timeout};

struct Counted(AtomicUsize);
impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
fn counted() -> (Arc<Counted>, Waker) {
    let c = Arc::new(Counted(AtomicUsize::new(0)));
    (Arc::clone(&c), Waker::from(Arc::clone(&c)))
}

#[tokio::test(start_paused = true)]
async fn flush_of_what_a_lost_connection_dropped_is_an_error() {
    let (near, far) = duplex(4096);
    let (mux, _driver) = client(near, Config::default());
    let mut stream = mux.open(named("a")).await.unwrap();
    stream.send(pattern(0, 1 << 20)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(far);
    sleep(Duration::from_secs(1)).await;
    let r = stream.flush().await;
    assert!(r.is_err(), "100,000 bytes went nowhere and flush said {r:?}");
}

#[tokio::test(start_paused = true)]
async fn flush_of_what_a_reset_dropped_is_an_error() {
    let (near, far) = duplex(4096);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let stream = mux.open(named("a")).await.unwrap();
    let (_recv, mut send) = stream.split();
    send.feed(pattern(0, 1 << 20)).await.unwrap();
    let closing = tokio::spawn(async move { SinkExt::close(&mut send).await });
    sleep(Duration::from_secs(1)).await;
    peer.say(rst(1, RstStatus::INTERNAL_ERROR)).await;
    let r = closing.await.unwrap();
    assert!(r.is_err(), "100,000 bytes went nowhere and close said {r:?}");
}

fn spins(mut task: Pin<Box<dyn Future<Output = ()> + '_>>) -> usize {
    let (c, w) = counted();
    let mut polls = 0;
    let mut seen = 0;
    loop {
        polls += 1;
        assert!(task.as_mut().poll(&mut Context::from_waker(&w)).is_pending());
        let woken = c.0.load(Ordering::Relaxed);
        eprintln!("poll {polls} woken {woken}");
        if woken == seen || polls > 2000 {
            return polls;
        }
        seen = woken;
    }
}

#[tokio::test(start_paused = true)]
async fn in_one_task_with_its_driver_a_reader_of_a_blocked_connection_does_not_spin() {
    let (near, _far) = duplex(4096);
    let (mux, driver) = Multiplexer::client(Upgraded::from_io(near), Config::default());
    let mut stream = mux.open(named("a")).now_or_never().unwrap().unwrap();
    stream.send(Bytes::from(vec![0; 1 << 20])).now_or_never().unwrap().unwrap();
    let polls = spins(Box::pin(async {
        let _ = futures_util::future::join(driver, stream.data()).await;
    }));
    assert!(polls < 100, "polled {polls} times with nothing to do");
}

#[tokio::test(start_paused = true)]
async fn in_one_task_with_its_driver_shutdown_does_not_spin() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = Multiplexer::client(Upgraded::from_io(near), Config::default());
    let mut peer = Peer::new(far);
    peer.say(Frame::Settings(Settings::single(SettingId::INITIAL_WINDOW_SIZE, 0))).await;
    let mut driver = Box::pin(driver);
    assert!(driver.as_mut().now_or_never().is_none());
    let mut stream = mux.open(named("a")).now_or_never().unwrap().unwrap();
    stream.send(Bytes::from(vec![0; 100])).now_or_never().unwrap().unwrap();
    let polls = spins(Box::pin(async {
        let _ = futures_util::future::join(driver, mux.shutdown()).await;
    }));
    assert!(polls < 100, "polled {polls} times with nothing to do");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_trickles_cannot_keep_a_closed_connection() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = server(near, Config::default());
    let (read, mut write) = tokio::io::split(far);
    drop(mux);
    tokio::spawn(async move {
        loop {
            if write.write_all(&[0]).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(9)).await;
        }
    });
    let r = timeout(Duration::from_secs(24 * 3600), driver).await;
    drop(read);
    assert!(r.is_ok(), "a day after the last handle went its socket is still held for a byte in 9 s");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_and_talks_cannot_keep_a_closing_connection() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(Frame::Settings(Settings::single(SettingId::INITIAL_WINDOW_SIZE, 0))).await;
    peer.say(syn(1, &[])).await;
    let mut stream = accept(&mux).await;
    stream.send(pattern(0, 200_000)).await.unwrap();
    stream.finish();
    drop(stream);
    drop(mux);
    tokio::spawn(async move {
        let mut id = 1;
        while peer.try_say(Frame::WindowUpdate { id: StreamId::new(99), delta: 1 }).await {
            id += 2;
            let _ = id;
            sleep(Duration::from_secs(9)).await;
        }
    });
    let r = timeout(Duration::from_secs(24 * 3600), driver).await;
    assert!(r.is_ok(), "a day later the connection is still closing");
}

#[tokio::test(start_paused = true)]
async fn a_pong_that_waits_in_the_socket_counts_after_a_halt() {
    let (near, far) = duplex(1 << 20);
    let (_mux, driver) = Multiplexer::client(Upgraded::from_io(near), Config::default());
    let mut driver = Box::pin(driver);
    let mut peer = Peer::new(far);
    assert!(driver.as_mut().now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(driver.as_mut().now_or_never().is_none());
    assert_eq!(peer.hear().await, Some(Frame::Ping(1)));
    peer.say(Frame::Ping(1)).await;
    // This process is stopped, or another task blocks the thread.
    tokio::time::advance(Duration::from_secs(31)).await;
    let r = driver.as_mut().now_or_never();
    assert!(r.is_none(), "{r:?}, with its answer unread in the socket");
}

#[tokio::test(start_paused = true)]
async fn an_interval_above_the_timeout_leaves_time_for_the_answer() {
    let (near, far) = duplex(1 << 20);
    let (_mux, driver) = client(near, config(|c| c.keepalive_interval = Some(Duration::from_secs(300))));
    let (_s, _d) = server(far, config(|c| c.keepalive_interval = None));
    sleep(Duration::from_secs(1000)).await;
    assert!(!driver.is_finished(), "{:?}", driver.await);
}

#[tokio::test(start_paused = true)]
async fn without_linger_what_is_queued_still_goes_out() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = client(near, config(|c| c.linger = Duration::ZERO));
    let mut peer = Peer::new(far);
    let mut s = mux.open(named("a")).await.unwrap();
    s.send(Bytes::from_static(b"x")).await.unwrap();
    s.finish();
    let r = mux.shutdown().await;
    let all = peer.hear_all().await;
    eprintln!("{all:?} {:?}", driver.await);
    assert!(r.is_ok(), "{r:?}");
    assert!(all.contains(&goaway(0)));
}

#[test]
fn a_silent_connection_opens_nothing() {
    let now = std::time::Instant::now();
    let mut c = Connection::new(Role::Client, Config::default(), now);
    c.silence(StreamError::SessionEnded);
    let mut n = 0;
    for _ in 0..1000 {
        if let Ok(Some(id)) = c.open(Headers::new()) {
            n += 1;
            c.reset(id, RstStatus::CANCEL);
            c.release(id);
        }
    }
    assert_eq!((n, c.ping().is_ok()), (0, false), "opened and pinged into nowhere; {} left", c.stream_count());
}

#[test]
fn a_client_with_the_status_reads_on_however_often_it_is_pinged() {
    let now = std::time::Instant::now();
    let mut c = Connection::new(Role::Client, Config::default(), now);
    let err = c.open(Headers::new()).unwrap().unwrap();
    let out = c.open(Headers::new()).unwrap().unwrap();
    c.stop_sending_after(err, false);
    while c.poll_frame(now).is_some() {}
    c.receive(reply(err.get()), now);
    c.receive(reply(out.get()), now);
    c.receive(data(err.get(), "status"), now);
    assert!(c.is_silent());
    for n in 1..=2000 {
        c.receive(Frame::Ping(2 * n), now);
    }
    c.receive(data(out.get(), "tail"), now);
    assert!(c.error().is_none(), "{:?}", c.error());
}

#[tokio::test(start_paused = true)]
async fn what_leaves_before_the_first_answer_stops_no_other_stream() {
    // A long path: 8 MiB are on their way before the server's first frame returns.
    let (near, far) = duplex(8 << 20);
    let (client, _one) = client(near, Config::default());
    let unread = client.open(named("unread")).await.unwrap();
    let (_r, mut filling) = unread.split();
    let filler = tokio::spawn(async move {
        for _ in 0..16 {
            let _ = filling.send(Bytes::from(vec![0; 256 << 10])).await;
        }
        filling
    });
    sleep(Duration::from_millis(100)).await;
    let (server, _two) = server(far, Config::default());
    let _held = accept(&server).await;
    let mut busy = client.open(named("busy")).await.unwrap();
    busy.send(Bytes::from_static(b"x")).await.unwrap();
    let r = timeout(Duration::from_secs(600), async {
        let mut s = accept(&server).await;
        s.data().await.unwrap().unwrap()
    })
    .await;
    filler.abort();
    assert!(r.is_ok(), "blocked: {:?}", server.stats());
}

#[tokio::test(start_paused = true)]
async fn a_send_buffer_of_nothing_still_sends() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = client(near, config(|c| c.send_buffer = 0));
    let _peer = Peer::new(far);
    let mut s = mux.open(named("a")).await.unwrap();
    assert!(timeout(Duration::from_secs(60), s.send(Bytes::from_static(b"x"))).await.is_ok());
}

/// An IO whose reads are always ready.
struct Babbler(usize);
impl AsyncRead for Babbler {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.0 += 1;
        assert!(self.0 < 100_000, "the driver never yields its thread");
        buf.put_slice(&[0; 1]);
        Poll::Ready(Ok(()))
    }
}
impl AsyncWrite for Babbler {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn lingering_lets_others_run() {
    let (mux, driver) = Multiplexer::client(Upgraded::from_io(Babbler(0)), Config::default());
    drop(mux);
    let mut driver = Box::pin(driver);
    for _ in 0..10 {
        let (_c, w) = counted();
        let _ = driver.as_mut().poll(&mut Context::from_waker(&w));
    }
}

/// Takes everything. After it is told to, it never finishes a flush, like a TLS session whose records the socket does
/// not take.
struct Stuck(tokio::io::DuplexStream, Arc<AtomicUsize>);
impl AsyncRead for Stuck {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}
impl AsyncWrite for Stuck {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.1.load(Ordering::Relaxed) {
            0 => Poll::Ready(Ok(())),
            1 => Poll::Pending,
            _ => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn stuck(how: usize) {
    use kubestream::upgrade::{Protocol, Version};
    let (near, far) = duplex(1 << 20);
    let flag = Arc::new(AtomicUsize::new(0));
    let io = Stuck(near, Arc::clone(&flag));
    let upgraded = Upgraded::new(io, Bytes::new(), Some(Protocol::SpdyExec(Version::V4)));
    let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
    let driver = tokio::spawn(driver);
    let mut peer = Peer::new(far);
    let (exec, ()) = tokio::join!(mux.exec(kubestream::exec::Streams::OUTPUT), async {
        for id in [1, 3, 5] {
            peer.hear_syn().await;
            peer.say(reply(id)).await;
        }
    });
    let mut exec = exec.unwrap();
    flag.store(how, Ordering::Relaxed);
    peer.say(fin(3)).await;
    peer.say(fin(5)).await;
    peer.say(data(1, r#"{"status":"Success"}"#)).await;
    peer.say(fin(1)).await;
    sleep(Duration::from_secs(1)).await;
    peer.say(goaway(0)).await;
    let began = tokio::time::Instant::now();
    let mut io = peer.into_io();
    io.shutdown().await.unwrap();
    let waited = exec.wait().await;
    drop((exec, mux));
    let r = driver.await.unwrap();
    eprintln!("stuck({how}): wait {waited:?} driver {r:?} {:?}", began.elapsed());
    assert!(r.is_ok());
}
#[tokio::test(start_paused = true)]
async fn a_client_with_the_status_ends_well_though_its_flush_is_stuck() {
    stuck(1).await
}
#[tokio::test(start_paused = true)]
async fn a_client_with_the_status_ends_well_though_its_flush_fails() {
    stuck(2).await
}

/// The echo reads and writes in turn, and the client reads while it writes. Both do it right.
async fn echo_first_rtt(len: usize, wait: u64) {
    let (near, far) = duplex(8 << 20);
    let (client, _one) = client(near, Config::default());
    let (mut r, mut s) = client.open(named("echo")).await.unwrap().split();
    let writer = tokio::spawn(async move {
        for p in pattern(0, len).chunks(32 << 10) {
            s.send(Bytes::copy_from_slice(p)).await.unwrap();
        }
    });
    sleep(Duration::from_millis(wait)).await;
    let (server, _two) = server(far, Config::default());
    let (mut er, mut es) = accept(&server).await.split();
    tokio::spawn(async move {
        while let Some(Ok(d)) = er.data().await {
            es.send(d).await.unwrap();
        }
    });
    let got = timeout(Duration::from_secs(600), read_to_fin(&mut r)).await;
    writer.abort();
    assert!(got.is_ok(), "both wait for ever: client {:?} server {:?}", client.stats(), server.stats());
}
#[tokio::test(start_paused = true)]
async fn an_echo_over_a_long_way_does_not_deadlock() {
    echo_first_rtt(6 << 20, 100).await
}
#[tokio::test(start_paused = true)]
async fn an_echo_of_a_server_that_starts_late_does_not_deadlock() {
    echo_first_rtt(6 << 20, 1500).await
}

/// Row 4: each block is within its limit, but a megabyte of them would inflate to a hundred.
#[tokio::test(start_paused = true)]
async fn blocks_that_inflate_a_hundredfold_end_the_connection_long_before_they_are_all_read() {
    const LIMIT: usize = 4 << 20;
    let (near, far) = duplex(4096);
    let (mux, driver) = server(near, config(|config| config.spdy.max_header_bytes = LIMIT));
    let mut peer = Peer::new(far);
    let long = "x".repeat(16 * 1024 - 100);
    let headers = Headers::from_iter(["a", "b", "c", "d"].map(|name| (name, &long[..])));
    peer.say(syn(1, &[])).await;
    accept(&mux).await;
    let bomb = |_| Frame::Headers { id: StreamId::new(1), fin: false, headers: headers.clone() };
    let mut said = 0;
    while mux.takes_streams() && said < 1000 {
        peer.say(bomb(said)).await;
        said += 1;
    }
    // Also counted: the blocks that were on their way.
    assert!(said < 64 + 2 * 64, "{said} blocks of 64 KiB");
    drop(peer);
    let error = driver.await.unwrap().unwrap_err();
    assert!(
        matches!(error, ConnectionError::LimitExceeded { limit: "max_header_bytes", value } if value == LIMIT as u64),
        "{error}"
    );
}
