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

/// Why a session failed, or could not be asked for. A command that ends with a non-zero exit code is not such a
/// failure: see [`ExitStatus`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A stream of the session failed.
    #[error("the {stream} stream failed: {error}")]
    Stream {
        /// The stream's type.
        stream: &'static str,
        /// Why it failed.
        #[source]
        error: StreamError,
    },
    /// The connection was not upgraded to an exec protocol.
    #[error("the connection speaks {0:?}, not a protocol of exec")]
    NotExec(Option<Protocol>),
    /// The server refused a stream of the session.
    #[error("the server refused the {stream} stream: {status}")]
    Refused {
        /// The stream's type.
        stream: &'static str,
        /// The status that the server reset it with.
        status: RstStatus,
    },
    /// Not all streams of the session were made and answered within
    /// [`Options::creation_timeout`](super::Options::creation_timeout).
    #[error("timed out waiting for the streams: {missing:?} missing after {after:?}")]
    CreationTimeout {
        /// The types of the streams that are missing.
        missing: Vec<&'static str>,
        /// The time limit.
        after: Duration,
    },
    /// The error stream ended without a status, so how the command ended is not known.
    #[error("the session ended without a status")]
    MissingStatus,
    /// All outputs ended, but no status arrived: the server, which may have unread stdin, was silent for
    /// [`Options::status_timeout`](super::Options::status_timeout).
    #[error(
        "no status came after the end of the output: the server, which may have unread stdin, was silent for {0:?}"
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
    #[error("bad status from the server: {0}")]
    BadStatus(#[from] StatusError),
    /// The request asks for no stream. A kubelet answers it with 400 and the same text.
    #[error("you must specify at least 1 of stdin, stdout, stderr")]
    NoStreams,
    /// The command wrote more than `wait_with_output` may collect.
    #[error("the command wrote more than {limit} bytes")]
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
