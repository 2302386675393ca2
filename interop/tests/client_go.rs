//! client-go's executors against the built-in node: SPDY in every version, WebSocket, and the executor that falls back.

use kubestream::exec::{ExecRequest, Streams};
use kubestream::upgrade::Protocol;
use kubestream_interop::matrix::{self, Foreign, NODE, Over, Proof, client_of};
use kubestream_interop::{Ended, Input, Peer, Scratch, binary, digest, pattern, run, runs};
use serde_json::Value;
use tokio::process::Command;

const V1: &str = "channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";
const STDIN_ONLY: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: false };

fn proves(cases: &str, over: impl IntoIterator<Item: Into<Over>>) -> Proof {
    matrix::proves(cases).with(Foreign::ClientGo, client_of(NODE), over)
}

/// Runs the executor, and returns its outcome as well as its output.
async fn execute(
    node: &Peer,
    protocol: &str,
    script: &str,
    streams: Streams,
    more: &[&str],
    input: Input,
) -> (Ended, Value) {
    let scratch = Scratch::new();
    let query = ExecRequest::new(["sh", "-c", script], streams).to_query();
    let mut command = Command::new(binary("exec-client"));
    command.args(["-protocols", protocol, "-result"]).arg(scratch.file("result"));
    command.arg("-url").arg(format!("{}/api/v1/namespaces/default/pods/demo/exec?{query}", node.address()));
    command.args(["-stdin", if streams.stdin { "-" } else { "none" }]).args(more);
    let ended = run(command, input).await;
    let outcome = std::fs::read(scratch.file("result")).expect("a result");
    (ended, serde_json::from_slice(&outcome).expect("a result in JSON"))
}

async fn output(node: &Peer, protocol: &str, script: &str) -> (Ended, Value) {
    execute(node, protocol, script, Streams::OUTPUT, &[], Input::Null).await
}

#[tokio::test]
async fn outputs_stay_apart_in_every_version() {
    let _proof = proves("outputs apart", Protocol::SPDY_EXEC.iter().copied());
    let node = Peer::node();
    for protocol in Protocol::SPDY_EXEC {
        let (ended, outcome) = output(&node, protocol.name(), "echo out; echo err >&2").await;
        assert_eq!((&ended.stdout[..], &*ended.stderr), (&b"out\n"[..], "err\n"), "{protocol}");
        assert_eq!((&outcome["exitCode"], &outcome["error"]), (&0.into(), &"".into()), "{protocol}");
    }
}

#[tokio::test]
async fn v4_carries_the_exit_code() {
    let _proof = proves("exit codes 1, 7, 255", [Over::SpdyV4]);
    let node = Peer::node();
    for code in [1, 7, 255] {
        let (_, outcome) = output(&node, V4, &format!("exit {code}")).await;
        assert_eq!(outcome["exitCode"], code);
    }
}

#[tokio::test]
async fn v2_and_v3_carry_a_failure_as_text() {
    let _proof = proves("a failure as text", [Over::SpdyV2, Over::SpdyV3]);
    let node = Peer::node();
    for protocol in [V2, V3] {
        let (ended, outcome) = output(&node, protocol, "echo out; exit 7").await;
        assert_eq!(&ended.stdout[..], b"out\n", "{protocol}");
        // The executor reads no exit code from text.
        assert_eq!(outcome["exitCode"], -1, "{protocol}");
        assert!(
            outcome["error"].as_str().is_some_and(|error| error.ends_with("exit status 7")),
            "{protocol}: {outcome}"
        );
    }
}

#[tokio::test]
async fn ten_megabytes_come_back_the_same() {
    let _proof = proves("10 MB there and back", Protocol::SPDY_EXEC.iter().copied());
    let node = Peer::node();
    let sent = pattern(10_000_000);
    // v1's clients never end stdin, so the command must know the length.
    for (protocol, script) in [(V1, "head -c 10000000"), (V2, "cat"), (V3, "cat"), (V4, "cat")] {
        let input = Input::Bytes(sent.clone());
        let (ended, outcome) = execute(&node, protocol, script, STDIN_ONLY, &[], input).await;
        assert_eq!((digest(&ended.stdout), &outcome["exitCode"]), (digest(&sent), &0.into()), "{protocol}: {outcome}");
    }
}

#[tokio::test]
async fn v3_and_v4_resize_a_terminal() {
    let _proof = proves("a terminal and its sizes", [Over::SpdyV3, Over::SpdyV4]);
    let node = Peer::node();
    let script = "until [ \"$(stty size)\" = '50 132' ]; do sleep 0.01; done; stty size; exit 3";
    for protocol in [V3, V4] {
        let more = ["-tty", "-resize", "80x24,132x50"];
        let (ended, outcome) = execute(&node, protocol, script, Streams::TTY, &more, Input::Bytes(Vec::new())).await;
        assert!(ended.stdout.ends_with(b"50 132\r\n"), "{protocol}: {:?}", String::from_utf8_lossy(&ended.stdout));
        assert_eq!(outcome["exitCode"], if protocol == V4 { 3 } else { -1 }, "{protocol}: {outcome}");
    }
}

#[tokio::test]
async fn a_shell_on_a_terminal_is_typed_to() {
    let _proof = proves("a shell on a terminal", [Over::SpdyV2, Over::SpdyV3, Over::SpdyV4]);
    let node = Peer::node();
    for protocol in [V2, V3, V4] {
        let typed = Input::Bytes(b"echo $((6 * 7)) $(tty | cut -c 1-8)\nexit 5\n".to_vec());
        let (ended, outcome) = execute(&node, protocol, "exec sh", Streams::TTY, &["-tty"], typed).await;
        let shown = String::from_utf8_lossy(&ended.stdout);
        assert!(shown.contains("42 /dev/pts"), "{protocol}: {shown:?}");
        assert_eq!(outcome["exitCode"], if protocol == V4 { 5 } else { -1 }, "{protocol}: {outcome}");
    }
}

#[tokio::test]
async fn a_get_works_as_a_post_does() {
    let _proof = proves("GET in place of POST", [Over::SpdyV4]);
    let node = Peer::node();
    let (ended, outcome) =
        execute(&node, V4, "echo out; exit 7", Streams::OUTPUT, &["-method", "GET"], Input::Null).await;
    assert_eq!((&ended.stdout[..], &outcome["exitCode"]), (&b"out\n"[..], &7.into()));
}

#[tokio::test]
async fn the_first_preference_of_the_client_wins() {
    let _proof = proves("the first preference of the client wins", [Over::SpdyV3, Over::SpdyV4]);
    let node = Peer::node();
    // v3 has no exit code and v4 has one, so the outcome shows which was chosen.
    let (_, outcome) = output(&node, "v9.channel.k8s.io,v4.channel.k8s.io,v3.channel.k8s.io", "exit 7").await;
    assert_eq!(outcome["exitCode"], 7);
    let (_, outcome) = output(&node, "v3.channel.k8s.io,v4.channel.k8s.io", "exit 7").await;
    assert_eq!(outcome["exitCode"], -1);
}

#[tokio::test]
async fn a_protocol_that_the_node_does_not_know_is_refused() {
    let _proof = proves("a protocol that nobody knows is refused", [Over::Http]);
    let node = Peer::node();
    let (_, outcome) = output(&node, "v9.channel.k8s.io", "true").await;
    assert_eq!(outcome["exitCode"], -1);
    let error = outcome["error"].as_str().expect("an error");
    assert!(error.contains("unable to negotiate protocol: client supports [v9.channel.k8s.io]"), "{error}");
}

#[tokio::test]
async fn the_tail_of_a_fast_exit_is_never_lost() {
    let _proof = proves("3 MB and exit 7", [Over::SpdyV4]);
    let node = Peer::node();
    for number in 0..runs(30) {
        let (ended, outcome) = output(&node, V4, "head -c 3000000 /dev/zero; exit 7").await;
        assert_eq!((ended.stdout.len(), &outcome["exitCode"]), (3_000_000, &7.into()), "run {number}: {outcome}");
    }
}

/// The WebSocket executor, which offers only v5.
async fn over_websocket(node: &Peer, script: &str, streams: Streams, more: &[&str], input: Input) -> (Ended, Value) {
    let more = [&["-transport", "websocket"], more].concat();
    execute(node, V5, script, streams, &more, input).await
}

#[tokio::test]
async fn over_websocket_outputs_stay_apart_and_exit_codes_arrive() {
    let _proof = proves("outputs apart; exit codes 1, 7, 255", [Over::WebSocketV5]);
    let node = Peer::node();
    for code in [0, 1, 7, 255] {
        let script = format!("echo out; echo err >&2; exit {code}");
        let (ended, outcome) = over_websocket(&node, &script, Streams::OUTPUT, &[], Input::Null).await;
        let stderr = ended.stderr.lines().next();
        assert_eq!((&ended.stdout[..], stderr, &outcome["exitCode"]), (&b"out\n"[..], Some("err"), &code.into()));
    }
}

#[tokio::test]
async fn over_websocket_ten_megabytes_come_back_the_same() {
    let _proof = proves("10 MB there and back", [Over::WebSocketV5]);
    let node = Peer::node();
    let sent = pattern(10_000_000);
    let (ended, outcome) = over_websocket(&node, "cat", STDIN_ONLY, &[], Input::Bytes(sent.clone())).await;
    assert_eq!((digest(&ended.stdout), &outcome["exitCode"]), (digest(&sent), &0.into()), "{outcome}");
}

#[tokio::test]
async fn over_websocket_a_terminal_is_resized() {
    let _proof = proves("a terminal and its sizes", [Over::WebSocketV5]);
    let node = Peer::node();
    let script = "until [ \"$(stty size)\" = '50 132' ]; do sleep 0.01; done; stty size; exit 3";
    let more = ["-tty", "-resize", "80x24,132x50"];
    let (ended, outcome) = over_websocket(&node, script, Streams::TTY, &more, Input::Bytes(Vec::new())).await;
    assert!(ended.stdout.ends_with(b"50 132\r\n"), "{:?}", String::from_utf8_lossy(&ended.stdout));
    assert_eq!(outcome["exitCode"], 3, "{outcome}");
}

#[tokio::test]
async fn over_websocket_v4_carries_an_exit_code_too() {
    let _proof = proves("output and exit code 7", [Over::WebSocketV4]);
    let node = Peer::node();
    let more = ["-transport", "websocket"];
    let (ended, outcome) = execute(&node, V4, "echo out; exit 7", Streams::OUTPUT, &more, Input::Null).await;
    assert_eq!((&ended.stdout[..], &outcome["exitCode"]), (&b"out\n"[..], &7.into()));
}

#[tokio::test]
async fn over_websocket_the_tail_of_a_fast_exit_is_never_lost() {
    let _proof = proves("3 MB and exit 7", [Over::WebSocketV5]);
    let node = Peer::node();
    for number in 0..runs(30) {
        let script = "head -c 3000000 /dev/zero; exit 7";
        let (ended, outcome) = over_websocket(&node, script, Streams::OUTPUT, &[], Input::Null).await;
        assert_eq!((ended.stdout.len(), &outcome["exitCode"]), (3_000_000, &7.into()), "run {number}: {outcome}");
    }
}

#[tokio::test]
async fn the_executor_that_falls_back_is_content_with_either() {
    let _proof = proves("output and exit code 7", [Over::Fallback]);
    let node = Peer::node();
    // No server accepts v2 over WebSocket, so with v2 alone it falls back.
    for (protocol, code) in [(V5, 7), (V2, -1)] {
        let more = ["-transport", "fallback"];
        let (ended, outcome) = execute(&node, protocol, "echo out; exit 7", Streams::OUTPUT, &more, Input::Null).await;
        assert_eq!((&ended.stdout[..], &outcome["exitCode"]), (&b"out\n"[..], &code.into()), "{protocol}: {outcome}");
    }
}
