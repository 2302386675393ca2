//! The client's side of a session: makes the streams, reads the outputs, and learns how the command ended.
//!
//! This file decides the order in which a session ends. Bytes that reach a Go server while it ends the session can
//! destroy the tail of its output. So once the status has arrived, the client writes nothing more, except a PING to a
//! silent server.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::Error;
use super::options::Options;
use super::reader::Reader;
use super::streams::{StreamType, Streams, exec_protocol};
use crate::mux::{Multiplexer, RecvHalf, SendHalf, Stream, Watch};
use crate::protocol::{Protocol, Version};
use crate::session::{ConnectionError, Role, StreamError};
use crate::status::{ExitStatus, StatusReader, TerminalSize};
use crate::wire::spdy::RstStatus;

impl Multiplexer {
    /// Opens the streams of a session with the default [`Options`]: see [`exec_with`](Self::exec_with).
    ///
    /// # Errors
    /// The same as [`exec_with`](Self::exec_with).
    ///
    /// # Cancel safety
    /// The same as [`exec_with`](Self::exec_with).
    pub async fn exec(&self, want: Streams) -> Result<Exec, Error> {
        self.exec_with(want, Options::default()).await
    }

    /// Opens the streams of a session in client-go's order, without waiting between them, and then waits until the
    /// server has accepted each of them. `want` must name the streams that the request asked for. Exec and attach work
    /// the same.
    ///
    /// Over WebSocket the streams exist from the start, and this only takes them.
    ///
    /// # Errors
    /// [`Error::NotExec`] if the connection negotiated another protocol, [`Error::Refused`] if the server refuses a
    /// stream, [`Error::CreationTimeout`] after [`Options::creation_timeout`], or [`Error::Connection`] if the
    /// connection fails. Over WebSocket a second session on the same connection is [`Error::Connection`] with
    /// [`ConnectionError::NoChannel`].
    ///
    /// # Cancel safety
    /// If dropped before completion, the streams that were opened are reset, and the connection cannot be used for a
    /// session any more.
    pub async fn exec_with(&self, want: Streams, options: Options) -> Result<Exec, Error> {
        let (protocol, version) = exec_protocol(self)?;
        // Nobody accepts what a server opens, and each such stream would be kept.
        self.refuse_streams();
        let mut streams = Vec::new();
        let after = options.creation_timeout;
        let due = later(after);
        for kind in want.types(protocol, version) {
            let Ok(stream) = timeout_at(due, self.open(kind.headers())).await else {
                return Err(Error::CreationTimeout { missing: vec![kind.name()], after });
            };
            let stream = stream?;
            if kind == StreamType::Error {
                // v1's servers reset the error stream as soon as all streams are made, but still send the error on it.
                self.stop_sending_after(&stream, version == Version::V1);
            }
            streams.push((kind, stream, false));
        }
        self.release_given();
        let answers = poll_fn(|cx| {
            // Each poll looks at all streams, so that one unanswered stream does not hide the refusal of another.
            for (kind, stream, answered) in streams.iter_mut().filter(|(.., answered)| !answered) {
                if let Poll::Ready(answer) = stream.poll_answered(cx) {
                    answer.map_err(|error| refusal(kind.name(), error))?;
                    *answered = true;
                }
            }
            let all = streams.iter().all(|(.., answered)| *answered);
            if all { Poll::Ready(Ok::<(), Error>(())) } else { Poll::Pending }
        });
        match timeout_at(due, answers).await {
            Ok(answered) => answered?,
            Err(_) => {
                let missing = streams.iter().filter(|(.., answered)| !answered).map(|(kind, ..)| kind.name());
                return Err(Error::CreationTimeout { missing: missing.collect(), after });
            }
        }
        let streams = streams.into_iter().map(|(kind, stream, _)| (kind, stream));
        Ok(Exec::new(self.clone(), protocol, version, options, streams))
    }
}

/// A remote process, shaped after [`std::process::Child`].
///
/// Take the streams out of it, use them in any task, and [`wait`](Self::wait) for the end. The connection ends when its
/// last handle is dropped: this `Exec`, the streams that you took from it, and each clone of the [`Multiplexer`]. Most
/// servers then kill the process.
#[derive(Debug)]
pub struct Exec {
    /// What the process reads. Present with [`Streams::stdin`]. Shutting it down or dropping it ends the process's
    /// stdin after all written bytes, if the protocol has an end of stdin ([`can_end_stdin`](Self::can_end_stdin)).
    ///
    /// Over WebSocket before v5 the protocol has no end of stdin, and the process would wait for the end for ever. So
    /// there `shutdown` fails with [`StreamError::NoHalfClose`], of kind
    /// [`Unsupported`](std::io::ErrorKind::Unsupported), while the command runs. stdin stays open, so you can still end
    /// the command in its own way, with `exit` for a shell. If the command does not need the end of stdin, call
    /// [`finish`](SendHalf::finish) or drop stdin: neither reports an error. Or make `shutdown` succeed with
    /// [`pretend_half_close`](SendHalf::pretend_half_close).
    ///
    /// If your input was cut off, [`reset`](SendHalf::reset) stdin with [`RstStatus::INTERNAL_ERROR`]. After an
    /// ordinary end, the process would believe that it has read the whole input.
    pub stdin: Option<SendHalf>,
    /// What the process writes to stdout or to its terminal. Present with [`Streams::stdout`].
    pub stdout: Option<Reader>,
    /// What the process writes to stderr. Present with [`Streams::stderr`], but not with [`Streams::tty`].
    pub stderr: Option<Reader>,
    /// Sets the size of the terminal. Present with [`Streams::tty`]: over SPDY from v3 on, over WebSocket in every
    /// version.
    pub resize: Option<Resizer>,
    error: Option<RecvHalf>,
    /// stdout and stderr, also after they were taken.
    outputs: Vec<(&'static str, Watch)>,
    /// The outputs that the caller had not taken when `wait` was first called.
    unmissed: Vec<&'static str>,
    /// stdin, also after it was taken.
    stdin_sent: Option<Watch>,
    /// The sending halves of the streams that only the server writes. They are finished only at the end of the session,
    /// because a server may take a FIN on an output as the client's goodbye.
    unused: Vec<SendHalf>,
    protocol: Protocol,
    version: Version,
    options: Options,
    progress: Progress,
    mux: Multiplexer,
}

/// How far the ending has come. It is kept outside of [`Exec::wait`]'s future, so that `wait` can be dropped and called
/// again.
#[derive(Debug)]
struct Progress {
    reader: StatusReader,
    /// The error stream has carried at least one byte.
    said_something: bool,
    /// Present once the outputs have ended.
    after_outputs: Option<Asking>,
    status: Option<ExitStatus>,
    after_status: Option<Asking>,
}

impl Exec {
    fn new(
        mux: Multiplexer,
        protocol: Protocol,
        version: Version,
        options: Options,
        streams: impl Iterator<Item = (StreamType, Stream)>,
    ) -> Self {
        let mut exec = Self {
            mux,
            stdin: None,
            stdout: None,
            stderr: None,
            resize: None,
            error: None,
            outputs: Vec::new(),
            unmissed: Vec::new(),
            stdin_sent: None,
            unused: Vec::new(),
            protocol,
            version,
            options,
            progress: Progress {
                reader: StatusReader::new(version),
                said_something: false,
                after_outputs: None,
                status: None,
                after_status: None,
            },
        };
        for (kind, stream) in streams {
            // One half of stdin and of resize is dropped: nothing comes on them.
            let (recv, send) = stream.split();
            match kind {
                StreamType::Stdin => {
                    exec.stdin_sent = Some(send.watch());
                    exec.stdin = Some(send);
                }
                StreamType::Resize => exec.resize = Some(Resizer(send)),
                StreamType::Error => {
                    exec.error = Some(recv);
                    exec.unused.push(send);
                }
                StreamType::Stdout | StreamType::Stderr => {
                    exec.outputs.push((kind.name(), recv.watch()));
                    exec.unused.push(send);
                    let output = Some(Reader::new(recv, Role::Client));
                    if kind == StreamType::Stdout {
                        exec.stdout = output;
                    } else {
                        exec.stderr = output;
                    }
                }
            }
        }
        exec
    }

    /// The version of the protocol that was negotiated.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the client can tell the process that stdin has ended: over SPDY from v2 on, over WebSocket only in v5.
    /// Otherwise a process that reads stdin to its end keeps waiting.
    #[must_use]
    pub fn can_end_stdin(&self) -> bool {
        self.protocol.can_end_stdin()
    }

    /// Waits until the command has ended, and returns how it ended.
    ///
    /// First, this drops the streams that you have not taken. So stdin ends, if the protocol has an end of stdin, and
    /// an output cannot block the command. Read or drop the outputs that you have taken: if the unread bytes of an
    /// output exceed the receive budget ([`Config::receive_budget`](crate::mux::Config::receive_budget)), the status is
    /// not read either. If this returns `Ok`, every output that you took and did not drop has arrived whole, and can
    /// still be read.
    ///
    /// There is no time limit on a command: as long as the server answers, this waits. [`Options`] has the limits on
    /// the silence of a server, and says when the client sends it a PING.
    ///
    /// If the whole status has arrived, the result depends on your outputs, that is, those that you took and did not
    /// drop:
    ///
    /// | how your outputs ended | result |
    /// |---|---|
    /// | by FIN, by RST_STREAM with CANCEL, or with the server's goodbye | the status |
    /// | over WebSocket from v4 on: in any way, because the status is the last message | the status |
    /// | otherwise: by RST_STREAM with another status, EOF without a goodbye, our own shutdown, a failure, or silence for twice [`Options::output_grace`] | [`Error::Incomplete`], with the status |
    ///
    /// If no whole status has arrived, the result depends on how the error stream ended. Over WebSocket the server's
    /// Close with 1000 ends the error stream.
    ///
    /// | how the error stream ended | v1 | v2 and v3 | v4 and v5 |
    /// |---|---|---|---|
    /// | empty, by FIN or RST_STREAM with CANCEL | success | success | [`Error::MissingStatus`] |
    /// | empty, over SPDY, without FIN or RST_STREAM: the server ended the whole connection by GOAWAY with status OK | success if there are outputs and all have ended by FIN or RST_STREAM, else [`Error::MissingStatus`] | [`Error::MissingStatus`] | [`Error::MissingStatus`] |
    /// | after a text, by FIN, RST_STREAM with CANCEL, GOAWAY with status OK, or a WebSocket Close with any code | the text is the status | the text is the status | [`Error::BadStatus`] |
    /// | not at all: all outputs have ended, the server may have unread stdin, and it was silent for [`Options::status_timeout`] | as if it had ended by FIN | [`Error::StatusTimeout`] | [`Error::StatusTimeout`], or [`Error::BadStatus`] after a part of a status |
    /// | empty or within a status, by RST_STREAM with another status | ignored: v1's servers reset it | [`Error::Stream`] | [`Error::Stream`] |
    /// | empty or within a status, when the connection was lost or failed | [`Error::Connection`] | [`Error::Connection`] | [`Error::Connection`] |
    ///
    /// # Errors
    /// As the tables say, and [`Error::BadStatus`] if the error stream carries something that is not a status or is
    /// longer than [`MAX_STATUS_LEN`](crate::status::MAX_STATUS_LEN).
    ///
    /// # Cancel safety
    /// If dropped before completion, nothing of the status is lost, and `wait` can be called again. But the first call
    /// has dropped the streams that you had not taken by then.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.stdin = None;
        for (name, untaken) in [("stdout", self.stdout.take()), ("stderr", self.stderr.take())] {
            // It is not missed, however it ends.
            self.unmissed.extend(untaken.map(|_| name));
        }
        let status = match self.progress.status.clone() {
            Some(status) => status,
            None => {
                let status = self.read_status().await?;
                self.progress.status.insert(status).clone()
            }
        };
        let grace = self.options.output_grace;
        let asking = self.progress.after_status.get_or_insert_with(|| Asking::new(&self.mux, grace));
        let given_up = tokio::select! {
            biased;
            () = outputs_ended(&self.outputs) => false,
            () = asking.unanswered(&self.mux, || true) => true,
        };
        self.judge(status, given_up)
    }

    /// Returns the status, unless an output that the caller kept did not arrive whole.
    fn judge(&self, status: ExitStatus, given_up: bool) -> Result<ExitStatus, Error> {
        let (mut missing, mut cause) = (Vec::new(), None);
        for (name, output) in self.outputs.iter().filter(|(name, _)| !self.unmissed.contains(name)) {
            let error = match output.outcome() {
                Some(Err(error)) => error,
                None if given_up && output.is_wanted() => {
                    let after = self.options.output_grace.saturating_mul(2);
                    StreamError::Connection(ConnectionError::KeepaliveTimeout(after))
                }
                _ => continue,
            };
            missing.push(*name);
            cause.get_or_insert(error);
        }
        match cause {
            Some(error) => Err(Error::Incomplete { status, missing, error }),
            None => Ok(status),
        }
    }

    /// Waits until the command has ended, and collects up to `limit` bytes of each output. `Ok` means that both outputs
    /// are whole.
    ///
    /// # Errors
    /// The same as [`wait`](Self::wait), and [`Error::OutputTooLong`] if an output has more than `limit` bytes.
    ///
    /// # Cancel safety
    /// If dropped before completion, the session is dropped, with the output that was collected.
    pub async fn wait_with_output(mut self, limit: usize) -> Result<Output, Error> {
        // They are kept until `wait` has judged the end, because a dropped output is not missed.
        let (mut stdout, mut stderr) = (self.stdout.take(), self.stderr.take());
        let (mut out, mut err) = (BytesMut::new(), BytesMut::new());
        let collected = async {
            let (stdout, stderr) = (stdout.as_mut(), stderr.as_mut());
            tokio::try_join!(collect(stdout, limit, &mut out), collect(stderr, limit, &mut err))
        };
        let waited = async { Ok(self.wait().await) };
        let (_, status) = tokio::try_join!(collected, waited)?;
        Ok(Output { status: status?, stdout: out.freeze(), stderr: err.freeze() })
    }

    async fn read_status(&mut self) -> Result<ExitStatus, Error> {
        let half = self.options.status_timeout.checked_div(2).unwrap_or_default();
        loop {
            let Some(error) = &mut self.error else { return Err(Error::MissingStatus) };
            let progress = &mut self.progress;
            let data = match &mut progress.after_outputs {
                None => tokio::select! {
                    biased;
                    data = error.data() => data,
                    () = outputs_ended(&self.outputs), if !self.outputs.is_empty() => {
                        progress.after_outputs = Some(Asking::new(&self.mux, half));
                        continue;
                    }
                },
                Some(asking) => {
                    let stdin = &self.stdin_sent;
                    let may_be_stuck = || stdin.as_ref().is_some_and(Watch::may_be_unread);
                    tokio::select! {
                        biased;
                        data = error.data() => data,
                        () = asking.unanswered(&self.mux, may_be_stuck) => return self.status_overdue(),
                    }
                }
            };
            match data {
                Some(Ok(data)) => {
                    progress.said_something |= !data.is_empty();
                    // containerd sends no FIN after v4's status, so a whole status is enough.
                    if let Some(status) = progress.reader.push(&data)? {
                        return Ok(status);
                    }
                }
                end => {
                    let goodbye = self.mux.peer_said_goodbye();
                    let ended = match end {
                        None | Some(Err(StreamError::Reset(RstStatus::CANCEL))) => Ok(()),
                        // We ended the connection, and the rest of the text may have been on its way.
                        Some(Err(StreamError::Connection(error @ ConnectionError::Closed)))
                            if self.version < Version::V4 && progress.said_something && !goodbye =>
                        {
                            Err(Error::Connection(error))
                        }
                        // v1's error stream has no other end. In the other versions an error stream without its own end
                        // was cut.
                        Some(Err(StreamError::Connection(ConnectionError::Closed)))
                            if self.version == Version::V1
                                && goodbye
                                && !self.outputs.is_empty()
                                && self.outputs.iter().all(|(_, output)| output.was_finished()) =>
                        {
                            Ok(())
                        }
                        Some(Err(StreamError::Connection(ConnectionError::Closed))) => Err(Error::MissingStatus),
                        Some(Err(StreamError::Connection(error))) => Err(Error::Connection(error)),
                        Some(Err(error)) => Err(Error::Stream { stream: "error", error }),
                        Some(Ok(_)) => continue,
                    };
                    return self.decode_status(ended);
                }
            }
        }
    }

    /// The status on an error stream that has ended as `ended` says.
    fn decode_status(&self, ended: Result<(), Error>) -> Result<ExitStatus, Error> {
        let cut = match &ended {
            // A server that has sent half a v4 status has not sent a bad one.
            Err(Error::Connection(_) | Error::MissingStatus | Error::Stream { .. })
                if self.progress.reader.is_inside() =>
            {
                true
            }
            // The text of v1 to v3 is whole at its end alone: before that, the last digit of "exit code 127" may be
            // missing.
            Err(Error::Connection(error)) => {
                self.version < Version::V4 && !matches!(error, ConnectionError::PeerClosed { .. })
            }
            Err(Error::Stream { .. }) => self.version < Version::V4,
            _ => false,
        };
        if cut || !self.progress.said_something {
            ended?;
        }
        self.progress.reader.finish()?.ok_or(Error::MissingStatus)
    }

    /// The outputs have ended, but the error stream has not. v1's error stream has no end of its own, so the text that
    /// has arrived counts as whole. The text of v2 and v3 is whole only when the stream has ended.
    fn status_overdue(&self) -> Result<ExitStatus, Error> {
        if self.version == Version::V1 || (self.version >= Version::V4 && self.progress.said_something) {
            return self.decode_status(Ok(()));
        }
        Err(Error::StatusTimeout(self.options.status_timeout))
    }
}

/// Measures a server's silence, and sends it a PING. It is kept outside of the futures that wait, so that they can be
/// dropped.
#[derive(Debug)]
struct Asking {
    /// How long the server may be silent before the PING, and again after it.
    wait: Duration,
    due: Instant,
    /// How many bytes had been received at the last check. `None` while this end reads nothing.
    heard: Option<u64>,
    asked: bool,
}

impl Asking {
    fn new(mux: &Multiplexer, wait: Duration) -> Self {
        Self { wait, due: later(wait), heard: mux.heard(), asked: false }
    }

    /// Ready once the server has not answered a PING while `suspect` was true.
    async fn unanswered(&mut self, mux: &Multiplexer, suspect: impl Fn() -> bool) {
        loop {
            sleep_until(self.due).await;
            let heard = mux.heard();
            // While we read nothing, we cannot tell whether the server is silent.
            let silent = heard.is_some() && heard == self.heard && suspect();
            if silent && self.asked {
                return;
            }
            if silent {
                mux.ask();
            }
            *self = Self { wait: self.wait, due: later(self.wait), heard, asked: silent };
        }
    }
}

/// How a command ended and what it wrote to its outputs, shaped after [`std::process::Output`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How the command ended.
    pub status: ExitStatus,
    /// All that it wrote to stdout. Empty if stdout was not asked for, or was taken before.
    pub stdout: Bytes,
    /// All that it wrote to stderr. Empty if stderr was not asked for, or was taken before.
    pub stderr: Bytes,
}

/// Sets the size of the remote terminal.
#[derive(Debug)]
pub struct Resizer(SendHalf);

impl Resizer {
    /// Sends the new size. Waits while the send buffer is full, as [`SendHalf::send`] does.
    ///
    /// # Errors
    /// [`StreamError::SessionEnded`] once the command has ended, or the error that the stream or the connection ended
    /// with.
    ///
    /// # Cancel safety
    /// If dropped before completion, nothing was sent.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), StreamError> {
        self.0.send(size.encode()).await
    }
}

/// The time after `wait`, at most a century from now: the clock cannot hold every duration.
fn later(wait: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let now = Instant::now();
    now.checked_add(wait.min(CENTURY)).unwrap_or(now)
}

fn refusal(stream: &'static str, error: StreamError) -> Error {
    match error {
        StreamError::Reset(status) => Error::Refused { stream, status },
        StreamError::Connection(error) => Error::Connection(error),
        error => Error::Stream { stream, error },
    }
}

async fn outputs_ended(outputs: &[(&'static str, Watch)]) {
    for (_, output) in outputs {
        poll_fn(|cx| output.poll_ended(cx)).await;
    }
}

/// Collects an output until it ends in any way. `wait` judges how it ended.
async fn collect(output: Option<&mut Reader>, limit: usize, all: &mut BytesMut) -> Result<(), Error> {
    let Some(output) = output else { return Ok(()) };
    while let Some(Ok(data)) = output.data().await {
        if data.len() > limit.saturating_sub(all.len()) {
            return Err(Error::OutputTooLong { limit });
        }
        all.extend_from_slice(&data);
    }
    Ok(())
}
