//! Moving bytes through a buffer: for any two connections.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::pipe::{Fault, Hop};

/// What a buffer begins with, and how far it grows while reads fill it.
const LEAST: usize = 8 * 1024;
const MOST: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Copying {
    /// What was read ahead of the pipe: it goes first.
    ahead: Bytes,
    buffer: BytesMut,
    room: usize,
    /// The sink has bytes that it may not have sent on.
    unflushed: bool,
}

impl Copying {
    pub(super) fn new(ahead: Bytes) -> Self {
        Self { ahead, buffer: BytesMut::new(), room: LEAST, unflushed: false }
    }

    fn poll_read<From: AsyncRead + Unpin>(&mut self, from: &mut From, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.clear();
        self.buffer.reserve(self.room);
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
        let mut to = Pin::new(to);
        loop {
            if self.ahead.has_remaining() || self.buffer.has_remaining() {
                let written = if self.ahead.has_remaining() {
                    poll_write_buf(to.as_mut(), cx, &mut self.ahead)
                } else {
                    poll_write_buf(to.as_mut(), cx, &mut self.buffer)
                };
                let count = ready!(written).map_err(Fault::Sink)?;
                if count == 0 {
                    return Poll::Ready(Err(Fault::Sink(io::ErrorKind::WriteZero.into())));
                }
                self.unflushed = true;
                return Poll::Ready(Ok(count));
            }
            match self.poll_read(from, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(0)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Source(error))),
                Poll::Pending => {
                    // Nothing more for now: what a TLS session holds back goes out.
                    if self.unflushed {
                        ready!(to.as_mut().poll_flush(cx)).map_err(Fault::Sink)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_discard(&mut self, from: &mut From, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.ahead.clear();
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
