//! Where the proxy takes its tokens from.
//!
//! Plays a client and a backend over bare TCP. It carries no session.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

/// Starts a proxy with these arguments, environment and stdin, and says whether it asks for `Bearer asked` and sends
/// `Bearer sent`.
fn uses_both(arguments: &[&str], environment: &[(&str, &str)], typed: &str) {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_proxy"))
        .args(["--listen", "127.0.0.1:0", "--backend", &format!("http://{}", backend.local_addr().unwrap())])
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let Some(address) = line.trim().strip_prefix("listening on http://") else {
        panic!("{arguments:?} {environment:?}: {:?}", process.wait());
    };
    let ask = |lines: &str| {
        let mut tcp = TcpStream::connect(address).unwrap();
        tcp.write_all(format!("GET /version HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").as_bytes()).unwrap();
        tcp
    };
    let mut refused = [0; 12];
    ask("Authorization: Bearer wrong\r\n").read_exact(&mut refused).unwrap();
    let _client = ask("Authorization: Bearer asked\r\n");
    let (backend, _) = backend.accept().unwrap();
    let head: Vec<_> =
        BufReader::new(backend).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(&refused, b"HTTP/1.1 401");
    assert!(head.iter().any(|line| line == "authorization: Bearer sent"), "{arguments:?} {environment:?}: {head:?}");
}

#[test]
fn a_token_comes_from_a_file_from_stdin_or_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let [asked, sent] = ["asked", "sent"].map(|token| {
        let path = folder.path().join(token);
        std::fs::write(&path, format!("{token}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let (both, wrong) =
        ([("KUBESTREAM_TOKEN", "asked"), ("KUBESTREAM_BACKEND_TOKEN", "sent")], ("KUBESTREAM_TOKEN", "other"));
    uses_both(&["--token", "asked", "--backend-token", "sent"], &[wrong], "");
    uses_both(&["--token-file", &asked, "--backend-token-file", &sent], &[wrong], "");
    uses_both(&["--token-file", "-", "--backend-token-file", &sent], &[], "asked\n");
    uses_both(&["--token-file", &asked, "--backend-token-file", "-"], &[], "sent");
    uses_both(&[], &both, "");
}

#[test]
fn a_proxy_that_was_to_ask_for_a_token_does_not_start_without_it() {
    for (arguments, environment) in [
        (&["--token-file", "/no/such/file"][..], &[][..]),
        (&["--token-file", "/dev/null"], &[]),
        (&["--token-file", "-", "--backend-token-file", "-"], &[]),
        (&["--token", ""], &[]),
        (&["--token", "a b"], &[]),
        (&["--token", "a", "--token-file", "/dev/null"], &[]),
        (&[], &[("KUBESTREAM_TOKEN", "")]),
    ] {
        let output = Command::new("timeout")
            .args(["5", env!("CARGO_BIN_EXE_proxy"), "--listen", "127.0.0.1:0", "--backend", "http://127.0.0.1:1"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let code = output.status.code();
        assert!(code.is_some_and(|code| code != 0 && code != 124), "{arguments:?} {environment:?}: {code:?}");
        assert!(!output.stderr.is_empty());
    }
}
