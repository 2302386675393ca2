//! Why a session failed.
//!
//! Only the types: the client and the server decide what is an error.

use std::io;
use std::time::Duration;

use crate::initiator::Initiator;
use crate::protocol::Protocol;
use crate::session::{ConnectionError, StreamError};
use crate::status::{ExitStatus, StatusError};
use crate::wire::spdy::RstStatus;

/// Why a session failed, or why the query of a request is not valid. A command that ends with a non-zero exit code is
/// not an error: see [`ExitStatus`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection failed, and the session with it.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A stream of the session failed.
    #[error("the {stream} stream failed: {error}")]
    Stream {
        /// The stream's type: `error`, `stdin`, `stdout`, `stderr` or `resize`.
        stream: &'static str,
        /// Why it failed.
        #[source]
        error: StreamError,
    },
    /// The connection was not upgraded to a protocol of exec and attach. The field is what it was upgraded to, and
    /// `None` for raw SPDY.
    #[error("the connection was not upgraded to exec or attach: it speaks {}", named(*.0))]
    NotExec(Option<Protocol>),
    /// The server refused a stream of the session.
    #[error("the server refused the {stream} stream: {status}")]
    Refused {
        /// The stream's type: `error`, `stdin`, `stdout`, `stderr` or `resize`.
        stream: &'static str,
        /// The status that the server reset it with.
        status: RstStatus,
    },
    /// The peer did not do its part for all streams of the session within
    /// [`Options::creation_timeout`](super::Options::creation_timeout): a client did not open them, or a server did not
    /// answer them.
    #[error(
        "the peer did not open or answer all streams of the session within {} s (missing: {})",
        after.as_secs_f64(),
        missing.join(", ")
    )]
    CreationTimeout {
        /// The types of the streams that are missing.
        missing: Vec<&'static str>,
        /// The time limit.
        after: Duration,
    },
    /// The error stream ended without a status, so how the command ended is not known.
    #[error("the session ended, but the server sent no status: how the command ended is not known")]
    MissingStatus,
    /// All outputs ended, but no status arrived: the server was silent for
    /// [`Options::status_timeout`](super::Options::status_timeout), and it may have left stdin unread. The field is
    /// that time.
    #[error(
        "the server sent no status after the end of the output: it was silent for {} s, and may have left stdin unread",
        .0.as_secs_f64()
    )]
    StatusTimeout(Duration),
    /// The status arrived, but an output did not arrive whole: its stream was reset, the connection failed, or the
    /// server was silent for twice [`Options::output_grace`](super::Options::output_grace). The part of the output that
    /// arrived can still be read, except after `wait_with_output`, which drops the part.
    #[error("{}, but the end of {} was lost: {error}", status, missing.join(" and "))]
    Incomplete {
        /// How the command ended.
        status: ExitStatus,
        /// The names of the outputs that did not arrive whole.
        missing: Vec<&'static str>,
        /// Why the first of these outputs did not arrive whole.
        #[source]
        error: StreamError,
    },
    /// The error stream carries something that is not a status.
    #[error("the server sent a bad status: {0}")]
    BadStatus(#[from] StatusError),
    /// The query of a request asks for no stream. A kubelet answers such a request with 400 and this text.
    #[error("you must specify at least 1 of stdin, stdout, stderr")]
    NoStreams,
    /// The command wrote more to stdout or to stderr than [`Exec::wait_with_output`](super::Exec::wait_with_output) may
    /// collect.
    #[error("the command wrote more than {limit} bytes to one output")]
    OutputTooLong {
        /// The limit, in bytes for each output.
        limit: usize,
    },
}

impl Error {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Connection(error) => error.initiator(),
            Self::Stream { error, .. } | Self::Incomplete { error, .. } => error.initiator(),
            Self::NotExec(_) | Self::OutputTooLong { .. } => Initiator::User,
            Self::Refused { .. }
            | Self::CreationTimeout { .. }
            | Self::MissingStatus
            | Self::StatusTimeout(_)
            | Self::BadStatus(_)
            | Self::NoStreams => Initiator::Remote,
        }
    }
}

/// A protocol that is not exec, for people. Exec and legacy port-forward share names on the wire, and one of these is
/// empty.
fn named(protocol: Option<Protocol>) -> String {
    match protocol {
        None => "no known protocol".to_owned(),
        Some(protocol) if protocol.name().is_empty() => format!("port-forward over {}", protocol.transport()),
        Some(protocol) => format!("port-forward over {} ({protocol})", protocol.transport()),
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Connection(_) | Error::Stream { .. } => {
                return match error {
                    Error::Connection(error) => error.into(),
                    Error::Stream { error, .. } => error.into(),
                    other => Self::other(other),
                };
            }
            Error::NotExec(_) => io::ErrorKind::InvalidInput,
            Error::Refused { .. } => io::ErrorKind::ConnectionRefused,
            Error::CreationTimeout { .. } | Error::StatusTimeout(_) => io::ErrorKind::TimedOut,
            Error::MissingStatus | Error::Incomplete { .. } => io::ErrorKind::UnexpectedEof,
            Error::BadStatus(_) | Error::NoStreams => io::ErrorKind::InvalidData,
            Error::OutputTooLong { .. } => io::ErrorKind::OutOfMemory,
        };
        Self::new(kind, error)
    }
}
