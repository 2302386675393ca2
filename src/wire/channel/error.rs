//! The errors in messages of the channel subprotocols.
//!
//! This file owns the error type.

use crate::initiator::Initiator;

/// Why a message is not valid. The peer is always the cause, and the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The data is not base64, or its padding is missing.
    #[error("a message that is not valid base64")]
    NotBase64,
    /// A CLOSE does not have two bytes. Go's servers drop the connection for this, too.
    #[error("a CLOSE that does not name exactly one channel")]
    CloseLength,
    /// A CLOSE names a channel that does not exist.
    #[error("a CLOSE of channel {0}, which does not exist")]
    CloseUnknown(u8),
    /// A channel of legacy port-forward begins with another port than the request asked for.
    #[error("a channel for port {expected} begins with port {said}")]
    Port {
        /// The port that the request asked for.
        expected: u16,
        /// The port that came.
        said: u16,
    },
}

impl ChannelError {
    /// Which end caused the error: always the peer.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        Initiator::Remote
    }
}
