//! The pod, as far as a copy needs it: commands in one of its containers, a connection each.
//!
//! Owns what a command's end means. Which commands they are is not known here.

use std::error::Error;
use std::fmt;

use kubestream::exec::{self, Exec, ExecRequest, RemoteOutput, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::status::ExitStatus;
use kubestream_apps::Failure;
use kubestream_apps::session::{self, Transport};
use kubestream_apps::transport::Tls;
use tokio::task::JoinHandle;

/// Of what a command complains, this much is kept.
const COMPLAINTS: usize = 16 * 1024;

pub(crate) struct Pod {
    /// Up to the query.
    pub(crate) url: String,
    pub(crate) container: Option<String>,
    pub(crate) transport: Transport,
    pub(crate) tls: Tls,
}

/// A command that runs, and the connection it has to itself.
pub(crate) struct Session {
    pub(crate) exec: Exec,
    driver: JoinHandle<()>,
}

/// How a command ended that did not end well.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) complaints: String,
}

impl CommandError {
    /// It was never run: there is none of that name, most likely.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.status, ExitStatus::Failed(_) | ExitStatus::Code(126 | 127))
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, complaints } = self;
        match status {
            ExitStatus::Failed(status) => write!(f, "{command} in the container: {status}")?,
            status => write!(f, "{command} in the container ended with exit code {}", status.code().unwrap_or(1))?,
        }
        if complaints.is_empty() { Ok(()) } else { write!(f, ": {}", complaints.trim_end()) }
    }
}

impl Error for CommandError {}

/// By a signal, here.
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
        let upgraded = session::upgrade(&url, self.transport, None, &self.tls).await?;
        let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
        // How the connection ends the session is told.
        let driver = tokio::spawn(async move { drop(driver.await) });
        let exec = mux.exec(streams).await?;
        Ok(Session { exec, driver })
    }

    /// Runs a command that reads nothing and has little to say.
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
    /// The server's own end is waited for: a socket closed too early looks to it like a client that broke off.
    pub(crate) async fn close(self) {
        drop(self.exec);
        let _ = self.driver.await;
    }
}

/// Success with what was said all the same, or the failure.
pub(crate) fn ended(command: &[String], status: ExitStatus, complaints: String) -> Result<String, CommandError> {
    if status.success() {
        return Ok(complaints);
    }
    let command = command.first().cloned().unwrap_or_default();
    Err(CommandError { command, status, complaints })
}

/// What a command says on stderr, to its end. A connection that is lost is for others to tell.
pub(crate) async fn complaints(stderr: Option<RemoteOutput>) -> String {
    let mut all = Vec::new();
    if let Some(mut stderr) = stderr {
        while let Some(Ok(data)) = stderr.data().await {
            let room = COMPLAINTS - all.len();
            all.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// A lost connection, in the words of a copy.
pub(crate) fn lost(error: exec::Error) -> Failure {
    format!("the copy was cut off: {error}").into()
}
