//! The pod of a copy: runs commands in one of its containers, each on its own connection.
//!
//! Decides what the end of a command means. It knows no command but the one that finds folders.

use std::collections::HashSet;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};

use kubestream::exec::{self, Exec, ExecRequest, Reader, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::status::ExitStatus;
use kubestream_apps::Failure;
use kubestream_apps::printable::{printable, printable_lines};
use kubestream_apps::server::Server;
use kubestream_apps::session::{self, Preference};
use kubestream_apps::stdio::complain;
use tar::{Archive, EntryType};
use tokio::task::JoinHandle;

use crate::spec::RemotePath;

/// How many bytes of a command's stderr are kept.
const COMPLAINTS: usize = 16 * 1024;

pub(crate) struct Pod {
    pub(crate) server: Server,
    /// The URL up to its query.
    pub(crate) url: String,
    pub(crate) container: Option<String>,
    pub(crate) transport: Preference,
}

/// A running command, and the connection that it has to itself.
pub(crate) struct Session {
    pub(crate) exec: Exec,
    driver: JoinHandle<()>,
}

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) complaints: String,
}

impl CommandError {
    /// True if the command never ran, most likely because it does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.status, ExitStatus::Failed(_) | ExitStatus::Code(126 | 127))
    }
}

/// The text is safe to print. What the command wrote to stderr keeps its lines.
impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, complaints } = self;
        let command = printable(command);
        match status {
            ExitStatus::Failed(status) => write!(f, "{command} in the container: {}", printable(status))?,
            status => write!(f, "{command} in the container ended with exit code {}", status.code().unwrap_or(1))?,
        }
        if complaints.is_empty() { Ok(()) } else { write!(f, ": {}", printable_lines(complaints.trim_end())) }
    }
}

impl Error for CommandError {}

/// The user interrupted the copy with a signal.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

impl Pod {
    pub(crate) async fn start(&self, command: &[String], stdin: bool) -> Result<Session, Failure> {
        let streams = Streams { stdin, ..Streams::OUTPUT };
        let mut request = ExecRequest::new(command, streams);
        if let Some(container) = &self.container {
            request = request.container(container);
        }
        let url = format!("{}?{}", self.url, request.to_query());
        let upgraded = session::upgrade(&self.server, &url, self.transport, None).await?;
        let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
        // The session reports how its connection ends.
        let driver = tokio::spawn(async move { drop(driver.await) });
        let exec = mux.exec(streams).await?;
        Ok(Session { exec, driver })
    }

    /// Returns which of the names are folders in `folder`, and no links. Only tar is needed.
    ///
    /// Fails only if the connection does: a tar that cannot say so finds none. A name that is not UTF-8 is not found.
    pub(crate) async fn folders(&self, folder: &RemotePath, names: &[PathBuf]) -> Result<HashSet<PathBuf>, Failure> {
        /// The limit of tar's output, which has some blocks of 512 bytes for each name.
        const MOST: usize = 64 * 1024 * 1024;
        let mut command = ["tar", "--no-recursion", "-cf", "-", "-C", &folder.argument()].map(str::to_owned).to_vec();
        command.extend(names.iter().filter_map(|name| Some(format!("./{}", name.to_str()?))));
        let mut session = self.start(&command, false).await?;
        let (stdout, stderr) = (session.exec.stdout.take(), session.exec.stderr.take());
        let (archive, _, status) = tokio::join!(all(stdout, MOST), complaints(stderr), session.exec.wait());
        status?;
        session.close().await;
        let mut found = HashSet::new();
        let mut archive = Archive::new(&archive[..]);
        for entry in archive.entries()?.map_while(Result::ok) {
            if entry.header().entry_type() == EntryType::Directory {
                let name: PathBuf = OsStr::from_bytes(&entry.path_bytes()).into();
                found.insert(name.components().filter(|part| matches!(part, Component::Normal(_))).collect());
            }
        }
        Ok(found)
    }

    /// Runs a command that reads no stdin and writes little.
    pub(crate) async fn run(&self, command: &[String]) -> Result<(), Failure> {
        let mut session = self.start(command, false).await?;
        let complaints = complaints(session.exec.stderr.take());
        let (status, complaints) = tokio::join!(session.exec.wait(), complaints);
        let ended = ended(command, status?, complaints);
        session.close().await;
        Ok(ended.map(drop)?)
    }
}

impl Session {
    /// Waits for the server to end the connection. To a server, a socket that closes earlier looks like a broken
    /// client.
    pub(crate) async fn close(self) {
        drop(self.exec);
        let _ = self.driver.await;
    }
}

/// Returns what a successful command wrote to stderr, or the failure.
pub(crate) fn ended(command: &[String], status: ExitStatus, complaints: String) -> Result<String, CommandError> {
    if status.success() {
        return Ok(complaints);
    }
    let command = command.first().cloned().unwrap_or_default();
    Err(CommandError { command, status, complaints })
}

/// Reads a command's stderr to its end. A lost connection is reported elsewhere.
pub(crate) async fn complaints(stderr: Option<Reader>) -> String {
    String::from_utf8_lossy(&all(stderr, COMPLAINTS).await).into_owned()
}

/// Reads an output to its end, and keeps its first bytes.
async fn all(output: Option<Reader>, most: usize) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(mut output) = output {
        while let Some(Ok(data)) = output.data().await {
            let room = most - all.len();
            all.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    all
}

/// Shows what a command wrote to stderr, with its lines.
pub(crate) fn pass_on(complaints: &str) {
    if !complaints.is_empty() {
        complain(printable_lines(complaints.trim_end_matches('\n')));
    }
}

/// Describes a lost connection as an interrupted copy.
pub(crate) fn lost(error: exec::Error) -> Failure {
    format!("the copy was cut off: {error}").into()
}
