//! Recorded sessions over WebSocket, replayed to our client and our server: kubectl 1.32 and a raw client with a
//! kube-apiserver 1.34.4, in front of a kubelet with containerd 1.6.20.
//!
//! Holds `data/websocket/`: the bytes of each side, from the beginning of its head.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use kubestream::exec::{Exec, ExecServer, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::protocol::Subprotocol;
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::upgrade::{Protocol, Upgraded};
use support::fragment::Fragmented;
use support::recording;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

fn said(name: &str, side: &str) -> (String, Bytes) {
    recording::said(&format!("websocket/{name}"), side)
}

/// The protocol that the server of a recording chose.
fn settled(name: &str) -> Protocol {
    let (head, _) = said(name, "s2c");
    let line = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol:")).unwrap_or_default();
    Protocol::WebSocketExec(Subprotocol::from_name(line.trim()).unwrap())
}

/// Our client against a recorded server, whose bytes come whole or in small pieces.
async fn client(name: &str, want: Streams, crumbs: bool) -> Exec {
    let (near, mut far) = duplex(4096);
    let (_, rest) = said(name, "s2c");
    tokio::spawn(async move {
        let (mut reads, mut writes) = tokio::io::split(&mut far);
        let everything = async {
            writes.write_all(&rest).await.unwrap();
            writes.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        tokio::join!(everything, reads.read_to_end(&mut heard)).1.unwrap();
    });
    let io = Fragmented::new(near, 7, if crumbs { 3 } else { 4096 });
    let (mux, driver) = Multiplexer::client(Upgraded::new(io, Bytes::new(), Some(settled(name))), Config::exec());
    tokio::spawn(driver);
    mux.exec(want).await.unwrap()
}

/// Our server against a recorded client.
async fn server(name: &str, want: Streams) -> ExecServer {
    let (near, mut far) = duplex(4096);
    let (_, rest) = said(name, "c2s");
    tokio::spawn(async move {
        let (mut reads, mut writes) = tokio::io::split(&mut far);
        let mut heard = Vec::new();
        tokio::join!(writes.write_all(&rest), reads.read_to_end(&mut heard)).1.unwrap();
    });
    let io = Fragmented::new(near, 11, 700);
    let (mux, driver) = Multiplexer::server(Upgraded::new(io, Bytes::new(), Some(settled(name))), Config::exec());
    tokio::spawn(driver);
    mux.accept_exec(want).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn our_client_understands_every_recorded_server() {
    let code = ExitStatus::Code;
    let cases: [(&str, &str, &str, ExitStatus); 14] = [
        ("ws-exec-echo", "hello\n", "", code(0)),
        ("ws-exec-exit-7", "bye\n", "", code(7)),
        ("ws-exec-stdout-stderr", "out\nout2\n", "err\n", code(0)),
        ("ws-exec-idle-12s", "", "", code(0)),
        ("ws-attach", "out:one\nout:two\n", "err:one\nerr:two\n", code(0)),
        ("ws-noproto-exec", "hi\n", "", code(7)),
        ("ws-v1-exec", "hi\n", "er\n", code(7)),
        ("ws-v4-exec", "hi\n", "er\n", code(7)),
        ("ws-v4-exec-ok", "hi\n", "", code(0)),
        ("ws-v4-base64-exec", "hi\n", "er\n", code(7)),
        ("ws-v4b-base64-exec", "hi\n", "er\n", code(7)),
        ("ws-v5-raw-exec", "abc", "", code(0)),
        ("ws-v5v4-offer", "hi\n", "", code(0)),
        ("ws-exec-tty-resize", "exit 3\r\n", "", code(3)),
    ];
    for (name, stdout, stderr, status) in cases {
        for crumbs in [false, true] {
            let exec = client(name, Streams::OUTPUT, crumbs).await;
            let output = exec.wait_with_output(10_000).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            assert!(text(&output.stdout).ends_with(stdout), "{name}: {:?}", output.stdout);
            assert_eq!(text(&output.stderr), stderr, "{name}");
            assert_eq!(output.status.code(), status.code(), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_run_is_a_failure_that_says_why() {
    for (name, why) in
        [("ws-exec-notfound", "no such file"), ("ws-kubectl-not-running", "unable to upgrade connection")]
    {
        let output = client(name, Streams::OUTPUT, false).await.wait_with_output(100).await.unwrap();
        let ExitStatus::Failed(status) = output.status else { panic!("{name}: {:?}", output.status) };
        assert!(status.message.contains(why), "{name}: {}", status.message);
        assert_eq!(status.code, Some(500));
    }
}

#[tokio::test(start_paused = true)]
async fn our_server_understands_every_recorded_client() {
    for (name, typed, ends) in [
        ("ws-noproto-exec", "echo hi; exit 7\n", true),
        ("ws-v1-exec", "echo hi; echo er >&2; exit 7\n", true),
        ("ws-v4-exec", "echo hi; echo er >&2; exit 7\n", true),
        ("ws-v4-base64-exec", "echo hi; echo er >&2; exit 7\n", true),
        ("ws-v4b-base64-exec", "echo hi; echo er >&2; exit 7\n", true),
        ("ws-v5-raw-exec", "abc", true),
        ("ws-v5-raw-ping", "abc", true),
        ("ws-attach", "one\ntwo\n", true),
    ] {
        let mut process = server(name, Streams::PIPES).await;
        let mut stdin = process.stdin.take().unwrap();
        let mut read = Vec::new();
        let ended = loop {
            match stdin.data().await {
                Some(Ok(data)) => read.extend_from_slice(&data),
                Some(Err(_)) => break false,
                // Before v5 the client's Close is the only end.
                None => break true,
            }
        };
        assert_eq!((String::from_utf8(read).unwrap(), ended), (typed.to_owned(), ends), "{name}");
        process.client_gone().await;
    }
}

#[tokio::test(start_paused = true)]
async fn kubectls_hundred_kilobytes_of_stdin_are_all_there() {
    let mut process = server("ws-exec-stdin-100k", Streams::PIPES).await;
    let mut sent = Vec::new();
    process.stdin.take().unwrap().read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent.len(), 102_400);
    // The command was cat.
    let output = client("ws-exec-stdin-100k", Streams::OUTPUT, false).await.wait_with_output(200_000).await.unwrap();
    assert!(output.stdout == sent && output.status.success());
}

#[tokio::test(start_paused = true)]
async fn kubectls_terminal_has_its_sizes() {
    for (name, last) in [("ws-exec-tty-resize", (132, 50)), ("ws-attach-tty", (132, 50))] {
        let mut process = server(name, Streams::TTY).await;
        let mut sizes = process.resize.take().unwrap();
        let mut seen = Vec::new();
        while let Some(size) = sizes.next().await {
            seen.push(size);
        }
        let (width, height) = last;
        assert_eq!(seen.last(), Some(&TerminalSize { width, height }), "{name}: {seen:?}");
    }
}
