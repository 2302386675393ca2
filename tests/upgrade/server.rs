//! What our server answers to a request without an upgrade, or to one that it refuses.
//!
//! Holds the requests that a client may send.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use kubestream::Initiator;
use kubestream::upgrade::{self, Config, Protocol, UpgradeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::{KUBECTL_REQUEST, PIPES, read_all, serve};

/// The status line, the accepted protocols and the body of an answer that closes the connection.
fn answered(answer: &str) -> (&str, Vec<&str>, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap();
    let lines: Vec<_> = lines.collect();
    assert!(lines.contains(&"connection: close"), "{answer}");
    assert!(lines.contains(&&format!("content-length: {}", body.len())[..]), "{answer}");
    let accepted = lines.iter().filter_map(|line| line.strip_prefix("x-accepted-stream-protocol-versions: "));
    (status, accepted.collect(), body)
}

#[tokio::test]
async fn a_request_that_names_no_common_protocol_is_refused_in_gos_words() {
    let offers_at = KUBECTL_REQUEST.find("X-Stream").unwrap();
    let request = |lines: &str| format!("{}{lines}\r\n", &KUBECTL_REQUEST[..offers_at]);
    for pipe in PIPES {
        let (server, answer) = serve(pipe, request("").as_bytes(), Protocol::SPDY_EXEC).await;
        let said = "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 6 headers\n";
        assert_eq!(answered(&answer), ("HTTP/1.1 400 Bad Request", vec![], said));
        assert!(matches!(server, Err(UpgradeError::NoProtocol { headers: Some(6) })));

        for empty in ["X-Stream-Protocol-Version: \r\n", "X-Stream-Protocol-Version: , ,\r\n"] {
            let (server, answer) = serve(pipe, request(empty).as_bytes(), Protocol::SPDY_EXEC).await;
            assert_eq!(answered(&answer).0, "HTTP/1.1 400 Bad Request");
            assert!(matches!(server, Err(UpgradeError::NoProtocol { headers: None })));
        }

        let v9 = request("X-Stream-Protocol-Version: v9.channel.k8s.io\r\n");
        let (server, answer) = serve(pipe, v9.as_bytes(), Protocol::SPDY_EXEC).await;
        let said = "unable to upgrade: unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts \
            [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]\n";
        let accepted = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
        assert_eq!(answered(&answer), ("HTTP/1.1 403 Forbidden", accepted.to_vec(), said));
        match server {
            Err(UpgradeError::NoCommonProtocol { offered, .. }) => assert_eq!(offered, ["v9.channel.k8s.io"]),
            other => panic!("{other:?}"),
        }
    }
}

/// A proxy asks this before its backend does anything.
#[tokio::test]
async fn a_request_can_be_checked_before_it_is_answered() {
    let offers_at = KUBECTL_REQUEST.find("X-Stream").unwrap();
    let unknown = format!("{}X-Stream-Protocol-Version: v9.channel.k8s.io\r\n\r\n", &KUBECTL_REQUEST[..offers_at]);
    for (request, fits) in [(KUBECTL_REQUEST, true), (&unknown[..], false)] {
        let (mut near, far) = duplex(4096);
        near.write_all(request.as_bytes()).await.unwrap();
        let pending = upgrade::accept(far, &Config::default()).await.unwrap();
        let checked = pending.check(Protocol::SPDY_EXEC);
        assert_eq!(checked.is_ok(), fits, "{checked:?}");
        let nothing = tokio::time::timeout(Duration::from_millis(20), near.read_u8()).await;
        assert!(nothing.is_err(), "checking answers");
        let accepted = tokio::spawn(async move { pending.accept(Protocol::SPDY_EXEC).await });
        assert_eq!(near.read_u8().await.unwrap(), b'H');
        drop(near);
        assert_eq!(
            accepted.await.unwrap().map(drop).map_err(|error| error.to_string()),
            checked.map_err(|error| error.to_string())
        );
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_refused() {
    for (said, instead) in [
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade\r\n", "Connection: keep-alive\r\n"),
        ("Upgrade: SPDY/3.1\r\n", ""),
        ("Upgrade: SPDY/3.1\r\n", "Upgrade: websocket\r\n"),
    ] {
        let (server, answer) = serve(1, KUBECTL_REQUEST.replace(said, instead).as_bytes(), Protocol::SPDY_EXEC).await;
        let said = "unable to upgrade: missing upgrade headers in request\n";
        assert_eq!(answered(&answer), ("HTTP/1.1 400 Bad Request", vec![], said));
        assert!(matches!(server, Err(UpgradeError::NotAnUpgrade)));
    }
}

/// A server may ignore an upgrade that it does not know, and must ignore one in HTTP/1.0 (RFC 9110 §7.8).
#[tokio::test]
async fn a_request_without_an_upgrade_of_ours_is_an_ordinary_one() {
    let nginx = "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\n{}";
    let java = "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: AAEAAEAA\r\nContent-Length: 2\r\n\r\n{}";
    let old_kubectl = KUBECTL_REQUEST.replace("HTTP/1.1", "HTTP/1.0");
    for (request, version) in [
        (nginx, Version::HTTP_11),
        (java, Version::HTTP_11),
        (&java.replace("Content-Length: 2", "Transfer-Encoding: chunked"), Version::HTTP_11),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Version::HTTP_11),
        ("OPTIONS / HTTP/1.0\r\n\r\n", Version::HTTP_10),
        ("GET /healthz HTTP/1.0\r\nHost: a\r\n\r\n", Version::HTTP_10),
        ("GET /healthz HTTP/1.0\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\n{}", Version::HTTP_10),
        (&old_kubectl, Version::HTTP_10),
        (&old_kubectl.replace("Content-Length: 0", "Content-Length: 2"), Version::HTTP_10),
    ] {
        let (mut near, far) = duplex(64 * 1024);
        near.write_all(request.as_bytes()).await.unwrap();
        let pending =
            upgrade::accept(far, &Config::default()).await.unwrap_or_else(|error| panic!("{request}: {error}"));
        assert_eq!((pending.is_upgrade(), pending.request().version()), (false, version), "{request}");
        assert_eq!(pending.to_pass_on().version(), Version::HTTP_11);
        near.shutdown().await.unwrap();
        let refused = pending.accept(Protocol::ANY_EXEC).await;
        assert!(matches!(refused, Err(UpgradeError::NotAnUpgrade)), "{refused:?}");
        assert_eq!(answered(&read_all(&mut near).await).0, "HTTP/1.1 400 Bad Request");
    }
}

#[tokio::test]
async fn an_upgrade_with_a_body_is_refused() {
    for lines in [
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 0, 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let request = KUBECTL_REQUEST.replace("Content-Length: 0\r\n", lines) + "smuggled";
        for pipe in PIPES {
            let (server, answer) = serve(pipe, request.as_bytes(), Protocol::SPDY_EXEC).await;
            assert_eq!(answered(&answer).0, "HTTP/1.1 400 Bad Request");
            assert!(matches!(server, Err(UpgradeError::BodyNotAllowed)), "{lines}");
        }
    }
}

#[tokio::test]
async fn a_malformed_request_is_answered_before_the_caller_sees_it() {
    for (request, expected) in [
        (KUBECTL_REQUEST.replace("HTTP/1.1", "HTTP/2.0"), "the version is neither HTTP/1.1 nor HTTP/1.0"),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".into(), "not exactly one Host header"),
        (KUBECTL_REQUEST.replace("Host:", "Host :"), "bad header line"),
        (KUBECTL_REQUEST.replace("Host:", "Ghost:"), "not exactly one Host header"),
        (KUBECTL_REQUEST.replace("POST ", "POST"), "bad start line"),
        ("\u{16}\u{3}\u{1}\n\n".into(), "bad start line"),
    ] {
        let (server, answer) = serve(1, request.as_bytes(), Protocol::SPDY_EXEC).await;
        assert_eq!(answered(&answer).0, "HTTP/1.1 400 Bad Request");
        assert!(answer.ends_with(&format!("\r\n\r\nmalformed head: {expected}\n")), "{answer}");
        match server {
            Err(UpgradeError::MalformedHead(reason)) => assert_eq!(reason, expected, "{request}"),
            other => panic!("{request}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_head_is_bounded_in_bytes_and_lines() {
    let too_large = "HTTP/1.1 431 Request Header Fields Too Large";
    let with_token = |len: usize| KUBECTL_REQUEST.replace("kubectl exec", &"x".repeat(len));
    let (server, answer) = serve(2 << 20, with_token(1 << 20).as_bytes(), Protocol::SPDY_EXEC).await;
    assert_eq!(answered(&answer).0, too_large);
    assert!(matches!(server, Err(UpgradeError::HeadTooLarge { limit: 1_048_576 })));
    let (server, _) = serve(2 << 20, with_token(1_000_000).as_bytes(), Protocol::SPDY_EXEC).await;
    assert_eq!(server.unwrap().protocol(), Some(crate::V4), "as long as Go takes it");

    let with_lines = |count| KUBECTL_REQUEST.replace("Host:", &format!("{}Host:", "X: y\r\n".repeat(count)));
    let (server, answer) = serve(64 * 1024, with_lines(1000).as_bytes(), Protocol::SPDY_EXEC).await;
    assert_eq!(answered(&answer).0, too_large);
    assert!(matches!(server, Err(UpgradeError::TooManyHeaders { limit: 1000 })));
    let (server, _) = serve(64 * 1024, with_lines(900).as_bytes(), Protocol::SPDY_EXEC).await;
    assert_eq!(server.unwrap().protocol(), Some(crate::V4));
}

/// An `http::Uri` has at most 65,534 bytes.
#[tokio::test]
async fn a_command_longer_than_a_uri_is_taken_by_a_server_that_asks_for_it() {
    let script = "x".repeat(200_000);
    let query = format!("command={script}&stdout=true");
    let long = KUBECTL_REQUEST.replace("command=sh", &format!("command={script}"));
    for pipe in PIPES {
        let (server, answer) = serve(pipe, long.as_bytes(), Protocol::SPDY_EXEC).await;
        assert_eq!(answered(&answer).0, "HTTP/1.1 414 URI Too Long");
        assert!(matches!(server, Err(UpgradeError::TargetTooLong { limit: 65_534 })), "{server:?}");
    }

    // From our client through a proxy to our server, each of which reads the query.
    let mut config = Config::default();
    config.long_queries = true;
    let ((client, near), (far, backend)) = (duplex(1024), duplex(1024));
    let mut request = Request::post("http://a/exec").body(()).unwrap();
    upgrade::set_query(&mut request, &query).unwrap();
    let proxy = async {
        let pending = upgrade::accept(near, &config).await?;
        assert!(upgrade::query(pending.request()) == query && pending.request().uri() == "/exec");
        let request = pending.to_pass_on();
        pending.pass_on(far, request).await
    };
    let server = async {
        let pending = upgrade::accept(backend, &config).await?;
        assert!(upgrade::query(pending.request()) == query);
        pending.accept(Protocol::SPDY_EXEC).await
    };
    let (client, proxy, server) =
        tokio::join!(upgrade::connect(client, request, Protocol::SPDY_EXEC, &config), proxy, server);
    assert_eq!((client.unwrap().protocol(), server.unwrap().protocol()), (Some(crate::V4), Some(crate::V4)));
    proxy.unwrap();

    let path = KUBECTL_REQUEST.replace("/exec?", &format!("/{script}?"));
    let (mut near, far) = duplex(1 << 20);
    near.write_all(path.as_bytes()).await.unwrap();
    near.shutdown().await.unwrap();
    let error = upgrade::accept(far, &config).await.unwrap_err();
    assert!(matches!(error, UpgradeError::TargetTooLong { limit: 65_534 }), "{error:?}");
}

#[tokio::test]
async fn a_plain_request_can_be_answered() {
    for pipe in PIPES {
        let (mut near, far) = duplex(pipe);
        let server = tokio::spawn(async move {
            let pending = upgrade::accept(far, &Config::default()).await.unwrap();
            assert!(!pending.is_upgrade());
            assert_eq!((pending.request().method().as_str(), pending.request().uri().path()), ("GET", "/healthz"));
            pending.respond(Response::new(Bytes::from_static(b"ok"))).await
        });
        near.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(answered(&read_all(&mut near).await), ("HTTP/1.1 200 OK", vec![], "ok"));
        // The server waits for the client to end first.
        assert!(!server.is_finished());
        drop(near);
        server.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_interim_response_is_no_answer() {
    let (mut near, far) = duplex(1024);
    near.write_all(KUBECTL_REQUEST.as_bytes()).await.unwrap();
    let pending = upgrade::accept(far, &Config::default()).await.unwrap();
    let response = Response::builder().status(101).body(Bytes::new()).unwrap();
    let error = pending.respond(response).await.unwrap_err();
    assert!(matches!(error, UpgradeError::InvalidResponse(StatusCode::SWITCHING_PROTOCOLS)));
    assert_eq!(error.initiator(), Initiator::User);
    assert_eq!(read_all(&mut near).await, "");
}

#[tokio::test]
async fn an_answer_survives_a_body_that_nobody_reads() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (io, _) = listener.accept().await.unwrap();
    let server = tokio::spawn(async move {
        let pending = upgrade::accept(io, &Config::default()).await?;
        pending.respond(Response::new(Bytes::from_static(b"no"))).await
    });
    client.write_all(b"POST /run HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n").await.unwrap();
    client.readable().await.unwrap();
    for _ in 0..6 {
        client.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    assert_eq!(answered(&read_all(&mut client).await).2, "no");
    drop(client);
    server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_is_discarded_for_so_long_and_so_much() {
    // The request never ends.
    let (mut near, far) = duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let pending = upgrade::accept(far, &Config::default()).await.unwrap();
    let began = Instant::now();
    pending.respond(Response::new(Bytes::new())).await.unwrap();
    assert_eq!(began.elapsed(), Config::default().refusal_body_timeout);

    // The client never stops sending.
    let (mut near, far) = duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut config = Config::default();
    config.refusal_body_timeout = Duration::MAX;
    let pending = upgrade::accept(far, &config).await.unwrap();
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        while sent < 1 << 20 && near.write_all(&[0; 1024]).await.is_ok() {
            sent += 1024;
        }
        sent
    });
    pending.respond(Response::new(Bytes::new())).await.unwrap();
    assert!(flood.await.unwrap() <= config.max_refusal_body + 4 * 1024);
}
