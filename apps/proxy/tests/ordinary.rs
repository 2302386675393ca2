//! The program between a client and a backend that the test plays: which requests it passes on, and how.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use kubestream_apps_testing::Serving;

fn proxy(backend: &str, arguments: &[&str]) -> Serving {
    Serving::start(env!("CARGO_BIN_EXE_proxy"), &[&["--backend", backend][..], arguments].concat())
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
        io.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

fn ask(proxy: &Serving, request: &str) -> String {
    let mut io = TcpStream::connect(&proxy.address).unwrap();
    io.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    io.write_all(request.as_bytes()).unwrap();
    head(&mut io)
}

#[test]
fn an_ordinary_request_is_passed_on_with_its_body_whatever_its_connection_says() {
    let (url, requests) = backend("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    let proxy = proxy(&url, &["--allow-host", "*"]);
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

#[test]
fn a_chunked_body_is_passed_on_and_what_follows_it_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = proxy(&format!("http://{}", listener.local_addr().unwrap()), &[]);
    let mut client = TcpStream::connect(&proxy.address).unwrap();
    let asks = "POST /configmaps HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n";
    client.write_all(asks.as_bytes()).unwrap();
    let (mut backend, _) = listener.accept().unwrap();
    let head = head(&mut backend);
    assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
    assert!(!head.contains("content-length") && !head.contains("trailer"), "{head}");
    // A chunk does not wait for the next one.
    for (chunk, heard) in [("2;a=b\r\n{}\r\n", "2\r\n{}\r\n"), ("003\r\n\r\n \r\n", "3\r\n\r\n \r\n")] {
        client.write_all(chunk.as_bytes()).unwrap();
        let mut bytes = vec![0; heard.len()];
        backend.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), heard);
    }
    client.write_all(b"0\r\nX-Sum: 1\r\n\r\nGET /secrets HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut end = [0; 5];
    backend.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
    backend.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").unwrap();
    backend.shutdown(std::net::Shutdown::Write).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let mut more = String::new();
    let _ = backend.read_to_string(&mut more);
    assert_eq!(more, "");
}

/// A browser's page whose gateway has rewritten `Host`.
const PAGE: &str = "GET /api/v1/namespaces/default/pods/demo/exec?command=true&stdout=true HTTP/1.1\r\nHost: 10.0.0.1\r\n\
    Origin: https://console.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";

#[test]
fn a_page_of_another_origin_is_let_in_if_that_is_allowed() {
    let (url, requests) = backend(
        "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
    );
    for (arguments, status) in [
        (&[][..], "http/1.1 403 "),
        (&["--allow-origin", "https://other.example"], "http/1.1 403 "),
        (&["--allow-origin", "https://other.example", "--allow-origin", "https://console.example"], "http/1.1 101 "),
        (&["--allow-origin", "*"], "http/1.1 101 "),
    ] {
        let answer = ask(&proxy(&url, &[&["--allow-host", "10.0.0.1"], arguments].concat()), PAGE);
        assert!(answer.starts_with(status), "{arguments:?}: {answer}");
    }
    assert!(requests.recv().unwrap().0.starts_with("get /api/v1/"));
}

/// An `http::Uri` has at most 65,534 bytes.
#[test]
fn a_command_longer_than_a_uri_reaches_the_backend_over_every_way() {
    let (url, requests) = backend("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let script = "x".repeat(100_000);
    let session =
        PAGE.replace("Origin: https://console.example\r\n", "").replace("command=true", &format!("command={script}"));
    let plain = format!("GET /?{script} HTTP/1.1\r\nHost: a\r\n\r\n");
    let recordings = tempfile::tempdir().unwrap();
    let directory = recordings.path().to_str().unwrap();
    for (arguments, request) in
        [(&[][..], &session), (&["--translate", "spdy"], &session), (&["--record", directory], &session), (&[], &plain)]
    {
        let proxy = proxy(&url, &[&["--allow-host", "*"], arguments].concat());
        assert!(ask(&proxy, request).starts_with("http/1.1 403 "), "{arguments:?}");
        let (head, _) = requests.recv().unwrap();
        assert!(head.lines().next().unwrap().contains(&script), "{arguments:?}");
    }
}

#[test]
fn beside_recordings_only_known_requests_pass() {
    let (url, requests) = backend("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let recordings = tempfile::tempdir().unwrap();
    let proxy = proxy(&url, &["--allow-host", "*", "--record", recordings.path().to_str().unwrap()]);
    for path in ["/api/v1/nodes/n1/proxy/run/default/web/main?cmd=id", "/api/v1/nodes/n1/%70roxy/run/default/web/main"]
    {
        let answer = ask(&proxy, &format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert!(answer.starts_with("http/1.1 403 "), "{answer}");
    }
    let answer = ask(&proxy, "GET /api/v1/namespaces/default/pods/web HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert!(
        requests.recv().unwrap().0.starts_with("get /api/v1/namespaces/default/pods/web "),
        "the only one that passed"
    );
}
