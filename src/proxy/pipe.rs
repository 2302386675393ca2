//! Bytes between two connections, both ways, untouched.
//!
//! Owns how the two directions end. It must not look at what it moves, nor know how that is done: a [`Hop`] does.
//!
//! Each direction ends by itself: its end is passed on, and the other goes on. A direction that cannot be written any more is
//! read to its end all the same, because a socket that is closed with bytes unread is reset, and the reset takes with it
//! what the other direction has not delivered yet: the tail of an output, and the status behind it.

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
use super::{LINGER, Operation, Side};
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
    pub(super) linger: Duration,
    carrier: Carrier,
    protocol: String,
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
        Self { client, backend, from_client, from_backend, linger: LINGER, carrier, protocol }
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
            #[cfg(feature = "websocket")]
            (Protocol::Channel(subprotocol), Operation::PortForward) => Some(Protocol::PortChannels(subprotocol)),
            (protocol, operation) => {
                (protocol.is_port_forward() == (operation == Operation::PortForward)).then_some(protocol)
            }
        }
    }

    /// Once the backend has ended, or either cannot be written to any more: how long the client may be silent before both are
    /// closed. Default: [`LINGER`](super::LINGER), 10 s.
    pub fn linger(self, linger: Duration) -> Self {
        Self { linger, ..self }
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
    /// # Cancel safety
    /// Dropped, both connections are closed.
    pub async fn run(mut self) -> Moved {
        let (up, down) = (Copying::new(self.from_client), Copying::new(self.from_backend));
        let mut run = Run::new(up, down, self.linger);
        poll_fn(|cx| run.poll(&mut self.client, &mut self.backend, cx)).await;
        run.moved
    }

    /// As [`run`](Self::run), and shows an observer what passes: each piece before it is passed on, and what came with the heads
    /// first. It is not copied for that.
    ///
    /// # Cancel safety
    /// Dropped, both connections are closed. What the observer was shown may not have been passed on.
    pub async fn run_with<O: Observer>(mut self, observer: &mut O) -> Moved {
        let observer = Mutex::new(observer);
        let up = Watched::new(Side::Client, self.from_client, &observer);
        let down = Watched::new(Side::Server, self.from_backend, &observer);
        let mut run = Run::new(up, down, self.linger);
        poll_fn(|cx| run.poll(&mut self.client, &mut self.backend, cx)).await;
        run.up.end();
        run.down.end();
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

/// How far a direction has come, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Moving {
        last: Instant,
    },
    /// The source has ended, which the sink is to be told.
    Ending,
    /// Nobody takes what comes.
    Draining {
        since: Instant,
    },
    Over {
        since: Instant,
    },
}

/// Both directions of a pipe.
pub(super) struct Run<Up, Down> {
    up: Up,
    down: Down,
    up_stage: Stage,
    down_stage: Stage,
    linger: Duration,
    timer: Pin<Box<Sleep>>,
    trimmed: bool,
    pub(super) moved: Moved,
}

impl<Up, Down> Run<Up, Down> {
    pub(super) fn new(up: Up, down: Down, linger: Duration) -> Self {
        let last = Instant::now();
        Self {
            up,
            down,
            up_stage: Stage::Moving { last },
            down_stage: Stage::Moving { last },
            linger,
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
        let before = (self.moved.to_backend, self.moved.to_client);
        let Moved { to_backend, to_client, client: client_fault, backend: backend_fault, stopped } = &mut self.moved;
        let faults = (&mut *client_fault, &mut *backend_fault);
        let up = poll_direction(&mut self.up, &mut self.up_stage, (client, backend), to_backend, faults, cx);
        let down = up.and_then(|()| {
            let faults = (backend_fault, client_fault);
            poll_direction(&mut self.down, &mut self.down_stage, (backend, client), to_client, faults, cx)
        });
        if down.is_err() {
            *stopped = true;
            return Poll::Ready(());
        }
        if let (Stage::Over { .. }, Stage::Over { .. }) = (self.up_stage, self.down_stage) {
            return Poll::Ready(());
        }
        self.trimmed &= before == (self.moved.to_backend, self.moved.to_client);
        loop {
            let now = Instant::now();
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(());
            }
            let trim = (!self.trimmed).then(|| self.last_move().checked_add(TRIM_AFTER)).flatten();
            if trim.is_some_and(|trim| trim <= now) {
                self.up.trim();
                self.down.trim();
                self.trimmed = true;
                continue;
            }
            let Some(next) = [deadline, trim].into_iter().flatten().min() else { return Poll::Pending };
            // One that fires early is set anew then.
            if next < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// When it is given up, though not all has ended.
    fn deadline(&self) -> Option<Instant> {
        let since = match (self.up_stage, self.down_stage) {
            // The backend has said all. The client may still be sending, and is read so that our close takes nothing back.
            (Stage::Moving { last }, Stage::Over { since }) => last.max(since),
            // What comes is for nobody.
            (Stage::Draining { since }, Stage::Over { since: other } | Stage::Draining { since: other })
            | (Stage::Over { since: other }, Stage::Draining { since }) => since.max(other),
            // A client that ends first waits for an answer, however long that takes.
            _ => return None,
        };
        since.checked_add(self.linger)
    }

    fn last_move(&self) -> Instant {
        let last = |stage| match stage {
            Stage::Moving { last } => Some(last),
            _ => None,
        };
        last(self.up_stage).max(last(self.down_stage)).unwrap_or_else(Instant::now)
    }
}

/// Both connections are to be closed.
struct Stopped;

/// Moves what it can in one direction. `faults`: where the source's go, and the sink's.
fn poll_direction<H, From, To>(
    hop: &mut H,
    stage: &mut Stage,
    (from, to): (&mut From, &mut To),
    moved: &mut u64,
    (source, sink): (&mut Option<io::Error>, &mut Option<io::Error>),
    cx: &mut Context<'_>,
) -> Result<(), Stopped>
where
    H: Hop<From, To>,
{
    /// Rounds in one poll before the other direction, and other tasks, get their turn.
    const ROUNDS: usize = 8;
    for _ in 0..ROUNDS {
        *stage = match *stage {
            Stage::Moving { .. } => match hop.poll_move(from, to, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => Stage::Ending,
                Poll::Ready(Ok(count)) => {
                    *moved = moved.saturating_add(count as u64);
                    Stage::Moving { last: Instant::now() }
                }
                Poll::Ready(Err(Fault::Source(error))) => {
                    source.get_or_insert(error);
                    Stage::Ending
                }
                Poll::Ready(Err(Fault::Stop)) => return Err(Stopped),
                Poll::Ready(Err(Fault::Sink(error))) => {
                    sink.get_or_insert(error);
                    Stage::Draining { since: Instant::now() }
                }
            },
            Stage::Ending => match hop.poll_end(to, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ended) => {
                    ended.err().map(|error| sink.get_or_insert(error));
                    Stage::Over { since: Instant::now() }
                }
            },
            Stage::Draining { since } => match hop.poll_discard(from, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(1..)) => Stage::Draining { since },
                Poll::Ready(Ok(0)) => Stage::Over { since: Instant::now() },
                Poll::Ready(Err(error)) => {
                    source.get_or_insert(error);
                    Stage::Over { since: Instant::now() }
                }
            },
            Stage::Over { .. } => return Ok(()),
        };
    }
    cx.waker().wake_by_ref();
    Ok(())
}
