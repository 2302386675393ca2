//! The state that the handles and the driver of a connection share: the protocol state, and the wakers of the tasks
//! that wait for it.
//!
//! This module owns the lock and the wakers. It must not do IO or wake a task while it holds the lock.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
#[cfg(not(all(test, shuttle)))]
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

// A lock at which the scheduler of `schedules` may stop one thread and run another.
#[cfg(all(test, shuttle))]
use shuttle::sync::{Mutex, MutexGuard};

use super::waiters::Waiters;
use crate::session::ConnectionError;
use crate::session::{ById, Connection, Event, Role};
use crate::wire::spdy::{Headers, RstStatus, StreamId};

pub(crate) struct Shared(Mutex<State>);

/// Shows no queued or unread bytes: `Debug` output ends up in logs.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

pub(crate) struct State {
    pub(crate) connection: Connection,
    pub(crate) incoming: VecDeque<StreamId>,
    /// The fixed streams of a client's WebSocket channels that are not taken yet, with their headers. `None` if the
    /// transport has no fixed streams.
    given: Option<Vec<(Headers, StreamId)>>,
    pub(crate) pings: ById<u32, Ping>,
    /// The protocol has a half-close.
    half_closes: bool,
    /// One answer may stand for the last PING and all PINGs before it: over WebSocket (RFC 6455 §5.5.3).
    one_answers_all: bool,
    streams: ById<StreamId, Waiting>,
    acceptors: Waiters,
    openers: Waiters,
    enders: Waiters,
    /// The driver, while it sleeps.
    driver: Option<Waker>,
    /// How many handles exist: multiplexers and streams.
    handles: usize,
    /// How the driver ended.
    pub(crate) outcome: Option<Result<(), ConnectionError>>,
    pub(crate) traffic: Traffic,
    /// How often the lock was taken, for the test that holds what an operation costs.
    pub(crate) locked: u64,
}

/// How many bytes went through the IO so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

#[derive(Debug)]
pub(crate) struct Ping {
    pub(crate) sent: Instant,
    pub(crate) took: Option<Duration>,
    pub(crate) waker: Option<Waker>,
}

/// The tasks that wait for one stream.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    pub(crate) answer: Option<Waker>,
    pub(crate) end: Option<Waker>,
    pub(crate) sent: Option<Waker>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        [&self.reader, &self.writer, &self.answer, &self.end, &self.sent].iter().all(|waker| waker.is_none())
    }
}

impl Shared {
    pub(crate) fn new(connection: Connection, given: Option<Vec<(Headers, StreamId)>>, half_closes: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            connection,
            incoming: VecDeque::new(),
            one_answers_all: given.is_some(),
            given,
            half_closes,
            pings: ById::default(),
            streams: ById::default(),
            acceptors: Waiters::default(),
            openers: Waiters::default(),
            enders: Waiters::default(),
            driver: None,
            handles: 0,
            outcome: None,
            traffic: Traffic::default(),
            locked: 0,
        })))
    }

    /// Changes the state, and then, outside the lock, wakes the tasks that wait for the events of the change.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut wakes = None;
        let mut driver = None;
        let result = {
            let mut state = self.lock();
            let paused = !state.connection.wants_read();
            let output = state.connection.output_added();
            let result = act(&mut state);
            if state.has_news() {
                state.deliver(wakes.insert(Wakes::default()));
            }
            let resumed = paused && state.connection.wants_read();
            // The driver is woken for new output only. If it were woken whenever there is output, a handle that is
            // polled in the driver's own task would wake it again and again while the IO is blocked.
            if state.driver.is_some() && (resumed || state.connection.output_added() != output) {
                driver = state.driver.take();
            }
            result
        };
        if let Some(wakes) = wakes {
            wakes.wake();
        }
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// As [`with`](Self::with), for the driver, which need not wake itself.
    pub(crate) fn drive<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut wakes = None;
        let result = {
            let mut state = self.lock();
            let result = act(&mut state);
            if state.has_news() {
                state.deliver(wakes.insert(Wakes::default()));
            }
            result
        };
        if let Some(wakes) = wakes {
            wakes.wake();
        }
        result
    }

    /// Waits in a line with other tasks until `poll` is ready. `poll` is called each time the line is woken.
    pub(crate) async fn wait<T>(&self, line: Line, mut poll: impl FnMut(&mut State) -> Poll<T>) -> T {
        let mut place = Place { shared: self, line, number: None };
        poll_fn(|cx| {
            let (result, _useless) = self.with(|state| match poll(state) {
                Poll::Pending => (Poll::Pending, state.line(line).wait(&mut place.number, cx)),
                ready => (ready, place.number.take().and_then(|number| state.line(line).leave(number))),
            });
            result
        })
        .await
    }

    /// Reads the state. This cannot cause events.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    pub(crate) fn wake_driver(&self) {
        let driver = self.lock().driver.take();
        if let Some(waker) = driver {
            waker.wake();
        }
    }

    pub(crate) fn handle_added(&self) {
        let mut state = self.lock();
        state.handles = state.handles.saturating_add(1);
    }

    /// Counts a dropped handle. The connection ends with the last one.
    pub(crate) fn handle_dropped(&self) {
        if self.with(State::drop_handle) {
            self.wake_driver();
        }
    }

    fn leave(&self, line: Line, number: u64) -> Option<Waker> {
        self.lock().line(line).leave(number)
    }

    // A panic under the lock leaves the state consistent, because each change is one call into the connection. So
    // poisoning is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.locked = state.locked.wrapping_add(1);
        state
    }
}

/// The events for which several tasks may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line {
    /// A stream that the peer opens.
    Accept,
    /// Room to open a stream.
    Open,
    /// The end of the connection, or of its driver.
    End,
}

/// The place of a waiting task in its line. If dropped, the task has left the line.
struct Place<'a> {
    shared: &'a Shared,
    line: Line,
    number: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let _useless = self.shared.leave(self.line, number);
        }
    }
}

impl State {
    fn line(&mut self, line: Line) -> &mut Waiters {
        match line {
            Line::Accept => &mut self.acceptors,
            Line::Open => &mut self.openers,
            Line::End => &mut self.enders,
        }
    }

    pub(crate) fn waiting(&mut self, id: StreamId) -> &mut Waiting {
        self.streams.entry(id).or_default()
    }

    /// Whether a half-close of the stream would have to be sent, and the protocol cannot say it.
    pub(crate) fn lacks_half_close(&self, id: StreamId) -> bool {
        let connection = &self.connection;
        !self.half_closes && connection.is_writable(id) && !connection.has_ended(id) && !connection.is_silent()
    }

    /// Whether the protocol has a half-close.
    pub(crate) fn half_closes(&self) -> bool {
        self.half_closes
    }

    /// Forgets the wakers of a stream whose last handle is dropped. They need not be woken. The caller must drop them
    /// outside the lock.
    pub(crate) fn forget(&mut self, id: StreamId) -> Option<Waiting> {
        self.streams.remove(&id)
    }

    pub(crate) fn add_handle(&mut self) {
        self.handles = self.handles.saturating_add(1);
    }

    /// Returns whether it was the last handle.
    fn drop_handle(&mut self) -> bool {
        self.handles = self.handles.saturating_sub(1);
        if self.handles == 0 {
            self.connection.go_away();
        }
        self.handles == 0
    }

    /// Opens a stream, or takes it if the transport has fixed streams. The headers are taken only if a stream was
    /// opened.
    pub(crate) fn open(&mut self, headers: &mut Headers) -> Result<Option<StreamId>, ConnectionError> {
        let Some(given) = &mut self.given else { return self.connection.open_with(headers) };
        // This works even if the connection has ended: a session may be over before the user takes its streams.
        let says = |name: &[u8], value: &[u8]| headers.iter().any(|header| header == (name, value));
        let is_meant = |given: &Headers| given.iter().all(|(name, value)| says(name, value));
        let at = given.iter().position(|(given, _)| is_meant(given)).ok_or(ConnectionError::NoChannel)?;
        Ok(Some(given.swap_remove(at).1))
    }

    pub(crate) fn release_given(&mut self) {
        for (_, id) in self.given.iter_mut().flat_map(std::mem::take) {
            self.connection.release(id);
        }
    }

    /// Refuses the streams that wait to be accepted, and all later ones.
    pub(crate) fn refuse_streams(&mut self) {
        self.connection.refuse_streams();
        for id in std::mem::take(&mut self.incoming) {
            self.connection.reset(id, RstStatus::REFUSED_STREAM);
            self.connection.release(id);
        }
    }

    pub(crate) fn park_driver(&mut self, cx: &Context<'_>) {
        park(&mut self.driver, cx);
    }

    /// The next stream of the peer that is not answered or reset yet. The stream counts as a handle.
    pub(crate) fn poll_accept(&mut self) -> Poll<Result<(StreamId, Headers), ConnectionError>> {
        while let Some(id) = self.incoming.pop_front() {
            // If the peer has reset the stream in the meantime, its headers are gone.
            if let Some(headers) = self.connection.take_headers(id) {
                self.add_handle();
                return Poll::Ready(Ok((id, headers)));
            }
        }
        if let Some(error) = self.connection.error() {
            return Poll::Ready(Err(error.clone()));
        }
        Poll::Pending
    }

    /// Ready with the driver's result when the driver has ended.
    pub(crate) fn poll_outcome(&self) -> Poll<Result<(), ConnectionError>> {
        self.outcome.clone().map_or(Poll::Pending, Poll::Ready)
    }

    /// Ends the connection, because its driver has ended. `unsent` says why queued bytes were not sent, if there were
    /// any. That is a failure unless the peer had sent GOAWAY.
    pub(crate) fn end(
        &mut self,
        error: ConnectionError,
        unsent: Option<ConnectionError>,
    ) -> Result<(), ConnectionError> {
        self.connection.close(error);
        let unsent = unsent.filter(|_| !self.connection.is_going_away());
        let outcome = match self.connection.error() {
            None | Some(ConnectionError::Closed) => unsent.map_or(Ok(()), Err),
            Some(error) if error.is_orderly_end() && self.connection.role() == Role::Server => Ok(()),
            Some(error) => Err(error.clone()),
        };
        self.outcome.get_or_insert(outcome).clone()
    }

    /// Ready when the connection has ended.
    pub(crate) fn poll_gone(&self) -> Poll<()> {
        if self.connection.is_closed() || self.outcome.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Frees the buffers of idle streams.
    pub(crate) fn trim(&mut self) {
        self.connection.trim();
        self.streams.retain(|_, waiting| !waiting.is_empty());
        self.streams.shrink_to_fit();
        self.incoming.shrink_to_fit();
    }

    /// Whether [`deliver`](Self::deliver) may wake a task.
    fn has_news(&self) -> bool {
        self.connection.has_events() || self.outcome.is_some()
    }

    fn deliver(&mut self, wakes: &mut Wakes) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Incoming(id) => {
                    // Before the queue grows, streams that the peer has reset in the meantime are removed.
                    if self.incoming.len() == self.incoming.capacity() {
                        let connection = &self.connection;
                        self.incoming.retain(|id| connection.knows(*id));
                    }
                    self.incoming.push_back(id);
                    wakes.extend(&mut self.acceptors);
                }
                Event::Readable(id) => wakes.push(self.streams.get_mut(&id).and_then(|waiting| waiting.reader.take())),
                Event::Writable(id) => wakes.push(self.streams.get_mut(&id).and_then(|waiting| waiting.writer.take())),
                Event::Answered(id) => wakes.push(self.streams.get_mut(&id).and_then(|waiting| waiting.answer.take())),
                Event::Ended(id) => wakes.push(self.streams.get_mut(&id).and_then(|waiting| waiting.end.take())),
                Event::Sent(id) => wakes.push(self.streams.get_mut(&id).and_then(|waiting| waiting.sent.take())),
                Event::CanOpen => wakes.extend(&mut self.openers),
                Event::Pong(id) => {
                    let all = self.one_answers_all;
                    let answered = |ping: u32| ping == id || all && ping < id;
                    for (_, ping) in self.pings.iter_mut().filter(|(ping, _)| answered(**ping)) {
                        ping.took.get_or_insert_with(|| ping.sent.elapsed());
                        wakes.push(ping.waker.take());
                    }
                }
                Event::Closed => self.wake_all(wakes),
            }
        }
        if self.outcome.is_some() {
            wakes.extend(&mut self.enders);
        }
    }

    fn wake_all(&mut self, wakes: &mut Wakes) {
        for waiting in self.streams.values_mut() {
            for waker in
                [&mut waiting.reader, &mut waiting.writer, &mut waiting.answer, &mut waiting.end, &mut waiting.sent]
            {
                wakes.push(waker.take());
            }
        }
        for ping in self.pings.values_mut() {
            wakes.push(ping.waker.take());
        }
        wakes.extend(&mut self.acceptors);
        wakes.extend(&mut self.openers);
        wakes.extend(&mut self.enders);
    }
}

/// Remembers the waker of a task. It replaces the waker before it: one task at a time may use a handle.
pub(crate) fn park(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// Wakers to be woken when the lock is free. Most calls wake one or two tasks, so up to four wakers need no allocation.
#[derive(Default)]
struct Wakes {
    first: [Option<Waker>; 4],
    more: Vec<Waker>,
}

impl Wakes {
    fn push(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        match self.first.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(waker),
            None => self.more.push(waker),
        }
    }

    fn extend(&mut self, waiters: &mut Waiters) {
        waiters.take().for_each(|waker| self.push(Some(waker)));
    }

    fn wake(self) {
        for waker in self.first {
            // The slots are filled in order.
            let Some(waker) = waker else { return };
            waker.wake();
        }
        self.more.into_iter().for_each(Waker::wake);
    }
}
