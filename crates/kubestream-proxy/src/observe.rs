//! Moving bytes through a buffer, and showing them to somebody on the way.
//!
//! Owns the order: nothing is passed on that was not shown before, and nothing is read or passed on while the observer is not ready.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::copy::Copying;
use super::pipe::{Fault, Hop};

/// An end of a connection that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // a connection has two ends
pub enum Side {
    /// Who has asked for it.
    Client,
    /// Who has answered: the backend.
    Server,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// Who is shown what passes through a [`Pipe`](super::Pipe). A closure that takes a side and its bytes is one.
pub trait Observer {
    /// A side has said this, and it is passed on next: once [`poll_ready`](Self::poll_ready) says so. [`ControlFlow::Break`]: it is
    /// not, and both connections are closed.
    fn observe(&mut self, side: Side, bytes: &Bytes) -> ControlFlow<()>;

    /// Whether what was shown may be passed on, and more be read, which is asked before each of both. Who is not ready has the
    /// connection wait, and wakes the task. [`ControlFlow::Break`] as above.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        let _ = cx;
        Poll::Ready(ControlFlow::Continue(()))
    }

    /// Nothing more of a side is passed on: it has ended or failed, or nobody takes it. Said once of each.
    fn end(&mut self, side: Side) {
        let _ = side;
    }
}

impl<F> Observer for F
where
    F: FnMut(Side, &Bytes) -> ControlFlow<()>,
{
    fn observe(&mut self, side: Side, bytes: &Bytes) -> ControlFlow<()> {
        self(side, bytes)
    }
}

/// One direction. Both are polled by one task, so that nobody ever waits for the observer's lock.
pub(super) struct Watched<'a, O> {
    side: Side,
    copying: Copying,
    /// What was read ahead of the pipe, and not shown yet.
    unseen: Bytes,
    observer: &'a Mutex<&'a mut O>,
    ended: bool,
}

impl<'a, O: Observer> Watched<'a, O> {
    pub(super) fn new(side: Side, ahead: Bytes, observer: &'a Mutex<&'a mut O>) -> Self {
        Self { side, copying: Copying::new(Bytes::new()), unseen: ahead, observer, ended: false }
    }

    /// Nothing more passes.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.with(|observer| observer.end(self.side));
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut O) -> T) -> T {
        look(&mut self.observer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows the next piece: none at the end.
    fn poll_show<From>(&mut self, from: &mut From, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>>
    where
        From: AsyncRead + Unpin,
    {
        let piece = if self.unseen.is_empty() {
            ready!(self.copying.poll_piece(from, cx)).map_err(Fault::Source)?
        } else {
            self.copying.put(std::mem::take(&mut self.unseen))
        };
        if !piece.is_empty() && self.with(|observer| observer.observe(self.side, &piece)).is_break() {
            return Poll::Ready(Err(Fault::Stop));
        }
        Poll::Ready(Ok(piece.len()))
    }
}

impl<From, To, O> Hop<From, To> for Watched<'_, O>
where
    From: AsyncRead + Unpin,
    To: AsyncWrite + Unpin,
    O: Observer,
{
    fn poll_move(&mut self, from: &mut From, to: &mut To, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        loop {
            match self.with(|observer| observer.poll_ready(cx)) {
                Poll::Ready(ControlFlow::Continue(())) => {}
                Poll::Ready(ControlFlow::Break(())) => return Poll::Ready(Err(Fault::Stop)),
                Poll::Pending => {
                    ready!(self.copying.poll_flushed(to, cx)).map_err(Fault::Sink)?;
                    return Poll::Pending;
                }
            }
            match ready!(self.copying.poll_written(to, cx)) {
                Ok(Some(count)) => return Poll::Ready(Ok(count)),
                Ok(None) => {}
                Err(error) => {
                    self.end();
                    return Poll::Ready(Err(Fault::Sink(error)));
                }
            }
            match self.poll_show(from, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(ended) => {
                    self.end();
                    return Poll::Ready(ended);
                }
                Poll::Pending => {
                    ready!(self.copying.poll_flushed(to, cx)).map_err(Fault::Sink)?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_discard(&mut self, from: &mut From, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.end();
        Hop::<From, To>::poll_discard(&mut self.copying, from, cx)
    }

    fn poll_end(&mut self, to: &mut To, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Hop::<From, To>::poll_end(&mut self.copying, to, cx)
    }

    fn trim(&mut self) {
        Hop::<From, To>::trim(&mut self.copying);
    }
}
