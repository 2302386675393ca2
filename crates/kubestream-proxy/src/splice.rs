//! Moving bytes by `splice(2)`: from socket to socket through a pipe in the kernel, without copying them to user space.
//!
//! This module owns that kernel pipe. It exists only while bytes move, because the kernel counts a user's pipes and shrinks new ones
//! above a limit. It must not be used for TLS, whose bytes have to be read in user space. Only Linux has `splice`.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use kubestream::AbortOnDrop;

use crate::hop::{Fault, Hop};

/// The capacity that is asked of a kernel pipe, and so the most that one call moves.
const MOST: usize = 1024 * 1024;
/// How much one read takes where the kernel gives no pipe.
const COPIED: usize = 16 * 1024;

#[derive(Default)]
pub(crate) struct Splicing {
    /// Bytes that were read into user space. An ordinary write sends them, before those in the pipe.
    ahead: Bytes,
    pipe: Option<KernelPipe>,
    /// Bytes in the pipe.
    held: usize,
}

struct KernelPipe {
    reads: OwnedFd,
    writes: OwnedFd,
}

impl KernelPipe {
    /// Returns `None` if no file descriptors are left.
    fn new() -> Option<Self> {
        let (reads, writes) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // If the kernel does not allow this size, a smaller pipe is used.
        let _ = fcntl_setpipe_size(&writes, MOST);
        Some(Self { reads, writes })
    }
}

impl Splicing {
    pub(crate) fn new(ahead: Bytes) -> Self {
        Self { ahead, ..Self::default() }
    }

    /// Fills the pipe, or `ahead` if there is no pipe, and returns how many bytes came. 0 means that the source has
    /// ended.
    fn poll_fill(&mut self, from: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            if self.pipe.is_none() {
                self.pipe = KernelPipe::new();
            }
            let Some(pipe) = &self.pipe else {
                let mut copied = BytesMut::with_capacity(COPIED);
                match from.try_read_buf(&mut copied) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    read => {
                        self.ahead = copied.freeze();
                        return Poll::Ready(read);
                    }
                }
            };
            let filled = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &pipe.writes, None, MOST, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
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

    /// Moves some bytes out of the pipe and returns how many.
    fn poll_drain(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            let drained = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&pipe.reads, None, to, None, self.held, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
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

type Socket = AbortOnDrop<TcpStream>;

impl Hop<Socket, Socket> for Splicing {
    fn poll_move(&mut self, from: &mut Socket, to: &mut Socket, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        if !self.ahead.has_remaining()
            && self.held == 0
            && ready!(self.poll_fill(from.get_ref(), cx)).map_err(Fault::Source)? == 0
        {
            return Poll::Ready(Ok(0));
        }
        if self.ahead.has_remaining() {
            let count = ready!(Pin::new(to).poll_write(cx, &self.ahead)).map_err(Fault::Sink)?;
            if count == 0 {
                return Poll::Ready(Err(Fault::Sink(io::ErrorKind::WriteZero.into())));
            }
            self.ahead.advance(count.min(self.ahead.len()));
            // An empty slice would still keep the whole buffer.
            if self.ahead.is_empty() {
                self.ahead = Bytes::new();
            }
            return Poll::Ready(Ok(count));
        }
        match ready!(self.poll_drain(to.get_ref(), cx)) {
            Ok(0) => Poll::Ready(Err(Fault::Sink(io::ErrorKind::WriteZero.into()))),
            drained => Poll::Ready(drained.map_err(Fault::Sink)),
        }
    }

    fn poll_discard(&mut self, from: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // No sink takes the bytes in the pipe any more.
        (self.pipe, self.held) = (None, 0);
        self.ahead = Bytes::new();
        let mut buffer = [0; 8 * 1024];
        let from = from.get_ref();
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn poll_end(&mut self, to: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(to).poll_shutdown(cx)
    }

    fn trim(&mut self) {
        if self.held == 0 {
            self.pipe = None;
        }
    }
}
