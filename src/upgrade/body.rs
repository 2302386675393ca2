//! The body of a refusal, up to a limit (RFC 9112 §6.3, §7.1).
//!
//! Reads the framing of the body, without IO. It never fails: a body that cannot be read is cut off, because the caller
//! wants the refusal and not a second error.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{Response, StatusCode};

/// Collects a body up to a limit.
#[derive(Debug)]
pub(super) struct Body {
    framing: Framing,
    collected: BytesMut,
    limit: usize,
    /// The whole body was collected.
    whole: bool,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    /// This many bytes are still to come.
    Length(u64),
    /// The next line has the size of a chunk.
    ChunkSize,
    /// This many bytes of a chunk are still to come, and then a line end.
    Chunk(u64),
    /// The body ends with the IO.
    UntilEnd,
}

impl Body {
    pub(super) fn new(response: &Response<()>, limit: usize) -> Self {
        let framing = match response.status() {
            StatusCode::NO_CONTENT => Framing::Length(0),
            _ => Framing::of(response.headers()),
        };
        Self { framing, collected: BytesMut::new(), limit, whole: false }
    }

    /// Takes what it can from `input`. Returns whether no more input is needed.
    pub(super) fn feed(&mut self, input: &mut BytesMut) -> bool {
        loop {
            match self.framing {
                Framing::Length(0) => {
                    self.whole = true;
                    return true;
                }
                _ if input.is_empty() => return false,
                Framing::Length(left) => match self.collect(input, left) {
                    Some(left) => self.framing = Framing::Length(left),
                    None => return true,
                },
                Framing::UntilEnd => {
                    if self.collect(input, u64::MAX).is_none() {
                        return true;
                    }
                }
                Framing::ChunkSize => match httparse::parse_chunk_size(input) {
                    Ok(httparse::Status::Complete((_, 0))) => self.framing = Framing::Length(0),
                    Ok(httparse::Status::Complete((len, size))) => {
                        input.advance(len.min(input.len()));
                        self.framing = Framing::Chunk(size);
                    }
                    Ok(httparse::Status::Partial) => return input.len() > MAX_CHUNK_LINE,
                    Err(_) => return true,
                },
                Framing::Chunk(0) => {
                    let end = input.get(..2);
                    match end {
                        Some(b"\r\n") => input.advance(2),
                        Some(_) => return true,
                        None => return false,
                    }
                    self.framing = Framing::ChunkSize;
                }
                Framing::Chunk(left) => match self.collect(input, left) {
                    Some(left) => self.framing = Framing::Chunk(left),
                    None => return true,
                },
            }
        }
    }

    /// Notes that the IO has ended.
    pub(super) fn end(&mut self) {
        self.whole |= matches!(self.framing, Framing::UntilEnd);
    }

    /// What was collected, and whether the body is truncated.
    pub(super) fn into_parts(self) -> (Bytes, bool) {
        (self.collected.freeze(), !self.whole)
    }

    /// Collects at most `left` bytes. Returns how many of them are still to come, or `None` if the limit leaves no
    /// room.
    fn collect(&mut self, input: &mut BytesMut, left: u64) -> Option<u64> {
        let room = self.limit.saturating_sub(self.collected.len());
        let len = input.len().min(room).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.collected.extend_from_slice(&input.split_to(len));
        if len == 0 { None } else { left.checked_sub(len as u64) }
    }
}

impl Framing {
    /// `Transfer-Encoding` overrides `Content-Length`. Without a valid length, the body ends with the IO or at the
    /// limit.
    fn of(headers: &HeaderMap) -> Self {
        if super::head::lists(headers, header::TRANSFER_ENCODING, "chunked") {
            return Self::ChunkSize;
        }
        if headers.contains_key(header::TRANSFER_ENCODING) {
            return Self::UntilEnd;
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        match (lengths.next(), lengths.next()) {
            (Some(length), None) => {
                let length = length.to_str().ok().filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()));
                length.and_then(|length| length.parse().ok()).map_or(Self::UntilEnd, Self::Length)
            }
            _ => Self::UntilEnd,
        }
    }
}

/// The most bytes of a line with a chunk's size and its extensions.
const MAX_CHUNK_LINE: usize = 256;

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    /// Feeds the body in steps, then ends it.
    fn read(headers: &str, body: &[u8], limit: usize, step: usize) -> (Bytes, bool) {
        let head = format!("HTTP/1.1 403 Forbidden\r\n{headers}\r\n");
        let response = super::super::head::parse_response_head(head.as_bytes(), 100).unwrap();
        let mut reader = Body::new(&response, limit);
        let mut input = BytesMut::new();
        if !reader.feed(&mut input)
            && !body.chunks(step).any(|part| {
                input.extend_from_slice(part);
                reader.feed(&mut input)
            })
        {
            reader.end();
        }
        reader.into_parts()
    }

    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

    #[test]
    fn bodies_are_framed_as_announced() {
        for step in [1, 2, 3, 100] {
            for (headers, body, expected, truncated) in [
                ("Content-Length: 3\r\n", "abcdef", "abc", false),
                ("Content-Length: 0\r\n", "abc", "", false),
                ("Content-Length: 9\r\n", "abc", "abc", true),
                ("Content-Length: +3\r\n", "abcdef", "abcdef", false),
                ("Content-Length: 3\r\nContent-Length: 4\r\n", "abcdef", "abcdef", false),
                ("Content-Length: 99999999999999999999999\r\n", "abc", "abc", false),
                ("", "abc", "abc", false),
                ("", "", "", false),
                ("Transfer-Encoding: gzip\r\nContent-Length: 1\r\n", "abc", "abc", false),
                (CHUNKED, "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "abcde", false),
                (CHUNKED, "3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", "abc", false),
                (CHUNKED, "3\r\nabc", "abc", true),
                (CHUNKED, "3\r\nabcXX", "abc", true),
                (CHUNKED, "x\r\n", "", true),
                (CHUNKED, "ffffffffffffffff\r\nabc", "abc", true),
            ] {
                let read = read(headers, body.as_bytes(), 100, step);
                assert_eq!((&read.0[..], read.1), (expected.as_bytes(), truncated), "{headers}{body} by {step}");
            }
        }
    }

    #[test]
    fn a_body_is_cut_at_the_limit() {
        for step in [1, 3, 100] {
            assert_eq!(read("", b"abcd", 4, step), (Bytes::from("abcd"), false));
            assert_eq!(read("", b"abcde", 4, step), (Bytes::from("abcd"), true));
            assert_eq!(read("Content-Length: 4\r\n", b"abcde", 4, step), (Bytes::from("abcd"), false));
            assert_eq!(read("Content-Length: 5\r\n", b"abcde", 4, step), (Bytes::from("abcd"), true));
            assert_eq!(read(CHUNKED, b"2\r\nab\r\n2\r\ncd\r\n0\r\n", 4, step), (Bytes::from("abcd"), false));
            assert_eq!(read(CHUNKED, b"2\r\nab\r\n3\r\ncde\r\n0\r\n", 4, step), (Bytes::from("abcd"), true));
        }
        let extension = format!("1;{}", "x".repeat(MAX_CHUNK_LINE));
        assert_eq!(read(CHUNKED, extension.as_bytes(), 4, 1), (Bytes::new(), true));
    }

    quickcheck! {
        fn chunks_are_joined(chunks: Vec<Vec<u8>>, step: usize) -> bool {
            let chunks: Vec<_> = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
            let mut body: Vec<u8> =
                chunks.iter().flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).collect();
            body.extend_from_slice(b"0\r\n\r\n");
            read(CHUNKED, &body, usize::MAX, step % 64 + 1) == (chunks.concat().into(), false)
        }

        fn no_bytes_panic(bytes: Vec<u8>, limit: u8) -> bool {
            read(CHUNKED, &bytes, usize::from(limit), 1).0.len() <= usize::from(limit)
        }
    }
}
