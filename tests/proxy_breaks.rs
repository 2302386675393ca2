//! A pipe of which one side breaks off, or which is dropped half-way, between a client and a backend on real sockets.
//! The other side must not take that for an end.
//!
//! Time is real, because there are sockets. No test checks how long something takes.

#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use kubestream::AbortOnDrop;
use kubestream::tap::Side;
use kubestream::upgrade::{self, Config, Protocol};
use kubestream_proxy::{self as proxy, Pipe, PipeOutcome};
use support::breaks::{PATIENCE, broke_off, passes, reset, rest};
use support::{pattern, read_head, tcp_pair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const ASKS: &str = "POST /exec HTTP/1.1\r\nHost: proxy\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
const LINGER: Duration = Duration::from_secs(2);

/// The ways in which a pipe moves bytes, between sockets that break off when they are dropped.
#[derive(Clone, Copy, Debug)]
enum By {
    Copies,
    Shows,
    /// With plain sockets.
    #[cfg(target_os = "linux")]
    Splices,
    #[cfg(target_os = "linux")]
    SplicesThose,
}

const WAYS: &[By] = &[
    By::Copies,
    By::Shows,
    #[cfg(target_os = "linux")]
    By::Splices,
    #[cfg(target_os = "linux")]
    By::SplicesThose,
];

struct Ends {
    client: TcpStream,
    backend: TcpStream,
    run: JoinHandle<PipeOutcome>,
}

/// A client, a backend, and the pipe between them.
async fn piped<C, B>(near: C, far: B, (client, backend): (&mut TcpStream, &mut TcpStream)) -> Pipe<C, B>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let passing = async {
        let pending = upgrade::accept(near, &Config::default()).await.unwrap();
        let request = pending.to_pass_on();
        proxy::forward(pending, far, request).await.unwrap()
    };
    let ends = async {
        client.write_all(ASKS.as_bytes()).await.unwrap();
        read_head(backend).await;
        backend.write_all(SWITCHED.as_bytes()).await.unwrap();
        read_head(client).await;
    };
    tokio::join!(passing, ends).0.linger(LINGER)
}

async fn ends(by: By) -> Ends {
    let ((mut client, near), (far, mut backend)) = (tcp_pair().await, tcp_pair().await);
    let ends = (&mut client, &mut backend);
    let run = match by {
        By::Copies => tokio::spawn(piped(AbortOnDrop::new(near), AbortOnDrop::new(far), ends).await.run()),
        By::Shows => {
            let pipe = piped(AbortOnDrop::new(near), AbortOnDrop::new(far), ends).await;
            tokio::spawn(async move { pipe.run_with(&mut |_: Side, _: &Bytes| ControlFlow::Continue(())).await })
        }
        #[cfg(target_os = "linux")]
        By::Splices => tokio::spawn(piped(near, far, ends).await.splice()),
        #[cfg(target_os = "linux")]
        By::SplicesThose => tokio::spawn(piped(AbortOnDrop::new(near), AbortOnDrop::new(far), ends).await.splice()),
    };
    // The connection works in both directions.
    let what = format!("{by:?}");
    passes(&mut client, &mut backend, &what).await;
    passes(&mut backend, &mut client, &what).await;
    Ends { client, backend, run }
}

#[tokio::test]
async fn a_client_that_is_reset_has_not_ended_for_its_backend() {
    for &by in WAYS {
        let Ends { client, mut backend, run } = ends(by).await;
        reset(client);
        broke_off(&mut backend, &format!("{by:?}")).await;
        let moved = timeout(PATIENCE, run).await.unwrap().unwrap();
        assert!(moved.client.is_some() && moved.backend.is_none(), "{by:?}: {moved:?}");
    }
}

#[tokio::test]
async fn a_backend_that_is_reset_has_not_ended_for_its_client() {
    for &by in WAYS {
        let Ends { mut client, backend, run } = ends(by).await;
        reset(backend);
        broke_off(&mut client, &format!("{by:?}")).await;
        let moved = timeout(PATIENCE, run).await.unwrap().unwrap();
        assert!(moved.backend.is_some() && moved.client.is_none(), "{by:?}: {moved:?}");
    }
}

/// The side that writes notices the reset first, and the kernel reports it only once.
#[tokio::test]
async fn a_backend_that_is_reset_while_it_is_written_to_has_not_ended_for_its_client() {
    for &by in WAYS {
        for _ in 0..20 {
            let Ends { client, backend, run } = ends(by).await;
            let (mut reads, mut writes) = client.into_split();
            let writing = tokio::spawn(async move {
                loop {
                    if let Err(error) = writes.write_all(&[1; 1000]).await {
                        return (error.kind(), writes);
                    }
                }
            });
            reset(backend);
            let mut left = Vec::new();
            let ended = timeout(PATIENCE, reads.read_to_end(&mut left)).await.unwrap();
            // The same with the client's own socket.
            let (wrote, _writes) = timeout(PATIENCE, writing).await.unwrap().unwrap();
            let heard = ended.as_ref().map_or_else(io::Error::kind, |_| wrote);
            assert_eq!((heard, left.len()), (io::ErrorKind::ConnectionReset, 0), "{by:?}: {ended:?} {wrote:?}");
            timeout(PATIENCE, run).await.unwrap().unwrap();
        }
    }
}

/// Go's servers close with unread bytes of their client, which causes a reset. Everything that they have sent comes
/// before it.
#[tokio::test]
async fn the_tail_of_a_backend_that_is_reset_reaches_a_client_that_takes_its_time() {
    for &by in WAYS {
        let Ends { mut client, mut backend, run } = ends(by).await;
        backend.write_all(&pattern(3, 400_000)).await.unwrap();
        client.write_all(b"unread").await.unwrap();
        backend.peek(&mut [0]).await.unwrap();
        // The proxy has received everything.
        sleep(Duration::from_millis(100)).await;
        drop(backend);
        let mut tail = vec![0; 400_000];
        timeout(PATIENCE, client.read_exact(&mut tail)).await.unwrap().unwrap();
        assert!(tail == pattern(3, 400_000), "{by:?}");
        broke_off(&mut client, &format!("{by:?}")).await;
        timeout(PATIENCE, run).await.unwrap().unwrap();

        // A client that ends by itself when it has everything is not waited for.
        let Ends { mut client, backend, run } = ends(by).await;
        reset(backend);
        client.shutdown().await.unwrap();
        timeout(PATIENCE, run).await.unwrap().unwrap();
    }
}

/// An upload that breaks off. What came of it is delivered, although the backend is slow.
#[tokio::test]
async fn what_a_client_has_said_reaches_a_backend_before_the_break() {
    for &by in WAYS {
        let Ends { mut client, mut backend, run } = ends(by).await;
        client.write_all(&pattern(4, 400_000)).await.unwrap();
        // The proxy has received everything, and the backend has read nothing.
        sleep(Duration::from_millis(100)).await;
        reset(client);
        let mut had = vec![0; 400_000];
        timeout(PATIENCE, backend.read_exact(&mut had)).await.unwrap().unwrap();
        assert!(had == pattern(4, 400_000), "{by:?}");
        broke_off(&mut backend, &format!("{by:?}")).await;
        timeout(PATIENCE, run).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_pipe_that_is_dropped_half_way_has_ended_for_nobody() {
    for &by in WAYS {
        let Ends { mut client, mut backend, run } = ends(by).await;
        run.abort();
        broke_off(&mut client, &format!("{by:?}: the client")).await;
        broke_off(&mut backend, &format!("{by:?}: the backend")).await;
    }
    let ((mut client, near), (far, mut backend)) = (tcp_pair().await, tcp_pair().await);
    drop(piped(AbortOnDrop::new(near), AbortOnDrop::new(far), (&mut client, &mut backend)).await);
    broke_off(&mut client, "the client of a pipe that never ran").await;
    broke_off(&mut backend, "its backend").await;
}

#[tokio::test]
async fn an_observer_that_has_seen_enough_has_ended_it_for_nobody() {
    let ((mut client, near), (far, mut backend)) = (tcp_pair().await, tcp_pair().await);
    let pipe = piped(AbortOnDrop::new(near), AbortOnDrop::new(far), (&mut client, &mut backend)).await;
    client.write_all(b"forbidden").await.unwrap();
    let moved = pipe.run_with(&mut |_: Side, _: &Bytes| ControlFlow::Break(())).await;
    assert!(moved.stopped);
    broke_off(&mut client, "the client").await;
    broke_off(&mut backend, "the backend").await;
}

#[tokio::test]
async fn an_end_is_an_end_for_both() {
    for &by in WAYS {
        for clients_first in [true, false] {
            let Ends { client, backend, run } = ends(by).await;
            let (mut first, mut last) = if clients_first { (client, backend) } else { (backend, client) };
            first.write_all(&pattern(5, 300_000)).await.unwrap();
            first.shutdown().await.unwrap();
            let (had, end) = rest(&mut last).await;
            end.unwrap();
            assert!(had == pattern(5, 300_000), "{by:?}");
            last.write_all(b"and back").await.unwrap();
            drop(last);
            let (had, end) = rest(&mut first).await;
            end.unwrap();
            assert_eq!(had, b"and back", "{by:?}");
            let moved = timeout(PATIENCE, run).await.unwrap().unwrap();
            assert!(moved.client.is_none() && moved.backend.is_none(), "{by:?}: {moved:?}");
        }
    }
}

/// A plain socket can only end. It does so when nothing better can happen any more.
#[tokio::test]
async fn a_plain_socket_is_closed() {
    let ((mut client, near), (far, mut backend)) = (tcp_pair().await, tcp_pair().await);
    let run = tokio::spawn(piped(near, far, (&mut client, &mut backend)).await.run());
    reset(client);
    assert_eq!(timeout(PATIENCE, backend.read(&mut [0])).await.unwrap().unwrap(), 0);
    assert!(timeout(PATIENCE, run).await.unwrap().unwrap().client.is_some());
}

#[tokio::test]
async fn an_upgraded_connection_that_nobody_wants_has_not_ended() {
    let (mut client, near) = tcp_pair().await;
    client.write_all(ASKS.as_bytes()).await.unwrap();
    let pending = upgrade::accept(AbortOnDrop::new(near), &Config::default()).await.unwrap();
    let upgraded = pending.accept(Protocol::SPDY_EXEC).await.unwrap();
    read_head(&mut client).await;
    drop(upgraded);
    broke_off(&mut client, "upgraded").await;

    // A refused client gets its answer and an end.
    let (mut client, near) = tcp_pair().await;
    client.write_all(ASKS.replace("v4.channel", "v9.channel").as_bytes()).await.unwrap();
    let pending = upgrade::accept(AbortOnDrop::new(near), &Config::default()).await.unwrap();
    let (refused, (answer, end)) = tokio::join!(pending.accept(Protocol::SPDY_EXEC), async {
        let answer = rest(&mut client).await;
        drop(client);
        answer
    });
    refused.unwrap_err();
    end.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 403"), "{}", answer.escape_ascii());
}
