//! client-go's executors and port-forward at the URLs of the program `cri`.
//!
//! These tests repeat critest's tests of streams, over more transports and in more detail.

use std::process::Stdio;
use std::time::Duration;

use kubestream::protocol::Subprotocol;
use kubestream_interop::matrix::{self, Foreign, Over, Proof, client_of};
use kubestream_interop::{Input, Peer, Runtime, Spoken, binary, digest, execute, gone, pattern, within, written};
use rustix::process::{Pid, test_kill_process};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const TRANSPORTS: [&[&str]; 4] = [
    &["-transport", "spdy"],
    &["-transport", "websocket"],
    &["-transport", "fallback"],
    &["-transport", "websocket", "-protocols", "v4.channel.k8s.io"],
];

/// The protocol that each of them chooses.
const OVER: [Over; 4] = [Over::SpdyV4, Over::WebSocketV5, Over::Fallback, Over::WebSocketV4];

/// client-go proves it, at URLs that the kubelet's client has asked for.
fn proves(cases: &str, over: &[Over]) -> [Proof; 2] {
    let urls = matrix::proves("URLs for exec, attach and port-forward");
    let cases = matrix::proves(cases).with(Foreign::ClientGo, client_of("`cri`"), over.iter().copied());
    [cases, urls.with(Foreign::CriClient, client_of("`cri`"), [Over::Cri])]
}

fn record(stream: &str, text: &str) -> (String, String, String) {
    (stream.to_owned(), "F".to_owned(), text.to_owned())
}

/// As critest's "exec with tty=false and stdin=false", with more checks.
#[tokio::test]
async fn exec_has_its_outputs_its_stdin_and_its_exit_code() {
    let _proof = proves("output; exit code 7; 3 MB there and back; a command that does not exist", &OVER);
    let runtime = Runtime::new().await;
    let container = runtime.start(&[], json!({})).await;
    let sent = pattern(3_000_000);
    for transport in TRANSPORTS {
        let (ended, outcome) = runtime.exec(&container, &["echo", "hello"], transport, Input::Null).await;
        let seen = (&ended.stdout[..], &ended.stderr[..], &outcome["exitCode"]);
        assert_eq!(seen, (&b"hello\n"[..], "", &json!(0)), "{transport:?}");
        let (_, outcome) = runtime.exec(&container, &["sh", "-c", "exit 7"], transport, Input::Null).await;
        assert_eq!(outcome["exitCode"], 7, "{transport:?}");
        let (ended, _) =
            runtime.exec(&container, &["head", "-c", "3000000"], transport, Input::Bytes(sent.clone())).await;
        assert_eq!(digest(&ended.stdout), digest(&sent), "{transport:?}");
        let (_, outcome) = runtime.exec(&container, &["/no/such/command"], transport, Input::Null).await;
        assert!(outcome["error"].as_str().is_some_and(|error| error.contains("/no/such/command")), "{outcome}");
    }
    let both = json!({"containerId": container, "cmd": ["true"], "tty": true, "stdout": true, "stderr": true});
    assert_eq!(runtime.refused("Exec", both).await, "InvalidArgument");
}

#[tokio::test]
async fn an_exec_ends_with_its_container() {
    let _proof = proves("an exec ends with its container", &OVER);
    let runtime = Runtime::new().await;
    for transport in TRANSPORTS {
        let container = runtime.start(&[], json!({})).await;
        let script = format!("echo $$ > {}; exec sleep 1000", runtime.scratch.file("pid").display());
        let stop = async {
            let process = runtime.scratch.pid("pid").await;
            runtime.call("StopContainer", json!({"containerId": container, "timeout": 5})).await;
            gone(process).await;
        };
        let command = ["sh", "-c", &script];
        let ((_, outcome), ()) = tokio::join!(runtime.exec(&container, &command, transport, Input::Null), stop);
        assert_eq!(outcome["exitCode"], 137, "{transport:?}: {outcome}");
        std::fs::remove_file(runtime.scratch.file("pid")).expect("a file is removed");
    }
}

/// As critest's "exec with tty=true and stdin=true".
#[tokio::test]
async fn exec_on_a_terminal_has_its_lines_ends_and_its_size() {
    let _proof = proves("a terminal and its size", &OVER);
    let runtime = Runtime::new().await;
    let container = runtime.start(&[], json!({})).await;
    for transport in TRANSPORTS {
        let until = "until [ \"$(stty size)\" = '24 80' ]; do sleep 0.01; done; echo hello";
        let command = ["sh", "-c", until];
        let request = json!({"containerId": container, "cmd": command, "tty": true, "stdin": true, "stdout": true});
        let url = runtime.url("Exec", request).await;
        let arguments: Vec<_> = transport.iter().copied().chain(["-tty", "-resize", "80x24"]).collect();
        let (ended, outcome) = execute(&url, &arguments, "stdin=1&stdout=1&tty=1", Input::Bytes(Vec::new())).await;
        let shown = String::from_utf8_lossy(&ended.stdout).replace("^D\u{8}\u{8}", "");
        assert_eq!((&shown[..], &outcome["exitCode"]), ("hello\r\n", &json!(0)), "{transport:?}: {outcome}");
    }
}

/// As critest's "attach".
#[tokio::test]
async fn a_shell_whose_stdin_is_for_one_client_ends_with_it() {
    let _proof = proves("attach with stdin that ends with its first client", &OVER[..3]);
    let runtime = Runtime::new().await;
    // v4 cannot end stdin over WebSocket.
    for transport in &TRANSPORTS[..3] {
        let shell = runtime.start(&["sh"], json!({"stdin": true, "stdinOnce": true})).await;
        let (ended, outcome) = runtime.attach(&shell, transport, Input::Bytes(b"echo hello\n".to_vec())).await;
        let seen = (&ended.stdout[..], &ended.stderr[..], &outcome["error"]);
        assert_eq!(seen, (&b"hello\n"[..], "", &json!("")), "{transport:?}");
        assert_eq!(runtime.exited(&shell).await["exitCode"], 0, "{transport:?}");
    }
}

/// Before v5 a client ends stdin by a Close. What it has sent belongs to the process.
#[tokio::test]
async fn stdin_that_came_before_a_close_reaches_the_process() {
    let cases = "5 B, 100 kB and 5 MB of stdin before a Close, of exec and of attach";
    let _proof = matrix::proves(cases).with(Foreign::Bytes, client_of("`cri`"), [Over::WebSocketV4]);
    let runtime = Runtime::new().await;
    let path = runtime.scratch.path().display();
    let script = format!("cat >{path}/part && mv {path}/part {path}/whole");
    let once = json!({"stdin": true, "stdinOnce": true});
    for size in [5, 100_000, 5_000_000] {
        for attach in [false, true] {
            let program = ["sh", "-c", &script];
            let url = if attach {
                let container = runtime.start(&program, once.clone()).await;
                runtime.url("Attach", json!({"containerId": container, "stdin": true, "stdout": true})).await
            } else {
                let container = runtime.start(&[], json!({})).await;
                let request = json!({"containerId": container, "stdin": true, "stdout": true, "cmd": program});
                runtime.url("Exec", request).await
            };
            let mut client = Spoken::client(&url, Subprotocol::V4).await;
            for piece in pattern(size).chunks(30_000) {
                client.says(0, piece).await;
            }
            client.closes().await;
            let whole = runtime.scratch.file("whole");
            assert_eq!(digest(&written(&whole).await), digest(&pattern(size)), "attach: {attach}");
            within("the server's end", client.to_the_end()).await;
            std::fs::remove_file(whole).expect("a file is removed");
        }
    }
}

#[tokio::test]
async fn whoever_is_attached_sees_what_the_process_says_and_it_goes_on() {
    let _proof = proves("attach, one and several, with stdin that goes on", &OVER[..3]);
    let runtime = Runtime::new().await;
    let script = r#"while read line; do echo "out:$line"; echo "err:$line" >&2; done"#;
    let container = runtime.start(&["sh", "-c", script], json!({"stdin": true})).await;
    let url = runtime.url("Attach", json!({"containerId": container, "stdout": true})).await;
    let mut watcher = Command::new(binary("exec-client"));
    watcher.args(["-url", &format!("{url}?stdout=1")]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut watcher = watcher.spawn().expect("a client");
    let mut seen = BufReader::new(watcher.stdout.take().expect("a pipe")).lines();
    // A client sees nothing until it is attached, so it looks again after this time.
    const GLANCE: Duration = Duration::from_millis(200);
    let attached = async {
        while tokio::time::timeout(GLANCE, seen.next_line()).await.is_err() {
            runtime.attach(&container, TRANSPORTS[0], Input::Bytes(b"ping\n".to_vec())).await;
        }
    };
    within("the watcher", attached).await;
    for (transport, line) in TRANSPORTS.iter().zip(["one", "two", "three"]) {
        let (ended, outcome) = runtime.attach(&container, transport, Input::Bytes(format!("{line}\n").into())).await;
        let (out, err) = (format!("out:{line}\n"), format!("err:{line}\n"));
        let talked = (String::from_utf8_lossy(&ended.stdout), &ended.stderr[..], &outcome["error"]);
        assert_eq!(talked, (out.as_str().into(), &err[..], &json!("")), "{transport:?}");
        assert_eq!(runtime.status(&container).await["state"], "CONTAINER_RUNNING", "{transport:?}");
        let told = async {
            loop {
                let line = seen.next_line().await.expect("text").expect("a line");
                if line != "out:ping" {
                    return line;
                }
            }
        };
        assert_eq!(within("the watcher's line", told).await, out.trim_end(), "{transport:?}");
    }
    runtime.call("StopContainer", json!({"containerId": container, "timeout": 5})).await;
    let ended = within("the watcher's end", watcher.wait()).await.expect("a status");
    assert_eq!((ended.code(), seen.next_line().await.expect("text")), (Some(0), None), "its end is who watches it's");

    let mut log = runtime.log();
    log.retain(|(_, _, text)| !text.ends_with(":ping"));
    log.sort();
    let lines = |stream, start: &str| ["one", "three", "two"].map(|line| record(stream, &format!("{start}:{line}")));
    assert_eq!(log, [lines("stderr", "err"), lines("stdout", "out")].concat());
    assert_eq!(
        runtime.refused("Attach", json!({"containerId": container, "stdout": true})).await,
        "FailedPrecondition"
    );
}

/// As critest's "portforward", with an echo in place of a web server.
#[tokio::test]
async fn port_forward_reaches_a_port_and_one_that_is_gone_takes_no_connection_with_it() {
    let _proof =
        proves("1 MB there and back; a port that is gone takes no connection with it", &[Over::Forward, Over::Tunnel]);
    let runtime = Runtime::new().await;
    let sent = pattern(1_000_000);
    for transport in ["spdy", "tunnel"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut listening = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = near.split();
                    let _ = tokio::io::copy(&mut reads, &mut writes).await;
                    writes.shutdown().await
                });
            }
        });
        let url = runtime.url("PortForward", json!({"podSandboxId": runtime.pod})).await;
        let forward = Peer::forward_client(&url, transport, &[port]);
        let local = ("127.0.0.1", forward.ports()[0]);
        for _ in 0..3 {
            let mut connection = TcpStream::connect(local).await.expect("a connection");
            let (mut reads, mut writes) = connection.split();
            let mut back = Vec::new();
            let send = async {
                writes.write_all(&sent).await.expect("it is sent");
                writes.shutdown().await.expect("and ended");
            };
            within("the echo", async { tokio::join!(send, reads.read_to_end(&mut back)) }).await.1.expect("an echo");
            assert_eq!(digest(&back), digest(&sent), "{transport}");
        }
        let mut stays = TcpStream::connect(local).await.expect("a connection");
        for gone in [false, true] {
            if gone {
                listening.abort();
                let _ = (&mut listening).await;
                let mut refused = TcpStream::connect(local).await.expect("a connection");
                let read = within("the end of what is refused", refused.read(&mut [0])).await;
                assert!(matches!(read, Ok(0)), "{transport}: {read:?}");
            }
            stays.write_all(b"ping").await.expect("it is sent");
            let mut pong = [0; 4];
            within("the answer", stays.read_exact(&mut pong)).await.expect("an answer");
            assert_eq!(&pong, b"ping", "{transport}");
        }
    }
    runtime.call("StopPodSandbox", json!({"podSandboxId": runtime.pod})).await;
    assert_eq!(runtime.refused("PortForward", json!({"podSandboxId": runtime.pod})).await, "FailedPrecondition");
}

#[tokio::test]
async fn with_a_runtime_ends_all_that_it_has_started() {
    let _proof = proves("the end of the runtime is that of all its processes", &[Over::SpdyV4]);
    let runtime = Runtime::new().await;
    let write = |name: &str| format!("echo $$ > {}", runtime.scratch.file(name).display());
    let container = runtime.start(&["sh", "-c", &format!("{}; sleep 1000 & wait", write("main"))], json!({})).await;
    // A process that an exec leaves behind belongs to the container, even in another group and session.
    let daemon = format!("setsid sh -c '{}; exec sleep 1000' >/dev/null 2>&1 &", write("daemon"));
    let (_, outcome) = runtime.exec(&container, &["sh", "-c", &daemon], TRANSPORTS[0], Input::Null).await;
    assert_eq!(outcome["exitCode"], 0);
    let terminal = format!("{}; exec sleep 1000", write("terminal"));
    runtime.start(&["sh", "-c", &terminal], json!({"tty": true, "stdin": true})).await;
    let mut processes: Vec<Pid> = Vec::new();
    for name in ["main", "daemon", "terminal"] {
        processes.push(runtime.scratch.pid(name).await);
    }
    assert!(processes.iter().all(|process| test_kill_process(*process).is_ok()));
    let Runtime { peer, scratch, .. } = runtime;
    drop(peer);
    for process in processes {
        gone(process).await;
    }
    assert!(!scratch.file("cri.sock").exists(), "and so is its socket");
}
