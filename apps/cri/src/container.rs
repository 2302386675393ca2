//! A container: one local process and its children, from the start to the last byte of output.
//!
//! Holds the process and ends it. Its outputs go to its [`Log`] and to attached clients.
//! [`runtime_service`](crate::runtime_service) handles the requests. There is no isolation: no root, user, mounts or
//! limits of its own.

use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use kubestream::status::TerminalSize;
use kubestream_apps::process::Place;
use pty_process::{OwnedReadPty, OwnedWritePty, Size};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::fanout::Fanout;
use crate::log::{Log, Records};
use crate::sweep::{self, MARK};
use crate::time::nanos;
use crate::v1::ContainerConfig;

/// How long an output may be silent after all processes of the container have been ended. A process that still has it
/// open then does not belong to the container.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) config: ContainerConfig,
    program: Vec<String>,
    /// In nanoseconds of Unix time, like all times in CRI.
    pub(crate) created: i64,
    pub(crate) log: Log,
    pub(crate) stdout: Fanout,
    pub(crate) stderr: Fanout,
    stdin: mpsc::Sender<Input>,
    /// Input that came before the process was started.
    typed: Mutex<Option<mpsc::Receiver<Input>>>,
    state: watch::Sender<State>,
}

#[derive(Clone, Debug)]
pub(crate) enum State {
    Created,
    Running { started: i64, process: Option<Pid> },
    Exited { started: i64, finished: i64, code: i32, reason: &'static str, message: String },
}

/// What attached clients send to a process.
#[derive(Debug)]
pub(crate) enum Input {
    Data(Bytes),
    Size(TerminalSize),
    End,
}

impl Container {
    /// `program` is the command to run, from the container's config or its image. It is never empty.
    pub(crate) fn new(
        id: String,
        sandbox: String,
        config: ContainerConfig,
        program: Vec<String>,
        log: Option<PathBuf>,
    ) -> io::Result<Self> {
        let (stdin, typed) = mpsc::channel(16);
        Ok(Self {
            id,
            sandbox,
            config,
            program,
            created: nanos(SystemTime::now()),
            log: Log::open(log)?,
            stdout: Fanout::default(),
            stderr: Fanout::default(),
            stdin,
            typed: Mutex::new(Some(typed)),
            state: watch::Sender::new(State::Created),
        })
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until the process has ended and its whole output is in the log.
    pub(crate) async fn ended(&self) {
        // This value owns the sender, so the wait cannot fail.
        let _ = self.state.subscribe().wait_for(|state| matches!(state, State::Exited { .. })).await;
    }

    /// Where the container's process and its execs run.
    pub(crate) fn place(&self, tty: bool) -> Place {
        let ours = ["PATH", "HOME"].into_iter().filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)));
        let mut environment: Vec<_> = ours.collect();
        if tty {
            environment.push(("TERM".to_owned(), "xterm".into()));
        }
        environment.extend(self.config.envs.iter().map(|env| (env.key.clone(), OsString::from_vec(env.value.clone()))));
        environment.push((MARK.to_owned(), self.id.clone().into()));
        let directory = Some(&self.config.working_dir).filter(|directory| !directory.is_empty());
        Place { directory: directory.map(PathBuf::from), environment: Some(environment) }
    }

    /// Hands input to the process, and waits while the process does not read. After the process has ended, the input is
    /// dropped.
    pub(crate) async fn input(&self, input: Input) {
        let _ = self.stdin.send(input).await;
    }

    pub(crate) fn start(self: &Arc<Self>) -> Result<(), String> {
        let mut started = Err(format!("container {} is not in the state created", self.id));
        self.state.send_if_modified(|state| {
            if !matches!(state, State::Created) {
                return false;
            }
            let now = nanos(SystemTime::now());
            started = self.spawn().map_err(|error| format!("exec: {:?}: {error}", self.program[0]));
            *state = match &started {
                Ok((child, _)) => State::Running { started: now, process: pid(child) },
                Err(error) => {
                    let message = error.clone();
                    State::Exited { started: now, finished: now, code: 128, reason: "StartError", message }
                }
            };
            true
        });
        let (child, terminal) = started?;
        tokio::spawn(Arc::clone(self).tend(child, terminal));
        Ok(())
    }

    /// Asks the process to end, if there is time for that, and then kills it. A container that was not started stays so
    /// for ever.
    pub(crate) async fn stop(&self, grace: Duration) {
        self.state.send_if_modified(|state| {
            let created = matches!(state, State::Created);
            if created {
                let now = nanos(SystemTime::now());
                let message = "stopped before it was started".to_owned();
                *state = State::Exited { started: 0, finished: now, code: 137, reason: "Error", message };
            }
            created
        });
        let State::Running { process: Some(process), .. } = self.state() else { return };
        if !grace.is_zero() {
            // The process may have ended already.
            let _ = kill_process(process, Signal::TERM);
            if tokio::time::timeout(grace, self.ended()).await.is_ok() {
                return;
            }
        }
        let _ = kill_process_group(process, Signal::KILL);
        self.ended().await;
    }

    fn spawn(&self) -> io::Result<(Child, Option<(OwnedReadPty, OwnedWritePty)>)> {
        let (program, place) = (&self.program, self.place(self.config.tty));
        let environment = place.environment.unwrap_or_default();
        if self.config.tty {
            let (terminal, end) = pty_process::open().map_err(io::Error::other)?;
            let mut command = pty_process::Command::new(&program[0]).args(&program[1..]).env_clear().envs(environment);
            if let Some(directory) = place.directory {
                command = command.current_dir(directory);
            }
            let child = command.spawn(end).map_err(io::Error::other)?;
            return Ok((child, Some(terminal.into_split())));
        }
        let mut command = Command::new(&program[0]);
        if let Some(directory) = place.directory {
            command.current_dir(directory);
        }
        let stdin = if self.config.stdin { Stdio::piped() } else { Stdio::null() };
        let command = command.args(&program[1..]).env_clear().envs(environment);
        let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
        Ok((child, None))
    }

    async fn tend(self: Arc<Self>, mut child: Child, terminal: Option<(OwnedReadPty, OwnedWritePty)>) {
        let (gone, exited) = watch::channel(false);
        let process = pid(&child);
        let typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut outputs = JoinSet::new();
        if let Some((from, to)) = terminal {
            outputs.spawn(Arc::clone(&self).follow("stdout", from, exited.clone()));
            tokio::spawn(feed(typed, Some(to), |to, size| drop(to.resize(Size::new(size.height, size.width))), exited));
        } else {
            if let Some(from) = child.stdout.take() {
                outputs.spawn(Arc::clone(&self).follow("stdout", from, exited.clone()));
            }
            if let Some(from) = child.stderr.take() {
                outputs.spawn(Arc::clone(&self).follow("stderr", from, exited.clone()));
            }
            tokio::spawn(feed(typed, child.stdin.take(), |_, _| {}, exited));
        }
        let status = child.wait().await;
        let finished = nanos(SystemTime::now());
        if let Some(group) = process {
            // The end of the first process ends the whole container.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let id = self.id.clone();
        let _ = tokio::task::spawn_blocking(move || sweep::kill(&id)).await;
        // If all outputs have ended, there is no receiver.
        let _ = gone.send(true);
        while outputs.join_next().await.is_some() {}
        self.stdout.end();
        self.stderr.end();
        self.state.send_modify(|state| {
            let started = if let State::Running { started, .. } = state { *started } else { finished };
            *state = exit(status, started, finished);
        });
    }

    /// Copies an output to the log and to attached clients, to the last byte.
    async fn follow(
        self: Arc<Self>,
        stream: &'static str,
        mut from: impl AsyncRead + Unpin,
        mut exited: watch::Receiver<bool>,
    ) {
        let viewers = if stream == "stdout" { &self.stdout } else { &self.stderr };
        let mut records = Records::of(stream);
        let mut buffer = BytesMut::new();
        while let Some(data) = piece(&mut from, &mut buffer, &mut exited).await {
            self.log.write(&records.push(&data, SystemTime::now()));
            viewers.send(&data).await;
        }
        self.log.write(&records.finish(SystemTime::now()));
    }
}

/// Returns what a process writes next. `None` means the end, or that the container has ended and the output is silent.
async fn piece(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    exited: &mut watch::Receiver<bool>,
) -> Option<Bytes> {
    // A message over WebSocket is 32 KiB with its channel byte.
    const READ: usize = 32 * 1024 - 1;
    buffer.reserve(READ);
    let abandoned = async {
        if exited.wait_for(|exited| *exited).await.is_err() {
            pending::<()>().await;
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

/// Passes input from attached clients to the process while it lives.
async fn feed<W: AsyncWrite + Unpin>(
    typed: Option<mpsc::Receiver<Input>>,
    mut to: Option<W>,
    resize: fn(&W, TerminalSize),
    mut exited: watch::Receiver<bool>,
) {
    let Some(mut typed) = typed else { return };
    let feeding = async {
        while let Some(input) = typed.recv().await {
            let Some(process) = &mut to else { continue };
            let taken = match input {
                Input::Data(data) => process.write_all(&data).await.is_ok(),
                Input::Size(size) => {
                    resize(process, size);
                    true
                }
                Input::End => false,
            };
            if !taken {
                to = None;
            }
        }
    };
    tokio::select! {
        () = feeding => {}
        _ = exited.wait_for(|exited| *exited) => {}
    }
}

fn exit(status: io::Result<ExitStatus>, started: i64, finished: i64) -> State {
    let (code, message) = match status {
        Ok(status) => {
            (status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255), String::new())
        }
        Err(error) => (255, error.to_string()),
    };
    let reason = if code == 0 { "Completed" } else { "Error" };
    State::Exited { started, finished, code, reason, message }
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| Pid::from_raw(id as i32))
}
