//! The handshake between two peers, one of which the test plays byte by byte. What the played servers send was recorded
//! from a real cluster (kube-apiserver and kubelet 1.34.4, containerd 1.6.20).
//!
//! Holds the recorded heads, the played peers, and the tests of both ends.

#![allow(clippy::unwrap_used)]

mod client;
mod server;

use std::time::Duration;

use http::Request;
use kubestream::upgrade::{self, Config, Protocol, UpgradeError, Upgraded, Version};
use support::read_head;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

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

const V1: Protocol = Protocol::SpdyExec(Version::V1);
const V4: Protocol = Protocol::SpdyExec(Version::V4);

/// Room for a whole transcript, and for one byte.
const PIPES: [usize; 2] = [64 * 1024, 1];

fn post() -> Request<()> {
    Request::post("https://10.0.0.1:6443/exec?command=true&stdout=true").body(()).unwrap()
}

async fn read_all(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    io.read_to_end(&mut all).await.unwrap();
    String::from_utf8(all).unwrap()
}

/// Our client against a server that reads the request, answers with these bytes and ends.
async fn ask(pipe: usize, answer: &[u8], offers: &[Protocol]) -> Result<Upgraded<DuplexStream>, UpgradeError> {
    let (near, mut far) = duplex(pipe);
    let answer = answer.to_vec();
    tokio::spawn(async move {
        read_head(&mut far).await;
        far.write_all(&answer).await
    });
    upgrade::connect(near, post(), offers, &Config::default()).await
}

/// A client that sends these bytes and ends, against our server. Returns all that the client got.
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
        // A server that has refused need not take the rest.
        let _ = writes.write_all(request).await;
        let _ = writes.shutdown().await;
    };
    let (answer, ()) = tokio::join!(read_all(&mut reads), sending);
    (server.await.unwrap(), answer)
}

#[tokio::test]
async fn kubectl_upgrades_with_our_server() {
    for pipe in PIPES {
        let (server, answer) = serve(pipe, KUBECTL_REQUEST.as_bytes(), Protocol::SPDY_EXEC).await;
        assert_eq!(server.unwrap().protocol(), Some(V4));
        assert_eq!(answer, KUBELET_SWITCH);
    }
}

#[tokio::test]
async fn our_client_upgrades_with_a_go_server() {
    for pipe in PIPES {
        let (near, mut far) = duplex(pipe);
        let server = tokio::spawn(async move {
            let request = read_head(&mut far).await;
            far.write_all(KUBELET_SWITCH.as_bytes()).await.unwrap();
            request
        });
        let upgraded = upgrade::connect(near, post(), Protocol::SPDY_EXEC, &Config::default()).await.unwrap();
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
        let (mut io, read_ahead, _) = ask(pipe, &answer, Protocol::SPDY_EXEC).await.unwrap().into_parts();
        let mut rest = read_ahead.to_vec();
        io.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"\x80\x03\n\nspdy");

        let (mut near, far) = duplex(pipe);
        let server = tokio::spawn(async move {
            let pending = upgrade::accept(far, &Config::default()).await.unwrap();
            let (mut io, read_ahead, _) = pending.accept(Protocol::SPDY_EXEC).await.unwrap().into_parts();
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
        (Protocol::SPDY_EXEC, Protocol::SPDY_EXEC, Some(V4)),
        (&[V1, V4], Protocol::SPDY_EXEC, Some(V1)),
        (Protocol::SPDY_EXEC, &[V1, Protocol::SpdyExec(Version::V2)], Some(Protocol::SpdyExec(Version::V2))),
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

/// Node's http-proxy closes the connection of every upgrade but WebSocket's.
#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_says_what_closes_it_over_spdy() {
    let text = "the connection failed before the upgrade was complete: it was closed without an answer";
    let get = || Request::get("https://10.0.0.1:6443/exec?command=true&stdout=true").body(()).unwrap();
    for (request, offers, hint) in [
        (post(), Protocol::SPDY_EXEC, "; a proxy that passes only WebSocket does this"),
        (get(), Protocol::WEBSOCKET_EXEC, ""),
    ] {
        let (near, mut far) = duplex(1024);
        let (hop, config) = (async move { read_head(&mut far).await }, Config::default());
        let (connected, _) = tokio::join!(upgrade::connect(near, request, offers, &config), hop);
        let error = connected.unwrap_err();
        assert_eq!(error.to_string(), format!("{text}{hint}"));
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn a_head_that_is_cut_short_is_a_lost_connection() {
    let error = ask(1, &KUBELET_SWITCH.as_bytes()[..50], Protocol::SPDY_EXEC).await.unwrap_err();
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::UnexpectedEof);
    let (server, answer) = serve(1, &KUBECTL_REQUEST.as_bytes()[..50], Protocol::SPDY_EXEC).await;
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
    let client = upgrade::connect(near, post(), Protocol::SPDY_EXEC, &Config::default()).await;
    assert!(matches!(client, Err(UpgradeError::Timeout)));
    assert_eq!(server.await.unwrap(), 60);

    // A server that does not even read.
    let (near, _far) = duplex(1);
    let client = upgrade::connect(near, post(), Protocol::SPDY_EXEC, &Config::default()).await;
    assert!(matches!(client, Err(UpgradeError::Timeout)));
}

/// Admission webhooks and tunnels to nodes take 15 s in real clusters, and kubectl waits without a limit.
#[tokio::test(start_paused = true)]
async fn a_server_that_thinks_before_it_answers_is_waited_for() {
    let (near, mut far) = duplex(64 * 1024);
    let server = tokio::spawn(async move {
        read_head(&mut far).await;
        tokio::time::sleep(Duration::from_secs(59)).await;
        far.write_all(KUBELET_SWITCH.as_bytes()).await.unwrap();
    });
    let upgraded = upgrade::connect(near, post(), Protocol::SPDY_EXEC, &Config::default()).await.unwrap();
    assert_eq!(upgraded.protocol(), Some(V4));
    server.await.unwrap();

    let (near, _far) = duplex(64 * 1024);
    let mut config = Config::default();
    config.answer_timeout = Duration::from_secs(3);
    let began = tokio::time::Instant::now();
    let error = upgrade::connect(near, post(), Protocol::SPDY_EXEC, &config).await.unwrap_err();
    assert!(matches!(error, UpgradeError::Timeout) && began.elapsed() == config.answer_timeout, "{error:?}");
}

#[tokio::test]
async fn a_dropped_handshake_drops_its_connection() {
    let config = Config::default();
    let (near, mut far) = duplex(1024);
    let mut connecting = Box::pin(upgrade::connect(near, post(), Protocol::SPDY_EXEC, &config));
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

/// Polls once, and returns whether it is pending.
async fn waits<F: Future + Unpin>(mut future: F) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut future).poll(context).is_pending()))
        .await
}
