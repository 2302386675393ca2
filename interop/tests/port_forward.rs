//! kubectl's port-forward against the built-in node, through the WebSocket tunnel and over SPDY.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use kubestream_interop::matrix::{Foreign, NODE, Over, Proof, client_of, proves};
use kubestream_interop::{Peer, Scratch, closed_port, digest, kubectl, over_both_transports, pattern, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// A kubectl that forwards, with the local port of each remote one.
struct Forward {
    kubectl: Child,
    locals: Vec<u16>,
    _node: Peer,
    _scratch: Scratch,
}

impl Forward {
    async fn start(websockets: bool, remotes: &[u16]) -> Self {
        let (node, scratch) = (Peer::node(), Scratch::new());
        let mut command = Command::new(kubectl());
        command.arg(format!("--server={}", node.address())).args([
            "port-forward",
            "--address",
            "127.0.0.1",
            "pod/demo",
        ]);
        command.args(remotes.iter().map(|remote| format!(":{remote}")));
        command.env_clear().env("HOME", scratch.path()).env("PATH", std::env::var("PATH").unwrap_or_default());
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut kubectl = command.spawn().expect("kubectl");
        let mut lines = BufReader::new(kubectl.stdout.take().expect("stdout is a pipe")).lines();
        let mut locals = Vec::new();
        for remote in remotes {
            let line = within("where kubectl listens", lines.next_line()).await.expect("text").expect("a line");
            let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split_once(" -> "));
            let (local, to) = local.unwrap_or_else(|| panic!("kubectl says {line:?}"));
            assert_eq!(to, remote.to_string());
            locals.push(local.parse().expect("a port"));
        }
        // kubectl prints a line for each connection, and would block if nothing read it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { kubectl, locals, _node: node, _scratch: scratch }
    }

    async fn dial(&self, number: usize) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.locals[number])).await.expect("kubectl listens")
    }

    fn still_runs(&mut self) {
        assert!(matches!(self.kubectl.try_wait(), Ok(None)), "kubectl has given up");
    }
}

fn proof(websockets: bool, cases: &str) -> Proof {
    let over = if websockets { Over::Tunnel } else { Over::Forward };
    proves(cases).with(Foreign::Kubectl, client_of(NODE), [over])
}

/// A server in the "pod" that reads to the end, sends everything back, and then sends its own bytes.
async fn serve(sends: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let sends = Arc::new(sends);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let sends = Arc::clone(&sends);
            tokio::spawn(async move {
                let mut asked = Vec::new();
                tcp.read_to_end(&mut asked).await?;
                tcp.write_all(&asked).await?;
                tcp.write_all(&sends).await?;
                tcp.shutdown().await
            });
        }
    });
    port
}

async fn ask(mut tcp: TcpStream, request: &[u8]) -> Vec<u8> {
    tcp.write_all(request).await.expect("a request is sent");
    // kubectl passes the end on, and the answer still comes back.
    tcp.shutdown().await.expect("an end is sent");
    let mut answer = Vec::new();
    within("an answer", tcp.read_to_end(&mut answer)).await.expect("an answer");
    answer
}

async fn two_hundred_downloads_at_once_are_whole(websockets: bool) {
    let body = pattern(1_000_000);
    let mut forward = Forward::start(websockets, &[serve(body.clone()).await]).await;
    let mut downloads = JoinSet::new();
    for number in 0..200 {
        let tcp = forward.dial(0).await;
        downloads.spawn(async move {
            let request = format!("request {number}");
            let answer = ask(tcp, request.as_bytes()).await;
            (answer.starts_with(request.as_bytes()), digest(&answer[request.len()..]))
        });
    }
    let sum = digest(&body);
    while let Some(download) = downloads.join_next().await {
        assert_eq!(download.expect("a download"), (true, sum.clone()));
    }
    forward.still_runs();
}

async fn a_refused_port_does_not_end_the_forward(websockets: bool) {
    let ports = [closed_port().await, serve(b"hello".to_vec()).await];
    let mut forward = Forward::start(websockets, &ports).await;
    for _ in 0..5 {
        let mut refused = forward.dial(0).await;
        let mut nothing = Vec::new();
        // It may end in any way, but it must end.
        let _ = within("its end", refused.read_to_end(&mut nothing)).await;
        assert!(nothing.is_empty());
        assert_eq!(ask(forward.dial(1).await, b"").await, b"hello");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    forward.still_runs();
}

async fn thousands_one_after_another_and_one_of_twenty_megabytes(websockets: bool) {
    let forward = Forward::start(websockets, &[serve(Vec::new()).await]).await;
    for number in 0..5000 {
        let request = format!("request {number}");
        assert_eq!(ask(forward.dial(0).await, request.as_bytes()).await, request.as_bytes());
    }
    let (mut reads, mut writes) = forward.dial(0).await.into_split();
    let sent = pattern(20_000_000);
    let sum = digest(&sent);
    let writing = tokio::spawn(async move {
        writes.write_all(&sent).await.expect("a request is sent");
        writes.shutdown().await.expect("an end is sent");
    });
    let mut back = Vec::new();
    within("it all back", reads.read_to_end(&mut back)).await.expect("an answer");
    writing.await.expect("all is sent");
    assert_eq!(digest(&back), sum);
}

async fn begin(websockets: bool, cases: &str) -> (Proof, bool) {
    (proof(websockets, cases), websockets)
}

over_both_transports! {
    through_the_tunnel: true, over_spdy: false;
    two_hundred_downloads_at_once_are_whole: "200 connections at a time of 1 MB; half-close",
    a_refused_port_does_not_end_the_forward: "a refused port does not end the forward",
    thousands_one_after_another_and_one_of_twenty_megabytes: "5,000 connections one after another; 20 MB there and back",
}
