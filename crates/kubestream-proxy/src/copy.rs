//! Moving bytes through a buffer, between any two connections.
//!
//! This module owns the buffer: when it grows and when it is given back. It must not look at the bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use crate::hop::{Fault, Hop};

/// The size that a buffer begins with. It doubles, up to [`MOST`], each time that one read fills it.
const LEAST: usize = 8 * 1024;
const MOST: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Copying {
    /// Bytes that go before those in the buffer: what was read before the pipe began, or a piece of the buffer.
    ahead: Bytes,
    buffer: BytesMut,
    room: usize,
    /// The sink has taken bytes that it may not have sent yet.
    unflushed: bool,
}

impl Copying {
    pub(crate) fn new(ahead: Bytes) -> Self {
        Self { ahead, buffer: BytesMut::new(), room: LEAST, unflushed: false }
    }

    /// Reads the next piece, which is the next that is written. It is empty at the end of the source.
    pub(crate) fn poll_piece<From>(&mut self, from: &mut From, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>>
    where
        From: AsyncRead + Unpin,
    {
        ready!(self.poll_read(from, cx))?;
        let piece = self.buffer.split().freeze();
        Poll::Ready(Ok(self.put(piece)))
    }

    /// Sets the piece that is written next.
    pub(crate) fn put(&mut self, piece: Bytes) -> Bytes {
        self.ahead = piece;
        self.ahead.clone()
    }

    /// Writes waiting bytes and returns how many. `None` means that no bytes wait.
    pub(crate) fn poll_written<To>(&mut self, to: &mut To, cx: &mut Context<'_>) -> Poll<io::Result<Option<usize>>>
    where
        To: AsyncWrite + Unpin,
    {
        let to = Pin::new(to);
        let written = if self.ahead.has_remaining() {
            let written = poll_write_buf(to, cx, &mut self.ahead);
            // An empty slice would still keep the whole buffer from being filled again.
            if self.ahead.is_empty() {
                self.ahead = Bytes::new();
            }
            written
        } else if self.buffer.has_remaining() {
            poll_write_buf(to, cx, &mut self.buffer)
        } else {
            return Poll::Ready(Ok(None));
        };
        match ready!(written)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => {
                self.unflushed = true;
                Poll::Ready(Ok(Some(count)))
            }
        }
    }

    /// Flushes the sink, which may hold bytes back, as a TLS session does. It is called when nothing more can be
    /// written for now.
    pub(crate) fn poll_flushed<To>(&mut self, to: &mut To, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        To: AsyncWrite + Unpin,
    {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read<From: AsyncRead + Unpin>(&mut self, from: &mut From, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.clear();
        // `reserve` would double the capacity.
        if !self.buffer.try_reclaim(self.room) {
            self.buffer = BytesMut::with_capacity(self.room);
        }
        let room = self.buffer.capacity();
        let count = ready!(poll_read_buf(Pin::new(from), cx, &mut self.buffer))?;
        if count == room {
            self.room = self.room.saturating_mul(2).min(MOST);
        }
        Poll::Ready(Ok(count))
    }
}

impl<From, To> Hop<From, To> for Copying
where
    From: AsyncRead + Unpin,
    To: AsyncWrite + Unpin,
{
    fn poll_move(&mut self, from: &mut From, to: &mut To, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        loop {
            if let Some(count) = ready!(self.poll_written(to, cx)).map_err(Fault::Sink)? {
                return Poll::Ready(Ok(count));
            }
            match self.poll_read(from, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(0)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Source(error))),
                Poll::Pending => {
                    ready!(self.poll_flushed(to, cx)).map_err(Fault::Sink)?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_discard(&mut self, from: &mut From, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.ahead = Bytes::new();
        self.poll_read(from, cx)
    }

    fn poll_end(&mut self, to: &mut To, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(to).poll_shutdown(cx)
    }

    fn trim(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.room = LEAST;
        }
    }
}
