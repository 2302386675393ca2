//! Why the bytes of an error stream are not a status, and the limit on them.
//!
//! [`ExitStatus::decode`](super::ExitStatus::decode) and [`Status::from_json`](super::Status::from_json) decide what is
//! wrong.

use crate::initiator::Initiator;

/// The most bytes of an error stream, or of a [`Status`](super::Status) elsewhere: 256 KiB. A kubelet repeats the whole
/// command in the status, and on Linux one argument may have 128 KiB.
pub const MAX_STATUS_LEN: usize = 256 * 1024;

/// Why the bytes of an error stream are not a status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// There are more than [`MAX_STATUS_LEN`] bytes.
    #[error("status longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The bytes are not a JSON `Status`.
    #[error("{reason} in {text:?}")]
    Malformed {
        /// What the peer sent, with replacement characters for what is not UTF-8.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
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
