//! Exec and attach sessions: the five streams of one remote process.
//!
//! Owns which streams a session has, in which order they are made and what each protocol version makes of them
//! (`channel.k8s.io` to `v5.channel.k8s.io`). How streams are carried is [`mux`](crate::mux)'s, and what the error stream
//! says is [`status`](crate::status)'s.
//!
//! ```
//! use kubestream::exec::Streams;
//! use kubestream::mux::{Config, Multiplexer};
//! use kubestream::status::ExitStatus;
//! use kubestream::upgrade::{Protocol, Upgraded, Version};
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = tokio::io::duplex(64 * 1024);
//! let protocol = Some(Protocol::Exec(Version::V4));
//! let (server, driver) = Multiplexer::server(Upgraded::new(far, Default::default(), protocol), Config::exec());
//! tokio::spawn(driver);
//! tokio::spawn(async move {
//!     let mut process = server.accept_exec(Streams::OUTPUT).await?;
//!     process.stdout.take().unwrap().write_all(b"hello\n").await?;
//!     process.exit(ExitStatus::Code(7)).await?;
//!     Ok::<(), std::io::Error>(())
//! });
//!
//! let (client, driver) = Multiplexer::client(Upgraded::new(near, Default::default(), protocol), Config::exec());
//! tokio::spawn(driver);
//! let output = client.exec(Streams::OUTPUT).await?.wait_with_output(1024).await?;
//! assert_eq!((&output.stdout[..], output.status.code()), (&b"hello\n"[..], Some(7)));
//! # Ok(())
//! # }
//! ```

mod client;
mod request;
mod server;

use std::io;
use std::time::Duration;

pub use client::{Exec, Output, RemoteOutput, RemoteStdin, Resizer};
pub use request::{ExecRequest, RequestError};
pub use server::{ExecServer, ProcessOutput, ProcessStdin, Resizes};

use crate::initiator::Initiator;
use crate::mux::Multiplexer;
use crate::protocol::STREAM_TYPE;
use crate::protocol::{Carrier, Protocol, Version};
use crate::session::{ConnectionError, StreamError};
use crate::status::{ExitStatus, StatusError};
use crate::wire::spdy::{Headers, RstStatus};

/// Which streams a session has beside the error stream. Both ends have to name the same ones: the client's request says
/// them in its query ([`ExecRequest`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // the protocol has these streams and will have no others
pub struct Streams {
    /// The process reads what the client sends.
    pub stdin: bool,
    /// The client gets what the process writes.
    pub stdout: bool,
    /// The client gets what the process writes to stderr. Not with `tty`, where stdout carries both.
    pub stderr: bool,
    /// The process runs on a terminal, and from v3 on, or over WebSocket, the client sends its size.
    pub tty: bool,
}

impl Streams {
    /// stdout and stderr, nothing in: a command whose output is wanted.
    pub const OUTPUT: Self = Self { stdin: false, stdout: true, stderr: true, tty: false };
    /// stdin, stdout and stderr: `kubectl exec -i`.
    pub const PIPES: Self = Self { stdin: true, stdout: true, stderr: true, tty: false };
    /// A terminal: `kubectl exec -it`.
    pub const TTY: Self = Self { stdin: true, stdout: true, stderr: false, tty: true };

    /// The types of the streams, in the order client-go makes them.
    fn types(self, protocol: Protocol, version: Version) -> impl Iterator<Item = StreamType> {
        // Every WebSocket has the channel, whatever the version.
        let resizes = protocol.carrier() != Carrier::Spdy || version >= Version::V3;
        let wanted = move |kind: &StreamType| match kind {
            StreamType::Error => true,
            StreamType::Stdin => self.stdin,
            StreamType::Stdout => self.stdout,
            StreamType::Stderr => self.stderr && !self.tty,
            StreamType::Resize => self.tty && resizes,
        };
        StreamType::ALL.into_iter().filter(wanted)
    }
}

/// What a stream of a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamType {
    Error,
    Stdin,
    Stdout,
    Stderr,
    Resize,
}

impl StreamType {
    const ALL: [Self; 5] = [Self::Error, Self::Stdin, Self::Stdout, Self::Stderr, Self::Resize];

    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Resize => "resize",
        }
    }

    fn of(headers: &Headers) -> Option<Self> {
        let name = headers.get(STREAM_TYPE)?;
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn headers(self) -> Headers {
        Headers::from_iter([(STREAM_TYPE, self.name())])
    }
}

/// How long a session waits for what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For all streams to be made and answered. Default: 30 s, as Kubernetes' servers and clients.
    pub creation_timeout: Duration,
    /// For a sign of life from the server, once all outputs have ended while it may have stdin of ours unread: a Go server whose
    /// process did not read a megabyte of it never sends a status. At half of this time it is asked. Whoever answers, or was sent
    /// no stdin, is waited for: a command may close its outputs and work on for hours. Default: 10 s.
    pub status_timeout: Duration,
    /// For a sign of life from the server, once the status is there and outputs have not ended: after so long it is asked, and after as
    /// long again given up, so that it takes twice this. Whoever answers or sends is waited for. Default: 5 s.
    pub output_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            creation_timeout: Duration::from_secs(30),
            status_timeout: Duration::from_secs(10),
            output_grace: Duration::from_secs(5),
        }
    }
}

/// Why a session failed. The exit of the remote command, whatever its code, is no failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A stream of the session failed.
    #[error("the {stream} stream failed: {error}")]
    Stream {
        /// Its type.
        stream: &'static str,
        /// Why.
        #[source]
        error: StreamError,
    },
    /// The connection was not upgraded to an exec protocol.
    #[error("the connection speaks {0:?}, not a remote-command protocol")]
    NotExec(Option<Protocol>),
    /// The server did not take a stream of the session.
    #[error("the server refused the {stream} stream: {status}")]
    Refused {
        /// Its type.
        stream: &'static str,
        /// What it was reset with.
        status: RstStatus,
    },
    /// The streams of the session were not all made, or answered, in [`Options::creation_timeout`].
    #[error("timed out waiting for the streams: {missing:?} missing after {after:?}")]
    CreationTimeout {
        /// The types that are missing.
        missing: Vec<&'static str>,
        /// How long they were waited for.
        after: Duration,
    },
    /// The error stream ended without a status: how the command ended is not known.
    #[error("the session ended without a status")]
    MissingStatus,
    /// All outputs ended, no status came, and the server, which may have stdin of ours unread, was silent for
    /// [`Options::status_timeout`].
    #[error(
        "no status came after the end of the output, and the server, which has not read all of stdin, was silent for {0:?}"
    )]
    StatusTimeout(Duration),
    /// The status came, but not the end of an output: its stream was reset, the connection failed, or the server was silent for twice
    /// [`Options::output_grace`]. What came of the output is there to be read, but for `wait_with_output`, which drops it.
    #[error("{}, but the end of {} was lost: {error}", status, missing.join(" and "))]
    Incomplete {
        /// How the command ended.
        status: ExitStatus,
        /// The outputs that did not come to their end.
        missing: Vec<&'static str>,
        /// Why the first of them ended early.
        #[source]
        error: StreamError,
    },
    /// The error stream carries something that is no status.
    #[error("bad status from the server: {0}")]
    BadStatus(#[from] StatusError),
    /// The command wrote more than was to be collected.
    #[error("the command wrote more than {limit} bytes")]
    OutputTooLong {
        /// The limit.
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
            | Self::BadStatus(_) => Initiator::Remote,
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
            Error::BadStatus(_) => io::ErrorKind::InvalidData,
            Error::OutputTooLong { .. } => io::ErrorKind::OutOfMemory,
        };
        Self::new(kind, error)
    }
}

fn exec_protocol(mux: &Multiplexer) -> Result<(Protocol, Version), Error> {
    let protocol = mux.protocol();
    protocol.and_then(|protocol| Some((protocol, protocol.version()?))).ok_or(Error::NotExec(protocol))
}
