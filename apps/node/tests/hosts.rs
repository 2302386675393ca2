//! Which requests the node answers: those for its own hosts, and none of a web page of another site.
//!
//! Plays a browser over bare TCP. It runs no session.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use kubestream_apps_testing::Serving;

struct Node(Serving);

impl Node {
    fn start(arguments: &[&str]) -> Self {
        Self(Serving::start(env!("CARGO_BIN_EXE_node"), arguments))
    }

    /// The status code of the answer to a request with these header lines, and the whole answer.
    fn answers(&self, headers: &str) -> (u16, String) {
        let mut tcp = TcpStream::connect(&self.0.address).unwrap();
        tcp.write_all(format!("GET /version HTTP/1.1\r\n{headers}\r\n").as_bytes()).unwrap();
        tcp.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    fn port(&self) -> &str {
        self.0.address.rsplit(':').next().unwrap()
    }
}

#[test]
fn a_name_that_was_made_to_lead_to_the_node_is_not_answered() {
    let node = Node::start(&[]);
    let port = node.port();
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.3.2.1", "localhost."] {
        for host in [host.to_owned(), format!("{host}:{port}"), format!("{host}:9")] {
            let (code, answer) = node.answers(&format!("Host: {host}\r\n"));
            assert_eq!(code, 200, "{host}: {answer}");
        }
    }
    for host in
        ["rebound.example", "localhost.rebound.example", "127.0.0.1.rebound.example", "192.0.2.1", "me@localhost", ""]
    {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            let (code, answer) = node.answers(&format!("Host: {host}\r\n"));
            assert_eq!(code, 421, "{host:?}: {answer}");
        }
    }
    let upgrade = "Host: rebound.example\r\nOrigin: http://rebound.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(node.answers(upgrade).0, 421);
}

#[test]
fn a_host_that_is_allowed_is_answered() {
    let node = Node::start(&["--allow-host", "node.example", "--allow-host", "Other.Example"]);
    for (host, expected) in
        [("node.example", 200), ("other.example:80", 200), ("localhost", 200), ("else.example", 421)]
    {
        assert_eq!(node.answers(&format!("Host: {host}\r\n")).0, expected, "{host}");
    }
    let node = Node::start(&["--allow-host", "*"]);
    assert_eq!(node.answers("Host: any.example\r\n").0, 200);
}

#[test]
fn a_page_of_another_site_is_not_answered() {
    let node = Node::start(&[]);
    let (port, own) = (node.port(), &node.0.address);
    for (lines, expected) in [
        (String::new(), 200),
        (format!("Origin: http://{own}\r\n"), 200),
        (format!("Origin: http://{own}\r\nSec-Fetch-Site: same-origin\r\n"), 200),
        ("Sec-Fetch-Site: none\r\n".to_owned(), 200),
        ("Origin: https://evil.example\r\n".to_owned(), 403),
        (format!("Origin: http://localhost:{port}\r\n"), 403),
        ("Origin: http://127.0.0.1:1\r\n".to_owned(), 403),
        ("Origin: null\r\n".to_owned(), 403),
        (format!("Origin: http://{own}\r\nOrigin: http://{own}\r\n"), 403),
        ("Sec-Fetch-Site: cross-site\r\n".to_owned(), 403),
        ("Sec-Fetch-Site: same-site\r\n".to_owned(), 403),
        (format!("Origin: http://{own}\r\nSec-Fetch-Site: cross-site\r\n"), 403),
    ] {
        let (code, answer) = node.answers(&format!("Host: {own}\r\n{lines}"));
        assert_eq!(code, expected, "{lines}: {answer}");
    }
}
