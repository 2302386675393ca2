//! What the proxy asks of a request before its backend hears of it.
//!
//! Plays the client and the backend over bare TCP. It carries no session.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use kubestream_apps_testing::Serving;

/// A proxy, and a backend that never upgrades and counts who comes.
struct Proxy {
    serving: Serving,
    backend: TcpListener,
}

impl Proxy {
    fn start(arguments: &[&str]) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", backend.local_addr().unwrap());
        let fixed = ["--backend", &url, "--backend-token", "harmless"];
        let serving = Serving::start(env!("CARGO_BIN_EXE_proxy"), &[&fixed[..], arguments].concat());
        Self { serving, backend }
    }

    fn asks(&self, request: &str) -> TcpStream {
        let mut tcp = TcpStream::connect(&self.serving.address).unwrap();
        tcp.write_all(request.as_bytes()).unwrap();
        tcp
    }

    /// The answer to a request that must not reach the backend.
    fn refuses(&self, request: &str) -> String {
        let mut tcp = self.asks(request);
        tcp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut answer = String::new();
        let _ = tcp.read_to_string(&mut answer);
        self.backend.set_nonblocking(true).unwrap();
        let came = self.backend.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(came, Err(ErrorKind::WouldBlock), "the backend was dialled for {request}");
        self.backend.set_nonblocking(false).unwrap();
        answer
    }

    /// What the backend hears of a request, in lower case. The client gets a 200.
    fn passes_on(&self, request: &str) -> String {
        let tcp = self.asks(request);
        tcp.shutdown(Shutdown::Write).ok();
        let (backend, _) = self.backend.accept().unwrap();
        let mut lines = BufReader::new(&backend).lines().map(Result::unwrap);
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        head.join("\n").to_ascii_lowercase()
    }
}

const RUN: &str = "POST /api/v1/nodes/n/proxy/run/default/demo/main?cmd=true HTTP/1.1\r\nContent-Length: 0\r\n";

#[test]
fn a_page_of_another_site_does_not_get_the_credentials_of_the_proxy() {
    let proxy = Proxy::start(&[]);
    let own = &proxy.serving.address;
    for lines in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        let answer = proxy.refuses(&format!("{RUN}Host: {own}\r\n{lines}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{lines}: {answer}");
    }
    let answer = proxy.refuses(&format!("{RUN}Host: rebound.example\r\nOrigin: http://rebound.example\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    for lines in ["", "Sec-Fetch-Site: none\r\n", &format!("Origin: http://{own}\r\nSec-Fetch-Site: same-origin\r\n")] {
        let heard = proxy.passes_on(&format!("{RUN}Host: {own}\r\n{lines}\r\n"));
        assert!(heard.contains("\nauthorization: bearer harmless"), "{heard}");
        // The next proxy would judge them again, by its own name.
        assert!(!heard.contains("origin") && !heard.contains("sec-fetch"), "{heard}");
    }
}

#[test]
fn a_token_stands_in_for_the_host_and_not_for_the_origin() {
    let proxy = Proxy::start(&["--token", "s3cret"]);
    let asked = |lines: &str| format!("{RUN}Host: bastion.example\r\n{lines}\r\n");
    let token = "Authorization: Bearer s3cret\r\n";
    assert!(proxy.passes_on(&asked(token)).contains("\nauthorization: bearer harmless"));
    let answer = proxy.refuses(&asked(""));
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let answer = proxy.refuses(&asked(&format!("{token}Origin: https://evil.example\r\n")));
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[test]
fn a_host_that_is_allowed_is_passed_on() {
    let proxy = Proxy::start(&["--allow-host", "bastion.example"]);
    proxy.passes_on(&format!("{RUN}Host: bastion.example:8002\r\n\r\n"));
    let answer = proxy.refuses(&format!("{RUN}Host: else.example:8002\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
}

/// A command must not run for a client that is then told that it may not run it.
#[test]
fn a_translated_request_is_judged_before_a_backend_is_dialled() {
    let proxy = Proxy::start(&["--translate", "spdy", "--allow-host", "proxy"]);
    let path = "/api/v1/namespaces/default/pods/demo/exec?command=true&stdout=true";
    let websocket = format!(
        "GET {path} HTTP/1.1\r\nHost: proxy\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    );
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let v5 = "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
    let legacy = websocket.replace("exec?command=true&stdout=true", "portforward?ports=none");
    for (request, status) in [
        (format!("{websocket}{v5}"), "400"),
        (format!("{websocket}Sec-WebSocket-Key: c2hvcnQ=\r\n{v5}"), "400"),
        (format!("{}{key}{v5}", websocket.replace("Version: 13", "Version: 8")), "426"),
        (format!("{}{key}{v5}", websocket.replace("GET", "POST")), "405"),
        (format!("{websocket}{key}Sec-WebSocket-Protocol: v9.channel.k8s.io\r\n"), "403"),
        (format!("{websocket}{key}{v5}Origin: https://evil.example\r\n"), "403"),
        (
            format!(
                "{websocket}{key}Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.%, v5.channel.k8s.io\r\n"
            ),
            "401",
        ),
        (format!("{legacy}{key}Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n"), "400"),
        (format!("{}{key}{v5}", websocket.replace("&stdout=true", "")), "400"),
    ] {
        let answer = proxy.refuses(&format!("{request}\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    let proxy = Proxy::start(&["--translate", "websocket", "--allow-host", "proxy"]);
    let spdy = format!("POST {path} HTTP/1.1\r\nHost: proxy\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n");
    for (lines, status) in [("", "400"), ("X-Stream-Protocol-Version: v9.channel.k8s.io\r\n", "403")] {
        let answer = proxy.refuses(&format!("{spdy}{lines}\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lines}: {answer}");
    }
    let heard = proxy.passes_on(&format!("{spdy}X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"));
    assert!(heard.contains("\nupgrade: websocket"), "{heard}");
}

/// A log has one event on each line, and is read on terminals.
#[test]
fn what_a_backend_says_does_not_reach_the_log_raw() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_proxy"))
        .args(["--listen", "127.0.0.1:0", "--backend", &format!("http://{}", backend.local_addr().unwrap())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut client = TcpStream::connect(line.trim().strip_prefix("listening on http://").unwrap()).unwrap();
    let path = "/api/v1/namespaces/default/pods/demo/exec?command=true&stdout=true";
    let lines =
        "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io";
    client.write_all(format!("POST {path} HTTP/1.1\r\n{lines}\r\n\r\n").as_bytes()).unwrap();
    let (mut server, _) = backend.accept().unwrap();
    BufReader::new(&server).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).for_each(drop);
    let said = "\u{1b}[31mno\u{202e}\nproxy: not ours\u{9b}2J";
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", said.len());
    server.write_all(format!("{head}{said}").as_bytes()).unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    drop(client);
    let mut logged = String::new();
    BufReader::new(process.stderr.take().unwrap()).read_line(&mut logged).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(logged.contains("\\u{1b}[31mno\\u{202e}\\nproxy: not ours\\u{9b}2J"), "{logged:?}");
}
