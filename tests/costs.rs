//! What a transfer, an echo, an open and an exec session cost, counted and not timed: allocations, calls of the IO, and
//! turns of the tasks.
//!
//! The numbers are of both ends together, on one thread and in virtual time, so they are the same in every run. Whoever
//! makes something cheaper or dearer changes them here, in the same commit. Time is measured by `cargo bench`.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use kubestream::exec::Streams;
use kubestream::mux::{Config, Driver, Headers, Multiplexer};
use kubestream::protocol::{Protocol, Subprotocol, Version};
use kubestream::status::ExitStatus;
use kubestream::upgrade::Upgraded;
use stats_alloc::Region;
use support::memory::{ALLOCATOR, Counting, play, turn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

#[global_allocator]
static GLOBAL: &Counting = ALLOCATOR;

const KIB: usize = 1024;
const SPDY: Protocol = Protocol::SpdyExec(Version::V4);
const WEBSOCKET: Protocol = Protocol::WebSocketExec(Subprotocol::V5);

/// What both ends together have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Costs {
    /// New blocks of memory, and blocks that were made larger.
    allocations: usize,
    /// Calls of `poll_read`. Over a socket each is a system call, unless the socket is known to be empty.
    reads: usize,
    /// Calls of `poll_write` and `poll_write_vectored`.
    writes: usize,
    /// Turns of the two drivers.
    turns: usize,
}

#[derive(Debug, Default)]
struct Counts {
    reads: AtomicUsize,
    writes: AtomicUsize,
    turns: AtomicUsize,
}

/// An IO that counts its calls.
struct Counted(DuplexStream, Arc<Counts>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.1.reads.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A driver that counts its turns.
struct Turns(Driver<Counted>, Arc<Counts>);

impl Future for Turns {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.1.turns.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

/// A client and a server, and a meter of what they do from now on.
struct Pair {
    client: Multiplexer,
    server: Multiplexer,
    counts: Arc<Counts>,
}

impl Pair {
    fn new(protocol: Protocol, config: Config) -> Self {
        let (near, far) = duplex(256 * KIB);
        let counts = Arc::new(Counts::default());
        let upgraded = |io| Upgraded::new(Counted(io, Arc::clone(&counts)), Bytes::new(), Some(protocol));
        let (client, driver) = Multiplexer::client(upgraded(near), config.clone());
        tokio::spawn(Turns(driver, Arc::clone(&counts)));
        let (server, driver) = Multiplexer::server(upgraded(far), config);
        tokio::spawn(Turns(driver, Arc::clone(&counts)));
        Self { client, server, counts }
    }

    async fn costs<T>(&self, does: impl Future<Output = T>) -> (T, Costs) {
        let read = || {
            let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
            (of(&self.counts.reads), of(&self.counts.writes), of(&self.counts.turns))
        };
        let ((reads, writes, turns), region) = (read(), Region::new(ALLOCATOR));
        let done = does.await;
        let change = region.change();
        let now = read();
        let allocations = change.allocations + change.reallocations;
        (done, Costs { allocations, reads: now.0 - reads, writes: now.1 - writes, turns: now.2 - turns })
    }

    /// A stream from the client to a server that echoes what comes, until the stream ends.
    async fn echoed(&self) -> kubestream::mux::Stream {
        let server = self.server.clone();
        tokio::spawn(async move {
            let mut stream = server.accept().await.unwrap().unwrap().reply();
            while let Some(Ok(data)) = stream.data().await {
                stream.send(data).await.unwrap();
            }
            stream.finish();
        });
        let mut stream = self.client.open(headers()).await.unwrap();
        stream.answered().await.unwrap();
        stream
    }
}

fn headers() -> Headers {
    Headers::from_iter([("streamtype", "data"), ("port", "80"), ("requestid", "7")])
}

#[test]
fn an_open_and_a_close() {
    const OPENS: usize = 100;
    let _turn = turn();
    let costs = play(async {
        let pair = Pair::new(Protocol::SpdyPortForward, Config::default());
        let server = pair.server.clone();
        tokio::spawn(async move {
            while let Some(Ok(incoming)) = server.accept().await {
                let mut stream = incoming.reply();
                stream.finish();
                assert!(stream.data().await.is_none());
            }
        });
        let opens = async |count| {
            for _ in 0..count {
                let mut stream = pair.client.open(headers()).await.unwrap();
                stream.finish();
                assert!(stream.data().await.is_none());
            }
        };
        opens(OPENS).await;
        pair.costs(opens(OPENS)).await.1
    });
    assert_eq!(costs, Costs { allocations: 0, reads: 0, writes: 0, turns: 0 });
}

#[test]
fn an_echo() {
    const ECHOES: usize = 100;
    let _turn = turn();
    let costs = play(async {
        let pair = Pair::new(Protocol::SpdyPortForward, Config::default());
        let mut stream = pair.echoed().await;
        let mut echoes = async |count| {
            for _ in 0..count {
                stream.send(Bytes::from_static(b"x")).await.unwrap();
                assert_eq!(stream.data().await.unwrap().unwrap(), "x");
            }
        };
        echoes(ECHOES).await;
        pair.costs(echoes(ECHOES)).await.1
    });
    assert_eq!(costs, Costs { allocations: 0, reads: 0, writes: 0, turns: 0 });
}

/// 8 MiB in pieces of 32 KiB, taken as they come.
#[test]
fn a_transfer() {
    const PIECES: usize = 256;
    let _turn = turn();
    for (copies, expected) in [
        (false, Costs { allocations: 0, reads: 0, writes: 0, turns: 0 }),
        (true, Costs { allocations: 0, reads: 0, writes: 0, turns: 0 }),
    ] {
        let costs = play(async {
            let pair = Pair::new(Protocol::SpdyPortForward, Config::default());
            let accepted = tokio::spawn({
                let server = pair.server.clone();
                async move { server.accept().await.unwrap().unwrap().reply() }
            });
            let mut source = pair.client.open(headers()).await.unwrap();
            source.answered().await.unwrap();
            let mut sink = accepted.await.unwrap();
            let piece = Bytes::from(vec![7; 32 * KIB]);
            let mut moved = async |pieces: usize| {
                let send = async {
                    for _ in 0..pieces {
                        if copies {
                            source.write_all(&piece).await.unwrap();
                        } else {
                            source.send(piece.clone()).await.unwrap();
                        }
                    }
                };
                let take = async {
                    let (mut left, mut buffer) = (pieces * 32 * KIB, vec![0; if copies { 32 * KIB } else { 0 }]);
                    while left > 0 {
                        left -= if copies {
                            sink.read(&mut buffer).await.unwrap()
                        } else {
                            sink.data().await.unwrap().unwrap().len()
                        };
                    }
                };
                tokio::join!(send, take);
            };
            moved(PIECES).await;
            pair.costs(moved(PIECES)).await.1
        });
        assert_eq!(costs, expected, "with copies: {copies}");
    }
}

#[test]
fn an_exec_session() {
    let _turn = turn();
    for (protocol, expected) in [
        (SPDY, Costs { allocations: 0, reads: 0, writes: 0, turns: 0 }),
        (WEBSOCKET, Costs { allocations: 0, reads: 0, writes: 0, turns: 0 }),
    ] {
        let costs = play(async {
            // The first session allocates what later ones use again.
            for last in [false, true] {
                let pair = Pair::new(protocol, Config::exec());
                let server = pair.server.clone();
                let (output, costs) = pair
                    .costs(async {
                        let serves = async {
                            let mut process = server.accept_exec(Streams::OUTPUT).await.unwrap();
                            process.stdout.take().unwrap().write_all(b"hello\n").await.unwrap();
                            process.exit(ExitStatus::Code(7)).await.unwrap();
                        };
                        let runs = async {
                            pair.client.exec(Streams::OUTPUT).await.unwrap().wait_with_output(KIB).await.unwrap()
                        };
                        tokio::join!(serves, runs).1
                    })
                    .await;
                assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"hello\n"[..]));
                if last {
                    return costs;
                }
            }
            unreachable!()
        });
        assert_eq!(costs, expected, "{protocol}");
    }
}
