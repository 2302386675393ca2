//! Our bytes as Wireshark reads them: our sessions with our own node, with Go's servers, and with kubectl and
//! client-go. `tshark_recorded.rs` tests how it reads recorded and damaged sessions.

use std::collections::BTreeMap;

use http::{Method, Request};
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::PortForward;
use kubestream::protocol::Subprotocol;
use kubestream::upgrade::{self, Protocol, Transport};
use kubestream_interop::matrix::{self, Foreign, NODE, Over, Proof, client_of, reader_of};
use kubestream_interop::{
    Capture, Ended, Input, Peer, Side, Terminal, Wire, app, at_once, closed_port, echo, kubectl, pattern, run, within,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use Side::{Client, Server};

const EXIT_7_TEXT: &str = "command terminated with non-zero exit code: exit status 7";

fn proves(cases: &str, over: impl IntoIterator<Item: Into<Over>>) -> Proof {
    matrix::proves(cases).with(Foreign::Wireshark, reader_of("what we send"), over)
}

/// Our node, or one of Go's servers.
fn server(who: &str) -> Peer {
    if who == "node" { Peer::node() } else { Peer::go(who, &[]) }
}

/// The arguments of the program exec for a server.
fn arguments<'a>(server: &'a Peer, transport: &'a str, protocol: &'a str, script: &'a str) -> [&'a str; 9] {
    ["--server", server.address(), "--transport", transport, "--protocol", protocol, "sh", "-c", script]
}

/// Runs a session of the program exec, and returns it as it was on the wire.
async fn exec(server: &Peer, transport: &str, protocol: &str, script: &str, stdin: Vec<u8>) -> (Ended, Wire) {
    let capture = Capture::of_server(server.address()).await;
    let mut command = Command::new(app("exec"));
    command.arg("-i").args(arguments(server, transport, protocol, script));
    let ended = run(command, Input::Bytes(stdin)).await;
    (ended, capture.end().await)
}

/// The exit code 7 in the form of v1 to v3, or of v4 and v5.
#[track_caller]
fn exit_7(status: &[u8], in_json: bool, name: &str) {
    if in_json {
        let status: Value = serde_json::from_slice(status).expect("a Status");
        let causes = json!([{"reason": "ExitCode", "message": "7"}]);
        assert_eq!((&status["status"], &status["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")), "{name}");
        assert_eq!(status["details"]["causes"], causes, "{name}");
    } else {
        assert_eq!(std::str::from_utf8(status), Ok(EXIT_7_TEXT), "{name}");
    }
}

const SCRIPT: &str = "cat; echo err >&2; exit 7";

#[tokio::test]
async fn exec_over_spdy_in_every_version() {
    let _proof = proves("exec with outputs, stdin and exit code 7", Protocol::SPDY_EXEC.iter().copied());
    let protocols = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
    let cases = protocols.into_iter().flat_map(|protocol| [("node", protocol), ("cri-server", protocol)]);
    at_once(cases, async |(who, protocol)| {
        let server = server(who);
        let name = format!("{protocol}, {who}");
        let (ended, wire) = exec(&server, "spdy", protocol, SCRIPT, b"hello\n".to_vec()).await;
        assert_eq!((ended.code, &ended.stdout[..]), (Some(7), &b"hello\n"[..]), "{name}: {}", ended.stderr);
        wire.assert_sound(&name);
        assert_eq!(wire.protocol, protocol, "{name}");
        let opened = ["error", "stdin", "stdout", "stderr"];
        for (id, kind) in [1, 3, 5, 7].into_iter().zip(opened) {
            let expected = BTreeMap::from([("streamtype".to_owned(), kind.to_owned())]);
            assert_eq!(*wire.headers(Client, id), expected, "{name}");
        }
        // The client sends nothing after the status has come.
        let said =
            ["SYN_STREAM 1 error", "SYN_STREAM 3 stdin", "SYN_STREAM 5 stdout", "SYN_STREAM 7 stderr", "DATA 3 6 FIN"];
        assert_eq!(before_goodbye(&wire), said, "{name}");
        if who == "node" {
            assert_eq!(wire.by(Client).last().map(String::as_str), Some("GOAWAY 0 0"), "{name}");
        }
        assert_eq!(wire.bytes(Client, 3), b"hello\n", "{name}");
        if who == "node" {
            served_over_spdy(&wire, protocol == "v4.channel.k8s.io", &name);
        }
    })
    .await;
}

/// What our client sent before its goodbye, which it sends when everything has come. If the server ends first, there
/// may be no goodbye.
fn before_goodbye(wire: &Wire) -> Vec<String> {
    let mut said = wire.by(Client);
    if said.last().is_some_and(|last| last.starts_with("GOAWAY") || last.starts_with("close")) {
        said.pop();
    }
    said
}

/// After the status the server ends the rest, unless the client, which now has all that it waits for, goes first.
#[track_caller]
fn ends_after(status: &str, rest: &[&str], said: &[String], name: &str) {
    let at = said.iter().position(|line| line == status).unwrap_or_else(|| panic!("{name}: no {status:?} in {said:?}"));
    assert!(rest.iter().zip(&said[at + 1..]).all(|(rest, said)| rest == said), "{name}: {said:?}");
    assert!(said.len() - at - 1 <= rest.len(), "{name}: {said:?}");
}

/// Our node's side of such a session.
#[track_caller]
fn served_over_spdy(wire: &Wire, in_json: bool, name: &str) {
    let said = wire.by(Server);
    assert_eq!(said[..4], ["SYN_REPLY 1", "SYN_REPLY 3", "SYN_REPLY 5", "SYN_REPLY 7"], "{name}: {said:?}");
    // The outputs end before the status comes.
    let status = format!("DATA 1 {} FIN", wire.bytes(Server, 1).len());
    ends_after(&status, &["DATA 3 0 FIN", "GOAWAY 7 0"], &said, name);
    assert_eq!(wire.on(Server, 5), ["SYN_REPLY 5", "DATA 5 6 FIN"], "{name}");
    assert_eq!(wire.on(Server, 7), ["SYN_REPLY 7", "DATA 7 4 FIN"], "{name}");
    assert_eq!((wire.bytes(Server, 5), wire.bytes(Server, 7)), (b"hello\n".to_vec(), b"err\n".to_vec()), "{name}");
    exit_7(&wire.bytes(Server, 1), in_json, name);
}

#[tokio::test]
async fn exec_over_websocket_in_every_version() {
    let _proof = proves("exec with outputs, stdin and exit code 7", Protocol::WEBSOCKET_EXEC.iter().copied());
    let protocols = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io", ""];
    let by_node = ["v5.channel.k8s.io"].into_iter().chain(protocols).map(|protocol| ("node", protocol));
    let by_go = protocols.into_iter().map(|protocol| ("cri-server", protocol));
    let cases = by_node.chain(by_go).chain([("translator", "v5.channel.k8s.io")]);
    at_once(cases, async |(who, protocol)| {
        let server = server(who);
        let name = format!("{protocol:?}, {who}");
        // Only v5 can end stdin.
        let ends = protocol.starts_with("v5");
        let script = if ends { SCRIPT } else { "head -n1; echo err >&2; exit 7" };
        let (ended, wire) = exec(&server, "websocket", protocol, script, b"hello\n".to_vec()).await;
        assert_eq!((ended.code, &ended.stdout[..]), (Some(7), &b"hello\n"[..]), "{name}: {}", ended.stderr);
        wire.assert_sound(&name);
        assert_eq!(wire.protocol, protocol, "{name}");
        let said = if ends { &["stdin 0 6", "CLOSE 0"][..] } else { &["stdin 0 6"] };
        assert_eq!(before_goodbye(&wire), said, "{name}");
        assert_eq!(wire.bytes(Client, 0), b"hello\n", "{name}");
        if who == "node" {
            served_over_websocket(&wire, &name);
        }
    })
    .await;
}

/// Our node's side of such a session.
#[track_caller]
fn served_over_websocket(wire: &Wire, name: &str) {
    let said = wire.by(Server);
    let in_json = wire.protocol.starts_with('v');
    let status = if in_json { "error 3 Failure 7".to_owned() } else { format!("error 3 {}", EXIT_7_TEXT.len()) };
    assert_eq!(said[0], "stdout 1 0", "{name}: {said:?}");
    ends_after(&status, &["close 1000"], &said, name);
    assert_eq!(wire.on(Server, 1), ["stdout 1 0", "stdout 1 6"], "{name}");
    assert_eq!(wire.on(Server, 2), ["stderr 2 4"], "{name}");
    assert_eq!((wire.bytes(Server, 1), wire.bytes(Server, 2)), (b"hello\n".to_vec(), b"err\n".to_vec()), "{name}");
    exit_7(&wire.bytes(Server, 3), in_json, name);
}

#[tokio::test]
async fn our_node_answers_kubectl() {
    const BOTH: [Over; 2] = [Over::SpdyV4, Over::WebSocketV5];
    let _proof = proves("answers to kubectl", BOTH);
    let _kubectl = matrix::proves("the end of stdin").with(Foreign::Kubectl, client_of(NODE), BOTH);
    for websocket in [true, false] {
        let node = Peer::node();
        let capture = Capture::of_server(node.address()).await;
        let mut command = Command::new(kubectl());
        command.args(["--server", node.address(), "exec", "-i", "demo", "--", "sh", "-c", SCRIPT]);
        command.env("KUBECONFIG", "/dev/null").env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket.to_string());
        let ended = run(command, Input::Bytes(b"hello\n".to_vec())).await;
        assert_eq!((ended.code, &ended.stdout[..]), (Some(7), &b"hello\n"[..]), "{}", ended.stderr);
        let wire = capture.end().await;
        let name = format!("kubectl, {}", wire.protocol);
        wire.assert_sound(&name);
        if websocket {
            assert_eq!(wire.protocol, "v5.channel.k8s.io");
            served_over_websocket(&wire, &name);
        } else {
            assert_eq!(wire.protocol, "v4.channel.k8s.io");
            served_over_spdy(&wire, true, &name);
        }
    }
}

#[tokio::test]
async fn a_terminal_says_its_sizes() {
    let _proof = proves("a terminal and its sizes", [Over::SpdyV3, Over::SpdyV4, Over::WebSocketV5]);
    for (transport, protocol) in
        [("spdy", "v4.channel.k8s.io"), ("spdy", "v3.channel.k8s.io"), ("websocket", "v5.channel.k8s.io")]
    {
        let node = Peer::node();
        let capture = Capture::of_server(node.address()).await;
        let script = "until [ \"$(stty size)\" = '24 80' ]; do sleep 0.01; done; echo first $(stty size);
             until [ \"$(stty size)\" = '50 132' ]; do sleep 0.01; done; echo then $(stty size)";
        let command = pty_process::Command::new(app("exec"));
        let mut terminal = Terminal::start(command.arg("-it").args(arguments(&node, transport, protocol, script)));
        terminal.shows("first 24 80").await;
        terminal.resize(50, 132);
        terminal.shows("then 50 132").await;
        assert_eq!(terminal.ended().await, Some(0));
        let wire = capture.end().await;
        wire.assert_sound(protocol);
        if transport == "spdy" {
            let said = ["SYN_STREAM 1 error", "SYN_STREAM 3 stdin", "SYN_STREAM 5 stdout", "SYN_STREAM 7 resize"];
            assert_eq!(wire.by(Client)[..4], said, "{protocol}");
            let sizes =
                serde_json::Deserializer::from_slice(&wire.bytes(Client, 7)).into_iter::<Value>().collect::<Vec<_>>();
            let sizes = sizes.into_iter().map(|size| size.expect("a size")).collect::<Vec<_>>();
            assert_eq!(sizes, [json!({"Width": 80, "Height": 24}), json!({"Width": 132, "Height": 50})], "{protocol}");
        } else {
            assert_eq!(before_goodbye(&wire), ["resize 4 80x24", "resize 4 132x50"], "{protocol}");
        }
    }
}

#[tokio::test]
async fn three_megabytes_go_in_and_come_out_the_same() {
    let _proof = proves("3 MB there and back", [Over::SpdyV4, Over::WebSocketV5]);
    let sent = pattern(3_000_000);
    for (transport, protocol, stdin, stdout) in
        [("spdy", "v4.channel.k8s.io", 3, 5), ("websocket", "v5.channel.k8s.io", 0, 1)]
    {
        let (ended, wire) = exec(&Peer::node(), transport, protocol, "cat", sent.clone()).await;
        assert_eq!((ended.code, ended.stdout == sent), (Some(0), true), "{transport}: {}", ended.stderr);
        wire.assert_sound(transport);
        assert!(wire.bytes(Client, stdin) == sent && wire.bytes(Server, stdout) == sent, "{transport}");
    }
}

async fn port_forward(server: &Peer, protocol: Protocol, query: &str) -> (PortForward, tokio::task::JoinHandle<()>) {
    let url = format!("{}/api/v1/namespaces/default/pods/demo/portforward{query}", server.address());
    let method = if protocol.transport() == Transport::WebSocket { Method::GET } else { Method::POST };
    let request = Request::builder().method(method).uri(&url).body(()).expect("a request");
    let tcp = TcpStream::connect(request.uri().authority().expect("an address").as_str()).await.expect("a connection");
    let upgraded = upgrade::connect(tcp, request, &[protocol], &upgrade::Config::default()).await.expect("an upgrade");
    let (mux, driver) = Multiplexer::client(upgraded, Config::default());
    let driver = tokio::spawn(async move {
        let _ = driver.await;
    });
    (PortForward::new(mux).expect("port-forward"), driver)
}

/// What our client sends for two connections to a port and one to a closed port.
const FORWARDED: [&str; 11] = [
    "SYN_STREAM 1 error",
    "SYN_STREAM 3 data",
    "DATA 1 0 FIN",
    "DATA 3 5 FIN",
    "SYN_STREAM 5 error",
    "SYN_STREAM 7 data",
    "DATA 5 0 FIN",
    "DATA 7 5 FIN",
    "SYN_STREAM 9 error",
    "SYN_STREAM 11 data",
    "DATA 9 0 FIN",
];

#[tokio::test]
async fn port_forward_over_spdy_and_through_the_tunnel() {
    let _proof = proves("two connections and a refused port", [Over::Forward, Over::Tunnel]);
    let (open, closed) = (echo().await, closed_port().await);
    let servers = [
        ("node", Protocol::SpdyPortForward, "portforward.k8s.io"),
        ("node", Protocol::TunneledPortForward, "SPDY/3.1+portforward.k8s.io"),
        ("cri-server", Protocol::SpdyPortForward, "portforward.k8s.io"),
        ("translator", Protocol::TunneledPortForward, "SPDY/3.1+portforward.k8s.io"),
    ];
    at_once(servers, async |(who, protocol, named)| {
        let name = format!("{who}, {protocol}");
        let server = server(who);
        let capture = Capture::of_server(server.address()).await;
        let (forward, driver) = port_forward(&server, protocol, "").await;
        for _ in 0..2 {
            let mut connection = forward.connect(open).await.expect("a connection");
            connection.write_all(b"hello").await.expect("it takes bytes");
            connection.shutdown().await.expect("it takes the end");
            let mut back = Vec::new();
            within("the same back", connection.read_to_end(&mut back)).await.expect("the same back");
            assert_eq!(back, b"hello", "{name}");
        }
        let refused = match forward.connect(closed).await {
            // Go replies first and dials then.
            Ok(mut connection) => {
                within("the reason", connection.data()).await.expect("a reason").expect_err("a reason").to_string()
            }
            Err(refused) => refused.to_string(),
        };
        assert!(refused.contains("refused"), "{name}: {refused}");
        drop(forward);
        within("the end", driver).await.expect("the end");

        let wire = capture.end().await;
        wire.assert_sound(&name);
        assert_eq!(wire.protocol, named, "{name}");
        for (request, port) in [open, open, closed].into_iter().enumerate() {
            for (kind, id) in ["error", "data"].into_iter().zip([4 * request as u32 + 1, 4 * request as u32 + 3]) {
                let headers =
                    [("streamtype", kind), ("port", &*port.to_string()), ("requestid", &*request.to_string())];
                let headers = BTreeMap::from(headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
                assert_eq!(*wire.headers(Client, id), headers, "{name}");
            }
        }
        let said = wire.by(Client);
        assert_eq!(said[..11], FORWARDED, "{name}: {said:?}");
        // The refusal resets, of both streams, what the server has not ended yet.
        let resets = ["RST_STREAM 9 5", "RST_STREAM 11 5"];
        let end = said[11..].iter().map(String::as_str).filter(|said| !resets.contains(said)).collect::<Vec<_>>();
        let expected: &[_] =
            if protocol == Protocol::TunneledPortForward { &["GOAWAY 0 0", "close 1000"] } else { &["GOAWAY 0 0"] };
        assert_eq!(end, expected, "{name}: {said:?}");
        if who == "node" {
            for (error, data) in [(1, 3), (5, 7)] {
                assert_eq!(
                    wire.on(Server, data),
                    [format!("SYN_REPLY {data}"), format!("DATA {data} 5 FIN")],
                    "{name}"
                );
                assert_eq!(
                    wire.on(Server, error),
                    [format!("SYN_REPLY {error}"), format!("DATA {error} 0 FIN")],
                    "{name}"
                );
            }
            assert_eq!(wire.bytes(Server, 7), b"hello", "{name}");
            assert!(wire.headers(Server, 11)["error"].contains("refused"), "{name}");
            assert_eq!(wire.on(Server, 11), ["SYN_REPLY 11", "DATA 11 0 FIN", "RST_STREAM 11 5"], "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn our_node_forwards_for_client_go() {
    let _proof = proves("answers to client-go", [Over::Forward, Over::Tunnel]);
    let (open, closed) = (echo().await, closed_port().await);
    for (transport, named) in [("spdy", "portforward.k8s.io"), ("tunnel", "SPDY/3.1+portforward.k8s.io")] {
        let node = Peer::node();
        let capture = Capture::of_server(node.address()).await;
        let url = format!("{}/api/v1/namespaces/default/pods/demo/portforward", node.address());
        let client = Peer::forward_client(&url, transport, &[open, closed]);
        for (port, expected) in client.ports().into_iter().zip([&b"hello"[..], b""]) {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
            connection.write_all(b"hello").await.expect("it takes bytes");
            connection.shutdown().await.expect("it takes the end");
            let mut back = Vec::new();
            // A refused connection may be reset.
            let _ = within("the same back", connection.read_to_end(&mut back)).await;
            assert_eq!(back, expected, "{transport}");
        }
        drop(client);
        let wire = capture.end().await;
        wire.assert_sound(transport);
        assert_eq!(wire.protocol, named);
        assert_eq!(wire.on(Server, 1), ["SYN_REPLY 1", "DATA 1 0 FIN"], "{transport}");
        assert_eq!(wire.on(Server, 3), ["SYN_REPLY 3", "DATA 3 5 FIN"], "{transport}");
        // An error on the error stream would end all of client-go's connections. So the reason is in the reply's
        // headers, which Go does not read.
        assert_eq!(wire.on(Server, 5), ["SYN_REPLY 5", "DATA 5 0 FIN"], "{transport}");
        assert_eq!(wire.on(Server, 7), ["SYN_REPLY 7", "DATA 7 0 FIN", "RST_STREAM 7 5"], "{transport}");
        assert!(wire.headers(Server, 7)["error"].contains("refused"), "{transport}");
    }
}

#[tokio::test]
async fn port_forward_in_its_old_form() {
    let _proof = proves("a connection and a refused port", [Over::Channels, Over::ChannelsV4, Over::ChannelsV4Base64]);
    let (open, closed) = (echo().await, closed_port().await);
    at_once([Subprotocol::V4, Subprotocol::V4Base64, Subprotocol::Unnamed], async |subprotocol| {
        let node = Peer::node();
        let capture = Capture::of_server(node.address()).await;
        let query = format!("?ports={open}&ports={closed}");
        let (forward, driver) = port_forward(&node, Protocol::LegacyPortForward(subprotocol), &query).await;
        let mut connection = forward.connect(open).await.expect("a connection");
        connection.write_all(b"hello").await.expect("it takes bytes");
        let mut back = [0; 5];
        within("the same back", connection.read_exact(&mut back)).await.expect("the same back");
        let mut refused = forward.connect(closed).await.expect("a connection");
        within("the reason", refused.data()).await.expect("a reason").expect_err("a reason");
        drop((connection, refused, forward));
        within("the end", driver).await.expect("the end");

        let (wire, name) = (capture.end().await, subprotocol.to_string());
        wire.assert_sound(&name);
        assert_eq!(wire.protocol, name);
        assert_eq!(wire.by(Client), ["data 0 5", "close 1000"], "{name}");
        assert_eq!(wire.on(Server, 0), [format!("data 0 port {open}"), "data 0 5".to_owned()], "{name}");
        assert_eq!(wire.on(Server, 1), [format!("error 1 port {open}")], "{name}");
        assert_eq!(wire.on(Server, 2), [format!("data 2 port {closed}")], "{name}");
        let reason = String::from_utf8(wire.bytes(Server, 3)).expect("text");
        assert!(reason.contains("refused"), "{name}: {reason}");
        let said = [format!("error 3 port {closed}"), format!("error 3 {}", reason.len())];
        assert_eq!(wire.on(Server, 3), said, "{name}");
        assert_eq!((wire.bytes(Client, 0), wire.bytes(Server, 0)), (b"hello".to_vec(), b"hello".to_vec()), "{name}");
    })
    .await;
}
