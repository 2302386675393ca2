//! How the two directions of a pipe end.
//!
//! This module owns when a direction ends, what the other direction does then, and how long the pipe waits for each
//! side. It must not look at the bytes, nor know how they are moved: a [`Hop`] moves them.
//!
//! Each direction ends by itself: its end is passed on, and the other direction goes on. If a sink fails, its source is
//! still read to the end, because closing a socket with unread bytes resets it, and the reset discards what the other
//! direction has not delivered yet: the tail of an output and the status behind it.
//!
//! If a side fails, the other side is not told that it ended. It gets time to receive what was sent before, and then
//! its connection is dropped.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::hop::{Fault, Hop};
use crate::unconfirmed::{ALWAYS_RECEIVED, Unconfirmed};

/// How long a direction is silent before its buffer is freed.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// How long a pipe waits. The docs of [`Pipe`](crate::Pipe) say what each of these times is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) linger: Duration,
    pub(crate) tail: Duration,
    pub(crate) idle: Duration,
}

/// The result of a pipe: how many bytes it moved in each direction, and what failed.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct PipeOutcome {
    /// Bytes from the client to the backend.
    pub to_backend: u64,
    /// Bytes from the backend to the client.
    pub to_client: u64,
    /// The first error of the client's connection. It is not always a fault: many clients go away without an orderly
    /// end.
    pub client: Option<io::Error>,
    /// The first error of the backend's connection.
    pub backend: Option<io::Error>,
    /// Whether an [`Observer`](crate::Observer) stopped the pipe.
    pub stopped: bool,
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Moving,
    /// The source has ended. The sink must be told.
    Ending,
    /// The source has failed, and the sink's peer must not take the failure for an end.
    Broken,
    /// The sink has failed. Bytes from the source are read and dropped.
    Draining,
    Over,
}

/// One direction.
struct Direction<H> {
    hop: H,
    stage: Stage,
    /// When bytes last came, whether they were moved or dropped.
    heard: Instant,
    /// When the stage last changed.
    since: Instant,
    /// Bytes that the sink's peer may not have received yet.
    unconfirmed: Unconfirmed,
}

/// Both directions of a pipe.
pub(crate) struct Run<Up, Down> {
    up: Direction<Up>,
    down: Direction<Down>,
    /// When the client's connection failed, if it did.
    client_failed: Option<Instant>,
    /// How many bytes had been moved to the client when bytes last came from it.
    acknowledged: u64,
    patience: Patience,
    timer: Pin<Box<Sleep>>,
    trimmed: bool,
    pub(crate) outcome: PipeOutcome,
}

impl<Up, Down> Run<Up, Down> {
    pub(crate) fn new(up: Up, down: Down, patience: Patience) -> Self {
        let now = Instant::now();
        Self {
            up: Direction::new(up, now),
            down: Direction::new(down, now),
            client_failed: None,
            acknowledged: 0,
            patience,
            timer: Box::pin(tokio::time::sleep(TRIM_AFTER)),
            trimmed: false,
            outcome: PipeOutcome::default(),
        }
    }

    /// The ways of moving bytes to the backend and to the client.
    pub(crate) fn hops(&mut self) -> (&mut Up, &mut Down) {
        (&mut self.up.hop, &mut self.down.hop)
    }

    pub(crate) fn poll<C, B>(&mut self, client: &mut C, backend: &mut B, cx: &mut Context<'_>) -> Poll<()>
    where
        Up: Hop<C, B>,
        Down: Hop<B, C>,
    {
        let before = self.last_heard();
        let heard = self.up.heard;
        let linger = self.patience.linger;
        let PipeOutcome { to_backend, to_client, client: client_fault, backend: backend_fault, stopped } =
            &mut self.outcome;
        let up = self.up.poll((client, backend), (to_backend, linger), (client_fault, backend_fault), cx);
        if heard != self.up.heard {
            self.acknowledged = *to_client;
        }
        let both =
            up.and_then(|()| self.down.poll((backend, client), (to_client, linger), (backend_fault, client_fault), cx));
        if both.is_err() {
            *stopped = true;
            return Poll::Ready(());
        }
        if self.is_over() {
            return Poll::Ready(());
        }
        let now = Instant::now();
        if self.outcome.client.is_some() {
            self.client_failed.get_or_insert(now);
        }
        let deadline = self.deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(());
        }
        self.trimmed &= before == self.last_heard();
        let trim = self.last_heard().checked_add(TRIM_AFTER);
        if self.trimmed || trim.is_some_and(|trim| trim <= now) {
            // At every poll from now on, because a poll that moves nothing may still have allocated a buffer to read
            // into.
            self.up.hop.trim();
            self.down.hop.trim();
            self.trimmed = true;
        }
        let next = [deadline, trim.filter(|_| !self.trimmed)].into_iter().flatten().min();
        let Some(next) = next else { return Poll::Pending };
        // A timer that fires too early is set again at that time.
        if next < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(next);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Whether there is nothing left to wait for.
    fn is_over(&self) -> bool {
        let (up, down, linger) = (&self.up, &self.down, self.patience.linger);
        match (up.stage, down.stage) {
            (Stage::Over, Stage::Over) => true,
            // The backend may not have received yet what the client sent before it failed.
            (Stage::Broken, Stage::Moving | Stage::Ending | Stage::Draining) => {
                up.unconfirmed.received_at(linger).is_none()
            }
            (Stage::Broken, Stage::Over | Stage::Broken) => true,
            // Likewise the client. A client that has ended since then wants no more of it.
            (Stage::Over, Stage::Broken) if up.since > down.since => true,
            (_, Stage::Broken) => down.unconfirmed.received_at(linger).is_none(),
            _ => false,
        }
    }

    fn last_heard(&self) -> Instant {
        self.up.heard.max(self.down.heard)
    }

    /// When the pipe is given up although not everything has ended.
    fn deadline(&self) -> Option<Instant> {
        let Patience { linger, tail, idle } = self.patience;
        let (up, down) = (&self.up, &self.down);
        let nothing_moves = self.last_heard().checked_add(idle);
        // The client can neither ask nor take an answer any more.
        let client_failed = self.client_failed.and_then(|failed| failed.checked_add(linger));
        let backend_over = match (up.stage, down.stage) {
            (Stage::Broken, _) => up.unconfirmed.received_at(linger),
            (_, Stage::Broken) => down.unconfirmed.received_at(linger),
            // The backend has ended, and the client's socket has all of it. If that socket were closed on unread bytes
            // of the client, the reset would discard what the client has not received.
            (_, Stage::Over) => {
                let tail = down.since.checked_add(tail);
                let unread = self.outcome.to_client.saturating_sub(self.acknowledged);
                if unread > ALWAYS_RECEIVED { tail } else { up.heard.max(down.since).checked_add(linger).min(tail) }
            }
            // The backend takes nothing more, and what it still sends is its last. A client that does not read may hold
            // that up.
            (Stage::Draining, _) => down.heard.max(up.since).checked_add(tail),
            // A client that has ended first waits for the answer, however long that takes.
            _ => None,
        };
        [nothing_moves, client_failed, backend_over].into_iter().flatten().min()
    }
}

/// Both connections must be closed, because an observer stopped the pipe.
struct Stopped;

impl<H> Direction<H> {
    fn new(hop: H, now: Instant) -> Self {
        Self { hop, stage: Stage::Moving, heard: now, since: now, unconfirmed: Unconfirmed::default() }
    }

    /// Moves as many bytes as it can. `source` and `sink` keep the errors of the source and the sink.
    fn poll<From, To>(
        &mut self,
        (from, to): (&mut From, &mut To),
        (moved, linger): (&mut u64, Duration),
        (source, sink): (&mut Option<io::Error>, &mut Option<io::Error>),
        cx: &mut Context<'_>,
    ) -> Result<(), Stopped>
    where
        H: Hop<From, To>,
    {
        /// Rounds in one poll, before the other direction and other tasks get their turn.
        const ROUNDS: usize = 8;
        for _ in 0..ROUNDS {
            let next = match self.stage {
                Stage::Moving => match self.hop.poll_move(from, to, cx) {
                    Poll::Pending => return Ok(()),
                    // The kernel reports a reset once. If a write has reported it, a read returns 0, which here does
                    // not mean an end. A broken pipe means that the peer had ended before.
                    Poll::Ready(Ok(0))
                        if source.as_ref().is_some_and(|error| error.kind() != io::ErrorKind::BrokenPipe) =>
                    {
                        Stage::Broken
                    }
                    Poll::Ready(Ok(0)) => Stage::Ending,
                    Poll::Ready(Ok(count)) => {
                        *moved = moved.saturating_add(count as u64);
                        self.heard = Instant::now();
                        self.unconfirmed.add(count, self.heard, linger);
                        continue;
                    }
                    Poll::Ready(Err(Fault::Source(error))) => {
                        source.get_or_insert(error);
                        Stage::Broken
                    }
                    Poll::Ready(Err(Fault::Stop)) => return Err(Stopped),
                    Poll::Ready(Err(Fault::Sink(error))) => {
                        sink.get_or_insert(error);
                        Stage::Draining
                    }
                },
                Stage::Ending => match self.hop.poll_end(to, cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(ended) => {
                        ended.err().map(|error| sink.get_or_insert(error));
                        Stage::Over
                    }
                },
                Stage::Draining => match self.hop.poll_discard(from, cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(1..)) => {
                        self.heard = Instant::now();
                        continue;
                    }
                    Poll::Ready(Ok(0)) => Stage::Over,
                    Poll::Ready(Err(error)) => {
                        source.get_or_insert(error);
                        Stage::Over
                    }
                },
                Stage::Broken | Stage::Over => return Ok(()),
            };
            (self.stage, self.since) = (next, Instant::now());
        }
        cx.waker().wake_by_ref();
        Ok(())
    }
}
