//! Runs `port-forward` as its users do, with the built-in node.
//!
//! Looks at the program from outside: its output, its exit code and its sockets.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::PortForwardServer;
use kubestream::upgrade::{self, Protocol};
use kubestream_apps_testing::{HOSTILE, SHOWN, listening};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The program with the built-in node, and the local address at which it forwards to a listener.
fn forwarded(target: &TcpListener) -> (Child, String) {
    let ports = format!(":{}", target.local_addr().unwrap().port());
    let mut process = Command::new(env!("CARGO_BIN_EXE_port-forward"))
        .args(["--address", "127.0.0.1", &ports])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let local = line.split(' ').nth(2).unwrap().to_owned();
    (process, local)
}

/// Anybody on the machine could run commands through another socket.
#[test]
#[cfg(target_os = "linux")]
fn the_only_sockets_are_those_that_are_forwarded() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut process, local) = forwarded(&target);
    let mut client = TcpStream::connect(&local).unwrap();
    let (mut server, _) = target.accept().unwrap();
    let listening = listening(process.id());
    client.write_all(b"asked").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    server.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "asked");
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(listening, 1);
}

/// Starts the program with the built-in node, and returns what it says: the first lines of stdout, as many as are asked
/// for, and all of stderr.
fn told(arguments: &[&str], lines: usize) -> (Vec<String>, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_port-forward"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    // Nobody closes stdout while the program still writes.
    let said = stdout.by_ref().lines().take(lines).map(Result::unwrap).collect();
    process.kill().unwrap();
    (said, String::from_utf8(process.wait_with_output().unwrap().stderr).unwrap())
}

#[test]
fn localhost_is_an_address_beside_others() {
    let (said, errors) = told(&["--address", "127.0.0.1,localhost,127.0.0.1", ":80"], 1);
    assert!(said[0].starts_with("Forwarding from 127.0.0.1:") && errors.is_empty(), "{said:?} {errors}");
    let output = Command::new(env!("CARGO_BIN_EXE_port-forward")).args(["--address", "pod", ":80"]).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("\"pod\" is neither an IP address nor localhost"), "{errors}");
}

#[test]
fn a_local_port_that_is_taken_is_named_and_ends_no_other() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ports = format!("{}:80", address.port());
    let unable = format!("unable to listen on {address}: Address already in use");
    let (said, errors) = told(&["--address", "127.0.0.1", &ports, ":81"], 1);
    assert!(said[0].starts_with("Forwarding from 127.0.0.1:") && said[0].ends_with(" -> 81"), "{said:?}");
    assert!(errors.starts_with(&format!("warning: {unable}")) && errors.lines().count() == 1, "{errors}");
    let (said, errors) = told(&["--address", "127.0.0.1", &ports], 1);
    let all = format!("error: unable to listen on any of the requested ports: {unable}");
    assert!(said.is_empty() && errors.starts_with(&all), "{said:?} {errors}");
}

/// Kubelets try both families.
#[test]
fn a_pod_that_listens_on_ipv6_alone_is_reached() {
    let Ok(target) = TcpListener::bind("[::1]:0") else { return };
    let (mut process, local) = forwarded(&target);
    let mut client = TcpStream::connect(&local).unwrap();
    let serving = std::thread::spawn(move || target.accept().unwrap().0.write_all(b"hello"));
    let mut heard = String::new();
    let read = client.read_to_string(&mut heard);
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!((read.unwrap(), &heard[..]), (5, "hello"));
    serving.join().unwrap().unwrap();
}

/// The name would be part of the path of the request.
#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    for (option, kind) in [("--pod", "pod"), ("--namespace", "namespace")] {
        for name in ["../demo", "demo?x", "..", ""] {
            let output = Command::new(env!("CARGO_BIN_EXE_port-forward")).args([option, name, ":80"]).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            assert!(said.starts_with(&format!("error: invalid {kind} name {name:?}: ")), "{name}: {said}");
        }
    }
}

#[test]
fn a_refusal_does_not_reach_the_terminal_raw() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in server.incoming().flatten() {
            BufReader::new(&client).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let length = HOSTILE.len();
            let _ = write!(&client, "HTTP/1.1 404 Not Found\r\nContent-Length: {length}\r\n\r\n{HOSTILE}");
        }
    });
    let output = Command::new(env!("CARGO_BIN_EXE_port-forward")).args(["--server", &url, ":80"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let reason = format!("{} (404 Not Found)", SHOWN.split("\\n").next().unwrap());
    let address = url.strip_prefix("http://").unwrap();
    let both = "(over WebSocket, and again over SPDY)";
    assert_eq!(said, format!("error: {address}: unable to upgrade connection: {reason} {both}\n"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_server_that_cannot_be_reached_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let arguments = ["--server", &format!("http://{address}"), ":80"];
    let output = Command::new(env!("CARGO_BIN_EXE_port-forward")).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("error: cannot connect to {address}: Connection refused\n"));
}

#[tokio::test]
async fn the_reason_of_a_port_does_not_reach_the_terminal_raw() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_port-forward"))
        .args(["--server", &format!("http://{}", server.local_addr().unwrap()), "--address", "127.0.0.1", ":80"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (tcp, _) = server.accept().await.unwrap();
    let pending = upgrade::accept(tcp, &upgrade::Config::default()).await.unwrap();
    let upgraded = pending.accept(Protocol::ANY_PORT_FORWARD).await.unwrap();
    let (mux, driver) = Multiplexer::server(upgraded, Config::default());
    tokio::spawn(driver);
    let mut ports = PortForwardServer::new(mux).unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(process.stdout.take().unwrap()));
    let line = lines.next_line().await.unwrap().unwrap();
    let _client = tokio::net::TcpStream::connect(line.split(' ').nth(2).unwrap()).await.unwrap();
    ports.accept().await.unwrap().unwrap().fail(HOSTILE);
    let mut errors = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(process.stderr.take().unwrap()));
    let said = errors.next_line().await.unwrap().unwrap();
    // The library has left out what is a control character.
    assert!(said.contains("no\\u{202e}") && !said.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{said:?}");
}

/// A server in front of a pod. It answers each upgrade with the next of these: a status and a text, or `None`, which is
/// a 101. After the last answer each is a 101. Returns its URL, and the tasks that drive the upgraded connections: the
/// connection is lost if its task is aborted.
async fn front(answers: Vec<Option<&'static str>>) -> (String, mpsc::UnboundedReceiver<JoinHandle<()>>) {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let (connected, connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Ok((tcp, _)) = server.accept().await {
            let pending = upgrade::accept(tcp, &upgrade::Config::default()).await.unwrap();
            if let Some(refusal) = answers.next().flatten() {
                let (status, text) = refusal.split_once(' ').unwrap();
                let response = http::Response::builder().status(status).body(text.into()).unwrap();
                pending.respond(response).await.unwrap();
                continue;
            }
            let upgraded = pending.accept(Protocol::ANY_PORT_FORWARD).await.unwrap();
            let (mux, driver) = Multiplexer::server(upgraded, Config::default());
            connected.send(tokio::spawn(async move { drop(driver.await) })).unwrap();
            tokio::spawn(async move {
                let mut ports = PortForwardServer::new(mux).unwrap();
                while let Some(Ok(request)) = ports.accept().await {
                    let _ = request.accept().send("hello".into()).await;
                }
            });
        }
    });
    (url, connections)
}

/// Starts the program, and returns it with the address that it listens on.
async fn forwarding(url: &str) -> (tokio::process::Child, String) {
    let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_port-forward"))
        .args(["--server", url, "--address", "127.0.0.1", ":80"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(process.stdout.take().unwrap()));
    let line = lines.next_line().await.unwrap().unwrap();
    // What it says later is read, so that it can go on.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (process, line.split(' ').nth(2).unwrap().to_owned())
}

/// What a local program reads from the port until its connection is closed. `None` if nothing listens.
async fn read(address: &str) -> Option<Vec<u8>> {
    let mut had = Vec::new();
    let mut client = match tokio::net::TcpStream::connect(address).await {
        Ok(client) => client,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
        // The connection was reset before the client saw that it was connected.
        Err(_) => return Some(had),
    };
    let _ = client.read_to_end(&mut had).await;
    Some(had)
}

/// No attempt waits longer than 10 s for the next.
const PATIENCE: Duration = Duration::from_secs(60);

/// kubectl ends with "lost connection to pod" there.
#[tokio::test]
async fn a_pod_that_is_gone_ends_the_program_with_the_reason() {
    const GONE: &str = "404 pods \"demo\" not found";
    let (url, mut connections) = front(vec![None, Some(GONE), Some(GONE)]).await;
    let (process, address) = forwarding(&url).await;
    connections.recv().await.unwrap().abort();
    // The program may still believe in its connection when the first of these comes.
    let ended = async { while read(&address).await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the program ends");
    let output = process.wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // A local connection that was lost may be reported before or after it.
    let errors: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!((output.status.code(), errors.len()), (Some(1), 1), "{said}");
    assert!(
        errors[0].starts_with("lost connection to pod: ") && errors[0].contains("pods \"demo\" not found"),
        "{said}"
    );
}

#[tokio::test]
async fn why_a_server_is_tried_again_is_told_once_for_each_reason() {
    const DOWN: Option<&str> = Some("503 down for maintenance");
    const BUSY: Option<&str> = Some("429 too many requests");
    // One answer for the tunnel, and one for SPDY.
    let (url, mut connections) = front(vec![None, DOWN, DOWN, DOWN, DOWN, BUSY, BUSY, DOWN, DOWN, None]).await;
    let (mut process, address) = forwarding(&url).await;
    connections.recv().await.unwrap().abort();
    let restored = async { while read(&address).await.unwrap() != b"hello" {} };
    tokio::time::timeout(PATIENCE, restored).await.expect("the connection is restored");
    process.start_kill().unwrap();
    let said = String::from_utf8(process.wait_with_output().await.unwrap().stderr).unwrap();
    let told: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("reconnecting: ")).collect();
    assert_eq!(told.len(), 2, "{said}");
    assert!(told[0].contains("down for maintenance") && told[1].contains("429 Too Many Requests"), "{said}");
}
