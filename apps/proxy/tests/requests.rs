//! What the proxy asks of a request before its backend hears of it.
//!
//! Plays the client and the backend over bare TCP. It carries no session.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use kubestream_apps_testing::Serving;

/// A proxy, and a backend that never upgrades and counts who comes.
struct Proxy {
    serving: Serving,
    backend: TcpListener,
}

impl Proxy {
    fn start(arguments: &[&str]) -> Self {
        Self::before("--backend", "", arguments)
    }

    /// A proxy whose backend, or kubelet, has a URL with this path.
    fn before(kind: &str, path: &str, arguments: &[&str]) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}{path}", backend.local_addr().unwrap());
        let fixed = [kind, &url, "--backend-token", "harmless"];
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

const EXEC: &str = "/api/v1/namespaces/default/pods/demo/exec?command=true&stdout=true";

/// A request for a session, without its last line.
fn session(transport: &str) -> String {
    match transport {
        "spdy" => format!(
            "POST {EXEC} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
            X-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
        ),
        _ => format!(
            "GET {EXEC} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
        ),
    }
}

/// Without the header it would run with all rights of the proxy.
#[test]
fn a_request_that_is_to_run_as_somebody_else_is_refused() {
    let requests =
        ["GET /api/v1/secrets HTTP/1.1\r\nHost: localhost\r\n".to_owned(), session("spdy"), session("websocket")];
    let proxies = [
        Proxy::start(&[]),
        Proxy::start(&["--translate", "spdy"]),
        Proxy::start(&["--translate", "websocket"]),
        Proxy::before("--kubelet", "", &[]),
    ];
    for proxy in &proxies {
        for request in &requests {
            for line in ["Impersonate-User: nobody", "impersonate_extra_scopes: view", "X-Remote-Group: system:masters"]
            {
                let answer = proxy.refuses(&format!("{request}{line}\r\n\r\n"));
                assert!(answer.starts_with("HTTP/1.1 403 "), "{request}{line}: {answer}");
                assert!(answer.contains(r#""kind":"Status""#) && answer.contains(r#""code":403"#), "{answer}");
                let name = line.split(':').next().unwrap().to_ascii_lowercase();
                assert!(answer.contains(&format!("does not pass on the header {name}: ")), "{answer}");
            }
        }
    }
    let [proxy, ..] = proxies;
    for line in [
        "IMPERSONATE-UID: 1",
        "Impersonate-Group: none",
        "Impersonate-User:",
        "X_Remote_User: nobody",
        "x-remote-extra-scopes: view",
        // A client cannot hide it from this proxy.
        "Connection: impersonate-user\r\nImpersonate-User: nobody",
    ] {
        let answer = proxy.refuses(&format!("{RUN}Host: localhost\r\n{line}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{line}: {answer}");
    }
    // This names no user.
    let heard = proxy.passes_on(&format!("{RUN}Host: localhost\r\nX-Remote-Addr: 10.0.0.1\r\n\r\n"));
    assert!(!heard.contains("x-remote"), "{heard}");
}

#[test]
fn the_path_of_the_backend_comes_before_that_of_each_request() {
    let ordinary = "GET /version?timeout=32s HTTP/1.1\r\nHost: localhost\r\n".to_owned();
    for (path, prefix) in [("/k8s/clusters/c-1", "/k8s/clusters/c-1"), ("/k8s/", "/k8s"), ("/", "")] {
        for arguments in [&[][..], &["--translate", "spdy"], &["--translate", "websocket"]] {
            let proxy = Proxy::before("--backend", path, arguments);
            let heard = proxy.passes_on(&format!("{ordinary}\r\n"));
            assert!(heard.starts_with(&format!("get {prefix}/version?timeout=32s http/1.1\n")), "{heard}");
            for request in [session("spdy"), session("websocket")] {
                let heard = proxy.passes_on(&format!("{request}\r\n"));
                assert!(heard.contains(&format!(" {prefix}{EXEC} http/1.1\n")), "{arguments:?}: {heard}");
            }
        }
    }
    let kubelet = Proxy::before("--kubelet", "/nodes/n", &[]);
    let request = session("spdy").replace("exec?", "exec?container=main&");
    let heard = kubelet.passes_on(&format!("{request}\r\n"));
    assert!(heard.contains(" /nodes/n/exec/default/demo/main?"), "{heard}");
    let heard = kubelet.passes_on("GET /api/v1/namespaces/default/pods/demo HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(heard.contains("get /nodes/n/pods http/1.0\n") && heard.contains("\nhost: 127.0.0.1:"), "{heard}");
}

#[test]
fn a_path_that_leads_out_of_the_backends_is_refused() {
    let proxy = Proxy::before("--backend", "/k8s/clusters/c-1", &[]);
    for path in ["/../c-2/api", "/%2e%2e/c-2/api", "/..%2Fc-2"] {
        let ordinary = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        for request in [ordinary, session("spdy").replace("/api/v1", path)] {
            let answer = proxy.refuses(&format!("{request}\r\n"));
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("leads out"), "{request}: {answer}");
        }
    }
    let answer = proxy.refuses("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let heard = Proxy::start(&[]).passes_on("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(heard.starts_with("options * http/1.1\n"), "{heard}");
}

/// The next server could find another end, and take what follows it for a request that nobody has judged.
#[test]
fn a_body_whose_length_is_not_clear_is_refused() {
    let proxy = Proxy::start(&[]);
    for (version, lines) in [
        ("1.1", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Content-Length: 2\r\nContent-Length: 3\r\n"),
        ("1.1", "Content-Length: +2\r\n"),
        ("1.1", "Transfer-Encoding: gzip, chunked\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("1.0", "Transfer-Encoding: chunked\r\n"),
    ] {
        let mut tcp = proxy.asks(&format!("POST / HTTP/{version}\r\nHost: localhost\r\n{lines}\r\n"));
        let mut answer = String::new();
        tcp.shutdown(Shutdown::Write).unwrap();
        tcp.read_to_string(&mut answer).unwrap();
        let mut heard = String::new();
        proxy.backend.accept().unwrap().0.read_to_string(&mut heard).ok();
        assert_eq!(heard, "", "{lines}");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{version} {lines}: {answer}");
    }
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

/// The first line in the log of a proxy, for a client over SPDY, and the head of its answer. The backend answers like
/// this, or does not exist.
fn logged(answer: Option<String>, arguments: &[&str]) -> (SocketAddr, String, String) {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = backend.local_addr().unwrap();
    match answer {
        Some(answer) => drop(thread::spawn(move || {
            let (mut server, _) = backend.accept().unwrap();
            BufReader::new(&server).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).for_each(drop);
            server.write_all(answer.as_bytes()).unwrap();
        })),
        None => drop(backend),
    }
    let mut process = Command::new(env!("CARGO_BIN_EXE_proxy"))
        .args(["--listen", "127.0.0.1:0", "--backend", &format!("http://{address}")])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut client = TcpStream::connect(line.trim().strip_prefix("listening on http://").unwrap()).unwrap();
    client.write_all(format!("{}\r\n", session("spdy")).as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let from = client.local_addr().unwrap();
    let mut logged = String::new();
    BufReader::new(process.stderr.take().unwrap()).read_line(&mut logged).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let event = logged.trim_end().strip_prefix(&format!("proxy: {from}: ")).unwrap().to_owned();
    (address, event, answer)
}

/// A log has one event on each line, and is read on terminals.
#[test]
fn what_a_backend_says_does_not_reach_the_log_raw() {
    let said = "{\"message\":\"\\u001b[31mno\u{202e}\\nproxy: not ours\u{9b}2J\"}";
    let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{said}", said.len());
    let (backend, event, _) = logged(Some(answer), &[]);
    let reason = "\\u{1b}[31mno\\u{202e} proxy: not ours\\u{9b}2J (403 Forbidden)";
    assert_eq!(event, format!("the backend {backend}: unable to upgrade connection: {reason}"));
}

#[test]
fn the_log_names_the_backend_and_the_hop_that_refused() {
    let page = "<html><head><title>403 Forbidden</title></head><body>\r\nno</body></html>";
    let lines = format!("Server: nginx\r\nVia: 1.1 edge\r\nContent-Length: {}", page.len());
    for arguments in [&[][..], &["--translate", "websocket"]] {
        let (backend, event, answer) =
            logged(Some(format!("HTTP/1.1 403 Forbidden\r\n{lines}\r\n\r\n{page}")), arguments);
        let reason = "403 Forbidden (Server: nginx, Via: 1.1 edge)";
        assert_eq!(event, format!("the backend {backend}: unable to upgrade connection: {reason}"));
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with(page), "{answer}");
    }
    let (backend, event, answer) = logged(Some(String::new()), &[]);
    let why = "the connection failed before the upgrade was complete: it was closed without an answer";
    assert!(event.starts_with(&format!("the backend {backend}: {why}")), "{event}");
    let why = "the backend did not upgrade the connection: unexpected end of file\n";
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.ends_with(why), "{answer}");
    let (backend, event, answer) = logged(None, &[]);
    let why = format!("the backend cannot be reached: cannot connect to {backend}: Connection refused");
    assert_eq!(event, why);
    let why = "the backend cannot be reached: connection refused";
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains(why) && !answer.contains(&backend.to_string()),
        "{answer}"
    );
}
