//! Runs a command of the "container": a local process on pipes or on a terminal.
//!
//! Follows the process to its last byte of output, and ends it when its client goes away.

use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kubestream::StreamError;
use kubestream::exec::{Error, ExecServer, Reader, Resizes};
use kubestream::mux::SendHalf;
use kubestream::status::{ExitStatus, Status};
use pty_process::{OwnedWritePty, Size};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use crate::signals;

/// After the client has gone, how long its last input may wait for a process that does not read.
const UNREAD: Duration = Duration::from_secs(10);
/// After the client has gone and stdin has ended, how long a command has until SIGHUP: as long as Kubernetes gives a
/// pod to end.
const LAST_WORK: Duration = Duration::from_secs(30);
/// The time from SIGHUP to SIGKILL.
const HANG_UP: Duration = Duration::from_secs(1);

/// Where a command runs. By default it inherits everything from this program.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub directory: Option<PathBuf>,
    /// The whole environment.
    pub environment: Option<Vec<(String, OsString)>>,
}

/// Runs a command for a client. Reports the status after the whole output has been sent, including that of processes
/// that the command leaves running.
pub async fn run(command: &[String], tty: bool, place: &Place, mut server: ExecServer) -> Result<(), Error> {
    signals::default_for_commands();
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
            // The output is read on and discarded, so that the command is not stopped by a full pipe.
            let _ = leave.send(true);
            (end(&mut child, group, feeding).await, true)
        }
    };
    // The command has ended, and what it leaves running may go on.
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
    // If the client has gone, nobody can be told.
    if gone { Ok(()) } else { told }
}

/// Kills a process group when it is dropped, because this program stops.
struct KillOnDrop(Option<Pid>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The group may have ended already.
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
        // This copy is not awaited, because a process may end without reading its stdin.
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
        // A terminal ends with EIO once no process has it open.
        copies.spawn(drain(from, output, left.clone()));
    }
    tokio::spawn(operate(to, server.stdin.take(), server.resize.take()));
    Ok(child)
}

/// Copies a process's output to the client, until no process has the pipe open. After the client has left, the output
/// is read and discarded.
async fn drain(mut from: impl AsyncRead + Unpin, mut to: SendHalf, mut left: watch::Receiver<bool>) {
    // A message over WebSocket is 32 KiB with its channel byte.
    const READ: usize = 32 * 1024 - 1;
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
        // If the client does not want the output, the process finds its pipe closed. If the connection is lost, the
        // client's end is noticed elsewhere.
        if matches!(sent, Err(StreamError::Reset(_))) {
            return;
        }
    }
}

/// A task that copies a client's bytes to a process, and whether it still moves. Dropping this ends the task.
#[derive(Debug)]
pub struct Feeding<T> {
    /// [`None`] after its result has been returned.
    task: Option<JoinHandle<T>>,
    moved: watch::Receiver<()>,
}

impl<T: Send + 'static> Feeding<T> {
    /// `feed` signals each time it has moved something.
    pub fn start<F: Future<Output = T> + Send + 'static>(feed: impl FnOnce(watch::Sender<()>) -> F) -> Self {
        let (moves, moved) = watch::channel(());
        Self { task: Some(tokio::spawn(feed(moves))), moved }
    }

    /// Waits for the task to end. Returns [`None`] if its result has been returned before.
    pub async fn over(&mut self) -> Option<T> {
        let fed = self.task.as_mut()?.await;
        self.task = None;
        fed.ok()
    }

    /// The same after the client has gone: also returns [`None`] if nothing moves for `UNREAD`.
    pub async fn last(&mut self) -> Option<T> {
        let mut moved = self.moved.clone();
        let still = async {
            while let Ok(changed) = timeout(UNREAD, moved.changed()).await {
                if changed.is_err() {
                    // The sender ended with the task, which is over.
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

/// How a process's stdin ended.
enum Fed {
    /// All of it was delivered at this time, and the pipe was closed.
    Whole(Instant),
    /// The process does not read its stdin any more.
    Unwanted,
    /// The rest was lost. The pipe stays open, so that the process does not take the cut for an end.
    Cut { _pipe: ChildStdin },
}

/// Copies from the client to the process.
async fn feed(mut from: Reader, mut to: ChildStdin, moved: watch::Sender<()>) -> Fed {
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

/// Passes keys and sizes to the terminal in the order in which they arrive.
async fn operate(mut terminal: OwnedWritePty, stdin: Option<Reader>, resizes: Option<Resizes>) {
    /// Ctrl-D, the only way to end a terminal's input.
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
        // Without stdin, or after its end, the terminal stays open for output and resizing.
        let mut stdin = stdin;
        loop {
            tokio::select! {
                size = latest.recv() => {
                    let Some(size) = size else { return };
                    // The process may have ended already.
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

/// Returns what is typed next. Without stdin it never returns.
async fn next(stdin: &mut Option<Reader>) -> Option<Result<Bytes, StreamError>> {
    match stdin {
        Some(stdin) => stdin.data().await,
        None => pending().await,
    }
}

/// Ends a process whose client has gone, with all that it started. First the process gets what the client has sent, and
/// if that was all, time to act on it.
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
            // The group may have ended already.
            let _ = kill_process_group(group, signal);
        }
        if timeout(wait, child.wait()).await.is_ok() {
            break;
        }
    }
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    // A cut pipe is closed only now, because a living process would take that for an end.
    drop((fed, feeding));
    child.wait().await
}
