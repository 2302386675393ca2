//! A chunked body on its way to the backend (RFC 9112 §7.1).
//!
//! Reads the client's chunks and writes chunks of its own, so that the backend cannot find the end of the body
//! elsewhere and take what follows it for a second request. Trailers and chunk extensions end here. It knows nothing of
//! the request.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};

/// How many bytes the line of a chunk, or all trailers together, may have.
const MAX_LINE: u64 = 8 * 1024;

/// Passes a body on up to its end.
///
/// # Errors
/// Those of both ends, and [`ErrorKind::InvalidData`] if the client's body is not chunked as it should be.
pub(crate) async fn pass<R, W>(from: &mut R, to: &mut W) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let size = line(from, &mut MAX_LINE.clone()).await?;
        let size = parse_size(&size).ok_or_else(|| malformed("a chunk has no valid size"))?;
        if size == 0 {
            break;
        }
        to.write_all(format!("{size:x}\r\n").as_bytes()).await?;
        if copy(&mut (&mut *from).take(size), to).await? < size {
            return Err(malformed("it ends within a chunk"));
        }
        if !line(from, &mut MAX_LINE.clone()).await?.is_empty() {
            return Err(malformed("a chunk is longer than its size"));
        }
        to.write_all(b"\r\n").await?;
        to.flush().await?;
    }
    let mut room = MAX_LINE;
    while !line(from, &mut room).await?.is_empty() {}
    to.write_all(b"0\r\n\r\n").await
}

/// Reads a line without its end, which counts towards `room`.
async fn line<R: AsyncBufRead + Unpin>(from: &mut R, room: &mut u64) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let read = (&mut *from).take(*room).read_until(b'\n', &mut line).await?;
    *room = room.saturating_sub(read as u64);
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(text.to_vec()),
        None if *room == 0 => Err(malformed("a line is too long")),
        None => Err(malformed("a line does not end with CR and LF")),
    }
}

fn parse_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    let digits = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(size).ok().filter(|_| digits)?, 16).ok()
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the client's chunked body is malformed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn passed(body: &str) -> Result<(String, String), String> {
        let (mut from, mut to) = (body.as_bytes(), Vec::new());
        pass(&mut from, &mut to).await.map_err(|error| error.to_string())?;
        Ok((String::from_utf8(to).unwrap(), String::from_utf8(from.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn a_body_is_passed_on_up_to_its_end_and_no_further() {
        for (body, heard) in [
            ("0\r\n\r\n", "0\r\n\r\n"),
            ("3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
            (
                "0A;name=value\r\n0123456789\r\n2 \r\n\r\n\r\n000\r\nTrailer: x\r\n\r\n",
                "a\r\n0123456789\r\n2\r\n\r\n\r\n0\r\n\r\n",
            ),
        ] {
            let next = "GET /second HTTP/1.1\r\n\r\n";
            assert_eq!(passed(&format!("{body}{next}")).await, Ok((heard.to_owned(), next.to_owned())), "{body:?}");
        }
    }

    #[tokio::test]
    async fn a_malformed_body_has_no_end() {
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(9000));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(2000));
        for (body, why) in [
            ("", "a line does not end with CR and LF"),
            ("\r\n", "a chunk has no valid size"),
            ("+1\r\nx\r\n0\r\n\r\n", "a chunk has no valid size"),
            ("-1\r\n", "a chunk has no valid size"),
            ("0x1\r\nx\r\n0\r\n\r\n", "a chunk has no valid size"),
            ("10000000000000000\r\n", "a chunk has no valid size"),
            ("1\nx\r\n0\r\n\r\n", "a line does not end with CR and LF"),
            ("1\r\nxy\r\n0\r\n\r\n", "a chunk is longer than its size"),
            ("3\r\nab", "it ends within a chunk"),
            ("0\r\nTrailer: x\r\n", "a line does not end with CR and LF"),
            (&long, "a line is too long"),
            (&trailers, "a line is too long"),
        ] {
            assert_eq!(passed(body).await, Err(format!("the client's chunked body is malformed: {why}")), "{body:?}");
        }
    }
}
