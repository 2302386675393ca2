//! Why a handshake failed, and who is to blame for it.
//!
//! Owns the types only, and the words of a refusal. What is an error, and when, is decided where it happens.

use std::{fmt, io};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::ports::PortsError;
use crate::initiator::Initiator;
use crate::protocol::{Carrier, Protocol};
use crate::status::Status;

/// Why no upgrade came about. The IO is gone with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The IO failed, or ended before the peer's head did.
    #[error("connection lost in the upgrade: {0}")]
    Io(#[from] io::Error),
    /// [`Config::head_timeout`](super::Config::head_timeout) ran out.
    #[error("the peer did not finish the upgrade in time")]
    Timeout,
    /// The peer's head is longer than [`Config::max_head`](super::Config::max_head). A server has answered 431.
    #[error("the head is longer than {limit} bytes")]
    HeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer's head has more lines than [`Config::max_headers`](super::Config::max_headers). A server has answered 431.
    #[error("the head has more than {limit} headers")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// The peer's head is not HTTP/1.1. A server has answered 400.
    #[error("malformed head: {0}")]
    MalformedHead(HeadFault),
    /// The request, or the protocols offered with it, cannot be sent. Nothing was.
    #[error("unfit request: {0}")]
    InvalidRequest(InvalidRequest),
    /// The response is a 1xx, which [`Pending::respond`](super::Pending::respond) cannot send. Nothing was sent.
    #[error("{0} is no answer to an upgrade request")]
    InvalidResponse(StatusCode),
    /// Client: the server refused.
    #[error("unable to upgrade connection: {0}")]
    Refused(Box<Refusal>),
    /// Client: the server redirected. An upgrade follows no redirect: it would carry the credentials elsewhere
    /// (CVE-2020-8559).
    #[error("redirect not allowed for an upgrade: {status} to {}", location.as_deref().unwrap_or("nowhere"))]
    Redirected {
        /// The 3xx.
        status: StatusCode,
        /// Where to, as the server says it.
        location: Option<String>,
    },
    /// Client: the server said 101, but not that it switched to what it was asked for.
    #[error("101 without the switch: {0}")]
    NotSwitched(NotSwitched),
    /// Client: the server chose a protocol that was not offered. Go's servers mean `channel.k8s.io` when they name none.
    #[error("the server chose the protocol {name:?}, which was not offered")]
    ProtocolNotOffered {
        /// What it chose.
        name: String,
    },
    /// Server: the request asks for an upgrade to WebSocket that RFC 6455 does not know. It was answered 400, 405 or 426.
    #[error("unable to upgrade: {0}")]
    Handshake(#[from] HandshakeFault),
    /// Server: a page of another host opens a WebSocket ([`Config::origins`](super::Config::origins)). It was answered 403.
    #[error("unable to upgrade: the origin {origin:?} is not allowed")]
    OriginNotAllowed {
        /// What the request says.
        origin: String,
    },
    /// Server: a token among the subprotocols that is none. It was answered 401.
    #[error("unable to upgrade: {0}")]
    BearerToken(#[from] BearerTokenError),
    /// Server: the old form of port-forward, and not the ports for it. It was answered 400.
    #[error("unable to upgrade: {0}")]
    Ports(#[from] PortsError),
    /// Server: the request asks for no upgrade to a protocol that is supported. It was answered 400.
    #[error("unable to upgrade: missing upgrade headers in request")]
    NotAnUpgrade,
    /// Server: an upgrade request with a body, which could be taken for the first bytes of SPDY. It was answered 400.
    #[error("unable to upgrade: the request has a body")]
    BodyNotAllowed,
    /// Server: the request names no protocol. It was answered 400.
    #[error("unable to upgrade: {}", match headers {
        Some(headers) => format!("header X-Stream-Protocol-Version does not exist in request with {headers} headers"),
        None => "header X-Stream-Protocol-Version names no protocol".to_owned(),
    })]
    NoProtocol {
        /// How many headers the request has, none of which is `X-Stream-Protocol-Version`; `None` where it is there and
        /// empty.
        headers: Option<usize>,
    },
    /// Server: the request names only protocols that the server does not support. It was answered 403.
    #[error("unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        offered.join(" "), supported.join(" "))]
    NoCommonProtocol {
        /// What the client offers.
        offered: Vec<String>,
        /// What the server supports.
        supported: Vec<&'static str>,
    },
}

impl UpgradeError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::InvalidRequest(_) | Self::InvalidResponse(_) => Initiator::User,
            Self::Io(_)
            | Self::Timeout
            | Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::MalformedHead(_)
            | Self::Refused(_)
            | Self::Redirected { .. }
            | Self::NotSwitched(_)
            | Self::ProtocolNotOffered { .. }
            | Self::NotAnUpgrade
            | Self::BodyNotAllowed
            | Self::NoProtocol { .. }
            | Self::NoCommonProtocol { .. } => Initiator::Remote,
            Self::Handshake(_) | Self::OriginNotAllowed { .. } | Self::BearerToken(_) | Self::Ports(_) => {
                Initiator::Remote
            }
        }
    }
}

impl UpgradeError {
    pub(super) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Timeout => io::ErrorKind::TimedOut,
            Self::InvalidRequest(_) | Self::InvalidResponse(_) => io::ErrorKind::InvalidInput,
            Self::Refused(refusal) => match refusal.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => io::ErrorKind::PermissionDenied,
                StatusCode::NOT_FOUND => io::ErrorKind::NotFound,
                _ => io::ErrorKind::ConnectionRefused,
            },
            Self::Redirected { .. } => io::ErrorKind::ConnectionRefused,
            Self::NoCommonProtocol { .. } => io::ErrorKind::Unsupported,
            Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::MalformedHead(_)
            | Self::NotSwitched(_)
            | Self::ProtocolNotOffered { .. }
            | Self::NotAnUpgrade
            | Self::BodyNotAllowed
            | Self::NoProtocol { .. } => io::ErrorKind::InvalidData,
            Self::Handshake(_) | Self::Ports(_) => io::ErrorKind::InvalidData,
            Self::OriginNotAllowed { .. } | Self::BearerToken(_) => io::ErrorKind::PermissionDenied,
        }
    }
}

impl From<UpgradeError> for io::Error {
    fn from(error: UpgradeError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadFault {
    /// The request line or the status line.
    #[error("bad start line")]
    StartLine,
    /// The version is not HTTP/1.1. A client takes a refusal in HTTP/1.0 too.
    #[error("the version is not HTTP/1.1")]
    Version,
    /// A header line.
    #[error("bad header line")]
    Header,
    /// A request needs one `Host`, and no more (RFC 9112 §3.2).
    #[error("not one Host header")]
    Host,
}

/// What is wrong with a client's WebSocket handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFault {
    /// The method is not GET. Answered 405.
    #[error("a WebSocket is opened by GET")]
    Method,
    /// `Sec-WebSocket-Version` is not 13. Answered 426.
    #[error("missing or bad Sec-WebSocket-Version")]
    Version,
    /// `Sec-WebSocket-Key` is not 16 bytes in base64. Answered 400.
    #[error("missing or bad Sec-WebSocket-Key")]
    Key,
}

/// A token among the subprotocols that is none. Kubernetes refuses such a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BearerTokenError {
    /// There are several.
    #[error("multiple bearer tokens in the subprotocols")]
    Several,
    /// It is not base64url without padding, or not UTF-8, or empty.
    #[error("a bearer token in the subprotocols that cannot be decoded")]
    Encoding,
    /// No subprotocol is offered beside it, and the server cannot echo a token.
    #[error("missing additional subprotocol beside the bearer token")]
    Alone,
}

/// Why a request cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// Kubernetes upgrades GET and POST only.
    #[error("the method is neither GET nor POST")]
    Method,
    /// HTTP/2 and later have no such upgrade.
    #[error("the version is not HTTP/1.1")]
    Version,
    /// The URI has no path.
    #[error("the URI has no path")]
    NoPath,
    /// The path or the query has bytes that need percent-encoding.
    #[error("the path or the query is not percent-encoded")]
    PathNotEncoded,
    /// There is neither a `Host` header nor an authority in the URI.
    #[error("no host")]
    NoHost,
    /// There is more than one `Host` header.
    #[error("more than one host")]
    ManyHosts,
    /// The header is the handshake's own, or speaks of a body.
    #[error("the header {0} is set by the handshake")]
    ReservedHeader(http::HeaderName),
    /// WebSocket upgrades GET only (RFC 6455 §4.1).
    #[error("the method is not GET")]
    NotGet,
    /// One request asks for one carrier.
    #[error("protocols of several carriers are offered")]
    MixedOffers,
    /// For a fallback: there are no protocols for the carrier, or some of another.
    #[error("not all that is offered over {0} is of {0}, or nothing is")]
    NotOfCarrier(Carrier),
    /// A protocol is offered twice.
    #[error("the protocol {0} is offered twice")]
    DuplicateOffer(Protocol),
    /// The old form of port-forward is offered, and the query does not say the ports.
    #[error("{0}")]
    Ports(PortsError),
}

/// What is wrong with a 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSwitched {
    /// It is of HTTP/1.0, which has none (RFC 9110 §7.8).
    #[error("the version is not HTTP/1.1")]
    Version,
    /// `Connection` does not list `upgrade`.
    #[error("Connection does not say upgrade")]
    Connection,
    /// `Upgrade` does not list what was asked for.
    #[error("Upgrade does not say what was asked for")]
    Upgrade,
    /// `Sec-WebSocket-Accept` is not the answer to the key: it comes from no WebSocket server, or for another request.
    #[error("Sec-WebSocket-Accept does not answer the key")]
    Accept,
    /// `Sec-WebSocket-Extensions` names one, and none was offered.
    #[error("an extension that was not offered")]
    Extension,
    /// `Transfer-Encoding` or `Content-Length` announces a body, which a 101 has not (RFC 9112 §6).
    #[error("a body is announced")]
    Body,
}

/// How a server refused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// Its headers. `X-Accepted-Stream-Protocol-Versions` of a 403 says what the server would have taken.
    pub headers: HeaderMap,
    /// Its body, at most [`Config::max_refusal_body`](super::Config::max_refusal_body).
    pub body: Bytes,
    /// Whether there was more of the body than that, or than came in time.
    pub truncated: bool,
}

impl Refusal {
    /// The body, where it is a Kubernetes [`Status`].
    #[must_use]
    pub fn object(&self) -> Option<Status> {
        Status::from_json(&self.body).ok()
    }
}

impl fmt::Display for Refusal {
    /// What the server says, as kubectl reads it: the message of a [`Status`], the `message` or `error` of another JSON
    /// object, else the text of the body. The status line where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Json {
            message: String,
            error: String,
        }
        let json: Json = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = String::from_utf8_lossy(&self.body);
        match [json.message.trim(), json.error.trim(), text.trim()].into_iter().find(|text| !text.is_empty()) {
            Some(text) => f.write_str(text),
            None => self.status.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &'static str) -> Refusal {
        let (status, headers) = (StatusCode::BAD_GATEWAY, HeaderMap::new());
        Refusal { status, headers, body: Bytes::from_static(body.as_bytes()), truncated: false }
    }

    #[test]
    fn a_refusal_says_what_kubectl_would() {
        for (body, said) in [
            (
                r#"{"kind":"Status","status":"Failure","message":"pods \"nope\" not found","code":404}"#,
                "pods \"nope\" not found",
            ),
            (r#"{"message":"upstream down"}"#, "upstream down"),
            (r#"{"error":"upstream down"}"#, "upstream down"),
            (r#"{"error":{"code":502}}"#, r#"{"error":{"code":502}}"#),
            ("container not found (\"main\")\n", "container not found (\"main\")"),
            ("  \n", "502 Bad Gateway"),
            ("", "502 Bad Gateway"),
        ] {
            assert_eq!(refusal(body).to_string(), said);
        }
        assert_eq!(refusal(r#"{"status":"Failure","code":404}"#).object().unwrap().code, Some(404));
        assert_eq!(refusal(r#"{"status":502,"error":"Bad Gateway"}"#).object(), None);
    }

    #[test]
    fn an_error_says_who_caused_it_and_fits_an_io_error() {
        let refused = || Refusal { status: StatusCode::FORBIDDEN, ..refusal("no") };
        for (error, initiator, kind) in [
            (UpgradeError::Timeout, Initiator::Remote, io::ErrorKind::TimedOut),
            (UpgradeError::InvalidRequest(InvalidRequest::NoHost), Initiator::User, io::ErrorKind::InvalidInput),
            (UpgradeError::Refused(Box::new(refused())), Initiator::Remote, io::ErrorKind::PermissionDenied),
            (UpgradeError::NotSwitched(NotSwitched::Body), Initiator::Remote, io::ErrorKind::InvalidData),
        ] {
            assert_eq!(error.initiator(), initiator);
            let text = error.to_string();
            let error = io::Error::from(error);
            assert_eq!((error.kind(), error.to_string()), (kind, text));
        }
    }
}
