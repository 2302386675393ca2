//! Our client against `k8s.io/cri-streaming`'s server, the one in containerd and CRI-O.

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use kubestream::exec::{Exec, ExecRequest, Output, RemoteOutput, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::upgrade::{self, Protocol, UpgradeError, Upgraded, Version};
use kubestream_interop::{Input, Peer, digest, example, pattern, run, runs, within};
use tokio::net::TcpStream;
use tokio::process::Command;

const VERSIONS: [Version; 4] = [Version::V1, Version::V2, Version::V3, Version::V4];
const STDIN_ONLY: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: false };

async fn connect(
    server: &Peer,
    command: &[&str],
    streams: Streams,
    offers: &[Protocol],
) -> Result<Upgraded<TcpStream>, UpgradeError> {
    let query = ExecRequest::new(command.iter().copied(), streams).to_query();
    let url = format!("{}/api/v1/namespaces/default/pods/demo/exec?{query}", server.address());
    let request = Request::post(&url).body(()).expect("a request");
    let tcp = TcpStream::connect(request.uri().authority().expect("an address").as_str()).await.expect("a connection");
    upgrade::connect(tcp, request, offers, &upgrade::Config::default()).await
}

/// A session, its driver on a task of its own.
async fn start(server: &Peer, version: Version, command: &[&str], streams: Streams) -> Exec {
    let protocol = Protocol::Exec(version);
    let upgraded = connect(server, command, streams, &[protocol]).await.expect("an upgrade");
    assert_eq!(upgraded.protocol(), Some(protocol));
    let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
    tokio::spawn(driver);
    mux.exec(streams).await.expect("a session")
}

async fn sh(server: &Peer, version: Version, script: &str) -> Output {
    let session = start(server, version, &["sh", "-c", script], Streams::OUTPUT).await;
    within(script, session.wait_with_output(8_000_000)).await.expect("an output")
}

async fn collect(mut from: RemoteOutput) -> Vec<u8> {
    let mut all = BytesMut::new();
    while let Some(data) = from.data().await {
        all.extend_from_slice(&data.expect("output"));
    }
    all.to_vec()
}

#[tokio::test]
async fn outputs_stay_apart_in_every_version() {
    let server = Peer::go("cri-server", &[]);
    for version in VERSIONS {
        let output = sh(&server, version, "echo out; echo err >&2").await;
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]), "{version:?}");
        assert_eq!(output.status, ExitStatus::Success, "{version:?}");
    }
}

#[tokio::test]
async fn exit_codes_arrive_as_json_and_as_text() {
    let server = Peer::go("cri-server", &[]);
    for version in VERSIONS {
        for code in [1, 7, 255] {
            let output = sh(&server, version, &format!("echo out; exit {code}")).await;
            assert_eq!((&output.stdout[..], output.status.code()), (&b"out\n"[..], Some(code)), "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_a_failure_that_names_it() {
    let server = Peer::go("cri-server", &[]);
    for version in [Version::V2, Version::V3, Version::V4] {
        let session = start(&server, version, &["no-such-command"], Streams::OUTPUT).await;
        let output = within("the failure", session.wait_with_output(1000)).await.expect("an output");
        let ExitStatus::Failed(status) = output.status else { panic!("{version:?}: {:?}", output.status) };
        assert!(status.message.contains("no-such-command"), "{version:?}: {}", status.message);
    }
}

#[tokio::test]
async fn ten_megabytes_come_back_the_same() {
    let server = Peer::go("cri-server", &[]);
    let sent = pattern(10_000_000);
    for version in VERSIONS {
        // v1 has no end of stdin.
        let command: &[&str] = if version == Version::V1 { &["head", "-c", "10000000"] } else { &["cat"] };
        let mut session = start(&server, version, command, STDIN_ONLY).await;
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
        assert_eq!((digest(&got), status.expect("a status")), (digest(&sent), ExitStatus::Success), "{version:?}");
    }
}

#[tokio::test]
async fn the_end_of_stdin_reaches_the_command() {
    let server = Peer::go("cri-server", &[]);
    for version in [Version::V2, Version::V3, Version::V4] {
        // stdin that is not taken ends when the status is waited for.
        let session = start(&server, version, &["wc", "-c"], STDIN_ONLY).await;
        let output = within("the count", session.wait_with_output(1000)).await.expect("an output");
        assert_eq!((output.stdout.trim_ascii(), output.status), (&b"0"[..], ExitStatus::Success), "{version:?}");
    }
}

#[tokio::test]
async fn v3_and_v4_resize_a_terminal() {
    let server = Peer::go("cri-server", &[]);
    let script = "until [ \"$(stty size)\" = '24 80' ]; do sleep 0.01; done; stty size;
                  until [ \"$(stty size)\" = '50 132' ]; do sleep 0.01; done; stty size; exit 3";
    for version in [Version::V3, Version::V4] {
        let mut session = start(&server, version, &["sh", "-c", script], Streams::TTY).await;
        let _stdin = session.stdin.take().expect("stdin");
        let mut resize = session.resize.take().expect("a terminal that can be resized");
        let mut stdout = session.stdout.take().expect("stdout");
        resize.resize(TerminalSize { width: 80, height: 24 }).await.expect("a size is sent");
        let first = within("the first size", stdout.data()).await.expect("output").expect("output");
        assert_eq!(&first[..], b"24 80\r\n", "{version:?}");
        resize.resize(TerminalSize { width: 132, height: 50 }).await.expect("a size is sent");
        let (rest, status) = within("the second size", async { tokio::join!(collect(stdout), session.wait()) }).await;
        assert_eq!((&rest[..], status.expect("a status")), (&b"50 132\r\n"[..], ExitStatus::Code(3)), "{version:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_which_protocols_the_server_has() {
    let server = Peer::go("cri-server", &["-protocols", "v4.channel.k8s.io,v3.channel.k8s.io"]);
    let offers = [Protocol::Exec(Version::V2), Protocol::Exec(Version::V1)];
    let refused = connect(&server, &["true"], Streams::OUTPUT, &offers).await;
    let Err(UpgradeError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.status, StatusCode::FORBIDDEN);
    let accepted: Vec<_> = refusal.headers.get_all("X-Accepted-Stream-Protocol-Versions").iter().collect();
    assert_eq!(accepted, ["v4.channel.k8s.io", "v3.channel.k8s.io"]);
    assert!(refusal.to_string().contains("unable to negotiate protocol"), "{refusal}");
}

#[tokio::test]
async fn the_best_protocol_of_both_is_settled_on() {
    let server = Peer::go("cri-server", &["-protocols", "v3.channel.k8s.io,v2.channel.k8s.io"]);
    let upgraded = connect(&server, &["true"], Streams::OUTPUT, Protocol::EXEC).await.expect("an upgrade");
    assert_eq!(upgraded.protocol(), Some(Protocol::Exec(Version::V3)));
}

#[tokio::test]
async fn the_tail_of_a_fast_exit_is_never_lost() {
    let server = Peer::go("cri-server", &[]);
    for number in 0..runs(50) {
        let output = sh(&server, Version::V4, "head -c 3000000 /dev/zero; exit 7").await;
        assert_eq!((output.stdout.len(), output.status), (3_000_000, ExitStatus::Code(7)), "run {number}");
    }
}

#[tokio::test]
async fn the_example_is_a_kubectl_exec() {
    let server = Peer::go("cri-server", &[]);
    for protocol in ["v2.channel.k8s.io", "v3.channel.k8s.io", "v4.channel.k8s.io"] {
        let mut command = Command::new(example("exec"));
        command.args(["--server", server.address(), "--protocol", protocol, "-i", "--"]);
        command.args(["sh", "-c", "cat; echo err >&2; exit 7"]);
        let ended = run(command, Input::Bytes(pattern(1_000_000))).await;
        assert_eq!((digest(&ended.stdout), ended.code), (digest(&pattern(1_000_000)), Some(7)), "{protocol}");
        assert_eq!(ended.stderr, "err\n", "{protocol}");
    }
}
