//! Why one forwarded connection failed, or all of them.
//!
//! Also refuses a connection that negotiated another protocol. All else is decided where the error occurs.

use std::io;
use std::time::Duration;

use crate::initiator::Initiator;
use crate::mux::Multiplexer;
use crate::protocol::Protocol;
use crate::session::{ConnectionError, StreamError};
use crate::wire::spdy::RstStatus;

/// Why one forwarded connection failed, or all of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The multiplexed connection failed, and with it all forwarded connections.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The connection was not upgraded to port-forward. The field is what it was upgraded to, and `None` for raw SPDY.
    #[error("the connection was not upgraded to port-forward: it speaks {}", named(*.0))]
    NotPortForward(Option<Protocol>),
    /// A text does not name ports in the notation of `PortPair`. The field is the text.
    #[error("invalid port {0:?}: write REMOTE, LOCAL:REMOTE or :REMOTE, with port numbers, where REMOTE is not 0")]
    InvalidPort(String),
    /// The caller asked for port 0, which no connection can have.
    #[error("port 0 cannot be forwarded: ports are numbered from 1")]
    NoPort,
    /// Legacy port-forward: the upgrade request did not name this port, or the caller has already taken its connection.
    /// Each port that the request names has one connection.
    #[error("port {port}: the upgrade request did not name this port, or its one connection is taken")]
    NotAsked {
        /// The remote port.
        port: u16,
    },
    /// The server reports that this connection failed, or that it could not reach the port. Other connections go on.
    #[error("port {port}: the server reports a failure: {reason}")]
    Failed {
        /// The remote port.
        port: u16,
        /// The server's words. At most [`MAX_REASON_LEN`](super::MAX_REASON_LEN) bytes of them are kept.
        reason: String,
    },
    /// The server refused a stream of this connection.
    #[error("port {port}: the server refused the connection: {status}")]
    Refused {
        /// The remote port.
        port: u16,
        /// The status that the server reset the stream with.
        status: RstStatus,
    },
    /// The server did not answer both streams of this connection within
    /// [`Options::creation_timeout`](super::Options::creation_timeout).
    #[error("port {port}: the server did not answer within {} s", after.as_secs_f64())]
    Timeout {
        /// The remote port.
        port: u16,
        /// The time limit.
        after: Duration,
    },
    /// A stream of this connection failed.
    #[error("port {port}: {error}")]
    Stream {
        /// The remote port.
        port: u16,
        /// Why it failed.
        #[source]
        error: StreamError,
    },
    /// The socket at this end failed: the one that [`Connection::relay`](super::Connection::relay) was given.
    #[error("port {port}: the socket at this end failed: {error}")]
    Local {
        /// The remote port.
        port: u16,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
}

impl Error {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Connection(error) => error.initiator(),
            Self::Stream { error, .. } => error.initiator(),
            Self::NotPortForward(_)
            | Self::InvalidPort(_)
            | Self::NoPort
            | Self::NotAsked { .. }
            | Self::Local { .. } => Initiator::User,
            Self::Failed { .. } | Self::Refused { .. } | Self::Timeout { .. } => Initiator::Remote,
        }
    }

    pub(super) fn stream(port: u16, error: StreamError) -> Self {
        match error {
            StreamError::Connection(error) => Self::Connection(error),
            error => Self::Stream { port, error },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Connection(error) => Self::from(error.clone()).kind(),
            Error::Stream { error, .. } => Self::from(error.clone()).kind(),
            Error::NotPortForward(_) | Error::InvalidPort(_) | Error::NoPort | Error::NotAsked { .. } => {
                io::ErrorKind::InvalidInput
            }
            Error::Local { error, .. } => error.kind(),
            Error::Failed { .. } => io::ErrorKind::ConnectionAborted,
            Error::Refused { .. } => io::ErrorKind::ConnectionRefused,
            Error::Timeout { .. } => io::ErrorKind::TimedOut,
        };
        Self::new(kind, error)
    }
}

/// A protocol that is not port-forward, for people. Exec and legacy port-forward share names on the wire, and one of
/// these is empty.
fn named(protocol: Option<Protocol>) -> String {
    match protocol {
        None => "no known protocol".to_owned(),
        Some(protocol) if protocol.name().is_empty() => format!("exec over {}", protocol.transport()),
        Some(protocol) => format!("exec over {} ({protocol})", protocol.transport()),
    }
}

pub(super) fn check_protocol(mux: &Multiplexer) -> Result<(), Error> {
    match mux.protocol() {
        Some(protocol) if protocol.is_port_forward() => Ok(()),
        protocol => Err(Error::NotPortForward(protocol)),
    }
}
