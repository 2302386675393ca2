//! Collects the bytes of an error stream, and finds when its status is whole.
//!
//! [`ExitStatus::decode`] reads what the status says.

use bytes::BytesMut;

use super::error::{MAX_STATUS_LEN, StatusError};
use super::exit::ExitStatus;
use super::object::{ObjectScanner, Scan};
use crate::protocol::Version;

/// Reads an error stream piece by piece.
///
/// containerd sends a v4 status and no FIN after it. So this reader finds the last brace of the status, and does not
/// wait for the end of the stream. It looks at each byte once.
#[derive(Clone, Debug)]
pub struct StatusReader {
    version: Version,
    scanner: ObjectScanner,
    /// How many bytes were scanned. `None` if they are a text, or no JSON object: then only the end of the stream ends
    /// them.
    scanned: Option<usize>,
    bytes: BytesMut,
}

impl StatusReader {
    /// Makes a reader for an error stream of `version`.
    #[must_use]
    pub fn new(version: Version) -> Self {
        let scanned = (version >= Version::V4).then_some(0);
        Self { version, scanner: ObjectScanner::default(), scanned, bytes: BytesMut::new() }
    }

    /// Takes the next bytes. Returns `Some` once a v4 or v5 status is whole; bytes after it are ignored. For the text
    /// of v1 to v3 this returns `None`: only the end of the stream makes it whole ([`finish`](Self::finish)).
    ///
    /// # Errors
    /// The same as [`ExitStatus::decode`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<ExitStatus>, StatusError> {
        if self.bytes.len().saturating_add(bytes.len()) > MAX_STATUS_LEN {
            return Err(StatusError::TooLong { limit: MAX_STATUS_LEN });
        }
        self.bytes.extend_from_slice(bytes);
        let Some(scanned) = self.scanned else { return Ok(None) };
        self.scanned = Some(self.bytes.len());
        match self.scanner.scan(bytes) {
            Scan::Whole(len) => {
                let status = self.bytes.get(..scanned.saturating_add(len)).unwrap_or_default();
                ExitStatus::decode(self.version, status)
            }
            Scan::Part => Ok(None),
            Scan::NotAnObject => {
                self.scanned = None;
                Ok(None)
            }
        }
    }

    /// Whether a v4 or v5 status has begun and not ended.
    pub(crate) fn is_inside(&self) -> bool {
        self.scanned.is_some() && self.scanner.inside()
    }

    /// What the stream said, now that it has ended. Needed only if [`push`](Self::push) has not returned a status.
    /// `None` means the same as in [`ExitStatus::decode`].
    ///
    /// # Errors
    /// The same as [`ExitStatus::decode`].
    pub fn finish(&self) -> Result<Option<ExitStatus>, StatusError> {
        ExitStatus::decode(self.version, &self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    const EXIT_7: &str = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: error executing command [sh -c echo }; exit 7], exit code 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;

    #[test]
    fn a_v4_status_is_whole_before_its_stream_ends() {
        for json in [EXIT_7, r#"{"status":"Success"}"#, r#" {"status":"Failure","message":"a \"}\" \\"}"#] {
            let mut reader = StatusReader::new(Version::V4);
            let (last, first) = json.as_bytes().split_last().unwrap();
            for byte in first {
                assert_eq!(reader.push(&[*byte]), Ok(None));
            }
            assert_eq!(reader.push(&[*last]).unwrap(), ExitStatus::decode(Version::V4, json.as_bytes()).unwrap());
        }
        let mut reader = StatusReader::new(Version::V4);
        assert_eq!(reader.push(b"{\"status\":\"Success\"}\n{").unwrap(), Some(ExitStatus::Success));
    }

    #[test]
    fn what_is_no_status_is_told_at_the_end() {
        let mut reader = StatusReader::new(Version::V4);
        assert_eq!(reader.finish(), Ok(None));
        assert_eq!(reader.push(b"bo"), Ok(None));
        assert_eq!(reader.push(b"om {}"), Ok(None));
        assert!(matches!(reader.finish(), Err(StatusError::Malformed { text, .. }) if text == "boom {}"));

        let mut reader = StatusReader::new(Version::V2);
        assert_eq!(reader.push(b"command terminated with non-zero exit code: exit"), Ok(None));
        assert_eq!(reader.push(b" status 7"), Ok(None));
        assert_eq!(reader.finish(), Ok(Some(ExitStatus::Code(7))));
    }

    #[test]
    fn a_status_is_bounded() {
        let long = vec![b'x'; MAX_STATUS_LEN];
        for version in [Version::V1, Version::V2, Version::V3, Version::V4] {
            let mut reader = StatusReader::new(version);
            assert_eq!(reader.push(&long), Ok(None));
            assert_eq!(reader.push(b"x"), Err(StatusError::TooLong { limit: MAX_STATUS_LEN }));
        }
    }

    quickcheck! {
        fn no_bytes_panic(parts: Vec<Vec<u8>>) -> bool {
            let mut reader = StatusReader::new(Version::V4);
            for part in parts {
                let _ = reader.push(&part);
            }
            let _ = reader.finish();
            true
        }
    }
}
