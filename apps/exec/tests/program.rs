//! Runs `exec` as its users do, with the built-in node.
//!
//! Looks at the program from outside: its output, its exit code and its sockets.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

fn exec(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exec")).args(arguments).output().unwrap()
}

/// How many sockets a process listens on.
fn listening(process: u32) -> usize {
    let names = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let open: Vec<String> = names
        .filter_map(|name| Some(std::fs::read_link(name.path()).ok()?.to_string_lossy().into_owned()))
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{process}/net/{table}")));
    let text = tables.into_iter().flatten().collect::<Vec<_>>().concat();
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // The fourth column is the state, of which 0A means listening, and the tenth is the socket.
    lines
        .filter(|line| line.get(3) == Some(&"0A") && line.get(9).is_some_and(|of| open.iter().any(|own| own == of)))
        .count()
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
