//! client-go's executors at the one-use URLs of our streaming server.

use std::process::Stdio;

use kubestream::exec::{Error, ExecServer, Streams};
use kubestream::portforward::Request;
use kubestream::status::ExitStatus;
use kubestream_interop::matrix::{self, Foreign, Over, Proof, client_of};
use kubestream_interop::{Input, digest, execute, pattern};
use kubestream_runtime::{Runtime, RuntimeConfig, Server};
use tokio::net::TcpListener;
use tokio::process::Command;

/// A runtime whose containers are this machine.
struct Processes;

impl Runtime for Processes {
    async fn exec(&self, _: String, command: Vec<String>, _: Streams, mut session: ExecServer) -> Result<(), Error> {
        match &command[0][..] {
            "return" => return Ok(()),
            "panic" => panic!("as runtimes do"),
            _ => {}
        }
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let (mut to, mut from) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut complaints = child.stderr.take().expect("a pipe");
        let (stdin, stdout, stderr) = (session.stdin.take(), session.stdout.take(), session.stderr.take());
        let feed = tokio::spawn(async move {
            if let Some(mut stdin) = stdin {
                // A command may leave its stdin unread.
                let _ = tokio::io::copy(&mut stdin, &mut to).await;
            }
        });
        let out = async {
            let Some(mut stdout) = stdout else { return };
            let _ = tokio::io::copy(&mut from, &mut stdout).await;
        };
        let err = async {
            let Some(mut stderr) = stderr else { return };
            let _ = tokio::io::copy(&mut complaints, &mut stderr).await;
        };
        let (status, (), ()) = tokio::join!(child.wait(), out, err);
        feed.abort();
        session.exit(ExitStatus::Code(status.expect("a status").code().unwrap_or(255))).await
    }

    async fn attach(&self, _: String, _: Streams, session: ExecServer) -> Result<(), Error> {
        session.exit(ExitStatus::Success).await
    }

    async fn port_forward(&self, _: &str, request: Request) {
        request.fail("nothing listens");
    }
}

async fn start() -> Server<Processes> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let server = Server::new(Processes, &base, RuntimeConfig::default()).expect("a server");
    tokio::spawn({
        let server = server.clone();
        async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(tcp).await });
            }
        }
    });
    server
}

const TRANSPORTS: [&[&str]; 4] = [
    &["-transport", "spdy"],
    &["-transport", "websocket"],
    &["-transport", "websocket", "-protocols", "v4.channel.k8s.io"],
    &["-transport", "fallback"],
];
/// The protocol that each of them chooses.
const OVER: [Over; 4] = [Over::SpdyV4, Over::WebSocketV5, Over::WebSocketV4, Over::Fallback];

fn proves(cases: &str, over: &[Over]) -> Proof {
    matrix::proves(cases).with(Foreign::ClientGo, client_of("`streaming`"), over.iter().copied())
}

#[tokio::test]
async fn a_one_use_url_runs_its_command_and_no_other() {
    let _proof = proves("outputs apart; exit code 7; a URL is good for one use", &OVER);
    let server = start().await;
    for transport in TRANSPORTS {
        let command = ["sh", "-c", "echo out; echo err >&2; exit 7"];
        let url = server.exec_url("c", command, Streams::OUTPUT).expect("a URL");
        let (ended, outcome) = execute(&url, transport, "stdout=1&stderr=1", Input::Null).await;
        let stderr = ended.stderr.lines().next();
        assert_eq!(
            (&ended.stdout[..], stderr, &outcome["exitCode"]),
            (&b"out\n"[..], Some("err"), &7.into()),
            "{transport:?}"
        );
        let (_, outcome) = execute(&url, transport, "stdout=1&stderr=1", Input::Null).await;
        assert_eq!(outcome["exitCode"], -1, "{transport:?}");
        assert!(outcome["error"].as_str().is_some_and(|error| error.contains("404")), "{transport:?}: {outcome}");
    }
}

/// client-go takes an end without a status for a success.
#[tokio::test]
async fn a_session_that_its_runtime_lets_go_has_failed() {
    let _proof = proves("a session that its runtime lets go is a failure", &OVER);
    let server = start().await;
    for transport in TRANSPORTS {
        for how in ["return", "panic"] {
            let url = server.exec_url("c", [how], Streams::OUTPUT).expect("a URL");
            let (_, outcome) = execute(&url, transport, "stdout=1&stderr=1", Input::Null).await;
            assert_eq!(outcome["exitCode"], -1, "{transport:?} {how}: {outcome}");
            let said = outcome["error"].as_str().unwrap_or_default();
            assert!(said.contains("the server let the session go"), "{transport:?} {how}: {outcome}");
        }
    }
}

#[tokio::test]
async fn ten_megabytes_come_back_the_same() {
    let _proof = proves("10 MB there and back", &OVER[..2]);
    let server = start().await;
    let sent = pattern(10_000_000);
    let want = Streams { stdin: true, stdout: true, stderr: false, tty: false };
    for transport in &TRANSPORTS[..2] {
        let url = server.exec_url("c", ["cat"], want).expect("a URL");
        let (ended, outcome) = execute(&url, transport, "stdin=1&stdout=1", Input::Bytes(sent.clone())).await;
        assert_eq!(
            (digest(&ended.stdout), &outcome["exitCode"]),
            (digest(&sent), &0.into()),
            "{transport:?}: {outcome}"
        );
    }
}
