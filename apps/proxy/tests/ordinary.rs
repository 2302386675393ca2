//! The program between a client and a backend that the test plays: which requests it passes on, and how.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// The program, which ends with the test.
struct Proxy(Child, String);

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn proxy(backend: &str, arguments: &[&str]) -> Proxy {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxy"));
    command.args(["--listen", "127.0.0.1:0", "--backend", backend]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    Proxy(child, address)
}

/// A backend that answers every request with these lines. Returns its URL, and the requests with their bodies.
fn backend(answer: &'static str) -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, requests) = channel();
    thread::spawn(move || {
        while let Ok((mut io, _)) = listener.accept() {
            let head = head(&mut io);
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            let mut body = vec![0; length.parse().unwrap()];
            io.read_exact(&mut body).unwrap();
            io.write_all(answer.as_bytes()).unwrap();
            asked.send((head, String::from_utf8(body).unwrap())).unwrap();
        }
    });
    (url, requests)
}

/// A head, in lower case.
fn head(io: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(io.read(&mut byte).unwrap(), 1, "{}", head.escape_ascii());
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

fn ask(proxy: &Proxy, request: &str) -> String {
    let mut io = TcpStream::connect(&proxy.1).unwrap();
    io.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    io.write_all(request.as_bytes()).unwrap();
    head(&mut io)
}

#[test]
fn an_ordinary_request_is_passed_on_with_its_body_whatever_its_connection_says() {
    let (url, requests) = backend("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    let proxy = proxy(&url, &[]);
    for (version, lines) in [
        ("HTTP/1.1", ""),
        // nginx writes this on every request in a common configuration.
        ("HTTP/1.1", "Connection: upgrade\r\n"),
        // Java's HttpClient.
        ("HTTP/1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"),
        ("HTTP/1.0", ""),
        ("HTTP/1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ] {
        let request = format!("POST /configmaps {version}\r\nHost: a\r\n{lines}Content-Length: 2\r\n\r\n{{}}");
        assert!(ask(&proxy, &request).starts_with("http/1.1 201 "), "{request}");
        let (head, body) = requests.recv().unwrap();
        assert!(head.starts_with(&format!("post /configmaps {version}\r\n").to_lowercase()), "{head}");
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
        assert_eq!(body, "{}");
    }
    // A health check of HAProxy.
    assert!(ask(&proxy, "OPTIONS / HTTP/1.0\r\n\r\n").starts_with("http/1.1 201 "));
}
