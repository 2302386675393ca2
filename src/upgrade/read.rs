//! Reads from the IO of a handshake.
//!
//! Only reads: [`head`](super::head) finds where a head ends.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::UpgradeError;
use super::head::HeadReader;

/// Reads up to the end of a head. Bytes that were read past the head stay in `reader`.
pub(super) async fn read_head<IO: AsyncRead + Unpin>(
    io: &mut IO,
    reader: &mut HeadReader,
) -> Result<Bytes, UpgradeError> {
    loop {
        if let Some(head) = reader.take_head()? {
            return Ok(head);
        }
        if fill(io, reader.buffer()).await? == 0 {
            return Err(UpgradeError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Reads once and appends the bytes to the buffer. Returns how many, 0 at the end of the IO.
pub(super) async fn fill<IO: AsyncRead + Unpin>(io: &mut IO, buffer: &mut BytesMut) -> io::Result<usize> {
    if buffer.capacity() == buffer.len() {
        buffer.reserve(READ_CHUNK);
    }
    io.read_buf(buffer).await
}

const READ_CHUNK: usize = 4 * 1024;
