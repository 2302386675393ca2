//! Runs `exec` as its users do, with the built-in node.
//!
//! Looks at the program from outside: its output, its exit code and its sockets.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use kubestream_apps_testing::{HOSTILE, SHOWN, listening};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn exec(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exec")).args(arguments).output().unwrap()
}

#[test]
fn a_command_runs_without_a_server() {
    let Output { status, stdout, stderr } = exec(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((status.code(), &stdout[..], &stderr[..]), (Some(7), &b"out\n"[..], &b"err\n"[..]));
    for transport in ["websocket", "spdy"] {
        let output = exec(&["--transport", transport, "--", "seq", "100000"]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 588_895), "{transport}");
    }
}

/// Programs that share an open file with `exec`, such as ssh and node, make it non-blocking for `exec` too.
#[test]
fn stdin_that_would_block_is_not_at_its_end() {
    let (typed, mut typing) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&typed, true).unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_exec"))
        .args(["-i", "--", "sh", "-c", "echo runs; while read line; do echo $line; done"])
        .stdin(typed)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "runs");
    for line in ["first", "second", "third"] {
        writeln!(typing, "{line}").unwrap();
        assert_eq!(lines.next().as_deref(), Some(line));
    }
    drop(typing);
    assert_eq!((lines.next(), process.wait().unwrap().code()), (None, Some(0)));
}

#[test]
fn an_output_that_would_block_is_whole() {
    // The errors of the program itself are an output, too.
    let long = "x".repeat(100_000);
    let refused = format!("error: invalid pod name {long:?}: ").len();
    for (arguments, to_stderr, least) in [
        (&["--", "head", "-c", "1000000", "/dev/zero"][..], false, 1_000_000),
        (&["--", "sh", "-c", "head -c 1000000 /dev/zero >&2"], true, 1_000_000),
        (&["--pod", &long, "--", "true"], true, refused),
    ] {
        let (mut shown, far) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&far, true).unwrap();
        let mut exec = Command::new(env!("CARGO_BIN_EXE_exec"));
        exec.args(arguments).stdin(Stdio::null());
        let output = far.try_clone().unwrap();
        let mut process = if to_stderr { exec.stderr(output) } else { exec.stdout(output) }.spawn().unwrap();
        drop(exec);
        // Nothing is read before the pipe is full.
        while poll(&mut [PollFd::new(&far, PollFlags::OUT)], Some(&Timespec::default())).unwrap() > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(far);
        let mut whole = Vec::new();
        shown.read_to_end(&mut whole).unwrap();
        let ended = process.wait().unwrap().code();
        assert!(whole.len() >= least && ended.is_some_and(|code| code < 2), "{} of {least}, {ended:?}", whole.len());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_leaves_the_terminal_as_it_was() {
    use rustix::fs::{Mode, OFlags};
    use rustix::process::{Pid, Signal, kill_process};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};

    for (signal, code) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131), (Signal::TERM, 143)] {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let name = ptsname(&near, Vec::new()).unwrap();
        let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let echoes = || tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO);
        let mut process = Command::new(env!("CARGO_BIN_EXE_exec"))
            .args(["-it", "--", "sleep", "1000"])
            .stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap())
            .spawn()
            .unwrap();
        while echoes() {
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&process), signal).unwrap();
        let ended = process.wait().unwrap().code();
        assert!(echoes() && ended == Some(code), "{signal:?}: {ended:?}");
    }
}

/// nohup starts programs like this. The commands run in a container, which has no terminal to lose.
#[test]
#[cfg(target_os = "linux")]
fn an_ignored_signal_is_ignored_by_the_program_and_not_by_its_commands() {
    use rustix::process::{Pid, Signal, kill_process};

    for signal in [Signal::HUP, Signal::QUIT] {
        let number = signal.as_raw();
        let command = "echo runs; read line; echo $line; kill -$1 $$; echo goes on";
        let mut process = Command::new("sh")
            .args(["-c", "trap '' $1; exec \"$0\" -i -- sh -c \"$2\" sh $1", env!("CARGO_BIN_EXE_exec")])
            .args([&number.to_string(), command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "runs");
        kill_process(Pid::from_child(&process), signal).unwrap();
        process.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        assert_eq!((lines.next().as_deref(), lines.next()), (Some("typed"), None));
        assert_eq!(process.wait().unwrap().code(), Some(128 + number));
    }
}

/// Anybody on the machine could run commands through such a socket.
#[test]
#[cfg(target_os = "linux")]
fn the_built_in_node_listens_on_no_socket() {
    let mut process = Command::new(env!("CARGO_BIN_EXE_exec"))
        .args(["-i", "--", "sh", "-c", "echo runs; read line; echo $line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "runs");
    assert_eq!(listening(process.id()), 0);
    process.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    assert_eq!(lines.next().unwrap(), "typed");
    assert!(process.wait().unwrap().success());
}

/// The name would be part of the path of the request.
#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    for (option, kind) in [("--pod", "pod"), ("--namespace", "namespace")] {
        for name in ["../../../../version", "demo/exec?command=id&stdout=1#", "demo?x", "..", "", "Demo", "demo%2f"] {
            for more in [&[][..], &["--kubelet"]] {
                let output = exec(&[&[option, name][..], more, &["--", "true"]].concat());
                let said = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(1), "{name}: {said}");
                assert!(said.starts_with(&format!("error: invalid {kind} name {name:?}: ")), "{name}: {said}");
            }
        }
    }
    let output = exec(&["--kubelet", "--container", "../../run", "--", "true"]);
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: invalid container name "));
}

/// Runs `exec` against a server that answers each request like this. Returns the server's address, and what is said.
fn refused(answer: String, more: &[&str]) -> (String, String) {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in server.incoming().flatten() {
            let head = BufReader::new(&client).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            head.for_each(drop);
            let _ = (&client).write_all(answer.as_bytes());
        }
    });
    let output = exec(&[&["--server", &format!("http://{address}/k8s")][..], more, &["--", "true"]].concat());
    assert_eq!(output.status.code(), Some(1));
    (address, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_a_server_says_does_not_reach_the_terminal_raw() {
    let message = HOSTILE.replace('\n', "\\n").replace('\u{1b}', "\\u001b");
    let status = format!("{{\"kind\":\"Status\",\"status\":\"Failure\",\"message\":\"{message}\",\"code\":403}}");
    // A message is joined to one line, and of a text only the first line is shown.
    let (first, joined) = (SHOWN.split("\\n").next().unwrap().to_owned(), SHOWN.replace("\\n", " "));
    for (body, reason) in [(status, joined), (HOSTILE.to_owned(), first)] {
        let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (address, said) = refused(answer, &["--transport", "spdy"]);
        assert_eq!(said, format!("error: {address}: unable to upgrade connection: {reason} (403 Forbidden)\n"));
    }
    // A header has no control characters of ASCII.
    let redirect = "HTTP/1.1 302 Found\r\nLocation: https://a\u{9b}2J\u{202e}\r\nContent-Length: 0\r\n\r\n";
    let (_, said) = refused(redirect.to_owned(), &["--transport", "spdy"]);
    assert!(said.lines().count() == 1 && !said.contains(['\u{9b}', '\u{202e}']), "{said:?}");
}

/// `src/upgrade/refusal.rs` has the pages of each gateway.
#[test]
fn a_refusal_names_the_server_and_the_hop_and_says_each_thing_once() {
    let page =
        "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>";
    let answer =
        format!("HTTP/1.1 502 Bad Gateway\r\nServer: nginx/1.22.1\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    let (address, said) = refused(answer, &[]);
    let reason = "502 Bad Gateway (Server: nginx/1.22.1) (over WebSocket, and again over SPDY)";
    assert_eq!(said, format!("error: {address}: unable to upgrade connection: {reason}\n"));

    let envoy = "HTTP/1.1 403 Forbidden\r\nserver: envoy\r\ncontent-length: 0\r\n\r\n";
    let (address, said) = refused(envoy.to_owned(), &["--transport", "websocket"]);
    let hint = "an Envoy answers so if its upgrade_configs do not allow this upgrade";
    let reason = format!("403 Forbidden (Server: envoy); {hint}");
    assert_eq!(said, format!("error: {address}: unable to upgrade connection: {reason}\n"));

    let (address, said) = refused(String::new(), &["--transport", "spdy"]);
    let hint = "it was closed without an answer; a proxy that passes only WebSocket does this";
    assert_eq!(said, format!("error: {address}: the connection failed before the upgrade was complete: {hint}\n"));
}

#[test]
fn a_server_that_cannot_be_reached_is_named() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (transport, scheme) in [("auto", "http"), ("websocket", "http"), ("spdy", "https")] {
        let url = format!("{scheme}://{address}/k8s");
        let output = exec(&["--server", &url, "--transport", transport, "--", "true"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, format!("error: cannot connect to {address}: Connection refused\n"), "{transport}");
    }
    let output = exec(&["--server", &format!("ftp://{address}"), "--", "true"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: the server's URL ") && said.lines().count() == 1, "{said}");
}

#[tokio::test]
async fn the_status_of_a_command_does_not_reach_the_terminal_raw() {
    use kubestream::exec::Streams;
    use kubestream::mux::{Config, Multiplexer};
    use kubestream::status::{ExitStatus, Status};
    use kubestream::upgrade::{self, Protocol};

    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let running = tokio::task::spawn_blocking(move || exec(&["--server", &url, "--", "true"]));
    let (tcp, _) = server.accept().await.unwrap();
    let pending = upgrade::accept(tcp, &upgrade::Config::default()).await.unwrap();
    let (mux, driver) = Multiplexer::server(pending.accept(Protocol::ANY_EXEC).await.unwrap(), Config::exec());
    tokio::spawn(driver);
    let session = mux.accept_exec(Streams::OUTPUT).await.unwrap();
    session.exit(ExitStatus::Failed(Box::new(Status::internal_error(HOSTILE.to_owned())))).await.unwrap();
    let output = running.await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains(SHOWN) && said.lines().count() == 1, "{said:?}");
}
