//! A forwarded connection joined to a socket.
//!
//! Owns how either ends for the other. An end is an end: of one direction, and the other goes on. Whatever else it was that a direction stopped
//! with, nobody may take it for one: the socket is dropped without having been shut down, and the connection is reset.

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
use super::given::Given;

/// What one read of the socket takes.
const PIECE: usize = 32 * 1024;
/// Pieces in one poll of a direction before the other, and other tasks, get their turn.
const ROUNDS: usize = 8;

impl Connection {
    /// Moves bytes between this connection and a socket, or any other IO, until both directions have ended, each in its time.
    ///
    /// What breaks off on one side breaks off on the other. The socket is shut down for an end alone: for a break it is dropped, which
    /// [`AbortOnDrop`](crate::AbortOnDrop) makes a reset of, behind all that had come. The connection is reset behind what the socket had said, as
    /// far as a client takes it or a server's window has room for it.
    ///
    /// Of more than 64 KiB that it was given of late a socket may have yet to take some when the connection breaks off:
    /// [`Options::linger`](super::Options::linger) is its time. So it is for a socket that still sends when the other side has ended and reads no more.
    ///
    /// # Errors
    /// What the connection failed with, as reading it gives, or [`Error::Local`] with what the socket did.
    ///
    /// # Cancel safety
    /// Dropped, both break off.
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
        // It goes first: whoever takes nothing more of the connection's must not hold it up.
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

/// What broke off.
enum Broken {
    Connection(Error),
    Local(io::Error),
}

/// How far a direction has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Moving,
    /// The source has ended, which the sink is to be told.
    Ending,
    Over,
}

struct Relay<IO> {
    connection: Connection,
    io: IO,
    /// From the socket.
    up: Stage,
    /// To the socket.
    down: Stage,
    /// What was read of the socket, and not taken yet.
    said: BytesMut,
    /// What came for the socket, and it has not taken yet.
    held: Bytes,
    unflushed: bool,
    /// The socket takes no more: what it said before that is still to be read.
    io_deaf: bool,
    /// What it failed with then, if it had not ended.
    io_broken: Option<io::Error>,
    /// Why the connection takes no more. If something is wrong with it, reading tells.
    deaf: Option<Error>,
    /// The connection broke off, and the socket may have yet to take what came before.
    broken: Option<Error>,
    /// It has ended since, and wants no more of it.
    io_ended: bool,
    given: Given,
    /// When the socket took some last, or the connection was found to take no more.
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
            given: Given::default(),
            since: Instant::now(),
            timer: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.broken.is_none() {
            // The connection's word on what is wrong goes before the socket's.
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
                && let Some(until) = self.given.taken_at(self.connection.linger())
            {
                ready!(self.poll_until(until, cx));
            }
            return Poll::Ready(self.broken.take().map_or(Ok(()), |error| Err(Broken::Connection(error))));
        }
        match (self.up, self.down) {
            (Stage::Over, Stage::Over) => Poll::Ready(Ok(())),
            // It has said all and takes nothing: the other side hears so.
            (Stage::Over, _) if self.io_deaf => Poll::Ready(Ok(())),
            // A close now would take back what the socket has yet to read: it is reset for what it still sends.
            (_, Stage::Over) if self.deaf.is_some() => self.poll_past(cx).map(Ok),
            // Nor may it send to nobody for ever, while it takes nothing itself.
            _ if self.deaf.is_some() && !self.held.is_empty() => {
                ready!(self.poll_past(cx));
                Poll::Ready(self.deaf.take().map_or(Ok(()), |error| Err(Broken::Connection(error))))
            }
            _ => Poll::Pending,
        }
    }

    /// From the connection to the socket.
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
                        self.given.more(count, self.since, self.connection.linger());
                    }
                    Err(error) => self.io_failed(error),
                }
                continue;
            }
            match self.down {
                Stage::Over => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    if !self.io_deaf {
                        // One that takes no end is gone. How, reading tells.
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

    /// From the socket to the connection.
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
                    // Who does not take it hears at least of the break.
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
                    // One that is idle holds no buffer.
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

    /// Nothing more for now: what a TLS session holds back goes out.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unflushed && !self.io_deaf {
            if let Err(error) = ready!(Pin::new(&mut self.io).poll_flush(cx)) {
                self.io_failed(error);
            }
            self.unflushed = false;
        }
        Poll::Ready(())
    }

    /// The socket cannot be written to. A broken pipe is one that had ended before, in good order; any other failure may have been told here
    /// and be told no more, so that reading would show an end.
    fn io_failed(&mut self, error: io::Error) {
        self.io_deaf = true;
        self.io_broken = Some(error).filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
    }

    /// While the socket takes nothing: whether what it is held for is nobody's any more.
    fn gives_up(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        match self.connection.poll_given_up(cx) {
            Poll::Ready(error) => {
                self.held.clear();
                Some(error)
            }
            Poll::Pending => None,
        }
    }

    /// Ready once the socket has had its time.
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
