//! The program's own stdin, stdout and stderr.
//!
//! Waits where a read or write would block. Any of the three may be non-blocking, because that is a flag of the open
//! file, which other processes share and may have set. For the same reason this never changes the flag.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::task::{JoinHandle, spawn_blocking};

/// How many bytes are read from stdin or written to an output at once, at most. Each such call is a hop to another
/// thread.
const AT_ONCE: usize = 256 * 1024;

/// Writes a line to stdout.
pub fn say(line: impl Display) -> io::Result<()> {
    Writer(rustix::stdio::stdout()).write_all(format!("{line}\n").as_bytes())
}

/// Writes a line to stderr. If that fails, there is nobody to tell.
pub fn complain(line: impl Display) {
    let _ = Writer(rustix::stdio::stderr()).write_all(format!("{line}\n").as_bytes());
}

/// Reads stdin, and blocks meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let from = rustix::stdio::stdin();
        Ok(waiting(from, PollFlags::IN, || rustix::io::read(from, &mut *buf))?)
    }
}

/// Writes to an open file that may be one of them, and blocks meanwhile.
#[derive(Debug)]
pub struct Writer<F>(pub F);

impl<F: AsFd> Write for Writer<F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let to = self.0.as_fd();
        Ok(waiting(to, PollFlags::OUT, || rustix::io::write(to, buf))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads stdin in the background.
#[derive(Debug, Default)]
pub struct Input {
    buffer: Vec<u8>,
}

impl Input {
    /// Returns what comes next, and nothing at the end. If the future is dropped, the bytes that it would have returned
    /// are lost.
    pub async fn read(&mut self) -> io::Result<Bytes> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.buffer = spawn_blocking(move || {
            buffer.clear();
            buffer.reserve(AT_ONCE);
            let from = rustix::stdio::stdin();
            waiting(from, PollFlags::IN, || rustix::io::read(from, spare_capacity(&mut buffer)))?;
            Ok::<_, io::Error>(buffer)
        })
        .await??;
        Ok(Bytes::copy_from_slice(&self.buffer))
    }
}

/// Writes to stdout or stderr, in the background. One buffer is filled while the other is written.
#[derive(Debug)]
pub struct Output {
    to: BorrowedFd<'static>,
    filled: Vec<u8>,
    writing: Option<JoinHandle<io::Result<Vec<u8>>>>,
    /// The other buffer, unless it is being written.
    spare: Vec<u8>,
}

impl Output {
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(rustix::stdio::stdout())
    }

    #[must_use]
    pub fn stderr() -> Self {
        Self::new(rustix::stdio::stderr())
    }

    fn new(to: BorrowedFd<'static>) -> Self {
        Self { to, filled: Vec::new(), writing: None, spare: Vec::new() }
    }

    /// Takes all bytes. They are written when there are many, or with [`flush`](Self::flush).
    pub async fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(AT_ONCE - self.filled.len()));
            self.filled.extend_from_slice(now);
            if self.filled.len() == AT_ONCE {
                self.start().await?;
            }
            data = later;
        }
        Ok(())
    }

    /// Returns when all bytes are written.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.filled.is_empty() {
            self.start().await?;
        }
        self.written().await
    }

    async fn start(&mut self) -> io::Result<()> {
        self.written().await?;
        let mut full = std::mem::replace(&mut self.filled, std::mem::take(&mut self.spare));
        let to = self.to;
        self.writing = Some(spawn_blocking(move || {
            Writer(to).write_all(&full)?;
            full.clear();
            Ok(full)
        }));
        Ok(())
    }

    async fn written(&mut self) -> io::Result<()> {
        if let Some(writing) = self.writing.take() {
            self.spare = writing.await??;
        }
        Ok(())
    }
}

/// Repeats a call until it neither would block nor is interrupted.
fn waiting<T>(on: BorrowedFd<'_>, ready: PollFlags, mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::AGAIN) => match poll(&mut [PollFd::from_borrowed_fd(on, ready)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            },
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
