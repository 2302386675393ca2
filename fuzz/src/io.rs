//! An IO in memory, and futures that are polled by hand, only when they were woken.
//!
//! Holds what a peer has sent and received, and the only runtime, whose clock moves only when it is told to.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

/// Runs a future to its end in a runtime with timers. The future moves the clock by [`pass`].
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(tokio::task::unconstrained(future)))
}

/// Lets time pass.
pub(crate) async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

/// The peer's end.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// All that the peer sends, and how much of it was read.
    pub(crate) said: Vec<u8>,
    pub(crate) read: usize,
    /// How many bytes one read returns at most.
    pub(crate) piece: usize,
    pub(crate) eof: bool,
    pub(crate) read_fails: bool,
    /// All that was written, and how many more bytes are accepted.
    pub(crate) written: Vec<u8>,
    pub(crate) room: usize,
    pub(crate) write_fails: bool,
    pub(crate) shut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wire {
    /// Wakes the tasks after a change.
    pub(crate) fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

/// Our end.
#[derive(Clone, Debug)]
pub(crate) struct Io(pub(crate) Rc<RefCell<Wire>>);

impl Io {
    pub(crate) fn new(piece: usize) -> Self {
        Self(Rc::new(RefCell::new(Wire { piece, room: usize::MAX, ..Wire::default() })))
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        let rest = &wire.said[wire.read..];
        let count = rest.len().min(buf.remaining()).min(wire.piece);
        if wire.read_fails {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if count == 0 && !wire.eof {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        buf.put_slice(&rest[..count]);
        wire.read += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        assert!(!wire.shut, "written after the end");
        if wire.write_fails {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if wire.room == 0 {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut taken = 0;
        for buf in bufs {
            let count = buf.len().min(wire.room);
            wire.written.extend_from_slice(&buf[..count]);
            wire.room -= count;
            taken += count;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().shut = true;
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future that is polled only after it was woken, so that a missing wake shows as a hang.
pub(crate) struct Task<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    woken: Arc<Flag>,
}

impl<T> Task<T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self { future: Box::pin(future), woken: Arc::new(Flag(AtomicBool::new(true))) }
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }

    /// Polls it until it is not woken any more. `progress` shows whether it made progress: a future that wakes itself
    /// again and again without progress is spinning.
    pub(crate) fn poll<P: PartialEq>(&mut self, mut progress: impl FnMut() -> P) -> Option<T> {
        const PATIENCE: usize = 1000;
        let waker = Waker::from(Arc::clone(&self.woken));
        let (mut polls, mut before) = (0, progress());
        while self.woken.0.swap(false, Ordering::Relaxed) {
            if let Poll::Ready(output) = self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(output);
            }
            let now = progress();
            polls = if now == before { polls + 1 } else { 0 };
            before = now;
            assert!(polls < PATIENCE, "it spins");
        }
        None
    }
}

/// Polls a future once and drops it.
pub(crate) fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
