//! The WebSocket clients of other languages against the built-in node: `@kubernetes/client-node`, Python's `kubernetes`
//! and Java's `io.kubernetes:client-java`.

use std::path::PathBuf;

use kubestream_interop::matrix::{Foreign, NODE, Over, Proof, client_of, proves};
use kubestream_interop::{
    Ended, Input, Peer, Scratch, digest, java_client, node_client, pattern, python_client, run, runs, written,
};
use serde_json::Value;
use tokio::process::Command;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

/// The command that starts a client in another language.
type Client = fn(&str) -> Command;
const CLIENTS: [(Foreign, Client); 3] =
    [(Foreign::ClientNode, node_client), (Foreign::Python, python_client), (Foreign::ClientJava, java_client)];

/// How many times a race is run with this client. Java's is slow to start.
fn races(name: Foreign) -> usize {
    runs(if name == Foreign::ClientJava { 2 } else { 10 })
}

fn proof(cases: &str, clients: &[(Foreign, Client)], over: Over) -> Proof {
    clients.iter().fold(proves(cases), |proof, (peer, _)| proof.with(*peer, client_of(NODE), [over]))
}

/// Runs a command with the client, and returns its output and its outcome.
async fn execute(node: &Peer, client: Client, more: &[&str], script: &str, input: Input) -> (Ended, Value) {
    let scratch = Scratch::new();
    let result: PathBuf = scratch.file("result");
    let mut command = client("exec");
    command.args(["--server", node.address(), "--namespace", "default", "--pod", "demo", "--container", "main"]);
    command.arg("--result").arg(&result).args(more).args(["--", "sh", "-c", script]);
    let ended = run(command, input).await;
    let outcome = std::fs::read(result).unwrap_or_else(|error| panic!("no result: {error}: {}", ended.stderr));
    (ended, serde_json::from_slice(&outcome).expect("a result in JSON"))
}

#[tokio::test]
async fn outputs_stay_apart_and_exit_codes_arrive() {
    let _proof = proof("outputs apart; exit codes 0, 7, 255", &CLIENTS, Over::WebSocketV5);
    let node = Peer::node();
    for (name, client) in CLIENTS {
        for code in [0, 7, 255] {
            let script = format!("echo out; echo err >&2; exit {code}");
            let (ended, outcome) = execute(&node, client, &[], &script, Input::Null).await;
            let stderr = ended.stderr.lines().next();
            assert_eq!((&ended.stdout[..], stderr), (&b"out\n"[..], Some("err")), "{name}: {outcome}");
            assert_eq!((&outcome["exitCode"], &outcome["protocol"]), (&code.into(), &V5.into()), "{name}: {outcome}");
        }
    }
}

#[tokio::test]
async fn ten_megabytes_come_back_the_same_and_their_end_arrives() {
    let _proof = proof("10 MB there and back; the end of stdin", &CLIENTS, Over::WebSocketV5);
    let node = Peer::node();
    let sent = pattern(10_000_000);
    for (name, client) in CLIENTS {
        let (ended, outcome) = execute(&node, client, &["--stdin"], "cat", Input::Bytes(sent.clone())).await;
        assert_eq!((digest(&ended.stdout), &outcome["exitCode"]), (digest(&sent), &0.into()), "{name}: {outcome}");
    }
}

#[tokio::test]
async fn all_of_stdin_may_come_in_one_message() {
    let _proof = proof("10 MB of stdin in one message", &CLIENTS[1..2], Over::WebSocketV5);
    let node = Peer::node();
    let sent = pattern(10_000_000);
    let (ended, outcome) =
        execute(&node, python_client, &["--stdin", "--one-write"], "cat", Input::Bytes(sent.clone())).await;
    assert_eq!((digest(&ended.stdout), &outcome["exitCode"]), (digest(&sent), &0.into()), "{outcome}");
}

#[tokio::test]
async fn strings_come_as_messages_of_text() {
    let _proof = proof("stdin as text", &CLIENTS[1..2], Over::WebSocketV5);
    let node = Peer::node();
    let sent = vec![b'x'; 1_000_000];
    let (ended, outcome) = execute(&node, python_client, &["--stdin", "--text"], "wc -c", Input::Bytes(sent)).await;
    assert_eq!((ended.stdout.trim_ascii(), &outcome["exitCode"]), (&b"1000000"[..], &0.into()), "{outcome}");
}

#[tokio::test]
async fn v4_carries_stdin_and_the_exit_code_too() {
    let _proof = proof("1 MB there and back; exit code 7", &CLIENTS[1..], Over::WebSocketV4);
    let node = Peer::node();
    let sent = pattern(1_000_000);
    // Node's client cannot be told what to offer.
    for (name, client) in &CLIENTS[1..] {
        let more = ["--stdin", "--protocol", V4];
        let script = "head -c 1000000; exit 7";
        let (ended, outcome) = execute(&node, *client, &more, script, Input::Bytes(sent.clone())).await;
        let seen = (digest(&ended.stdout), &outcome["exitCode"], &outcome["protocol"]);
        assert_eq!(seen, (digest(&sent), &7.into(), &V4.into()), "{name}: {outcome}");
    }
}

/// Before v5 a Close is their only way to end stdin. What they have sent reaches the command before its SIGHUP.
#[tokio::test]
async fn whoever_closes_behind_its_stdin_has_sent_all_of_it() {
    let clients: [(Foreign, Client, &[&str]); 2] =
        [(Foreign::ClientNode, node_client, &[]), (Foreign::Python, python_client, &["--close"])];
    let _proof = proof("5 B, 100 kB and 5 MB of stdin, ended by a Close", &CLIENTS[..2], Over::WebSocketV4);
    let node = Peer::node();
    for (name, client, closes) in clients {
        for size in [5, 100_000, 5_000_000] {
            let scratch = Scratch::new();
            let (part, whole) = (scratch.file("part"), scratch.file("whole"));
            let more = [&["--stdin", "--protocol", V4], closes].concat();
            let script = format!("cat >{} && mv {0} {}", part.display(), whole.display());
            let (_, outcome) = execute(&node, client, &more, &script, Input::Bytes(pattern(size))).await;
            assert_eq!(outcome["protocol"], V4, "{name}: {outcome}");
            assert_eq!(digest(&written(&whole).await), digest(&pattern(size)), "{name}");
        }
    }
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let _proof = proof("a terminal and its sizes", &CLIENTS, Over::WebSocketV5);
    let node = Peer::node();
    let script = "until [ \"$(stty size)\" = '50 132' ]; do sleep 0.01; done; stty size; exit 3";
    for (name, client) in CLIENTS {
        let more = ["--tty", "--resize", "80x24,132x50"];
        let (ended, outcome) = execute(&node, client, &more, script, Input::Null).await;
        let shown = String::from_utf8_lossy(&ended.stdout);
        assert!(shown.ends_with("50 132\r\n"), "{name}: {shown:?}");
        assert_eq!(outcome["exitCode"], 3, "{name}: {outcome}");
    }
}

#[tokio::test]
async fn the_tail_of_a_fast_exit_is_never_lost() {
    let _proof = proof("3 MB and exit 7", &CLIENTS, Over::WebSocketV5);
    let node = Peer::node();
    for (name, client) in CLIENTS {
        for number in 0..races(name) {
            let (ended, outcome) = execute(&node, client, &[], "head -c 3000000 /dev/zero; exit 7", Input::Null).await;
            let seen = (ended.stdout.len(), &outcome["exitCode"]);
            assert_eq!(seen, (3_000_000, &7.into()), "{name}, run {number}: {outcome}");
        }
    }
}

/// A command that leaves its stdin unread. With Go's servers, which then reset the connection, client-node loses the
/// status.
#[tokio::test]
async fn stdin_that_nobody_reads_costs_nobody_the_status() {
    let _proof = proof("stdin that nobody reads", &CLIENTS, Over::WebSocketV5);
    let node = Peer::node();
    for (name, client) in CLIENTS {
        for number in 0..races(name) {
            let input = Input::Bytes(pattern(4_000_000));
            let (ended, outcome) =
                execute(&node, client, &["--stdin"], "head -c 100000 /dev/zero; exit 7", input).await;
            let seen = (ended.stdout.len(), &outcome["exitCode"]);
            assert_eq!(seen, (100_000, &7.into()), "{name}, run {number}: {outcome}");
        }
    }
}
