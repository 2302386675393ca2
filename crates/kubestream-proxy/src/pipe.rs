//! Bytes between two connections, both ways, untouched.
//!
//! Owns how the two directions end. It must not look at what it moves, nor know how that is done: a [`Hop`] does.
//!
//! Each direction ends by itself: its end is passed on, and the other goes on. A direction that cannot be written any more is
//! read to its end all the same, because a socket that is closed with bytes unread is reset, and the reset takes with it
//! what the other direction has not delivered yet: the tail of an output, and the status behind it.
//!
//! Where a side breaks off, the other is told no end: it has its time to take what came before, and is dropped.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::copy::Copying;
use super::watch::{Observer, Watched};
use super::{IDLE_TIMEOUT, LINGER, Operation, Side, TAIL_TIMEOUT};
use crate::config::SURELY_TAKEN;
use crate::given::Given;
use crate::upgrade::{Carrier, Protocol, Version};

/// How long a direction is silent before it gives its buffer back.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// A client and a backend that have agreed on a protocol, and what each has said already.
#[must_use]
pub struct Pipe<C, B> {
    pub(super) client: C,
    pub(super) backend: B,
    pub(super) from_client: Bytes,
    pub(super) from_backend: Bytes,
    pub(super) patience: Patience,
    carrier: Carrier,
    protocol: String,
}

/// How long a pipe waits for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    linger: Duration,
    tail: Duration,
    idle: Duration,
}

/// What was moved, and what failed of it.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Moved {
    /// Bytes from the client to the backend.
    pub to_backend: u64,
    /// Bytes from the backend to the client.
    pub to_client: u64,
    /// What the client's connection failed with first, if it did. Clients that simply go away are many.
    pub client: Option<io::Error>,
    /// What the backend's failed with first, if it did.
    pub backend: Option<io::Error>,
    /// Whether an [`Observer`] has stopped it.
    pub stopped: bool,
}

impl<C, B> Pipe<C, B> {
    pub(super) fn new(client: (C, Bytes), backend: (B, Bytes), carrier: Carrier, protocol: String) -> Self {
        let ((client, from_client), (backend, from_backend)) = (client, backend);
        let patience = Patience { linger: LINGER, tail: TAIL_TIMEOUT, idle: IDLE_TIMEOUT };
        Self { client, backend, from_client, from_backend, patience, carrier, protocol }
    }

    /// What both have switched to.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// The protocol that the backend has chosen, as it is called on the wire; empty where it named none.
    #[must_use]
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The protocol itself, which takes the request's path to know: exec and the old form of port-forward have the same names over
    /// WebSocket. `None`: it is none of this crate's.
    #[must_use]
    pub fn settled(&self, operation: Operation) -> Option<Protocol> {
        let known = match (self.carrier, &self.protocol[..], operation) {
            // Whoever names none over SPDY means the oldest.
            (Carrier::Spdy, "", Operation::Exec | Operation::Attach) => Some(Protocol::Exec(Version::V1)),
            (Carrier::Spdy, "", Operation::PortForward) => Some(Protocol::PortForward),
            (carrier, name, _) => Protocol::from_name(carrier, name),
        };
        match (known?, operation) {
            (Protocol::Channel(subprotocol), Operation::PortForward) => Some(Protocol::PortChannels(subprotocol)),
            (protocol, operation) => {
                (protocol.is_port_forward() == (operation == Operation::PortForward)).then_some(protocol)
            }
        }
    }

    /// Once the backend has ended and the client has been given all of it, how long the client may be silent before both are
    /// closed; and once either's connection has failed, how long the other has to take what came before. A client that has been given
    /// more than 64 KiB since it was last heard of may still be reading it: [`tail_timeout`](Self::tail_timeout) is its time.
    /// Default: [`LINGER`](super::LINGER), 10 s.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.patience.linger = linger;
        self
    }

    /// Once the backend has ended, how long a client may take for what is left of it, whether it talks meanwhile or not: kubectl's
    /// PINGs do not say that it has read anything. Default: [`TAIL_TIMEOUT`](super::TAIL_TIMEOUT), 5 min.
    pub fn tail_timeout(mut self, timeout: Duration) -> Self {
        self.patience.tail = timeout;
        self
    }

    /// How long nothing may move, either way, before both are closed. Default: [`IDLE_TIMEOUT`](super::IDLE_TIMEOUT), 4 h, as Go's
    /// streaming servers.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.patience.idle = timeout;
        self
    }
}

impl<C, B> Pipe<C, B>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    /// Moves bytes until both directions have ended, through two buffers of up to 64 KiB, which are given back while nothing
    /// moves.
    ///
    /// A side that was reset, or lost in any other way, has not ended, and the other is not told that it has: it is dropped without being
    /// shut down. [`AbortOnDrop`](crate::AbortOnDrop) makes a reset of that, and says what other IOs make of it. Of more than 64 KiB that it was
    /// given of late the other may have yet to take some, which a reset would take back: it has the [`linger`](Self::linger) for that.
    ///
    /// # Cancel safety
    /// Dropped, both connections are dropped, which is no end either.
    pub async fn run(mut self) -> Moved {
        let (up, down) = (Copying::new(self.from_client), Copying::new(self.from_backend));
        let mut run = Run::new(up, down, self.patience);
        poll_fn(|cx| run.poll(&mut self.client, &mut self.backend, cx)).await;
        run.moved
    }

    /// As [`run`](Self::run), and shows an observer what passes: each piece before it is passed on, and what came with the heads
    /// first. It is not copied for that.
    ///
    /// # Cancel safety
    /// Dropped, both connections are dropped. What the observer was shown may not have been passed on, and of a side that had not
    /// ended no end is said.
    pub async fn run_with<O: Observer>(mut self, observer: &mut O) -> Moved {
        let observer = Mutex::new(observer);
        let up = Watched::new(Side::Client, self.from_client, &observer);
        let down = Watched::new(Side::Server, self.from_backend, &observer);
        let mut run = Run::new(up, down, self.patience);
        poll_fn(|cx| run.poll(&mut self.client, &mut self.backend, cx)).await;
        run.up.hop.end();
        run.down.hop.end();
        run.moved
    }
}

impl<C, B> fmt::Debug for Pipe<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe")
            .field("carrier", &self.carrier)
            .field("protocol", &self.protocol)
            .field("from_client", &self.from_client.len())
            .field("from_backend", &self.from_backend.len())
            .finish_non_exhaustive()
    }
}

/// One way of moving bytes in one direction.
pub(super) trait Hop<From, To> {
    /// Moves some bytes: how many. 0: the source has ended, and all that it said is moved.
    fn poll_move(&mut self, from: &mut From, to: &mut To, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>>;

    /// Reads some bytes for nobody: how many, 0 at the end.
    fn poll_discard(&mut self, from: &mut From, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// Tells the sink that nothing more comes.
    fn poll_end(&mut self, to: &mut To, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Gives back what comes again by itself when it is needed.
    fn trim(&mut self);
}

/// Which end of a direction failed.
#[derive(Debug)]
pub(super) enum Fault {
    Source(io::Error),
    Sink(io::Error),
    /// Neither: an observer wants no more of it.
    Stop,
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Moving,
    /// The source has ended, which the sink is to be told.
    Ending,
    /// The source has broken off, which the sink must not take for an end.
    Broken,
    /// Nobody takes what comes.
    Draining,
    Over,
}

/// One direction.
struct Direction<H> {
    hop: H,
    stage: Stage,
    /// When bytes came last, for somebody or for nobody.
    heard: Instant,
    /// When the stage changed last.
    since: Instant,
    /// What the sink may have yet to take.
    given: Given,
}

/// Both directions of a pipe.
pub(super) struct Run<Up, Down> {
    up: Direction<Up>,
    down: Direction<Down>,
    /// When the client's connection failed, if it did.
    client_failed: Option<Instant>,
    /// Bytes that the client had been given when it was last heard of.
    acknowledged: u64,
    patience: Patience,
    timer: Pin<Box<Sleep>>,
    trimmed: bool,
    pub(super) moved: Moved,
}

impl<Up, Down> Run<Up, Down> {
    pub(super) fn new(up: Up, down: Down, patience: Patience) -> Self {
        let now = Instant::now();
        Self {
            up: Direction::new(up, now),
            down: Direction::new(down, now),
            client_failed: None,
            acknowledged: 0,
            patience,
            timer: Box::pin(tokio::time::sleep(TRIM_AFTER)),
            trimmed: false,
            moved: Moved::default(),
        }
    }

    pub(super) fn poll<C, B>(&mut self, client: &mut C, backend: &mut B, cx: &mut Context<'_>) -> Poll<()>
    where
        Up: Hop<C, B>,
        Down: Hop<B, C>,
    {
        let before = self.last_heard();
        let heard = self.up.heard;
        let linger = self.patience.linger;
        let Moved { to_backend, to_client, client: client_fault, backend: backend_fault, stopped } = &mut self.moved;
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
        if self.moved.client.is_some() {
            self.client_failed.get_or_insert(now);
        }
        let deadline = self.deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(());
        }
        self.trimmed &= before == self.last_heard();
        let trim = self.last_heard().checked_add(TRIM_AFTER);
        if self.trimmed || trim.is_some_and(|trim| trim <= now) {
            // Each time: a poll that moved nothing has made room for what did not come.
            self.up.hop.trim();
            self.down.hop.trim();
            self.trimmed = true;
        }
        let next = [deadline, trim.filter(|_| !self.trimmed)].into_iter().flatten().min();
        let Some(next) = next else { return Poll::Pending };
        // One that fires early is set anew then.
        if next < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(next);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Whether nobody is waited for any more.
    fn is_over(&self) -> bool {
        let (up, down, linger) = (&self.up, &self.down, self.patience.linger);
        match (up.stage, down.stage) {
            (Stage::Over, Stage::Over) => true,
            // A backend that is still there may have yet to take what the client has said.
            (Stage::Broken, Stage::Moving | Stage::Ending | Stage::Draining) => up.given.taken_at(linger).is_none(),
            (Stage::Broken, Stage::Over | Stage::Broken) => true,
            // And a client what the backend has. One that ends now wants no more of it.
            (Stage::Over, Stage::Broken) if up.since > down.since => true,
            (_, Stage::Broken) => down.given.taken_at(linger).is_none(),
            _ => false,
        }
    }

    fn last_heard(&self) -> Instant {
        self.up.heard.max(self.down.heard)
    }

    /// When it is given up, though not all has ended.
    fn deadline(&self) -> Option<Instant> {
        let Patience { linger, tail, idle } = self.patience;
        let (up, down) = (&self.up, &self.down);
        let nothing_moves = self.last_heard().checked_add(idle);
        // Nobody takes an answer any more, nor asks for one.
        let client_failed = self.client_failed.and_then(|failed| failed.checked_add(linger));
        let backend_over = match (up.stage, down.stage) {
            (Stage::Broken, _) => up.given.taken_at(linger),
            (_, Stage::Broken) => down.given.taken_at(linger),
            // The backend has said all, and the kernel has it: a close with the client's bytes unread would take it back.
            (_, Stage::Over) => {
                let tail = down.since.checked_add(tail);
                let untaken = self.moved.to_client.saturating_sub(self.acknowledged);
                if untaken > SURELY_TAKEN { tail } else { up.heard.max(down.since).checked_add(linger).min(tail) }
            }
            // It takes nothing more, and what it still says is its last: a client that does not read may hold that up.
            (Stage::Draining, _) => down.heard.max(up.since).checked_add(tail),
            // A client that ends first waits for an answer, however long that takes.
            _ => None,
        };
        [nothing_moves, client_failed, backend_over].into_iter().flatten().min()
    }
}

/// Both connections are to be closed.
struct Stopped;

impl<H> Direction<H> {
    fn new(hop: H, now: Instant) -> Self {
        Self { hop, stage: Stage::Moving, heard: now, since: now, given: Given::default() }
    }

    /// Moves what it can. `source`, `sink`: where the faults of either go.
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
        /// Rounds in one poll before the other direction, and other tasks, get their turn.
        const ROUNDS: usize = 8;
        for _ in 0..ROUNDS {
            let next = match self.stage {
                Stage::Moving => match self.hop.poll_move(from, to, cx) {
                    Poll::Pending => return Ok(()),
                    // A reset that a write has heard of is told but once: reading shows an end then. A broken pipe is one that had ended.
                    Poll::Ready(Ok(0))
                        if source.as_ref().is_some_and(|error| error.kind() != io::ErrorKind::BrokenPipe) =>
                    {
                        Stage::Broken
                    }
                    Poll::Ready(Ok(0)) => Stage::Ending,
                    Poll::Ready(Ok(count)) => {
                        *moved = moved.saturating_add(count as u64);
                        self.heard = Instant::now();
                        self.given.more(count, self.heard, linger);
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
