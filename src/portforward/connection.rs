//! One forwarded connection: a data stream that reads and writes like a socket, and an error stream that says why the
//! connection failed.
//!
//! Reads both streams together, so that a connection that failed never looks like one that ended.

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

/// How many bytes of the reason on an error stream a client keeps: 64 KiB. Further bytes are dropped.
pub const MAX_REASON_LEN: usize = 64 * 1024;

/// A forwarded connection, at a client or at a server.
///
/// It reads and writes like a TCP socket. `shutdown` ends this end's direction, and the other direction goes on. If the
/// peer reports that the connection failed, reading gives an error and not an end.
///
/// If it is dropped before `shutdown`, as many of the queued bytes are sent as the peer's window has room for, and then
/// it is reset. The peer reads an error and not an end. There is one exception: a server that has already ended its own
/// direction reads a client's reset as an end ([`fail_on_drop`](Self::fail_on_drop) changes that). If it is dropped
/// after `shutdown`, all queued bytes are sent, and then the peer is told that this end reads no more.
///
/// In legacy port-forward a client can send neither an end nor a reset. A client's direction ends only together with
/// the whole multiplexed connection. The server then reads an end and not an error, even if the client has dropped the
/// `Connection` before `shutdown`. A client's `shutdown` fails with [`StreamError::NoHalfClose`], of kind
/// [`Unsupported`](io::ErrorKind::Unsupported), until the server has ended its direction.
/// [`pretend_half_close`](Self::pretend_half_close) prevents this error.
pub struct Connection {
    recv: RecvHalf,
    /// `None` once the connection was dropped.
    send: Option<SendHalf>,
    error: ErrorHalf,
    port: u16,
    finished: bool,
    /// Whether a server may write to the error stream without harm to other connections. This is so only in legacy
    /// port-forward.
    says_why: bool,
    /// Whether dropping the connection before it is finished is a failure, which the peer reads as an error.
    pub(super) breaks_off: bool,
    linger: Duration,
}

/// The error stream: a client reads it, and a server writes it.
enum ErrorHalf {
    Read(Reason),
    Written(SendHalf),
}

/// What the server writes to the error stream: why the connection failed.
struct Reason {
    recv: RecvHalf,
    said: BytesMut,
    ended: bool,
    /// The error stream ended by FIN or RST_STREAM with CANCEL, within the grace.
    well: bool,
    grace: Duration,
    /// The end of the grace, which begins when the data stream has ended.
    due: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// A client's connection, which reads `error`.
    pub(super) fn client(data: Stream, error: RecvHalf, port: u16, options: &Options) -> Self {
        let grace = options.reason_grace;
        let reason = Reason { recv: error, said: BytesMut::new(), ended: false, well: false, grace, due: None };
        Self::new(data, ErrorHalf::Read(reason), port, options.linger)
    }

    /// A server's connection, which writes to `error`. `says_why`: the server may write to the error stream without
    /// harm to other connections.
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

    /// Waits for the next bytes, and returns them without a copy. `None` is an orderly end of the peer's direction.
    ///
    /// # Errors
    /// [`Error::Failed`] if the server reports a failure, [`Error::Connection`] if the multiplexed connection was lost,
    /// or [`Error::Stream`] if this connection was cut off. All bytes that had arrived are returned first, unless this
    /// end reset the connection.
    ///
    /// # Cancel safety
    /// If dropped before completion, no bytes are lost.
    pub async fn data(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// Polls for [`data`](Self::data).
    ///
    /// # Errors
    /// The same as [`data`](Self::data).
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let end = match ready!(self.recv.poll_data(cx)) {
            Some(Ok(data)) => return Poll::Ready(Some(Ok(data))),
            None => Ok(()),
            Some(Err(error)) => Err(error),
        };
        self.poll_end(cx, end).map(|end| end.err().map(Err))
    }

    /// Decides whether the data stream ended in good order. Go's servers end a stream by FIN or by RST_STREAM with
    /// CANCEL, after the end of an empty error stream. Go's clients reset every stream once they have read the server's
    /// end, and not before.
    fn poll_end(&mut self, cx: &mut Context<'_>, end: Result<(), StreamError>) -> Poll<Result<(), Error>> {
        let mut reset_is_end = self.finished;
        let stalled = matches!(end, Err(StreamError::Stalled { .. }));
        if let ErrorHalf::Read(reason) = &mut self.error
            // The server does not know that this side gave the stream up.
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

    /// Queues bytes to be sent, without a copy of large pieces. Waits while
    /// [`Config::send_buffer`](crate::mux::Config::send_buffer) or more bytes are queued on this connection.
    ///
    /// # Errors
    /// [`Error::Stream`] if the peer has reset the connection, or if this end has ended its direction. After a reset by
    /// the peer, reading tells the reason. [`Error::Connection`] if the multiplexed connection failed.
    ///
    /// # Cancel safety
    /// If dropped before completion, no bytes were queued.
    pub async fn send(&mut self, data: Bytes) -> Result<(), Error> {
        let sent = match &mut self.send {
            Some(send) => send.send(data).await,
            None => Err(StreamError::Finished),
        };
        sent.map_err(|error| Error::stream(self.port, error))
    }

    /// Polls for [`send`](Self::send). `Ready` means that all of `data` was queued, and `Pending` that nothing was
    /// queued.
    ///
    /// # Errors
    /// The same as [`send`](Self::send).
    pub fn poll_send(&mut self, data: &Bytes, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let port = self.port;
        let sent = match &mut self.send {
            Some(send) => ready!(send.poll_send(data, cx)),
            None => Err(StreamError::Finished),
        };
        Poll::Ready(sent.map_err(|error| Error::stream(port, error)))
    }

    /// Sends a copy of as many bytes as there is room for, and returns how many.
    pub(super) fn poll_copy(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        let port = self.port;
        let sent = match &mut self.send {
            Some(send) => ready!(send.poll_copy_from(cx, data)),
            None => Err(StreamError::Finished),
        };
        Poll::Ready(sent.map_err(|error| Error::stream(port, error)))
    }

    /// Ready once the multiplexed connection that carries this one has ended.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.recv.poll_gone(cx)
    }

    /// Ready once this connection has failed, even if bytes that arrived before that are unread:
    /// - At either end: this end has reset it after [`Options::stall_timeout`].
    /// - At a server that has not ended its own direction, also: the client has reset it, or the multiplexed connection
    ///   has ended.
    ///
    /// Poll this while you do not read, because reading returns the error only after the unread bytes.
    ///
    /// At a client it is ready only after a stall. A Go server also resets a complete connection, and a client can tell
    /// that from a failure only by reading.
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

    /// For a server: resets the connection because it failed, after all bytes that were queued before. In legacy
    /// port-forward the client is told the reason. Over SPDY and in the tunnel it is not, because client-go gives up
    /// all its connections if any error stream carries bytes.
    ///
    /// # Cancel safety
    /// If dropped before completion, the connection is reset, and the client may not be told the reason.
    pub async fn fail(mut self, reason: &str) {
        // A reset would drop what is queued. An error means that the client is gone and needs nothing.
        if let Some(send) = &mut self.send {
            let _ = poll_fn(|cx| send.poll_flushed(cx)).await;
        }
        if let ErrorHalf::Written(error) = &mut self.error
            && self.says_why
        {
            let _ = error.send(Bytes::copy_from_slice(reason.as_bytes())).await;
            error.finish();
            // The reset that follows would overtake the reason.
            let sent = error.watch();
            poll_fn(|cx| sent.poll_sent(cx)).await;
        }
    }

    /// For a client: if this connection is dropped before [`finish`](Self::finish), it is reset with INTERNAL_ERROR, so
    /// that the server always reads an error. Without this call it is reset with CANCEL, and a server that has already
    /// ended its own direction reads that as an end. A server's connection always behaves as after this call.
    pub fn fail_on_drop(&mut self) {
        self.breaks_off = true;
    }

    /// Whether this end can end its direction while the peer goes on. Only a client of legacy port-forward cannot.
    #[must_use]
    pub fn can_half_close(&self) -> bool {
        self.send.as_ref().is_some_and(SendHalf::can_half_close)
    }

    /// Makes `shutdown` behave like [`finish`](Self::finish), so that it never fails. Use this with
    /// [`tokio::io::copy_bidirectional`], or with another function that stops both directions at the first error. In
    /// legacy port-forward the connection then lasts until the server ends it.
    pub fn pretend_half_close(&mut self) {
        if let Some(send) = &mut self.send {
            send.pretend_half_close();
        }
    }

    /// Ends this end's direction, after all bytes that were queued before. The other direction goes on. A client of
    /// legacy port-forward cannot tell the server, but nothing more can be sent.
    pub fn finish(&mut self) {
        if let Some(send) = &mut self.send {
            send.finish();
        }
        self.finished();
    }

    fn finished(&mut self) {
        self.finished |= self.send.is_some();
        // An empty error stream that ends means that nothing failed. A client waits for that after the end of the data.
        if let ErrorHalf::Written(error) = &mut self.error {
            error.finish();
        }
    }
}

impl Reason {
    /// Ready once the error stream or the grace has ended.
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
                    // Otherwise the stream would live as long as the multiplexed connection.
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

    /// Ends this end's direction. Queued bytes are still sent, but this does not wait for them. If the protocol cannot
    /// tell the peer ([`can_half_close`](Connection::can_half_close)), this fails with an error of kind `Unsupported`,
    /// and the direction stays open.
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
            // A reset would drop what is queued before the FIN.
            (true, _) => self.recv.cancel_behind(),
            // Not CANCEL: Go's servers end a stream with it, and so do Go's clients after the server's end.
            (false, true) => send.reset_behind(RstStatus::INTERNAL_ERROR),
            (false, false) => send.reset_behind(RstStatus::CANCEL),
        }
        match &mut self.error {
            ErrorHalf::Written(error) => {
                error.finish();
                // A client that has not ended its half of the error stream writes nothing there. In legacy port-forward
                // it cannot end it, and a reset would be an error.
                if !self.says_why {
                    error.cancel_behind();
                }
            }
            // The reason is no longer needed.
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
