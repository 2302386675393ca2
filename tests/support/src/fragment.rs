//! An IO that carries bytes in small pieces, and is often not ready without a reason.
//!
//! Only cuts: every byte passes, in order. The same seed cuts in the same places.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::mutation::Numbers;

const MOST: usize = 4096;

pub struct Fragmented<IO> {
    io: IO,
    random: Random,
    most: usize,
    spurious: bool,
}

impl<IO> Fragmented<IO> {
    /// 1 to `most` bytes in each read or write.
    pub fn new(io: IO, seed: u64, most: usize) -> Self {
        Self { io, random: Random::new(seed), most: most.clamp(1, MOST), spurious: true }
    }

    /// One byte per call, always ready when the inner IO is.
    pub fn bytewise(io: IO) -> Self {
        Self { spurious: false, ..Self::new(io, 1, 1) }
    }

    fn step(&mut self) -> usize {
        self.random.below(self.most) + 1
    }

    /// One call in four must be repeated.
    fn not_ready(&mut self, cx: &Context<'_>) -> bool {
        let not_ready = self.spurious && self.random.below(4) == 0;
        if not_ready {
            cx.waker().wake_by_ref();
        }
        not_ready
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Fragmented<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.not_ready(cx) {
            return Poll::Pending;
        }
        let mut crumbs = [0; MOST];
        let most = self.step().min(buf.remaining());
        let mut part = ReadBuf::new(&mut crumbs[..most]);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut part);
        buf.put_slice(part.filled());
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Fragmented<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.not_ready(cx) {
            return Poll::Pending;
        }
        let most = self.step().min(buf.len());
        Pin::new(&mut self.io).poll_write(cx, &buf[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.not_ready(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.not_ready(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Numbers that decide where bytes are cut.
pub struct Random(Numbers);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.draw() >> 11) as usize % bound.max(1)
    }
}
