//! The client's side of a session: make the streams, read the outputs, learn how the command ended.
//!
//! Owns the order of the ending. Bytes of ours that reach a Go server while it finishes can destroy the tail of its
//! output, so once the status is there nothing more is written, but a PING that asks a silent server.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::Error;
use super::options::Options;
use super::streams::{StreamType, Streams, exec_protocol};
use crate::mux::{Multiplexer, RecvHalf, SendHalf, Stream, Watch};
use crate::protocol::{Protocol, Version};
use crate::session::{ConnectionError, StreamError};
use crate::status::{ExitStatus, StatusReader, TerminalSize};
use crate::wire::spdy::RstStatus;

impl Multiplexer {
    /// Makes the streams of a session, as [`exec_with`](Self::exec_with) with the default [`Options`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn exec(&self, want: Streams) -> Result<Exec, Error> {
        self.exec_with(want, Options::default()).await
    }

    /// Makes the streams of a session: all at once, in client-go's order, and waits until the server has answered every
    /// one. `want` must be what the request asked for. Works the same for exec and attach.
    ///
    /// # Errors
    /// [`Error::NotExec`] on a connection that negotiated something else, [`Error::Refused`],
    /// [`Error::CreationTimeout`], or [`Error::Connection`].
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the streams that were made are reset, and the session is of no use any more.
    pub async fn exec_with(&self, want: Streams, options: Options) -> Result<Exec, Error> {
        let (protocol, version) = exec_protocol(self)?;
        let mut streams = Vec::new();
        let after = options.creation_timeout;
        let due = later(after);
        for kind in want.types(protocol, version) {
            let Ok(stream) = timeout_at(due, self.open(kind.headers())).await else {
                return Err(Error::CreationTimeout { missing: vec![kind.name()], after });
            };
            let stream = stream?;
            if kind == StreamType::Error {
                // v1's servers reset the error stream as soon as all streams are made, and send the error all the same.
                self.hush_after(stream.id(), version == Version::V1);
            }
            streams.push((kind, stream, false));
        }
        self.release_given();
        let answers = poll_fn(|cx| {
            // All are asked at each turn: a refusal counts whichever stream still waits, and so does an answer.
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
/// Take the streams out of it, use them in whatever tasks, and [`wait`](Self::wait) for the end. Dropping it, and the
/// streams taken from it, ends the connection if nobody else holds it, and with it, at most servers, the process.
#[derive(Debug)]
pub struct Exec {
    /// What the process reads, if it was asked for.
    pub stdin: Option<RemoteStdin>,
    /// What the process writes, or its terminal shows.
    pub stdout: Option<RemoteOutput>,
    /// What the process writes to stderr.
    pub stderr: Option<RemoteOutput>,
    /// The terminal's size, with a terminal and from v3 on.
    pub resize: Option<Resizer>,
    error: Option<RecvHalf>,
    /// The two outputs, wherever they are now.
    outputs: Vec<(&'static str, Watch)>,
    /// Those that nobody took.
    unmissed: Vec<&'static str>,
    /// What was sent to the process, wherever it is sent from.
    stdin_sent: Option<Watch>,
    /// The sending halves of what only the server writes: finished at the end, not before, since a server may take a FIN
    /// on an output for the client's farewell.
    unused: Vec<SendHalf>,
    protocol: Protocol,
    version: Version,
    options: Options,
    progress: Progress,
    mux: Multiplexer,
}

/// What is known of the ending. Kept outside of [`Exec::wait`]'s future, so that it may be dropped and called again.
#[derive(Debug)]
struct Progress {
    reader: StatusReader,
    /// Some of the error stream has come.
    said_something: bool,
    /// The outputs have ended.
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
            // The half that is not used is dropped: nothing comes on stdin, and Go's servers do not listen on the others.
            let (recv, send) = stream.split();
            match kind {
                StreamType::Stdin => {
                    exec.stdin_sent = Some(send.watch());
                    exec.stdin = Some(RemoteStdin(send));
                }
                StreamType::Resize => exec.resize = Some(Resizer(send)),
                StreamType::Error => {
                    exec.error = Some(recv);
                    exec.unused.push(send);
                }
                StreamType::Stdout | StreamType::Stderr => {
                    exec.outputs.push((kind.name(), recv.watch()));
                    exec.unused.push(send);
                    let output = Some(RemoteOutput(recv));
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

    /// Whether the end of stdin reaches the process. Over WebSocket it does with v5 alone: before, what reads stdin to its
    /// end goes on waiting.
    #[must_use]
    pub fn can_end_stdin(&self) -> bool {
        self.protocol.can_end_stdin()
    }

    /// Waits until the command has ended and says how.
    ///
    /// stdin, if it was not taken, is finished first, and outputs that were not taken are discarded, so that waiting
    /// cannot hold the command up. Where this is `Ok`, each output that was taken has come whole, and may still be read. Read or drop
    /// an output that was taken: unread beyond the receive budget, it keeps the status from being read too.
    ///
    /// A server that answers is waited for, however long the command takes ([`Options`] says when it is asked). What comes of each
    /// ending:
    ///
    /// | the status | how the outputs that somebody wanted, or the session, ended | this gives |
    /// |---|---|---|
    /// | whole | by FIN, by RST_STREAM with CANCEL, or by the server's goodbye; over WebSocket from v4 on in any way, since the status is its last message | the status, whatever follows |
    /// | whole | otherwise: RST_STREAM with another status, EOF without a goodbye, a shutdown of ours, a failure, a server that was given up | [`Error::Incomplete`], with the status |
    /// | none | the outputs have ended, the server may have stdin unread, and is silent | [`Error::StatusTimeout`] |
    /// | none, v4 and v5 | the server said goodbye | [`Error::MissingStatus`] |
    /// | none, v1 to v3 | the server said goodbye | success: silence is all that it says |
    /// | none, or cut | the connection was lost or failed | [`Error::Connection`] |
    ///
    /// # Errors
    /// [`Error::Incomplete`]. [`Error::MissingStatus`] where the error stream ends without a status from v4 on: never a success.
    /// [`Error::StatusTimeout`] where the outputs have ended and a server that may have stdin of ours unread is silent.
    /// [`Error::BadStatus`]. [`Error::Connection`]: also where a status was cut off, or the text that v1 to v3 have for one may have
    /// been.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has lost nothing of the status: call it again. What was not taken before the first
    /// call is discarded all the same.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.stdin = None;
        for (name, untaken) in [("stdout", self.stdout.take()), ("stderr", self.stderr.take())] {
            // However it ended, or will.
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

    /// Whether the status counts: not where an output is missing that somebody wanted.
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

    /// Waits for the end and collects what the command writes, up to `limit` bytes of each output.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`Error::OutputTooLong`] where there is more: nothing is cut off in silence.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the session is dropped with it.
    pub async fn wait_with_output(mut self, limit: usize) -> Result<Output, Error> {
        // Held until the end is judged: an output that was dropped is one that nobody misses.
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
                    // The FIN behind v4's status may never come: a whole one is enough.
                    if let Some(status) = progress.reader.push(&data)? {
                        return Ok(status);
                    }
                }
                end => {
                    let goodbye = self.mux.peer_said_goodbye();
                    let ended = match end {
                        None | Some(Err(StreamError::Reset(RstStatus::CANCEL))) => Ok(()),
                        // Where we went ourselves, what would still have come may be the rest of the text.
                        Some(Err(StreamError::Connection(error @ ConnectionError::Closed)))
                            if self.version < Version::V4 && progress.said_something && !goodbye =>
                        {
                            Err(Error::Connection(error))
                        }
                        // v1's error stream has no other end. For the rest, a connection that ended first was cut.
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

    /// The error stream has ended, well or not.
    fn decode_status(&self, ended: Result<(), Error>) -> Result<ExitStatus, Error> {
        let cut = match &ended {
            // A server that has sent half a v4 status has not sent a bad one.
            Err(Error::Connection(_) | Error::MissingStatus | Error::Stream { .. })
                if self.progress.reader.is_inside() =>
            {
                true
            }
            // The text of v1 to v3 is whole at its end alone: before that, the last digit of "exit code 127" may be missing.
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

    /// v1's error stream has no end of its own: what is known when the outputs are over is all there is. The text of v2 and
    /// v3 is whole at its end and not before.
    fn status_overdue(&self) -> Result<ExitStatus, Error> {
        if self.version == Version::V1 || (self.version >= Version::V4 && self.progress.said_something) {
            return self.decode_status(Ok(()));
        }
        Err(Error::StatusTimeout(self.options.status_timeout))
    }
}

/// A server that is silent, and is asked whether it is there. Kept outside of the futures that wait for it.
#[derive(Debug)]
struct Asking {
    /// How long it may be silent before it is asked, and how long after that.
    wait: Duration,
    due: Instant,
    /// Bytes that had come when it was looked at last, if they were read at all.
    heard: Option<u64>,
    asked: bool,
}

impl Asking {
    fn new(mux: &Multiplexer, wait: Duration) -> Self {
        Self { wait, due: later(wait), heard: mux.heard(), asked: false }
    }

    /// Ready once nothing has come though it was asked, as long as `suspect` holds.
    async fn unanswered(&mut self, mux: &Multiplexer, suspect: impl Fn() -> bool) {
        loop {
            sleep_until(self.due).await;
            let heard = mux.heard();
            // What we do not read is no silence of the server's.
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

/// What a command left behind, as [`std::process::Output`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Bytes,
    /// What it wrote to stderr.
    pub stderr: Bytes,
}

/// The stdin of a remote process. Shut down or dropped, the process reads its end, where the protocol can say it
/// ([`Exec::can_end_stdin`]); what was written still arrives.
///
/// Where it cannot, over WebSocket before v5, `shutdown` fails with [`StreamError::NoHalfClose`], of kind
/// [`Unsupported`](io::ErrorKind::Unsupported), for as long as the command runs: it would wait for the end for ever. stdin stays
/// open, and there may be other words for it, `exit` to a shell. [`finish`](Self::finish) and dropping it are for whoever does not mind.
#[derive(Debug)]
pub struct RemoteStdin(SendHalf);

impl RemoteStdin {
    /// Sends bytes without a copy. Waits while too many wait before them.
    ///
    /// # Errors
    /// [`StreamError::Hushed`] once the command has ended, [`StreamError::Reset`] where the server closed stdin, or what
    /// the connection ended with.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has sent nothing.
    pub async fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.0.send(data).await
    }

    /// Resets stdin, for input that was cut off: the process must not take what it has read for all of it.
    pub fn break_off(self) {
        self.0.reset(RstStatus::INTERNAL_ERROR);
    }

    /// Ends the process's stdin, behind all that was written, where the protocol can ([`Exec::can_end_stdin`]). Where it cannot, nothing
    /// more is sent and the process does not hear of it.
    pub fn finish(&mut self) {
        self.0.finish();
    }

    /// Has `shutdown` do what [`finish`](Self::finish) does, and never fail. For [`tokio::io::copy_bidirectional`] and its like, which give
    /// up the output with the first error, and commands that do not wait for the end of stdin.
    pub fn pretend_half_close(&mut self) {
        self.0.pretend_half_close();
    }
}

impl AsyncWrite for RemoteStdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
    }

    /// As [`finish`](RemoteStdin::finish), or `Unsupported` where that would not be heard.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// An output of a remote process. Dropped, what still comes is discarded and the process is not held up.
#[derive(Debug)]
pub struct RemoteOutput(RecvHalf);

impl RemoteOutput {
    /// The next bytes, without a copy; `None` at the end. Go's servers end an output by a reset as often as by a FIN, so
    /// either is the end: whether the command is done, the status tells.
    ///
    /// # Errors
    /// What the connection was lost with, after all bytes that had come.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has taken nothing.
    pub async fn data(&mut self) -> Option<Result<Bytes, StreamError>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        Poll::Ready(match ready!(self.0.poll_data(cx)) {
            Some(Err(StreamError::Reset(RstStatus::CANCEL) | StreamError::Connection(ConnectionError::Closed))) => None,
            data => data,
        })
    }
}

impl AsyncRead for RemoteOutput {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(self.0.poll_copy(cx, buf)) {
            Err(StreamError::Reset(RstStatus::CANCEL) | StreamError::Connection(ConnectionError::Closed)) => {
                Poll::Ready(Ok(()))
            }
            result => Poll::Ready(result.map_err(Into::into)),
        }
    }
}

/// Tells the remote terminal its size.
#[derive(Debug)]
pub struct Resizer(SendHalf);

impl Resizer {
    /// Sends a size.
    ///
    /// # Errors
    /// [`StreamError::Hushed`] once the command has ended, or what the stream or the connection ended with.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has sent nothing.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), StreamError> {
        self.0.send(size.encode()).await
    }
}

/// A century is for ever: more may be more than the clock can hold.
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

/// An output to its end, whatever that is: how it ended is judged with the status.
async fn collect(output: Option<&mut RemoteOutput>, limit: usize, all: &mut BytesMut) -> Result<(), Error> {
    let Some(output) = output else { return Ok(()) };
    while let Some(Ok(data)) = output.data().await {
        if data.len() > limit.saturating_sub(all.len()) {
            return Err(Error::OutputTooLong { limit });
        }
        all.extend_from_slice(&data);
    }
    Ok(())
}
