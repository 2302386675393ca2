//! Node's `spdy-transport`, which has real windows, in both roles. The harness counts the windows by itself.

use std::sync::{Arc, Mutex};

use kubestream::mux::Headers;
use kubestream::mux::{Config, FlowControl, Multiplexer};
use kubestream::upgrade::Upgraded;
use kubestream_interop::matrix::{self, Foreign, Over, Proof, Role, client_of, server_for};
use kubestream_interop::{Ended, Input, Peer, Watched, Windows, read_pattern, run, send_pattern, within};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const BYTES: usize = 300_000;
/// The smallest window that spdy-transport can announce, and the size of every window if none is announced.
const SMALL: usize = 64 * 1024;

fn config(flow_control: FlowControl) -> Config {
    let mut config = Config::default();
    config.spdy.flow_control = flow_control;
    config
}

fn proves(cases: &str, role: Role) -> Proof {
    matrix::proves(cases).with(Foreign::SpdyTransport, role, [Over::RawSpdy])
}

/// Their server, which sends the pattern there and back.
async fn open_at_spdy_transport(flow_control: FlowControl, arguments: &[&str]) -> Arc<Mutex<Windows>> {
    let mut server = Peer::spdy_transport(arguments);
    let tcp = TcpStream::connect(server.address()).await.expect("a connection");
    let (io, windows) = Watched::new(tcp);
    let (mux, driver) = Multiplexer::client(Upgraded::from_io(io), config(flow_control));
    let driver = tokio::spawn(driver);

    let headers = [
        (":method", "POST"),
        (":path", "/echo"),
        (":version", "HTTP/1.1"),
        (":scheme", "http"),
        (":host", server.address()),
    ];
    let mut stream = mux.open(Headers::from_iter(headers)).await.expect("a stream");
    let answer = within("the reply", stream.answered()).await.expect("a reply");
    assert_eq!(answer.get("x-peer"), Some("spdy-transport"));
    let (mut recv, mut send) = stream.split();
    let both = async { tokio::try_join!(send_pattern(&mut send, BYTES), read_pattern(&mut recv, BYTES)) };
    within("the echo", both).await.expect("an echo");
    drop((recv, send));

    drop(mux);
    within("the end", driver).await.expect("no panic").expect("an orderly end");
    let report = server.report();
    assert_eq!(report["error"], "", "{report}");
    windows
}

/// Their client, which gets back what it sends.
async fn accept_from_spdy_transport(flow_control: FlowControl, arguments: &[&str]) -> Arc<Mutex<Windows>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let mut dial = Command::new("node");
    dial.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/node/peer.js")).arg("dial");
    dial.arg(listener.local_addr().expect("an address").to_string()).arg(BYTES.to_string()).args(arguments);
    let serve = async {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let (io, windows) = Watched::new(tcp);
        let (mux, driver) = Multiplexer::server(Upgraded::from_io(io), config(flow_control));
        tokio::spawn(driver);
        let incoming = mux.accept().await.expect("a stream").expect("a stream");
        assert_eq!(incoming.headers().get(":method"), Some("POST"));
        let reply = Headers::from_iter([(":status", "200 OK"), (":version", "HTTP/1.1")]);
        let (mut recv, mut send) = incoming.reply_with(reply).expect("fit headers").split();
        while let Some(data) = recv.data().await {
            send.send(data.expect("data")).await.expect("it is taken");
        }
        send.finish();
        // The client sends GOAWAY itself when it has received everything.
        let _ = within("the end", mux.closed()).await;
        windows
    };
    let (Ended { code, stdout, stderr }, windows) = tokio::join!(run(dial, Input::Null), serve);
    assert_eq!(code, Some(0), "{stderr}");
    let report: Value = serde_json::from_slice(&stdout).expect("JSON");
    assert_eq!((&report["ok"], &report["received"]), (&true.into(), &BYTES.into()), "{report}");
    windows
}

/// Checks that everything passed, that no window was overdrawn, and that both sides granted what the other needed.
fn assert_windows_were_obeyed(windows: &Mutex<Windows>, theirs: usize) {
    let windows = windows.lock().expect("the account");
    assert_eq!((windows.sent, windows.received), (BYTES, BYTES), "{windows:?}");
    assert!(windows.lowest >= 0, "a window was overdrawn: {windows:?}");
    assert!(windows.announced, "{windows:?}");
    assert!(windows.granted_to_us >= (BYTES.max(theirs) - SMALL.max(theirs)) as u64, "{windows:?}");
    assert!(windows.granted_by_us >= (BYTES - SMALL) as u64, "{windows:?}");
}

#[tokio::test]
async fn strict_obeys_and_grants_windows_as_the_opener() {
    let _proof = proves("300 KB there and back, `Strict`, windows of 1 MiB", server_for("`mux`"));
    assert_windows_were_obeyed(&*open_at_spdy_transport(FlowControl::Strict, &[]).await, 1 << 20);
}

#[tokio::test]
async fn strict_obeys_and_grants_small_windows_as_the_opener() {
    let _proof = proves("300 KB there and back, `Strict`, windows of 64 KiB", server_for("`mux`"));
    let windows = open_at_spdy_transport(FlowControl::Strict, &["--window", "65536"]).await;
    assert_windows_were_obeyed(&windows, SMALL);
}

#[tokio::test]
async fn auto_learns_of_the_windows_as_the_opener() {
    let _proof = proves("300 KB there and back, `Auto`, windows of 1 MiB", server_for("`mux`"));
    assert_windows_were_obeyed(&*open_at_spdy_transport(FlowControl::Auto, &[]).await, 1 << 20);
}

#[tokio::test]
async fn auto_obeys_and_grants_small_windows_as_the_opener() {
    let _proof = proves("300 KB there and back, `Auto`, windows of 64 KiB", server_for("`mux`"));
    let windows = open_at_spdy_transport(FlowControl::Auto, &["--window", "65536"]).await;
    assert_windows_were_obeyed(&windows, SMALL);
}

#[tokio::test]
async fn strict_obeys_and_grants_windows_as_the_acceptor() {
    let _proof = proves("300 KB there and back, `Strict`, windows of 1 MiB", client_of("`mux`"));
    assert_windows_were_obeyed(&*accept_from_spdy_transport(FlowControl::Strict, &[]).await, 1 << 20);
}

#[tokio::test]
async fn strict_obeys_and_grants_small_windows_as_the_acceptor() {
    let _proof = proves("300 KB there and back, `Strict`, windows of 64 KiB", client_of("`mux`"));
    let windows = accept_from_spdy_transport(FlowControl::Strict, &["--window", "65536"]).await;
    assert_windows_were_obeyed(&windows, SMALL);
}

#[tokio::test]
async fn auto_learns_of_the_windows_as_the_acceptor() {
    let _proof = proves("300 KB there and back, `Auto`, windows of 1 MiB", client_of("`mux`"));
    assert_windows_were_obeyed(&*accept_from_spdy_transport(FlowControl::Auto, &[]).await, 1 << 20);
}

#[tokio::test]
async fn auto_obeys_and_grants_small_windows_as_the_acceptor() {
    let _proof = proves("300 KB there and back, `Auto`, windows of 64 KiB", client_of("`mux`"));
    let windows = accept_from_spdy_transport(FlowControl::Auto, &["--window", "65536"]).await;
    assert_windows_were_obeyed(&windows, SMALL);
}
