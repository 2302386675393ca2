//! The WebSocket handshake between two peers, one of which the test plays byte by byte. What the played peers send was
//! recorded from kubectl 1.32 and a kube-apiserver 1.34.4.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::io;

use http::{Request, StatusCode};
use kubestream::Initiator;
use kubestream::protocol::Subprotocol;
use kubestream::upgrade::{self, Config, Protocol, Transport, UpgradeError, Upgraded, Version, connect_with_fallback};
use support::read_head;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const KUBECTL_REQUEST: &str = "GET /api/v1/namespaces/default/pods/web/exec?command=sh&command=-c&command=echo+bye%3B+exit+7&container=main&stderr=true&stdout=true HTTP/1.1\r\n\
    Host: 127.0.0.1:18019\r\n\
    User-Agent: kubectl/v1.32.4 (linux/amd64) kubernetes/4cb5f07\r\n\
    Connection: Upgrade\r\n\
    Kubectl-Command: kubectl exec\r\n\
    Kubectl-Session: d5c04d71-4f1b-46b9-9aba-e9eda3a4d66a\r\n\
    Sec-WebSocket-Key: Hr8k+KOQR1JwLEAqGYsFJw==\r\n\
    Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Upgrade: websocket\r\n\r\n";

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Connection: Upgrade\r\n\
    Upgrade: websocket\r\n\
    Sec-WebSocket-Accept: bqFzBC0mXZqoX0lUkjRFjt10VzE=\r\n\
    Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";

const V4: Protocol = Protocol::WebSocketExec(Subprotocol::V4);
const V5: Protocol = Protocol::WebSocketExec(Subprotocol::V5);
const UNNAMED: Protocol = Protocol::WebSocketExec(Subprotocol::Unnamed);
/// The token `t0ken`, as a browser must send it.
const TOKEN: &str = "base64url.bearer.authorization.k8s.io.dDBrZW4";

fn get() -> Request<()> {
    Request::get("https://10.0.0.1:6443/exec?command=true&stdout=true").body(()).unwrap()
}

/// Our client against a server that answers with these lines. `ACCEPT` stands for the correct answer to the key.
async fn ask(answer: &str, offers: &[Protocol]) -> (Result<Upgraded<DuplexStream>, UpgradeError>, String) {
    let (near, mut far) = duplex(64 * 1024);
    let answer = answer.to_owned();
    let server = tokio::spawn(async move {
        let request = read_head(&mut far).await;
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
        far.write_all(answer.replace("ACCEPT", &accept_of(key)).as_bytes()).await.unwrap();
        request
    });
    let upgraded = upgrade::connect(near, get(), offers, &Config::default()).await;
    (upgraded, server.await.unwrap())
}

/// RFC 6455 §4.2.2, computed without the crate.
fn accept_of(key: &str) -> String {
    use base64::Engine;
    use sha1::Digest;
    let digest = sha1::Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    base64::prelude::BASE64_STANDARD.encode(digest)
}

/// A client that sends these bytes and ends, against our server. Returns all that the client got.
async fn serve(
    request: &str,
    supported: &'static [Protocol],
    config: Config,
) -> (Result<Option<Protocol>, UpgradeError>, String) {
    let (mut near, far) = duplex(64 * 1024);
    let server = tokio::spawn(async move {
        let upgraded = upgrade::accept(far, &config).await?.accept(supported).await?;
        Ok(upgraded.protocol())
    });
    near.write_all(request.as_bytes()).await.unwrap();
    near.shutdown().await.unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    (server.await.unwrap(), answer)
}

/// The recorded request with one line replaced, or removed if the new one is empty.
fn with(line: &str, instead: &str) -> String {
    let changed: Vec<&str> =
        KUBECTL_REQUEST.lines().map(|old| if old.starts_with(line) { instead } else { old }).collect();
    let head = changed.join("\r\n").replace("\r\n\r\n", "\r\n");
    format!("{}\r\n\r\n", head.trim_end())
}

#[tokio::test]
async fn kubectl_upgrades_with_our_server() {
    let (protocol, answer) = serve(KUBECTL_REQUEST, Protocol::ANY_EXEC, Config::default()).await;
    assert_eq!(protocol.unwrap(), Some(V5));
    assert_eq!(answer, SWITCH);
}

#[tokio::test]
async fn our_client_upgrades_with_a_go_server() {
    // The lines have another order, and there is no line for what was not agreed on.
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n\x02\x01\x01";
    let (upgraded, request) = ask(answer, &[V5, V4]).await;
    let (_, read_ahead, protocol) = upgraded.unwrap().into_parts();
    assert_eq!(protocol, Some(V4));
    assert_eq!(read_ahead, "\x02\x01\x01".as_bytes());
    let key = request.lines().find(|line| line.starts_with("Sec-WebSocket-Key: ")).unwrap();
    assert_eq!(
        request.replace(key, "Sec-WebSocket-Key: KEY"),
        "GET /exec?command=true&stdout=true HTTP/1.1\r\nHost: 10.0.0.1:6443\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\n\
        Sec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io\r\n\r\n",
        "Go's servers read one line of subprotocols"
    );
}

#[tokio::test]
async fn where_none_is_asked_for_gos_empty_answer_means_none() {
    for line in ["Sec-WebSocket-Protocol: \r\n", ""] {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: ACCEPT\r\n{line}\r\n"
        );
        let (upgraded, request) = ask(&answer, &[UNNAMED]).await;
        assert_eq!(upgraded.unwrap().protocol(), Some(UNNAMED));
        assert!(!request.contains("Sec-WebSocket-Protocol"), "{request}");

        let (refused, _) = ask(&answer, &[V5]).await;
        assert!(matches!(refused, Err(UpgradeError::ProtocolNotOffered { name }) if name.is_empty()));
    }
    let (protocol, answer) = serve(&with("Sec-WebSocket-Protocol", ""), Protocol::ANY_EXEC, Config::default()).await;
    assert_eq!(protocol.unwrap(), Some(UNNAMED));
    assert!(!answer.contains("Protocol:"), "clients that offered no protocol accept none: {answer}");
}

/// Row 24 and RFC 6455 §4.1.
#[tokio::test]
async fn a_101_that_is_no_answer_to_the_request_is_refused() {
    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
    assert!(ask(GOOD, &[V5]).await.0.is_ok());
    const NO_ANSWER: &str = "the header Sec-WebSocket-Accept does not match the key";
    const EXTENSION: &str = "the server chose an extension, but none was offered";
    for (old, new, fault) in [
        ("Upgrade: websocket", "Upgrade: SPDY/3.1", "the header Upgrade does not list the requested transport"),
        ("Connection: Upgrade", "Connection: close", "the header Connection does not list upgrade"),
        ("HTTP/1.1", "HTTP/1.0", "the version is not HTTP/1.1"),
        ("Sec-WebSocket-Accept: ACCEPT\r\n", "", NO_ANSWER),
        ("Accept: ACCEPT", "Accept: bqFzBC0mXZqoX0lUkjRFjt10VzE=", NO_ANSWER),
        ("Accept: ACCEPT", "Accept: ", NO_ANSWER),
        ("Accept: ACCEPT", "Accept: ACCEPT\r\nSec-WebSocket-Accept: ACCEPT", NO_ANSWER),
        ("Connection:", "Sec-WebSocket-Extensions: permessage-deflate\r\nConnection:", EXTENSION),
        ("Connection:", "Transfer-Encoding: chunked\r\nConnection:", "the 101 announces a body"),
    ] {
        let (refused, _) = ask(&GOOD.replacen(old, new, 1), &[V5]).await;
        let error = refused.unwrap_err();
        assert!(matches!(error, UpgradeError::NotSwitched(reason) if reason == fault), "{new:?}: {error:?}");
        assert_eq!(error.initiator(), Initiator::Remote);
    }
    for name in ["v4.channel.k8s.io", "v5.channel.k8s.io, v4.channel.k8s.io", "V5.channel.k8s.io", TOKEN] {
        let (refused, _) = ask(&GOOD.replace("v5.channel.k8s.io", name), &[V5]).await;
        assert!(matches!(refused, Err(UpgradeError::ProtocolNotOffered { .. })), "{name}");
    }
}

#[tokio::test]
async fn subprotocols_are_offered_in_any_number_of_lines_and_the_first_known_wins() {
    for (offer, chosen) in [
        ("Sec-WebSocket-Protocol: v4.channel.k8s.io, v5.channel.k8s.io", V4),
        ("Sec-WebSocket-Protocol: v9.channel.k8s.io\r\nSec-WebSocket-Protocol: v4.channel.k8s.io", V4),
        ("Sec-WebSocket-Protocol: v3.channel.k8s.io ,,v5.channel.k8s.io", V5),
        ("sec-websocket-protocol: base64.channel.k8s.io", Protocol::WebSocketExec(Subprotocol::V1Base64)),
    ] {
        let (protocol, answer) =
            serve(&with("Sec-WebSocket-Protocol", offer), Protocol::ANY_EXEC, Config::default()).await;
        assert_eq!(protocol.unwrap(), Some(chosen), "{offer}");
        assert!(answer.contains(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")), "{answer}");
    }
    let request = with("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: v3.channel.k8s.io, v2.channel.k8s.io");
    let (refused, answer) = serve(&request, Protocol::ANY_EXEC, Config::default()).await;
    assert!(matches!(refused, Err(UpgradeError::NoCommonProtocol { .. })));
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    const V3: &[Protocol] = &[Protocol::WebSocketExec(Subprotocol::V3)];
    assert_eq!(serve(&request, V3, Config::default()).await.0.unwrap(), Some(V3[0]), "an end that wants them has them");
}

#[tokio::test]
async fn a_handshake_that_rfc_6455_does_not_know_is_refused_with_what_it_says() {
    const KEY: &str = "missing or bad Sec-WebSocket-Key";
    const VERSION: &str = "missing or bad Sec-WebSocket-Version";
    for (line, instead, fault, status, header) in [
        ("Sec-WebSocket-Key", "", KEY, "400 Bad Request", ""),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: dG9vIHNob3J0", KEY, "400 Bad Request", ""),
        (
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Version: 8",
            VERSION,
            "426 Upgrade Required",
            "sec-websocket-version: 13\r\n",
        ),
        ("Sec-WebSocket-Version", "", VERSION, "426 Upgrade Required", "sec-websocket-version: 13\r\n"),
    ] {
        let (refused, answer) = serve(&with(line, instead), Protocol::ANY_EXEC, Config::default()).await;
        let Err(UpgradeError::Handshake { status: code, reason, .. }) = refused else { panic!("{line}: {refused:?}") };
        assert_eq!((reason, code.to_string().as_str()), (fault, status), "{line}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.contains(header), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\nunable to upgrade: {fault}\n")), "{answer}");
    }
    let post = KUBECTL_REQUEST.replacen("GET", "POST", 1);
    let (refused, answer) = serve(&post, Protocol::ANY_EXEC, Config::default()).await;
    assert!(matches!(refused, Err(UpgradeError::Handshake { status: StatusCode::METHOD_NOT_ALLOWED, .. })));
    assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && answer.contains("allow: GET\r\n"), "{answer}");
    // A server of SPDY only.
    let (refused, answer) = serve(KUBECTL_REQUEST, Protocol::SPDY_EXEC, Config::default()).await;
    assert!(matches!(refused, Err(UpgradeError::NotAnUpgrade)));
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
}

/// Row 34.
#[tokio::test]
async fn an_extension_is_never_agreed_on() {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nUpgrade: websocket";
    let (protocol, answer) = serve(&with("Upgrade: ", offer), Protocol::ANY_EXEC, Config::default()).await;
    assert_eq!((protocol.unwrap(), &answer[..]), (Some(V5), SWITCH));
}

/// Row 34. Nothing between the two ends could read what they compress.
#[tokio::test(start_paused = true)]
async fn an_offer_of_an_extension_is_not_passed_on_even_if_the_caller_wants_it() {
    let ((mut client, near), (far, mut backend)) = (duplex(4096), duplex(4096));
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: websocket";
    client.write_all(with("Upgrade: ", offer).as_bytes()).await.unwrap();
    let pending = upgrade::accept(near, &Config::default()).await.unwrap();
    let mut request = pending.to_pass_on();
    assert!(!request.headers().contains_key("sec-websocket-extensions"));
    request.headers_mut().insert("sec-websocket-extensions", "permessage-deflate".parse().unwrap());
    let error = pending.pass_on(far, request).await.unwrap_err().to_string();
    assert!(error.ends_with("the request cannot be sent: the header sec-websocket-extensions is set by the handshake"));
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 500 "));
    let mut heard = Vec::new();
    backend.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"");
}

/// Row 33.
#[tokio::test]
async fn a_page_of_another_host_is_kept_out_unless_it_is_let_in() {
    let from = |origin: &str| with("Upgrade: ", &format!("Origin: {origin}\r\nUpgrade: websocket"));
    // Python's client sends the address to which it connects.
    let (protocol, _) = serve(&from("http://127.0.0.1:18019"), Protocol::ANY_EXEC, Config::default()).await;
    assert_eq!(protocol.unwrap(), Some(V5));

    let stranger = from("https://evil.example");
    let (refused, answer) = serve(&stranger, Protocol::ANY_EXEC, Config::default()).await;
    assert!(matches!(refused, Err(UpgradeError::OriginNotAllowed { origin }) if origin == "https://evil.example"));
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    for allowed in ["*", "https://evil.example"] {
        let mut config = Config::default();
        config.allowed_origins.push(allowed.to_owned());
        assert_eq!(serve(&stranger, Protocol::ANY_EXEC, config).await.0.unwrap(), Some(V5));
    }
    // A browser's page cannot send SPDY.
    let spdy = "POST /exec HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\nConnection: Upgrade\r\n\
        Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
    assert_eq!(
        serve(spdy, Protocol::ANY_EXEC, Config::default()).await.0.unwrap(),
        Some(Protocol::SpdyExec(Version::V4))
    );
}

#[tokio::test]
async fn a_token_among_the_subprotocols_is_given_to_the_server_and_to_nobody_else() {
    let offer = format!("Sec-WebSocket-Protocol: {TOKEN}, v5.channel.k8s.io");
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(with("Sec-WebSocket-Protocol", &offer).as_bytes()).await.unwrap();
    let pending = upgrade::accept(far, &Config::default()).await.unwrap();
    assert_eq!(pending.bearer_token().unwrap().unwrap().as_str(), "t0ken");
    assert!(pending.offers().eq(["v5.channel.k8s.io"]));
    let shown = format!("{pending:?} {:?} {:?}", pending.request(), pending.bearer_token());
    assert!(!shown.contains("dDBrZW4") && !shown.contains("t0ken"), "{shown}");
    let passed_on = pending.request().headers().get_all("Sec-WebSocket-Protocol").iter();
    assert!(passed_on.eq(["v5.channel.k8s.io"]), "a proxy that forwards the request forwards no token");
    assert_eq!(pending.transport(), Some(Transport::WebSocket));
    pending.accept(Protocol::ANY_EXEC).await.unwrap();
    let answer = read_head(&mut near).await;
    assert!(!answer.contains("bearer"), "{answer}");

    for (offer, expected) in [
        (TOKEN.to_owned(), "missing additional subprotocol beside the bearer token"),
        (format!("{TOKEN}, {TOKEN}, v5.channel.k8s.io"), "multiple bearer tokens in the subprotocols"),
        (
            "base64url.bearer.authorization.k8s.io.%, v5.channel.k8s.io".to_owned(),
            "the bearer token in the subprotocols cannot be decoded",
        ),
    ] {
        let (mut near, far) = duplex(64 * 1024);
        let offer = format!("Sec-WebSocket-Protocol: {offer}");
        near.write_all(with("Sec-WebSocket-Protocol", &offer).as_bytes()).await.unwrap();
        let pending = upgrade::accept(far, &Config::default()).await.unwrap();
        let invalid = pending.bearer_token().unwrap_err();
        assert!(matches!(invalid, UpgradeError::BearerToken(reason) if reason == expected), "{offer}");
        assert!(!pending.offers().any(|offer| offer.contains("bearer")));
        // A client with an invalid token gets no protocol.
        let refused = pending.accept(Protocol::ANY_EXEC);
        let (refused, answer) = tokio::join!(refused, async {
            let answer = read_head(&mut near).await;
            near.shutdown().await.unwrap();
            answer
        });
        assert!(matches!(refused, Err(UpgradeError::BearerToken(reason)) if reason == expected));
        assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
        let len = format!("unable to upgrade: {expected}\n").len();
        assert!(answer.contains(&format!("\r\ncontent-length: {len}\r\n")), "{answer}");
    }
}

/// Why a request cannot be sent.
fn unfit(refused: Result<Upgraded<DuplexStream>, UpgradeError>) -> String {
    match refused {
        Err(UpgradeError::InvalidRequest(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_the_callers_error() {
    let post = Request::post("http://a/exec").body(()).unwrap();
    let (near, _far) = duplex(1024);
    let refused = upgrade::connect(near, post, &[V5], &Config::default()).await;
    assert_eq!(unfit(refused), "the method of a WebSocket handshake must be GET");
    let (near, _far) = duplex(1024);
    let mixed = [V5, Protocol::SpdyExec(Version::V4)];
    let refused = upgrade::connect(near, get(), &mixed, &Config::default()).await;
    assert_eq!(unfit(refused), "the offers are of more than one transport");
    for name in ["Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Sec-WebSocket-Version"] {
        let request = Request::get("http://a/exec").header(name, "x").body(()).unwrap();
        let (near, _far) = duplex(1024);
        let refused = upgrade::connect(near, request, &[V5], &Config::default()).await;
        assert_eq!(unfit(refused), format!("the header {} is set by the handshake", name.to_lowercase()));
    }
}

/// A server that answers each connection with the next of these. Returns what it was asked, and how often.
async fn fall_back(answers: &[&'static str]) -> (Result<Upgraded<DuplexStream>, UpgradeError>, Vec<String>) {
    fall_back_with(answers, Protocol::WEBSOCKET_EXEC_V5, Protocol::SPDY_EXEC).await
}

async fn fall_back_with(
    answers: &[&'static str],
    websocket: &[Protocol],
    spdy: &[Protocol],
) -> (Result<Upgraded<DuplexStream>, UpgradeError>, Vec<String>) {
    let dialled = Cell::new(0);
    let (asked, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let dial = || {
        let answer = answers.get(dialled.replace(dialled.get() + 1)).copied();
        let asked = asked.clone();
        async move {
            let answer = answer.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near, mut far) = duplex(64 * 1024);
            tokio::spawn(async move {
                let request = read_head(&mut far).await;
                let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
                far.write_all(answer.replace("ACCEPT", &accept_of(key)).as_bytes()).await.unwrap();
                asked.send(request).unwrap();
            });
            Ok(near)
        }
    };
    let connected = connect_with_fallback(dial, get(), websocket, spdy, &Config::default()).await;
    let mut heard = Vec::new();
    while heard.len() < dialled.get().min(answers.len()) {
        heard.push(requests.recv().await.unwrap());
    }
    (connected, heard)
}

const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno WS :(";
const SPDY_SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";

#[tokio::test]
async fn a_refused_websocket_becomes_spdy_and_says_why() {
    for refusal in [
        FORBIDDEN,
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\r\n\r\n",
        // A gateway that has dropped the subprotocol, or has chosen its own, or has answered for another request.
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: ACCEPT\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: wrong\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
    ] {
        let (connected, asked) = fall_back(&[refusal, SPDY_SWITCH]).await;
        let upgraded = connected.unwrap();
        assert_eq!(upgraded.protocol(), Some(Protocol::SpdyExec(Version::V4)));
        let refused = upgraded.websocket_refused();
        let switched = matches!(refused, Some(UpgradeError::NotSwitched(_) | UpgradeError::ProtocolNotOffered { .. }));
        let answered = matches!(refused, Some(UpgradeError::Refused { .. } | UpgradeError::Redirected { .. }));
        assert!(if refusal.contains(" 101 ") { switched } else { answered }, "{refused:?}");
        assert!(asked[0].starts_with("GET ") && asked[0].contains("Upgrade: websocket\r\n"));
        assert!(asked[1].starts_with("POST ") && asked[1].contains("Upgrade: SPDY/3.1\r\n"));
    }
}

/// The tunnel's name has a slash, so it is no token, and gateways made of common libraries refuse it.
#[tokio::test]
async fn a_tunnel_whose_name_is_refused_becomes_spdy() {
    const REFUSAL: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 37\r\n\r\n\
        Invalid Sec-WebSocket-Protocol header";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
        X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n";
    let no_name = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: ACCEPT\r\n\r\n";
    for refusal in [REFUSAL, no_name] {
        let (websocket, spdy) = ([Protocol::TunneledPortForward], [Protocol::SpdyPortForward]);
        let (connected, asked) = fall_back_with(&[refusal, switch], &websocket, &spdy).await;
        let upgraded = connected.unwrap();
        assert_eq!(upgraded.protocol(), Some(Protocol::SpdyPortForward));
        assert!(asked[0].contains("Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n"), "{}", asked[0]);
        let refused = upgraded.websocket_refused().unwrap().to_string();
        assert!(
            refused.ends_with(if refusal == REFUSAL {
                "header (400 Bad Request)"
            } else {
                "\"\", which the client had not offered"
            }),
            "{refused}"
        );

        let (connected, _) = fall_back_with(&[refusal, REFUSAL], &websocket, &spdy).await;
        let error = connected.unwrap_err();
        assert!(matches!(error, UpgradeError::Fallback { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_websocket_that_is_taken_stays_one() {
    const TAKEN: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
    let (connected, asked) = fall_back(&[TAKEN]).await;
    let upgraded = connected.unwrap();
    assert_eq!((upgraded.protocol(), upgraded.websocket_refused().is_none(), asked.len()), (Some(V5), true, 1));
}

#[tokio::test]
async fn what_was_not_refused_is_not_tried_again() {
    for answer in [
        // The answer is not HTTP, or not whole.
        "SSH-2.0-x\r\n\r\n\r\n",
        "HTTP/1.1 101 Swi",
    ] {
        let (connected, asked) = fall_back(&[answer, SPDY_SWITCH]).await;
        assert!(!matches!(connected.unwrap_err(), UpgradeError::Fallback { .. }), "{answer}");
        assert_eq!(asked.len(), 1);
    }
    let (connected, _) = fall_back(&[]).await;
    let error = connected.unwrap_err();
    assert!(matches!(&error, UpgradeError::Io(_)), "{error:?}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn where_both_are_refused_the_error_has_both() {
    const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 20\r\n\r\npods \"web\" not found";
    let (connected, _) = fall_back(&[FORBIDDEN, NOT_FOUND]).await;
    let error = connected.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to upgrade connection: pods \"web\" not found (404 Not Found) \
        (over SPDY; before that, the server refused WebSocket: no WS :( (403 Forbidden))"
    );
    assert_eq!(error.initiator(), Initiator::Remote);
    let UpgradeError::Fallback { websocket, .. } = &error else { panic!("{error:?}") };
    let UpgradeError::Refused { response, .. } = &**websocket else { panic!("{error:?}") };
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    let (connected, _) = fall_back(&[FORBIDDEN]).await;
    let error = connected.unwrap_err();
    let UpgradeError::Fallback { spdy, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(&**spdy, UpgradeError::Io(_)), "{error:?}");
    assert!(
        error.to_string().ends_with("(over SPDY; before that, the server refused WebSocket: no WS :( (403 Forbidden))"),
        "{error}"
    );
}

#[tokio::test]
async fn a_fallback_has_protocols_for_each_transport() {
    for (websocket, spdy, transport) in [
        (&[][..], Protocol::SPDY_EXEC, Transport::WebSocket),
        (Protocol::SPDY_EXEC, Protocol::SPDY_EXEC, Transport::WebSocket),
        (Protocol::WEBSOCKET_EXEC_V5, &[], Transport::Spdy),
        (Protocol::WEBSOCKET_EXEC_V5, Protocol::WEBSOCKET_EXEC_V5, Transport::Spdy),
    ] {
        let dial = || async { Err::<DuplexStream, _>(io::Error::other("nobody dials")) };
        let refused = connect_with_fallback(dial, get(), websocket, spdy, &Config::default()).await;
        let expected =
            format!("the list of protocols over {transport} is empty or has a protocol of another transport");
        assert_eq!(unfit(refused), expected);
    }
}
