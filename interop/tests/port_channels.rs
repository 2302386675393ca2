//! Legacy port-forward, channels over WebSocket: the clients for Node.js, Python and Java against the built-in node,
//! and our client against `k8s.io/cri-streaming` and the node.

use http::Request;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Error, PortForward};
use kubestream::protocol::Subprotocol;
use kubestream::upgrade::{self, Protocol};
use kubestream_interop::matrix::{Foreign, NODE, Over, Proof, client_of, hop_before, proves, server_for};
use kubestream_interop::{
    Input, Peer, Scratch, closed_port, digest, java_client, node_client, pattern, python_client, run, within,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const ASKED: usize = 3_000_000;
const ANSWERED: usize = 5_000_000;

/// The command that starts a client in another language.
type Client = fn(&str) -> Command;
const CLIENTS: [(Foreign, Client); 3] =
    [(Foreign::ClientNode, node_client), (Foreign::Python, python_client), (Foreign::ClientJava, java_client)];

fn clients_prove(cases: &str, clients: &[(Foreign, Client)]) -> Proof {
    clients.iter().fold(proves(cases), |proof, (peer, _)| proof.with(*peer, client_of(NODE), [Over::ChannelsV4]))
}

/// Our client proves it with a foreign server, or through a foreign hop in front of ours.
fn we_prove(cases: &str) -> Proof {
    let over = [Over::Channels, Over::ChannelsV4, Over::ChannelsV4Base64];
    let proof = proves(cases).with(Foreign::CriStreaming, server_for("our client"), over);
    match std::env::var("KUBESTREAM_THROUGH").as_deref() {
        Ok("apiserver") => proof.with(Foreign::Apiserver, hop_before(NODE), over),
        _ => proof,
    }
}

/// A server in the "pod". When it has received the whole request, it answers and ends.
async fn serve(asked: usize, answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; asked];
                tcp.read_exact(&mut request).await?;
                assert!(request == pattern(asked), "what was asked came the same");
                tcp.write_all(&answer).await?;
                tcp.shutdown().await
            });
        }
    });
    port
}

/// A client's count, in the form of `digest`.
fn sum(said: &Value) -> String {
    format!("{} {}", said["bytes"], said["sha256"].as_str().unwrap_or_default())
}

/// A client's result for some ports.
async fn forward(node: &Peer, client: Client, ports: &[u16], sent: Vec<u8>) -> Value {
    let scratch = Scratch::new();
    let result = scratch.file("result");
    let ports = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut command = client("forward");
    command.args(["--server", node.address(), "--pod", "demo", "--ports", &ports]).arg("--result").arg(&result);
    let ended = run(command, Input::Bytes(sent)).await;
    let outcome = std::fs::read(result).unwrap_or_else(|error| panic!("no result: {error}: {}", ended.stderr));
    let outcome: Value = serde_json::from_slice(&outcome).expect("a result in JSON");
    assert_eq!(ended.code, Some(0), "{outcome}: {}", ended.stderr);
    outcome
}

#[tokio::test]
async fn clients_ask_and_are_answered_to_the_end() {
    let _proof = clients_prove("3 MB there and 5 MB back, to the end", &CLIENTS);
    let node = Peer::node();
    let port = serve(ASKED, pattern(ANSWERED)).await;
    for (name, client) in CLIENTS {
        let outcome = forward(&node, client, &[port], pattern(ASKED)).await;
        let said = &outcome["ports"][port.to_string()];
        assert_eq!(sum(said), digest(&pattern(ANSWERED)), "{name}: {outcome}");
        assert!(said["error"].is_null(), "{name}: {outcome}");
    }
}

#[tokio::test]
async fn a_refused_port_says_why() {
    let _proof = clients_prove("a refused port says why", &CLIENTS[..2]);
    let node = Peer::node();
    let closed = closed_port().await;
    // Java's client drops the reason if the connection has ended before its caller asks for the port's streams.
    for (name, client) in &CLIENTS[..2] {
        let outcome = forward(&node, *client, &[closed], pattern(1000)).await;
        let said = &outcome["ports"][closed.to_string()];
        let why = said["error"].as_str().unwrap_or_else(|| panic!("{name}: {outcome}"));
        assert!(why.contains("refused") && said["bytes"] == 0, "{name}: {outcome}");
    }
}

#[tokio::test]
async fn ports_at_once_are_apart_and_a_refused_one_takes_no_other_with_it() {
    let _proof = clients_prove("several ports at once; a refused port says why beside others", &CLIENTS[1..]);
    let node = Peer::node();
    let (one, closed) = (serve(ASKED, pattern(ANSWERED)).await, closed_port().await);
    let other = serve(ASKED, pattern(1_000_003)).await;
    // Node's client takes one port.
    for (name, client) in &CLIENTS[1..] {
        let outcome = forward(&node, *client, &[one, closed, other], pattern(ASKED)).await;
        let said = |port: u16| &outcome["ports"][port.to_string()];
        assert_eq!(sum(said(one)), digest(&pattern(ANSWERED)), "{name}: {outcome}");
        assert_eq!(sum(said(other)), digest(&pattern(1_000_003)), "{name}: {outcome}");
        assert!(said(one)["error"].is_null() && said(other)["error"].is_null(), "{name}: {outcome}");
        assert!(said(closed)["error"].as_str().is_some_and(|why| why.contains("refused")), "{name}: {outcome}");
    }
}

/// Every server of legacy port-forward, with a client of ours that asks for these ports.
async fn clients(ports: &[u16]) -> Vec<(&'static str, Subprotocol, PortForward, Peer)> {
    let mut clients = Vec::new();
    for subprotocol in [Subprotocol::V4, Subprotocol::V4Base64, Subprotocol::Unnamed] {
        for (name, server) in [("cri-streaming", Peer::go("cri-server", &[])), ("node", Peer::node())] {
            let query = ports.iter().map(|port| format!("port={port}")).collect::<Vec<_>>().join("&");
            let url = format!("{}/portForward/default/demo?{query}", server.address());
            let request = Request::get(&url).body(()).expect("a request");
            let address = request.uri().authority().expect("an address").as_str();
            let tcp = TcpStream::connect(address).await.expect("a connection");
            let offers = [Protocol::LegacyPortForward(subprotocol)];
            let config = upgrade::Config::default();
            let upgraded = upgrade::connect(tcp, request, &offers, &config).await.expect("an upgrade");
            let (mux, driver) = Multiplexer::client(upgraded, Config::default());
            tokio::spawn(driver);
            clients.push((name, subprotocol, PortForward::new(mux).expect("port-forward"), server));
        }
    }
    clients
}

#[tokio::test]
async fn our_client_asks_and_is_answered_to_the_end() {
    let _proof = we_prove("3 MB there and 5 MB back, to the end; two ports at once");
    let (one, other) = (serve(ASKED, pattern(ANSWERED)).await, serve(ASKED, pattern(1_000_003)).await);
    for (name, subprotocol, forward, _server) in clients(&[one, other]).await {
        let ask = async |port: u16| {
            let connection = forward.connect(port).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            let (mut reads, mut writes) = tokio::io::split(connection);
            let mut answer = Vec::new();
            let sent = pattern(ASKED);
            let (wrote, read) = tokio::join!(writes.write_all(&sent), reads.read_to_end(&mut answer));
            wrote.expect("all is sent");
            read.unwrap_or_else(|error| panic!("{name}, {subprotocol}: {error}"));
            digest(&answer)
        };
        let (one, other) = within("both answers", async { tokio::join!(ask(one), ask(other)) }).await;
        assert_eq!(one, digest(&pattern(ANSWERED)), "{name}, {subprotocol}");
        assert_eq!(other, digest(&pattern(1_000_003)), "{name}, {subprotocol}");
    }
}

#[tokio::test]
async fn to_our_client_a_refused_port_is_an_error_of_its_own() {
    let _proof = we_prove("a refused port says why and the other lives on");
    let (open, closed) = (serve(5, pattern(5)).await, closed_port().await);
    for (name, subprotocol, forward, _server) in clients(&[open, closed]).await {
        let mut refused = forward.connect(closed).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let end = within("the reason", refused.data()).await;
        let failed = end.unwrap_or_else(|| panic!("{name}: an end without a reason")).expect_err("a reason");
        let says = failed.to_string();
        assert!(matches!(failed, Error::Failed { port, .. } if port == closed), "{name}, {subprotocol}: {says}");
        assert!(says.contains("refused"), "{name}, {subprotocol}: {says}");
        let mut other = forward.connect(open).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        other.write_all(&pattern(5)).await.expect("it lives");
        let mut answer = [0; 5];
        within("an answer", other.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(answer[..], pattern(5), "{name}, {subprotocol}");
    }
}
