//! A connection in memory that fails at one place.
//!
//! Changes only what happens to the bytes at that place, and counts those that passed. It does not know what they mean.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::time::{Sleep, sleep};

use crate::fragment::Fragmented;

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

pub const WAYS: [Way; 2] = [Way::Up, Way::Down];

/// What happens after a number of bytes in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The reader reads an end. What it writes still arrives.
    End,
    /// Both read an end and can write no more.
    Cut,
    /// The reader's socket reports a reset once, and has then ended.
    Reset,
    /// The writer can write no more. It still reads.
    BrokenPipe,
    /// Nothing comes any more, without an error.
    Silence,
    /// Nothing comes for this long.
    Delay(Duration),
}

impl Fault {
    /// True if the connection cannot be used any more.
    pub fn is_fatal(self) -> bool {
        !matches!(self, Self::Delay(_))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub way: Way,
    pub at: usize,
    pub fault: Fault,
}

/// What is known of a connection from outside.
#[derive(Default)]
pub struct Seen {
    passed: [AtomicUsize; 2],
    struck: AtomicBool,
    cut: AtomicBool,
}

impl Seen {
    /// How many bytes were read from it.
    pub fn passed(&self, way: Way) -> usize {
        self.passed[way as usize].load(Relaxed)
    }

    /// True if the fault has happened.
    pub fn struck(&self) -> bool {
        self.struck.load(Relaxed)
    }
}

pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Wire for IO {}

pub type Io = Box<dyn Wire>;

/// The client's end and the server's. With a seed they carry single bytes, and are often not ready.
pub fn wire(trouble: Option<Trouble>, crumbs: Option<u64>) -> (Io, Io, Arc<Seen>) {
    // The whole conversation fits in, so no writer ever waits.
    let (near, far) = duplex(64 * 1024);
    let seen = Arc::<Seen>::default();
    let end = |io, reads, seed: u64| -> Io {
        let end = End { io, reads, trouble, seen: Arc::clone(&seen), read: 0, written: 0, over: false, asleep: None };
        match crumbs {
            Some(crumbs) => Box::new(Fragmented::new(end, crumbs ^ seed, 1)),
            None => Box::new(end),
        }
    };
    (end(near, Way::Down, 0), end(far, Way::Up, 1 << 32), seen)
}

struct End {
    io: DuplexStream,
    reads: Way,
    trouble: Option<Trouble>,
    seen: Arc<Seen>,
    read: usize,
    written: usize,
    /// It reads an end and, if it was reset, can write nothing.
    over: bool,
    asleep: Option<Pin<Box<Sleep>>>,
}

impl End {
    /// The fault at which this end reads, or at which it writes.
    fn trouble(&self, reading: bool) -> Option<(usize, Fault)> {
        let Trouble { way, at, fault } = self.trouble?;
        let here =
            if fault == Fault::BrokenPipe { !reading && way != self.reads } else { reading && way == self.reads };
        here.then_some((at, fault))
    }

    fn cannot_write(&self) -> bool {
        let broken = self.trouble(false).is_some_and(|(at, _)| self.written == at);
        if broken {
            self.seen.struck.store(true, Relaxed);
        }
        broken || self.seen.cut.load(Relaxed) || (self.over && matches!(self.trouble(true), Some((_, Fault::Reset))))
    }

    /// Returns the result of a read at the fault, or `None` if reading goes on.
    fn strike(&mut self, fault: Fault, cx: &mut Context<'_>) -> Poll<Option<io::Result<()>>> {
        self.seen.struck.store(true, Relaxed);
        let first = !std::mem::replace(&mut self.over, true);
        match fault {
            Fault::End | Fault::BrokenPipe => Poll::Ready(Some(Ok(()))),
            Fault::Cut => {
                self.seen.cut.store(true, Relaxed);
                Pin::new(&mut self.io).poll_shutdown(cx).map(Some)
            }
            Fault::Reset => Poll::Ready(Some(if first { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) })),
            Fault::Silence => Poll::Pending,
            Fault::Delay(wait) => {
                let asleep = self.asleep.get_or_insert_with(|| Box::pin(sleep(wait)));
                ready!(asleep.as_mut().poll(cx));
                Poll::Ready(None)
            }
        }
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = self.get_mut();
        let mut most = buf.remaining();
        if let Some((at, fault)) = end.trouble(true) {
            if end.read < at {
                most = most.min(at - end.read);
            } else if (end.read == at || fault.is_fatal())
                && let Some(result) = ready!(end.strike(fault, cx))
            {
                return Poll::Ready(result);
            }
        }
        let mut bytes = [0; 4096];
        let mut part = ReadBuf::new(&mut bytes);
        let mut part = part.take(most);
        ready!(Pin::new(&mut end.io).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        end.read += part.filled().len();
        end.seen.passed[end.reads as usize].fetch_add(part.filled().len(), Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let end = self.get_mut();
        if end.cannot_write() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let most = match end.trouble(false) {
            Some((at, _)) if end.written < at => buf.len().min(at - end.written),
            _ => buf.len(),
        };
        let written = ready!(Pin::new(&mut end.io).poll_write(cx, &buf[..most]))?;
        end.written += written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cannot_write() {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
