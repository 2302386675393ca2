//! Runs commands to their end, and limits every wait.
//!
//! No wait is without a limit. Reaching the limit fails the test. All limits are long, so they measure nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

/// The stdin of a command.
#[derive(Debug)]
pub enum Input {
    /// `/dev/null`.
    Null,
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// `yes`, which writes until its pipe is closed.
    Endless,
}

/// The result of a command.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, unless a signal ended the command.
    pub code: Option<i32>,
    /// The bytes of stdout.
    pub stdout: Vec<u8>,
    /// The text of stderr.
    pub stderr: String,
}

/// Runs a command to its end, and kills it after the time limit.
pub async fn run(mut command: Command, input: Input) -> Ended {
    let mut yes = None;
    let (stdin, bytes) = match input {
        Input::Null => (Stdio::null(), None),
        Input::Bytes(bytes) => (Stdio::piped(), Some(bytes)),
        Input::Endless => {
            let mut says = Command::new("yes").stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("yes");
            let pipe = says.stdout.take().expect("stdout is a pipe").into_owned_fd().expect("a descriptor");
            yes = Some(says);
            (pipe.into(), None)
        }
    };
    let what = format!("{:?}", command.as_std());
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(command);
    let (to, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let (Some(mut to), Some(bytes)) = (to, bytes) {
            // A command may leave its stdin unread.
            let _ = to.write_all(&bytes).await;
        }
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let end = async {
        let (mut out, mut err) = (out.expect("stdout is a pipe"), err.expect("stderr is a pipe"));
        let (_, out, err, status) =
            tokio::join!(feed, out.read_to_end(&mut stdout), err.read_to_end(&mut stderr), child.wait());
        out.and(err).and(status)
    };
    let status = within(&what, end).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    if let Some(mut yes) = yes {
        // The pipe of yes has no reader any more.
        within("the end of yes", yes.wait()).await.expect("the end of yes");
    }
    Ended { code: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Waits for something, up to the time limit.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: nothing came within {PATIENCE:?}"))
}

/// The files of a test. They are removed with this value.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes an empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Waits for a process id that a remote command writes, with a newline, into a file.
    pub async fn pid(&self, name: &str) -> Pid {
        let file = self.file(name);
        let written = async {
            loop {
                match fs::read_to_string(&file) {
                    Ok(line) if line.ends_with('\n') => return line.trim().parse().expect("a process id"),
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        Pid::from_raw(within("the remote command's process id", written).await).expect("a process id")
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits for a file that a remote command moves into place when it is complete.
pub async fn written(path: &Path) -> Vec<u8> {
    let there = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(&format!("{}", path.display()), there).await;
    fs::read(path).expect("a file")
}

/// Waits until a process that is not a child of the test has ended.
pub async fn gone(pid: Pid) {
    let ended = async {
        while test_kill_process(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the end of the remote process", ended).await;
}
