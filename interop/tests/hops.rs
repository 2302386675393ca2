//! The tail of an output through nginx, HAProxy and a relay, which end both of their sides when one has ended. Whatever
//! a client still sends then, stdin or a WINDOW_UPDATE, meets a reset that destroys undelivered bytes. So the server
//! must end last.
//!
//! `KUBESTREAM_RUNS=100 interop/run --test hops` is the long form.

use std::fmt::Write as _;
use std::process::Stdio;

use futures_util::{StreamExt, stream};
use http::{Method, Request};
use kubestream::exec::{Error, ExecRequest, Output, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::protocol::Subprotocol;
use kubestream::status::ExitStatus;
use kubestream::upgrade::{self, Protocol, Transport, Version};
use kubestream_interop::matrix::{Foreign, NODE, Proof, THROUGH, client_of, hop_before, proves, server_for};
use kubestream_interop::{Gateway, Hop, Input, Link, Peer, Scratch, app, kubectl, narrow, run, runs, within};
use tokio::process::Command;

const SCRIPT: &str = "head -c 1000000 /dev/zero; exit 7";
const SPDY: Protocol = Protocol::SpdyExec(Version::V4);
/// The protocols that kubectl uses.
const PROTOCOLS: [Protocol; 2] = [SPDY, Protocol::WebSocketExec(Subprotocol::V5)];
/// The protocols of Go's servers of containers, which have no v5.
const GOS: [Protocol; 2] = [SPDY, Protocol::WebSocketExec(Subprotocol::V4)];
/// The number of concurrent sessions of a kind.
const AT_ONCE: usize = 8;

#[derive(Clone, Copy, Debug)]
enum Client {
    Kubectl,
    /// The program `exec`.
    Exec,
    /// The library in this process, on a socket with a small buffer.
    Library,
}

const CLIENTS: [Client; 3] = [Client::Kubectl, Client::Exec, Client::Library];

/// How a session ended for a client.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Whole,
    /// The client knows that something is missing.
    Failed(String),
    /// The client reports success although something is missing.
    False(String),
}

impl Outcome {
    fn of(code: Option<i32>, output: &[u8], error: &str) -> Self {
        let text = format!("exit code {code:?}, {} bytes, {}", output.len(), error.trim_end());
        match code {
            Some(7) if output.len() == 1_000_000 && output.iter().all(|byte| *byte == 0) => Self::Whole,
            Some(0 | 7) => Self::False(text),
            _ => Self::Failed(text),
        }
    }
}

async fn tail(client: Client, server: &str, protocol: Protocol, stdin: bool) -> Outcome {
    let websocket = protocol.transport() == Transport::WebSocket;
    let input = if stdin { Input::Endless } else { Input::Null };
    let ended = match client {
        Client::Kubectl => {
            let scratch = Scratch::new();
            let mut command = Command::new(kubectl());
            command.arg(format!("--server={server}")).arg("exec").args(stdin.then_some("-i"));
            command.args(["demo", "--", "sh", "-c", SCRIPT]).env_clear();
            command.env("HOME", scratch.path()).env("PATH", std::env::var("PATH").unwrap_or_default());
            command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket.to_string());
            run(command, input).await
        }
        Client::Exec => {
            let mut command = Command::new(app("exec"));
            let transport = if websocket { "websocket" } else { "spdy" };
            command.args(["--server", server, "--transport", transport, "--protocol", protocol.name()]);
            command.args(stdin.then_some("-i")).args(["--", "sh", "-c", SCRIPT]);
            run(command, input).await
        }
        Client::Library => {
            return match within("the session", session(server, protocol, stdin)).await {
                Ok(Output { status: ExitStatus::Failed(status), stdout, .. }) => {
                    Outcome::of(None, &stdout, &status.to_string())
                }
                Ok(Output { status, stdout, .. }) => Outcome::of(status.code(), &stdout, ""),
                Err(error) => Outcome::of(None, &[], &error.to_string()),
            };
        }
    };
    Outcome::of(ended.code, &ended.stdout, &ended.stderr)
}

async fn session(server: &str, protocol: Protocol, stdin: bool) -> Result<Output, Error> {
    let streams = Streams { stdin, stdout: true, stderr: true, tty: false };
    let query = ExecRequest::new(["sh", "-c", SCRIPT], streams).to_query();
    let url = format!("{server}/api/v1/namespaces/default/pods/demo/exec?{query}");
    let method = if protocol == SPDY { Method::POST } else { Method::GET };
    let request = Request::builder().method(method).uri(&url).body(()).expect("a request");
    let tcp = narrow(request.uri().authority().expect("an address").as_str()).await.expect("a connection");
    let upgraded = upgrade::connect(tcp, request, &[protocol], &upgrade::Config::default()).await.expect("an upgrade");
    let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
    let driver = tokio::spawn(driver);
    let mut exec = mux.exec(streams).await?;
    drop(mux);
    if let Some(mut stdin) = exec.stdin.take() {
        let mut yes = Command::new("yes").stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("yes");
        let mut pipe = yes.stdout.take().expect("stdout is a pipe");
        tokio::spawn(async move {
            tokio::io::copy(&mut pipe, &mut stdin).await.expect_err("yes does not end by itself");
            drop(pipe);
            yes.wait().await
        });
    }
    let output = exec.wait_with_output(2_000_000).await?;
    // How the connection ends after the status does not matter to the session.
    let _ = driver.await;
    Ok(output)
}

/// A gateway in front of a server, and the client that uses it.
struct Trial {
    hop: Hop,
    through: &'static str,
    clients: &'static [Client],
    protocols: [Protocol; 2],
    /// The server closes its socket with unread stdin. Then a client can only detect the loss.
    resets: bool,
}

impl Trial {
    fn of(server: Peer, gateway: Gateway) -> Self {
        Self {
            hop: Hop::before(server, gateway),
            through: name(gateway),
            clients: &CLIENTS,
            protocols: PROTOCOLS,
            resets: false,
        }
    }

    /// Runs the sessions, and fails with a description of those that went wrong.
    async fn run(&self) {
        let link = Link::to(self.hop.address());
        let mut wrong = String::new();
        for &client in self.clients {
            let count = count(client);
            let server = if matches!(client, Client::Library) { self.hop.address() } else { link.address() };
            for protocol in self.protocols {
                for stdin in [false, true] {
                    let each = stream::iter(0..count).map(|_| tail(client, server, protocol, stdin));
                    let mut all: Vec<Outcome> = each.buffer_unordered(AT_ONCE).collect().await;
                    all.retain(|outcome| match outcome {
                        Outcome::Whole => false,
                        Outcome::Failed(_) => !(stdin && self.resets),
                        Outcome::False(_) => true,
                    });
                    if !all.is_empty() {
                        let (lied, stdin) = (
                            all.iter().filter(|outcome| matches!(outcome, Outcome::False(_))).count(),
                            if stdin { "with yes on stdin" } else { "without stdin" },
                        );
                        let _ = writeln!(
                            wrong,
                            "{client:?} over {} {} through {}, {stdin}: {} of {count} wrong, {lied} of them as a success: {:#?}",
                            protocol.transport(),
                            protocol.name(),
                            self.through,
                            all.len(),
                            &all[..all.len().min(3)],
                        );
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}

/// The number of sessions of each kind. With stdin and without, that makes 100 tails for kubectl through each gateway
/// over each transport, and 100 for our clients. With more hops than the gateway, only a few show that they make no
/// difference.
fn count(client: Client) -> usize {
    match client {
        _ if std::env::var_os("KUBESTREAM_THROUGH").is_some() => runs(4),
        Client::Kubectl => runs(50),
        Client::Exec | Client::Library => runs(25),
    }
}

const fn name(gateway: Gateway) -> &'static str {
    match gateway {
        Gateway::Nginx => "nginx",
        Gateway::Haproxy => "HAProxy",
        Gateway::Relay => "a relay that ends both sides at once",
    }
}

fn proof(gateway: Gateway) -> Proof {
    let cases = "1 MB and exit 7 on a narrow link; 1 MB and exit 7 on a narrow link while stdin flows";
    let behind = std::env::var("KUBESTREAM_THROUGH").ok();
    let behind = behind.and_then(|named| THROUGH.iter().find(|(value, _)| *value == named));
    let through =
        behind.map_or_else(|| name(gateway).to_owned(), |(_, said)| format!("{} before {said}", name(gateway)));
    let proof = proves(cases).with(Foreign::Kubectl, client_of(NODE).through(&through), PROTOCOLS);
    match gateway {
        Gateway::Nginx => proof.with(Foreign::Nginx, hop_before(NODE), PROTOCOLS),
        Gateway::Haproxy => proof.with(Foreign::Haproxy, hop_before(NODE), PROTOCOLS),
        Gateway::Relay => proof,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_through_nginx() {
    let _proof = proof(Gateway::Nginx);
    Trial::of(Peer::node(), Gateway::Nginx).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_through_haproxy() {
    let _proof = proof(Gateway::Haproxy);
    Trial::of(Peer::node(), Gateway::Haproxy).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_through_a_relay_that_ends_both_sides_at_once() {
    let _proof = proof(Gateway::Relay);
    Trial::of(Peer::node(), Gateway::Relay).run().await;
}

/// Go's servers close after the status with unread stdin, and so lose output. No client of ours may report such a
/// session as a success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_of_a_server_of_gos_is_an_error() {
    let cases = "1 MB and exit 7 on a narrow link; no false success while stdin flows";
    let gateways = [Gateway::Nginx, Gateway::Haproxy, Gateway::Relay];
    let _proof = gateways.iter().fold(proves(cases), |proof, gateway| {
        proof.with(Foreign::CriStreaming, server_for("our client").through(name(*gateway)), GOS)
    });
    for gateway in gateways {
        let trial = Trial::of(Peer::go("cri-server", &[]), gateway);
        Trial { clients: &[Client::Exec, Client::Library], protocols: GOS, resets: true, ..trial }.run().await;
    }
}
