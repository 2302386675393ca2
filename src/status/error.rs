//! What an error stream may not carry.

use crate::initiator::Initiator;

/// Bytes that an error stream, or a [`Status`](super::Status) anywhere else, may have: 256 KiB. A kubelet repeats the whole command in it,
/// and Linux allows an argument of 128 KiB.
pub const MAX_STATUS_LEN: usize = 256 * 1024;

/// An error stream does not carry a status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// It is longer than [`MAX_STATUS_LEN`].
    #[error("status longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It is not a JSON Status.
    #[error("{reason} in {text:?}")]
    Malformed {
        /// What the peer sent, with what is not UTF-8 replaced.
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
