//! The server's side of the handshake: one request, one answer.
//!
//! Refuses invalid requests before the caller sees them, in the words of Go's servers. It writes nothing after the 101,
//! because a Go client may lose bytes that arrive together with the 101.

use std::sync::Arc;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::config::Config;
use super::error::UpgradeError;
use super::head::{self, HeadReader};
use super::ports;
use super::query;
use super::read::{fill, read_head};
use super::upgraded::Upgraded;
use super::websocket::{self, BearerToken};
use crate::protocol::{Protocol, Transport, X_STREAM_PROTOCOL_VERSION};

/// Reads the head of a request, whether or not the request asks for an upgrade. The returned [`Pending`] answers it.
///
/// A request that names neither SPDY nor WebSocket in `Upgrade`, or that is HTTP/1.0, asks for no upgrade:
/// [`Pending::is_upgrade`] is false, and the caller answers the request, or passes it on with its body.
///
/// # Errors
/// For [`UpgradeError::MalformedHead`], [`UpgradeError::HeadTooLarge`], [`UpgradeError::TooManyHeaders`],
/// [`UpgradeError::TargetTooLong`] and [`UpgradeError::BodyNotAllowed`] the client was answered 400, 414 or 431. For
/// [`UpgradeError::Timeout`] and [`UpgradeError::Io`] it was not answered.
///
/// # Panics
/// If called outside of a tokio runtime with its timer enabled.
///
/// # Cancel safety
/// If dropped before completion, the IO is dropped, and the connection with it.
pub async fn accept<IO>(mut io: IO, config: &Config) -> Result<Pending<IO>, UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = HeadReader::new(config.max_head);
    let head = timeout(config.head_timeout, read_head(&mut io, &mut reader)).await;
    let request = head
        .unwrap_or(Err(UpgradeError::Timeout))
        .and_then(|head| head::parse_request_head(&head, config.max_headers))
        .and_then(|request| {
            // A proxy that passes the request on without its body would read the body as SPDY, or SPDY as the next
            // request.
            if transports(&request).next().is_some() && head::announces_body(request.headers()) {
                return Err(UpgradeError::BodyNotAllowed);
            }
            if !config.long_queries && query::long(&request).is_some() {
                return Err(head::TARGET_TOO_LONG);
            }
            Ok(request)
        });
    match request {
        Ok(request) => Ok(Pending::new(io, request, reader.into_rest(), config.clone())),
        Err(error) => {
            let status = match &error {
                UpgradeError::HeadTooLarge { .. } | UpgradeError::TooManyHeaders { .. } => {
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
                }
                UpgradeError::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
                UpgradeError::MalformedHead(_) | UpgradeError::BodyNotAllowed => StatusCode::BAD_REQUEST,
                _ => return Err(error),
            };
            // If the answer cannot be written either, the first error is the one that matters.
            let _ = answer(&mut io, &Method::GET, text(status, &error), config).await;
            Err(error)
        }
    }
}

/// A request that waits for its answer. If it is dropped, the connection is closed without an answer.
pub struct Pending<IO> {
    io: IO,
    request: Request<()>,
    read_ahead: Bytes,
    pub(super) config: Config,
    token: Result<Option<BearerToken>, &'static str>,
    ports: Option<Arc<[u16]>>,
}

impl<IO> Pending<IO> {
    fn new(io: IO, mut request: Request<()>, read_ahead: Bytes, config: Config) -> Self {
        Self {
            token: websocket::take_bearer_token(request.headers_mut()),
            io,
            ports: None,
            request,
            read_ahead,
            config,
        }
    }

    /// Sets the ports of legacy port-forward. Without this call they are read from the query of the request. The
    /// streaming server of a container runtime needs this: the kubelet tells it the ports beforehand, and the request
    /// of the client may not name them.
    #[must_use]
    pub fn with_ports(mut self, ports: &[u16]) -> Self {
        self.ports = Some(ports.into());
        self
    }

    /// The request. Authorise it before [`accept`](Self::accept): check the verb `create` of Kubernetes, even if the
    /// method is GET, as it is for every WebSocket.
    pub fn request(&self) -> &Request<()> {
        &self.request
    }

    /// Whether the request asks for an upgrade to SPDY or WebSocket.
    pub fn is_upgrade(&self) -> bool {
        self.transport().is_some()
    }

    /// The transport that the request asks for. `None` if the request asks for no upgrade to SPDY or WebSocket. If the
    /// request names both transports, this is SPDY.
    pub fn transport(&self) -> Option<Transport> {
        transports(&self.request).next()
    }

    /// The bearer token that came among the subprotocols, as a client in a browser sends it. `None` if there is none.
    /// This crate has removed it from the subprotocols: neither [`request`](Self::request) nor [`offers`](Self::offers)
    /// shows it.
    ///
    /// # Errors
    /// [`UpgradeError::BearerToken`] if the token is not valid. [`accept`](Self::accept) then answers 401, as
    /// Kubernetes does.
    pub fn bearer_token(&self) -> Result<Option<&BearerToken>, UpgradeError> {
        self.token.as_ref().map(Option::as_ref).map_err(|reason| UpgradeError::BearerToken(reason))
    }

    /// The names of all protocols that the client offers, in order of preference. Names that this crate does not know
    /// are included.
    pub fn offers(&self) -> impl Iterator<Item = &str> {
        self.offers_over(self.transport().unwrap_or(Transport::Spdy))
    }

    fn offers_over(&self, transport: Transport) -> impl Iterator<Item = &str> {
        head::elements(self.request.headers(), &transport.offers())
    }
}

impl<IO> Pending<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Says whether [`accept`](Self::accept) would switch protocols, and answers nothing. Use it before you do anything
    /// for the client that must not happen if the request is refused, such as an upgrade at a backend. On an error, call
    /// `accept`, which sends the refusal.
    ///
    /// # Errors
    /// Those with which `accept` refuses a request.
    pub fn check(&self, supported: &[Protocol]) -> Result<(), UpgradeError> {
        self.choose(supported).map(drop)
    }

    /// Answers 101: switches to the transport that the client asks for, and to the first of the client's protocols that
    /// is `supported` over it. If `supported` is empty, switches to raw SPDY, whatever the client offers.
    ///
    /// # Errors
    /// [`UpgradeError::NotAnUpgrade`] and [`UpgradeError::NoProtocol`] were answered 400.
    /// [`UpgradeError::NoCommonProtocol`] was answered 403, in the words of Go's servers and with the list of the
    /// supported SPDY protocols. Over WebSocket there are also `UpgradeError::Handshake`,
    /// `UpgradeError::OriginNotAllowed`, `UpgradeError::BearerToken`, and for legacy port-forward
    /// `UpgradeError::NoPort`, `UpgradeError::InvalidPort` and `UpgradeError::TooManyPorts`. The docs of each say how
    /// the request was answered. With [`UpgradeError::Timeout`] and [`UpgradeError::Io`] the 101 could not be written.
    ///
    /// # Cancel safety
    /// If dropped before completion, the IO is dropped, and the connection with it. The client may have received the
    /// 101 already.
    pub async fn accept(mut self, supported: &[Protocol]) -> Result<Upgraded<IO>, UpgradeError> {
        let Chosen { protocol, ports, head } = match self.choose(supported) {
            Ok(chosen) => chosen,
            Err(error) => return Err(self.refuse(error, supported).await),
        };
        write(&mut self.io, &head, &self.config).await?;
        Ok(Upgraded { ports, ..Upgraded::new(self.io, self.read_ahead, protocol) })
    }

    /// Answers without an upgrade, and closes the connection. This function sets `Content-Length` and `Connection:
    /// close`, and replaces those of the response. After the answer it shuts down the write side. Then it reads and
    /// discards what the client still sends, until the client's end, but at most [`Config::max_refusal_body`] bytes and
    /// for at most [`Config::refusal_body_timeout`]. The reason is that the kernel may drop the answer if a socket is
    /// closed with unread bytes.
    ///
    /// # Errors
    /// [`UpgradeError::InvalidResponse`] for a 1xx. [`UpgradeError::Timeout`] and [`UpgradeError::Io`] if the response
    /// could not be written.
    ///
    /// # Cancel safety
    /// If dropped before completion, the IO is dropped, and the connection with it. The client may have received any
    /// part of the answer.
    pub async fn respond(mut self, response: Response<Bytes>) -> Result<(), UpgradeError> {
        if response.status().is_informational() {
            return Err(UpgradeError::InvalidResponse(response.status()));
        }
        answer(&mut self.io, self.request.method(), response, &self.config).await
    }

    /// Answers with the refusal for `error`, and returns the error.
    pub(super) async fn refuse(self, error: UpgradeError, supported: &[Protocol]) -> UpgradeError {
        let response = refusal(&error, supported);
        // If the answer cannot be written either, the first error is the one that matters.
        let _ = self.respond(response).await;
        error
    }

    /// The IO, and the bytes that were read from it past the head. Use this to send an answer by other means.
    pub fn into_io(self) -> (IO, Bytes) {
        (self.io, self.read_ahead)
    }

    /// Chooses the protocol, and makes the head of the 101.
    fn choose(&self, supported: &[Protocol]) -> Result<Chosen, UpgradeError> {
        let supports = |transport| supported.iter().any(|protocol| protocol.transport() == transport);
        let raw = supported.is_empty();
        let mut transports = transports(&self.request);
        let transport = transports.find(|&transport| supports(transport) || raw && transport == Transport::Spdy);
        let transport = transport.ok_or(UpgradeError::NotAnUpgrade)?;
        let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
        head::put_header(&mut head, "Connection", b"Upgrade");
        head::put_header(&mut head, "Upgrade", transport.token().as_bytes());
        let protocol = match transport {
            Transport::Spdy if raw => None,
            Transport::Spdy => {
                let protocol = self.choose_spdy(supported)?;
                head::put_header(&mut head, "X-Stream-Protocol-Version", protocol.name().as_bytes());
                Some(protocol)
            }
            Transport::WebSocket => {
                let answer = websocket::check_request(&self.request, &self.config.allowed_origins)?;
                self.bearer_token()?;
                let protocol = self.choose_channel(supported)?;
                head::put_header(&mut head, "Sec-WebSocket-Accept", answer.as_bytes());
                // If the client offered no subprotocol, it may reject an empty one in the answer.
                if !protocol.name().is_empty() {
                    head::put_header(&mut head, "Sec-WebSocket-Protocol", protocol.name().as_bytes());
                }
                Some(protocol)
            }
        };
        head.extend_from_slice(b"\r\n");
        let ports = protocol.map(|protocol| ports::of(&self.request, protocol, self.ports.as_ref()));
        let ports = ports.transpose()?.flatten();
        Ok(Chosen { protocol, ports, head })
    }

    fn choose_spdy(&self, supported: &[Protocol]) -> Result<Protocol, UpgradeError> {
        if let Some(known) = self.first_supported(Transport::Spdy, supported) {
            return Ok(known);
        }
        if self.offers_over(Transport::Spdy).next().is_none() {
            let headers = self.request.headers();
            // Go counts each name once, and does not count Host, which it keeps elsewhere.
            let count = || headers.keys().filter(|name| **name != header::HOST).count();
            let there = headers.contains_key(X_STREAM_PROTOCOL_VERSION);
            return Err(UpgradeError::NoProtocol { headers: (!there).then(count) });
        }
        Err(self.no_common_protocol(Transport::Spdy, supported))
    }

    fn choose_channel(&self, supported: &[Protocol]) -> Result<Protocol, UpgradeError> {
        let none = self.request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().all(|line| line.is_empty());
        let unnamed = || if none { find(supported, Transport::WebSocket, "") } else { None };
        let chosen = self.first_supported(Transport::WebSocket, supported).or_else(unnamed);
        chosen.ok_or_else(|| self.no_common_protocol(Transport::WebSocket, supported))
    }

    fn first_supported(&self, transport: Transport, supported: &[Protocol]) -> Option<Protocol> {
        self.offers_over(transport).find_map(|name| find(supported, transport, name))
    }

    fn no_common_protocol(&self, transport: Transport, supported: &[Protocol]) -> UpgradeError {
        let supported = supported.iter().filter(|protocol| protocol.transport() == transport);
        UpgradeError::NoCommonProtocol {
            offered: self.offers_over(transport).map(str::to_owned).collect(),
            supported: supported.map(|protocol| protocol.name()).filter(|name| !name.is_empty()).collect(),
        }
    }
}

impl<IO> fmt::Debug for Pending<IO> {
    /// Shows neither the path, which may hold a token, nor the headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("method", self.request.method())
            .field("is_upgrade", &self.is_upgrade())
            .finish_non_exhaustive()
    }
}

/// The protocol that a server switches to.
struct Chosen {
    protocol: Option<Protocol>,
    ports: Option<Arc<[u16]>>,
    /// The head of the 101.
    head: Vec<u8>,
}

/// The transports that a request asks for. An upgrade in HTTP/1.0 has to be ignored, and one to anything else may be (RFC
/// 9110 §7.8).
fn transports(request: &Request<()>) -> impl Iterator<Item = Transport> {
    const CARRIERS: &[Transport] = &[Transport::Spdy, Transport::WebSocket];
    let headers = request.headers();
    let upgrade = request.version() == Version::HTTP_11 && head::lists(headers, header::CONNECTION, "upgrade");
    let asked = move |transport: &Transport| upgrade && head::lists(headers, header::UPGRADE, transport.token());
    CARRIERS.iter().copied().filter(asked)
}

/// The first of the protocols that has this name over this transport. Exec and port-forward share some names.
fn find(protocols: &[Protocol], transport: Transport, name: &str) -> Option<Protocol> {
    protocols.iter().copied().find(|protocol| protocol.transport() == transport && protocol.name() == name)
}

/// The answer that refuses an upgrade.
fn refusal(error: &UpgradeError, supported: &[Protocol]) -> Response<Bytes> {
    match error {
        UpgradeError::NoCommonProtocol { .. } => {
            let mut response = text(StatusCode::FORBIDDEN, error);
            for protocol in supported.iter().filter(|protocol| protocol.transport() == Transport::Spdy) {
                let name = HeaderValue::from_static(protocol.name());
                response.headers_mut().append(X_ACCEPTED_STREAM_PROTOCOL_VERSIONS, name);
            }
            response
        }
        UpgradeError::OriginNotAllowed { .. } => text(StatusCode::FORBIDDEN, error),
        UpgradeError::BearerToken(_) => text(StatusCode::UNAUTHORIZED, error),
        UpgradeError::Handshake { status, .. } => {
            let mut response = text(*status, error);
            // The answer names what the server supports: the method (RFC 9110 §15.5.6), or the version (RFC 6455 §4.4).
            let supported = match *status {
                StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "GET")),
                StatusCode::UPGRADE_REQUIRED => Some((header::SEC_WEBSOCKET_VERSION, websocket::VERSION)),
                _ => None,
            };
            response.headers_mut().extend(supported.map(|(name, value)| (name, HeaderValue::from_static(value))));
            response
        }
        // These are errors of `asked_ports`, too, which upgrades nothing.
        UpgradeError::NoPort | UpgradeError::InvalidPort { .. } | UpgradeError::TooManyPorts { .. } => {
            text(StatusCode::BAD_REQUEST, format_args!("unable to upgrade: {error}"))
        }
        _ => text(StatusCode::BAD_REQUEST, error),
    }
}

const X_ACCEPTED_STREAM_PROTOCOL_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// An answer in plain text, with the headers of Go's `http.Error`.
fn text(status: StatusCode, error: impl fmt::Display) -> Response<Bytes> {
    let mut response = plain(status, error);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An answer of one line of plain text.
pub(super) fn plain(status: StatusCode, message: impl fmt::Display) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{message}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Writes a final answer, shuts the write side down, and discards what the client still sends.
async fn answer<IO>(
    io: &mut IO,
    method: &Method,
    response: Response<Bytes>,
    config: &Config,
) -> Result<(), UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    write(io, &response_bytes(method, response), config).await?;
    let end = async {
        io.shutdown().await?;
        let mut left = config.max_refusal_body;
        let mut discarded = BytesMut::new();
        while left > 0 {
            match fill(io, &mut discarded).await? {
                0 => break,
                len => left = left.saturating_sub(len),
            }
            discarded.clear();
        }
        Ok::<_, io::Error>(())
    };
    // The answer is written, so errors after it do not matter.
    let _ = timeout(config.refusal_body_timeout, end).await;
    Ok(())
}

pub(super) async fn write<IO>(io: &mut IO, bytes: &[u8], config: &Config) -> Result<(), UpgradeError>
where
    IO: AsyncWrite + Unpin,
{
    let writing = async {
        io.write_all(bytes).await?;
        io.flush().await?;
        Ok(())
    };
    timeout(config.head_timeout, writing).await.unwrap_or(Err(UpgradeError::Timeout))
}

fn response_bytes(method: &Method, response: Response<Bytes>) -> Vec<u8> {
    let (parts, body) = response.into_parts();
    let (status, mut headers): (_, HeaderMap) = (parts.status, parts.headers);
    for name in [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    // 204 and 304 have no body (RFC 9112 §6.3).
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));

    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    head::put_headers(&mut bytes, &headers);
    bytes.extend_from_slice(b"\r\n");
    if !bodiless && method != Method::HEAD {
        bytes.extend_from_slice(&body);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(headers: &str) -> Pending<()> {
        let head = format!("POST /exec/t0ken HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let request = head::parse_request_head(head.as_bytes(), 100).unwrap();
        Pending::new((), request, Bytes::new(), Config::default())
    }

    #[test]
    fn an_upgrade_names_both_tokens() {
        for (headers, upgrade) in [
            ("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n", true),
            ("Connection: keep-alive, upgrade\r\nUpgrade: websocket, spdy/3.1\r\n", true),
            ("Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n", true),
            ("Connection: Upgrade\r\n", false),
            ("Upgrade: SPDY/3.1\r\n", false),
            ("Connection: Upgrades\r\nUpgrade: SPDY/3.1\r\n", false),
            ("Connection: Upgrade\r\nUpgrade: SPDY/3.10\r\n", false),
            ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
            ("Connection: Upgrade\r\nUpgrade: h2c\r\n", false),
        ] {
            assert_eq!(pending(headers).is_upgrade(), upgrade, "{headers}");
        }
    }

    #[test]
    fn offers_are_split_and_trimmed_over_all_lines() {
        let pending = pending(
            "X-Stream-Protocol-Version: v5.channel.k8s.io , v4.channel.k8s.io\r\nX-Stream-Protocol-Version: ,\r\n\
            X-Stream-Protocol-Version: \r\nX-Stream-Protocol-Version: channel.k8s.io\r\n",
        );
        assert!(pending.offers().eq(["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]));
    }

    #[test]
    fn debug_shows_neither_path_nor_headers() {
        let pending = pending("Authorization: Bearer t0ken\r\n");
        assert_eq!(format!("{pending:?}"), "Pending { method: POST, is_upgrade: false, .. }");
    }

    #[test]
    fn an_answer_frames_itself() {
        let response = |status| {
            Response::builder()
                .status(status)
                .header("Content-Length", "7")
                .header("Transfer-Encoding", "chunked")
                .header("Connection", "keep-alive")
                .body(Bytes::from_static(b"ok"))
                .unwrap()
        };
        let bytes = |method, status| String::from_utf8(response_bytes(&method, response(status))).unwrap();
        let close = "connection: close\r\n\r\n";
        assert_eq!(bytes(Method::GET, 200), format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{close}ok"));
        assert_eq!(bytes(Method::HEAD, 200), format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{close}"));
        assert_eq!(bytes(Method::GET, 204), format!("HTTP/1.1 204 No Content\r\n{close}"));
        assert_eq!(bytes(Method::GET, 599), format!("HTTP/1.1 599 \r\ncontent-length: 2\r\n{close}ok"));
    }
}
