//! The server's side of a session: take the streams, give the process its ends, say how it ended.
//!
//! Owns what is taken and what is refused, and that the status goes out behind all output. Running the process is the
//! caller's.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::error::Error;
use super::options::Options;
use super::streams::{StreamType, Streams, exec_protocol};
use crate::mux::{Incoming, Multiplexer, RecvHalf, SendHalf, Stream, Watch};
use crate::protocol::Version;
use crate::session::{ConnectionError, StreamError};
use crate::status::{ExitStatus, ResizeDecoder, Status, TerminalSize};
use crate::wire::spdy::RstStatus;

impl Multiplexer {
    /// Takes the streams of a session, as [`accept_exec_with`](Self::accept_exec_with) with the default [`Options`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn accept_exec(&self, want: Streams) -> Result<ExecServer, Error> {
        self.accept_exec_with(want, Options::default()).await
    }

    /// Takes the streams of a session, in whatever order they come, until all that `want` names are there.
    ///
    /// A stream of a type that is unknown, not wanted or there already is refused, and so is every stream after the last
    /// one wanted. Where one is missing after [`Options::creation_timeout`] the connection is closed.
    ///
    /// # Errors
    /// [`Error::NotExec`], [`Error::CreationTimeout`], or [`Error::Connection`] where the client goes away.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the session ends as one whose [`ExecServer`] is dropped. Where no stream was taken yet it may be
    /// called again.
    pub async fn accept_exec_with(&self, want: Streams, options: Options) -> Result<ExecServer, Error> {
        let (protocol, version) = exec_protocol(self)?;
        // Before v4 silence is success. What ends before `exit` is none, and over WebSocket the Close says so.
        self.abandon();
        let mut missing: Vec<StreamType> = want.types(protocol, version).collect();
        // From here on: dropped with a part of the streams, it says so to the client.
        let mut server = ExecServer::new(self.clone(), version);
        let after = options.creation_timeout;
        let taken = async {
            while !missing.is_empty() {
                let incoming = self.accept().await.unwrap_or(Err(ConnectionError::Closed))?;
                if let Some((kind, stream)) = take(incoming, &mut missing) {
                    server.put(kind, stream);
                }
            }
            Ok::<(), Error>(())
        };
        match timeout(after, taken).await {
            Ok(taken) => taken?,
            Err(_) => {
                drop(server);
                self.go_away();
                let missing = missing.iter().map(|kind| kind.name()).collect();
                return Err(Error::CreationTimeout { missing, after });
            }
        }
        self.refuse_streams();
        Ok(server)
    }
}

/// The ends of a process that a client runs here.
///
/// Take the streams out of it and connect them to the process; say with [`exit`](Self::exit) how it ended. Ask
/// [`client_gone`](Self::client_gone) meanwhile, and end the process when that is ready.
///
/// Dropped without [`exit`](Self::exit), by an early return, a panic or a future that is given up, it sends the client a failure: a
/// `Status` from v4 on, before that a text. kubectl prints `Internal error occurred: the server let the session go before the command had
/// ended`, and exits with 1; without it Go's clients would take the end for success. Keep the driver running, which sends it.
#[derive(Debug)]
pub struct ExecServer {
    /// What the client sends.
    pub stdin: Option<ProcessStdin>,
    /// Where the process's output goes, or its terminal's.
    pub stdout: Option<ProcessOutput>,
    /// Where the process's stderr goes.
    pub stderr: Option<ProcessOutput>,
    /// The sizes of the client's terminal.
    pub resize: Option<Resizes>,
    /// What comes on stdin, wherever it is read.
    typed: Option<Watch>,
    ending: Ending,
}

/// What the end of a session takes. Apart, so that the streams can be moved out of their [`ExecServer`].
#[derive(Debug)]
struct Ending {
    error: Option<SendHalf>,
    outputs: Vec<Watch>,
    /// The halves that only the end uses: clients from v2 on wait for the FIN on stdin.
    unused: Vec<SendHalf>,
    version: Version,
    mux: Multiplexer,
}

impl ExecServer {
    fn new(mux: Multiplexer, version: Version) -> Self {
        let ending = Ending { error: None, outputs: Vec::new(), unused: Vec::new(), version, mux };
        Self { stdin: None, stdout: None, stderr: None, resize: None, typed: None, ending }
    }

    fn put(&mut self, kind: StreamType, stream: Stream) {
        let (recv, send) = stream.split();
        match kind {
            StreamType::Error => self.ending.error = Some(send),
            StreamType::Stdin => {
                self.typed = Some(recv.watch());
                self.stdin = Some(ProcessStdin(recv));
                self.ending.unused.push(send);
            }
            StreamType::Resize => {
                self.resize = Some(Resizes { stream: Some(recv), decoder: ResizeDecoder::default() });
                self.ending.unused.push(send);
            }
            StreamType::Stdout | StreamType::Stderr => {
                self.ending.outputs.push(send.watch());
                let output = Some(ProcessOutput(send));
                if kind == StreamType::Stdout {
                    self.stdout = output;
                } else {
                    self.stderr = output;
                }
            }
        }
    }

    /// The version of the protocol that was negotiated.
    #[must_use]
    pub fn version(&self) -> Version {
        self.ending.version
    }

    /// Waits until the client has gone away, by closing the connection or by a failure of it, and all stdin that had come is read: a
    /// client that can end stdin in no other way, as before v5 over WebSocket, sends it and closes. stdin that nobody has taken, or
    /// that was dropped, is not waited for, nor is a reader that takes none of it for [`Config::linger`](crate::mux::Config::linger).
    ///
    /// How the client went, stdin tells: its end after a goodbye, an error where the connection was lost.
    ///
    /// Not seen while so much stdin waits unread that the socket is not read any more; then it is when a write fails: of
    /// output, or of a PING after [`Config::pause_probe_interval`](crate::mux::Config::pause_probe_interval).
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits.
    pub async fn client_gone(&self) {
        self.ending.mux.gone().await;
        let Some(typed) = self.typed.as_ref().filter(|_| self.stdin.is_none()) else { return };
        let linger = self.ending.mux.linger();
        let mut unread = typed.unread();
        while timeout(linger, poll_fn(|cx| typed.poll_read_out(cx))).await.is_err() {
            if unread == std::mem::replace(&mut unread, typed.unread()) {
                return;
            }
        }
    }

    /// Ends the session: waits until all output has been given to the transport, sends the status behind it and closes
    /// the connection in good order. Outputs that were taken have to be dropped or shut down first, by whoever writes
    /// them; those that were not are ended here. stdin that was not read does not matter.
    ///
    /// The driver has to go on until it ends: it writes what is left and waits for the client's end.
    ///
    /// # Errors
    /// [`Error::Connection`] where the client went away before the status was given to the transport, [`Error::Stream`] where it
    /// reset the error stream before that: whether it arrived, nobody says.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the session ends as one that is dropped, unless the status was on its way.
    pub async fn exit(mut self, status: ExitStatus) -> Result<(), Error> {
        self.stdout = None;
        self.stderr = None;
        let ending = &mut self.ending;
        for output in &ending.outputs {
            poll_fn(|cx| output.poll_sent(cx)).await;
        }
        if let Some(error) = &mut ending.error {
            let text = status.encode(ending.version);
            let silent = text.is_empty();
            if !silent {
                error.send(text).await.map_err(not_sent)?;
            }
            error.finish();
            let sent = error.watch();
            ending.error = None;
            ending.mux.keep_promise();
            poll_fn(|cx| sent.poll_sent(cx)).await;
            match (ending.mux.error(), sent.was_taken()) {
                // A client may go, with a word or without, as soon as it has the status. One that is told nothing of success
                // needs the end.
                (
                    Some(ConnectionError::Closed | ConnectionError::Lost | ConnectionError::PeerClosed { .. }),
                    Ok(()),
                ) if !silent || sent.was_sent() => {}
                (Some(error), _) => return Err(error.into()),
                (None, Err(error)) => return Err(not_sent(error)),
                (None, Ok(())) => {}
            }
        }
        self.stdin = None;
        self.resize = None;
        self.ending.end();
        self.ending.mux.go_away();
        Ok(())
    }
}

impl Ending {
    /// FINs behind the status: a client may take them for a sign to stop reading.
    fn end(&mut self) {
        self.unused.clear();
        self.mux.keep_promise();
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(mut error) = self.error.take() else { return };
        let failure = Status::internal_error("the server let the session go before the command had ended");
        error.wait_behind(&self.outputs);
        // A client that is gone hears nothing.
        let _ = error.push(ExitStatus::Failed(Box::new(failure)).encode(self.version));
        error.finish();
        self.end();
    }
}

fn not_sent(error: StreamError) -> Error {
    match error {
        StreamError::Connection(error) => Error::Connection(error),
        error => Error::Stream { stream: "error", error },
    }
}

/// What a client sends to its process's stdin.
#[derive(Debug)]
pub struct ProcessStdin(RecvHalf);

impl ProcessStdin {
    /// The next bytes, without a copy; `None` once the client has ended them. RST_STREAM with CANCEL ends them too, since Go's clients so end
    /// every stream when they are done, and so does a client's goodbye: GOAWAY with status OK, or a WebSocket Close without a code, or with 1000 or 1001.
    ///
    /// # Errors
    /// [`StreamError::Reset`] with any other status, or what the connection was lost with, after all that had come: what is missing nobody
    /// knows, so that it is no end.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has taken nothing.
    pub async fn data(&mut self) -> Option<Result<Bytes, StreamError>> {
        match self.0.data().await {
            Some(Err(error)) if self.is_end(&error) => None,
            data => data,
        }
    }

    /// A client that says goodbye has sent all of its stdin; before v5 that is how it ends it over WebSocket.
    fn is_end(&self, error: &StreamError) -> bool {
        match error {
            StreamError::Reset(status) => *status == RstStatus::CANCEL,
            StreamError::Connection(_) => self.0.peer_said_goodbye(),
            _ => false,
        }
    }
}

impl AsyncRead for ProcessStdin {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(self.0.poll_copy(cx, buf)) {
            Err(error) if self.is_end(&error) => Poll::Ready(Ok(())),
            result => Poll::Ready(result.map_err(Into::into)),
        }
    }
}

/// Where a process's output goes. Shut down or dropped it is ended, behind all that was written.
#[derive(Debug)]
pub struct ProcessOutput(SendHalf);

impl ProcessOutput {
    /// Sends bytes without a copy. Waits while too many wait before them.
    ///
    /// # Errors
    /// [`StreamError::Reset`] where the client does not want them, or what the connection ended with.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has sent nothing.
    pub async fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.0.send(data).await
    }
}

impl AsyncWrite for ProcessOutput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The sizes that the client's terminal takes.
#[derive(Debug)]
pub struct Resizes {
    /// `None` once something came that is no size: what still comes is discarded.
    stream: Option<RecvHalf>,
    decoder: ResizeDecoder,
}

impl Resizes {
    /// The latest size that has come since the last call; sizes in between are skipped. `None` at the end, also where
    /// what comes is no size: resizing then ends, behind the last size that was one, and the session goes on, as with Go's servers.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has lost nothing.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<TerminalSize>> {
        /// More than wait unread. Of a flood that comes as fast as it is read, some size in the middle has to do.
        const PIECES: usize = 8 * 1024;
        let mut latest = None;
        for _ in 0..PIECES {
            let Some(stream) = &mut self.stream else { return Poll::Ready(latest) };
            match stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.push(&data, &mut latest),
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(latest),
                Poll::Pending if latest.is_none() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(latest),
            }
        }
        if latest.is_none() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(latest)
    }

    /// To each brace by itself, so that it makes no difference what comes in one piece with it.
    fn push(&mut self, data: &[u8], latest: &mut Option<TerminalSize>) {
        for part in data.split_inclusive(|byte| *byte == b'}') {
            match self.decoder.push(part) {
                Ok(size) => *latest = size.or(*latest),
                Err(_) => {
                    self.stream = None;
                    return;
                }
            }
        }
    }
}

/// Takes a stream that is still missing, and refuses any other.
fn take(incoming: Incoming, missing: &mut Vec<StreamType>) -> Option<(StreamType, Stream)> {
    let kind = StreamType::of(incoming.headers());
    match kind.and_then(|kind| missing.iter().position(|wanted| *wanted == kind)) {
        Some(at) => Some((missing.swap_remove(at), incoming.reply())),
        None => {
            incoming.refuse();
            None
        }
    }
}
