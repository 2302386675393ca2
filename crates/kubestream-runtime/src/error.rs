//! Why the server made no URL or did not serve a connection, and the HTTP answers to that.
//!
//! This module owns the types and the texts, which are those of cri-streaming. The other modules decide what is an
//! error.

use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use kubestream::upgrade::UpgradeError;
use kubestream::{Initiator, exec, portforward};

/// Why the server made no URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The container's id is empty. gRPC's `InvalidArgument`.
    #[error("missing required container_id")]
    NoContainer,
    /// The sandbox's id is empty. gRPC's `InvalidArgument`.
    #[error("missing required pod_sandbox_id")]
    NoSandbox,
    /// A terminal has one output, stdout. gRPC's `InvalidArgument`.
    #[error("tty and stderr cannot both be true")]
    TtyAndStderr,
    /// No stream is asked for. gRPC's `InvalidArgument`.
    #[error("one of stdin, stdout, or stderr must be set")]
    NoStreams,
    /// [`RuntimeConfig::max_tokens`](crate::RuntimeConfig::max_tokens) URLs wait to be used. gRPC's `ResourceExhausted`.
    #[error("maximum number of in-flight requests exceeded")]
    TooMany,
    /// The server is stopping. gRPC's `Unavailable`.
    #[error("the streaming server is stopping")]
    Stopping,
    /// The system gave no random bytes for a token. gRPC's `Internal`.
    #[error("no random bytes for a token: {0}")]
    NoRandomness(#[source] std::io::Error),
}

impl UrlError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::NoContainer | Self::NoSandbox | Self::TtyAndStderr | Self::NoStreams => Initiator::User,
            Self::TooMany | Self::Stopping | Self::NoRandomness(_) => Initiator::Library,
        }
    }

    /// The answer that Go's server gives in this case: 400 for a request that is not valid, 429 with `Retry-After` for
    /// [`TooMany`](Self::TooMany), 503 with `Retry-After` for [`Stopping`](Self::Stopping), and otherwise 500.
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
        let mut response = plain(status, self);
        if retry {
            // By then the waiting URLs have been used or have expired.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        response
    }
}

/// Why a connection was not served, or did not end in an orderly way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The token is unknown, used or expired. The request was answered with 404.
    #[error("the token does not exist, was used, or has expired")]
    NoSuchToken,
    /// The server is stopping, by [`Server::drain`](crate::Server::drain) or [`Server::stop`](crate::Server::stop).
    #[error("the streaming server is stopping")]
    Stopped,
    /// The handshake failed.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The session failed.
    #[error(transparent)]
    Session(#[from] exec::Error),
    /// The port-forward failed as a whole.
    #[error(transparent)]
    PortForward(#[from] portforward::Error),
}

/// An answer with one line of plain text.
pub(crate) fn plain(status: StatusCode, message: impl fmt::Display) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{message}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
