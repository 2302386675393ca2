//! Our client against Go's servers: `k8s.io/cri-streaming`, the one in containerd and CRI-O, over SPDY and WebSocket,
//! and the StreamTranslator of `k8s.io/apiserver` in front of it, which alone has v5.

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use kubestream::exec::{Exec, ExecRequest, Output, Reader, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::protocol::Subprotocol;
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::upgrade::{self, Protocol, Transport, UpgradeError, Upgraded, Version, connect_with_fallback};
use kubestream_interop::matrix::{self, Foreign, NODE, Proof, hop_before, server_for};
use kubestream_interop::{Input, Peer, app, digest, pattern, run, runs, within};
use tokio::net::TcpStream;
use tokio::process::Command;

const PROTOCOLS: [Protocol; 10] = [
    Protocol::SpdyExec(Version::V1),
    Protocol::SpdyExec(Version::V2),
    Protocol::SpdyExec(Version::V3),
    Protocol::SpdyExec(Version::V4),
    Protocol::WebSocketExec(Subprotocol::Unnamed),
    Protocol::WebSocketExec(Subprotocol::V1),
    Protocol::WebSocketExec(Subprotocol::V1Base64),
    Protocol::WebSocketExec(Subprotocol::V4),
    Protocol::WebSocketExec(Subprotocol::V4Base64),
    V5,
];
const V5: Protocol = Protocol::WebSocketExec(Subprotocol::V5);
const STDIN_ONLY: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: false };

/// Proves cases of [`Servers`]: of Go's own, or of the apiserver's hops with our server behind them.
fn proves(cases: &str, protocols: impl IntoIterator<Item = Protocol>) -> Proof {
    let (translated, served): (Vec<_>, Vec<_>) = protocols.into_iter().partition(|protocol| *protocol == V5);
    if std::env::var_os("KUBESTREAM_THROUGH").is_some() {
        return matrix::proves(cases).with(Foreign::Apiserver, hop_before(NODE), [served, translated].concat());
    }
    let behind = server_for("our client").through("StreamTranslator");
    let proof = cri_proves(cases, served).with(Foreign::CriStreaming, behind, translated.clone());
    proof.with(Foreign::Apiserver, hop_before("cri-streaming"), translated)
}

fn cri_proves(cases: &str, protocols: impl IntoIterator<Item = Protocol>) -> Proof {
    matrix::proves(cases).with(Foreign::CriStreaming, server_for("our client"), protocols)
}

async fn connect(
    server: &Peer,
    command: &[&str],
    streams: Streams,
    offers: &[Protocol],
) -> Result<Upgraded<TcpStream>, UpgradeError> {
    let query = ExecRequest::new(command.iter().copied(), streams).to_query();
    let url = format!("{}/api/v1/namespaces/default/pods/demo/exec?{query}", server.address());
    let websocket = offers.iter().any(|offer| offer.transport() == Transport::WebSocket);
    let method = if websocket { Method::GET } else { Method::POST };
    let request = Request::builder().method(method).uri(&url).body(()).expect("a request");
    let tcp = TcpStream::connect(request.uri().authority().expect("an address").as_str()).await.expect("a connection");
    upgrade::connect(tcp, request, offers, &upgrade::Config::default()).await
}

/// The servers that together speak all versions.
struct Servers {
    cri: Peer,
    translator: Peer,
}

impl Servers {
    fn new() -> Self {
        // With this variable our own server stands behind the apiserver's hops.
        if std::env::var_os("KUBESTREAM_THROUGH").is_some() {
            return Self { cri: Peer::node(), translator: Peer::node() };
        }
        Self { cri: Peer::go("cri-server", &[]), translator: Peer::go("translator", &[]) }
    }

    fn of(&self, protocol: Protocol) -> &Peer {
        if protocol == V5 { &self.translator } else { &self.cri }
    }
}

/// Over WebSocket every version has the resize channel.
fn resizes(protocol: &Protocol) -> bool {
    protocol.transport() == Transport::WebSocket || protocol.version() >= Some(Version::V3)
}

/// Starts a session, with its driver on a task of its own.
async fn start(servers: &Servers, protocol: Protocol, command: &[&str], streams: Streams) -> Exec {
    let server = servers.of(protocol);
    let upgraded = connect(server, command, streams, &[protocol]).await.expect("an upgrade");
    assert_eq!(upgraded.protocol(), Some(protocol));
    let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
    tokio::spawn(driver);
    mux.exec(streams).await.expect("a session")
}

async fn sh(servers: &Servers, protocol: Protocol, script: &str) -> Output {
    let session = start(servers, protocol, &["sh", "-c", script], Streams::OUTPUT).await;
    within(script, session.wait_with_output(8_000_000)).await.expect("an output")
}

async fn collect(mut from: Reader) -> Vec<u8> {
    let mut all = BytesMut::new();
    while let Some(data) = from.data().await {
        all.extend_from_slice(&data.expect("output"));
    }
    all.to_vec()
}

#[tokio::test]
async fn outputs_stay_apart_in_every_version() {
    let _proof = proves("outputs apart", PROTOCOLS);
    let servers = Servers::new();
    for protocol in PROTOCOLS {
        let output = sh(&servers, protocol, "echo out; echo err >&2").await;
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]), "{protocol:?}");
        assert_eq!(output.status, ExitStatus::Success, "{protocol:?}");
    }
}

#[tokio::test]
async fn exit_codes_arrive_as_json_and_as_text() {
    let _proof = proves("exit codes 1, 7, 255", PROTOCOLS);
    let servers = Servers::new();
    for protocol in PROTOCOLS {
        for code in [1, 7, 255] {
            let output = sh(&servers, protocol, &format!("echo out; exit {code}")).await;
            assert_eq!((&output.stdout[..], output.status.code()), (&b"out\n"[..], Some(code)), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_a_failure_that_names_it() {
    let (servers, with_words) = (Servers::new(), |protocol: &Protocol| *protocol != Protocol::SpdyExec(Version::V1));
    let _proof = proves("a command that does not exist", PROTOCOLS.into_iter().filter(with_words));
    for protocol in PROTOCOLS.into_iter().filter(with_words) {
        let session = start(&servers, protocol, &["no-such-command"], Streams::OUTPUT).await;
        let output = within("the failure", session.wait_with_output(1000)).await.expect("an output");
        let ExitStatus::Failed(status) = output.status else { panic!("{protocol:?}: {:?}", output.status) };
        assert!(status.message.contains("no-such-command"), "{protocol:?}: {}", status.message);
    }
}

#[tokio::test]
async fn ten_megabytes_come_back_the_same() {
    let _proof = proves("10 MB there and back", PROTOCOLS);
    let servers = Servers::new();
    let sent = pattern(10_000_000);
    for protocol in PROTOCOLS {
        // Not every version can end stdin.
        let command: &[&str] = if !protocol.can_end_stdin() { &["head", "-c", "10000000"] } else { &["cat"] };
        let mut session = start(&servers, protocol, command, STDIN_ONLY).await;
        let (mut stdin, stdout) = (session.stdin.take().expect("stdin"), session.stdout.take().expect("stdout"));
        let feed = async {
            let mut left = Bytes::from(sent.clone());
            while !left.is_empty() {
                stdin.send(left.split_to(left.len().min(32 * 1024))).await.expect("the command reads");
            }
            stdin.finish();
        };
        let echo = async { tokio::join!(feed, collect(stdout), session.wait()) };
        let ((), got, status) = within("the echo", echo).await;
        assert_eq!((digest(&got), status.expect("a status")), (digest(&sent), ExitStatus::Success), "{protocol:?}");
    }
}

#[tokio::test]
async fn the_end_of_stdin_reaches_the_command() {
    let _proof = proves("the end of stdin", PROTOCOLS.into_iter().filter(|protocol| protocol.can_end_stdin()));
    let servers = Servers::new();
    for protocol in PROTOCOLS.into_iter().filter(|protocol| protocol.can_end_stdin()) {
        // A stdin that the caller did not take ends when the status is awaited.
        let session = start(&servers, protocol, &["wc", "-c"], STDIN_ONLY).await;
        let output = within("the count", session.wait_with_output(1000)).await.expect("an output");
        assert_eq!((output.stdout.trim_ascii(), output.status), (&b"0"[..], ExitStatus::Success), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let _proof = proves("a terminal and its sizes", PROTOCOLS.into_iter().filter(resizes));
    let servers = Servers::new();
    let script = "until [ \"$(stty size)\" = '24 80' ]; do sleep 0.01; done; stty size;
                  until [ \"$(stty size)\" = '50 132' ]; do sleep 0.01; done; stty size; exit 3";
    for protocol in PROTOCOLS.into_iter().filter(resizes) {
        let mut session = start(&servers, protocol, &["sh", "-c", script], Streams::TTY).await;
        let _stdin = session.stdin.take().expect("stdin");
        let mut resize = session.resize.take().expect("a terminal that can be resized");
        let mut stdout = session.stdout.take().expect("stdout");
        resize.resize(TerminalSize { width: 80, height: 24 }).await.expect("a size is sent");
        let mut first = Vec::new();
        while !first.ends_with(b"\n") {
            first.extend(within("the first size", stdout.data()).await.expect("output").expect("output"));
        }
        assert_eq!(&first[..], b"24 80\r\n", "{protocol:?}");
        resize.resize(TerminalSize { width: 132, height: 50 }).await.expect("a size is sent");
        let (rest, status) = within("the second size", async { tokio::join!(collect(stdout), session.wait()) }).await;
        assert_eq!((&rest[..], status.expect("a status")), (&b"50 132\r\n"[..], ExitStatus::Code(3)), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_which_protocols_the_server_has() {
    let _proof = cri_proves(
        "a refusal says which protocols there are",
        [Protocol::SpdyExec(Version::V1), Protocol::SpdyExec(Version::V2)],
    );
    let server = Peer::go("cri-server", &["-protocols", "v4.channel.k8s.io,v3.channel.k8s.io"]);
    let offers = [Protocol::SpdyExec(Version::V2), Protocol::SpdyExec(Version::V1)];
    let refused = connect(&server, &["true"], Streams::OUTPUT, &offers).await;
    let Err(error) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("unable to negotiate protocol"), "{error}");
    let UpgradeError::Refused { response, .. } = error else { panic!("{error:?}") };
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let accepted: Vec<_> = response.headers().get_all("X-Accepted-Stream-Protocol-Versions").iter().collect();
    assert_eq!(accepted, ["v4.channel.k8s.io", "v3.channel.k8s.io"]);
}

#[tokio::test]
async fn the_best_protocol_of_both_is_settled_on() {
    let _proof = cri_proves("the best protocol of both is settled on", [Protocol::SpdyExec(Version::V3)]);
    let server = Peer::go("cri-server", &["-protocols", "v3.channel.k8s.io,v2.channel.k8s.io"]);
    let upgraded = connect(&server, &["true"], Streams::OUTPUT, Protocol::SPDY_EXEC).await.expect("an upgrade");
    assert_eq!(upgraded.protocol(), Some(Protocol::SpdyExec(Version::V3)));
}

#[tokio::test]
async fn the_tail_of_a_fast_exit_is_never_lost() {
    const WITH_CODES: [Protocol; 3] = [Protocol::SpdyExec(Version::V4), Protocol::WebSocketExec(Subprotocol::V4), V5];
    let _proof = proves("3 MB and exit 7", WITH_CODES);
    let servers = Servers::new();
    for protocol in WITH_CODES {
        for number in 0..runs(50) {
            let output = sh(&servers, protocol, "head -c 3000000 /dev/zero; exit 7").await;
            let seen = (output.stdout.len(), output.status);
            assert_eq!(seen, (3_000_000, ExitStatus::Code(7)), "{protocol:?}, run {number}");
        }
    }
}

#[tokio::test]
async fn the_program_is_a_kubectl_exec() {
    let _proof = cri_proves("the program exec", Protocol::SPDY_EXEC[..3].iter().copied());
    let server = Peer::go("cri-server", &[]);
    for protocol in ["v2.channel.k8s.io", "v3.channel.k8s.io", "v4.channel.k8s.io"] {
        let mut command = Command::new(app("exec"));
        command.args(["--server", server.address(), "--transport", "spdy", "--protocol", protocol, "-i", "--"]);
        command.args(["sh", "-c", "cat; echo err >&2; exit 7"]);
        let ended = run(command, Input::Bytes(pattern(1_000_000))).await;
        assert_eq!((digest(&ended.stdout), ended.code), (digest(&pattern(1_000_000)), Some(7)), "{protocol}");
        assert_eq!(ended.stderr, "err\n", "{protocol}");
    }
}

/// Behaves as a gateway without WebSocket, and as a runtime without v5.
#[tokio::test]
async fn where_websocket_is_refused_it_is_spdy_and_the_reason_is_known() {
    let _proof = cri_proves("SPDY where WebSocket is refused", [Protocol::SpdyExec(Version::V4)]);
    for (arguments, reason) in [(&["-no-websocket"][..], "WebSocket is not allowed here"), (&[], "403 Forbidden")] {
        let server = Peer::go("cri-server", arguments);
        let query = ExecRequest::new(["echo", "hello"], Streams::OUTPUT).to_query();
        let url = format!("{}/api/v1/namespaces/default/pods/demo/exec?{query}", server.address());
        let request = Request::get(&url).body(()).expect("a request");
        let address = request.uri().authority().expect("an address").to_string();
        let dial = || TcpStream::connect(&address);
        let config = upgrade::Config::default();
        let connected =
            connect_with_fallback(dial, request, Protocol::WEBSOCKET_EXEC_V5, Protocol::SPDY_EXEC, &config).await;
        let upgraded = connected.expect("a connection");
        assert!(upgraded.websocket_refused().is_some_and(|error| error.to_string().contains(reason)));
        assert_eq!(upgraded.protocol(), Some(Protocol::SpdyExec(Version::V4)));

        let mut command = Command::new(app("exec"));
        command.args(["--server", server.address(), "-i", "--", "sh", "-c", "cat; exit 7"]);
        let ended = run(command, Input::Bytes(pattern(1_000_000))).await;
        assert_eq!((digest(&ended.stdout), ended.code), (digest(&pattern(1_000_000)), Some(7)), "{}", ended.stderr);
    }
}
