//! Moving bytes by `splice(2)`: from socket to socket through a pipe of the kernel's, and never into user space.
//!
//! Owns the pipe. Linux alone has it, and plain sockets alone can: through TLS bytes have to be seen.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::pipe::{Fault, Hop};

/// Bytes that one call may move: a pipe holds 64 KiB unless it was told to hold more.
const MOST: usize = 1024 * 1024;

pub(super) struct Splicing {
    /// What was read ahead of the pipe: it goes first, by an ordinary write.
    ahead: Bytes,
    reads: OwnedFd,
    writes: OwnedFd,
    /// Bytes in the pipe.
    held: usize,
}

impl Splicing {
    pub(super) fn new(ahead: Bytes) -> io::Result<Self> {
        let (reads, writes) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { ahead, reads, writes, held: 0 })
    }

    /// Fills the pipe: how many bytes came, 0 at the end.
    fn poll_fill(&mut self, from: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            let filled = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &self.writes, None, MOST, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
            });
            match filled {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                filled => {
                    self.held = filled.as_ref().copied().unwrap_or(0);
                    return Poll::Ready(filled);
                }
            }
        }
    }

    /// Empties the pipe, some of it: how many bytes went.
    fn poll_drain(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            let drained = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.reads, None, to, None, self.held, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
            });
            match drained {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                drained => {
                    self.held = self.held.saturating_sub(drained.as_ref().copied().unwrap_or(0));
                    return Poll::Ready(drained);
                }
            }
        }
    }
}

impl Hop<TcpStream, TcpStream> for Splicing {
    fn poll_move(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Fault>> {
        if self.ahead.has_remaining() {
            let count = ready!(Pin::new(to).poll_write(cx, &self.ahead)).map_err(Fault::Sink)?;
            self.ahead.advance(count.min(self.ahead.len()));
            return Poll::Ready(Ok(count));
        }
        if self.held == 0 && ready!(self.poll_fill(from, cx)).map_err(Fault::Source)? == 0 {
            return Poll::Ready(Ok(0));
        }
        match ready!(self.poll_drain(to, cx)) {
            Ok(0) => Poll::Ready(Err(Fault::Sink(io::ErrorKind::WriteZero.into()))),
            drained => Poll::Ready(drained.map_err(Fault::Sink)),
        }
    }

    fn poll_discard(&mut self, from: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // The pipe is nobody's any more, and may be full.
        self.held = 0;
        let mut buffer = [0; 8 * 1024];
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn poll_end(&mut self, to: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(to).poll_shutdown(cx)
    }

    fn trim(&mut self) {}
}
