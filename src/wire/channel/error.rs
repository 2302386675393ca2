//! What is wrong with a message of a subprotocol.
//!
//! This file owns the error and who caused it.

use crate::initiator::Initiator;

/// A message that is none: always the peer's fault, and the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The data is not base64 with its padding.
    #[error("a message that is not base64")]
    NotBase64,
    /// A CLOSE has two bytes: Go's servers drop the connection of who sends another.
    #[error("a CLOSE that names not one channel")]
    CloseLength,
    /// A CLOSE of a channel that there is not.
    #[error("a CLOSE of the channel {0}, which there is not")]
    CloseUnknown(u8),
    /// A channel of the old form of port-forward begins with its port, and this one does with another.
    #[error("the channel of port {expected} says that it is of port {said}")]
    Port {
        /// The port that it was asked for.
        expected: u16,
        /// What it says.
        said: u16,
    },
}

impl ChannelError {
    /// Who caused the error: always the peer.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        Initiator::Remote
    }
}
