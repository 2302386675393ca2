//! Tests the handshake with any peer, at both ends.
//!
//! Holds a plain decoder of heads, line by line, and what a head must contain before an end switches protocols.

use std::cell::RefCell;
use std::rc::Rc;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::Request;
use kubestream::unstable::head::{parse_request_head, parse_response_head};
use kubestream::upgrade::{self, Config, Pending, Protocol, Transport, UpgradeError, Upgraded};
use tungstenite::handshake::derive_accept_key;

use crate::channel::BASE64;
use crate::io::{self, Io, Task};

/// As Go's `RawURLEncoding`.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

const TOKEN: &[u8] = b"base64url.bearer.authorization.k8s.io.";
/// The part that makes a subprotocol look like a token, whatever surrounds it.
const LOOK: &[u8] = b"bearer.authorization.k8s.io";
/// The beginning of the tokens that are searched for: `s3cr3t`.
const MARK: &[u8] = b"czNjcjN0";
const SECRET: &str = "s3cr3t-0f-0ur-0wn";
/// Stands for the correct answer to the client's key.
const ANSWER: u8 = 1;
/// Separates a server's answers on the first and the second connection.
const NEXT: u8 = 2;

/// With any bytes as a client's request or a server's answer, an end has either switched protocols or reports that it
/// has not. It never switches without everything that RFC 6455 §4 requires, and neither end shows a token.
///
/// The first byte chooses the end and its protocols, and the second how the bytes are cut.
pub fn websocket_handshake(input: &[u8]) {
    let [choice, step, input @ ..] = input else { return };
    let step = if *step == 0 { usize::MAX } else { usize::from(*step) };
    let protocols = [Protocol::ANY_EXEC, Protocol::WEBSOCKET_EXEC_V5, Protocol::WEBSOCKET_EXEC, Protocol::SPDY_EXEC]
        [usize::from(choice >> 1 & 3)];
    io::run(async {
        match (choice & 1, choice >> 3 & 1) {
            (0, _) => server(input, step, protocols),
            (_, 0) => client(input, step, protocols, None),
            _ => client(input, step, Protocol::WEBSOCKET_EXEC_V5, Some(Protocol::SPDY_EXEC)),
        }
    });
}

fn config() -> Config {
    let mut config = Config::default();
    config.max_head = 2048;
    config.max_headers = 16;
    config.max_refusal_body = 1024;
    config
}

/// Polls a future to its end that has no reason to wait.
fn finish<T>(mut task: Task<T>, io: &Io) -> T {
    let progress = || {
        let wire = io.0.borrow();
        (wire.read, wire.written.len(), wire.shut)
    };
    task.poll(progress).expect("it waits without a reason")
}

fn server(input: &[u8], step: usize, supported: &'static [Protocol]) {
    let io = Io::new(step);
    {
        let mut wire = io.0.borrow_mut();
        wire.said = input.to_vec();
        wire.eof = true;
    }
    let head = Head::first(input);
    let ours = io.clone();
    let pending = finish(Task::new(async move { upgrade::accept(ours, &config()).await }), &io);
    // Only marked tokens, because any other could be one of our own words; and only those that occur nowhere else.
    let encoded = head.tokens().filter_map(|token| token.strip_prefix(TOKEN));
    let marked: Vec<&[u8]> = encoded.filter(|token| token.starts_with(MARK) && count(input, token) == 1).collect();
    let decoded = marked.iter().filter_map(|token| BASE64_URL.decode(token).ok());
    let decoded = decoded.filter(|token| count(input, token) == 0);
    let secrets: Vec<Vec<u8>> = marked.iter().map(|token| token.to_vec()).chain(decoded).collect();
    let clean = |what: &[u8]| assert!(secrets.iter().all(|secret| count(what, secret) == 0), "a token is shown");
    let result = match pending {
        Ok(pending) => {
            clean(format!("{pending:?}").as_bytes());
            check_token(&pending, &head);
            let transport = pending.transport();
            let accepted = finish(Task::new(async move { pending.accept(supported).await }), &io);
            accepted.map(|upgraded| (upgraded, transport))
        }
        Err(error) => Err(error),
    };
    let written = io.0.borrow().written.clone();
    clean(&written);
    match result {
        Ok((upgraded, transport)) => {
            assert!(upgraded.protocol().is_some_and(|protocol| supported.contains(&protocol)));
            let (asked, transport) = (transport, upgraded.protocol().map(Protocol::transport));
            // A client that names both is asked for SPDY first, and gets the transport for which it offers a protocol.
            let names_both = ["websocket", "SPDY/3.1"].iter().all(|token| head.lists("upgrade", token));
            assert!(asked == transport || names_both, "{asked:?} was requested, and {transport:?} was chosen");
            let head_len = check_rest(upgraded, input, &io).0;
            assert!(head_len <= config().max_head);
            check_switch(&head, &written, transport);
        }
        Err(error) => {
            clean(format!("{error} {error:?}").as_bytes());
            if !written.is_empty() {
                check_refusal(&written);
            }
            let unsaid = matches!(error, UpgradeError::Io(_) | UpgradeError::Timeout);
            assert_eq!(unsaid, written.is_empty(), "{error:?}");
        }
    }
}

/// Checks that the token is where it should be, and nowhere else.
fn check_token(pending: &Pending<Io>, head: &Head) {
    let protocols = pending.request().headers().get_all("sec-websocket-protocol");
    let elements = protocols.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let offers = pending.offers().filter(|_| pending.transport() == Some(Transport::WebSocket));
    for element in elements.chain(offers.map(str::as_bytes)) {
        assert!(count(&element.to_ascii_lowercase(), LOOK) == 0, "a token is left among the subprotocols");
    }
    if let Ok(token) = pending.bearer_token() {
        let tokens: Vec<&[u8]> = head.tokens().collect();
        match (token, &tokens[..]) {
            (None, []) => {}
            (Some(token), [said]) => {
                let encoded = said.strip_prefix(TOKEN).unwrap();
                assert_eq!(BASE64_URL.decode(encoded).unwrap(), token.as_str().as_bytes());
                assert_eq!(format!("{token:?}"), "BearerToken(..)");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Checks what a request must contain before it is answered with 101, and what the 101 contains.
fn check_switch(request: &Head, written: &[u8], transport: Option<Transport>) {
    let answer = Head::first(written);
    assert!(written.starts_with(b"HTTP/1.1 101 ") && written.ends_with(b"\r\n\r\n"));
    assert_eq!(count(written, b"\r\n\r\n"), 1, "bytes after the 101");
    assert!(request.lists("connection", "upgrade") && answer.lists("connection", "upgrade"));
    if transport == Some(Transport::Spdy) {
        assert!(request.lists("upgrade", "spdy/3.1") && answer.lists("upgrade", "spdy/3.1"));
        assert!(request.elements("x-stream-protocol-version").any(|name| answer.is("x-stream-protocol-version", name)));
        return;
    }
    assert!(request.start.starts_with(b"GET "));
    assert!(request.lists("upgrade", "websocket") && answer.lists("upgrade", "websocket"));
    assert!(request.is("sec-websocket-version", b"13"));
    let keys: Vec<&[u8]> = request.values("sec-websocket-key").collect();
    assert!(keys.len() == 1 && BASE64.decode(keys[0]).unwrap().len() == 16);
    assert!(answer.is("sec-websocket-accept", derive_accept_key(keys[0]).as_bytes()));
    assert_eq!(answer.values("sec-websocket-extensions").count(), 0);
    match answer.values("sec-websocket-protocol").next() {
        Some(chosen) => assert!(request.elements("sec-websocket-protocol").any(|name| name == chosen)),
        // A line that is not ASCII contains no offers.
        None if request.values("sec-websocket-protocol").any(|line| !line.is_ascii()) => {}
        None => assert_eq!(request.elements("sec-websocket-protocol").count(), request.tokens().count()),
    }
    // A page can set no `Authorization`.
    let mut credentials = request.values("authorization").map(<[u8]>::to_ascii_lowercase);
    let bearer = credentials.next().is_some_and(|first| first.starts_with(b"bearer ")) && credentials.next().is_none();
    if bearer && request.values("cookie").next().is_none() {
        return;
    }
    for origin in request.values("origin") {
        let host = request.values("host").next().unwrap();
        let plain = |name: &[u8]| name.to_ascii_lowercase();
        let (origin, host) = (plain(origin), plain(host));
        let host = host.strip_suffix(b":80").or(host.strip_suffix(b":443")).unwrap_or(&host);
        let scheme = [&b"http"[..], b"ws"].iter().any(|scheme| origin.starts_with(scheme));
        assert!(scheme && count(&origin, host) > 0, "a page of another origin");
    }
}

/// Checks that a refusal is one response, whose body has the stated length.
fn check_refusal(written: &[u8]) {
    let end = written.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let (head, body) = written.split_at(end);
    let response = parse_response_head(head, 16).unwrap();
    assert!(response.status().is_client_error());
    assert_eq!(response.headers()["content-length"], body.len().to_string());
    assert_eq!(response.headers()["connection"], "close");
}

/// Checks that exactly the bytes after a head are passed on. Returns the length of the heads, and those bytes.
fn check_rest(upgraded: Upgraded<Io>, input: &[u8], io: &Io) -> (usize, Vec<u8>) {
    let (_, ahead, _) = upgraded.into_parts();
    let wire = io.0.borrow();
    let rest = [&ahead[..], &wire.said[wire.read..]].concat();
    assert!(input.ends_with(&rest));
    let head = input.len() - rest.len();
    assert!(input[..head].ends_with(b"\n"));
    (head, rest)
}

fn client(input: &[u8], step: usize, offers: &'static [Protocol], fallback: Option<&'static [Protocol]>) {
    let ios: Rc<RefCell<Vec<Io>>> = Rc::default();
    let dial = {
        let ios = Rc::clone(&ios);
        move || {
            let io = Io::new(step);
            ios.borrow_mut().push(io.clone());
            std::future::ready(Ok::<_, std::io::Error>(io))
        }
    };
    let mixed = offers.iter().any(|offer| offer.transport() != offers[0].transport());
    let mut connecting: Task<Result<Upgraded<Io>, String>> = Task::new(async move {
        let request = Request::get("/exec?command=a").header("Host", "node").header("Authorization", SECRET);
        let request = request.body(()).unwrap();
        match fallback {
            None => {
                let dial = dial;
                let io = dial().await.unwrap();
                upgrade::connect(io, request, offers, &config()).await.map_err(|error| format!("{error} {error:?}"))
            }
            Some(spdy) => upgrade::connect_with_fallback(dial, request, offers, spdy, &config())
                .await
                .map_err(|error| format!("{error} {error:?}")),
        }
    });
    let mut answers = input.splitn(2, |byte| *byte == NEXT);
    let mut said = Vec::new();
    let result = loop {
        let progress = || {
            let wires = ios.borrow();
            wires.iter().map(|io| (io.0.borrow().read, io.0.borrow().written.len())).collect::<Vec<_>>()
        };
        if let Some(result) = connecting.poll(progress) {
            break result;
        }
        // The client waits for an answer on its last connection, because it opens one after another.
        let io = ios.borrow().last().cloned().unwrap();
        let mut wire = io.0.borrow_mut();
        assert!(!wire.eof, "it waits without a reason");
        let transport = if ios.borrow().len() == 1 { offers[0].transport() } else { Transport::Spdy };
        let key = check_request(&wire.written, transport);
        let answer = answers.next().unwrap_or_default().split(|byte| *byte == ANSWER).collect::<Vec<_>>();
        wire.said = answer.join(derive_accept_key(&key).as_bytes());
        wire.eof = true;
        said.push((wire.said.clone(), key, transport));
        wire.wake();
    };
    assert!(!mixed || ios.borrow().iter().all(|io| io.0.borrow().written.is_empty()), "offers of two transports");
    match result {
        Ok(upgraded) => {
            let (answer, key, transport) = said.pop().unwrap();
            let chosen = upgraded.protocol().unwrap();
            let io = ios.borrow().last().cloned().unwrap();
            let (head_len, _) = check_rest(upgraded, &answer, &io);
            let head = Head::last(&answer[..head_len]);
            assert!(is_switch(&head));
            assert!(head.lists("connection", "upgrade"));
            assert_eq!(chosen.transport(), transport);
            if transport == Transport::WebSocket {
                assert!(offers.contains(&chosen) && head.lists("upgrade", "websocket"));
                assert!(head.is("sec-websocket-accept", derive_accept_key(&key).as_bytes()));
                assert!(head.values("sec-websocket-extensions").all(|extension| extension.is_empty()));
                let names: Vec<&[u8]> = head.values("sec-websocket-protocol").filter(|name| !name.is_empty()).collect();
                assert!(names == [chosen.name().as_bytes()] || names.is_empty() && chosen.name().is_empty());
            } else {
                assert!(head.lists("upgrade", "spdy/3.1"));
            }
            for (refused, key, _) in said {
                // What follows it is a body, whatever it looks like.
                let final_one = |head: &Head| !head.start.starts_with(b"HTTP/1.1 1") || is_switch(head);
                let answer = Head::all(&refused).into_iter().find(final_one);
                let taken = answer.is_some_and(|head| {
                    let unasked = ["sec-websocket-extensions", "content-length", "transfer-encoding"];
                    is_switch(&head)
                        && head.lists("connection", "upgrade")
                        && head.lists("upgrade", "websocket")
                        && head.is("sec-websocket-accept", derive_accept_key(&key).as_bytes())
                        && offers.iter().any(|offer| head.is("sec-websocket-protocol", offer.name().as_bytes()))
                        && unasked.iter().all(|name| head.values(name).next().is_none())
                });
                assert!(!taken, "after an upgrade there is no second attempt");
            }
        }
        Err(error) => {
            let repeated = said.iter().any(|(answer, ..)| count(answer, SECRET.as_bytes()) > 0);
            assert!(repeated || !error.contains(SECRET), "a secret is shown");
        }
    }
}

fn is_switch(head: &Head) -> bool {
    head.start.starts_with(b"HTTP/1.1 101")
}

/// Checks a client's request, and returns its key.
fn check_request(written: &[u8], transport: Transport) -> Vec<u8> {
    let request = parse_request_head(written, 100).unwrap();
    let head = Head::first(written);
    assert!(
        request.uri() == "/exec?command=a" && head.is("host", b"node") && head.is("authorization", SECRET.as_bytes())
    );
    assert!(head.lists("connection", "upgrade"));
    if transport == Transport::Spdy {
        assert!(head.is("upgrade", b"SPDY/3.1"));
        return Vec::new();
    }
    assert!(head.start.starts_with(b"GET ") && head.is("upgrade", b"websocket"));
    assert!(head.is("sec-websocket-version", b"13") && head.values("sec-websocket-protocol").count() <= 1);
    let keys: Vec<&[u8]> = head.values("sec-websocket-key").collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(BASE64.decode(keys[0]).unwrap().len(), 16);
    keys[0].to_vec()
}

/// A head, line by line.
#[derive(Debug, Default)]
struct Head<'a> {
    start: &'a [u8],
    headers: Vec<(Vec<u8>, &'a [u8])>,
}

impl<'a> Head<'a> {
    fn all(bytes: &'a [u8]) -> Vec<Self> {
        let mut heads = vec![Self::default()];
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let head = heads.last_mut().unwrap();
            if line.is_empty() {
                if !head.start.is_empty() {
                    heads.push(Self::default());
                }
            } else if head.start.is_empty() {
                head.start = line;
            } else if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                head.headers.push((line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii()));
            }
        }
        heads
    }

    fn first(bytes: &'a [u8]) -> Self {
        Self::all(bytes).swap_remove(0)
    }

    fn last(bytes: &'a [u8]) -> Self {
        Self::all(bytes).into_iter().rfind(|head| !head.start.is_empty()).unwrap_or_default()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(other, _)| other == name.as_bytes()).map(|(_, value)| *value)
    }

    fn elements(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let elements = self.values(name).flat_map(|line| line.split(|byte| *byte == b','));
        elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
    }

    fn lists(&self, name: &str, token: &str) -> bool {
        self.elements(name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// True if a header occurs once, with this value.
    fn is(&self, name: &str, value: &[u8]) -> bool {
        self.values(name).eq([value])
    }

    /// The bearer tokens among the subprotocols, and names that look like one.
    fn tokens(&self) -> impl Iterator<Item = &'a [u8]> {
        self.elements("sec-websocket-protocol").filter(|name| count(&name.to_ascii_lowercase(), LOOK) > 0)
    }
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len().max(1)).filter(|window| *window == needle).count()
}
