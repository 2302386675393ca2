//! The loop that does the IO: it reads messages, writes messages and keeps the timers.
//!
//! This module owns the IO, its buffers and the carrier. It must not decide anything about the protocol, which is the
//! [`Connection`](crate::session::Connection)'s job.

mod closing;
mod stage;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tokio_util::io::{poll_read_buf, poll_write_buf};

use stage::{Overheard, Rest, Seen, Silence, Stage};

use super::buffer::ReadBuffer;
use super::shared::{Shared, State};
use crate::carrier::{Carrier, WriteBatch};
use crate::session::{Config, ConnectionError, Message, Role, StreamError};

/// How long a connection is silent before its buffers are freed.
const TRIM_AFTER: Duration = Duration::from_secs(1);
/// The most messages that are handed to the connection under one lock. The answers to them are written before more are
/// read.
const MESSAGES: usize = 64;
/// The most rounds of reading and writing in one poll, so that other tasks get their turn.
const ROUNDS: usize = 4;

/// The future that does a connection's IO and keeps its timers. Spawn it, or poll it for as long as the connection has
/// to live.
///
/// It completes when the connection has ended. An orderly end begins with
/// [`Multiplexer::shutdown`](super::Multiplexer::shutdown), or when the last handle is dropped. Then the driver writes
/// everything queued and GOAWAY, or over WebSocket a Close. It completes when the peer has ended too, or has been
/// silent for [`Config::linger`].
///
/// A client shuts down its write side after its GOAWAY. A server keeps its write side open until the client has ended
/// or said goodbye. nginx, HAProxy and every kube-apiserver know no half-close: if the server shut down its write side
/// first, they would close both directions. A client that still writes would then get a reset, and lose the tail of the
/// output.
///
/// # Errors
/// The error that the connection failed with. An orderly end is `Ok`.
///
/// # Cancel safety
/// If dropped before completion, the IO is dropped at once, and every handle gets [`ConnectionError::DriverGone`].
#[must_use = "nothing is sent or received unless the driver is spawned or polled"]
pub struct Driver<IO> {
    io: IO,
    carrier: Carrier,
    shared: Arc<Shared>,
    input: ReadBuffer,
    output: WriteBatch,
    messages: Vec<Message>,
    stage: Stage,
    linger: Duration,
    flush_timeout: Duration,
    /// Bytes that were written since the peer was last known to have received everything.
    unconfirmed: u64,
    /// Bytes that were written and are not in the [`Traffic`](super::shared::Traffic) yet.
    uncounted: u64,
    /// What the driver's last change of the state has shown.
    seen: Seen,
    /// The connection had no more to write when `output` was last filled.
    drained: bool,
    /// Why writing is no longer possible. The peer's remaining bytes are still read, until the peer is silent for too
    /// long.
    write_error: Option<ConnectionError>,
    /// Reading is paused until a stream is read.
    paused: bool,
    eof: bool,
    /// What the peer's remaining bytes are while the connection ends.
    rest: Rest,
    /// What can still be written after the connection has stopped sending.
    silence: Silence,
    /// `output` contains DATA or a goodbye, not just answers and window updates.
    substance: bool,
    /// The connection is ending in good order, and queued bytes are being written.
    closing: bool,
    /// When a byte last moved in either direction, or when closing began.
    progress: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    trim_at: Option<Instant>,
    warned: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    pub(super) fn new(io: IO, read_ahead: &[u8], carrier: Carrier, shared: Arc<Shared>, config: &Config) -> Self {
        let mut input = ReadBuffer::default();
        input.bytes().extend_from_slice(read_ahead);
        Self {
            io,
            carrier,
            shared,
            input,
            output: WriteBatch::default(),
            messages: Vec::new(),
            stage: Stage::Running,
            linger: config.linger,
            flush_timeout: config.flush_timeout,
            unconfirmed: 0,
            uncounted: 0,
            seen: Seen::default(),
            drained: false,
            write_error: None,
            paused: false,
            eof: false,
            rest: Rest::Frames,
            silence: Silence::Whole,
            substance: false,
            closing: false,
            progress: tokio::time::Instant::now().into_std(),
            timer: None,
            trim_at: None,
            warned: false,
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = tokio::time::Instant::now().into_std();
            match self.stage {
                Stage::Running => ready!(self.run(cx, now)),
                Stage::Flushing => {
                    self.change(|_| ());
                    self.drain(cx);
                    let flushed = self.write(cx, now);
                    let patience = self.patience();
                    let (until, waits) = (after(self.progress, patience), flushed.is_pending());
                    self.stage = match ready!(flushed.or_past(self, until, cx, now)) {
                        Ok(()) if self.leaves_the_end_to_the_peer() => {
                            let (until, at_most) = self.silence_allowed(now);
                            Stage::Waiting { until, at_most }
                        }
                        Ok(()) => self.shutting(false, now),
                        Err(error) => {
                            let timed_out = waits.then_some(ConnectionError::FlushTimeout(patience));
                            let silent = self.seen.is_silent;
                            self.write_error = (!silent).then(|| timed_out.unwrap_or_else(|| error.into()));
                            Stage::Ended
                        }
                    };
                }
                Stage::Waiting { until, at_most } => {
                    let heard = self.overhear(cx).map(Ok);
                    self.stage = match ready!(heard.or_past(self, until.min(at_most), cx, now)) {
                        Ok(Overheard::Talk) if at_most > now => {
                            // Bytes from the peer do not prove that it has read everything.
                            let until = until.max(after(now, self.linger));
                            self.stage = Stage::Waiting { until, at_most };
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Ok(Overheard::Talk) | Err(_) => self.shutting(true, now),
                        Ok(Overheard::End) => self.shutting(self.eof, now),
                    };
                }
                Stage::Shutting { until, last } => {
                    let shut = Pin::new(&mut self.io).poll_shutdown(cx);
                    self.stage = match ready!(shut.or_past(self, until, cx, now)) {
                        Ok(()) if last => Stage::Ended,
                        Ok(()) => {
                            let (until, at_most) = self.silence_allowed(now);
                            Stage::Lingering { until, at_most }
                        }
                        Err(_) => Stage::Ended,
                    };
                }
                Stage::Lingering { until, at_most } => {
                    self.input.bytes().clear();
                    let read = poll_read_buf(Pin::new(&mut self.io), cx, self.input.with_room());
                    self.stage = match ready!(read.or_past(self, until.min(at_most), cx, now)) {
                        Ok(1..) if at_most <= now => Stage::Ended,
                        // A peer that still sends may still be reading, so only its silence counts.
                        Ok(1..) => {
                            let until = until.max(after(now, self.linger));
                            self.stage = Stage::Lingering { until, at_most };
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Ok(0) | Err(_) => Stage::Ended,
                    };
                }
                Stage::Ended => return Poll::Ready(()),
            }
        }
    }

    /// Reads and writes in rounds, until there is nothing to do or the connection has closed.
    fn run(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let keeps_many = self.input.keeps_many();
        // The waker is parked first, so that changes made during this poll wake the driver again.
        let closing = self.change(|state| {
            state.park_driver(cx);
            if keeps_many {
                state.connection.settle_unread();
            }
            state.connection.is_closing()
        });
        if closing && !std::mem::replace(&mut self.closing, true) {
            self.progress = now;
        }
        let mut write_due = true;
        for _ in 0..ROUNDS {
            let read = self.read(cx, now);
            // If a round reads nothing, the one before has written everything.
            if (write_due || read.is_ready())
                && self.write_error.is_none()
                && let Poll::Ready(Err(error)) = self.write(cx, now)
            {
                self.stop_writing(error, now);
                cx.waker().wake_by_ref();
            }
            if let Some(next) = self.closed_stage() {
                self.stage = next;
                self.progress = now;
                return Poll::Ready(());
            }
            // Timers are checked only after everything that arrived is read: it may contain the answer that a timer
            // waits for.
            if read.is_pending() && self.rest(cx, now).is_pending() {
                return Poll::Pending;
            }
            write_due = read.is_pending();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Runs the timers, and sleeps. Ready, without sleeping, if they have queued something to send.
    fn rest(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let given_up = self.gives_up_at().is_some_and(|at| at <= now);
        let (write_error, paused, flush_timeout) = (self.write_error.clone(), self.paused, self.flush_timeout);
        let (news, timeout) = self.change(|state| {
            let connection = &mut state.connection;
            let output = connection.output_added();
            connection.handle_timeout(now);
            match write_error {
                // A client that is slow to read may still have a tail in its socket. On a server the unread bytes are
                // only stdin.
                Some(error) if paused && connection.role() == Role::Server => connection.close(error),
                Some(error) if given_up => connection.close(error),
                None if given_up => connection.close(ConnectionError::FlushTimeout(flush_timeout)),
                _ => {}
            }
            (connection.output_added() != output, connection.poll_timeout())
        });
        if news && self.write_error.is_none() && !self.output.has_remaining() {
            return Poll::Ready(());
        }
        if self.paused && self.seen.wants_read || self.seen.is_closed {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.trim_at.is_some_and(|at| at <= now) {
            self.trim();
        } else if self.trim_at.is_none() {
            self.trim_at = now.checked_add(TRIM_AFTER);
        }
        self.wait_until(
            [timeout, self.trim_at.filter(|at| *at > now), self.gives_up_at()].into_iter().flatten().min(),
            cx,
        );
        Poll::Pending
    }

    /// Changes the state, and notes what the driver has to know of it until its next change: each look at the state takes
    /// the lock. Whoever else changes the state so that the driver has to act wakes it.
    fn change<T>(&mut self, act: impl FnOnce(&mut State) -> T) -> T {
        self.with_buffers(|state, _, _, _| act(state))
    }

    /// As [`change`](Self::change), with what is decoded and encoded under the lock.
    fn with_buffers<T>(
        &mut self,
        act: impl FnOnce(&mut State, &mut Carrier, &mut WriteBatch, &mut Vec<Message>) -> T,
    ) -> T {
        let (carrier, output, messages) = (&mut self.carrier, &mut self.output, &mut self.messages);
        let (seen, uncounted) = (&mut self.seen, std::mem::take(&mut self.uncounted));
        self.shared.drive(|state| {
            state.traffic.sent = state.traffic.sent.saturating_add(uncounted);
            let result = act(state, carrier, output, messages);
            *seen = Seen::of(&state.connection);
            result
        })
    }

    /// Decodes what was read, or reads once more. Ready when there may be more to read.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let wants_read = self.seen.wants_read;
        if std::mem::replace(&mut self.paused, !wants_read) && wants_read {
            self.progress = now;
        }
        if !wants_read {
            self.warn_of_stall();
            return Poll::Pending;
        }
        if (!self.input.bytes().is_empty() || self.carrier.has_more()) && self.decode(0, now) {
            return Poll::Ready(());
        }
        match ready!(poll_read_buf(Pin::new(&mut self.io), cx, self.input.with_room())) {
            Ok(0) => self.hear_the_end(),
            Ok(count) => {
                self.input.filled(count);
                self.trim_at = None;
                // While this end closes, bytes from the peer are no progress: it has to accept bytes.
                if !self.closing {
                    self.progress = now;
                }
                self.decode(count, now);
                if self.seen.has_taken_all {
                    self.unconfirmed = 0;
                }
            }
            // TLS without close_notify counts as the peer's end. It does not prove that everything has arrived.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.write_error.is_none() => {
                self.hear_the_end()
            }
            Err(error) => {
                self.eof = true;
                let error = self.write_error.take().unwrap_or_else(|| error.into());
                self.change(|state| state.connection.lost(error));
            }
        }
        Poll::Ready(())
    }

    /// Tells the connection that the peer has ended.
    fn hear_the_end(&mut self) {
        self.eof = true;
        let between = self.input.bytes().is_empty() && self.carrier.is_between_frames();
        let write_error = self.write_error.take();
        self.change(|state| match write_error {
            Some(error) => state.connection.close(error),
            None => state.connection.end_of_input(between),
        });
    }

    /// Gives a batch of decoded messages to the connection, and the number of bytes that were `read`. Returns `false`
    /// if the buffer holds no whole message.
    fn decode(&mut self, read: usize, now: Instant) -> bool {
        let mut failure = None;
        while self.messages.len() < MESSAGES {
            match self.carrier.decode(self.input.bytes()) {
                Ok(Some(message)) => self.messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let progress = !self.messages.is_empty() || failure.is_some();
        if progress || read > 0 {
            self.with_buffers(|state, _, _, messages| {
                state.traffic.received = state.traffic.received.saturating_add(read as u64);
                if read > 0 {
                    state.connection.heard(now);
                }
                for message in messages.drain(..) {
                    state.connection.receive(message, now);
                }
                match failure {
                    Some(ConnectionError::Closed) => state.connection.answer_goodbye(),
                    // Everything that matters has arrived before this error.
                    Some(error) if state.connection.has_all_but(&error) => {
                        state.connection.answer_goodbye();
                    }
                    Some(error) => state.connection.close(error),
                    None => {}
                }
            });
        }
        progress
    }

    /// Writes until nothing is queued or the IO accepts no more bytes.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<io::Result<()>> {
        let written = self.write_messages(cx, now);
        match written {
            // The connection has stopped sending, so nothing that is left matters, and a failed write is no error.
            Poll::Ready(Err(_)) if self.seen.is_silent => {
                self.silence = Silence::Cut;
                self.output.clear();
                Poll::Ready(Ok(()))
            }
            written => written,
        }
    }

    fn write_messages(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<io::Result<()>> {
        self.drained = false;
        loop {
            let silent = self.seen.is_silent;
            if silent && self.silence != Silence::LastFrame {
                if self.output.has_remaining() {
                    self.silence = Silence::Cut;
                    self.output.clear();
                }
                if self.silence == Silence::Cut {
                    return Poll::Ready(Ok(()));
                }
            }
            if !self.output.has_remaining() {
                if !self.drained {
                    self.fill(now)?;
                }
                let more = self.output.has_remaining();
                self.silence = if silent && more { Silence::LastFrame } else { Silence::Whole };
                if !more {
                    return Pin::new(&mut self.io).poll_flush(cx);
                }
                self.trim_at = None;
            }
            let count = ready!(poll_write_buf(Pin::new(&mut self.io), cx, &mut self.output))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // While closing, answers to a peer that accepts nothing else are no progress.
            if !self.closing || self.substance {
                self.progress = now;
            }
            self.unconfirmed = self.unconfirmed.saturating_add(count as u64);
            self.uncounted = self.uncounted.saturating_add(count as u64);
        }
    }

    /// Encodes a batch of messages, if the connection has some.
    fn fill(&mut self, now: Instant) -> io::Result<()> {
        self.substance = false;
        self.carrier.answer_below(&mut self.output)?;
        if !self.seen.has_output && !self.carrier.is_over() {
            self.drained = true;
            return Ok(());
        }
        let mut substance = false;
        let drained = self.with_buffers(|state, carrier, output, _| {
            let mut drained = false;
            while !output.is_full() && !drained {
                match state.connection.poll_message(now) {
                    Some(message) => {
                        substance |= matches!(message, Message::Data { .. } | Message::Goodbye { .. });
                        carrier.encode(message, state.connection.error(), output)?;
                    }
                    None => drained = true,
                }
            }
            if carrier.is_over() {
                state.connection.end_here();
            }
            io::Result::Ok(drained)
        });
        self.substance = substance;
        self.drained = drained?;
        Ok(())
    }

    /// Stops writing after a failure. The bytes that the peer sent before are still read: they may be all that matters.
    fn stop_writing(&mut self, error: io::Error, now: Instant) {
        let error = ConnectionError::from(error);
        self.output.clear();
        self.change(|state| state.connection.silence(StreamError::Connection(error.clone())));
        self.write_error = Some(error);
        self.progress = now;
    }

    /// Makes sure that the task is woken at `deadline`. A timer whose deadline moves later is not reset: it fires
    /// early, once, and is set again then.
    fn wait_until(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) {
        let Some(deadline) = deadline.map(tokio::time::Instant::from_std) else { return };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn trim(&mut self) {
        self.input.release();
        self.output.release();
        self.carrier.release();
        self.messages = Vec::new();
        self.change(State::trim);
    }

    /// Logs, once for each connection, that an unread stream stalls it.
    fn warn_of_stall(&mut self) {
        if !std::mem::replace(&mut self.warned, true) {
            let stream = self.shared.look(|state| state.connection.stalled_by());
            #[cfg(feature = "tracing")]
            tracing::warn!(
                stream = stream.map(crate::wire::spdy::StreamId::get),
                "an unread stream stalls the connection"
            );
            #[cfg(not(feature = "tracing"))]
            let _ = stream;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = Result<(), ConnectionError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let driver = self.get_mut();
        let ended = driver.drive(cx);
        if driver.uncounted > 0 {
            driver.change(|_| ());
        }
        ready!(ended);
        let unsent = driver.write_error.take();
        Poll::Ready(driver.shared.with(|state| state.end(ConnectionError::Closed, unsent)))
    }
}

/// Shows no bytes of the connection.
impl<IO> fmt::Debug for Driver<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        let flushing = self.stage == Stage::Flushing;
        let unsent = self.write_error.take().or_else(|| flushing.then_some(ConnectionError::DriverGone));
        // If the connection has ended before, this returns its result, which is not needed.
        let _ = self.shared.with(|state| state.end(ConnectionError::DriverGone, unsent));
    }
}

fn after(instant: Instant, duration: Duration) -> Instant {
    /// Practically for ever. `Instant` cannot hold every `Duration`.
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    instant.checked_add(duration.min(CENTURY)).unwrap_or(instant)
}

/// IO with a deadline.
trait OrPast<T> {
    /// Fails with `TimedOut` if the IO is still pending at `until`.
    fn or_past<IO: AsyncRead + AsyncWrite + Unpin>(
        self,
        driver: &mut Driver<IO>,
        until: Instant,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<T>>;
}

impl<T> OrPast<T> for Poll<io::Result<T>> {
    fn or_past<IO: AsyncRead + AsyncWrite + Unpin>(
        self,
        driver: &mut Driver<IO>,
        until: Instant,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Self {
        if self.is_ready() {
            return self;
        }
        if until <= now {
            return Self::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        driver.wait_until(Some(until), cx);
        Self::Pending
    }
}
