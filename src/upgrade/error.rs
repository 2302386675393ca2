//! Why a handshake failed, and who caused it.
//!
//! Only the type and its texts, which a server also sends: the client and the server decide what is an error.

use std::io;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::refusal;
use crate::initiator::Initiator;
use crate::status::Status;

/// Why an upgrade failed. The IO of the connection was dropped.
///
/// Texts are for people, and may change. A program can tell the cases apart by the variants.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The IO failed, or ended before the end of the peer's head. Or the caller's `dial` failed, in
    /// [`connect_with_fallback`](super::connect_with_fallback).
    #[error("the connection failed before the upgrade was complete: {0}")]
    Io(#[from] io::Error),
    /// The peer did not send its whole head, or did not accept what this end wrote, within
    /// [`Config::head_timeout`](super::Config::head_timeout), or at a client within
    /// [`Config::answer_timeout`](super::Config::answer_timeout).
    #[error("the peer did not finish the upgrade in time")]
    Timeout,
    /// The peer's head is longer than [`Config::max_head`](super::Config::max_head). If this end is the server, it has
    /// answered 431.
    #[error("the head is longer than {limit} bytes")]
    HeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer's head has more header lines than [`Config::max_headers`](super::Config::max_headers). If this end is
    /// the server, it has answered 431.
    #[error("the head has more than {limit} header lines")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// Server: the path and the query of the request do not fit into an [`http::Uri`], and
    /// [`Config::long_queries`](super::Config::long_queries) is not set, or the path alone does not fit. It was answered
    /// 414.
    #[error("the path and the query are longer than {limit} bytes")]
    TargetTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer's head is neither HTTP/1.1 nor HTTP/1.0. The text says what is wrong: the start line, the version, a
    /// header line, or, in a request, that there is not exactly one `Host` (RFC 9112 §3.2), which HTTP/1.0 may leave
    /// out. If this end is the server, it has answered 400.
    #[error("malformed head: {0}")]
    MalformedHead(&'static str),
    /// Client: the caller's request or its list of protocols cannot be sent, and nothing was sent. The text says what
    /// is missing or wrong. The docs of [`connect`](super::connect) and
    /// [`connect_with_fallback`](super::connect_with_fallback) say what they need.
    #[error("the request cannot be sent: {0}")]
    InvalidRequest(String),
    /// Server: the caller's response is a 1xx, which [`Pending::respond`](super::Pending::respond) cannot send. Nothing
    /// was sent.
    #[error("a response with the status {0} cannot be the final answer to a request")]
    InvalidResponse(StatusCode),
    /// Client: the server, or a gateway before it, refused the upgrade. The error's text is one line, safe for a
    /// terminal. It has the reason: `message` or `error` of a JSON object, the title of an HTML page, or else the first
    /// line of the body. It also has the status, and `Server` and `Via`, which tell whose answer it is. If such an
    /// answer has a known cause in a gateway, the text ends with it.
    #[error("{}{}", refusal::said(response), hint(refusal::hint(response, *sent)))]
    #[non_exhaustive]
    Refused {
        /// The server's answer. With a 403, `X-Accepted-Stream-Protocol-Versions` lists the protocols that the server
        /// would accept. The body is cut off at [`Config::max_refusal_body`](super::Config::max_refusal_body). It may
        /// be a Kubernetes [`Status`](crate::status::Status), which `Status::from_json` reads.
        response: Box<Response<Bytes>>,
        /// Whether the body was cut off: at that limit, at
        /// [`Config::refusal_body_timeout`](super::Config::refusal_body_timeout), or because it did not arrive whole.
        truncated: bool,
        /// How many bytes the head of the request had. Gateways limit it, some to 8 KB, and do not always say so.
        sent: usize,
    },
    /// Client: the server answered with a redirect. This crate follows no redirect, because that would send the
    /// credentials elsewhere (CVE-2020-8559).
    #[error(
        "the server redirects the upgrade, and redirects are not followed: {status} to {}",
        location.as_deref().map_or_else(|| "nowhere".to_owned(), refusal::short)
    )]
    Redirected {
        /// The status code, a 3xx.
        status: StatusCode,
        /// The `Location`, as the server wrote it.
        location: Option<String>,
    },
    /// Client: the server answered 101, but its answer does not switch to the requested protocol. The text says why:
    /// the version is not HTTP/1.1 (RFC 9110 §7.8), `Connection` or `Upgrade` does not name the upgrade to the
    /// transport, the 101 announces a body (RFC 9112 §6), `Sec-WebSocket-Accept` is not the answer to the key, or the
    /// server chose an extension, although none was offered.
    #[error("the server answered 101, but did not switch to the requested protocol: {0}")]
    NotSwitched(&'static str),
    /// Client: the server chose a protocol that the client had not offered. Over SPDY, a server that names no protocol
    /// has chosen `channel.k8s.io`.
    #[error("the server chose the protocol \"{}\", which the client had not offered", refusal::short(name))]
    ProtocolNotOffered {
        /// The name of the chosen protocol.
        name: String,
    },
    /// Client: the server refused WebSocket, and then SPDY failed, or the connection for it could not be made.
    /// [`connect_with_fallback`](super::connect_with_fallback) returns this.
    ///
    /// The text is one line. What is the same over both transports is said once. The fields have all that the server said.
    #[error("{}", both(websocket, spdy))]
    #[non_exhaustive]
    Fallback {
        /// Why the server refused WebSocket.
        websocket: Box<Self>,
        /// Why SPDY failed.
        #[source]
        spdy: Box<Self>,
    },
    /// Proxy: the backend failed, or the request for it is not valid. Every other error of
    /// [`Pending::pass_on`](super::Pending::pass_on) is about the client.
    #[error("the upgrade at the backend failed: {0}")]
    Backend(#[source] Box<Self>),
    /// Server: the request is not a valid WebSocket handshake (RFC 6455).
    #[error("unable to upgrade: {reason}")]
    #[non_exhaustive]
    Handshake {
        /// The status code of the answer: 405 if the method is not GET, 426 if `Sec-WebSocket-Version` is not 13, 400
        /// if `Sec-WebSocket-Key` is not 16 bytes in base64.
        status: StatusCode,
        /// What is wrong.
        reason: &'static str,
    },
    /// Server: a web page of another host tried to open a WebSocket
    /// ([`Config::allowed_origins`](super::Config::allowed_origins)). The request was answered 403.
    #[error("unable to upgrade: the origin {origin:?} is not allowed")]
    OriginNotAllowed {
        /// The request's `Origin`.
        origin: String,
    },
    /// Server: the bearer token among the subprotocols is not valid. The text says why: there are several tokens, the
    /// token is not base64url without padding, or not UTF-8, or empty, or the client offers no other subprotocol. (A
    /// server names one of the offered subprotocols in its answer, and must not repeat the token there.) Kubernetes
    /// refuses such requests, too. The request was answered 401.
    #[error("unable to upgrade: {0}")]
    BearerToken(&'static str),
    /// Server: a request for legacy port-forward names no port. It was answered 400.
    #[error("query parameter \"port\" is required")]
    NoPort,
    /// Server: a port of a request for port-forward is not a number from 1 to 65535. A request for legacy port-forward
    /// was answered 400. This is also the error of [`asked_ports`](super::asked_ports), which only reads a query, and
    /// answers nothing.
    #[error("unable to parse {port:?} as a port")]
    InvalidPort {
        /// What the request has in place of a port.
        port: String,
    },
    /// Server: a request for legacy port-forward names more ports than one connection can have
    /// ([`Subprotocol::max_ports`](crate::protocol::Subprotocol::max_ports)). It was answered 400.
    #[error("the request asks for {asked} ports, but one connection has at most {most}")]
    TooManyPorts {
        /// How many ports the request names.
        asked: usize,
        /// The maximum number of ports of one connection.
        most: usize,
    },
    /// Server: the request asks for no upgrade, or only to protocols that are not supported, or in HTTP/1.0. It was
    /// answered 400.
    #[error("unable to upgrade: missing upgrade headers in request")]
    NotAnUpgrade,
    /// Server: the request for an upgrade to SPDY or WebSocket has a body. A body is not allowed, because a proxy could
    /// pass it on as the first bytes of SPDY. The request was answered 400.
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
            Self::Fallback { spdy: error, .. } | Self::Backend(error) => error.initiator(),
            Self::Io(_)
            | Self::Timeout
            | Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::TargetTooLong { .. }
            | Self::MalformedHead(_)
            | Self::Refused { .. }
            | Self::Redirected { .. }
            | Self::NotSwitched(_)
            | Self::ProtocolNotOffered { .. }
            | Self::Handshake { .. }
            | Self::OriginNotAllowed { .. }
            | Self::BearerToken(_)
            | Self::NoPort
            | Self::InvalidPort { .. }
            | Self::TooManyPorts { .. }
            | Self::NotAnUpgrade
            | Self::BodyNotAllowed
            | Self::NoProtocol { .. }
            | Self::NoCommonProtocol { .. } => Initiator::Remote,
        }
    }

    /// Whether Kubernetes itself says that the pod is not there, over whichever transport it was asked.
    fn says_gone(&self) -> bool {
        let Self::Refused { response, .. } = self else { return false };
        matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE)
            && Status::from_json(response.body()).is_ok()
    }

    /// Client: whether the same request would fail again for the same reason, so that it is of no use to repeat it.
    ///
    /// Every answer of the server is permanent, except for the statuses that may pass: 408, 425, 429 and all of 5xx. So
    /// is a request that cannot be sent. A failure without an answer is not permanent: the connection could not be made
    /// or was lost, or the answer was late. If the server refused WebSocket and then SPDY failed, both failures must be
    /// permanent, or one of them a Kubernetes [`Status`](crate::status::Status) of 404 or 410: that is about the pod, and
    /// not about the transport.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Io(_) | Self::Timeout => false,
            Self::Refused { response, .. } => {
                let status = response.status();
                let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
                !status.is_server_error() && !passing.contains(&status)
            }
            Self::Fallback { websocket, spdy } => {
                let is_gone = websocket.says_gone() || spdy.says_gone();
                is_gone || websocket.is_permanent() && spdy.is_permanent()
            }
            Self::Backend(error) => error.is_permanent(),
            Self::InvalidRequest(_)
            | Self::InvalidResponse(_)
            | Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::TargetTooLong { .. }
            | Self::MalformedHead(_)
            | Self::Redirected { .. }
            | Self::NotSwitched(_)
            | Self::ProtocolNotOffered { .. }
            | Self::Handshake { .. }
            | Self::OriginNotAllowed { .. }
            | Self::BearerToken(_)
            | Self::NoPort
            | Self::InvalidPort { .. }
            | Self::TooManyPorts { .. }
            | Self::NotAnUpgrade
            | Self::BodyNotAllowed
            | Self::NoProtocol { .. }
            | Self::NoCommonProtocol { .. } => true,
        }
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Timeout => io::ErrorKind::TimedOut,
            Self::InvalidRequest(_) | Self::InvalidResponse(_) => io::ErrorKind::InvalidInput,
            Self::Refused { response, .. } => match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => io::ErrorKind::PermissionDenied,
                StatusCode::NOT_FOUND => io::ErrorKind::NotFound,
                _ => io::ErrorKind::ConnectionRefused,
            },
            Self::Redirected { .. } => io::ErrorKind::ConnectionRefused,
            Self::NoCommonProtocol { .. } => io::ErrorKind::Unsupported,
            Self::Fallback { spdy: error, .. } | Self::Backend(error) => error.kind(),
            Self::OriginNotAllowed { .. } | Self::BearerToken(_) => io::ErrorKind::PermissionDenied,
            Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::TargetTooLong { .. }
            | Self::MalformedHead(_)
            | Self::NotSwitched(_)
            | Self::ProtocolNotOffered { .. }
            | Self::Handshake { .. }
            | Self::NoPort
            | Self::InvalidPort { .. }
            | Self::TooManyPorts { .. }
            | Self::NotAnUpgrade
            | Self::BodyNotAllowed
            | Self::NoProtocol { .. } => io::ErrorKind::InvalidData,
        }
    }
}

impl From<UpgradeError> for io::Error {
    fn from(error: UpgradeError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// The text of an error, and what it often means.
fn parts(error: &UpgradeError) -> (String, Option<String>) {
    match error {
        UpgradeError::Refused { response, sent, .. } => (refusal::said(response), refusal::hint(response, *sent)),
        other => (other.to_string(), None),
    }
}

/// What failed over both transports. What is the same over both is said once.
fn both(websocket: &UpgradeError, spdy: &UpgradeError) -> String {
    let ((websocket, earlier), (spdy, later)) = (parts(websocket), parts(spdy));
    if websocket == spdy {
        return format!("{spdy} (over WebSocket, and again over SPDY){}", hint(later.or(earlier)));
    }
    let websocket = websocket.strip_prefix(refusal::PREFIX).unwrap_or(&websocket);
    let earlier = hint(earlier.filter(|earlier| later.as_ref() != Some(earlier)));
    format!("{spdy} (over SPDY; before that, the server refused WebSocket: {websocket}{earlier}){}", hint(later))
}

fn hint(hint: Option<String>) -> String {
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    fn refusal(status: StatusCode, body: &'static str) -> UpgradeError {
        let mut response = Response::new(Bytes::from_static(body.as_bytes()));
        *response.status_mut() = status;
        UpgradeError::Refused { response: Box::new(response), truncated: false, sent: 200 }
    }

    #[test]
    fn what_both_transports_say_is_said_once() {
        let both = |websocket, spdy| {
            UpgradeError::Fallback { websocket: Box::new(websocket), spdy: Box::new(spdy) }.to_string()
        };
        let no_upgrade = || refusal(StatusCode::BAD_REQUEST, "Upgrade request required");
        assert_eq!(
            both(no_upgrade(), no_upgrade()),
            "unable to upgrade connection: Upgrade request required (400 Bad Request) (over WebSocket, and again over \
            SPDY); a hop has dropped the Upgrade header, or the server does not know this transport"
        );
        assert_eq!(
            both(no_upgrade(), refusal(StatusCode::NOT_FOUND, "")),
            "unable to upgrade connection: 404 Not Found (over SPDY; before that, the server refused WebSocket: \
            Upgrade request required (400 Bad Request); a hop has dropped the Upgrade header, or the server does not \
            know this transport)"
        );
    }

    #[test]
    fn a_status_can_be_told_from_other_json() {
        assert_eq!(Status::from_json(br#"{"status":"Failure","code":404}"#).unwrap().code, Some(404));
        assert!(Status::from_json(br#"{"status":502,"error":"Bad Gateway"}"#).is_err());
    }

    #[test]
    fn every_answer_is_permanent_except_for_statuses_that_may_pass() {
        let refused = |status| refusal(StatusCode::from_u16(status).unwrap(), "no");
        let of_kubernetes = |status| {
            refusal(StatusCode::from_u16(status).unwrap(), r#"{"kind":"Status","status":"Failure","message":"no pod"}"#)
        };
        for status in [200, 204, 400, 401, 403, 404, 405, 409, 410, 414, 421, 426, 431, 451, 499] {
            assert!(refused(status).is_permanent(), "{status}");
        }
        for status in [408, 425, 429, 500, 501, 502, 503, 504, 520, 599] {
            assert!(!refused(status).is_permanent(), "{status}");
        }
        assert!(UpgradeError::Redirected { status: StatusCode::FOUND, location: None }.is_permanent());
        let reset = || UpgradeError::Io(io::ErrorKind::ConnectionReset.into());
        assert!(!reset().is_permanent() && !UpgradeError::Timeout.is_permanent());
        // A gateway that never lets one of the two pass says nothing of the other.
        for (websocket, spdy, permanent) in [
            (refused(404), refused(404), true),
            (refused(400), refused(503), false),
            (refused(503), refused(400), false),
            (refused(404), reset(), false),
            (of_kubernetes(404), reset(), true),
            (refused(502), of_kubernetes(410), true),
            // The rights of a GET and of a POST are two.
            (of_kubernetes(403), reset(), false),
        ] {
            let fallback = UpgradeError::Fallback { websocket: Box::new(websocket), spdy: Box::new(spdy) };
            assert_eq!(fallback.is_permanent(), permanent, "{fallback}");
        }
    }

    #[test]
    fn an_error_says_who_caused_it_and_fits_an_io_error() {
        let refused = |status| refusal(status, "no");
        let fallback = UpgradeError::Fallback {
            websocket: Box::new(refused(StatusCode::FORBIDDEN)),
            spdy: Box::new(refused(StatusCode::NOT_FOUND)),
        };
        let unfit = || UpgradeError::InvalidRequest("the request has no host".to_owned());
        for (error, initiator, kind) in [
            (UpgradeError::Timeout, Initiator::Remote, io::ErrorKind::TimedOut),
            (unfit(), Initiator::User, io::ErrorKind::InvalidInput),
            (refused(StatusCode::FORBIDDEN), Initiator::Remote, io::ErrorKind::PermissionDenied),
            (UpgradeError::NotSwitched("the 101 announces a body"), Initiator::Remote, io::ErrorKind::InvalidData),
            (fallback, Initiator::Remote, io::ErrorKind::NotFound),
            (UpgradeError::Backend(Box::new(unfit())), Initiator::User, io::ErrorKind::InvalidInput),
        ] {
            assert_eq!(error.initiator(), initiator);
            let text = error.to_string();
            let error = io::Error::from(error);
            assert_eq!((error.kind(), error.to_string()), (kind, text));
        }
    }
}
