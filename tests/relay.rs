//! A forwarded connection joined to a socket played by the test: what each end does to the other, and how long it may
//! take.
//!
//! Each test is a transcript of a client, a server and the other end of the socket. Time is virtual and passes only
//! while no task can run.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Connection, Error, PortForward, PortForwardServer};
use kubestream::upgrade::{Protocol, Upgraded};
use kubestream::{Abort, AbortOnDrop, ConnectionError, StreamError};
use support::{pattern, until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout};

const AN_HOUR: Duration = Duration::from_secs(3600);

/// A socket that records whether it would break off when it is closed.
struct Socket {
    io: DuplexStream,
    aborted: Arc<AtomicBool>,
}

impl Abort for Socket {
    fn abort_on_close(&mut self, abort: bool) {
        self.aborted.store(abort, Ordering::Relaxed);
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The other end of the socket, and whether a close would break it off.
struct Holder {
    io: DuplexStream,
    aborted: Arc<AtomicBool>,
    relaying: JoinHandle<Result<(), Error>>,
}

impl Holder {
    fn was_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    async fn ended(&mut self) -> Result<(), Error> {
        timeout(AN_HOUR, &mut self.relaying).await.expect("it still runs").unwrap()
    }
}

/// Joins a connection to a socket that holds this many bytes.
fn joined(connection: Connection, room: usize) -> Holder {
    let (near, io) = duplex(room);
    let aborted = Arc::default();
    let socket = AbortOnDrop::new(Socket { io: near, aborted: Arc::clone(&aborted) });
    Holder { io, aborted, relaying: tokio::spawn(connection.relay(socket)) }
}

struct Ends {
    client: Connection,
    server: Connection,
    forward: PortForward,
    driver: AbortHandle,
    server_mux: Multiplexer,
    _accepting: PortForwardServer,
}

/// One connection with both its ends.
async fn ends() -> Ends {
    let (near, far) = duplex(64 * 1024);
    let form = Some(Protocol::SpdyPortForward);
    let (mux, driver) = Multiplexer::client(Upgraded::new(near, Bytes::new(), form), Config::default());
    let driver = tokio::spawn(driver).abort_handle();
    let (server_mux, server_driver) = Multiplexer::server(Upgraded::new(far, Bytes::new(), form), Config::default());
    tokio::spawn(server_driver);
    let forward = PortForward::new(mux).unwrap();
    let mut accepting = PortForwardServer::new(server_mux.clone()).unwrap();
    let (client, server) =
        tokio::join!(forward.connect(80), async { accepting.accept().await.unwrap().unwrap().accept() });
    Ends { client: client.unwrap(), server, forward, driver, server_mux, _accepting: accepting }
}

#[tokio::test(start_paused = true)]
async fn a_socket_is_shut_down_for_an_end_and_broken_off_for_a_break() {
    let Ends { client, mut server, forward: _forward, .. } = ends().await;
    let mut holder = joined(client, 4096);
    holder.io.write_all(b"all of it").await.unwrap();
    holder.io.shutdown().await.unwrap();
    let mut all = String::new();
    server.read_to_string(&mut all).await.unwrap();
    server.send(all.into()).await.unwrap();
    server.finish();
    let mut all = String::new();
    holder.io.read_to_string(&mut all).await.unwrap();
    holder.ended().await.unwrap();
    assert_eq!((&all[..], holder.was_aborted()), ("all of it", false));

    let Ends { client, mut server, forward: _forward, .. } = ends().await;
    let mut holder = joined(client, 4096);
    server.send("half of it".into()).await.unwrap();
    server.fail("broken").await;
    let mut half = String::new();
    holder.io.read_to_string(&mut half).await.unwrap();
    assert!(matches!(holder.ended().await, Err(Error::Stream { error: StreamError::Reset(_), .. })));
    assert_eq!((&half[..], holder.was_aborted()), ("half of it", true));

    // The relay's future is dropped.
    let Ends { client, mut server, forward: _forward, .. } = ends().await;
    let mut holder = joined(client, 4096);
    holder.io.write_all(b"half of it").await.unwrap();
    assert_eq!(server.data().await.unwrap().unwrap(), "half of it");
    holder.relaying.abort();
    assert!(matches!(server.data().await, Some(Err(Error::Stream { .. }))));
    until(|| holder.was_aborted()).await;
}

/// What is held for a socket that takes nothing must not delay the end of the client that drops its connection.
#[tokio::test(start_paused = true)]
async fn a_client_that_lets_go_is_heard_though_the_socket_takes_nothing() {
    for lost in [false, true] {
        let Ends { mut client, server, forward: _forward, driver, server_mux, .. } = ends().await;
        let mut holder = joined(server, 16);
        for _ in 0..5 {
            client.send(pattern(1, 10_000)).await.unwrap();
        }
        client.flush().await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert!(!holder.relaying.is_finished());
        match lost {
            false => drop(client),
            true => driver.abort(),
        }
        let ended = holder.ended().await;
        assert!(
            matches!((lost, &ended), (false, Err(Error::Stream { .. })) | (true, Err(Error::Connection(_)))),
            "{ended:?}"
        );
        assert!(holder.was_aborted());
        until(|| server_mux.stats().streams == 0).await;
    }
}

/// A program that is paused, for example by a pager, gets everything that had come before the break.
#[tokio::test(start_paused = true)]
async fn a_program_that_reads_an_hour_later_reads_all_that_had_come() {
    let Ends { client, mut server, forward: _forward, driver, .. } = ends().await;
    let mut holder = joined(client, 16);
    server.send(pattern(1, 50_000)).await.unwrap();
    server.flush().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    driver.abort();
    sleep(AN_HOUR).await;
    assert!(!holder.relaying.is_finished());
    let mut had = Vec::new();
    holder.io.read_to_end(&mut had).await.unwrap();
    assert!(had == pattern(1, 50_000), "{}", had.len());
    assert!(matches!(holder.ended().await, Err(Error::Connection(ConnectionError::DriverGone))));
    assert!(holder.was_aborted());
}

/// The socket holds 1 MB, of which the program may have read nothing when the connection breaks off.
#[tokio::test(start_paused = true)]
async fn a_socket_has_its_time_to_take_what_came_before_the_break() {
    for (said, waits) in [(64 * 1024, 0), (64 * 1024 + 1, 5)] {
        let Ends { client, mut server, forward: _forward, .. } = ends().await;
        let mut holder = joined(client, 1 << 20);
        server.send(pattern(1, said)).await.unwrap();
        let began = Instant::now();
        server.fail("broken").await;
        holder.ended().await.unwrap_err();
        assert_eq!((began.elapsed().as_secs(), holder.was_aborted()), (waits, true));
    }
    // A client that ends meanwhile needs no more of it.
    let Ends { client, mut server, forward: _forward, .. } = ends().await;
    let mut holder = joined(client, 1 << 20);
    server.send(pattern(1, 100_000)).await.unwrap();
    let began = Instant::now();
    server.fail("broken").await;
    sleep(Duration::from_secs(1)).await;
    holder.io.shutdown().await.unwrap();
    holder.ended().await.unwrap_err();
    assert_eq!((began.elapsed().as_secs(), holder.was_aborted()), (1, true));
}

/// Without this, it would wait for a reader that never comes, while it sends in vain.
#[tokio::test(start_paused = true)]
async fn a_program_that_only_writes_hears_that_nobody_takes_it() {
    let Ends { client, mut server, forward: _forward, server_mux: _server, .. } = ends().await;
    let mut holder = joined(client, 4096);
    server.send(pattern(1, 50_000)).await.unwrap();
    server.fail("broken").await;
    let writing = async {
        while holder.io.write_all(&[1; 1000]).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(AN_HOUR, writing).await.expect("it still writes");
    assert!(matches!(holder.ended().await, Err(Error::Stream { .. })));
    assert!(holder.was_aborted());
}

/// Its last bytes and its end come after a failed write.
#[tokio::test(start_paused = true)]
async fn a_socket_that_has_ended_is_read_to_its_end_though_it_takes_nothing() {
    let Ends { mut client, server, forward: _forward, server_mux, .. } = ends().await;
    let mut holder = joined(server, 1 << 20);
    holder.io.write_all(&pattern(1, 300_000)).await.unwrap();
    drop(std::mem::replace(&mut holder.io, duplex(1).0));
    client.send("to nobody".into()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let mut had = Vec::new();
    client.read_to_end(&mut had).await.unwrap();
    assert!(had == pattern(1, 300_000));
    holder.ended().await.unwrap();
    while client.send(pattern(1, 10_000)).now_or_never().is_none_or(|sent| sent.is_ok()) {
        sleep(Duration::from_millis(1)).await;
    }
    drop(client);
    until(|| server_mux.stats().streams == 0).await;
}

/// What a client sent is read before its break, as far as the peer grants windows. What the peer does not grant delays
/// nothing.
#[tokio::test(start_paused = true)]
async fn a_break_comes_behind_what_was_said() {
    for said in [50_000, 200_000] {
        let Ends { mut client, mut server, forward: _forward, server_mux, .. } = ends().await;
        client.send(pattern(1, said)).await.unwrap();
        drop(client);
        sleep(Duration::from_secs(1)).await;
        let mut had = Vec::new();
        server.read_to_end(&mut had).await.unwrap_err();
        let window = Config::default().stream_receive_budget;
        assert!(had == pattern(1, said)[..said.min(window)], "{} of {said}", had.len());
        drop(server);
        until(|| server_mux.stats().streams == 0).await;
    }
}
