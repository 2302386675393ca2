//! HTTP/1.1 heads: finds where a head ends, and parses it (RFC 9112 §2 to §5).
//!
//! Keeps the limits on a head, and does no IO. Whether a head is a valid upgrade is for the client and the server to
//! decide.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};

use super::error::UpgradeError;
use super::query;

/// Collects bytes up to the end of a head. It looks at each byte once, however the bytes are split.
#[derive(Debug)]
pub struct HeadReader {
    buffer: BytesMut,
    /// How many bytes of the buffer were looked at.
    scanned: usize,
    line: Line,
    /// How many bytes all further heads together may have.
    budget: usize,
    limit: usize,
}

/// What the current line holds so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Text,
    Empty,
    /// One CR and nothing else.
    Cr,
}

impl HeadReader {
    /// Makes a reader for heads of at most `max_head` bytes all together.
    #[must_use]
    pub fn new(max_head: usize) -> Self {
        // An empty line before the head does not end it (RFC 9112 §2.2).
        Self { buffer: BytesMut::new(), scanned: 0, line: Line::Text, budget: max_head, limit: max_head }
    }

    /// The bytes after the last head that was taken. Append what you read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Takes a head with the empty line that ends it, or returns `None` if the head is not whole yet. A line may end
    /// with a bare LF, as in Go.
    ///
    /// # Errors
    /// [`UpgradeError::HeadTooLarge`] if all heads together have more than `max_head` bytes.
    pub fn take_head(&mut self) -> Result<Option<Bytes>, UpgradeError> {
        let mut end = None;
        for &byte in self.buffer.get(self.scanned..).unwrap_or_default() {
            self.scanned = self.scanned.saturating_add(1);
            self.line = match (byte, self.line) {
                (b'\n', Line::Empty | Line::Cr) => {
                    end = Some(self.scanned);
                    break;
                }
                (b'\n', Line::Text) => Line::Empty,
                (b'\r', Line::Empty) => Line::Cr,
                _ => Line::Text,
            };
        }
        let Some(budget) = self.budget.checked_sub(self.scanned).filter(|&left| end.is_some() || left > 0) else {
            return Err(UpgradeError::HeadTooLarge { limit: self.limit });
        };
        let Some(end) = end else { return Ok(None) };
        self.budget = budget;
        self.scanned = 0;
        self.line = Line::Text;
        Ok(Some(self.buffer.split_to(end).freeze()))
    }

    /// The bytes after the last head.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.buffer.freeze()
    }
}

/// Parses the head of an HTTP/1.1 or HTTP/1.0 request.
///
/// # Errors
/// [`UpgradeError::TooManyHeaders`], [`UpgradeError::TargetTooLong`] if the path is too long for an [`http::Uri`], or
/// [`UpgradeError::MalformedHead`] if `head` is not exactly one head with one `Host`, which HTTP/1.0 may leave out.
pub fn parse_request_head(head: &[u8], max_headers: usize) -> Result<Request<()>, UpgradeError> {
    let mut lines = header_lines(head, max_headers);
    let mut parsed = httparse::Request::new(&mut lines);
    check(parsed.parse(head), head, max_headers)?;
    let version = version(parsed.version);
    let method = parsed.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let (path, long_query) = split_long(parsed.path.unwrap_or_default())?;
    let (Some(method), Ok(uri)) = (method, Uri::try_from(path)) else { return Err(BAD_START_LINE) };
    // The target must be a path. It is neither an authority, which CONNECT has, nor `*`, which OPTIONS may have (RFC 9112 §3.2).
    if !uri.path().starts_with('/') && (method != Method::OPTIONS || uri.path() != "*") {
        return Err(BAD_START_LINE);
    }
    let headers = header_map(parsed.headers)?;
    match headers.get_all(header::HOST).iter().count() {
        1 => {}
        0 if version == Version::HTTP_10 => {}
        _ => return Err(BAD_HOST),
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    if let Some(query) = long_query {
        query::set_query(&mut request, query).map_err(|_| BAD_START_LINE)?;
    }
    Ok(request)
}

/// Parses the head of an HTTP/1.1 or HTTP/1.0 response.
///
/// # Errors
/// [`UpgradeError::TooManyHeaders`], or [`UpgradeError::MalformedHead`] if `head` is not exactly one head.
pub fn parse_response_head(head: &[u8], max_headers: usize) -> Result<Response<()>, UpgradeError> {
    let mut lines = header_lines(head, max_headers);
    let mut parsed = httparse::Response::new(&mut lines);
    check(parsed.parse(head), head, max_headers)?;
    let Some(status) = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()) else {
        return Err(BAD_START_LINE);
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version(parsed.version);
    *response.headers_mut() = header_map(parsed.headers)?;
    Ok(response)
}

/// Splits the query off a target that does not fit into an `http::Uri`.
fn split_long(target: &str) -> Result<(&str, Option<&str>), UpgradeError> {
    if target.len() <= query::MAX_TARGET {
        return Ok((target, None));
    }
    match target.split_once('?') {
        Some((path, query)) if path.len() <= query::MAX_TARGET => Ok((path, Some(query))),
        _ => Err(TARGET_TOO_LONG),
    }
}

/// The version of a parsed head, which `httparse` numbers 0 or 1.
fn version(minor: Option<u8>) -> Version {
    if minor == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 }
}

/// Whether a comma-separated header lists the token, in any of the header's lines and in upper or lower case (RFC 9110
/// §5.6.1).
pub(super) fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    elements(headers, &name).any(|element| element.eq_ignore_ascii_case(token))
}

/// The elements of a comma-separated header in all its lines. Empty elements and lines that are not ASCII are skipped.
pub(super) fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

/// Whether the headers announce a body. `Content-Length: 0`, which Go's clients send, does not.
pub(super) fn announces_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0")
}

/// Writes header lines. `http`'s types cannot hold a line end.
pub(super) fn put_headers(head: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        put_header(head, name.as_str(), value.as_bytes());
    }
}

pub(super) fn put_header(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

pub(super) const BAD_START_LINE: UpgradeError = UpgradeError::MalformedHead("bad start line");
const BAD_VERSION: UpgradeError = UpgradeError::MalformedHead("the version is neither HTTP/1.1 nor HTTP/1.0");
pub(super) const TARGET_TOO_LONG: UpgradeError = UpgradeError::TargetTooLong { limit: query::MAX_TARGET };
const BAD_HEADER: UpgradeError = UpgradeError::MalformedHead("bad header line");
const BAD_HOST: UpgradeError = UpgradeError::MalformedHead("not exactly one Host header");

/// Makes room for as many header lines as the head can have: the shortest line is `a:` and LF.
fn header_lines(head: &[u8], max_headers: usize) -> Vec<httparse::Header<'_>> {
    vec![httparse::EMPTY_HEADER; max_headers.min(head.len() / 3)]
}

fn check(parsed: httparse::Result<usize>, head: &[u8], limit: usize) -> Result<(), UpgradeError> {
    match parsed {
        Ok(httparse::Status::Complete(len)) if len == head.len() => Ok(()),
        Ok(_) | Err(httparse::Error::Status | httparse::Error::Token) => Err(BAD_START_LINE),
        Err(httparse::Error::TooManyHeaders) => Err(UpgradeError::TooManyHeaders { limit }),
        Err(httparse::Error::Version) => Err(BAD_VERSION),
        Err(_) => Err(BAD_HEADER),
    }
}

fn header_map(lines: &[httparse::Header<'_>]) -> Result<HeaderMap, UpgradeError> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BAD_HEADER)?;
        let mut value = HeaderValue::from_bytes(line.value).map_err(|_| BAD_HEADER)?;
        // `Debug` must not show these values.
        value.set_sensitive(SECRETS.contains(&name));
        headers.try_append(name, value).map_err(|_| BAD_HEADER)?;
    }
    Ok(headers)
}

/// Headers whose values are secret. `Sec-WebSocket-Protocol` may carry a bearer token
/// (`base64url.bearer.authorization.k8s.io.…`).
const SECRETS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SET_COOKIE,
];

#[cfg(test)]
mod tests {
    use quickcheck::{TestResult, quickcheck};

    use super::*;

    const KUBECTL: &[u8] = b"POST /api/v1/namespaces/default/pods/web/exec?command=true&stdout=true HTTP/1.1\r\n\
        Host: 127.0.0.1:18006\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
        X-Stream-Protocol-Version: v5.channel.k8s.io\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";

    fn take(bytes: &[u8], max: usize) -> Result<Option<(Bytes, Bytes)>, UpgradeError> {
        let mut reader = HeadReader::new(max);
        reader.buffer().extend_from_slice(bytes);
        Ok(reader.take_head()?.map(|head| (head, reader.into_rest())))
    }

    fn reason<T: std::fmt::Debug>(parsed: Result<T, UpgradeError>) -> &'static str {
        match parsed {
            Err(UpgradeError::MalformedHead(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        for head in ["a\r\n\r\n", "a\n\n", "a\r\n\n", "a\n\r\n", "\r\na\r\n\r\n", "a\r\r\n\r\n", "\r\n\r\n"] {
            let (taken, rest) = take(format!("{head}rest\n\n").as_bytes(), 1024).unwrap().unwrap();
            assert_eq!((&taken[..], &rest[..]), (head.as_bytes(), &b"rest\n\n"[..]));
        }
        for part in ["", "a", "a\r\n", "a\r\n\r", "a\r\n\r\r\n", "\r\n"] {
            assert!(take(part.as_bytes(), 1024).unwrap().is_none(), "{part:?}");
        }
    }

    #[test]
    fn a_head_is_bounded_to_the_byte() {
        let limit = KUBECTL.len();
        assert!(take(KUBECTL, limit).unwrap().is_some());
        let too_large = |taken| matches!(taken, Err(UpgradeError::HeadTooLarge { .. }));
        assert!(too_large(take(KUBECTL, limit - 1)));
        assert!(too_large(take(&KUBECTL[..limit - 1], limit - 1)));
        assert!(take(&KUBECTL[..limit - 1], limit).unwrap().is_none());
    }

    #[test]
    fn a_head_that_drips_in_is_looked_at_once() {
        // Looking again at each byte would be 2^41 looks.
        let mut reader = HeadReader::new(usize::MAX);
        for _ in 0..2 * 1024 * 1024 {
            reader.buffer().extend_from_slice(b"x");
            assert!(reader.take_head().unwrap().is_none());
        }
        reader.buffer().extend_from_slice(b"\n\n");
        assert_eq!(reader.take_head().unwrap().unwrap().len(), 2 * 1024 * 1024 + 2);
    }

    #[test]
    fn heads_share_one_budget() {
        let two = "HTTP/1.1 100 Continue\r\n\r\n".repeat(2);
        let mut reader = HeadReader::new(two.len() - 1);
        reader.buffer().extend_from_slice(two.as_bytes());
        assert!(reader.take_head().unwrap().is_some());
        assert!(matches!(reader.take_head(), Err(UpgradeError::HeadTooLarge { limit }) if limit == two.len() - 1));
    }

    #[test]
    fn kubectls_request_is_read() {
        let request = parse_request_head(KUBECTL, 100).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri().query(), Some("command=true&stdout=true"));
        assert!(lists(request.headers(), header::CONNECTION, "upgrade"));
        assert!(lists(request.headers(), header::UPGRADE, "spdy/3.1"));
        assert!(!announces_body(request.headers()));
        let offers = elements(request.headers(), &crate::protocol::X_STREAM_PROTOCOL_VERSION);
        assert_eq!(offers.collect::<Vec<_>>(), ["v5.channel.k8s.io", "v4.channel.k8s.io"]);
    }

    #[test]
    fn malformed_requests_are_refused() {
        for (head, expected) in [
            ("PRI * HTTP/2.0\r\n\r\n", "the version is neither HTTP/1.1 nor HTTP/1.0"),
            ("GET /\r\n\r\n", "bad start line"),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "bad start line"),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "bad start line"),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "bad start line"),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "bad start line"),
            ("\r\n\r\n", "bad start line"),
            ("GET / HTTP/1.1\r\n\r\n", "not exactly one Host header"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "not exactly one Host header"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "bad header line"),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "bad header line"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", "bad header line"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "bad header line"),
            ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", "bad header line"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", "bad start line"),
        ] {
            assert_eq!(reason(parse_request_head(head.as_bytes(), 100)), expected, "{head:?}");
        }
    }

    #[test]
    fn malformed_responses_are_refused() {
        for (head, expected) in [
            ("HTTP/2 200\r\n\r\n", "the version is neither HTTP/1.1 nor HTTP/1.0"),
            ("SSH-2.0-x\r\n\r\n", "the version is neither HTTP/1.1 nor HTTP/1.0"),
            ("HTTP/1.1 99 x\r\n\r\n", "bad start line"),
            ("HTTP/1.1 099 x\r\n\r\n", "bad start line"),
            ("HTTP/1.1 200\r\nX\r\n\r\n", "bad header line"),
        ] {
            assert_eq!(reason(parse_response_head(head.as_bytes(), 100)), expected, "{head:?}");
        }
        let old = parse_response_head(b"HTTP/1.0 403 \nA: b\n\n", 100).unwrap();
        assert_eq!((old.status().as_u16(), old.version()), (403, Version::HTTP_10));
    }

    #[test]
    fn headers_are_counted() {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a:\n".repeat(99));
        assert_eq!(parse_request_head(head.as_bytes(), 100).unwrap().headers().len(), 100);
        let error = parse_request_head(head.as_bytes(), 99).unwrap_err();
        assert!(matches!(error, UpgradeError::TooManyHeaders { limit: 99 }));
    }

    #[test]
    fn debug_shows_no_secret() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0ken\r\nCookie: t0ken\r\n\r\n";
        assert!(!format!("{:?}", parse_request_head(head, 100).unwrap()).contains("t0ken"));
    }

    #[test]
    fn a_body_is_announced_by_any_length_but_zero() {
        for (lines, announced) in [
            ("", false),
            ("Content-Length: 0\r\n", false),
            ("Content-Length: 0\r\nContent-Length: 0\r\n", false),
            ("Content-Length: 0\r\nContent-Length: 5\r\n", true),
            ("Content-Length: 0, 5\r\n", true),
            ("Content-Length: -0\r\n", true),
            ("Content-Length: \r\n", true),
            ("Transfer-Encoding: identity\r\n", true),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            assert_eq!(
                announces_body(parse_request_head(head.as_bytes(), 100).unwrap().headers()),
                announced,
                "{lines}"
            );
        }
    }

    quickcheck! {
        fn a_head_is_found_however_it_is_split(cuts: Vec<u8>, rest: Vec<u8>) -> bool {
            let all = [KUBECTL, &rest].concat();
            let mut reader = HeadReader::new(KUBECTL.len());
            let mut left = &all[..];
            let mut cuts = cuts.into_iter().chain(std::iter::repeat(1));
            loop {
                let (now, later) = left.split_at(left.len().min(usize::from(cuts.next().unwrap())));
                reader.buffer().extend_from_slice(now);
                left = later;
                if let Some(head) = reader.take_head().unwrap() {
                    return head == KUBECTL && [&reader.into_rest()[..], left].concat() == rest;
                }
            }
        }

        fn no_bytes_panic(bytes: Vec<u8>, max: u8, swap: (u8, u8)) -> bool {
            let _ = take(&bytes, usize::from(max));
            let _ = parse_request_head(&bytes, usize::from(max));
            let _ = parse_response_head(&bytes, usize::from(max));
            let mut mutated = KUBECTL.to_vec();
            mutated[usize::from(swap.0)] = swap.1;
            let _ = parse_request_head(&mutated, usize::from(max));
            true
        }

        fn a_parsed_head_has_no_line_end_in_it(at: u8, byte: u8) -> TestResult {
            let mut mutated = KUBECTL.to_vec();
            mutated[usize::from(at)] = byte;
            let Ok(request) = parse_request_head(&mutated, 100) else { return TestResult::discard() };
            let control = |bytes: &[u8]| bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
            let uri = request.uri().to_string();
            TestResult::from_bool(!control(uri.as_bytes()) && !request.headers().values().any(|value| control(value.as_bytes())))
        }
    }
}
