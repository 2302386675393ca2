//! The program and a client that the test plays: which requests it answers, and how.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use kubestream_apps_testing::Serving;

fn node(arguments: &[&str]) -> Serving {
    Serving::start(env!("CARGO_BIN_EXE_node"), arguments)
}

/// The status line of the answer.
fn ask(node: &Serving, request: &str) -> String {
    let mut io = TcpStream::connect(&node.address).unwrap();
    io.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    io.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(io).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[test]
fn an_ordinary_request_is_answered_whatever_its_version_and_its_connection() {
    let node = node(&["--allow-host", "*"]);
    assert_eq!(ask(&self::node(&[]), "GET /version HTTP/1.0\r\n\r\n"), "HTTP/1.1 200 OK");
    for request in [
        "GET /version HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /version HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\n{}",
        "GET /version HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
            HTTP2-Settings: AAEAAEAA\r\nContent-Length: 2\r\n\r\n{}",
        // HAProxy's health check.
        "GET /version HTTP/1.0\r\n\r\n",
        "GET /version HTTP/1.0\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(ask(&node, request), "HTTP/1.1 200 OK", "{request}");
    }
}

/// A browser's page whose gateway has rewritten `Host`.
const PAGE: &str = "GET /api/v1/namespaces/default/pods/demo/exec?command=true&stdout=true HTTP/1.1\r\nHost: 10.0.0.1\r\n\
    Origin: https://console.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";

#[test]
fn a_page_of_another_origin_is_let_in_if_that_is_allowed() {
    for (arguments, status) in [
        (&[][..], "HTTP/1.1 403 Forbidden"),
        (&["--allow-origin", "https://other.example"], "HTTP/1.1 403 Forbidden"),
        (
            &["--allow-origin", "https://other.example", "--allow-origin", "https://console.example"],
            "HTTP/1.1 101 Switching Protocols",
        ),
        (&["--allow-origin", "*"], "HTTP/1.1 101 Switching Protocols"),
    ] {
        let node = node(&[&["--allow-host", "10.0.0.1"], arguments].concat());
        assert_eq!(ask(&node, PAGE), status, "{arguments:?}");
    }
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_node")).args(["--listen", &address]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("unable to listen on {address}: Address already in use")), "{said}");
}
