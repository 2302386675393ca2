//! Runs `port-forward` as its users do, with the built-in node.
//!
//! Looks at the program from outside: its output, its exit code and its sockets.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use kubestream_apps_testing::{HOSTILE, SHOWN, listening};

/// Anybody on the machine could run commands through another socket.
#[test]
#[cfg(target_os = "linux")]
fn the_only_sockets_are_those_that_are_forwarded() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = format!(":{}", target.local_addr().unwrap().port());
    let mut process = Command::new(env!("CARGO_BIN_EXE_port-forward"))
        .args(["--address", "127.0.0.1", &ports])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let local = line.split(' ').nth(2).unwrap();
    let mut client = TcpStream::connect(local).unwrap();
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
    use kubestream::mux::{Config, Multiplexer};
    use kubestream::portforward::PortForwardServer;
    use kubestream::upgrade::{self, Protocol};

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
