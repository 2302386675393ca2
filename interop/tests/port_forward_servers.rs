//! Our port-forward client against Go's servers: `k8s.io/cri-streaming` over SPDY, and the apiserver's TunnelingHandler
//! in front of it; and against the built-in node.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Error, Options, PortForward};
use kubestream::upgrade::{self, Protocol, Transport};
use kubestream_interop::matrix::{self, Foreign, NODE, Over, Proof, hop_before, server_for};
use kubestream_interop::{Peer, digest, echo, pattern, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

async fn connect(server: &Peer, protocol: Protocol) -> PortForward {
    let url = format!("{}/api/v1/namespaces/default/pods/demo/portforward", server.address());
    let method = if protocol.transport() == Transport::WebSocket { Method::GET } else { Method::POST };
    let request = Request::builder().method(method).uri(&url).body(()).expect("a request");
    let tcp = TcpStream::connect(request.uri().authority().expect("an address").as_str()).await.expect("a connection");
    let upgraded = upgrade::connect(tcp, request, &[protocol], &upgrade::Config::default()).await.expect("an upgrade");
    let (mux, driver) = Multiplexer::client(upgraded, Config::default());
    tokio::spawn(driver);
    let mut options = Options::default();
    options.stall_timeout = Some(Duration::from_secs(1));
    PortForward::with_options(mux, options).expect("port-forward")
}

/// Every server, with the protocol that it speaks.
fn servers() -> [(&'static str, Peer, Protocol); 4] {
    [
        ("cri-streaming", Peer::go("cri-server", &[]), Protocol::SpdyPortForward),
        ("TunnelingHandler", Peer::go("translator", &[]), Protocol::TunneledPortForward),
        ("node", Peer::node(), Protocol::SpdyPortForward),
        ("node", Peer::node(), Protocol::TunneledPortForward),
    ]
}

/// Proves cases of them. In front of our own server stands the hop of `KUBESTREAM_THROUGH`, and nothing else.
fn proves(cases: &str) -> Proof {
    let behind = server_for("our client").through("TunnelingHandler");
    let proof = matrix::proves(cases).with(Foreign::CriStreaming, server_for("our client"), [Over::Forward]);
    let proof = proof.with(Foreign::CriStreaming, behind, [Over::Tunnel]);
    let proof = proof.with(Foreign::Apiserver, hop_before("cri-streaming"), [Over::Tunnel]);
    match std::env::var("KUBESTREAM_THROUGH").as_deref() {
        Ok("apiserver") => proof.with(Foreign::Apiserver, hop_before(NODE), [Over::Forward, Over::Tunnel]),
        _ => proof,
    }
}

#[tokio::test]
async fn ten_megabytes_come_back_the_same_behind_a_half_close() {
    let _proof = proves("10 MB there and back behind a half-close");
    let port = echo().await;
    for (name, server, protocol) in servers() {
        let forward = connect(&server, protocol).await;
        let connection = forward.connect(port).await.unwrap_or_else(|error| panic!("{name}, {protocol}: {error}"));
        let (mut reads, mut writes) = tokio::io::split(connection);
        let sent = Bytes::from(pattern(10_000_000));
        let sum = digest(&sent);
        let writing = tokio::spawn(async move {
            writes.write_all(&sent).await?;
            writes.shutdown().await
        });
        let mut back = Vec::new();
        let read = within("it all back", reads.read_to_end(&mut back)).await;
        read.unwrap_or_else(|error| panic!("{name}, {protocol}: {error}"));
        writing.await.expect("a writer").expect("all is sent");
        assert_eq!(digest(&back), sum, "{name}, {protocol}");
    }
}

#[tokio::test]
async fn a_port_that_is_refused_says_why_and_the_others_live_on() {
    let _proof = proves("a refused port says why and the others live on");
    let (open, closed) = (echo().await, {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    });
    for (name, server, protocol) in servers() {
        let forward = connect(&server, protocol).await;
        let mut before = forward.connect(open).await.expect("a connection");
        // Go replies first and dials then. Our server knows before it replies.
        let failed = match forward.connect(closed).await {
            Ok(mut connection) => {
                let end = within("the reason", connection.data()).await;
                end.unwrap_or_else(|| panic!("{name}, {protocol}: an end without a reason")).expect_err("a reason")
            }
            Err(failed) => failed,
        };
        assert!(
            matches!(&failed, Error::Failed { port, reason } if *port == closed && reason.contains("connection refused") || failed.to_string().contains("Connection refused")),
            "{name}, {protocol}: {failed:?}"
        );
        let mut after = forward.connect(open).await.expect("a connection");
        for connection in [&mut before, &mut after] {
            connection.send("here".into()).await.expect("it lives");
            let back = within("an echo", connection.data()).await.expect("no end").expect("an echo");
            assert_eq!(back, "here", "{name}, {protocol}");
        }
    }
}

/// For example a browser's tab that stops in the middle of a download, beside other tabs.
#[tokio::test]
async fn one_that_nobody_reads_holds_up_no_other() {
    let _proof = proves("one that nobody reads holds up no other");
    let (port, endless) = (echo().await, {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::spawn(async move { while tcp.write_all(&[0; 65_536]).await.is_ok() {} });
            }
        });
        port
    });
    for (name, server, protocol) in servers() {
        let forward = connect(&server, protocol).await;
        let mut before = forward.connect(port).await.expect("a connection");
        let mut unread = forward.connect(endless).await.expect("a connection");
        // All of its bytes are on their way: they exceed the budget, or its window holds them back.
        within("some of it", unread.data()).await.expect("no end").expect("some of it");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut after = within("a connection", forward.connect(port)).await.expect("a connection");
        for connection in [&mut before, &mut after] {
            connection.send("here".into()).await.expect("it lives");
            let back = within("an echo", connection.data()).await.expect("no end").expect("an echo");
            assert_eq!(back, "here", "{name}, {protocol}");
        }
        if name != "node" {
            let given_up = async { while unread.data().await.expect("no end").is_ok() {} };
            within("its error", given_up).await;
        }
    }
}

#[tokio::test]
async fn two_hundred_at_once_are_whole() {
    let _proof = proves("200 connections at a time");
    let port = echo().await;
    for (name, server, protocol) in servers() {
        let forward = std::sync::Arc::new(connect(&server, protocol).await);
        let mut connections = JoinSet::new();
        for number in 0..200usize {
            let forward = std::sync::Arc::clone(&forward);
            connections.spawn(async move {
                let mut connection = forward.connect(port).await?;
                let sent = Bytes::from(pattern(10_000 + number));
                connection.send(sent.clone()).await?;
                connection.finish();
                let mut back = Vec::new();
                while let Some(data) = connection.data().await {
                    back.extend_from_slice(&data?);
                }
                Ok::<_, Error>(back == sent)
            });
        }
        while let Some(connection) = within("a connection", connections.join_next()).await {
            let whole = connection.expect("a task").unwrap_or_else(|error| panic!("{name}, {protocol}: {error}"));
            assert!(whole, "{name}, {protocol}");
        }
    }
}
