//! A command in the "container": a local process on pipes or on a terminal.
//!
//! Owns the process from its start to its last byte, and that it ends when its client goes away.

use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kubestream::StreamError;
use kubestream::exec::{Error, ExecServer, ProcessOutput, ProcessStdin, Resizes};
use kubestream::status::{ExitStatus, Status};
use pty_process::{OwnedWritePty, Size};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

/// How long what a client that is gone has sent may wait for a process that does not read it.
const UNREAD: Duration = Duration::from_secs(10);
/// What a command has from the end of its stdin until it is hung up, its client gone: as long as Kubernetes gives a pod to end.
const LAST_WORK: Duration = Duration::from_secs(30);
/// From the hang-up to the kill.
const HANG_UP: Duration = Duration::from_secs(1);

/// Where a command runs: as this program itself does, unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub directory: Option<PathBuf>,
    /// All of it.
    pub environment: Option<Vec<(String, OsString)>>,
}

/// Runs a command for a client, and says how it ended once all its output is out: its own, and that of what it has left running with it.
pub async fn run(command: &[String], tty: bool, place: &Place, mut server: ExecServer) -> Result<(), Error> {
    let (leave, left) = watch::channel(false);
    let mut copies = JoinSet::new();
    let started = if tty {
        start_on_terminal(command, place, &mut server, &mut copies, &left).map(|child| (child, None))
    } else {
        start_on_pipes(command, place, &mut server, &mut copies, &left)
    };
    let (mut child, feeding) = match started {
        Ok(started) => started,
        Err(error) => {
            let message = format!("error executing command in container: exec: {:?}: {error}", command[0]);
            return server.exit(ExitStatus::Failed(Box::new(Status::internal_error(message)))).await;
        }
    };
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let orphans = KillOnDrop(group);
    let (status, mut gone) = tokio::select! {
        status = child.wait() => (status, false),
        () = server.client_gone() => {
            // Nobody reads what it still says, and that is no reason for it to stop.
            let _ = leave.send(true);
            (end(&mut child, group, feeding).await, true)
        }
    };
    // It has ended: what it left running may go on.
    std::mem::forget(orphans);
    if !gone {
        gone = tokio::select! {
            () = async { while copies.join_next().await.is_some() {} } => false,
            () = server.client_gone() => true,
        };
    }
    copies.shutdown().await;
    let status = match status {
        Ok(status) => match status.code().or_else(|| status.signal().map(|signal| 128 + signal)) {
            Some(0) | None => ExitStatus::Success,
            Some(code) => ExitStatus::Code(code),
        },
        Err(error) => ExitStatus::Failed(Box::new(Status::internal_error(error.to_string()))),
    };
    let told = server.exit(status).await;
    // Nobody may be there to be told.
    if gone { Ok(()) } else { told }
}

/// A process that nobody serves any more, because this program stops.
struct KillOnDrop(Option<Pid>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already, at best.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn start_on_pipes(
    command: &[String],
    place: &Place,
    server: &mut ExecServer,
    copies: &mut JoinSet<()>,
    left: &watch::Receiver<bool>,
) -> io::Result<(Child, Option<Feeding<Fed>>)> {
    let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
    let mut process = Command::new(&command[0]);
    if let Some(environment) = &place.environment {
        process.env_clear().envs(environment.iter().cloned());
    }
    if let Some(directory) = &place.directory {
        process.current_dir(directory);
    }
    let mut child = process
        .args(&command[1..])
        .stdin(pipe(server.stdin.is_some()))
        .stdout(pipe(server.stdout.is_some()))
        .stderr(pipe(server.stderr.is_some()))
        .process_group(0)
        .spawn()?;
    let feeding = match (server.stdin.take(), child.stdin.take()) {
        // Not among the copies that are waited for: a process may end without having read it.
        (Some(from), Some(to)) => Some(Feeding::start(|moved| feed(from, to, moved))),
        _ => None,
    };
    if let (Some(from), Some(to)) = (child.stdout.take(), server.stdout.take()) {
        copies.spawn(drain(from, to, left.clone()));
    }
    if let (Some(from), Some(to)) = (child.stderr.take(), server.stderr.take()) {
        copies.spawn(drain(from, to, left.clone()));
    }
    Ok((child, feeding))
}

fn start_on_terminal(
    command: &[String],
    place: &Place,
    server: &mut ExecServer,
    copies: &mut JoinSet<()>,
    left: &watch::Receiver<bool>,
) -> io::Result<Child> {
    let (terminal, end) = pty_process::open().map_err(io::Error::other)?;
    let mut process = pty_process::Command::new(&command[0]).args(&command[1..]).env("TERM", "xterm");
    if let Some(environment) = &place.environment {
        process = process.env_clear().env("TERM", "xterm").envs(environment.iter().cloned());
    }
    if let Some(directory) = &place.directory {
        process = process.current_dir(directory);
    }
    let child = process.spawn(end).map_err(io::Error::other)?;
    let (from, to) = terminal.into_split();
    if let Some(output) = server.stdout.take() {
        // The terminal ends by itself, with EIO, when nobody has it open any more.
        copies.spawn(drain(from, output, left.clone()));
    }
    tokio::spawn(operate(to, server.stdin.take(), server.resize.take()));
    Ok(child)
}

/// From the process to the client, to the last byte of all who hold the pipe. Once the client has left it is read all the same, for nobody.
async fn drain(mut from: impl AsyncRead + Unpin, mut to: ProcessOutput, mut left: watch::Receiver<bool>) {
    const READ: usize = 32 * 1024;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ);
        if !matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
        let data = buffer.split().freeze();
        let sent = tokio::select! {
            biased;
            _ = left.wait_for(|left| *left) => continue,
            sent = to.send(data) => sent,
        };
        // Not wanted: the process finds its pipe closed. Lost with all the rest: that is said of the client.
        if matches!(sent, Err(StreamError::Reset(_))) {
            return;
        }
    }
}

/// What carries a client's bytes to a process, on a task of its own that ends with this, and whether it still moves.
#[derive(Debug)]
pub struct Feeding<T> {
    /// [`None`] once it has said how it ended.
    task: Option<JoinHandle<T>>,
    moved: watch::Receiver<()>,
}

impl<T: Send + 'static> Feeding<T> {
    /// `feed` says whenever something has moved.
    pub fn start<F: Future<Output = T> + Send + 'static>(feed: impl FnOnce(watch::Sender<()>) -> F) -> Self {
        let (moves, moved) = watch::channel(());
        Self { task: Some(tokio::spawn(feed(moves))), moved }
    }

    /// Waits until it is over. [`None`] where that was said before.
    pub async fn over(&mut self) -> Option<T> {
        let fed = self.task.as_mut()?.await;
        self.task = None;
        fed.ok()
    }

    /// The same, the client gone: [`None`] also where nothing moves for `UNREAD`.
    pub async fn last(&mut self) -> Option<T> {
        let mut moved = self.moved.clone();
        let still = async {
            while let Ok(changed) = timeout(UNREAD, moved.changed()).await {
                if changed.is_err() {
                    // The sender went with the task, which is over.
                    pending::<()>().await;
                }
            }
        };
        tokio::select! {
            biased;
            fed = self.over() => fed,
            () = still => None,
        }
    }
}

impl<T> Drop for Feeding<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// How a process's stdin came to its end.
enum Fed {
    /// With all of it, then: its pipe is closed.
    Whole(Instant),
    /// The process does not read it any more.
    Unwanted,
    /// Without the rest. The pipe is still open, so that this is no end to the process.
    Cut { _pipe: ChildStdin },
}

/// From the client to the process.
async fn feed(mut from: ProcessStdin, mut to: ChildStdin, moved: watch::Sender<()>) -> Fed {
    loop {
        match from.data().await {
            Some(Ok(mut data)) => {
                while !data.is_empty() {
                    match to.write_buf(&mut data).await {
                        Ok(_) => moved.send_replace(()),
                        Err(_) => return Fed::Unwanted,
                    }
                }
            }
            Some(Err(_)) => return Fed::Cut { _pipe: to },
            None => return Fed::Whole(Instant::now()),
        }
    }
}

/// Keystrokes and sizes, which go the same way.
async fn operate(mut terminal: OwnedWritePty, stdin: Option<ProcessStdin>, resizes: Option<Resizes>) {
    /// Ctrl-D: a terminal has no other end of input.
    const END_OF_INPUT: &[u8] = &[0x04];
    let (sizes, mut latest) = mpsc::channel(1);
    let watching = async move {
        if let Some(mut resizes) = resizes {
            while let Some(size) = resizes.next().await {
                if sizes.send(size).await.is_err() {
                    return;
                }
            }
        }
        pending().await
    };
    let typing = async move {
        // Without stdin, or past its end, the terminal stays open for its output, and may still be resized.
        let mut stdin = stdin;
        loop {
            tokio::select! {
                size = latest.recv() => {
                    let Some(size) = size else { return };
                    // The process may be gone already.
                    let _ = terminal.resize(Size::new(size.height, size.width));
                }
                data = next(&mut stdin) => {
                    let (bytes, last) = match &data {
                        Some(Ok(data)) => (&data[..], false),
                        _ => (END_OF_INPUT, true),
                    };
                    if terminal.write_all(bytes).await.is_err() || last {
                        stdin = None;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = typing => {}
    }
}

/// What is typed next; for ever where nothing can be.
async fn next(stdin: &mut Option<ProcessStdin>) -> Option<Result<Bytes, StreamError>> {
    match stdin {
        Some(stdin) => stdin.data().await,
        None => pending().await,
    }
}

/// The client is gone: so is what it started, and all that that started. Before, the process gets what the client has sent it; and if that was all of it,
/// the time to make something of it.
async fn end(
    child: &mut Child,
    group: Option<Pid>,
    mut feeding: Option<Feeding<Fed>>,
) -> io::Result<process::ExitStatus> {
    let fed = match &mut feeding {
        Some(feeding) => tokio::select! {
            status = child.wait() => return status,
            fed = feeding.last() => fed,
        },
        None => None,
    };
    if let Some(Fed::Whole(at)) = fed
        && let Ok(status) = timeout_at(at + LAST_WORK, child.wait()).await
    {
        return status;
    }
    for (signal, wait) in [(Signal::HUP, HANG_UP), (Signal::KILL, Duration::MAX)] {
        if let Some(group) = group {
            // Gone already, at best.
            let _ = kill_process_group(group, signal);
        }
        if timeout(wait, child.wait()).await.is_ok() {
            break;
        }
    }
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    // Only now is a pipe closed that was not: to a process that is there it would be an end.
    drop((fed, feeding));
    child.wait().await
}
