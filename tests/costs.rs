//! What a transfer, an echo, an open and an exec session cost, counted and not timed: allocations, calls of the IO, turns
//! of the tasks, and how often the state is locked.
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
use kubestream::unstable::locked;
use kubestream::upgrade::Upgraded;
use stats_alloc::Region;
use support::memory::{ALLOCATOR, Counting, play, turn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

#[global_allocator]
static GLOBAL: &Counting = ALLOCATOR;

const KIB: usize = 1024;
const PIECE: usize = 32 * KIB;

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
    /// How often the state of either end was locked.
    locks: u64,
}

#[derive(Debug, Default)]
struct Counts {
    reads: AtomicUsize,
    writes: AtomicUsize,
    turns: AtomicUsize,
}

impl Counts {
    fn read(&self) -> [usize; 3] {
        [&self.reads, &self.writes, &self.turns].map(|count| count.load(Ordering::Relaxed))
    }
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
        let locks = || locked(&self.client) + locked(&self.server);
        let (before, locked_before, region) = (self.counts.read(), locks(), Region::new(ALLOCATOR));
        let done = does.await;
        let change = region.change();
        let now = self.counts.read();
        let allocations = change.allocations + change.reallocations;
        let [reads, writes, turns] = std::array::from_fn(|at| now[at] - before[at]);
        // Each of the two looks takes both locks.
        (done, Costs { allocations, reads, writes, turns, locks: locks() - locked_before - 2 })
    }
}

fn headers() -> Headers {
    Headers::from_iter([("streamtype", "data"), ("port", "80"), ("requestid", "7")])
}

/// Streams that are opened and closed one after another.
async fn opens(count: usize) -> Costs {
    let pair = Pair::new(Protocol::SpdyPortForward, Config::default());
    let server = pair.server.clone();
    tokio::spawn(async move {
        while let Some(Ok(incoming)) = server.accept().await {
            let mut stream = incoming.reply();
            stream.finish();
            assert!(stream.data().await.is_none());
        }
    });
    let opens = async || {
        for _ in 0..count {
            let mut stream = pair.client.open(headers()).await.unwrap();
            stream.finish();
            assert!(stream.data().await.is_none());
        }
    };
    opens().await;
    pair.costs(opens()).await.1
}

/// Bytes that go there and back, one after another.
async fn echoes(protocol: Protocol, count: usize) -> Costs {
    let pair = Pair::new(protocol, Config::default());
    let server = pair.server.clone();
    tokio::spawn(async move {
        let mut stream = server.accept().await.unwrap().unwrap().reply();
        while let Some(Ok(data)) = stream.data().await {
            stream.send(data).await.unwrap();
        }
        stream.finish();
    });
    let mut stream = pair.client.open(headers()).await.unwrap();
    stream.answered().await.unwrap();
    let mut echoes = async || {
        for _ in 0..count {
            stream.send(Bytes::from_static(b"x")).await.unwrap();
            assert_eq!(stream.data().await.unwrap().unwrap(), "x");
        }
    };
    echoes().await;
    pair.costs(echoes()).await.1
}

/// Pieces of 32 KiB that are read as they come: as `Bytes`, or through `AsyncWrite` and `AsyncRead`.
async fn transfer(pieces: usize, copies: bool) -> Costs {
    let pair = Pair::new(Protocol::SpdyPortForward, Config::default());
    let server = pair.server.clone();
    let accepted = tokio::spawn(async move { server.accept().await.unwrap().unwrap().reply() });
    let mut source = pair.client.open(headers()).await.unwrap();
    source.answered().await.unwrap();
    let mut sink = accepted.await.unwrap();
    let (piece, mut buffer) = (Bytes::from(vec![7; PIECE]), vec![0; PIECE]);
    let mut moved = async || {
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
            let mut left = pieces * PIECE;
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
    moved().await;
    pair.costs(moved()).await.1
}

/// A whole session of a command that writes a line and exits, without the handshake.
async fn exec(protocol: Protocol) -> Costs {
    let pair = Pair::new(protocol, Config::exec());
    let session = async {
        let serves = async {
            let mut process = pair.server.accept_exec(Streams::OUTPUT).await.unwrap();
            process.stdout.take().unwrap().write_all(b"hello\n").await.unwrap();
            process.exit(ExitStatus::Code(7)).await.unwrap();
        };
        let runs = async { pair.client.exec(Streams::OUTPUT).await.unwrap().wait_with_output(KIB).await.unwrap() };
        tokio::join!(serves, runs).1
    };
    let (output, costs) = pair.costs(session).await;
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"hello\n"[..]));
    costs
}

/// One test: a second one, or the harness that reports it, would allocate meanwhile.
#[test]
fn costs_are_as_committed() {
    let _turn = turn();
    let mut different = Vec::new();
    let mut row = |name: &str, costs: &dyn Fn() -> Costs, expected: [usize; 5]| {
        // The first time allocates what later ones use again.
        costs();
        let Costs { allocations, reads, writes, turns, locks } = costs();
        let seen = [allocations, reads, writes, turns, usize::try_from(locks).unwrap()];
        if seen != expected {
            different.push(format!("{name}: {seen:?}, committed {expected:?}"));
        }
    };
    row("100 opens", &|| play(opens(100)), [702, 602, 200, 400, 2902]);
    row("100 echoes", &|| play(echoes(Protocol::SpdyPortForward, 100)), [0, 600, 200, 400, 1800]);
    row("8 MiB by send and data", &|| play(transfer(256, false)), [41, 273, 105, 136, 1121]);
    row("8 MiB by AsyncWrite and AsyncRead", &|| play(transfer(256, true)), [49, 273, 105, 136, 1121]);
    row("exec over SPDY", &|| play(exec(Protocol::SpdyExec(Version::V4))), [108, 13, 5, 8, 106]);
    row("exec over WebSocket", &|| play(exec(Protocol::WebSocketExec(Subprotocol::V5))), [73, 16, 4, 10, 117]);
    assert!(different.is_empty(), "allocations, reads, writes, turns, locks:\n{}", different.join("\n"));
}
