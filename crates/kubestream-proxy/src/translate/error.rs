//! The errors of translating, and which side caused each.
//!
//! This module owns the type only. The other modules decide what is an error.

use kubestream::upgrade::Protocol;
use kubestream::{Initiator, exec, portforward};

use kubestream::tap::Side;

/// Why two sides were not joined, or did not end in an orderly way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranslateError {
    /// The two sides speak protocols for different purposes (exec and port-forward), or a side speaks a protocol that
    /// this crate does not know.
    #[error("{client:?} and {backend:?} have no session in common")]
    Mismatch {
        /// What the client speaks.
        client: Option<Protocol>,
        /// What the backend speaks.
        backend: Option<Protocol>,
    },
    /// A side of an exec or attach session failed, or the client has gone away. The other side was told.
    #[error("the {side}: {error}")]
    Exec {
        /// The side that failed.
        side: Side,
        /// Why.
        #[source]
        error: exec::Error,
    },
    /// A side of a port-forward failed. The other side was told.
    #[error("the {side}: {error}")]
    PortForward {
        /// The side that failed.
        side: Side,
        /// Why.
        #[source]
        error: portforward::Error,
    },
}

impl TranslateError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Mismatch { .. } => Initiator::User,
            Self::Exec { error, .. } => error.initiator(),
            Self::PortForward { error, .. } => error.initiator(),
        }
    }

    /// The side that failed. `None` for a [`Mismatch`](Self::Mismatch).
    #[must_use]
    pub fn side(&self) -> Option<Side> {
        match self {
            Self::Mismatch { .. } => None,
            Self::Exec { side, .. } | Self::PortForward { side, .. } => Some(*side),
        }
    }

    /// True if the client failed before it had ended its session in an orderly way.
    pub(super) fn is_lost_client(&self) -> bool {
        match self {
            Self::Mismatch { .. } => false,
            Self::Exec { side, error: exec::Error::Connection(error) } => *side == Side::Client && !error.is_farewell(),
            Self::Exec { side, .. } | Self::PortForward { side, .. } => *side == Side::Client,
        }
    }
}
