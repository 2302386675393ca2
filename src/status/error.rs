//! Why the bytes of an error stream or of a resize stream are not what they must be, and the limit on a status.
//!
//! [`ExitStatus::decode`](super::ExitStatus::decode), [`Status::from_json`](super::Status::from_json) and
//! [`ResizeDecoder`](super::ResizeDecoder) decide what is wrong.

use crate::initiator::Initiator;

/// The maximum length of what an error stream carries, and of each [`Status`](super::Status) as JSON, in bytes: 256
/// KiB. A kubelet repeats the whole command in the status, and on Linux one argument may have 128 KiB.
pub const MAX_STATUS_LEN: usize = 256 * 1024;

/// Why the bytes of an error stream are not a status, or those of a resize stream are not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// A status has more than [`MAX_STATUS_LEN`] bytes.
    #[error("the status is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The bytes of a status are not a JSON `Status`.
    #[error("the status is not a JSON Status object: {reason}, in {text:?}")]
    Malformed {
        /// What the peer sent, with U+FFFD in place of bytes that are not UTF-8.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A size has more than [`MAX_RESIZE_LEN`](super::MAX_RESIZE_LEN) bytes.
    #[error("the terminal size is longer than {limit} bytes")]
    SizeTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The bytes of a size are not a JSON object whose `Width` and `Height` are integers from 0 to 65,535.
    #[error("the bytes on the resize stream are not a terminal size")]
    NotASize,
}

impl StatusError {
    /// Who caused the error: always the peer.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        Initiator::Remote
    }
}

pub(super) fn check_len(bytes: &[u8]) -> Result<(), StatusError> {
    if bytes.len() > MAX_STATUS_LEN { Err(StatusError::TooLong { limit: MAX_STATUS_LEN }) } else { Ok(()) }
}
