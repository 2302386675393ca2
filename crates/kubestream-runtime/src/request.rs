//! What a kubelet asks a runtime to prepare, and what of it cannot be.
//!
//! Owns the checks, which are those of cri-streaming, in its words.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::Initiator;
use crate::exec::Streams;
use crate::upgrade;

/// A command in a container: CRI's `ExecRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exec {
    /// The container.
    pub container_id: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The streams.
    pub streams: Streams,
}

/// A container's own process: CRI's `AttachRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attach {
    /// The container.
    pub container_id: String,
    /// The streams.
    pub streams: Streams,
}

/// Connections to ports of a pod: CRI's `PortForwardRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortForward {
    /// The pod's sandbox.
    pub pod_sandbox_id: String,
    /// CRI's `port`, which a kubelet fills in for clients of the old form of port-forward: those name their ports in the request,
    /// which stays with it. The others say each port when they want it. Where it is empty, the old form takes the query of
    /// the URL that is asked for. Default: none.
    pub ports: Vec<u16>,
}

impl Exec {
    /// A command.
    pub fn new<S: Into<String>>(
        container_id: impl Into<String>,
        command: impl IntoIterator<Item = S>,
        streams: Streams,
    ) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self { container_id: container_id.into(), command, streams }
    }

    pub(super) fn check(&self) -> Result<(), RequestError> {
        check(&self.container_id, self.streams)
    }
}

impl Attach {
    /// The container's process.
    pub fn new(container_id: impl Into<String>, streams: Streams) -> Self {
        Self { container_id: container_id.into(), streams }
    }

    pub(super) fn check(&self) -> Result<(), RequestError> {
        check(&self.container_id, self.streams)
    }
}

impl PortForward {
    /// A pod's ports.
    pub fn new(pod_sandbox_id: impl Into<String>) -> Self {
        Self { pod_sandbox_id: pod_sandbox_id.into(), ports: Vec::new() }
    }

    pub(super) fn check(&self) -> Result<(), RequestError> {
        if self.pod_sandbox_id.is_empty() { Err(RequestError::NoSandbox) } else { Ok(()) }
    }
}

fn check(container: &str, streams: Streams) -> Result<(), RequestError> {
    let Streams { stdin, stdout, stderr, tty } = streams;
    if container.is_empty() {
        Err(RequestError::NoContainer)
    } else if tty && stderr {
        Err(RequestError::TtyAndStderr)
    } else if !(stdin || stdout || stderr) {
        Err(RequestError::NoStreams)
    } else {
        Ok(())
    }
}

/// Why there is no URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// gRPC's `InvalidArgument`.
    #[error("missing required container_id")]
    NoContainer,
    /// gRPC's `InvalidArgument`.
    #[error("missing required pod_sandbox_id")]
    NoSandbox,
    /// gRPC's `InvalidArgument`: a terminal has one output.
    #[error("tty and stderr cannot both be true")]
    TtyAndStderr,
    /// gRPC's `InvalidArgument`.
    #[error("one of stdin, stdout, or stderr must be set")]
    NoStreams,
    /// gRPC's `ResourceExhausted`: [`Config::max_tokens`](super::Config::max_tokens) URLs wait to be used.
    #[error("maximum number of in-flight requests exceeded")]
    TooMany,
    /// gRPC's `Unavailable`: the server stops.
    #[error("the streaming server is stopping")]
    Stopping,
    /// gRPC's `Internal`: the system has no randomness to give.
    #[error("no token can be made: {0}")]
    NoRandomness(#[source] std::io::Error),
}

impl RequestError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::NoContainer | Self::NoSandbox | Self::TtyAndStderr | Self::NoStreams => Initiator::User,
            Self::TooMany | Self::Stopping | Self::NoRandomness(_) => Initiator::Library,
        }
    }

    /// What a kubelet answers its client with, as Go's: 429 with `Retry-After` where there are too many, 503 with it while
    /// stopping, 400 for what is wrong with the request, else 500.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        let (status, retry) = match self {
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, true),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, true),
            Self::NoRandomness(_) => (StatusCode::INTERNAL_SERVER_ERROR, false),
            Self::NoContainer | Self::NoSandbox | Self::TtyAndStderr | Self::NoStreams => {
                (StatusCode::BAD_REQUEST, false)
            }
        };
        let mut response = upgrade::plain(status, self);
        if retry {
            // By then what waits has been used or has expired.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        response
    }
}
