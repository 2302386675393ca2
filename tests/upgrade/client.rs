//! What our client makes of a server's answer: an upgrade, a refusal, or neither.
//!
//! Holds the answers that a server may give.

use bytes::Bytes;
use http::Response;
use kubestream::Initiator;
use kubestream::status::Status;
use kubestream::upgrade::{self, Config, Protocol, UpgradeError};
use support::read_head;
use tokio::io::{AsyncWriteExt, duplex};
use tokio::time::Instant;

use crate::{KUBELET_SWITCH, PIPES, V1, V4, ask, post, read_all};

async fn refused(pipe: usize, answer: &[u8]) -> Refusal {
    Refusal::of(ask(pipe, answer, Protocol::SPDY_EXEC).await.unwrap_err())
}

struct Refusal {
    response: Response<Bytes>,
    truncated: bool,
    /// What the server says, in the error's text.
    said: String,
}

impl Refusal {
    fn of(error: UpgradeError) -> Self {
        assert_eq!(error.initiator(), Initiator::Remote);
        let text = error.to_string();
        let said = text.strip_prefix("unable to upgrade connection: ").unwrap().to_owned();
        match error {
            UpgradeError::Refused { response, truncated, .. } => Self { response: *response, truncated, said },
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_refusal_by_a_real_cluster_says_why() {
    let captures: [(&[u8], u16, &str, Option<&str>); 10] = [
        (
            include_bytes!("../data/http-errors/ambiguous-container.http"),
            400,
            "a container name must be specified for pod web, choose one of: [main tty attach]",
            Some("BadRequest"),
        ),
        (
            include_bytes!("../data/http-errors/no-container.http"),
            400,
            "container zzz is not valid for pod web",
            Some("BadRequest"),
        ),
        (include_bytes!("../data/http-errors/no-pod.http"), 404, "pods \"nope\" not found", Some("NotFound")),
        (include_bytes!("../data/http-errors/no-upgrade.http"), 400, "Upgrade request required", Some("BadRequest")),
        (include_bytes!("../data/http-errors/container-not-running.http"), 500, "container not found (\"main\")", None),
        (
            include_bytes!("../data/http-errors/no-streams.http"),
            400,
            "you must specify at least 1 of stdin, stdout, stderr",
            None,
        ),
        (include_bytes!("../data/http-errors/no-protocol.http"), 400, "X-Stream-Protocol-Version is required", None),
        (
            include_bytes!("../data/http-errors/portforward-bad-protocol.http"),
            403,
            "unable to negotiate protocol: client supports [x], server accepts [portforward.k8s.io]",
            None,
        ),
        (
            include_bytes!("../data/http-errors/portforward-no-protocol.http"),
            500,
            "invalid upgrade response: status code 200",
            None,
        ),
        // The kubelet repeats what the runtime has written.
        (
            include_bytes!("../data/http-errors/bad-protocol.http"),
            403,
            "unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts \
             [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]",
            None,
        ),
    ];
    for (answer, status, message, reason) in captures {
        for pipe in PIPES {
            let refusal = refused(pipe, answer).await;
            assert_eq!((refusal.response.status().as_u16(), refusal.truncated), (status, false));
            let hint = if message == "Upgrade request required" {
                "; a hop has dropped the Upgrade header, or the server does not know this transport"
            } else {
                ""
            };
            assert_eq!(refusal.said, format!("{message} ({}){hint}", refusal.response.status()));
            let object = Status::from_json(refusal.response.body()).ok();
            assert_eq!(object.as_ref().map(|object| &object.reason[..]), reason);
            assert_eq!(object.and_then(|object| object.code), reason.map(|_| i32::from(status)));
        }
    }
    let refusal = refused(1, include_bytes!("../data/http-errors/bad-protocol.http")).await;
    let accepted = refusal.response.headers().get_all("x-accepted-stream-protocol-versions");
    assert!(accepted.iter().eq(Protocol::SPDY_EXEC.iter().map(|protocol| protocol.name())));
}

#[tokio::test]
async fn a_refusals_body_ends_by_chunks_or_with_the_connection() {
    for pipe in PIPES {
        let chunked =
            b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nno u\r\n7\r\npstream\r\n0\r\n\r\n";
        assert_eq!(refused(pipe, chunked).await.said, "no upstream (502 Bad Gateway)");
        let closed = refused(pipe, b"HTTP/1.0 502 \n\nno upstream\n").await;
        assert_eq!((&closed.said[..], closed.truncated), ("no upstream (502 Bad Gateway)", false));
        let lost = refused(pipe, b"HTTP/1.1 502 \r\nContent-Length: 99\r\n\r\nno ups").await;
        assert_eq!((&lost.said[..], lost.truncated), ("no ups (502 Bad Gateway)", true));
        assert!(refused(pipe, b"HTTP/1.1 204 \r\n\r\n").await.said.starts_with("204 No Content; "));
    }
}

/// Row 24: whatever else the answer contains.
#[tokio::test]
async fn only_a_101_switches() {
    for status in ["200 OK", "201 Created", "204 No Content", "403 Forbidden", "500 Internal Server Error"] {
        let answer = KUBELET_SWITCH.replace("101 Switching Protocols", status);
        assert_eq!(refused(1, answer.as_bytes()).await.response.status().as_str(), &status[..3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusals_body_is_cut_and_not_lost() {
    let config = Config::default();
    let long = [b"HTTP/1.1 500 \r\n\r\n", &vec![b'x'; config.max_refusal_body + 1][..]].concat();
    let refusal = refused(64 * 1024, &long).await;
    assert_eq!((refusal.response.body().len(), refusal.truncated), (config.max_refusal_body, true));

    let (near, mut far) = duplex(1024);
    let server = tokio::spawn(async move {
        read_head(&mut far).await;
        far.write_all(b"HTTP/1.1 500 \r\nContent-Length: 9\r\n\r\nslow").await.unwrap();
        // Waits until the client gives up.
        read_all(&mut far).await
    });
    let began = Instant::now();
    let refusal = Refusal::of(upgrade::connect(near, post(), Protocol::SPDY_EXEC, &config).await.unwrap_err());
    assert_eq!((&refusal.response.body()[..], refusal.truncated), (&b"slow"[..], true));
    assert_eq!(began.elapsed(), config.refusal_body_timeout);
    assert_eq!(server.await.unwrap(), "");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (near, mut far) = duplex(1024);
    let server = tokio::spawn(async move {
        read_head(&mut far).await;
        far.write_all(b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/exec\r\n\r\n").await.unwrap();
        read_all(&mut far).await
    });
    match upgrade::connect(near, post(), Protocol::SPDY_EXEC, &Config::default()).await {
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
        ("Connection: Upgrade\r\n", "", "the header Connection does not list upgrade"),
        ("Connection: Upgrade\r\n", "Connection: close\r\n", "the header Connection does not list upgrade"),
        ("Upgrade: SPDY/3.1\r\n", "", "the header Upgrade does not list the requested transport"),
        ("Upgrade: SPDY/3.1\r\n", "Upgrade: websocket\r\n", "the header Upgrade does not list the requested transport"),
        ("Upgrade: SPDY/3.1\r\n", "Upgrade: SPDY/3.1\r\nContent-Length: 5\r\n", "the 101 announces a body"),
        ("Upgrade: SPDY/3.1\r\n", "Upgrade: SPDY/3.1\r\nTransfer-Encoding: chunked\r\n", "the 101 announces a body"),
        ("HTTP/1.1", "HTTP/1.0", "the version is not HTTP/1.1"),
    ] {
        match ask(1, KUBELET_SWITCH.replace(said, instead).as_bytes(), Protocol::SPDY_EXEC).await {
            Err(UpgradeError::NotSwitched(reason)) => assert_eq!(reason, expected),
            other => panic!("{said} {instead}: {other:?}"),
        }
    }
    let loose = KUBELET_SWITCH
        .replace("Connection: Upgrade", "connection: keep-alive , UPGRADE\r\nContent-Length: 0")
        .replace("SPDY", "spdy")
        .replace("\r\n", "\n");
    assert_eq!(ask(1, loose.as_bytes(), Protocol::SPDY_EXEC).await.unwrap().protocol(), Some(V4));
}

#[tokio::test]
async fn a_client_speaks_only_what_it_has_offered() {
    let says = |line: &str| KUBELET_SWITCH.replace("X-Stream-Protocol-Version: v4.channel.k8s.io\r\n", line);
    let v4 = "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
    for (line, offers, chosen) in [
        ("", Protocol::SPDY_EXEC, Ok(Some(V1))),
        ("X-Stream-Protocol-Version: \r\n", Protocol::SPDY_EXEC, Ok(Some(V1))),
        ("", &[], Ok(None)),
        ("", &[V4], Err("")),
        (v4, &[V1], Err("v4.channel.k8s.io")),
        (v4, &[], Err("v4.channel.k8s.io")),
        ("X-Stream-Protocol-Version: v5.channel.k8s.io\r\n", Protocol::SPDY_EXEC, Err("v5.channel.k8s.io")),
        (&v4.repeat(2), Protocol::SPDY_EXEC, Err("v4.channel.k8s.io, v4.channel.k8s.io")),
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
    assert!(ask(1, format!("{hints}{KUBELET_SWITCH}").as_bytes(), Protocol::SPDY_EXEC).await.is_ok());
    let endless = ask(1024, hints.repeat(20_000).as_bytes(), Protocol::SPDY_EXEC).await;
    assert!(matches!(endless, Err(UpgradeError::HeadTooLarge { limit: 1_048_576 })), "{endless:?}");
}
