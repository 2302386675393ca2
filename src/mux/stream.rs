//! The handles of one stream.
//!
//! This module owns reading, writing and dropping a stream. It must not hold the stream's state: that is in the
//! connection, behind the lock.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::{State, park};
use super::stream_ref::StreamRef;
use super::watch::Watch;
use crate::session::StreamError;
use crate::session::{ReadOutcome, WriteOutcome};
use crate::wire::spdy::{Headers, RstStatus, StreamId};

/// A stream of a connection: both of its halves.
///
/// A stream reads and writes like any tokio IO. `shutdown` half-closes: it ends this end's direction with FIN, and the
/// other direction stays open. [`data`] and [`send`] read and write without a copy.
///
/// If dropped before [`finish`](Self::finish), the stream is reset with [`RstStatus::CANCEL`]. If dropped after that,
/// the queued bytes are still sent, and received bytes are discarded.
///
/// [`data`]: Self::data
/// [`send`]: Self::send
#[derive(Debug)]
pub struct Stream {
    recv: RecvHalf,
    send: SendHalf,
}

impl Stream {
    pub(super) fn new(stream: Arc<StreamRef>) -> Self {
        let recv = RecvHalf { stream: Arc::clone(&stream), rest: Bytes::new() };
        Self { recv, send: SendHalf { stream, joined: true, pretends: false } }
    }

    /// The stream's id on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.recv.id()
    }

    pub(super) fn wire_id(&self) -> StreamId {
        self.recv.stream.id
    }

    /// Waits for the peer's answer to a stream that this end has opened. The first call returns the headers of the
    /// answer, and further calls return empty headers.
    ///
    /// # Errors
    /// [`StreamError::Reset`] if the peer refused the stream, or the error that the connection ended with.
    ///
    /// # Cancel safety
    /// If dropped before completion, nothing is lost.
    pub async fn answered(&mut self) -> Result<Headers, StreamError> {
        poll_fn(|cx| self.poll_answered(cx)).await
    }

    /// Says that many bytes are expected, so that the window is at once what the path is known to hold.
    pub(crate) fn expect_bulk(&self) {
        let stream = &self.recv.stream;
        stream.shared.with(|state| state.connection.expect_bulk(stream.id));
    }

    /// Polls for [`answered`](Self::answered).
    pub(crate) fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<Result<Headers, StreamError>> {
        let stream = &self.recv.stream;
        stream.shared.with(|state| match state.connection.answer(stream.id) {
            Some(answer) => Poll::Ready(answer.map(|()| state.connection.take_headers(stream.id).unwrap_or_default())),
            None => {
                park(&mut state.waiting(stream.id).answer, cx);
                Poll::Pending
            }
        })
    }

    /// Reads the next bytes, as [`RecvHalf::data`] does.
    ///
    /// # Errors
    /// The same as [`RecvHalf::data`].
    ///
    /// # Cancel safety
    /// If dropped before completion, no bytes were taken.
    pub async fn data(&mut self) -> Option<Result<Bytes, StreamError>> {
        self.recv.data().await
    }

    /// Queues bytes, as [`SendHalf::send`] does.
    ///
    /// # Errors
    /// The same as [`SendHalf::send`].
    ///
    /// # Cancel safety
    /// If dropped before completion, no bytes were queued.
    pub async fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.send.send(data).await
    }

    /// Half-closes, as [`SendHalf::finish`] does.
    pub fn finish(&mut self) {
        self.send.finish();
    }

    /// Ends both directions at once, as [`SendHalf::reset`] does.
    pub fn reset(self, status: RstStatus) {
        self.send.stream.reset(status);
    }

    /// Sets the priority among the streams that have bytes to send, from 0 (first) to 7 (last). Larger values count
    /// as 7. Default: 0, or what the peer's SYN_STREAM says.
    pub fn set_priority(&mut self, priority: u8) {
        self.send.stream.shared.with(|state| state.connection.set_priority(self.send.stream.id, priority));
    }

    /// Splits the stream into two halves, for use in two tasks.
    #[must_use]
    pub fn split(self) -> (RecvHalf, SendHalf) {
        let Self { recv, mut send } = self;
        send.joined = false;
        (recv, send)
    }
}

/// The half of a stream that is read.
///
/// If it is dropped after a split, unread bytes and all that still arrive are discarded, so that they do not block
/// other streams. The peer is not told.
pub struct RecvHalf {
    stream: Arc<StreamRef>,
    /// The rest of a piece that was larger than the buffer of `poll_read`.
    rest: Bytes,
}

impl RecvHalf {
    /// The stream's id on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.stream.id.get()
    }

    /// Waits for the next bytes, and returns them without a copy: large pieces are slices of the buffer that the
    /// connection was read into. Returns `None` after the peer's FIN.
    ///
    /// The pieces may differ from the peer's writes: one write can arrive in several pieces, and small pieces can be
    /// joined.
    ///
    /// # Errors
    /// [`StreamError::Reset`] if the peer reset the stream, [`StreamError::Finished`], [`StreamError::Broken`] or
    /// [`StreamError::Stalled`] if this end reset it, or the error that the connection ended with. A reset by this end
    /// drops the unread bytes. Otherwise all bytes that had arrived are returned first.
    ///
    /// # Cancel safety
    /// If dropped before completion, no bytes were taken.
    pub async fn data(&mut self) -> Option<Result<Bytes, StreamError>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// Polls for [`data`](Self::data). One task at a time is woken: the last that polled.
    ///
    /// # Errors
    /// The same as [`data`](Self::data).
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        let id = self.stream.id;
        self.stream.shared.with(|state| match state.connection.read(id) {
            Ok(ReadOutcome::Data(data)) => Poll::Ready(Some(Ok(data))),
            Ok(ReadOutcome::Finished) => Poll::Ready(None),
            Ok(ReadOutcome::Reset(status)) => Poll::Ready(Some(Err(StreamError::Reset(status)))),
            Ok(ReadOutcome::Blocked) => {
                park(&mut state.waiting(id).reader, cx);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        })
    }

    /// As `poll_read`, but with a typed error, which exec and port-forward need.
    pub(crate) fn poll_copy(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<(), StreamError>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(mut data) = ready!(self.poll_data(cx)).transpose()? {
            let taken = data.len().min(buf.remaining());
            buf.put_slice(data.get(..taken).unwrap_or(&data));
            data.advance(taken);
            self.rest = data;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the stream has broken off, even if bytes before the break are unread. Returns the error that the
    /// reader will get.
    pub(crate) fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let id = self.stream.id;
        self.stream.shared.with(|state| match state.connection.broken(id) {
            Some(error) => Poll::Ready(error),
            None => {
                park(&mut state.waiting(id).end, cx);
                Poll::Pending
            }
        })
    }

    /// Whether the peer has ended the connection in good order.
    pub(crate) fn peer_said_goodbye(&self) -> bool {
        self.stream.shared.look(|state| state.connection.peer_said_goodbye())
    }

    /// Ready when the connection has ended.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let id = self.stream.id;
        self.stream.shared.with(|state| {
            if state.connection.is_closed() {
                return Poll::Ready(());
            }
            park(&mut state.waiting(id).end, cx);
            Poll::Pending
        })
    }

    /// A [`Watch`] that can tell when no more bytes will arrive, while this half is read elsewhere.
    pub(crate) fn watch(&self) -> Watch {
        Watch { stream: Arc::clone(&self.stream) }
    }

    /// Resets the stream with CANCEL after the FIN of the send half has been sent.
    pub(crate) fn cancel_behind(&self) {
        self.stream.shared.with(|state| state.connection.cancel_behind(self.stream.id));
    }

    /// Ends both directions at once, unless they have ended.
    pub(crate) fn cancel(&self) {
        self.stream.reset(RstStatus::CANCEL);
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_copy(cx, buf).map_err(Into::into)
    }
}

impl futures_core::Stream for RecvHalf {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_data(cx)
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.stream.shared.with(|state| state.connection.discard(self.stream.id));
    }
}

/// The half of a stream that is written.
///
/// If it is dropped after a split, its direction ends: FIN is sent after the queued bytes. If it is dropped by a panic,
/// the stream is reset, so that output that was cut short does not look complete.
///
/// In two protocols a client cannot half-close, because there is no message for it: exec and attach over WebSocket
/// before v5, and legacy port-forward. There a client's `shutdown` fails with [`StreamError::NoHalfClose`], of kind
/// [`Unsupported`](io::ErrorKind::Unsupported), and the stream stays open for writing. If the peer has already ended
/// the stream, `shutdown` succeeds. If the peer does not need to know the end, call [`finish`](Self::finish) or drop
/// the `SendHalf`: neither fails.
pub struct SendHalf {
    stream: Arc<StreamRef>,
    /// The stream is not split.
    joined: bool,
    /// `half_close` succeeds even if the protocol cannot tell the peer.
    pretends: bool,
}

impl SendHalf {
    /// The stream's id on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.stream.id.get()
    }

    /// Queues bytes to be sent, without a copy of large pieces. Waits while
    /// [`Config::send_buffer`](crate::mux::Config::send_buffer) or more bytes are queued on this stream, and then
    /// queues all of `data`. `Ok` does not mean that the bytes were sent.
    ///
    /// # Errors
    /// [`StreamError::Finished`] after [`finish`](Self::finish), [`StreamError::Reset`] if the peer reset the stream,
    /// [`StreamError::SessionEnded`] once the remote command has ended, or the error that the connection ended with.
    ///
    /// # Cancel safety
    /// If dropped before completion, no bytes were queued.
    pub async fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_send(&data, cx)).await
    }

    /// Half-closes: FIN is sent after the queued bytes, and nothing more can be written. A second call does nothing.
    /// This does not wait until anything is sent: flush first, to wait until the driver has taken all bytes out of the
    /// queue to write them.
    ///
    /// If the protocol has no half-close, nothing more can be written either, but the peer is not told, and this does
    /// not report that. `shutdown` does, with [`StreamError::NoHalfClose`].
    pub fn finish(&mut self) {
        self.stream.shared.with(|state| state.connection.finish(self.stream.id));
    }

    /// As [`finish`](Self::finish), but fails if the protocol cannot tell the peer.
    pub(crate) fn half_close(&mut self) -> Result<(), StreamError> {
        let (id, pretends) = (self.stream.id, self.pretends);
        self.stream.shared.with(|state| {
            if !pretends && state.lacks_half_close(id) {
                return Err(StreamError::NoHalfClose);
            }
            state.connection.finish(id);
            Ok(())
        })
    }

    pub(crate) fn can_half_close(&self) -> bool {
        self.stream.shared.look(State::half_closes)
    }

    /// Makes `shutdown` behave like [`finish`](Self::finish), so that it never fails. Use this with
    /// [`tokio::io::copy_bidirectional`], or with another function that stops both directions at the first error, if
    /// the peer does not wait for the end.
    pub fn pretend_half_close(&mut self) {
        self.pretends = true;
    }

    /// Ends both directions at once with RST_STREAM. The queued bytes and the unread bytes are dropped.
    ///
    /// If your bytes were cut off, use [`RstStatus::INTERNAL_ERROR`], so that the peer's reader gets an error. Go's
    /// peers use [`RstStatus::CANCEL`] for a complete stream, so with CANCEL a part would look like the whole.
    ///
    /// Over WebSocket channels there is no RST_STREAM. In exec and attach the peer is not told, and in legacy
    /// port-forward a server sends the status as text on the error channel.
    pub fn reset(self, status: RstStatus) {
        self.stream.reset(status);
    }

    /// Resets the stream with CANCEL after the FIN has been sent.
    pub(crate) fn cancel_behind(&self) {
        self.stream.shared.with(|state| state.connection.cancel_behind(self.stream.id));
    }

    /// Ends both directions after the queued bytes, as many of them as the peer's window allows.
    pub(crate) fn reset_behind(self, status: RstStatus) {
        let stream = &self.stream;
        stream.shared.with(|state| state.connection.reset_behind(stream.id, status));
    }

    /// Sends the bytes of this stream only after the streams `others` have been sent to their end.
    pub(crate) fn wait_behind(&mut self, others: &[Watch]) {
        let others = others.iter().map(|other| other.stream.id).collect();
        self.stream.shared.with(|state| state.connection.hold_behind(self.stream.id, others));
    }

    /// A [`Watch`] that can tell when the FIN has been sent, while this half is written elsewhere.
    pub(crate) fn watch(&self) -> Watch {
        Watch { stream: Arc::clone(&self.stream) }
    }

    /// Polls for [`send`](Self::send). The bytes are taken when this is ready.
    pub(crate) fn poll_send(&mut self, data: &Bytes, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let id = self.stream.id;
        self.stream.shared.with(|state| match state.connection.write(id, data.clone())? {
            WriteOutcome::Queued => Poll::Ready(Ok(())),
            WriteOutcome::Blocked => {
                park(&mut state.waiting(id).writer, cx);
                Poll::Pending
            }
        })
    }

    /// Queues the bytes even if the send buffer is full.
    pub(crate) fn push(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.stream.shared.with(|state| state.connection.write_over(self.stream.id, data))
    }

    /// As `poll_write`, but with a typed error, which exec and port-forward need.
    pub(crate) fn poll_copy_from(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, StreamError>> {
        let id = self.stream.id;
        self.stream.shared.with(|state| match state.connection.write_slice(id, buf)? {
            Some(taken) => Poll::Ready(Ok(taken)),
            None => {
                park(&mut state.waiting(id).writer, cx);
                Poll::Pending
            }
        })
    }

    pub(crate) fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let id = self.stream.id;
        self.stream.shared.with(|state| {
            if state.connection.is_flushed(id)? {
                return Poll::Ready(Ok(()));
            }
            park(&mut state.waiting(id).writer, cx);
            Poll::Pending
        })
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_copy_from(cx, buf).map_err(Into::into)
    }

    /// Ready when the driver has taken all written bytes out of the queue, to write them to the IO.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx).map_err(Into::into)
    }

    /// Half-closes: FIN is sent after the queued bytes. This does not wait until they are sent.
    ///
    /// If the protocol has no half-close, this fails with [`StreamError::NoHalfClose`], of kind
    /// [`Unsupported`](io::ErrorKind::Unsupported), and the stream stays open for writing: see [`SendHalf`].
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.half_close().map_err(Into::into))
    }
}

impl futures_sink::Sink<Bytes> for SendHalf {
    type Error = StreamError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.poll_send(&Bytes::new(), cx)
    }

    fn start_send(mut self: Pin<&mut Self>, data: Bytes) -> Result<(), StreamError> {
        self.push(data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.poll_flushed(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_flushed(cx))?;
        Poll::Ready(self.half_close())
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        let id = self.stream.id;
        // Go's peers use CANCEL for a complete stream, so a panic needs another status.
        let status = match (std::thread::panicking(), self.joined) {
            (true, _) => Some(RstStatus::INTERNAL_ERROR),
            (false, joined) => joined.then_some(RstStatus::CANCEL),
        };
        self.stream.shared.with(|state| {
            if let Some(status) = status.filter(|_| state.connection.is_writable(id)) {
                state.connection.reset(id, status);
            } else {
                state.connection.finish(id);
            }
        });
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}

macro_rules! debug_as_id {
    ($($name:ident => $($id:ident).+;)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.$($id).+).finish()
            }
        }
    )*};
}

debug_as_id! {
    RecvHalf => stream.id;
    SendHalf => stream.id;
}
