//! The client's side of the handshake: one request, one answer.
//!
//! Decides which requests can be sent, and checks the answer. Only a 101 with the requested transport and an offered
//! protocol gives an [`Upgraded`] (CVE-2018-1002105).

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version as HttpVersion};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::body::Body;
use super::config::Config;
use super::error::UpgradeError;
use super::head::{self, HeadReader};
use super::ports;
use super::query;
use super::read::{fill, read_head};
use super::upgraded::Upgraded;
use super::websocket;
use crate::protocol::{Protocol, Transport, Version, X_STREAM_PROTOCOL_VERSION};

/// Offers the protocols to the server in order of preference, and upgrades the connection to the one that it chooses.
/// All offers must be of one transport. Without offers, the connection is upgraded to raw SPDY. `connect_with_fallback`
/// tries WebSocket first and then SPDY.
///
/// The method of the request must be GET, or for SPDY either GET or POST (kubectl uses POST). The request needs a
/// percent-encoded path, and a `Host` header or an authority in its URI. For a query that is too long for the URI see
/// [`set_query`](super::set_query). All its headers are sent. This function adds
/// `Connection`, `Upgrade`, `Content-Length`, `X-Stream-Protocol-Version` and all `Sec-WebSocket-…` headers, so the
/// request must not have them.
///
/// If a SPDY server names no protocol, the protocol is `channel.k8s.io`, as in Go. 1xx responses before the 101 are
/// skipped.
///
/// # Errors
/// [`UpgradeError::Refused`], with the server's answer, or another [`UpgradeError`] of a client. With any error the IO
/// is dropped. Nothing is tried twice.
///
/// # Panics
/// If called outside of a tokio runtime with its timer enabled.
///
/// # Cancel safety
/// If dropped before completion, the IO is dropped, and the connection with it. The server may have received the
/// request already.
pub async fn connect<IO>(
    mut io: IO,
    request: Request<()>,
    offers: &[Protocol],
    config: &Config,
) -> Result<Upgraded<IO>, UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let asked = Asked::new(offers)?;
    let head = request_head(&request, offers, &asked)?;
    let mut reader = HeadReader::new(config.max_head);
    let response = exchange(&mut io, &head, asked.transport, &mut reader, config).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        asked.check_switch(&response)?;
        let protocol = asked.chosen(response.headers(), offers)?;
        let ports = protocol.map(|protocol| asked_ports(&request, protocol)).transpose()?.flatten();
        return Ok(Upgraded { ports, ..Upgraded::new(io, reader.into_rest(), protocol) });
    }
    Err(not_switched(&mut io, response, head.len(), &mut reader, config).await)
}

/// Writes a request, and reads the head of the answer. Skips every 1xx except a 101.
pub(super) async fn exchange<IO>(
    io: &mut IO,
    head: &[u8],
    transport: Transport,
    reader: &mut HeadReader,
    config: &Config,
) -> Result<Response<()>, UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = async {
        io.write_all(head).await?;
        io.flush().await?;
        loop {
            let head = match read_head(io, reader).await {
                Err(UpgradeError::Io(error)) if reader.buffer().is_empty() => return Err(unanswered(error, transport)),
                read => read?,
            };
            let response = head::parse_response_head(&head, config.max_headers)?;
            let status = response.status();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(response);
            }
        }
    };
    timeout(config.answer_timeout, handshake).await.unwrap_or(Err(UpgradeError::Timeout))
}

/// The error for a connection that was lost before the answer began.
fn unanswered(error: io::Error, transport: Transport) -> UpgradeError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kind = error.kind();
    if !matches!(kind, UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe) {
        return error.into();
    }
    let text = match transport {
        // Node's http-proxy.
        Transport::Spdy => "it was closed without an answer; a proxy that passes only WebSocket does this",
        Transport::WebSocket => "it was closed without an answer",
    };
    io::Error::new(kind, text).into()
}

/// The error for an answer other than a 101. `sent` is the length of the request's head.
pub(super) async fn not_switched<IO>(
    io: &mut IO,
    response: Response<()>,
    sent: usize,
    reader: &mut HeadReader,
    config: &Config,
) -> UpgradeError
where
    IO: AsyncRead + Unpin,
{
    let status = response.status();
    if status.is_redirection() {
        let location = response.headers().get(header::LOCATION);
        let location = location.map(|location| String::from_utf8_lossy(location.as_bytes()).into_owned());
        return UpgradeError::Redirected { status, location };
    }
    let rest = std::mem::take(reader.buffer());
    let (response, truncated) = read_refusal(io, response, rest, config).await;
    UpgradeError::Refused { response: Box::new(response), truncated, sent }
}

/// The head of the request, with the offers.
fn request_head(request: &Request<()>, offers: &[Protocol], asked: &Asked) -> Result<Vec<u8>, UpgradeError> {
    for (earlier, offer) in offers.iter().enumerate() {
        if offer.transport() != asked.transport {
            return Err(invalid("the offers are of more than one transport"));
        }
        if offers.iter().take(earlier).any(|other| other.name() == offer.name()) {
            return Err(invalid(format!("the protocol {offer} is offered twice")));
        }
        asked_ports(request, *offer)?;
    }
    check_reserved(request, &OFFERS)?;
    let mut head = head_without_offers(request, asked.transport)?;
    asked.put_offers(offers, &mut head);
    end_head(request, &mut head);
    Ok(head)
}

/// The head of a request that already has its offers among its headers.
pub(super) fn passed_head(request: &Request<()>, transport: Transport) -> Result<Vec<u8>, UpgradeError> {
    // Nothing here could read what two ends have compressed.
    check_reserved(request, &[header::SEC_WEBSOCKET_EXTENSIONS])?;
    let mut head = head_without_offers(request, transport)?;
    end_head(request, &mut head);
    Ok(head)
}

fn end_head(request: &Request<()>, head: &mut Vec<u8>) {
    if request.method() == Method::POST {
        head::put_header(head, "Content-Length", b"0");
    }
    head.extend_from_slice(b"\r\n");
}

/// The head without offers and without its last line. It is made of `http`'s types and of our own names, so that no
/// part of it can begin another line.
fn head_without_offers(request: &Request<()>, transport: Transport) -> Result<Vec<u8>, UpgradeError> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(invalid("the method is neither GET nor POST"));
    }
    if transport != Transport::Spdy && *request.method() != Method::GET {
        return Err(invalid("the method of a WebSocket handshake must be GET"));
    }
    if request.version() != HttpVersion::HTTP_11 {
        return Err(invalid("the version is not HTTP/1.1"));
    }
    let Some(path) = request.uri().path_and_query().filter(|path| path.as_str().starts_with('/')) else {
        return Err(invalid("the URI has no path"));
    };
    if !path.as_str().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid("the path or the query is not percent-encoded"));
    }
    check_reserved(request, &RESERVED)?;
    let host = host(request)?;
    let mut headers = request.headers().clone();
    headers.remove(header::HOST);

    let long_query = query::long(request).map(|query| format!("?{query}")).unwrap_or_default();
    let mut head = format!("{} {path}{long_query} HTTP/1.1\r\n", request.method()).into_bytes();
    head::put_header(&mut head, "Host", &host);
    head::put_headers(&mut head, &headers);
    head::put_header(&mut head, "Connection", b"Upgrade");
    head::put_header(&mut head, "Upgrade", transport.token().as_bytes());
    Ok(head)
}

/// The ports that legacy port-forward needs to know.
fn asked_ports(request: &Request<()>, protocol: Protocol) -> Result<Option<Arc<[u16]>>, UpgradeError> {
    ports::of(request, protocol, None).map_err(|error| invalid(error.to_string()))
}

/// The `Host` header, or else the authority without its userinfo (RFC 9110 §7.2).
fn host(request: &Request<()>) -> Result<Vec<u8>, UpgradeError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if !host.is_empty() => return Ok(host.as_bytes().to_vec()),
        (Some(_), None) => return Err(invalid(NO_HOST)),
        (Some(_), Some(_)) => return Err(invalid("the request has more than one Host header")),
        (None, _) => {}
    }
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = authority.map(|authority| authority.rsplit_once('@').map_or(authority, |(_, host)| host));
    // An authority may have bytes that a header cannot have.
    let host = host.filter(|host| !host.is_empty()).and_then(|host| HeaderValue::from_str(host).ok());
    host.map(|host| host.as_bytes().to_vec()).ok_or_else(|| invalid(NO_HOST))
}

const NO_HOST: &str = "the request has no host";

/// The error for a request that cannot be sent.
pub(super) fn invalid(reason: impl Into<String>) -> UpgradeError {
    UpgradeError::InvalidRequest(reason.into())
}

/// The upgrade that a request asks for.
pub(super) struct Asked {
    pub(super) transport: Transport,
    pub(super) key: Option<websocket::Key>,
}

impl Asked {
    fn new(offers: &[Protocol]) -> Result<Self, UpgradeError> {
        let transport = offers.first().map_or(Transport::Spdy, |offer| offer.transport());
        let key = if transport == Transport::WebSocket { Some(websocket::Key::random()?) } else { None };
        Ok(Self { transport, key })
    }

    /// Over SPDY each offer has a line of its own, as Go's clients write them. Over WebSocket all share one line,
    /// because Go's servers read only one.
    fn put_offers(&self, offers: &[Protocol], head: &mut Vec<u8>) {
        if let Some(key) = &self.key {
            head::put_header(head, "Sec-WebSocket-Version", websocket::VERSION.as_bytes());
            head::put_header(head, "Sec-WebSocket-Key", key.key.as_bytes());
            let names: Vec<_> = offers.iter().map(|offer| offer.name()).filter(|name| !name.is_empty()).collect();
            if !names.is_empty() {
                head::put_header(head, "Sec-WebSocket-Protocol", names.join(", ").as_bytes());
            }
            return;
        }
        for offer in offers {
            head::put_header(head, "X-Stream-Protocol-Version", offer.name().as_bytes());
        }
    }

    pub(super) fn check_switch(&self, response: &Response<()>) -> Result<(), UpgradeError> {
        let headers = response.headers();
        let reason = if response.version() != HttpVersion::HTTP_11 {
            "the version is not HTTP/1.1"
        } else if !head::lists(headers, header::CONNECTION, "upgrade") {
            "the header Connection does not list upgrade"
        } else if !head::lists(headers, header::UPGRADE, self.transport.token()) {
            "the header Upgrade does not list the requested transport"
        } else if head::announces_body(headers) {
            "the 101 announces a body"
        } else {
            return self.check_accept(headers);
        };
        Err(UpgradeError::NotSwitched(reason))
    }

    /// What a client must check in the answer (RFC 6455 §4.1).
    fn check_accept(&self, headers: &HeaderMap) -> Result<(), UpgradeError> {
        let Some(key) = &self.key else { return Ok(()) };
        let mut answers = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        let answered = answers.next().is_some_and(|answer| answer.as_bytes() == key.answer.as_bytes());
        if !answered || answers.next().is_some() {
            return Err(UpgradeError::NotSwitched("the header Sec-WebSocket-Accept does not match the key"));
        }
        if headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().any(|extension| !extension.is_empty()) {
            return Err(UpgradeError::NotSwitched("the server chose an extension, but none was offered"));
        }
        Ok(())
    }

    /// The protocol that the server chose. If the header has several lines, they are one list (RFC 9110 §5.3), and a
    /// list matches no offer.
    fn chosen(&self, headers: &HeaderMap, offers: &[Protocol]) -> Result<Option<Protocol>, UpgradeError> {
        let lines = headers.get_all(self.transport.offers()).iter();
        let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()));
        let name = lines.collect::<Vec<_>>().join(", ");
        match (&name[..], self.transport, offers) {
            ("", _, []) => return Ok(None),
            ("", Transport::Spdy, _) => Some(Protocol::SpdyExec(Version::V1)),
            (name, ..) => offers.iter().copied().find(|offer| offer.name() == name),
        }
        .filter(|protocol| offers.contains(protocol))
        .map(Some)
        .ok_or(UpgradeError::ProtocolNotOffered { name })
    }
}

/// Reads what it can of the body, and returns whether it was cut off. A refusal stays a refusal, even if its body is
/// slow or broken.
async fn read_refusal<IO>(
    io: &mut IO,
    response: Response<()>,
    mut rest: BytesMut,
    config: &Config,
) -> (Response<Bytes>, bool)
where
    IO: AsyncRead + Unpin,
{
    let mut body = Body::new(&response, config.max_refusal_body);
    let reading = async {
        while !body.feed(&mut rest) {
            match fill(io, &mut rest).await {
                Ok(0) => return body.end(),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    };
    // If time runs out, `body` knows that it is truncated.
    let _ = timeout(config.refusal_body_timeout, reading).await;
    let (body, truncated) = body.into_parts();
    (response.map(|()| body), truncated)
}

fn check_reserved(request: &Request<()>, reserved: &[header::HeaderName]) -> Result<(), UpgradeError> {
    match reserved.iter().find(|name| request.headers().contains_key(*name)) {
        Some(name) => Err(invalid(format!("the header {name} is set by the handshake"))),
        None => Ok(()),
    }
}

/// Headers that this module sets itself for the next hop, or that announce a body. An upgrade request has no body.
const RESERVED: [header::HeaderName; 4] =
    [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE];

/// Headers that this module sets itself for our own client.
const OFFERS: [header::HeaderName; 6] = [
    X_STREAM_PROTOCOL_VERSION,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_VERSION,
];

#[cfg(test)]
mod tests {
    use http::Uri;
    use http::header::HeaderName;
    use quickcheck::quickcheck;

    use super::*;

    fn reason(request: Request<()>, offers: &[Protocol]) -> String {
        match request_head(&request, offers, &Asked::new(offers).unwrap()) {
            Err(UpgradeError::InvalidRequest(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_request_is_kubectls() {
        let request = Request::post("https://user:secret@[::1]:6443/exec?command=a%20b&stdin=true")
            .header("User-Agent", "kubectl/v1.32.4")
            .body(())
            .unwrap();
        let head = request_head(&request, Protocol::SPDY_EXEC, &Asked::new(Protocol::SPDY_EXEC).unwrap()).unwrap();
        let expected = "POST /exec?command=a%20b&stdin=true HTTP/1.1\r\nHost: [::1]:6443\r\n\
            user-agent: kubectl/v1.32.4\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
            X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: v3.channel.k8s.io\r\n\
            X-Stream-Protocol-Version: v2.channel.k8s.io\r\nX-Stream-Protocol-Version: channel.k8s.io\r\n\
            Content-Length: 0\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
    }

    #[test]
    fn raw_spdy_offers_nothing() {
        let request = Request::get("/").header("Host", "a").body(()).unwrap();
        let head = request_head(&request, &[], &Asked::new(&[]).unwrap()).unwrap();
        assert_eq!(head, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n");
    }

    #[test]
    fn unfit_requests_are_refused() {
        let get = |uri: &str| Request::get(uri).body(()).unwrap();
        let with = |name: &str, value: &str| Request::get("http://a/").header(name, value).body(()).unwrap();
        assert_eq!(reason(Request::put("http://a/").body(()).unwrap(), &[]), "the method is neither GET nor POST");
        let http2 = Request::get("http://a/").version(HttpVersion::HTTP_2).body(()).unwrap();
        assert_eq!(reason(http2, &[]), "the version is not HTTP/1.1");
        assert_eq!(reason(get("a:80"), &[]), "the URI has no path");
        assert_eq!(reason(get("*"), &[]), "the URI has no path");
        assert_eq!(reason(get("http://a/caf\u{e9}"), &[]), "the path or the query is not percent-encoded");
        assert_eq!(reason(get("/"), &[]), "the request has no host");
        assert_eq!(reason(with("Host", ""), &[]), "the request has no host");
        let two = Request::get("/").header("Host", "a").header("Host", "b").body(()).unwrap();
        assert_eq!(reason(two, &[]), "the request has more than one Host header");
        for name in RESERVED.into_iter().chain(OFFERS) {
            assert_eq!(reason(with(name.as_str(), "0"), &[]), format!("the header {name} is set by the handshake"));
        }
        let v4 = Protocol::SpdyExec(Version::V4);
        assert_eq!(reason(get("http://a/"), &[v4, v4]), "the protocol v4.channel.k8s.io is offered twice");
    }

    quickcheck! {
        fn no_request_has_an_extra_line(path: Vec<u8>, name: Vec<u8>, value: Vec<u8>, authority: Vec<u8>, post: bool) -> bool {
            // Mostly what `http` lets pass, and now and then what must not.
            let pick = |from: &[u8], bytes: &[u8]| bytes.iter().map(|&byte| from[usize::from(byte) % from.len()]).collect();
            let path: Vec<u8> = pick(b"abcdefghijklmnopqrstuvwxyz/%?&=+:@[]{}|\"'\\\r\n\0 \t\x7f#\xc3\xa9", &path);
            let value: Vec<u8> = pick(b"abcdefghijklmnopqrstuvwxyz :,;\t\r\n\0\x7f\xc3\xa9", &value);
            let name: Vec<u8> = pick(b"abcdefghijklmnopqrstuvwxyz-_.:\r\n ", &name);
            let authority: Vec<u8> = pick(b"abcdefghijklmnopqrstuvwxyz.-@:%", &authority);

            let uri = [b"http://", &authority[..], b"/", &path].concat();
            let uri = Uri::try_from(&uri[..]).unwrap_or_else(|_| Uri::from_static("http://a/"));
            let method = if post { Method::POST } else { Method::GET };
            let mut request = Request::builder().method(&method).uri(uri).header("Authorization", "x").body(()).unwrap();
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&name), HeaderValue::from_bytes(&value)) {
                request.headers_mut().append(name, value);
            }
            let asked = Asked::new(Protocol::SPDY_EXEC).unwrap();
            let Ok(head) = request_head(&request, Protocol::SPDY_EXEC, &asked) else { return true };

            let ends = head.windows(2).filter(|pair| pair == b"\r\n").count();
            let controls = head.iter().filter(|&&byte| matches!(byte, b'\r' | b'\n' | 0)).count();
            let user = request.headers().iter().filter(|(name, _)| *name != header::HOST).count();
            // The request line, Host, the user's, Connection, Upgrade, four offers, Content-Length, the empty line.
            let lines = 1 + 1 + user + 2 + 4 + usize::from(post) + 1;
            let parsed = head::parse_request_head(&head, 100).unwrap();
            (ends, controls) == (lines, 2 * lines)
                && parsed.headers().len() == lines - 2
                && *parsed.method() == method
                && parsed.uri().path_and_query() == request.uri().path_and_query()
        }
    }
}
