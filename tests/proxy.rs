//! Passing an upgrade on, between a client and a backend played by the test.
//!
//! Time is virtual and passes only while no task can run, except in tests with sockets.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use kubestream::Initiator;
use kubestream::upgrade::{self, Config, Transport, UpgradeError};
use kubestream_proxy::{self as proxy, Pipe, PipeOutcome};
use support::{pattern, read_head, tcp_pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const SPDY: &str = "POST /api/v1/namespaces/default/pods/web/exec?command=true HTTP/1.1\r\nHost: proxy\r\n\
    Authorization: Bearer theirs\r\nConnection: Upgrade, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
    Upgrade: SPDY/3.1\r\nContent-Length: 0\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\
    X-Stream-Protocol-Version: v3.channel.k8s.io\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Hop: 1\r\nAudit-Id: 7\r\n\r\n";
const WEBSOCKET: &str = "GET /exec HTTP/1.1\r\nHost: proxy\r\nOrigin: http://proxy\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.dDBrZW4, v5.channel.k8s.io, v4.channel.k8s.io\r\n\r\n";
/// The answer to that key (RFC 6455 §1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

type Passing = JoinHandle<Result<Pipe<DuplexStream, DuplexStream>, UpgradeError>>;

/// A client that has sent this, and the backend to which it is passed on.
async fn between(said: &str) -> (DuplexStream, DuplexStream, Passing) {
    between_by(said, 1 << 16).await
}

/// The same with connections that hold this many bytes.
async fn between_by(said: &str, room: usize) -> (DuplexStream, DuplexStream, Passing) {
    let ((mut client, near), (far, backend)) = (duplex(room), duplex(room));
    client.write_all(said.as_bytes()).await.unwrap();
    let passing = tokio::spawn(async move {
        let pending = upgrade::accept(near, &Config::default()).await.unwrap();
        let mut request = pending.to_pass_on();
        request.headers_mut().insert("authorization", "Bearer ours".parse().unwrap());
        proxy::forward(pending, far, request).await
    });
    (client, backend, passing)
}

async fn rest(io: &mut DuplexStream) -> String {
    let mut rest = String::new();
    io.read_to_string(&mut rest).await.unwrap();
    rest
}

#[tokio::test(start_paused = true)]
async fn a_101_makes_a_pipe_and_what_was_said_early_is_not_lost() {
    let (mut client, mut backend, passing) = between(&format!("{SPDY}early from the client")).await;
    let asked = read_head(&mut backend).await.to_ascii_lowercase();
    for there in [
        "post /api/v1/namespaces/default/pods/web/exec?command=true http/1.1\r\nhost: proxy\r\n",
        "\r\nauthorization: bearer ours\r\n",
        "\r\nconnection: upgrade\r\n",
        "\r\nupgrade: spdy/3.1\r\n",
        "\r\ncontent-length: 0\r\n",
        "\r\nx-stream-protocol-version: v4.channel.k8s.io\r\nx-stream-protocol-version: v3.channel.k8s.io\r\n",
    ] {
        assert!(asked.contains(there), "{there:?} in {asked}");
    }
    for gone in ["theirs", "x-hop", "keep-alive", "\nte:"] {
        assert!(!asked.contains(gone), "{gone:?} in {asked}");
    }
    // No byte comes before the 101.
    sleep(Duration::from_secs(1)).await;
    assert!(timeout(Duration::ZERO, backend.read_u8()).await.is_err());
    backend.write_all(format!("{SWITCHED}early from the backend").as_bytes()).await.unwrap();
    let answer = read_head(&mut client).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains("\r\naudit-id: 7\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n"));
    let pipe = passing.await.unwrap().unwrap();
    assert_eq!((pipe.transport(), pipe.protocol()), (Transport::Spdy, "v4.channel.k8s.io"));
    let run = tokio::spawn(pipe.run());
    client.write_all(b", and later").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut backend).await, "early from the client, and later", "the end passes as well");
    backend.write_all(b", and the tail").await.unwrap();
    backend.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, "early from the backend, and the tail");
    let PipeOutcome { to_backend, to_client, client, backend, .. } = run.await.unwrap();
    assert_eq!((to_backend, to_client), (32, 36));
    assert!(client.is_none() && backend.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_websocket_is_passed_on_with_its_key_and_without_its_token() {
    let (mut client, mut backend, passing) = between(WEBSOCKET).await;
    let asked = read_head(&mut backend).await.to_ascii_lowercase();
    assert!(asked.contains("\r\nsec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n"), "{asked}");
    assert!(asked.contains("\r\nsec-websocket-protocol: v5.channel.k8s.io, v4.channel.k8s.io\r\n"), "{asked}");
    for gone in ["bearer.authorization", "origin", "sec-websocket-extensions"] {
        assert!(!asked.contains(gone), "{gone} in {asked}");
    }
    let answer = format!(
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\
        Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    backend.write_all(answer.as_bytes()).await.unwrap();
    let answer = read_head(&mut client).await;
    assert!(answer.contains(ACCEPT) && answer.contains("v5.channel.k8s.io"), "{answer}");
    assert_eq!(passing.await.unwrap().unwrap().protocol(), "v5.channel.k8s.io");
}

#[tokio::test(start_paused = true)]
async fn a_protocol_that_nobody_here_knows_is_passed_on() {
    let asks = SPDY.replace("v4.channel.k8s.io", "v9.channel.example");
    let (mut client, mut backend, passing) = between(&asks).await;
    read_head(&mut backend).await;
    backend.write_all(SWITCHED.replace("v4.channel.k8s.io", "v9.channel.example").as_bytes()).await.unwrap();
    assert!(read_head(&mut client).await.contains("v9.channel.example"));
    let pipe = passing.await.unwrap().unwrap();
    assert_eq!((pipe.transport(), pipe.protocol()), (Transport::Spdy, "v9.channel.example"));
    assert_eq!(pipe.settled(proxy::Operation::Exec), None);
}

/// What a client gets and what the proxy returns. No byte of the client reaches the backend (row 24, CVE-2018-1002105).
async fn refused(asks: &str, answer: &str, ends: bool) -> (String, UpgradeError) {
    let (mut client, mut backend, passing) = between(&format!("{asks}GET /secret HTTP/1.1\r\n\r\n")).await;
    read_head(&mut backend).await;
    backend.write_all(answer.as_bytes()).await.unwrap();
    if ends {
        backend.shutdown().await.unwrap();
    }
    let hearing = tokio::spawn(async move {
        let said = rest(&mut client).await;
        drop(client);
        said
    });
    let Ok(heard) = timeout(PATIENCE, rest(&mut backend)).await else { panic!("no pipe is made") };
    assert_eq!(heard, "", "and the connection is closed");
    let error = passing.await.unwrap().unwrap_err();
    (hearing.await.unwrap(), error)
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_passed_back_and_both_are_closed() {
    let body = r#"{"kind":"Status","status":"Failure","message":"pods \"web\" not found","code":404}"#;
    let answer = format!(
        "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n\
        Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (said, error) = refused(SPDY, &answer, false).await;
    assert!(said.starts_with("HTTP/1.1 404 Not Found\r\n") && said.ends_with(&format!("\r\n\r\n{body}")), "{said}");
    assert!(said.contains("content-type: application/json\r\n") && said.contains("connection: close\r\n"), "{said}");
    let UpgradeError::Backend(error) = error else { panic!("{error:?}") };
    assert!(matches!(*error, UpgradeError::Refused { .. }), "{error}");

    // At most as many bytes of it as the limit.
    let answer = format!("HTTP/1.1 500 x\r\n\r\n{}", "x".repeat(1 << 20));
    let (mut client, mut backend, passing) = between(SPDY).await;
    read_head(&mut backend).await;
    tokio::spawn(async move { backend.write_all(answer.as_bytes()).await });
    let said = timeout(PATIENCE, rest(&mut client)).await.expect("no pipe is made");
    assert!(said.contains("content-length: 65536\r\n") && said.len() < 70_000, "{}", said.len());
    drop(client);
    assert!(passing.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_101_is_never_passed_on_as_one() {
    let switched = |lines: &str| format!("HTTP/1.1 101 x\r\n{lines}\r\nFRAMES");
    let cases = [
        (SPDY, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK".to_owned(), "200"),
        // Everything but the status is as with a 101.
        (SPDY, SWITCHED.replace("101 Switching Protocols", "200 OK"), "200"),
        (SPDY, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(), "403"),
        // A redirect is neither followed nor shown (CVE-2020-8559).
        (SPDY, "HTTP/1.1 302 Found\r\nLocation: https://evil/\r\nContent-Length: 0\r\n\r\n".to_owned(), "502"),
        (SPDY, switched(""), "502"),
        (SPDY, switched("Upgrade: SPDY/3.1\r\n"), "502"),
        (SPDY, switched("Connection: Upgrade\r\n"), "502"),
        (SPDY, switched("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "502"),
        (SPDY, switched("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 5\r\n"), "502"),
        (SPDY, switched("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nTransfer-Encoding: chunked\r\n"), "502"),
        (SPDY, switched("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9\r\n"), "502"),
        (SPDY, "HTTP/1.0 101 x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n".to_owned(), "502"),
        (SPDY, "SSH-2.0-x\r\n\r\n".to_owned(), "502"),
        (SPDY, format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)), "502"),
        (SPDY, "HTTP/1.1 101 Swit".to_owned(), "502"),
        (SPDY, String::new(), "502"),
    ];
    for (asks, answer, status) in cases {
        is_not_passed_on(asks, &answer, status).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_websocket_is_never_passed_on_as_one() {
    for lines in [
        "",
        "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n",
        &format!("Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: v1.channel.k8s.io\r\n"),
        &format!(
            "Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.dDBrZW4\r\n"
        ),
    ] {
        let answer = format!("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{lines}\r\nFRAMES");
        is_not_passed_on(WEBSOCKET, &answer, "502").await;
    }
}

async fn is_not_passed_on(asks: &str, answer: &str, status: &str) {
    let (said, error) = refused(asks, answer, true).await;
    assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}: {said}");
    assert!(!said.contains("evil") && !said.contains("FRAMES"), "{said}");
    assert!(matches!(error, UpgradeError::Backend(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_says_nothing_is_given_up() {
    let began = Instant::now();
    let (said, error) = refused(SPDY, "", false).await;
    assert!(said.starts_with("HTTP/1.1 504 "), "{said}");
    let UpgradeError::Backend(error) = error else { panic!("{error:?}") };
    assert!(matches!(*error, UpgradeError::Timeout), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(70));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_upgrade_of_ours_reaches_no_backend() {
    for (asks, status) in [
        ("GET / HTTP/1.1\r\nHost: proxy\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: proxy\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: proxy\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nHost: proxy\r\nOrigin: https://evil\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            "403",
        ),
        // A token without any other offer.
        (&WEBSOCKET.replace(", v5.channel.k8s.io, v4.channel.k8s.io", ""), "401"),
    ] {
        let (mut client, mut backend, passing) = between(asks).await;
        client.shutdown().await.unwrap();
        let said = rest(&mut client).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        assert_eq!(rest(&mut backend).await, "");
        let error = passing.await.unwrap().unwrap_err();
        assert!(!matches!(error, UpgradeError::Backend(_)), "{error:?}");
    }
}

/// The ways in which a pipe between sockets moves bytes.
#[derive(Clone, Copy, Debug)]
enum By {
    Copies,
    #[cfg(all(target_os = "linux", feature = "net"))]
    Splices,
}

const WAYS: &[By] = &[
    By::Copies,
    #[cfg(all(target_os = "linux", feature = "net"))]
    By::Splices,
];

/// A client, a backend, and the pipe between them with a linger of 1 s.
async fn sockets(by: By) -> (TcpStream, TcpStream, JoinHandle<PipeOutcome>) {
    let ((mut client, near), (far, mut backend)) = (tcp_pair().await, tcp_pair().await);
    let passing = async {
        let pending = upgrade::accept(near, &Config::default()).await.unwrap();
        let request = pending.to_pass_on();
        proxy::forward(pending, far, request).await.unwrap()
    };
    let ends = async {
        client.write_all(SPDY.as_bytes()).await.unwrap();
        read_head(&mut backend).await;
        backend.write_all(SWITCHED.as_bytes()).await.unwrap();
        read_head(&mut client).await;
    };
    let (pipe, ()) = tokio::join!(passing, ends);
    let pipe = pipe.linger(Duration::from_secs(1));
    let run = match by {
        By::Copies => tokio::spawn(pipe.run()),
        #[cfg(all(target_os = "linux", feature = "net"))]
        By::Splices => tokio::spawn(pipe.splice()),
    };
    (client, backend, run)
}

const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn megabytes_pass_both_ways_at_once_and_each_direction_ends_by_itself() {
    for &by in WAYS {
        let (client, backend, run) = sockets(by).await;
        let (up, down) = (pattern(1, 20_000_000), pattern(2, 20_000_003));
        let ends = [(client, up.clone(), down.clone()), (backend, down, up)].map(|(mut io, sends, hears)| {
            tokio::spawn(async move {
                let (mut reads, mut writes) = io.split();
                let mut heard = Vec::new();
                let sending = async {
                    writes.write_all(&sends).await.unwrap();
                    writes.shutdown().await.unwrap();
                };
                tokio::join!(sending, reads.read_to_end(&mut heard)).1.unwrap();
                assert!(heard == hears, "{by:?}");
            })
        });
        for end in ends {
            timeout(PATIENCE, end).await.unwrap().unwrap();
        }
        let moved = timeout(PATIENCE, run).await.unwrap().unwrap();
        assert_eq!((moved.to_backend, moved.to_client), (20_000_000, 20_000_003));
    }
}

/// A client that ends its direction first waits for its answer without a limit.
#[tokio::test]
async fn a_client_that_has_said_all_is_not_cut_off() {
    for &by in WAYS {
        let (mut client, mut backend, run) = sockets(by).await;
        client.shutdown().await.unwrap();
        assert_eq!(backend.read(&mut [0]).await.unwrap(), 0);
        // Longer than the linger.
        sleep(Duration::from_millis(1500)).await;
        backend.write_all(b"at last").await.unwrap();
        drop(backend);
        let mut answer = String::new();
        timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, "at last", "{by:?}");
        assert!(timeout(PATIENCE, run).await.unwrap().unwrap().backend.is_none());
    }
}

/// The client reads nothing for longer than the linger, and the tail fits into the kernels' buffers. If the connection
/// were closed then, the client's next bytes would cause a reset, which destroys the tail.
#[tokio::test]
async fn the_tail_reaches_a_client_that_is_silent_and_then_speaks() {
    for &by in WAYS {
        let (mut client, mut backend, run) = sockets(by).await;
        backend.write_all(&pattern(4, 1_000_000)).await.unwrap();
        backend.shutdown().await.unwrap();
        sleep(Duration::from_millis(2500)).await;
        let mut tail = Vec::new();
        for _ in 0..10_000 {
            tail.push(client.read_u8().await.unwrap());
        }
        client.write_all(b"go on").await.unwrap();
        timeout(PATIENCE, client.read_to_end(&mut tail)).await.unwrap().unwrap();
        assert!(tail == pattern(4, 1_000_000), "{by:?}: {} bytes", tail.len());
        drop((client, backend));
        timeout(PATIENCE, run).await.unwrap().unwrap();
    }
}

/// The backend ends with unread bytes of the client, as Go's servers do. That must not cost the tail.
#[tokio::test]
async fn the_tail_reaches_a_client_that_keeps_writing() {
    for &by in WAYS {
        for _ in 0..20 {
            let (mut client, mut backend, run) = sockets(by).await;
            let serving = tokio::spawn(async move {
                backend.write_all(&pattern(3, 3_000_000)).await.unwrap();
                backend.shutdown().await.unwrap();
                // It reads until its peer ends, as our ends do.
                let mut rest = Vec::new();
                let _ = backend.read_to_end(&mut rest).await;
            });
            let (mut reads, mut writes) = client.split();
            let mut heard = Vec::new();
            let typing = async {
                while writes.write_all(b"still typing").await.is_ok() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                read = timeout(PATIENCE, reads.read_to_end(&mut heard)) => drop(read.unwrap().unwrap()),
                () = typing => {}
            }
            if heard.len() < 3_000_000 {
                timeout(PATIENCE, reads.read_to_end(&mut heard)).await.unwrap().unwrap();
            }
            assert!(heard == pattern(3, 3_000_000), "{by:?}: {} bytes", heard.len());
            drop(client);
            timeout(PATIENCE, run).await.unwrap().unwrap();
            timeout(PATIENCE, serving).await.unwrap().unwrap();
        }
    }
}

/// If the client is gone, the backend reads an end. A backend that goes on sending is given up.
#[tokio::test]
async fn a_backend_that_talks_to_nobody_is_given_up() {
    for &by in WAYS {
        let (client, mut backend, run) = sockets(by).await;
        let talking = tokio::spawn(async move { while backend.write_all(&[0; 10_000]).await.is_ok() {} });
        sleep(Duration::from_millis(50)).await;
        drop(client);
        let moved = timeout(PATIENCE, run).await.unwrap().unwrap();
        assert!(moved.client.is_some(), "{by:?}");
        timeout(PATIENCE, talking).await.unwrap().unwrap();
    }
}

/// What both sides leave open stays open, and what both end is closed.
#[tokio::test]
async fn a_client_that_does_not_end_is_waited_for_only_so_long() {
    for &by in WAYS {
        let (mut client, backend, run) = sockets(by).await;
        drop(backend);
        let began = std::time::Instant::now();
        timeout(PATIENCE, run).await.unwrap().unwrap();
        let took = began.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(8)).contains(&took), "{by:?}: {took:?}");
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}

/// kubectl's PINGs do not show that it has read the tail. Closing with unread PINGs would destroy it.
#[tokio::test]
async fn a_client_that_talks_while_it_reads_gets_all_of_the_tail() {
    for &by in WAYS {
        let (client, mut backend, run) = sockets(by).await;
        tokio::spawn(async move { backend.write_all(&pattern(3, 2_000_000)).await });
        let (mut reads, mut writes) = client.into_split();
        let talking = tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(100)).await;
                if writes.write_all(b"ping").await.is_err() {
                    return;
                }
            }
        });
        let (mut got, mut piece) = (Vec::new(), vec![0; 20_000]);
        loop {
            // 3 s for all of it, and the linger is 1 s.
            sleep(Duration::from_millis(30)).await;
            match reads.read(&mut piece).await.unwrap() {
                0 => break,
                count => got.extend_from_slice(&piece[..count]),
            }
        }
        assert!(got == pattern(3, 2_000_000), "{by:?}: {} bytes", got.len());
        talking.abort();
        let _ = talking.await;
        timeout(PATIENCE, run).await.unwrap().unwrap();
    }
}

/// No client is left to take an answer.
#[tokio::test]
async fn a_client_that_was_reset_frees_a_silent_backend() {
    for &by in WAYS {
        let (client, mut backend, run) = sockets(by).await;
        client.set_zero_linger().unwrap();
        drop(client);
        let read = backend.read(&mut [0]).await;
        // A plain socket can only end, and splicing turns the break into a reset.
        match by {
            By::Copies => assert_eq!(read.unwrap(), 0),
            #[cfg(all(target_os = "linux", feature = "net"))]
            By::Splices => assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset),
        }
        let moved = timeout(Duration::from_secs(8), run).await.expect("the linger is 1 s").unwrap();
        assert!(moved.client.is_some(), "{by:?}");
    }
}

/// A client and a backend in memory, with a running pipe between them. The answer is on its way to the client.
async fn moving() -> (DuplexStream, DuplexStream, JoinHandle<PipeOutcome>) {
    let (client, mut backend, passing) = between(SPDY).await;
    read_head(&mut backend).await;
    backend.write_all(SWITCHED.as_bytes()).await.unwrap();
    let pipe = passing.await.unwrap().unwrap();
    (client, backend, tokio::spawn(pipe.run()))
}

/// The tail is in our buffer, the client does not read, and the backend is gone, so nothing else would end this.
#[tokio::test(start_paused = true)]
async fn what_does_not_move_any_more_is_given_up() {
    let (client, mut backend, run) = moving().await;
    backend.write_all(&pattern(1, 100_000)).await.unwrap();
    drop(backend);
    let began = Instant::now();
    timeout(proxy::IDLE_TIMEOUT * 2, run).await.expect("it is given up").unwrap();
    assert_eq!(began.elapsed().as_secs(), 4 * 60 * 60);
    drop(client);
}

/// Row 48: the backend has ended and the client has received everything, but does not end: neither silent, as a client
/// that may still be reading, nor with bytes that do not show that it reads.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_the_tail_and_does_not_end_is_given_up_at_the_tail_timeout() {
    for talks in [false, true] {
        let (mut client, mut backend, run) = moving().await;
        read_head(&mut client).await;
        backend.write_all(&pattern(1, 50_000)).await.unwrap();
        client.read_exact(&mut vec![0; 50_000]).await.unwrap();
        backend.write_all(&pattern(2, 50_000)).await.unwrap();
        backend.shutdown().await.unwrap();
        let began = Instant::now();
        let talking = tokio::spawn(async move {
            // More often than the linger.
            while talks && client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(9)).await;
            }
            client
        });
        timeout(proxy::IDLE_TIMEOUT * 2, run).await.expect("it is given up").unwrap();
        assert_eq!(began.elapsed().as_secs(), proxy::TAIL_TIMEOUT.as_secs(), "talks: {talks}");
        talking.await.unwrap();
        drop(backend);
    }
}

/// Row 48: a backend that takes nothing more only has its last bytes to send. A client that does not read may delay
/// those for that long.
#[tokio::test(start_paused = true)]
async fn the_last_of_a_backend_that_takes_nothing_more_waits_no_longer_than_the_tail_timeout() {
    let (mut client, mut backend, run) = moving().await;
    backend.write_all(&pattern(1, 100_000)).await.unwrap();
    drop(backend);
    client.write_all(b"to nobody").await.unwrap();
    let began = Instant::now();
    let moved = run.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), proxy::TAIL_TIMEOUT.as_secs());
    assert!(moved.backend.is_some() && moved.client.is_none());
}

/// Row 49: a connection that waits for its observer holds one such piece in each direction.
#[tokio::test(start_paused = true)]
async fn an_observer_is_shown_no_more_than_64_kib_at_a_time() {
    let (mut client, mut backend, passing) = between_by(SPDY, 1 << 22).await;
    read_head(&mut backend).await;
    backend.write_all(SWITCHED.as_bytes()).await.unwrap();
    let pipe = passing.await.unwrap().unwrap();
    read_head(&mut client).await;
    client.write_all(&pattern(1, 1 << 22)).await.unwrap();
    backend.write_all(&pattern(2, 1 << 22)).await.unwrap();
    let run = tokio::spawn(async move {
        let mut largest = 0;
        let mut observer = |_: proxy::Side, bytes: &Bytes| {
            largest = largest.max(bytes.len());
            ControlFlow::Continue(())
        };
        pipe.run_with(&mut observer).await;
        largest
    });
    client.shutdown().await.unwrap();
    backend.shutdown().await.unwrap();
    let (heard, answer) = tokio::join!(all(&mut backend), all(&mut client));
    assert!(heard == pattern(1, 1 << 22) && answer == pattern(2, 1 << 22));
    let largest = run.await.unwrap();
    assert!(largest <= 64 * 1024, "{largest} bytes at a time");
}

async fn all(io: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    io.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_passed_on_is_its_clients_fault() {
    for asks in [SPDY.replace("POST", "DELETE"), SPDY.replace("POST /api", "GET /\u{e9}api")] {
        let (mut client, mut backend, passing) = between(&asks).await;
        client.shutdown().await.unwrap();
        let said = rest(&mut client).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
        assert_eq!(rest(&mut backend).await, "");
        let error = passing.await.unwrap().unwrap_err();
        assert!(!matches!(error, UpgradeError::Backend(_)) && error.initiator() == Initiator::Remote, "{error:?}");
    }
}

/// Headers that a client lists there are removed, except those of the handshake.
#[tokio::test(start_paused = true)]
async fn a_client_cannot_list_its_offers_away() {
    let asks = SPDY.replace("Upgrade, X-Hop", "Upgrade, X-Hop, X-Stream-Protocol-Version, Host");
    let (_client, mut backend, _passing) = between(&asks).await;
    let asked = read_head(&mut backend).await.to_ascii_lowercase();
    assert!(asked.contains("x-stream-protocol-version: v4") && asked.contains("host: proxy"), "{asked}");
}
