//! Joins a forwarded connection to a socket.
//!
//! Decides how the end of one side ends the other. When one side ends its direction, the same direction is ended on the
//! other side, and the opposite direction goes on. Everything else is a break: the socket is dropped without a
//! shutdown, and the connection is reset, so that no peer takes the break for an end.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::connection::Connection;
use super::error::Error;
use super::unconfirmed::Unconfirmed;

/// The size of one read of the socket, in bytes, at most.
const PIECE: usize = 32 * 1024;
/// How many pieces one poll moves in a direction, before the other direction and other tasks have their turn.
const ROUNDS: usize = 8;

impl Connection {
    /// Copies bytes between this connection and a socket, or any other IO, until both directions have ended. One
    /// direction can end before the other.
    ///
    /// If one side fails, the other side is not told that it ended. If the connection fails, all bytes that had arrived
    /// are written to the socket, and then the socket is dropped without a shutdown. Use
    /// [`AbortOnDrop`](crate::AbortOnDrop) to make that drop a reset. If the socket fails, the bytes that were read
    /// from it are still sent, as far as the peer accepts them, and then the connection is reset.
    ///
    /// [`Options::linger`](super::Options::linger) limits how long this waits for the socket once the connection has
    /// failed or accepts no more bytes.
    ///
    /// # Errors
    /// If the connection failed, the error that [`data`](Self::data) gives. If only the socket failed,
    /// [`Error::Local`].
    ///
    /// # Cancel safety
    /// If dropped before completion, the connection is reset, and the socket is dropped without a shutdown.
    pub async fn relay<IO>(mut self, io: IO) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.breaks_off = true;
        let mut relay = Relay::new(self, io);
        let broken = match poll_fn(|cx| relay.poll(cx)).await {
            Ok(()) => return Ok(()),
            Err(broken) => broken,
        };
        let Relay { connection, io, .. } = relay;
        // The socket goes first: it must not wait until the connection has taken everything.
        drop(io);
        match broken {
            Broken::Connection(error) => Err(error),
            Broken::Local(error) => {
                let port = connection.port();
                if connection.is_servers() {
                    connection.fail(&format!("the connection to port {port} broke off: {error}")).await;
                }
                Err(Error::Local { port, error })
            }
        }
    }
}

/// The side that broke off.
enum Broken {
    Connection(Error),
    Local(io::Error),
}

/// The state of one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Moving,
    /// The source has ended, and the sink is still to be told.
    Ending,
    Over,
}

struct Relay<IO> {
    connection: Connection,
    io: IO,
    /// From the socket to the connection.
    up: Stage,
    /// From the connection to the socket.
    down: Stage,
    /// Bytes that were read from the socket and that the connection has not taken yet.
    said: BytesMut,
    /// Bytes that were read from the connection and that the socket has not taken yet.
    held: Bytes,
    unflushed: bool,
    /// The socket takes no more bytes. Bytes that it sent can still be read.
    io_deaf: bool,
    /// The error of the write that showed `io_deaf`, unless the socket had ended in good order.
    io_broken: Option<io::Error>,
    /// Why the connection takes no more bytes. Reading tells whether it has failed.
    deaf: Option<Error>,
    /// Why the connection broke off, while the socket may still have to take what came before.
    broken: Option<Error>,
    /// The socket has ended since the connection broke off, and needs no more bytes.
    io_ended: bool,
    unconfirmed: Unconfirmed,
    /// When the socket last took bytes, or when the connection began to take no more.
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Relay<IO> {
    fn new(connection: Connection, io: IO) -> Self {
        Self {
            connection,
            io,
            up: Stage::Moving,
            down: Stage::Moving,
            said: BytesMut::new(),
            held: Bytes::new(),
            unflushed: false,
            io_deaf: false,
            io_broken: None,
            deaf: None,
            broken: None,
            io_ended: false,
            unconfirmed: Unconfirmed::default(),
            since: Instant::now(),
            timer: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.broken.is_none() {
            // If both sides fail, the connection's error is returned.
            if let Poll::Ready(Err(error)) = self.poll_down(cx) {
                self.broken = Some(error);
            }
        }
        if let Poll::Ready(Err(broken)) = self.poll_up(cx) {
            return Poll::Ready(Err(self.broken.take().map_or(broken, Broken::Connection)));
        }
        if self.broken.is_none() && !self.held.is_empty() {
            self.broken = self.gives_up(cx);
        }
        if self.broken.is_some() {
            if !self.io_ended
                && let Some(until) = self.unconfirmed.received_at(self.connection.linger())
            {
                ready!(self.poll_until(until, cx));
            }
            return Poll::Ready(self.broken.take().map_or(Ok(()), |error| Err(Broken::Connection(error))));
        }
        match (self.up, self.down) {
            (Stage::Over, Stage::Over) => Poll::Ready(Ok(())),
            // The socket has sent all and takes nothing more, so the relay is done.
            (Stage::Over, _) if self.io_deaf => Poll::Ready(Ok(())),
            // The socket still sends, but the connection takes nothing. If the socket were dropped now, its reset could
            // destroy bytes that its peer has yet to read.
            (_, Stage::Over) if self.deaf.is_some() => self.poll_past(cx).map(Ok),
            // The connection takes no more bytes and the socket takes none either: it does not wait for ever.
            _ if self.deaf.is_some() && !self.held.is_empty() => {
                ready!(self.poll_past(cx));
                Poll::Ready(self.deaf.take().map_or(Ok(()), |error| Err(Broken::Connection(error))))
            }
            _ => Poll::Pending,
        }
    }

    /// Moves bytes from the connection to the socket.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..ROUNDS {
            if self.io_deaf {
                self.held.clear();
            } else if !self.held.is_empty() {
                match ready!(poll_write_buf(Pin::new(&mut self.io), cx, &mut self.held)) {
                    Ok(0) => self.io_failed(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        self.unflushed = true;
                        self.since = Instant::now();
                        self.unconfirmed.add(count, self.since, self.connection.linger());
                    }
                    Err(error) => self.io_failed(error),
                }
                continue;
            }
            match self.down {
                Stage::Over => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    if !self.io_deaf {
                        // A socket that cannot be shut down is gone. Reading tells how.
                        self.io_deaf = ready!(Pin::new(&mut self.io).poll_shutdown(cx)).is_err();
                    }
                    self.down = Stage::Over;
                    self.since = Instant::now();
                }
                Stage::Moving => match self.connection.poll_data(cx) {
                    Poll::Pending => {
                        ready!(self.poll_flushed(cx));
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(Ok(data))) => self.held = data,
                    Poll::Ready(None) => self.down = Stage::Ending,
                    Poll::Ready(Some(Err(error))) => {
                        ready!(self.poll_flushed(cx));
                        return Poll::Ready(Err(error));
                    }
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves bytes from the socket to the connection.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let broken = |error| Poll::Ready(Err(Broken::Local(error)));
        for _ in 0..ROUNDS {
            if self.up == Stage::Over {
                return Poll::Ready(Ok(()));
            }
            if self.deaf.is_some() || self.broken.is_some() {
                self.said.clear();
            } else if !self.said.is_empty() {
                match self.connection.poll_copy(&self.said, cx) {
                    Poll::Ready(Ok(count)) => self.said.advance(count.min(self.said.len())),
                    // If the connection does not take the bytes now, it is broken off without them.
                    Poll::Pending => return self.io_broken.take().map_or(Poll::Pending, broken),
                    Poll::Ready(Err(error)) => {
                        self.deaf = Some(error);
                        self.since = Instant::now();
                    }
                }
                continue;
            }
            self.said.reserve(PIECE);
            match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.said) {
                Poll::Pending => {
                    // An idle connection holds no buffer.
                    self.said = BytesMut::new();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => {
                    if let Some(error) = self.io_broken.take() {
                        return broken(error);
                    }
                    match (&self.broken, &self.deaf) {
                        (Some(_), _) => self.io_ended = true,
                        (None, None) => self.connection.finish(),
                        (None, Some(_)) => {}
                    }
                    self.up = Stage::Over;
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return broken(error),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Flushes the socket once there is nothing more to write for now: a TLS session may hold bytes back.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unflushed && !self.io_deaf {
            if let Err(error) = ready!(Pin::new(&mut self.io).poll_flush(cx)) {
                self.io_failed(error);
            }
            self.unflushed = false;
        }
        Poll::Ready(())
    }

    /// Notes that the socket cannot be written to. A broken pipe means that the socket had ended before, in good order.
    /// Another error is kept: the system may report it only once, and a later read would then show an end.
    fn io_failed(&mut self, error: io::Error) {
        self.io_deaf = true;
        self.io_broken = Some(error).filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
    }

    /// Whether the connection was given up while the socket does not take its bytes.
    fn gives_up(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        match self.connection.poll_given_up(cx) {
            Poll::Ready(error) => {
                self.held.clear();
                Some(error)
            }
            Poll::Pending => None,
        }
    }

    /// Ready once [`Options::linger`](super::Options::linger) has passed.
    fn poll_past(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.since.checked_add(self.connection.linger()) {
            Some(until) => self.poll_until(until, cx),
            None => Poll::Pending,
        }
    }

    fn poll_until(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}
