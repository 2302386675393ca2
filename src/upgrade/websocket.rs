//! What a WebSocket handshake adds to an upgrade (RFC 6455 §4).
//!
//! Makes and checks the key and its answer, checks the `Origin`, and reads the bearer token that Kubernetes allows
//! among the subprotocols. The client and the server choose the subprotocol.

use std::fmt;
use std::io;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use sha1::{Digest, Sha1};

use super::error::UpgradeError;

/// A bearer token that came as the subprotocol `base64url.bearer.authorization.k8s.io.…`, from a client that cannot set
/// `Authorization`, such as a browser. `Debug` does not show the token.
#[derive(Clone)]
pub struct BearerToken(String);

impl BearerToken {
    /// The token itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

const TOKEN: &str = "base64url.bearer.authorization.k8s.io.";
/// RFC 6455 §1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
pub(super) const VERSION: &str = "13";

/// A client's key, and the answer that a WebSocket server gives to it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) key: String,
    pub(super) answer: String,
}

impl Key {
    pub(super) fn random() -> io::Result<Self> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)?;
        let key = BASE64.encode(nonce);
        Ok(Self { answer: answer_to(key.as_bytes()), key })
    }
}

/// The `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
pub(super) fn answer_to(key: &[u8]) -> String {
    BASE64.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Checks a client's handshake (RFC 6455 §4.2.1), and returns the answer to its key.
pub(super) fn check_request(request: &Request<()>, allowed_origins: &[String]) -> Result<String, UpgradeError> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(invalid(StatusCode::METHOD_NOT_ALLOWED, "the method of a WebSocket handshake must be GET"));
    }
    if single(headers, &header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(invalid(StatusCode::UPGRADE_REQUIRED, "missing or bad Sec-WebSocket-Version"));
    }
    let is_nonce = |key: &HeaderValue| BASE64.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == 16);
    let Some(key) = single(headers, &header::SEC_WEBSOCKET_KEY).filter(|key| is_nonce(key)) else {
        return Err(invalid(StatusCode::BAD_REQUEST, "missing or bad Sec-WebSocket-Key"));
    };
    check_origin(headers, allowed_origins)?;
    Ok(answer_to(key.as_bytes()))
}

fn invalid(status: StatusCode, reason: &'static str) -> UpgradeError {
    UpgradeError::Handshake { status, reason }
}

fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), UpgradeError> {
    if !headers.contains_key(header::ORIGIN) || names_its_token(headers) || allowed.iter().any(|other| other == "*") {
        return Ok(());
    }
    let origin = single(headers, &header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let allowed = origin.is_some_and(|origin| {
        allowed.iter().any(|other| other.eq_ignore_ascii_case(origin)) || is_own_origin(origin, headers)
    });
    if allowed { Ok(()) } else { Err(UpgradeError::OriginNotAllowed { origin: origin.unwrap_or_default().to_owned() }) }
}

/// Whether a client brings credentials that no browser adds by itself. A page cannot set the `Authorization` of a
/// WebSocket. With a `Cookie` beside it, a gateway may have made the token of the cookie.
fn names_its_token(headers: &HeaderMap) -> bool {
    const SCHEME: &[u8] = b"bearer ";
    let value = single(headers, &header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let bearer = value.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
    bearer && !headers.contains_key(header::COOKIE)
}

/// Whether an `Origin` names the same host and port as the `Host` of the request. Both may leave out the default port of
/// the scheme: `http`, `https`, `ws` or `wss`. It is not if the request has no `Host`, or several.
///
/// [`Pending::accept`](super::Pending::accept) checks the `Origin` of a WebSocket by itself. Use this for other requests,
/// which a page of another site can send, too.
#[must_use]
pub fn is_own_origin(origin: &str, headers: &HeaderMap) -> bool {
    let (host, default) = match origin.split_once("://") {
        Some(("http" | "ws", host)) => (host, ":80"),
        Some(("https" | "wss", host)) => (host, ":443"),
        _ => return false,
    };
    let Some(asked) = single(headers, &header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let plain = |host: &str| host.strip_suffix(default).unwrap_or(host).to_ascii_lowercase();
    !host.is_empty() && plain(host) == plain(asked)
}

/// Takes the token out of the subprotocols, so that it is neither passed on nor logged. Anything that looks like a
/// token is taken out, too. The error says what is wrong with the token.
pub(super) fn take_bearer_token(headers: &mut HeaderMap) -> Result<Option<BearerToken>, &'static str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offers = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let (tokens, others): (Vec<&[u8]>, Vec<&[u8]>) =
        offers.filter(|offer| !offer.is_empty()).partition(|offer| looks_like_a_token(offer));
    if tokens.is_empty() {
        return Ok(None);
    }
    let token = if let [token] = tokens[..] { decode(token) } else { Err(SEVERAL) };
    let alone = others.is_empty();
    let others = HeaderValue::from_bytes(&others.join(&b", "[..]));
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let (Ok(mut others), false) = (others, alone) {
        others.set_sensitive(true);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others);
    }
    if alone { token.and(Err(ALONE)) } else { token.map(Some) }
}

/// Whether an offer may hold a token. A misspelt offer counts too: the token in it would be a secret in a log all the
/// same.
fn looks_like_a_token(offer: &[u8]) -> bool {
    const MARK: &[u8] = b"bearer.authorization.k8s.io";
    offer.windows(MARK.len()).any(|part| part.eq_ignore_ascii_case(MARK))
}

fn decode(offer: &[u8]) -> Result<BearerToken, &'static str> {
    let encoded = offer.strip_prefix(TOKEN.as_bytes()).ok_or(ENCODING)?;
    let bytes = BASE64_URL.decode(encoded).map_err(|_| ENCODING)?;
    let token = String::from_utf8(bytes).map_err(|_| ENCODING)?;
    if token.is_empty() { Err(ENCODING) } else { Ok(BearerToken(token)) }
}

const SEVERAL: &str = "multiple bearer tokens in the subprotocols";
const ENCODING: &str = "the bearer token in the subprotocols cannot be decoded";
const ALONE: &str = "missing additional subprotocol beside the bearer token";

/// The unused last bits may have any value, as in Go.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    LENIENT.with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The value of a header that occurs exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn request(lines: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.headers_mut() = headers(lines);
        request
    }

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        assert_eq!(answer_to(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (one, other) = (Key::random().unwrap(), Key::random().unwrap());
        assert_ne!(one.key, other.key);
        assert_eq!(BASE64.decode(one.key).unwrap().len(), 16);
    }

    #[test]
    fn a_request_has_one_key_of_sixteen_bytes_and_the_one_version() {
        const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        const V13: (&str, &str) = ("sec-websocket-version", "13");
        let check = |lines: &[(&'static str, &str)]| check_request(&request(lines), &[]);
        assert_eq!(check(&[KEY, V13]).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (bad_key, bad_version) =
            ((400, "missing or bad Sec-WebSocket-Key"), (426, "missing or bad Sec-WebSocket-Version"));
        for (lines, fault) in [
            (&[V13][..], bad_key),
            (&[KEY, KEY, V13], bad_key),
            (&[("sec-websocket-key", "c2hvcnQ="), V13], bad_key),
            (&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ"), V13], bad_key),
            (&[KEY], bad_version),
            (&[KEY, V13, V13], bad_version),
            (&[KEY, ("sec-websocket-version", "8")], bad_version),
        ] {
            let Err(UpgradeError::Handshake { status, reason }) = check(lines) else { panic!("{lines:?}") };
            assert_eq!((status.as_u16(), reason), fault, "{lines:?}");
        }
        let mut post = request(&[KEY, V13]);
        *post.method_mut() = Method::POST;
        let refused = check_request(&post, &[]);
        assert!(matches!(refused, Err(UpgradeError::Handshake { status: StatusCode::METHOD_NOT_ALLOWED, .. })));
    }

    #[test]
    fn a_strangers_page_is_kept_out() {
        let allowed = |origin: &str| ["http://another.example".to_owned(), origin.to_owned()];
        for (host, origin, same) in [
            ("node:8001", "http://node:8001", true),
            ("NODE:8001", "http://node:8001", true),
            ("node", "http://node:80", true),
            ("node:443", "https://node", true),
            ("[::1]:8001", "http://[::1]:8001", true),
            // No browser writes this, but ws4py does.
            ("node:8001", "ws://node:8001", true),
            ("node", "wss://node:443", true),
            ("node", "wss://node:80", false),
            ("node:8001", "http://node", false),
            ("node:8001", "http://node:8002", false),
            ("node", "http://node.evil.example", false),
            ("node", "http://evil.example/node", false),
            ("node", "null", false),
            ("node", "", false),
            ("node", "file://node", false),
        ] {
            let headers = headers(&[("host", host), ("origin", origin)]);
            assert_eq!(check_origin(&headers, &[]).is_ok(), same, "{origin} at {host}");
            assert_eq!(check_origin(&headers, &allowed("https://other.example")).is_ok(), same, "{origin} at {host}");
            assert!(check_origin(&headers, &allowed("*")).is_ok());
            assert!(check_origin(&headers, &allowed(origin)).is_ok());
        }
        let none = headers(&[("host", "node")]);
        assert!(check_origin(&none, &[]).is_ok());
        let two = headers(&[("host", "node"), ("origin", "http://node"), ("origin", "http://evil.example")]);
        assert!(check_origin(&two, &[]).is_err());
    }

    #[test]
    fn a_client_that_names_its_token_is_no_strangers_page() {
        const SUBPROTOCOLS: (&str, &str) =
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.dDBrZW4, v5.channel.k8s.io");
        for (lines, allowed) in [
            (&[("authorization", "Bearer t0ken")][..], true),
            (&[("authorization", "bearer t0ken")], true),
            // A browser adds these by itself, and a gateway may make a token of a cookie.
            (&[("authorization", "Basic dDprZW4=")], false),
            (&[("authorization", "Negotiate dDprZW4=")], false),
            (&[("authorization", "Bearer t0ken"), ("cookie", "session=1")], false),
            (&[("authorization", "Bearer t0ken"), ("authorization", "Basic dDprZW4=")], false),
            // A page can choose its subprotocols.
            (&[SUBPROTOCOLS], false),
        ] {
            let lines = [&[("host", "127.0.0.1"), ("origin", "https://api.example")], lines].concat();
            assert_eq!(check_origin(&headers(&lines), &[]).is_ok(), allowed, "{lines:?}");
        }
    }

    #[test]
    fn a_token_is_taken_out_of_the_subprotocols() {
        const T0KEN: &str = "base64url.bearer.authorization.k8s.io.dDBrZW4";
        let take = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("sec-websocket-protocol", *line)).collect();
            let mut headers = headers(&lines);
            let token = take_bearer_token(&mut headers).map(|token| token.map(|token| token.0));
            let rest = headers.get(header::SEC_WEBSOCKET_PROTOCOL).map(|rest| rest.to_str().unwrap().to_owned());
            (token, rest)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(take(&["v5.channel.k8s.io"]), (Ok(None), some("v5.channel.k8s.io")));
        assert_eq!(take(&[&format!("a, {T0KEN}, b")]), (Ok(some("t0ken")), some("a, b")));
        assert_eq!(take(&["a", T0KEN]), (Ok(some("t0ken")), some("a")));
        assert_eq!(take(&[T0KEN]), (Err(ALONE), None));
        assert_eq!(take(&[T0KEN, T0KEN, "a"]), (Err(SEVERAL), some("a")));
        for bad in ["", "?", "dDBrZW4=", "_w"] {
            let bad = format!("{TOKEN}{bad}");
            assert_eq!(take(&[&bad, "a"]), (Err(ENCODING), some("a")), "{bad}");
        }
        // Spelt wrong, it is still nothing to pass on.
        for near in [
            &T0KEN.to_uppercase(),
            "x;base64url.bearer.authorization.k8s.io.dDBrZW4",
            "\"base64url.bearer.authorization.k8s.io.x\"",
        ] {
            assert_eq!(take(&[near, "a"]), (Err(ENCODING), some("a")), "{near}");
        }
        assert_eq!(format!("{:?}", decode(b"base64url.bearer.authorization.k8s.io.dDBrZW4")), "Ok(BearerToken(..))");
    }
}
