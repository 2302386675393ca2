//! The handles of one stream.
//!
//! Owns how a stream is read, written and let go. Its state is in the connection, behind the lock.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::{Shared, State, park};
use crate::session::{ConnectionError, StreamError};
use crate::session::{ReadOutcome, WriteOutcome};
use crate::wire::spdy::{Headers, RstStatus, StreamId};

/// A stream of a connection, both halves.
///
/// Reads and writes as any tokio IO: `shutdown` half-closes with FIN, and the other direction lives on. [`data`] and
/// [`send`] do the same without a copy.
///
/// Dropped before its send half was finished it is reset with [`RstStatus::CANCEL`], once; dropped after that, what is
/// queued still goes out and what comes is discarded.
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
    pub fn id(&self) -> StreamId {
        self.recv.id()
    }

    /// Waits for the peer's answer to a stream that was opened here, and gives its headers, the first time it is asked.
    ///
    /// # Errors
    /// [`StreamError::Reset`] where the peer refused it, or what the connection ended with.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits.
    pub async fn answered(&mut self) -> Result<Headers, StreamError> {
        poll_fn(|cx| self.poll_answered(cx)).await
    }

    /// [`answered`](Self::answered) to be polled.
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

    /// As [`RecvHalf::data`].
    ///
    /// # Cancel safety
    /// As there.
    pub async fn data(&mut self) -> Option<Result<Bytes, StreamError>> {
        self.recv.data().await
    }

    /// As [`SendHalf::send`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.send.send(data).await
    }

    /// As [`SendHalf::finish`].
    pub fn finish(&mut self) {
        self.send.finish();
    }

    /// Ends both directions at once.
    pub fn reset(self, status: RstStatus) {
        self.send.stream.reset(status);
    }

    /// Its place among the streams that have bytes to send: 0 goes first, as all do by default, 7 last.
    pub fn set_priority(&mut self, priority: u8) {
        self.send.stream.shared.with(|state| state.connection.set_priority(self.send.stream.id, priority));
    }

    /// Two halves that may live in two tasks.
    #[must_use]
    pub fn split(self) -> (RecvHalf, SendHalf) {
        let Self { recv, mut send } = self;
        send.joined = false;
        (recv, send)
    }
}

/// The half that is read. Dropped alone, what comes is discarded, so that it holds nothing else up; the peer is not told.
pub struct RecvHalf {
    stream: Arc<StreamRef>,
    /// What a short `poll_read` left of a piece.
    rest: Bytes,
}

impl RecvHalf {
    /// The stream's id on the wire.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.stream.id
    }

    /// The next bytes, as they came: a slice of the buffer they were read into. `None` after the peer's FIN.
    ///
    /// Pieces do not follow the peer's writes.
    ///
    /// # Errors
    /// [`StreamError::Reset`] where the peer reset the stream, [`StreamError::Finished`] where it was reset here, or what
    /// the connection ended with: in each case after all bytes that had come before.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has taken nothing.
    pub async fn data(&mut self) -> Option<Result<Bytes, StreamError>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// [`data`](Self::data) to be polled.
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

    /// `poll_read`, with an error that the session above can tell apart.
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

    /// Ready once the stream has broken off, though what came before is unread: with what reading will give.
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

    /// Whether the peer has ended the connection itself, in good order.
    pub(crate) fn peer_said_goodbye(&self) -> bool {
        self.stream.shared.look(|state| state.connection.peer_said_goodbye())
    }

    /// Ready once the connection has ended.
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

    /// Something that can tell when nothing more will come, while this half is read elsewhere.
    pub(crate) fn watch(&self) -> Watch {
        Watch { stream: Arc::clone(&self.stream) }
    }

    /// Ends what comes too, once the FIN of what was sent is out.
    pub(crate) fn cancel_behind(&self) {
        self.stream.shared.with(|state| state.connection.cancel_behind(self.stream.id));
    }

    /// Ends both directions at once, where they have not ended.
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

/// The half that is written. Dropped alone, it is finished: FIN goes out behind what is queued. Dropped while panicking
/// the stream is reset, so that what was cut short does not look like an end.
pub struct SendHalf {
    stream: Arc<StreamRef>,
    /// The other half is in the same hands.
    joined: bool,
    /// Whoever shuts it down need not know whether anybody hears of it.
    pretends: bool,
}

impl SendHalf {
    /// The stream's id on the wire.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.stream.id
    }

    /// Queues bytes to be sent, without a copy, once fewer than [`Config::send_buffer`](crate::spdy::Config::send_buffer)
    /// wait before them.
    ///
    /// # Errors
    /// [`StreamError::Finished`] after [`finish`](Self::finish), [`StreamError::Reset`] where the peer reset the stream,
    /// [`StreamError::Hushed`] once a remote command has ended, or what the connection ended with.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has sent nothing.
    pub async fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        let mut data = Some(data);
        poll_fn(|cx| {
            ready!(self.poll_ready(cx))?;
            self.push(data.take().unwrap_or_default())?;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Half-closes: FIN goes out behind what is queued. Twice is no error. To know that the bytes have left, flush first. Where the
    /// carrier has no half-close nothing goes out, and nobody hears of it: `shutdown` says so.
    pub fn finish(&mut self) {
        self.stream.shared.with(|state| state.connection.finish(self.stream.id));
    }

    /// [`finish`](Self::finish), where somebody hears of it or need not.
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

    pub(crate) fn pretend_half_close(&mut self) {
        self.pretends = true;
    }

    /// Ends both directions at once; what is queued is dropped.
    pub fn reset(self, status: RstStatus) {
        self.stream.reset(status);
    }

    /// Ends what comes too, once the FIN is out.
    pub(crate) fn cancel_behind(&self) {
        self.stream.shared.with(|state| state.connection.cancel_behind(self.stream.id));
    }

    /// Ends both directions behind what is queued, as far as the peer's window lets it go.
    pub(crate) fn reset_behind(self, status: RstStatus) {
        let stream = &self.stream;
        stream.shared.with(|state| state.connection.reset_behind(stream.id, status));
    }

    /// What is written goes out once these streams are over, whoever writes them.
    pub(crate) fn wait_behind(&mut self, others: &[Watch]) {
        let others = others.iter().map(|other| other.stream.id).collect();
        self.stream.shared.with(|state| state.connection.hold_behind(self.stream.id, others));
    }

    /// Something that can tell when the FIN is out, while this half is written elsewhere.
    pub(crate) fn watch(&self) -> Watch {
        Watch { stream: Arc::clone(&self.stream) }
    }

    /// As [`send`](Self::send), of bytes that are taken once it is ready.
    pub(crate) fn poll_send(&mut self, data: &Bytes, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_ready(cx))?;
        Poll::Ready(self.push(data.clone()))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let id = self.stream.id;
        self.stream.shared.with(|state| match state.connection.write(id, Bytes::new())? {
            WriteOutcome::Queued => Poll::Ready(Ok(())),
            WriteOutcome::Blocked => {
                park(&mut state.waiting(id).writer, cx);
                Poll::Pending
            }
        })
    }

    /// Takes the bytes whatever waits before them.
    pub(crate) fn push(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.stream.shared.with(|state| state.connection.write_over(self.stream.id, data))
    }

    /// `poll_write`, with an error that the session above can tell apart.
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

    /// Ready once everything written has been given to the transport.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx).map_err(Into::into)
    }

    /// Half-closes with FIN. What is queued before it goes out without being waited for. Where that cannot be said, a client's
    /// over WebSocket before v5, it is [`StreamError::NoHalfClose`], of kind [`Unsupported`](io::ErrorKind::Unsupported), and nothing has
    /// ended.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.half_close().map_err(Into::into))
    }
}

impl futures_sink::Sink<Bytes> for SendHalf {
    type Error = StreamError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Self::poll_ready(&mut self, cx)
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
        // CANCEL is how Go's peers end what is whole.
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

/// Looks at a stream whose halves are in other hands. One task at a time may wait for each of its ends.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    stream: Arc<StreamRef>,
}

impl Watch {
    /// Ready once nothing more will come, whether or not what came is read.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        let id = self.stream.id;
        self.stream.shared.with(|state| {
            if state.connection.has_ended(id) {
                return Poll::Ready(());
            }
            park(&mut state.waiting(id).end, cx);
            Poll::Pending
        })
    }

    /// Whether the peer ended the stream itself, by FIN or RST, before anything else did.
    pub(crate) fn was_finished(&self) -> bool {
        self.stream.shared.look(|state| state.connection.was_finished(self.stream.id))
    }

    /// How what the peer sends has ended. `None`: it has not, or nobody wanted the rest.
    pub(crate) fn outcome(&self) -> Option<Result<(), StreamError>> {
        self.stream.shared.look(|state| state.connection.outcome(self.stream.id))
    }

    /// Whether somebody still waits for what comes.
    pub(crate) fn is_wanted(&self) -> bool {
        self.stream.shared.look(|state| state.connection.is_wanted(self.stream.id))
    }

    /// Whether the peer may have bytes of ours unread.
    pub(crate) fn may_be_unread(&self) -> bool {
        self.stream.shared.look(|state| state.connection.may_be_unread(self.stream.id))
    }

    /// Bytes that came and wait to be read, each piece counted as 256 at least.
    pub(crate) fn unread(&self) -> usize {
        self.stream.shared.look(|state| state.connection.unread_on(self.stream.id))
    }

    /// Ready once the connection has ended and all that came on the stream was read, or nobody wants it.
    pub(crate) fn poll_read_out(&self, cx: &mut Context<'_>) -> Poll<()> {
        let id = self.stream.id;
        self.stream.shared.with(|state| {
            if state.connection.is_closed() && state.connection.is_read_out(id) {
                return Poll::Ready(());
            }
            park(&mut state.waiting(id).end, cx);
            Poll::Pending
        })
    }

    /// Whether all bytes and the FIN have been given to the transport.
    pub(crate) fn was_sent(&self) -> bool {
        self.stream.shared.look(|state| state.connection.was_sent(self.stream.id))
    }

    /// Whether all bytes have been given to the transport, if not the FIN.
    ///
    /// # Errors
    /// Why they will not be.
    pub(crate) fn was_taken(&self) -> Result<(), StreamError> {
        self.stream.shared.look(|state| state.connection.was_taken(self.stream.id))
    }

    /// Ready once all bytes and the FIN have been given to the transport, or never will be.
    pub(crate) fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        let id = self.stream.id;
        self.stream.shared.with(|state| {
            if state.connection.is_sent(id) {
                return Poll::Ready(());
            }
            park(&mut state.waiting(id).sent, cx);
            Poll::Pending
        })
    }
}

/// What the halves of a stream have in common. The last one to go lets the stream be forgotten.
pub(super) struct StreamRef {
    shared: Arc<Shared>,
    id: StreamId,
}

impl StreamRef {
    /// The caller has counted the handle, under the lock under which the stream came to be.
    pub(super) fn new(shared: &Arc<Shared>, id: StreamId) -> Arc<Self> {
        Arc::new(Self { shared: Arc::clone(shared), id })
    }

    pub(super) fn id(&self) -> StreamId {
        self.id
    }

    pub(super) fn reply(&self, headers: Headers) -> Result<(), ConnectionError> {
        self.shared.with(|state| state.connection.reply(self.id, headers))
    }

    pub(super) fn reset(&self, status: RstStatus) {
        self.shared.with(|state| state.connection.reset(self.id, status));
    }
}

impl Drop for StreamRef {
    fn drop(&mut self) {
        let _nobody = self.shared.with(|state| {
            state.connection.release(self.id);
            state.forget(self.id)
        });
        self.shared.handle_dropped();
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
    StreamRef => id;
}
