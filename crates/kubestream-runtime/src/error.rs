//! Why the server made no URL or did not serve a connection, and the HTTP answers in these cases.
//!
//! This module owns the types and the texts, which are those of cri-streaming. The other modules decide what is an
//! error.

use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use kubestream::upgrade::UpgradeError;
use kubestream::{Initiator, exec, portforward};

/// Why the server made no URL, did not serve a connection, or served it without an orderly end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The container's id is empty. As a gRPC status, this is `InvalidArgument`.
    #[error("missing required container_id")]
    NoContainer,
    /// The sandbox's id is empty. As a gRPC status, this is `InvalidArgument`.
    #[error("missing required pod_sandbox_id")]
    NoSandbox,
    /// The streams have both `tty` and `stderr`, but a terminal has only one output: stdout. As a gRPC status, this is
    /// `InvalidArgument`.
    #[error("tty and stderr cannot both be true")]
    TtyAndStderr,
    /// The streams have none of stdin, stdout and stderr. As a gRPC status, this is `InvalidArgument`.
    #[error("one of stdin, stdout, or stderr must be set")]
    NoStreams,
    /// [`RuntimeConfig::max_tokens`](crate::RuntimeConfig::max_tokens) URLs wait to be used. As a gRPC status, this is
    /// `ResourceExhausted`.
    #[error("maximum number of in-flight requests exceeded")]
    TooMany,
    /// The server is stopping, by [`Server::drain`](crate::Server::drain) or [`Server::stop`](crate::Server::stop). It
    /// makes no URLs and serves no new connections. `stop` also ends the connections that are being served, with this
    /// error. As a gRPC status, this is `Unavailable`.
    #[error("the streaming server is stopping")]
    Stopping,
    /// The operating system returned no random bytes for a token. As a gRPC status, this is `Internal`.
    #[error("no random bytes for a token: {0}")]
    NoRandomness(#[source] std::io::Error),
    /// The token in a connection's request is unknown, used or expired. The request was answered with 404.
    #[error("the token in the URL of the request does not exist, was used, or has expired")]
    NoSuchToken,
    /// The handshake of a connection failed.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The exec or attach session of a connection failed.
    #[error(transparent)]
    Session(#[from] exec::Error),
    /// The port-forward of a connection failed as a whole.
    #[error(transparent)]
    PortForward(#[from] portforward::Error),
}

impl Error {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::NoContainer | Self::NoSandbox | Self::TtyAndStderr | Self::NoStreams => Initiator::User,
            Self::TooMany | Self::Stopping | Self::NoRandomness(_) => Initiator::Library,
            Self::NoSuchToken => Initiator::Remote,
            Self::Upgrade(error) => error.initiator(),
            Self::Session(error) => error.initiator(),
            Self::PortForward(error) => error.initiator(),
        }
    }

    /// The answer that Go's server gives in this case: 400 for a request that is not valid, 429 with `Retry-After` for
    /// [`TooMany`](Self::TooMany), 503 with `Retry-After` for [`Stopping`](Self::Stopping), 404 for
    /// [`NoSuchToken`](Self::NoSuchToken), and otherwise 500. The client of a connection that
    /// [`Server::serve`](crate::Server::serve) failed to serve has been answered already.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        let (status, retry) = match self {
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, true),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, true),
            Self::NoContainer | Self::NoSandbox | Self::TtyAndStderr | Self::NoStreams => {
                (StatusCode::BAD_REQUEST, false)
            }
            Self::NoSuchToken => return plain(StatusCode::NOT_FOUND, "404 page not found"),
            Self::NoRandomness(_) | Self::Upgrade(_) | Self::Session(_) | Self::PortForward(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, false)
            }
        };
        let mut response = plain(status, self);
        if retry {
            // By then the waiting URLs have been used or have expired.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        response
    }
}

/// An answer with one line of plain text.
pub(crate) fn plain(status: StatusCode, message: impl fmt::Display) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{message}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
