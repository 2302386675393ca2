//! The handshake between two peers, one of them played byte for byte. What the played servers say was recorded from a real
//! cluster (kube-apiserver and kubelet 1.34.4, containerd 1.6.20).

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use kubestream::Initiator;
use kubestream::upgrade::{self, Config, HeadFault, NotSwitched, Protocol, UpgradeError, Upgraded, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const KUBECTL_REQUEST: &str = "POST /api/v1/namespaces/default/pods/web/exec?command=sh&command=-c&command=echo+bye%3B+exit+7&container=main&stderr=true&stdout=true HTTP/1.1\r\n\
    Host: 127.0.0.1:18006\r\n\
    User-Agent: kubectl/v1.32.4 (linux/amd64) kubernetes/4cb5f07\r\n\
    Content-Length: 0\r\n\
    Connection: Upgrade\r\n\
    Kubectl-Command: kubectl exec\r\n\
    Kubectl-Session: 84985017-17c1-4815-afdf-2f65fefa9d70\r\n\
    Upgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v5.channel.k8s.io\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\
    X-Stream-Protocol-Version: v3.channel.k8s.io\r\n\
    X-Stream-Protocol-Version: v2.channel.k8s.io\r\n\
    X-Stream-Protocol-Version: channel.k8s.io\r\n\r\n";

const KUBELET_SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Connection: Upgrade\r\n\
    Upgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";

const V1: Protocol = Protocol::Exec(Version::V1);
const V4: Protocol = Protocol::Exec(Version::V4);

/// Room for a whole transcript, and for one byte.
const PIPES: [usize; 2] = [64 * 1024, 1];

fn post() -> Request<()> {
    Request::post("https://10.0.0.1:6443/exec?command=true&stdout=true").body(()).unwrap()
}

async fn read_request(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn read_all(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    io.read_to_end(&mut all).await.unwrap();
    String::from_utf8(all).unwrap()
}

/// Our client, against a server that reads the request, answers with these bytes and ends.
async fn ask(pipe: usize, answer: &[u8], offers: &[Protocol]) -> Result<Upgraded<DuplexStream>, UpgradeError> {
    let (near, mut far) = duplex(pipe);
    let answer = answer.to_vec();
    tokio::spawn(async move {
        read_request(&mut far).await;
        far.write_all(&answer).await
    });
    upgrade::connect(near, post(), offers, &Config::default()).await
}

/// A client that sends these bytes and ends, against our server; and all that the client got.
async fn serve(
    pipe: usize,
    request: &[u8],
    supported: &'static [Protocol],
) -> (Result<Upgraded<()>, UpgradeError>, String) {
    let (mut near, far) = duplex(pipe);
    let server = tokio::spawn(async move {
        let upgraded = upgrade::accept(far, &Config::default()).await?.accept(supported).await?;
        let (_, read_ahead, protocol) = upgraded.into_parts();
        Ok(Upgraded::new((), read_ahead, protocol))
    });
    let (mut reads, mut writes) = tokio::io::split(&mut near);
    let sending = async {
        // What a server that has refused does not take is of no interest.
        let _ = writes.write_all(request).await;
        let _ = writes.shutdown().await;
    };
    let (answer, ()) = tokio::join!(read_all(&mut reads), sending);
    (server.await.unwrap(), answer)
}

async fn refused(pipe: usize, answer: &[u8]) -> Box<upgrade::Refusal> {
    match ask(pipe, answer, Protocol::EXEC).await {
        Err(UpgradeError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn kubectl_upgrades_with_our_server() {
    for pipe in PIPES {
        let (server, answer) = serve(pipe, KUBECTL_REQUEST.as_bytes(), Protocol::EXEC).await;
        assert_eq!(server.unwrap().protocol(), Some(V4));
        assert_eq!(answer, KUBELET_SWITCH);
    }
}

#[tokio::test]
async fn our_client_upgrades_with_a_go_server() {
    for pipe in PIPES {
        let (near, mut far) = duplex(pipe);
        let server = tokio::spawn(async move {
            let request = read_request(&mut far).await;
            far.write_all(KUBELET_SWITCH.as_bytes()).await.unwrap();
            request
        });
        let upgraded = upgrade::connect(near, post(), Protocol::EXEC, &Config::default()).await.unwrap();
        assert_eq!(upgraded.protocol(), Some(V4));
        assert_eq!(
            server.await.unwrap(),
            "POST /exec?command=true&stdout=true HTTP/1.1\r\nHost: 10.0.0.1:6443\r\n\
            Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
            X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: v3.channel.k8s.io\r\n\
            X-Stream-Protocol-Version: v2.channel.k8s.io\r\nX-Stream-Protocol-Version: channel.k8s.io\r\n\
            Content-Length: 0\r\n\r\n"
        );
    }
}

#[tokio::test]
async fn what_comes_behind_a_head_belongs_to_spdy() {
    for pipe in PIPES {
        let answer = [KUBELET_SWITCH.as_bytes(), b"\x80\x03\n\nspdy"].concat();
        let (mut io, read_ahead, _) = ask(pipe, &answer, Protocol::EXEC).await.unwrap().into_parts();
        let mut rest = read_ahead.to_vec();
        io.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"\x80\x03\n\nspdy");

        let (mut near, far) = duplex(pipe);
        let server = tokio::spawn(async move {
            let pending = upgrade::accept(far, &Config::default()).await.unwrap();
            let (mut io, read_ahead, _) = pending.accept(Protocol::EXEC).await.unwrap().into_parts();
            let mut rest = read_ahead.to_vec();
            io.read_to_end(&mut rest).await.unwrap();
            rest
        });
        let (mut reads, mut writes) = tokio::io::split(&mut near);
        let request = [KUBECTL_REQUEST.as_bytes(), b"\x80\x03\n\nspdy"].concat();
        let mut answer = vec![0; KUBELET_SWITCH.len()];
        tokio::try_join!(writes.write_all(&request), reads.read_exact(&mut answer)).unwrap();
        assert_eq!(answer, KUBELET_SWITCH.as_bytes());
        near.shutdown().await.unwrap();
        assert_eq!(server.await.unwrap(), b"\x80\x03\n\nspdy");
    }
}

#[tokio::test]
async fn both_ends_of_ours_settle_on_the_clients_preference() {
    for (offers, supported, settled) in [
        (Protocol::EXEC, Protocol::EXEC, Some(V4)),
        (&[V1, V4], Protocol::EXEC, Some(V1)),
        (Protocol::EXEC, &[V1, Protocol::Exec(Version::V2)], Some(Protocol::Exec(Version::V2))),
        (&[], &[], None),
    ] as [(&[Protocol], &'static [Protocol], _); 4]
    {
        let (near, far) = duplex(1);
        let config = Config::default();
        let server = async { upgrade::accept(far, &config).await?.accept(supported).await };
        let (client, server) = tokio::join!(upgrade::connect(near, post(), offers, &config), server);
        assert_eq!((client.unwrap().protocol(), server.unwrap().protocol()), (settled, settled));
    }
}

#[tokio::test]
async fn a_refusal_by_a_real_cluster_says_why() {
    let captures: [(&[u8], u16, &str, Option<&str>); 10] = [
        (
            include_bytes!("data/http-errors/ambiguous-container.http"),
            400,
            "a container name must be specified for pod web, choose one of: [main tty attach]",
            Some("BadRequest"),
        ),
        (
            include_bytes!("data/http-errors/no-container.http"),
            400,
            "container zzz is not valid for pod web",
            Some("BadRequest"),
        ),
        (include_bytes!("data/http-errors/no-pod.http"), 404, "pods \"nope\" not found", Some("NotFound")),
        (include_bytes!("data/http-errors/no-upgrade.http"), 400, "Upgrade request required", Some("BadRequest")),
        (include_bytes!("data/http-errors/container-not-running.http"), 500, "container not found (\"main\")", None),
        (
            include_bytes!("data/http-errors/no-streams.http"),
            400,
            "you must specify at least 1 of stdin, stdout, stderr",
            None,
        ),
        (
            include_bytes!("data/http-errors/no-protocol.http"),
            400,
            "unable to upgrade: X-Stream-Protocol-Version is required",
            None,
        ),
        (
            include_bytes!("data/http-errors/portforward-bad-protocol.http"),
            403,
            "unable to upgrade: unable to negotiate protocol: client supports [x], server accepts [portforward.k8s.io]",
            None,
        ),
        (
            include_bytes!("data/http-errors/portforward-no-protocol.http"),
            500,
            "invalid upgrade response: status code 200",
            None,
        ),
        // The kubelet writes what the runtime has written already.
        (
            include_bytes!("data/http-errors/bad-protocol.http"),
            403,
            "unable to upgrade: unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts \
             [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]\n\
             unable to upgrade: unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts \
             [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]",
            None,
        ),
    ];
    for (answer, status, message, reason) in captures {
        for pipe in PIPES {
            let refusal = refused(pipe, answer).await;
            assert_eq!((refusal.status.as_u16(), refusal.truncated), (status, false));
            assert_eq!(refusal.to_string(), message);
            let object = refusal.object();
            assert_eq!(object.as_ref().map(|object| &object.reason[..]), reason);
            assert_eq!(object.and_then(|object| object.code), reason.map(|_| i32::from(status)));
            let error = UpgradeError::Refused(refusal);
            assert_eq!(error.initiator(), Initiator::Remote);
            assert_eq!(error.to_string(), format!("unable to upgrade connection: {message}"));
        }
    }
    let refusal = refused(1, include_bytes!("data/http-errors/bad-protocol.http")).await;
    let accepted = refusal.headers.get_all("x-accepted-stream-protocol-versions");
    assert!(accepted.iter().eq(Protocol::EXEC.iter().map(|protocol| protocol.name())));
}

#[tokio::test]
async fn a_refusals_body_ends_by_chunks_or_with_the_connection() {
    for pipe in PIPES {
        let chunked =
            b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nno u\r\n7\r\npstream\r\n0\r\n\r\n";
        assert_eq!(refused(pipe, chunked).await.to_string(), "no upstream");
        let closed = refused(pipe, b"HTTP/1.0 502 \n\nno upstream\n").await;
        assert_eq!((closed.to_string(), closed.truncated), ("no upstream".into(), false));
        let lost = refused(pipe, b"HTTP/1.1 502 \r\nContent-Length: 99\r\n\r\nno ups").await;
        assert_eq!((lost.to_string(), lost.truncated), ("no ups".into(), true));
        assert_eq!(refused(pipe, b"HTTP/1.1 204 \r\n\r\n").await.to_string(), "204 No Content");
    }
}

/// Row 24: whatever else it says.
#[tokio::test]
async fn only_a_101_switches() {
    for status in ["200 OK", "201 Created", "204 No Content", "403 Forbidden", "500 Internal Server Error"] {
        let answer = KUBELET_SWITCH.replace("101 Switching Protocols", status);
        assert_eq!(refused(1, answer.as_bytes()).await.status.as_str(), &status[..3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusals_body_is_cut_and_not_lost() {
    let config = Config::default();
    let long = [b"HTTP/1.1 500 \r\n\r\n", &vec![b'x'; config.max_refusal_body + 1][..]].concat();
    let refusal = refused(64 * 1024, &long).await;
    assert_eq!((refusal.body.len(), refusal.truncated), (config.max_refusal_body, true));

    let (near, mut far) = duplex(1024);
    let server = tokio::spawn(async move {
        read_request(&mut far).await;
        far.write_all(b"HTTP/1.1 500 \r\nContent-Length: 9\r\n\r\nslow").await.unwrap();
        // Waits for the client to give up.
        read_all(&mut far).await
    });
    let began = Instant::now();
    match upgrade::connect(near, post(), Protocol::EXEC, &config).await {
        Err(UpgradeError::Refused(refusal)) => assert_eq!((&refusal.body[..], refusal.truncated), (&b"slow"[..], true)),
        other => panic!("{other:?}"),
    }
    assert_eq!(began.elapsed(), config.refusal_body_timeout);
    assert_eq!(server.await.unwrap(), "");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (near, mut far) = duplex(1024);
    let server = tokio::spawn(async move {
        read_request(&mut far).await;
        far.write_all(b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/exec\r\n\r\n").await.unwrap();
        read_all(&mut far).await
    });
    match upgrade::connect(near, post(), Protocol::EXEC, &Config::default()).await {
        Err(UpgradeError::Redirected { status, location }) => {
            assert_eq!((status.as_u16(), location.as_deref()), (302, Some("https://evil.example/exec")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.await.unwrap(), "");
}

#[tokio::test]
async fn a_101_that_does_not_switch_is_no_upgrade() {
    for (said, instead, expected) in [
        ("Connection: Upgrade\r\n", "", NotSwitched::Connection),
        ("Connection: Upgrade\r\n", "Connection: close\r\n", NotSwitched::Connection),
        ("Upgrade: SPDY/3.1\r\n", "", NotSwitched::Upgrade),
        ("Upgrade: SPDY/3.1\r\n", "Upgrade: websocket\r\n", NotSwitched::Upgrade),
        ("Upgrade: SPDY/3.1\r\n", "Upgrade: SPDY/3.1\r\nContent-Length: 5\r\n", NotSwitched::Body),
        ("Upgrade: SPDY/3.1\r\n", "Upgrade: SPDY/3.1\r\nTransfer-Encoding: chunked\r\n", NotSwitched::Body),
        ("HTTP/1.1", "HTTP/1.0", NotSwitched::Version),
    ] {
        match ask(1, KUBELET_SWITCH.replace(said, instead).as_bytes(), Protocol::EXEC).await {
            Err(UpgradeError::NotSwitched(fault)) => assert_eq!(fault, expected),
            other => panic!("{said} {instead}: {other:?}"),
        }
    }
    let loose = KUBELET_SWITCH
        .replace("Connection: Upgrade", "connection: keep-alive , UPGRADE\r\nContent-Length: 0")
        .replace("SPDY", "spdy")
        .replace("\r\n", "\n");
    assert_eq!(ask(1, loose.as_bytes(), Protocol::EXEC).await.unwrap().protocol(), Some(V4));
}

#[tokio::test]
async fn a_client_speaks_only_what_it_has_offered() {
    let says = |line: &str| KUBELET_SWITCH.replace("X-Stream-Protocol-Version: v4.channel.k8s.io\r\n", line);
    let v4 = "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
    for (line, offers, chosen) in [
        ("", Protocol::EXEC, Ok(Some(V1))),
        ("X-Stream-Protocol-Version: \r\n", Protocol::EXEC, Ok(Some(V1))),
        ("", &[], Ok(None)),
        ("", &[V4], Err("")),
        (v4, &[V1], Err("v4.channel.k8s.io")),
        (v4, &[], Err("v4.channel.k8s.io")),
        ("X-Stream-Protocol-Version: v5.channel.k8s.io\r\n", Protocol::EXEC, Err("v5.channel.k8s.io")),
        (&v4.repeat(2), Protocol::EXEC, Err("v4.channel.k8s.io, v4.channel.k8s.io")),
    ] as [(&str, &[Protocol], _); 8]
    {
        let got = match ask(1, says(line).as_bytes(), offers).await {
            Ok(upgraded) => Ok(upgraded.protocol()),
            Err(UpgradeError::ProtocolNotOffered { name }) => Err(name),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(got, chosen.map_err(str::to_owned), "{line}");
    }
}

#[tokio::test]
async fn interim_responses_are_skipped_within_the_budget() {
    let hints = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    assert!(ask(1, format!("{hints}{KUBELET_SWITCH}").as_bytes(), Protocol::EXEC).await.is_ok());
    let endless = ask(1024, hints.repeat(2000).as_bytes(), Protocol::EXEC).await;
    assert!(matches!(endless, Err(UpgradeError::HeadTooLarge { limit: 65_536 })), "{endless:?}");
}

#[tokio::test]
async fn a_head_that_is_cut_short_is_a_lost_connection() {
    let error = ask(1, &KUBELET_SWITCH.as_bytes()[..50], Protocol::EXEC).await.unwrap_err();
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::UnexpectedEof);
    let (server, answer) = serve(1, &KUBECTL_REQUEST.as_bytes()[..50], Protocol::EXEC).await;
    assert!(matches!(server, Err(UpgradeError::Io(_))));
    assert_eq!(answer, "");
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_has_one_deadline_for_all_its_bytes() {
    let drip = |mut io: DuplexStream, head: &'static str| async move {
        let mut sent = 0;
        for byte in head.bytes() {
            if io.write_all(&[byte]).await.is_err() {
                break;
            }
            sent += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        sent
    };
    let (near, far) = duplex(1024);
    let client = tokio::spawn(drip(near, KUBECTL_REQUEST));
    assert!(matches!(upgrade::accept(far, &Config::default()).await, Err(UpgradeError::Timeout)));
    assert_eq!(client.await.unwrap(), 10);

    let (near, far) = duplex(1024);
    let server = tokio::spawn(drip(far, KUBELET_SWITCH));
    let client = upgrade::connect(near, post(), Protocol::EXEC, &Config::default()).await;
    assert!(matches!(client, Err(UpgradeError::Timeout)));
    assert_eq!(server.await.unwrap(), 10);

    // A server that does not even read.
    let (near, _far) = duplex(1);
    let client = upgrade::connect(near, post(), Protocol::EXEC, &Config::default()).await;
    assert!(matches!(client, Err(UpgradeError::Timeout)));
}

/// The status line, the accepted protocols and the body of an answer that closes.
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
        let (server, answer) = serve(pipe, request("").as_bytes(), Protocol::EXEC).await;
        let said = "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 6 headers\n";
        assert_eq!(answered(&answer), ("HTTP/1.1 400 Bad Request", vec![], said));
        assert!(matches!(server, Err(UpgradeError::NoProtocol { headers: Some(6) })));

        for empty in ["X-Stream-Protocol-Version: \r\n", "X-Stream-Protocol-Version: , ,\r\n"] {
            let (server, answer) = serve(pipe, request(empty).as_bytes(), Protocol::EXEC).await;
            assert_eq!(answered(&answer).0, "HTTP/1.1 400 Bad Request");
            assert!(matches!(server, Err(UpgradeError::NoProtocol { headers: None })));
        }

        let v9 = request("X-Stream-Protocol-Version: v9.channel.k8s.io\r\n");
        let (server, answer) = serve(pipe, v9.as_bytes(), Protocol::EXEC).await;
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

#[tokio::test]
async fn what_is_no_upgrade_is_refused() {
    for (said, instead) in [
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade\r\n", "Connection: keep-alive\r\n"),
        ("Upgrade: SPDY/3.1\r\n", ""),
        ("Upgrade: SPDY/3.1\r\n", "Upgrade: websocket\r\n"),
    ] {
        let (server, answer) = serve(1, KUBECTL_REQUEST.replace(said, instead).as_bytes(), Protocol::EXEC).await;
        let said = "unable to upgrade: missing upgrade headers in request\n";
        assert_eq!(answered(&answer), ("HTTP/1.1 400 Bad Request", vec![], said));
        assert!(matches!(server, Err(UpgradeError::NotAnUpgrade)));
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
            let (server, answer) = serve(pipe, request.as_bytes(), Protocol::EXEC).await;
            assert_eq!(answered(&answer).0, "HTTP/1.1 400 Bad Request");
            assert!(matches!(server, Err(UpgradeError::BodyNotAllowed)), "{lines}");
        }
    }
}

#[tokio::test]
async fn a_malformed_request_is_answered_before_the_caller_sees_it() {
    for (request, expected) in [
        (KUBECTL_REQUEST.replace("HTTP/1.1", "HTTP/1.0"), HeadFault::Version),
        (KUBECTL_REQUEST.replace("Host:", "Host :"), HeadFault::Header),
        (KUBECTL_REQUEST.replace("Host:", "Ghost:"), HeadFault::Host),
        (KUBECTL_REQUEST.replace("POST ", "POST"), HeadFault::StartLine),
        ("\u{16}\u{3}\u{1}\n\n".into(), HeadFault::StartLine),
    ] {
        let (server, answer) = serve(1, request.as_bytes(), Protocol::EXEC).await;
        assert_eq!(answered(&answer).0, "HTTP/1.1 400 Bad Request");
        match server {
            Err(UpgradeError::MalformedHead(fault)) => assert_eq!(fault, expected, "{request}"),
            other => panic!("{request}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_head_is_bounded_in_bytes_and_lines() {
    let too_large = "HTTP/1.1 431 Request Header Fields Too Large";
    let long = KUBECTL_REQUEST.replace("kubectl exec", &"x".repeat(64 * 1024));
    let (server, answer) = serve(128 * 1024, long.as_bytes(), Protocol::EXEC).await;
    assert_eq!(answered(&answer).0, too_large);
    assert!(matches!(server, Err(UpgradeError::HeadTooLarge { limit: 65_536 })));

    let many = KUBECTL_REQUEST.replace("Host:", &format!("{}Host:", "X: y\r\n".repeat(100)));
    let (server, answer) = serve(64 * 1024, many.as_bytes(), Protocol::EXEC).await;
    assert_eq!(answered(&answer).0, too_large);
    assert!(matches!(server, Err(UpgradeError::TooManyHeaders { limit: 100 })));
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
    // It never ends.
    let (mut near, far) = duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let pending = upgrade::accept(far, &Config::default()).await.unwrap();
    let began = Instant::now();
    pending.respond(Response::new(Bytes::new())).await.unwrap();
    assert_eq!(began.elapsed(), Config::default().refusal_body_timeout);

    // It never stops.
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

#[tokio::test]
async fn a_dropped_handshake_drops_its_connection() {
    let config = Config::default();
    let (near, mut far) = duplex(1024);
    let mut connecting = Box::pin(upgrade::connect(near, post(), Protocol::EXEC, &config));
    assert!(waits(connecting.as_mut()).await);
    drop(connecting);
    assert!(read_all(&mut far).await.starts_with("POST /exec?"));

    let (near, mut far) = duplex(1024);
    far.write_all(b"POST /exec").await.unwrap();
    let mut accepting = Box::pin(upgrade::accept(near, &config));
    assert!(waits(accepting.as_mut()).await);
    drop(accepting);
    assert_eq!(read_all(&mut far).await, "");

    let (near, mut far) = duplex(1024);
    far.write_all(KUBECTL_REQUEST.as_bytes()).await.unwrap();
    drop(upgrade::accept(near, &config).await.unwrap());
    assert_eq!(read_all(&mut far).await, "");
}

/// Polls once: whether it waits.
async fn waits<F: Future + Unpin>(mut future: F) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut future).poll(context).is_pending()))
        .await
}
