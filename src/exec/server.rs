//! The server's side of a session: accepts the streams, gives them to the caller's process, and sends how it ended.
//!
//! This file decides which streams are accepted and which are refused, and sends the status after all output. It does
//! not run the process.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::time::timeout;

use super::error::Error;
use super::options::Options;
use super::reader::Reader;
use super::streams::{StreamType, Streams, exec_protocol};
use crate::mux::{Incoming, Multiplexer, RecvHalf, SendHalf, Stream, Watch};
use crate::protocol::Version;
use crate::session::{ConnectionError, Role, StreamError};
use crate::status::{ExitStatus, ResizeDecoder, Status, TerminalSize};

impl Multiplexer {
    /// Accepts the streams of a session with the default [`Options`]: see [`accept_exec_with`](Self::accept_exec_with).
    ///
    /// # Errors
    /// The same as [`accept_exec_with`](Self::accept_exec_with).
    ///
    /// # Cancel safety
    /// The same as [`accept_exec_with`](Self::accept_exec_with).
    pub async fn accept_exec(&self, want: Streams) -> Result<ExecServer, Error> {
        self.accept_exec_with(want, Options::default()).await
    }

    /// Accepts the streams of a session, in any order, until the client has opened all that `want` names. `want` must
    /// name the streams that the request asked for: [`ExecRequest`](super::ExecRequest) reads them from its query.
    ///
    /// A stream is refused if its type is unknown, not in `want`, or was accepted already. After the last wanted stream
    /// every further stream is refused. If a stream is missing after [`Options::creation_timeout`], the connection is
    /// closed.
    ///
    /// # Errors
    /// [`Error::NotExec`] if the connection negotiated another protocol, [`Error::CreationTimeout`] if a stream is
    /// missing, or [`Error::Connection`] if the client goes away.
    ///
    /// # Cancel safety
    /// If dropped before completion, the client is sent a failure, as if an [`ExecServer`] had been dropped without
    /// [`exit`](ExecServer::exit). If no stream had been accepted by then, this can be called again.
    pub async fn accept_exec_with(&self, want: Streams, options: Options) -> Result<ExecServer, Error> {
        let (protocol, version) = exec_protocol(self)?;
        // Before v4 an empty error stream is success. A session that ends before `exit` is not a success: over
        // WebSocket the Close says so.
        self.abandon();
        let mut missing: Vec<StreamType> = want.types(protocol, version).collect();
        // If this future is dropped from here on, `server` sends the client a failure.
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

/// A session at the server: the other ends of a process's stdin and outputs.
///
/// Take the streams out of it and connect them to the process. When the process ends, call [`exit`](Self::exit). Until
/// then poll the future of [`client_gone`](Self::client_gone), and kill the process when it is ready.
///
/// If it is dropped without [`exit`](Self::exit), by an early return, a panic or a dropped future, it sends the client
/// a failure: a `Status` from v4 on, and a text before v4. kubectl prints `Internal error occurred: the server let the
/// session go before the command had ended`, and exits with 1. Without the failure, Go's clients would take the end as
/// success. The driver sends it, so keep the driver running.
#[derive(Debug)]
pub struct ExecServer {
    /// What the client sends to the process's stdin. Present with [`Streams::stdin`].
    pub stdin: Option<Reader>,
    /// Takes what the process writes to stdout or to its terminal. Present with [`Streams::stdout`]. Shutting it down
    /// or dropping it ends the output, after all written bytes. A write fails with [`StreamError::Reset`] if the client
    /// has reset the output, because it does not want it.
    pub stdout: Option<SendHalf>,
    /// Takes what the process writes to stderr, as `stdout` does. Present with [`Streams::stderr`], but not with
    /// [`Streams::tty`].
    pub stderr: Option<SendHalf>,
    /// The sizes of the client's terminal. Present with [`Streams::tty`]: over SPDY from v3 on, over WebSocket in
    /// every version.
    pub resize: Option<Resizes>,
    /// stdin, also after it was taken.
    typed: Option<Watch>,
    ending: Ending,
}

/// What is needed to end a session. It is a type of its own, because `Drop` on [`ExecServer`] would forbid moving
/// streams out of it.
#[derive(Debug)]
struct Ending {
    error: Option<SendHalf>,
    outputs: Vec<Watch>,
    /// Sending halves of the streams that only the client writes. They are finished at the end: from v2 on clients wait
    /// for the FIN on stdin.
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
                self.stdin = Some(Reader::new(recv, Role::Server));
                self.ending.unused.push(send);
            }
            StreamType::Resize => {
                self.resize = Some(Resizes { stream: Some(recv), decoder: ResizeDecoder::default() });
                self.ending.unused.push(send);
            }
            StreamType::Stdout | StreamType::Stderr => {
                self.ending.outputs.push(send.watch());
                let output = Some(send);
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

    /// Waits until the connection has ended (the client closed it, or it failed), and all stdin that had arrived has
    /// been read. The second condition is there because over WebSocket before v5 a client can end its stdin only by
    /// closing the connection: a closed connection alone does not mean that the client lost interest.
    ///
    /// This does not wait for stdin if you have not taken it, or have dropped it. Nor does it wait longer if your
    /// reader of stdin takes no bytes for [`Config::linger`](crate::mux::Config::linger).
    ///
    /// [`Reader::data`] of stdin tells how the connection ended: it returns `None` after the client's goodbye, and an
    /// error if the connection was lost.
    ///
    /// While unread stdin exceeds the receive budget, the socket is not read. Then only a failed write shows that the
    /// client is gone. So meanwhile the server sends a PING after each
    /// [`Config::pause_probe_interval`](crate::mux::Config::pause_probe_interval).
    ///
    /// # Cancel safety
    /// Can be dropped and called again.
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

    /// Ends the session: waits until the driver has taken all output out of its queue to write it, then sends the
    /// status, and ends the connection in good order. Drop or shut down the outputs that you have taken, or this waits
    /// for ever. This call ends the outputs that you have not taken. Unread stdin does not matter.
    ///
    /// Let the driver run until it ends: it writes the bytes that are still queued, and waits for the client's end.
    ///
    /// # Errors
    /// [`Error::Connection`] if the client went away before the driver began to write the status, and [`Error::Stream`]
    /// if the client reset the error stream before that. `Ok` does not mean that the client has received the status.
    ///
    /// # Cancel safety
    /// If dropped before completion, the client is sent a failure instead, unless the status was queued already.
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
                // A client may go, with a goodbye or without, as soon as it has the status. Before v4 success is no
                // byte but the end alone, so there the end must have been sent.
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
    /// Sends the FINs, after the status: a client may stop reading when it sees them.
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
        // If the client is gone, the failure cannot be sent.
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

/// The sizes of the client's terminal.
#[derive(Debug)]
pub struct Resizes {
    /// `None` once something arrived that is not a size. Everything after that is discarded.
    stream: Option<RecvHalf>,
    decoder: ResizeDecoder,
}

impl Resizes {
    /// Waits for a size, and returns the latest one that has arrived since the last call. Older sizes are skipped.
    /// `None` is the end of the stream. If the client sends something that is not a size, this returns the last valid
    /// size and then `None`, and the session goes on. Go's servers do the same.
    ///
    /// # Cancel safety
    /// If dropped before completion, no size is lost.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<TerminalSize>> {
        /// A number of pieces that is larger than the number that can be unread at once. If sizes arrive as fast as
        /// they are read, one size is returned after this many pieces.
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

    /// Decodes up to each brace separately, so that an invalid size does not make the decoder drop a valid size before
    /// it in the same piece.
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

/// Takes the stream if its type is still missing, and refuses it otherwise.
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
