//! What a resize stream carries: the JSON of a [`TerminalSize`], again and again.
//!
//! Limits the length of each size.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::error::StatusError;
use super::object::{ObjectScanner, Scan};

/// The maximum length of the JSON of one size on a resize stream, in bytes: 1 KiB.
pub const MAX_RESIZE_LEN: usize = 1024;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)] // both fields are all that the protocol has
#[serde(default)]
pub struct TerminalSize {
    /// The number of columns.
    #[serde(rename = "Width", alias = "width")]
    pub width: u16,
    /// The number of rows.
    #[serde(rename = "Height", alias = "height")]
    pub height: u16,
}

impl TerminalSize {
    /// The bytes that a client writes to the resize stream, as in Go: `{"Width":80,"Height":24}` and a newline.
    #[must_use]
    pub fn encode(self) -> Bytes {
        format!("{{\"Width\":{},\"Height\":{}}}\n", self.width, self.height).into()
    }
}

/// Reads the sizes from a resize stream, however its bytes are split.
#[derive(Clone, Debug, Default)]
pub struct ResizeDecoder {
    scanner: ObjectScanner,
    /// The beginning of an object: at most [`MAX_RESIZE_LEN`] bytes.
    part: BytesMut,
    failed: Option<StatusError>,
}

impl ResizeDecoder {
    /// Takes the next bytes, and returns the last size that they complete. Earlier sizes are out of date and are
    /// dropped. A width or height that the peer leaves out is 0.
    ///
    /// # Errors
    /// [`StatusError::NotASize`] or [`StatusError::SizeTooLong`]. Every later call returns the same error, because it
    /// is no longer known where the next size begins.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Option<TerminalSize>, StatusError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut latest = None;
        loop {
            if self.part.is_empty() {
                bytes = bytes.trim_ascii_start();
            }
            let len = match self.scanner.scan(bytes) {
                Scan::Whole(len) => len,
                Scan::Part if !self.scanner.inside() => return Ok(latest),
                Scan::Part => bytes.len(),
                Scan::NotAnObject => return self.fail(StatusError::NotASize),
            };
            if self.part.len().saturating_add(len) > MAX_RESIZE_LEN {
                return self.fail(StatusError::SizeTooLong { limit: MAX_RESIZE_LEN });
            }
            let (object, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
            self.part.extend_from_slice(object);
            if self.scanner.inside() {
                return Ok(latest);
            }
            match serde_json::from_slice(&self.part) {
                Ok(size) => latest = Some(size),
                Err(_) => return self.fail(StatusError::NotASize),
            }
            self.part.clear();
            bytes = rest;
        }
    }

    fn fail(&mut self, error: StatusError) -> Result<Option<TerminalSize>, StatusError> {
        self.failed = Some(error.clone());
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn a_resize_stream_may_be_split_anywhere() {
        let sizes = "{\"Width\":80,\"Height\":24}\n{\"Width\":132,\"Height\":50}{\"height\":1}\n";
        let mut whole = ResizeDecoder::default();
        assert_eq!(whole.push(sizes.as_bytes()), Ok(Some(TerminalSize { width: 0, height: 1 })));
        let mut bytewise = ResizeDecoder::default();
        let seen: Vec<_> = sizes.bytes().filter_map(|byte| bytewise.push(&[byte]).unwrap()).collect();
        let size = |width, height| TerminalSize { width, height };
        assert_eq!(seen, [size(80, 24), size(132, 50), size(0, 1)]);
    }

    #[test]
    fn a_resize_stream_that_went_wrong_stays_wrong() {
        for bad in ["x", "7", "null", "[]", r#"{"Width":65536}"#, r#"{"Width":-1}"#, r#"{"Width":"80"}"#, "{]"] {
            let mut decoder = ResizeDecoder::default();
            assert_eq!(decoder.push(bad.as_bytes()), Err(StatusError::NotASize), "{bad}");
            assert_eq!(decoder.push(b"{}"), Err(StatusError::NotASize));
        }
    }

    #[test]
    fn a_resize_object_is_bounded() {
        let mut decoder = ResizeDecoder::default();
        let padded = format!("{{{}\"Width\":80}}", " ".repeat(MAX_RESIZE_LEN - 12));
        assert_eq!(padded.len(), MAX_RESIZE_LEN);
        for _ in 0..3 {
            assert_eq!(decoder.push(b" \n".repeat(MAX_RESIZE_LEN).as_slice()), Ok(None));
            assert_eq!(decoder.push(padded.as_bytes()), Ok(Some(TerminalSize { width: 80, height: 0 })));
        }
        assert_eq!(decoder.push(&padded.as_bytes()[..1]), Ok(None));
        let too_long = Err(StatusError::SizeTooLong { limit: MAX_RESIZE_LEN });
        assert_eq!(decoder.push(&[b' '; MAX_RESIZE_LEN]), too_long);
    }

    quickcheck! {
        fn sizes_survive_any_split(sizes: Vec<(u16, u16)>, step: usize) -> bool {
            let sizes: Vec<_> = sizes.into_iter().map(|(width, height)| TerminalSize { width, height }).collect();
            let bytes: Vec<u8> = sizes.iter().flat_map(|size| size.encode()).collect();
            let mut decoder = ResizeDecoder::default();
            let last = bytes.chunks(step % 40 + 1).filter_map(|part| decoder.push(part).unwrap()).last();
            last == sizes.last().copied()
        }

        fn no_bytes_panic(bytes: Vec<u8>) -> bool {
            let _ = ResizeDecoder::default().push(&bytes);
            true
        }
    }
}
