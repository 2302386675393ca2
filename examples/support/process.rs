//! A command in the "container": a local process on pipes or on a terminal.
//!
//! Owns the process from its start to its last byte, and that it ends when its client goes away.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kubestream::StreamError;
use kubestream::exec::{Error, ExecServer, ProcessOutput, ProcessStdin, Resizes};
use kubestream::status::{ExitStatus, Status};
use pty_process::{OwnedWritePty, Size};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How long a pipe may be silent after the process is gone before it is taken to be at its end, although something the
/// process started still holds it.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// From the hang-up to the kill.
const HANG_UP: Duration = Duration::from_secs(1);

/// Where a command runs: as this program itself does, unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) directory: Option<PathBuf>,
    /// All of it.
    pub(crate) environment: Option<Vec<(String, OsString)>>,
}

/// Runs a command for a client, and says how it ended once all its output is out.
pub(crate) async fn run(command: &[String], tty: bool, place: &Place, mut server: ExecServer) -> Result<(), Error> {
    let (gone, exited) = watch::channel(false);
    let mut copies = JoinSet::new();
    let started = if tty {
        start_on_terminal(command, place, &mut server, &mut copies)
    } else {
        start_on_pipes(command, place, &mut server, &mut copies, &exited)
    };
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let message = format!("error executing command in container: exec: {:?}: {error}", command[0]);
            return server.exit(ExitStatus::Failed(Box::new(Status::internal_error(message)))).await;
        }
    };
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let orphans = KillOnDrop(group);
    let status = tokio::select! {
        status = child.wait() => status,
        () = server.client_gone() => {
            hang_up(&mut child, group).await;
            return Ok(());
        }
    };
    // It ended by itself: what it left running may go on.
    std::mem::forget(orphans);
    // No receiver is left where there is no output to wait for.
    let _ = gone.send(true);
    tokio::select! {
        () = async { while copies.join_next().await.is_some() {} } => {}
        () = server.client_gone() => return Ok(()),
    }
    let status = match status {
        Ok(status) => match status.code().or_else(|| status.signal().map(|signal| 128 + signal)) {
            Some(0) | None => ExitStatus::Success,
            Some(code) => ExitStatus::Code(code),
        },
        Err(error) => ExitStatus::Failed(Box::new(Status::internal_error(error.to_string()))),
    };
    server.exit(status).await
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
    exited: &watch::Receiver<bool>,
) -> io::Result<Child> {
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
    if let (Some(from), Some(to)) = (server.stdin.take(), child.stdin.take()) {
        // Not among the copies that are waited for: a process may end without having read it.
        tokio::spawn(feed(from, to));
    }
    if let (Some(from), Some(to)) = (child.stdout.take(), server.stdout.take()) {
        copies.spawn(drain(from, to, exited.clone()));
    }
    if let (Some(from), Some(to)) = (child.stderr.take(), server.stderr.take()) {
        copies.spawn(drain(from, to, exited.clone()));
    }
    Ok(child)
}

fn start_on_terminal(
    command: &[String],
    place: &Place,
    server: &mut ExecServer,
    copies: &mut JoinSet<()>,
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
        let (_, never) = watch::channel(false);
        copies.spawn(drain(from, output, never));
    }
    tokio::spawn(operate(to, server.stdin.take(), server.resize.take()));
    Ok(child)
}

/// From the process to the client, to the last byte.
async fn drain(mut from: impl AsyncRead + Unpin, mut to: ProcessOutput, mut exited: watch::Receiver<bool>) {
    let mut buffer = BytesMut::new();
    while let Some(data) = piece(&mut from, &mut buffer, &mut exited).await {
        if to.send(data).await.is_err() {
            return;
        }
    }
}

/// What a process writes next. `None` at the end, or once it has exited and nothing more comes.
pub(crate) async fn piece(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    exited: &mut watch::Receiver<bool>,
) -> Option<Bytes> {
    const READ: usize = 32 * 1024;
    buffer.reserve(READ);
    let abandoned = async {
        if exited.wait_for(|exited| *exited).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LAST_WORDS).await;
    };
    let read = tokio::select! {
        biased;
        read = from.read_buf(buffer) => read,
        () = abandoned => return None,
    };
    matches!(read, Ok(1..)).then(|| buffer.split().freeze())
}

/// From the client to the process; its end closes the pipe.
async fn feed(mut from: ProcessStdin, mut to: impl AsyncWrite + Unpin) {
    while let Some(Ok(data)) = from.data().await {
        if to.write_all(&data).await.is_err() {
            return;
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
        std::future::pending().await
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
        None => std::future::pending().await,
    }
}

/// The client is gone: so is what it started, and all that that started.
async fn hang_up(child: &mut Child, group: Option<Pid>) {
    for (signal, wait) in [(Signal::HUP, HANG_UP), (Signal::KILL, Duration::MAX)] {
        if let Some(group) = group {
            // Gone already, at best.
            let _ = kill_process_group(group, signal);
        }
        if tokio::time::timeout(wait, child.wait()).await.is_ok() {
            break;
        }
    }
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
}
