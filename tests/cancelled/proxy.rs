//! The futures of the proxies, between a client and a backend played by the test. None may be called again, and both
//! connections are dropped with them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use kubestream::tap::Side;
use kubestream::upgrade::{self, Config};
use kubestream_proxy::{self as proxy, Observer, Pipe};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::dropping::{AN_HOUR, dropped_after, play};
use crate::handshake::{SWITCHED, assert_every_part, request};
use support::wire::wire;
use support::{pattern, read_head, try_read_head};

/// Passes a client's request on.
async fn passed<C, B>(client: C, backend: B) -> Option<Pipe<C, B>>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let pending = upgrade::accept(client, &Config::default()).await.ok()?;
    let request = pending.to_pass_on();
    proxy::forward(pending, backend, request).await.ok()
}

#[test]
fn forward_that_was_dropped_closes_both_connections_in_the_midst_of_a_refusal_too() {
    play(async {
        let mut heard = Vec::new();
        for polls in 0.. {
            let ((mut client, near, seen), (far, mut backend, behind)) = (wire(None, Some(20)), wire(None, Some(21)));
            let client = async move {
                let _ = client.write_all(request().as_bytes()).await;
                let mut had = Vec::new();
                client.read_to_end(&mut had).await.unwrap();
                had
            };
            let backend = async move {
                try_read_head(&mut backend).await;
                let _ = backend.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\nno such pod").await;
                assert_eq!(backend.read_to_end(&mut Vec::new()).await.unwrap(), 0);
            };
            let all = async { tokio::join!(client, backend, dropped_after(polls, passed(near, far))) };
            let (had, (), passed) = timeout(AN_HOUR, all).await.unwrap_or_else(|_| panic!("{polls}: it hangs"));
            assert_eq!((Arc::strong_count(&seen), Arc::strong_count(&behind)), (1, 1), "{polls}: an IO is left");
            heard.push(had);
            if let Some(pipe) = passed {
                assert!(pipe.is_none());
                break;
            }
        }
        assert_every_part(&heard, "no such pod");
    });
}

/// Keeps what it is shown, and is ready every other time.
#[derive(Default)]
struct Shown {
    said: [Vec<u8>; 2],
    ended: [usize; 2],
    ready: bool,
}

impl Observer for Shown {
    fn observe(&mut self, side: Side, bytes: &Bytes) -> ControlFlow<()> {
        self.said[side as usize].extend_from_slice(bytes);
        ControlFlow::Continue(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        self.ready = !self.ready;
        if self.ready {
            return Poll::Ready(ControlFlow::Continue(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&mut self, side: Side) {
        self.ended[side as usize] += 1;
    }
}

/// An end after the upgrade: it sends something in pieces and ends its direction, and meanwhile reads to the other's
/// end.
async fn talks(io: &mut (impl AsyncRead + AsyncWrite + Unpin), said: &[u8]) -> Vec<u8> {
    let (mut reads, mut writes) = tokio::io::split(io);
    let mut had = Vec::new();
    let saying = async {
        for piece in said.chunks(20) {
            // The proxy between may be gone.
            if writes.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = writes.shutdown().await;
    };
    // A socket that was closed with unread bytes is reset.
    let _ = tokio::join!(saying, reads.read_to_end(&mut had));
    had
}

async fn asks(io: &mut (impl AsyncRead + AsyncWrite + Unpin), said: &[u8]) -> Vec<u8> {
    io.write_all(request().as_bytes()).await.unwrap();
    read_head(io).await;
    talks(io, said).await
}

async fn answers(io: &mut (impl AsyncRead + AsyncWrite + Unpin), said: &[u8]) -> Vec<u8> {
    read_head(io).await;
    io.write_all(SWITCHED.as_bytes()).await.unwrap();
    talks(io, said).await
}

#[test]
fn run_with_that_was_dropped_closes_both_connections_and_has_passed_on_what_it_has_shown() {
    play(async {
        let said = [pattern(1, 50), pattern(2, 70)];
        let mut dropped = 0;
        for polls in 0.. {
            let ((mut client, near, seen), (far, mut backend, behind)) = (wire(None, Some(22)), wire(None, Some(23)));
            let mut shown = Shown::default();
            let running = async {
                let pipe = passed(near, far).await.unwrap();
                dropped_after(polls, pipe.run_with(&mut shown)).await
            };
            let all = async { tokio::join!(asks(&mut client, &said[0]), answers(&mut backend, &said[1]), running) };
            let (to_client, to_backend, moved) =
                timeout(AN_HOUR, all).await.unwrap_or_else(|_| panic!("{polls}: it hangs"));
            drop((client, backend));
            for (side, had) in [to_backend, to_client].iter().enumerate() {
                assert!(said[side].starts_with(&shown.said[side]) && shown.said[side].starts_with(had), "{polls}");
                assert!(shown.ended[side] <= 1, "{polls}");
            }
            assert_eq!((Arc::strong_count(&seen), Arc::strong_count(&behind)), (1, 1), "{polls}: an IO is left");
            if let Some(moved) = moved {
                assert_eq!((shown.said, shown.ended), (said.map(Vec::from), [1, 1]));
                assert_eq!((moved.to_backend, moved.to_client), (50, 70));
                break;
            }
            dropped += 1;
        }
        assert!(dropped > 50, "{dropped}");
    });
}

/// Counts the kernel pipes of this process.
#[cfg(all(target_os = "linux", feature = "net"))]
fn pipes() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
}

#[cfg(all(target_os = "linux", feature = "net"))]
#[test]
fn splice_that_was_dropped_closes_both_connections_and_leaves_no_pipe_of_the_kernels() {
    use std::cell::Cell;

    use crate::dropping::play_with_sockets;
    use support::tcp_pair;

    play_with_sockets(async {
        let said = [pattern(1, 600), pattern(2, 700)];
        let before = pipes();
        let most = Cell::new(0);
        let mut had_when_dropped = Vec::new();
        for polls in 0.. {
            let ((mut client, near), (far, mut backend)) = (tcp_pair().await, tcp_pair().await);
            let splicing = async {
                let mut splicing = Box::pin(passed(near, far).await.unwrap().splice());
                let moved = dropped_after(polls, &mut splicing).await;
                most.set(most.get().max(pipes()));
                moved
            };
            let (to_client, to_backend, moved) =
                tokio::join!(asks(&mut client, &said[0]), answers(&mut backend, &said[1]), splicing);
            assert!(said[0].starts_with(&to_backend) && said[1].starts_with(&to_client), "{polls}");
            assert_eq!(pipes(), before, "{polls}: a pipe is left");
            if let Some(moved) = moved {
                assert_eq!((to_backend, to_client), (said[0].to_vec(), said[1].to_vec()));
                assert_eq!((moved.to_backend, moved.to_client), (600, 700));
                break;
            }
            had_when_dropped.push(to_backend.len() + to_client.len());
        }
        assert!(most.get() >= before + 2 && had_when_dropped.len() > 20, "{had_when_dropped:?}");
    });
}
