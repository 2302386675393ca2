//! One connection: a data stream that reads and writes like a socket, and what its error stream says.
//!
//! Owns how the two are read together. A connection that failed must not look like one that ended.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::error::Error;
use super::options::Options;
use crate::mux::{RecvHalf, SendHalf, Stream};
use crate::session::StreamError;
use crate::wire::spdy::RstStatus;

/// Bytes that an error stream may say: 64 KiB. What goes beyond is cut off.
pub const MAX_REASON_LEN: usize = 64 * 1024;

/// A forwarded connection, at either end.
///
/// It reads and writes as a TCP socket does. `shutdown` ends one direction and the other lives on. Its end is an end only
/// if the other side did not say that it failed: reading gives that as an error.
///
/// Dropped before it was shut down it is reset, behind as much of what was queued as the peer's window has room for, and the other side
/// reads an error and no end. Dropped after, what was queued before still goes out, and then the other side hears that nobody reads on. The old form, of WebSocket channels, can say
/// neither: nothing ends a connection there but the end of its whole session, and a client's that was dropped reads as an end.
/// `shutdown` at a client's end is [`StreamError::NoHalfClose`] there, of kind [`Unsupported`](io::ErrorKind::Unsupported), until the
/// server has ended; [`pretend_half_close`](Self::pretend_half_close) is for whoever does not mind.
pub struct Connection {
    recv: RecvHalf,
    /// `None` once it was reset by being dropped.
    send: Option<SendHalf>,
    error: ErrorHalf,
    port: u16,
    finished: bool,
    /// A word on the error stream concerns this connection alone.
    says_why: bool,
    /// Dropped before it was finished, it has failed, and not only been given up.
    pub(super) breaks_off: bool,
    linger: Duration,
}

/// The error stream is the server's to write.
enum ErrorHalf {
    Read(Reason),
    Written(SendHalf),
}

/// What the server says on the error stream.
struct Reason {
    recv: RecvHalf,
    said: BytesMut,
    ended: bool,
    /// It ended as it should, and was not lost or silent.
    well: bool,
    grace: Duration,
    /// Until when it may still say something, once the data stream has ended.
    due: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// A client's: `error` is what it reads.
    pub(super) fn client(data: Stream, error: RecvHalf, port: u16, options: &Options) -> Self {
        let grace = options.reason_grace;
        let reason = Reason { recv: error, said: BytesMut::new(), ended: false, well: false, grace, due: None };
        Self::new(data, ErrorHalf::Read(reason), port, options.linger)
    }

    /// A server's: `error` is what it writes. `says_why`: a word on it concerns this connection alone.
    pub(super) fn server(data: Stream, error: SendHalf, port: u16, says_why: bool, linger: Duration) -> Self {
        let mut connection = Self::new(data, ErrorHalf::Written(error), port, linger);
        connection.says_why = says_why;
        connection
    }

    fn new(data: Stream, error: ErrorHalf, port: u16, linger: Duration) -> Self {
        let (recv, send) = data.split();
        Self { recv, send: Some(send), error, port, finished: false, says_why: false, breaks_off: false, linger }
    }

    /// The port of the pod.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next bytes, without a copy; `None` at an end that was well.
    ///
    /// # Errors
    /// [`Error::Failed`] with what the server says, [`Error::Connection`] where the whole connection was lost, or
    /// [`Error::Stream`].
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has taken nothing.
    pub async fn data(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// [`data`](Self::data) as a poll.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let end = match ready!(self.recv.poll_data(cx)) {
            Some(Ok(data)) => return Poll::Ready(Some(Ok(data))),
            None => Ok(()),
            Some(Err(error)) => Err(error),
        };
        self.poll_end(cx, end).map(|end| end.err().map(Err))
    }

    /// The data stream has ended: whether that was well. Go's servers end a stream by a reset as often as by a FIN, once the error
    /// stream has nothing to say; its clients reset every stream when they have read the server's end, and not before.
    fn poll_end(&mut self, cx: &mut Context<'_>, end: Result<(), StreamError>) -> Poll<Result<(), Error>> {
        let mut reset_is_end = self.finished;
        let stalled = matches!(end, Err(StreamError::Stalled { .. }));
        if let ErrorHalf::Read(reason) = &mut self.error
            // The server has nothing to say of what was given up here.
            && !stalled
        {
            ready!(reason.poll_ended(cx));
            reset_is_end = reason.well;
            if !reason.said.is_empty() {
                let reason = String::from_utf8_lossy(&reason.said).trim().to_owned();
                return Poll::Ready(Err(Error::Failed { port: self.port, reason }));
            }
        }
        Poll::Ready(match end {
            Ok(()) => Ok(()),
            Err(StreamError::Reset(RstStatus::CANCEL)) if reset_is_end => Ok(()),
            Err(error) => Err(Error::stream(self.port, error)),
        })
    }

    /// Sends bytes without a copy. Waits while too many wait before them.
    ///
    /// # Errors
    /// [`Error::Stream`] where the other side ended the connection, [`Error::Connection`]. Why it did, reading tells.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has sent nothing.
    pub async fn send(&mut self, data: Bytes) -> Result<(), Error> {
        let sent = match &mut self.send {
            Some(send) => send.send(data).await,
            None => Err(StreamError::Finished),
        };
        sent.map_err(|error| Error::stream(self.port, error))
    }

    /// [`send`](Self::send) as a poll: all of `data` is taken once it is ready, and none of it before.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn poll_send(&mut self, data: &Bytes, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let port = self.port;
        let sent = match &mut self.send {
            Some(send) => ready!(send.poll_send(data, cx)),
            None => Err(StreamError::Finished),
        };
        Poll::Ready(sent.map_err(|error| Error::stream(port, error)))
    }

    /// Sends a copy of what there is room for: how many bytes.
    pub(super) fn poll_copy(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        let port = self.port;
        let sent = match &mut self.send {
            Some(send) => ready!(send.poll_copy_from(cx, data)),
            None => Err(StreamError::Finished),
        };
        Poll::Ready(sent.map_err(|error| Error::stream(port, error)))
    }

    /// Ready once the multiplexed connection that carries this one has ended, whether or not this one has.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.recv.poll_gone(cx)
    }

    /// Ready once this connection was given up although bytes of it are unread: [`Options::stall_timeout`] reset it, or, at a
    /// server's end, the client reset it. Use it while you do not read, because reading would tell only behind the unread bytes.
    ///
    /// At a client's end a reset is also how a Go server ends a connection, and only reading tells the two apart. There this is
    /// ready for a stall alone.
    pub fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let error = ready!(self.recv.poll_broken(cx));
        let given_up = matches!(error, StreamError::Stalled { .. }) || self.is_servers() && !self.finished;
        if given_up { Poll::Ready(Error::stream(self.port, error)) } else { Poll::Pending }
    }

    pub(super) fn is_servers(&self) -> bool {
        matches!(self.error, ErrorHalf::Written(_))
    }

    pub(super) fn linger(&self) -> Duration {
        self.linger
    }

    /// A server's end that breaks off, behind all that was sent, and says why where that takes no other connection with it: in
    /// the old form. Over SPDY a client is told with a reset alone, since client-go gives up all its connections when an error
    /// stream says anything.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the client may not have heard why.
    pub async fn fail(mut self, reason: &str) {
        // A reset would take with it what is queued. Whoever is gone needs none of it.
        if let Some(send) = &mut self.send {
            let _ = poll_fn(|cx| send.poll_flushed(cx)).await;
        }
        if let ErrorHalf::Written(error) = &mut self.error
            && self.says_why
        {
            let _ = error.send(Bytes::copy_from_slice(reason.as_bytes())).await;
            error.finish();
            // The reset that follows would overtake it.
            let sent = error.watch();
            poll_fn(|cx| sent.poll_sent(cx)).await;
        }
    }

    /// Makes dropping this connection before it is finished a failure: the peer reads an error. Without it a client's connection
    /// that is dropped was only given up. A server's connection always behaves like this.
    pub fn fail_on_drop(&mut self) {
        self.breaks_off = true;
    }

    /// Whether the other side hears that nothing more comes from here, while it may go on itself: all but a client's of the old form.
    #[must_use]
    pub fn can_half_close(&self) -> bool {
        self.send.as_ref().is_some_and(SendHalf::can_half_close)
    }

    /// Has `shutdown` do what [`finish`](Self::finish) does, and never fail. For [`tokio::io::copy_bidirectional`] and its like, which give
    /// up the other direction with the first error. In the old form the connection then lasts until the server ends it.
    pub fn pretend_half_close(&mut self) {
        if let Some(send) = &mut self.send {
            send.pretend_half_close();
        }
    }

    /// Ends what is sent, behind all that was: the other direction lives on. In the old form nothing more is sent by a client, and
    /// its server does not hear of it.
    pub fn finish(&mut self) {
        if let Some(send) = &mut self.send {
            send.finish();
        }
        self.finished();
    }

    fn finished(&mut self) {
        self.finished |= self.send.is_some();
        // Nothing has failed: a client that has read all waits to hear it.
        if let ErrorHalf::Written(error) = &mut self.error {
            error.finish();
        }
    }
}

impl Reason {
    /// Ready once nothing more will be said, or it has taken too long.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.ended {
            match self.recv.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    let room = MAX_REASON_LEN.saturating_sub(self.said.len());
                    self.said.extend_from_slice(data.get(..room).unwrap_or(&data));
                }
                Poll::Ready(end) => {
                    self.ended = true;
                    self.well = matches!(end, None | Some(Err(StreamError::Reset(RstStatus::CANCEL))));
                }
                Poll::Pending => {
                    let grace = self.grace;
                    let due = self.due.get_or_insert_with(|| Box::pin(tokio::time::sleep(grace)));
                    ready!(due.as_mut().poll(cx));
                    self.ended = true;
                    // Left to itself it would stay as long as the whole connection.
                    self.recv.cancel();
                }
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        let before = buf.filled().len();
        let end = match ready!(connection.recv.poll_copy(cx, buf)) {
            Ok(()) if buf.filled().len() > before || buf.remaining() == 0 => return Poll::Ready(Ok(())),
            end => end,
        };
        connection.poll_end(cx, end).map_err(Into::into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_copy(buf, cx).map_err(Into::into)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let port = self.port;
        match &mut self.send {
            Some(send) => send.poll_flushed(cx).map_err(|error| Error::stream(port, error).into()),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Ends what is sent. What is queued before it goes out without being waited for. Where the other side would not hear of it
    /// ([`can_half_close`](Connection::can_half_close)) it is an error of kind `Unsupported`, and nothing has ended.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let port = self.port;
        if let Some(send) = &mut self.send {
            send.half_close().map_err(|error| Error::stream(port, error))?;
        }
        self.finished();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(send) = self.send.take() else { return };
        match (self.finished, self.is_servers() || self.breaks_off) {
            // A reset would take what is queued before the FIN with it.
            (true, _) => self.recv.cancel_behind(),
            // CANCEL is how Go's servers end, and its clients behind an end of the server's.
            (false, true) => send.reset_behind(RstStatus::INTERNAL_ERROR),
            (false, false) => send.reset_behind(RstStatus::CANCEL),
        }
        match &mut self.error {
            ErrorHalf::Written(error) => {
                error.finish();
                // A client that has not ended its half has nothing to say there. In the old form it cannot, and a reset is an error.
                if !self.says_why {
                    error.cancel_behind();
                }
            }
            // Nobody asks any more.
            ErrorHalf::Read(reason) if !reason.ended => reason.recv.cancel(),
            ErrorHalf::Read(_) => {}
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("port", &self.port).field("data", &self.recv.id()).finish_non_exhaustive()
    }
}
