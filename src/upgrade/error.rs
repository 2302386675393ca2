//! Why a handshake failed, and who caused it.
//!
//! Only the types and their texts, which a server also sends: the client and the server decide what is an error.

use std::{fmt, io};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::ports::PortsError;
use crate::initiator::Initiator;
use crate::protocol::{Protocol, Transport};
use crate::status::Status;

/// Why an upgrade failed. The IO is dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The IO failed, or ended within the peer's head.
    #[error("connection lost during the upgrade: {0}")]
    Io(#[from] io::Error),
    /// [`Config::head_timeout`](super::Config::head_timeout) ran out.
    #[error("the peer did not finish the upgrade in time")]
    Timeout,
    /// The peer's head is longer than [`Config::max_head`](super::Config::max_head). A server answered 431.
    #[error("the head is longer than {limit} bytes")]
    HeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer's head has more lines than [`Config::max_headers`](super::Config::max_headers). A server answered 431.
    #[error("the head has more than {limit} header lines")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// The peer's head is not HTTP/1.1. A server answered 400.
    #[error("malformed head: {0}")]
    MalformedHead(HeadFault),
    /// The request, or the offers, cannot be sent. Nothing was sent.
    #[error("the request cannot be sent: {0}")]
    InvalidRequest(InvalidRequest),
    /// The response is a 1xx, which [`Pending::respond`](super::Pending::respond) cannot send. Nothing was sent.
    #[error("{0} cannot be the answer to an upgrade request")]
    InvalidResponse(StatusCode),
    /// Client: the server refused the upgrade.
    #[error("unable to upgrade connection: {0}")]
    Refused(Box<Refusal>),
    /// Client: the server answered with a redirect. An upgrade follows no redirect, because that would send the
    /// credentials elsewhere (CVE-2020-8559).
    #[error("redirect not allowed for an upgrade: {status} to {}", location.as_deref().unwrap_or("nowhere"))]
    Redirected {
        /// The status code, a 3xx.
        status: StatusCode,
        /// The `Location`, as the server wrote it.
        location: Option<String>,
    },
    /// Client: the server answered 101, but its answer does not switch to the requested protocol.
    #[error("the server answered 101 but did not switch: {0}")]
    NotSwitched(NotSwitched),
    /// Client: the server chose a protocol that was not offered. Over SPDY, a server that names no protocol has chosen
    /// `channel.k8s.io`.
    #[error("the server chose the protocol {name:?}, which was not offered")]
    ProtocolNotOffered {
        /// The name of the chosen protocol.
        name: String,
    },
    /// Server: the request is not a valid WebSocket handshake (RFC 6455). It was answered 400, 405 or 426.
    #[error("unable to upgrade: {0}")]
    Handshake(#[from] HandshakeFault),
    /// Server: a web page of another host tried to open a WebSocket
    /// ([`Config::allowed_origins`](super::Config::allowed_origins)). The request was answered 403.
    #[error("unable to upgrade: the origin {origin:?} is not allowed")]
    OriginNotAllowed {
        /// The request's `Origin`.
        origin: String,
    },
    /// Server: the bearer token among the subprotocols is not valid. The request was answered 401.
    #[error("unable to upgrade: {0}")]
    BearerToken(#[from] BearerTokenError),
    /// Server: the ports of a request for legacy port-forward are missing or not valid. The request was answered 400.
    #[error("unable to upgrade: {0}")]
    Ports(#[from] PortsError),
    /// Server: the request asks for no upgrade, or only to transports that are not supported. It was answered 400.
    #[error("unable to upgrade: missing upgrade headers in request")]
    NotAnUpgrade,
    /// Server: the upgrade request has a body, which could be taken as the first bytes of SPDY. The request was
    /// answered 400.
    #[error("unable to upgrade: the request has a body")]
    BodyNotAllowed,
    /// Server: the request names no protocol. It was answered 400.
    #[error("unable to upgrade: {}", match headers {
        Some(headers) => format!("header X-Stream-Protocol-Version does not exist in request with {headers} headers"),
        None => "header X-Stream-Protocol-Version names no protocol".to_owned(),
    })]
    NoProtocol {
        /// How many headers the request has, if `X-Stream-Protocol-Version` is missing. `None` if it is there but
        /// empty.
        headers: Option<usize>,
    },
    /// Server: the request names only protocols that the server does not support. It was answered 403.
    #[error("unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        offered.join(" "), supported.join(" "))]
    NoCommonProtocol {
        /// The names that the client offers.
        offered: Vec<String>,
        /// The names that the server supports over this transport.
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
    /// The request line or the status line is not valid.
    #[error("bad start line")]
    StartLine,
    /// The version is not HTTP/1.1. A client also accepts a refusal in HTTP/1.0.
    #[error("the version is not HTTP/1.1")]
    Version,
    /// A header line is not valid.
    #[error("bad header line")]
    Header,
    /// The request does not have exactly one `Host` header (RFC 9112 §3.2).
    #[error("not exactly one Host header")]
    Host,
}

/// What is wrong with a client's WebSocket handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFault {
    /// The method is not GET. Answered 405.
    #[error("the method of a WebSocket handshake must be GET")]
    Method,
    /// `Sec-WebSocket-Version` is not 13. Answered 426.
    #[error("missing or bad Sec-WebSocket-Version")]
    Version,
    /// `Sec-WebSocket-Key` is not 16 bytes in base64. Answered 400.
    #[error("missing or bad Sec-WebSocket-Key")]
    Key,
}

/// What is wrong with the bearer token among the subprotocols. Kubernetes refuses such a request, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BearerTokenError {
    /// There are several tokens.
    #[error("multiple bearer tokens in the subprotocols")]
    Several,
    /// The token is not base64url without padding, or not UTF-8, or empty.
    #[error("the bearer token in the subprotocols cannot be decoded")]
    Encoding,
    /// No other subprotocol is offered. A server has to name a subprotocol in its answer, and must not name the token.
    #[error("missing additional subprotocol beside the bearer token")]
    Alone,
}

/// Why a request cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// The method is neither GET nor POST. Kubernetes upgrades no other method.
    #[error("the method is neither GET nor POST")]
    Method,
    /// The request is not for HTTP/1.1. HTTP/2 and later have no such upgrade.
    #[error("the version is not HTTP/1.1")]
    Version,
    /// The URI has no path.
    #[error("the URI has no path")]
    NoPath,
    /// The path or the query has bytes that need percent-encoding.
    #[error("the path or the query is not percent-encoded")]
    PathNotEncoded,
    /// There is neither a `Host` header nor an authority in the URI.
    #[error("the request has no host")]
    NoHost,
    /// There is more than one `Host` header.
    #[error("the request has more than one Host header")]
    ManyHosts,
    /// The request has a header that the handshake sets, or that announces a body.
    #[error("the header {0} is set by the handshake")]
    ReservedHeader(http::HeaderName),
    /// The method is not GET, which WebSocket requires (RFC 6455 §4.1).
    #[error("the method of a WebSocket handshake must be GET")]
    NotGet,
    /// The offers are of more than one transport. One request can ask for only one transport.
    #[error("the offers are of more than one transport")]
    MixedOffers,
    /// For a fallback: the list of offers for this transport is empty, or names a protocol of another transport.
    #[error("the list of offers over {0} is empty or has one of another transport")]
    NotOfTransport(Transport),
    /// A protocol is offered twice.
    #[error("the protocol {0} is offered twice")]
    DuplicateOffer(Protocol),
    /// Legacy port-forward is offered, but the ports of the query are missing or not valid.
    #[error("{0}")]
    Ports(PortsError),
}

/// What is wrong with a 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSwitched {
    /// The answer is in HTTP/1.0, which has no 101 (RFC 9110 §7.8).
    #[error("the version is not HTTP/1.1")]
    Version,
    /// `Connection` does not list `upgrade`.
    #[error("the header Connection does not list upgrade")]
    Connection,
    /// `Upgrade` does not list the requested transport.
    #[error("the header Upgrade does not list the requested transport")]
    Upgrade,
    /// `Sec-WebSocket-Accept` is not the answer to the key. The server does not speak WebSocket, or answers another
    /// request.
    #[error("the header Sec-WebSocket-Accept does not match the key")]
    Accept,
    /// `Sec-WebSocket-Extensions` names an extension, but none was offered.
    #[error("the server chose an extension, but none was offered")]
    Extension,
    /// `Transfer-Encoding` or `Content-Length` announces a body, which a 101 cannot have (RFC 9112 §6).
    #[error("the 101 announces a body")]
    Body,
}

/// A server's answer that refuses an upgrade.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The status code.
    pub status: StatusCode,
    /// The headers. With a 403, `X-Accepted-Stream-Protocol-Versions` lists the protocols that the server would accept.
    pub headers: HeaderMap,
    /// The body, cut off at [`Config::max_refusal_body`](super::Config::max_refusal_body).
    pub body: Bytes,
    /// Whether the body was cut off: at that limit, at
    /// [`Config::refusal_body_timeout`](super::Config::refusal_body_timeout), or because it did not arrive whole.
    pub truncated: bool,
}

impl Refusal {
    /// The body, if it is a Kubernetes [`Status`].
    #[must_use]
    pub fn object(&self) -> Option<Status> {
        Status::from_json(&self.body).ok()
    }
}

impl fmt::Display for Refusal {
    /// Writes what the server says, as kubectl does: `message` or `error` of a JSON object such as a [`Status`], or
    /// else the body as text. If the body is empty, this writes the status line.
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
