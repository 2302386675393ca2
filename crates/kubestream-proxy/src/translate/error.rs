//! The errors of translating, and which side caused each.
//!
//! This module owns the type only. The other modules decide what is an error.

use kubestream::upgrade::Protocol;
use kubestream::{Initiator, exec, portforward};

use kubestream::tap::Side;

/// Why a client and a backend were not connected, or which of the two failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranslateError {
    /// A side of [`translate_exec`](crate::translate_exec) does not speak a protocol of exec and attach.
    #[error("both sides must speak exec: the client speaks {}, the backend speaks {}", named(*client), named(*backend))]
    NotExec {
        /// What the client speaks.
        client: Option<Protocol>,
        /// What the backend speaks.
        backend: Option<Protocol>,
    },
    /// A side of [`translate_port_forward`](crate::translate_port_forward) does not speak a protocol of port-forward.
    #[error(
        "both sides must speak port-forward: the client speaks {}, the backend speaks {}",
        named(*client),
        named(*backend)
    )]
    NotPortForward {
        /// What the client speaks.
        client: Option<Protocol>,
        /// What the backend speaks.
        backend: Option<Protocol>,
    },
    /// The exec or attach session with one side failed, or the client has gone away. The other side was told.
    #[error("the session with the {side} failed: {error}")]
    Exec {
        /// The side that failed.
        side: Side,
        /// Why.
        #[source]
        error: exec::Error,
    },
    /// The port-forward with one side failed. The other side was told.
    #[error("the port-forward with the {side} failed: {error}")]
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
            Self::NotExec { .. } | Self::NotPortForward { .. } => Initiator::User,
            Self::Exec { error, .. } => error.initiator(),
            Self::PortForward { error, .. } => error.initiator(),
        }
    }

    /// The side that failed. `None` if the two were not connected, because of their protocols.
    #[must_use]
    pub fn side(&self) -> Option<Side> {
        match self {
            Self::NotExec { .. } | Self::NotPortForward { .. } => None,
            Self::Exec { side, .. } | Self::PortForward { side, .. } => Some(*side),
        }
    }

    /// True if the client failed before it had ended its session in an orderly way.
    pub(super) fn is_lost_client(&self) -> bool {
        match self {
            Self::NotExec { .. } | Self::NotPortForward { .. } => false,
            Self::Exec { side, error: exec::Error::Connection(error) } => {
                *side == Side::Client && !error.is_orderly_end()
            }
            Self::Exec { side, .. } | Self::PortForward { side, .. } => *side == Side::Client,
        }
    }
}

/// A protocol for people. Exec and legacy port-forward share names on the wire, and one of these is empty.
fn named(protocol: Option<Protocol>) -> String {
    let Some(protocol) = protocol else { return "no known protocol".to_owned() };
    let purpose = if protocol.is_port_forward() { "port-forward" } else { "exec" };
    match protocol.transport() {
        transport if protocol.name().is_empty() => format!("{purpose} over {transport}"),
        transport => format!("{purpose} over {transport} ({protocol})"),
    }
}
