//! Moving bytes through a buffer and showing them to an observer on the way.
//!
//! This module owns the order: a piece is shown before it is passed on, and nothing is read or passed on while the
//! observer is not ready. It must not change a byte.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::copy::Copying;
use crate::hop::{Fault, Hop};
use kubestream::tap::Side;

/// Gets the bytes that pass through a [`Pipe`](crate::Pipe): give it to [`Pipe::run_with`](crate::Pipe::run_with). A
/// closure `FnMut(Side, &Bytes) -> ControlFlow<()>` is an observer.
pub trait Observer {
    /// Is called with each piece that a side has sent, before the piece is passed on. The piece is passed on once
    /// [`poll_ready`](Self::poll_ready) is ready. [`ControlFlow::Break`] stops the pipe: the piece is not passed on,
    /// and both connections are closed.
    fn observe(&mut self, side: Side, bytes: &Bytes) -> ControlFlow<()>;

    /// Is called before each read and before each write. [`Poll::Pending`] pauses both directions: no piece is read or
    /// passed on until the observer wakes the task of `cx`. [`ControlFlow::Break`] stops the pipe as in
    /// [`observe`](Self::observe). Without an implementation of its own, an observer is always ready.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        let _ = cx;
        Poll::Ready(ControlFlow::Continue(()))
    }

    /// Is called once for each side, when no more bytes of that side will be passed on. Either that side has ended or
    /// failed, or the other side takes no more bytes.
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

/// One direction of a pipe that is observed. One task polls both directions, so neither ever waits for the observer's
/// lock.
pub(crate) struct Watched<'a, O> {
    side: Side,
    copying: Copying,
    /// Bytes that were read before the pipe began and that the observer has not been shown yet.
    unseen: Bytes,
    observer: &'a Mutex<&'a mut O>,
    ended: bool,
}

impl<'a, O: Observer> Watched<'a, O> {
    pub(crate) fn new(side: Side, ahead: Bytes, observer: &'a Mutex<&'a mut O>) -> Self {
        Self { side, copying: Copying::new(Bytes::new()), unseen: ahead, observer, ended: false }
    }

    /// Tells the observer, once, that nothing more passes.
    pub(crate) fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.with(|observer| observer.end(self.side));
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut O) -> T) -> T {
        look(&mut self.observer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the next piece, shows it to the observer and returns its length. 0 means that the source has ended.
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
