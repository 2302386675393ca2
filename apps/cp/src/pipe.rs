//! A pipe between a session, which is async, and an archive, which blocks.
//!
//! Holds at most [`CHUNKS`] pieces. If one end goes away, the other ends too. Whether the archive is complete, only the
//! archive itself can tell.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

const CHUNKS: usize = 16;
/// The size of a piece. A message over WebSocket is 32 KiB with its channel byte.
const CHUNK: usize = 32 * 1024 - 1;

pub(crate) fn pipe() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(CHUNKS)
}

/// The blocking end, for reading.
pub(crate) struct PipeReader {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl PipeReader {
    pub(crate) fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self { chunks, chunk: Bytes::new() }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let Some(chunk) = self.chunks.blocking_recv() else { return Ok(0) };
            self.chunk = chunk;
        }
        let count = self.chunk.len().min(buf.len());
        self.chunk.copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}

/// The blocking end, for writing. It must be flushed at the end.
pub(crate) struct PipeWriter {
    chunks: mpsc::Sender<Bytes>,
    chunk: BytesMut,
}

impl PipeWriter {
    pub(crate) fn new(chunks: mpsc::Sender<Bytes>) -> Self {
        Self { chunks, chunk: BytesMut::with_capacity(CHUNK) }
    }
}

impl Write for PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = buf.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&buf[..count]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK)).freeze();
        self.chunks.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
