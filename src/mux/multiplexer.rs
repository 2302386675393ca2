//! The handle of a connection.
//!
//! This file owns what a user can ask of a connection as a whole. What one stream can be asked is in [`stream`](super::stream).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::driver::Driver;
use super::incoming::Incoming;
use super::shared::{Line, Ping, Shared, State, park};
use super::stream::{Stream, StreamRef};
use crate::carrier::Carrier;
use crate::protocol::Protocol;
use crate::session::{Config, Connection, ConnectionError, Given, Role};
use crate::upgrade::Upgraded;
use crate::wire::spdy::{Headers, StreamId};

/// A handle of a connection: opens and accepts streams. Clones are handles of the same connection.
///
/// When the last handle is gone, streams included, the connection ends in good order: what is queued goes out, then
/// GOAWAY, in whose place WebSocket has a Close.
#[derive(Debug)]
pub struct Multiplexer {
    shared: Arc<Shared>,
    protocol: Option<Protocol>,
    ports: Option<Arc<[u16]>>,
}

impl Multiplexer {
    /// The connecting end: opens odd streams.
    pub fn client<IO>(io: Upgraded<IO>, config: Config) -> (Self, Driver<IO>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        Self::new(Role::Client, io, config)
    }

    /// The accepting end: opens even streams, and over SPDY says nothing before the client's first frame.
    pub fn server<IO>(io: Upgraded<IO>, config: Config) -> (Self, Driver<IO>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        Self::new(Role::Server, io, config)
    }

    fn new<IO>(role: Role, io: Upgraded<IO>, config: Config) -> (Self, Driver<IO>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let ports = io.shared_ports();
        let (io, read_ahead, protocol) = io.into_parts();
        let carrier = Carrier::new(role, protocol, ports.as_deref().unwrap_or_default(), &config);
        let mut config = carrier.fit(config);
        if protocol.is_some_and(|protocol| protocol.version().is_some()) {
            // Parts of one whole, of which half would look like all.
            config.stream_stall_timeout = None;
        }
        let now = tokio::time::Instant::now().into_std();
        let mut connection = Connection::new(role, config.clone(), now);
        // Before a byte is read: what comes first may be the end.
        let given = carrier.given().map(|streams| {
            let give = |given: Given| (given.headers.clone(), connection.give(given));
            let streams: Vec<_> = streams.into_iter().map(give).collect();
            // A server accepts them.
            if role == Role::Client { streams } else { Vec::new() }
        });
        match carrier.last_word() {
            Some((stream, true)) => connection.hush_after_all(stream),
            Some((stream, false)) => connection.hush_after(stream, false),
            None => {}
        }
        let shared = Shared::new(connection, given, carrier.half_closes());
        shared.handle_added();
        let driver = Driver::new(io, &read_ahead, carrier, Arc::clone(&shared), &config);
        (Self { shared, protocol, ports }, driver)
    }

    /// The protocol that was negotiated, if one was.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// The ports that the request asked for, in its order, where the protocol is `Protocol::PortChannels`; else none.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        self.ports.as_deref().unwrap_or_default()
    }

    /// Opens a stream. Its SYN_STREAM leaves at once and the answer is not waited for, so several opens take no more
    /// round trips than one, and bytes may be sent right behind. [`Stream::answered`] waits for the answer.
    ///
    /// Waits where the peer's MAX_CONCURRENT_STREAMS is reached. Over WebSocket there are the five streams of a session
    /// and no others: the header `streamtype` says which of them this takes. In the old form of port-forward there are two for
    /// each port, and `port` and `requestid`, which is the place of the port among them, say it too.
    ///
    /// # Errors
    /// [`ConnectionError::NoChannel`] over WebSocket for a stream that is none of these, or was taken before.
    /// [`ConnectionError::GoneAway`] after the peer's GOAWAY, [`ConnectionError::InvalidHeader`] for headers that cannot be
    /// sent, or what the connection ended with.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has opened nothing.
    pub async fn open(&self, headers: Headers) -> Result<Stream, ConnectionError> {
        let opened = self.shared.wait(Line::Open, |state| match state.open(&headers) {
            Ok(Some(id)) => {
                state.add_handle();
                Poll::Ready(Ok(id))
            }
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        });
        opened.await.map(|id| Stream::new(StreamRef::new(&self.shared, id)))
    }

    /// Waits for the next stream that the peer opens. `None`: the connection has ended in good order.
    ///
    /// # Errors
    /// What the connection failed with.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has accepted nothing, and the next call gets the stream.
    pub async fn accept(&self) -> Option<Result<Incoming, ConnectionError>> {
        let (id, headers) = match self.shared.wait(Line::Accept, State::poll_accept).await {
            Ok(accepted) => accepted,
            Err(error) if error.is_farewell() => return None,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(Incoming::new(StreamRef::new(&self.shared, id), headers)))
    }

    /// Sends a PING and waits for its echo: the round trip.
    ///
    /// A Go peer sends the echo behind what it has queued, and not at all while it is held up by a stream nobody reads.
    ///
    /// # Errors
    /// What the connection ended with.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it forgets the echo.
    pub async fn ping(&self) -> Result<Duration, ConnectionError> {
        let sent = Instant::now();
        let id = self.shared.with(|state| {
            let id = state.connection.ping()?;
            state.pings.insert(id, Ping { sent, took: None, waker: None });
            Ok::<u32, ConnectionError>(id)
        })?;
        let forget = ForgetPing { shared: &self.shared, id };
        let took = poll_fn(|cx| {
            self.shared.with(|state| {
                let error = state.connection.error().cloned();
                match (state.pings.get_mut(&id), error) {
                    (Some(Ping { took: Some(took), .. }), _) => Poll::Ready(Ok(*took)),
                    (_, Some(error)) => Poll::Ready(Err(error)),
                    (None, None) => Poll::Ready(Err(ConnectionError::Closed)),
                    (Some(ping), None) => {
                        park(&mut ping.waker, cx);
                        Poll::Pending
                    }
                }
            })
        })
        .await;
        drop(forget);
        took
    }

    /// Ends the connection in good order: no new streams, all that is queued goes out, then GOAWAY, then the write side is
    /// shut down and the peer's end is waited for, until the peer was silent for [`Config::linger`]. Waits until the
    /// driver has done all that. Streams still held fail with [`ConnectionError::Closed`] once their bytes are read.
    ///
    /// # Errors
    /// What the connection failed with.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits; the connection ends all the same.
    pub async fn shutdown(&self) -> Result<(), ConnectionError> {
        self.go_away();
        self.closed().await
    }

    /// Waits until the connection has ended and its driver is done.
    ///
    /// # Errors
    /// What the connection failed with.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits.
    pub async fn closed(&self) -> Result<(), ConnectionError> {
        self.shared.wait(Line::End, |state| state.poll_outcome()).await
    }

    /// Whether streams can still be opened: it has not ended, and neither end has said that it goes.
    #[must_use]
    pub fn takes_streams(&self) -> bool {
        self.shared.look(|state| {
            let connection = &state.connection;
            !(connection.is_closed() || connection.is_closing() || connection.is_going_away() || connection.is_silent())
        })
    }

    /// What the connection ended with, if it has.
    #[must_use]
    pub fn error(&self) -> Option<ConnectionError> {
        self.shared.look(|state| state.connection.error().cloned())
    }

    /// What the connection holds and has carried.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.look(|state| Stats {
            streams: state.connection.stream_count(),
            unread: state.connection.unread(),
            stalled_by: state.connection.stalled_by().map(StreamId::get),
            received: state.traffic.received,
            sent: state.traffic.sent,
        })
    }

    pub(crate) fn hush_after(&self, stream: StreamId, despite_reset: bool) {
        self.shared.with(|state| state.connection.hush_after(stream, despite_reset));
    }

    pub(crate) fn refuse_streams(&self) {
        self.shared.with(|state| state.refuse_streams());
    }

    /// The end that comes is not what was promised, unless [`keep_promise`](Self::keep_promise) says otherwise.
    pub(crate) fn abandon(&self) {
        self.shared.with(|state| state.connection.abandon());
    }

    /// All was done that a peer could wait for.
    pub(crate) fn keep_promise(&self) {
        self.shared.with(|state| state.connection.keep_promise());
    }

    /// How long a stream that nobody reads may hold up others, where nothing else is configured.
    pub(crate) fn give_up_stalled(&self, after: Option<Duration>) {
        self.shared.with(|state| state.connection.give_up_stalled(after));
    }

    /// Nobody will ask for the streams that a client was given and has not taken.
    pub(crate) fn release_given(&self) {
        self.shared.with(|state| state.release_given());
    }

    /// Waits until the connection has ended or failed. Its driver may still have to write what is queued:
    /// [`closed`](Self::closed) waits for that too.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits.
    pub async fn gone(&self) {
        self.shared.wait(Line::End, |state| state.poll_gone()).await;
    }

    /// Sends a PING, even once the peer has said its last word where no frame was cut short by that.
    pub(crate) fn ask(&self) {
        self.shared.with(|state| state.connection.ask());
    }

    /// Whether the peer has ended the connection itself, in good order: by GOAWAY with status OK, or by Close.
    #[must_use]
    pub fn peer_said_goodbye(&self) -> bool {
        self.shared.look(|state| state.connection.peer_said_goodbye())
    }

    /// [`Config::linger`].
    pub(crate) fn linger(&self) -> Duration {
        self.shared.look(|state| state.connection.linger())
    }

    /// How many bytes have come, while they are read.
    pub(crate) fn heard(&self) -> Option<u64> {
        self.shared.look(|state| state.connection.wants_read().then_some(state.traffic.received))
    }

    /// [`shutdown`](Self::shutdown), not waited for.
    pub(crate) fn go_away(&self) {
        self.shared.with(|state| state.connection.go_away());
        self.shared.wake_driver();
    }
}

impl Clone for Multiplexer {
    fn clone(&self) -> Self {
        self.shared.handle_added();
        Self { shared: Arc::clone(&self.shared), protocol: self.protocol, ports: self.ports.clone() }
    }
}

impl Drop for Multiplexer {
    fn drop(&mut self) {
        self.shared.handle_dropped();
    }
}

struct ForgetPing<'a> {
    shared: &'a Shared,
    id: u32,
}

impl Drop for ForgetPing<'_> {
    fn drop(&mut self) {
        self.shared.with(|state| state.pings.remove(&self.id));
    }
}

/// A snapshot of a connection.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Streams that are open or held.
    pub streams: usize,
    /// Bytes that came and that nobody has read yet, each piece counted as 256 at least.
    pub unread: usize,
    /// The stream with the most unread bytes, while those keep the whole connection from being read: its id. Over WebSocket,
    /// where streams have none, 1 is the error stream, 3 stdin, 5 stdout, 7 stderr and 9 the terminal's size; in the old form of
    /// port-forward it is twice the channel and one more.
    pub stalled_by: Option<u32>,
    /// Bytes read from the IO.
    pub received: u64,
    /// Bytes written to the IO.
    pub sent: u64,
}
