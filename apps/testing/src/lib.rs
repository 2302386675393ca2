//! What the tests of the programs share: a started server, the sockets of a process, and a hostile peer's text.
//!
//! Looks at programs from outside. It knows nothing of their code.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// What a peer says that would control a terminal.
pub const HOSTILE: &str = "\u{1b}[31mno\u{202e}\nerror: not ours\u{9b}2J";
/// How a program shows [`HOSTILE`].
pub const SHOWN: &str = "\\u{1b}[31mno\\u{202e}\\nerror: not ours\\u{9b}2J";

/// A program that serves, and ends with the test.
#[derive(Debug)]
pub struct Serving {
    process: Child,
    /// Where it listens, as IP:PORT.
    pub address: String,
}

impl Serving {
    /// Starts a program that prints where it listens, on a free port of loopback.
    #[must_use]
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Self { process, address }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How many sockets a process listens on. Linux only.
#[must_use]
pub fn listening(process: u32) -> usize {
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
