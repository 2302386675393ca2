//! client-go's port-forward against the built-in node, with each of its dialers: SPDY, the WebSocket tunnel, and the
//! one that falls back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::PortForwardServer;
use kubestream::upgrade::{self, Protocol};
use kubestream_interop::matrix::{Foreign, NODE, Over, Proof, client_of, proves};
use kubestream_interop::{Input, Peer, binary, closed_port, digest, echo, pattern, run, within};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

const PATH: &str = "/api/v1/namespaces/default/pods/demo/portforward";

fn proof(transport: &str, server: &str, cases: &str) -> Proof {
    let over = match transport {
        "spdy" => Over::Forward,
        "tunnel" => Over::Tunnel,
        _ => Over::ForwardFallback,
    };
    proves(cases).with(Foreign::ClientGo, client_of(server), [over])
}

/// A running port-forward, with the local address of each remote port.
struct Forward {
    client: Peer,
    _node: Peer,
}

impl Forward {
    async fn start(transport: &'static str, remotes: &[u16]) -> Self {
        let node = Peer::node();
        let client = client(format!("{}{PATH}", node.address()), transport, remotes).await;
        Self { client, _node: node }
    }

    async fn dial(&self, number: usize) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.client.ports()[number])).await.expect("client-go listens")
    }
}

/// Starts on a blocking thread, so that the servers of the test go on.
async fn client(url: String, transport: &'static str, remotes: &[u16]) -> Peer {
    let remotes = remotes.to_vec();
    let started = tokio::task::spawn_blocking(move || Peer::forward_client(&url, transport, &remotes));
    within("where client-go listens", started).await.expect("client-go")
}

/// Sends bytes, and returns the checksum of what comes back.
async fn there_and_back(tcp: TcpStream, sent: Vec<u8>) -> String {
    let (mut reads, mut writes) = tcp.into_split();
    let writing = tokio::spawn(async move {
        writes.write_all(&sent).await.expect("it is sent");
        // client-go passes the end on.
        writes.shutdown().await.expect("an end is sent");
    });
    let mut back = Vec::new();
    within("it all back", reads.read_to_end(&mut back)).await.expect("an answer");
    writing.await.expect("all is sent");
    digest(&back)
}

async fn twenty_megabytes_come_back_the_same(transport: &'static str) {
    let _proof = proof(transport, NODE, "20 MB there and back");
    let forward = Forward::start(transport, &[echo().await]).await;
    let sent = pattern(20_000_000);
    let sum = digest(&sent);
    assert_eq!(there_and_back(forward.dial(0).await, sent).await, sum);
}

async fn a_hundred_connections_at_once(transport: &'static str) {
    let _proof = proof(transport, NODE, "100 connections at a time");
    let forward = Forward::start(transport, &[echo().await, echo().await]).await;
    let mut connections = JoinSet::new();
    for number in 0..100 {
        let tcp = forward.dial(number % 2).await;
        connections.spawn(async move {
            // Each connection has content of its own.
            let sent = pattern(300_000)[number..].to_vec();
            (digest(&sent), there_and_back(tcp, sent).await)
        });
    }
    let mut count = 0;
    while let Some(connection) = connections.join_next().await {
        let (sent, back) = connection.expect("a connection");
        assert_eq!(sent, back);
        count += 1;
    }
    assert_eq!(count, 100);
}

/// The refused connection ends at once, and the forward goes on.
async fn a_refused_port_takes_no_other_with_it(transport: &'static str) {
    let _proof = proof(transport, NODE, "a refused port ends its own connection and no other");
    let forward = Forward::start(transport, &[closed_port().await, echo().await]).await;
    let mut living = forward.dial(1).await;
    for _ in 0..5 {
        let mut refused = forward.dial(0).await;
        let mut nothing = Vec::new();
        // It may end in any way, but it must end.
        let _ = within("its end", refused.read_to_end(&mut nothing)).await;
        assert!(nothing.is_empty());
        assert_eq!(there_and_back(forward.dial(1).await, b"hello".to_vec()).await, digest(b"hello"));
    }
    // The earlier connection still works.
    living.write_all(b"still there").await.expect("it is sent");
    let mut back = [0; 11];
    within("an answer", living.read_exact(&mut back)).await.expect("an answer");
    assert_eq!(&back, b"still there");
}

/// A server of this library that refuses connections as Go's servers do.
async fn refuses_on_the_error_stream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let pending = upgrade::accept(tcp, &upgrade::Config::default()).await.expect("a request");
        let upgraded = pending.accept(Protocol::ANY_PORT_FORWARD).await.expect("an upgrade");
        let (mux, driver) = Multiplexer::server(upgraded, Config::default());
        let driver = tokio::spawn(driver);
        let mut server = PortForwardServer::new(mux).expect("port-forward");
        while let Some(request) = server.accept().await {
            // client-go has most likely left before it has read everything.
            let _ = request.expect("a request").fail_on_error_stream("nobody is there").await;
        }
        let _ = driver.await;
    });
    address
}

/// Shows why the node refuses in another way: one port that is refused in Go's way ends the whole forward.
async fn a_refusal_in_gos_words_ends_it_all(transport: &'static str) {
    let _proof = proof(transport, "the library", "a refusal in the words of Go's servers ends it all");
    let server = refuses_on_the_error_stream().await;
    let mut client = client(format!("http://{server}{PATH}"), transport, &[80]).await;
    let mut refused = TcpStream::connect(("127.0.0.1", client.ports()[0])).await.expect("client-go listens");
    let mut nothing = Vec::new();
    let _ = within("its end", refused.read_to_end(&mut nothing)).await;
    let report =
        within("client-go's end", tokio::task::spawn_blocking(move || client.report())).await.expect("a report");
    assert_eq!((&report["lost"], &report["error"]), (&true.into(), &"lost connection to pod".into()));
}

/// Refuses every WebSocket request, as some gateways do, and passes all others on to the node.
async fn gateway(node: &Peer) -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let behind = node.address().trim_start_matches("http://").to_owned();
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counted = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.expect("a head"));
            }
            if String::from_utf8_lossy(&head).to_lowercase().contains("upgrade: websocket") {
                counted[0].fetch_add(1, Ordering::SeqCst);
                let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                tcp.write_all(refusal).await.expect("a refusal is sent");
                continue;
            }
            counted[1].fetch_add(1, Ordering::SeqCst);
            let mut to = TcpStream::connect(&behind).await.expect("the node listens");
            to.write_all(&head).await.expect("the head is sent");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut tcp, &mut to).await });
        }
    });
    (address, counts)
}

#[tokio::test]
async fn where_the_tunnel_is_refused_it_falls_back_to_spdy() {
    let _proof = proof("fallback", NODE, "where the tunnel is refused it is SPDY");
    let node = Peer::node();
    let (gateway, counts) = gateway(&node).await;
    let client = client(format!("http://{gateway}{PATH}"), "fallback", &[echo().await]).await;
    let sent = pattern(1_000_000);
    let sum = digest(&sent);
    let tcp = TcpStream::connect(("127.0.0.1", client.ports()[0])).await.expect("client-go listens");
    assert_eq!(there_and_back(tcp, sent).await, sum);
    assert_eq!(counts.each_ref().map(|count| count.load(Ordering::SeqCst)), [1, 1]);
}

#[tokio::test]
async fn without_a_fallback_that_is_the_end() {
    let _proof = proof("tunnel", NODE, "a tunnel that is refused on the way is an error");
    let node = Peer::node();
    let (gateway, counts) = gateway(&node).await;
    let url = format!("http://{gateway}{PATH}");
    let mut command = Command::new(binary("forward-client"));
    command.args(["-url", &url, "-transport", "tunnel", "-ports", "0:80"]);
    let ended = run(command, Input::Null).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let report: Value = serde_json::from_slice(&ended.stdout).expect("a line of JSON");
    assert!(report["error"].as_str().is_some_and(|error| error.contains("error upgrading connection")), "{report}");
    assert_eq!(counts.each_ref().map(|count| count.load(Ordering::SeqCst)), [1, 0]);
}

/// Makes a test of each case with each dialer.
macro_rules! with_every_dialer {
    ($($case:ident),* $(,)?) => {
        mod over_spdy {
            $(#[tokio::test]
            async fn $case() {
                super::$case("spdy").await;
            })*
        }
        mod through_the_tunnel {
            $(#[tokio::test]
            async fn $case() {
                super::$case("tunnel").await;
            })*
        }
        mod with_a_fallback {
            $(#[tokio::test]
            async fn $case() {
                super::$case("fallback").await;
            })*
        }
    };
}

with_every_dialer! {
    twenty_megabytes_come_back_the_same,
    a_hundred_connections_at_once,
    a_refused_port_takes_no_other_with_it,
    a_refusal_in_gos_words_ends_it_all,
}
