//! The handle of a connection.
//!
//! This file owns the operations on a connection as a whole. The operations on one stream are in
//! [`stream`](super::stream).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::driver::Driver;
use super::incoming::Incoming;
use super::shared::{Line, Ping, Shared, State, park};
use super::stream::Stream;
use super::stream_ref::StreamRef;
use crate::carrier::Carrier;
use crate::protocol::Protocol;
use crate::session::{Config, Connection, ConnectionError, Given, Role};
use crate::upgrade::Upgraded;
use crate::wire::spdy::{Headers, StreamId};

/// A handle of a connection, which opens and accepts streams. Clones are handles of the same connection.
///
/// Streams are handles too. When the last handle is dropped, the connection ends in good order: everything queued is
/// sent, and then GOAWAY, or a Close over WebSocket.
#[derive(Debug)]
pub struct Multiplexer {
    shared: Arc<Shared>,
    protocol: Option<Protocol>,
    ports: Option<Arc<[u16]>>,
}

impl Multiplexer {
    /// Creates a handle and a driver for the client: the end that sent the upgrade request. It opens streams with odd
    /// ids. Spawn the driver, or poll it.
    pub fn client<IO>(io: Upgraded<IO>, config: Config) -> (Self, Driver<IO>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        Self::new(Role::Client, io, config)
    }

    /// Creates a handle and a driver for the server: the end that answered the upgrade request. It opens streams with
    /// even ids. Over SPDY it sends nothing before the client's first frame. Spawn the driver, or poll it.
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
            // Without one of its streams a session would look complete.
            config.stream_stall_timeout = None;
        }
        let now = tokio::time::Instant::now().into_std();
        let mut connection = Connection::new(role, config.clone(), now);
        // The streams have to exist before a byte is read: the first message may already end the session.
        let given = carrier.given().map(|streams| {
            let give = |given: Given| (given.headers.clone(), connection.give(given));
            let streams: Vec<_> = streams.into_iter().map(give).collect();
            // A server gets its streams from `accept`.
            if role == Role::Client { streams } else { Vec::new() }
        });
        match carrier.last_word() {
            Some((stream, true)) => connection.stop_sending_after_all(stream),
            Some((stream, false)) => connection.stop_sending_after(stream, false),
            None => {}
        }
        let shared = Shared::new(connection, given, carrier.half_closes());
        shared.handle_added();
        let driver = Driver::new(io, &read_ahead, carrier, Arc::clone(&shared), &config);
        (Self { shared, protocol, ports }, driver)
    }

    /// The protocol that was negotiated. `None` for raw SPDY.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// The ports that the request asked for, in the request's order, if the protocol is
    /// [`Protocol::LegacyPortForward`]. Empty for other protocols.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        self.ports.as_deref().unwrap_or_default()
    }

    /// Opens a stream: queues its SYN_STREAM, and does not wait for the answer. So you may write at once, and to open
    /// several streams takes no more round trips than to open one. [`Stream::answered`] waits for the answer.
    ///
    /// If as many streams are open as the peer's MAX_CONCURRENT_STREAMS allows, this waits until a stream ends.
    ///
    /// Over WebSocket channels all streams exist from the start, and each can be taken once. On a client, this takes
    /// the one that the headers select, and sends nothing. In exec and attach there are five streams: `streamtype`
    /// selects one. In legacy port-forward there are two streams for each port of the request: `streamtype`, `port` and
    /// `requestid` select one, where `requestid` is the index of the port in the request, from 0.
    ///
    /// # Errors
    /// [`ConnectionError::NoChannel`] over WebSocket channels, if no such stream exists or the stream was taken before.
    /// [`ConnectionError::InvalidHeader`] for headers that cannot be sent. [`ConnectionError::IdsExhausted`] after 2^30
    /// streams. [`ConnectionError::GoneAway`] after the peer's GOAWAY, [`ConnectionError::Closed`] once this end has
    /// begun to end the connection, or the error that the connection ended with.
    ///
    /// # Cancel safety
    /// If dropped before completion, no stream was opened.
    pub async fn open(&self, headers: Headers) -> Result<Stream, ConnectionError> {
        let mut headers = headers;
        let opened = self.shared.wait(Line::Open, |state| match state.open(&mut headers) {
            Ok(Some(id)) => {
                state.add_handle();
                Poll::Ready(Ok(id))
            }
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        });
        opened.await.map(|id| Stream::new(StreamRef::new(&self.shared, id)))
    }

    /// Waits for the next stream that the peer opens. Returns `None` if the connection has ended in good order. Over
    /// WebSocket channels, a server gets all streams from this, and a client gets none.
    ///
    /// # Errors
    /// The error that the connection failed with.
    ///
    /// # Cancel safety
    /// If dropped before completion, no stream is lost: the next call returns it.
    pub async fn accept(&self) -> Option<Result<Incoming, ConnectionError>> {
        let (id, headers) = match self.shared.wait(Line::Accept, State::poll_accept).await {
            Ok(accepted) => accepted,
            Err(error) if error.is_orderly_end() => return None,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(Incoming::new(StreamRef::new(&self.shared, id), headers)))
    }

    /// Sends a PING, waits for the peer's answer, and returns the round-trip time.
    ///
    /// A Go peer sends the answer after everything that it has queued. If the peer's program leaves a stream unread, a
    /// Go peer may stop reading the connection, and then sends no answer at all.
    ///
    /// # Errors
    /// [`ConnectionError::GoneAway`] after the peer's GOAWAY, [`ConnectionError::Closed`] once this end has begun to
    /// end the connection, or the error that the connection ended with.
    ///
    /// # Cancel safety
    /// If dropped before completion, the PING is sent all the same, and its answer is ignored.
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

    /// Ends the connection in good order, and waits until its driver has completed.
    ///
    /// No new streams are opened. Everything queued is sent, and then GOAWAY, or over WebSocket a Close. Then a client
    /// shuts down its write side, and a server leaves it open. The driver waits for the peer's end, until the peer has
    /// been silent for [`Config::linger`]. The reader of a stream that is still open gets [`ConnectionError::Closed`]
    /// after all bytes that arrived. The docs of [`mux`](crate::mux) have the details.
    ///
    /// # Errors
    /// The error that the connection failed with.
    ///
    /// # Cancel safety
    /// If dropped before completion, the connection still ends.
    pub async fn shutdown(&self) -> Result<(), ConnectionError> {
        self.go_away();
        self.closed().await
    }

    /// Waits until the connection has ended and its driver has completed.
    ///
    /// # Errors
    /// The error that the connection failed with.
    ///
    /// # Cancel safety
    /// If dropped before completion, nothing is lost.
    pub async fn closed(&self) -> Result<(), ConnectionError> {
        self.shared.wait(Line::End, |state| state.poll_outcome()).await
    }

    /// Whether streams can still be opened: the connection has not ended, and neither end has begun to end it.
    #[must_use]
    pub fn takes_streams(&self) -> bool {
        self.shared.look(|state| {
            let connection = &state.connection;
            !(connection.is_closed() || connection.is_closing() || connection.is_going_away() || connection.is_silent())
        })
    }

    /// The error that the connection ended with: [`ConnectionError::Closed`] after an orderly end. `None` while the
    /// connection has not ended.
    #[must_use]
    pub fn error(&self) -> Option<ConnectionError> {
        self.shared.look(|state| state.connection.error().cloned())
    }

    /// How many streams and bytes the connection holds, and how many bytes it has carried.
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

    pub(crate) fn stop_sending_after(&self, stream: &Stream, despite_reset: bool) {
        self.shared.with(|state| state.connection.stop_sending_after(stream.wire_id(), despite_reset));
    }

    pub(crate) fn refuse_streams(&self) {
        self.shared.with(|state| state.refuse_streams());
    }

    /// Marks the end of the connection as a failure: GOAWAY will say INTERNAL_ERROR.
    /// [`keep_promise`](Self::keep_promise) takes this back.
    pub(crate) fn abandon(&self) {
        self.shared.with(|state| state.connection.abandon());
    }

    /// Marks the end of the connection as orderly: GOAWAY will say OK, because the peer gets everything that it waits
    /// for.
    pub(crate) fn keep_promise(&self) {
        self.shared.with(|state| state.connection.keep_promise());
    }

    /// Sets how long an unread stream may hold up others, if [`Config::stream_stall_timeout`] is `None`.
    pub(crate) fn give_up_stalled(&self, after: Option<Duration>) {
        self.shared.with(|state| state.connection.give_up_stalled(after));
    }

    /// Releases the fixed streams that the client has not taken.
    pub(crate) fn release_given(&self) {
        self.shared.with(|state| state.release_given());
    }

    /// Waits until the connection has ended or failed. Its driver may still have to write queued bytes, and
    /// [`closed`](Self::closed) waits for that too.
    ///
    /// # Cancel safety
    /// If dropped before completion, nothing is lost.
    pub async fn gone(&self) {
        self.shared.wait(Line::End, |state| state.poll_gone()).await;
    }

    /// Sends a PING, even after the peer's last word. It sends no PING if a frame of ours was cut short at the last
    /// word.
    pub(crate) fn ask(&self) {
        self.shared.with(|state| state.connection.ask());
    }

    /// Whether the peer has ended the connection in good order: by GOAWAY with status OK, or by a Close with 1000, 1001
    /// or no code. `false` while the connection has not ended.
    ///
    /// At a client, a Close with 1001 or without a code counts here, but does not end the streams in good order: their
    /// readers get [`ConnectionError::PeerClosed`].
    #[must_use]
    pub fn peer_said_goodbye(&self) -> bool {
        self.shared.look(|state| state.connection.peer_said_goodbye())
    }

    /// How often the lock of the connection's state was taken so far, this call included.
    pub(crate) fn locked(&self) -> u64 {
        self.shared.look(|state| state.locked)
    }

    /// [`Config::linger`].
    pub(crate) fn linger(&self) -> Duration {
        self.shared.look(|state| state.connection.linger())
    }

    /// How many bytes were received so far. `None` while reading is paused.
    pub(crate) fn heard(&self) -> Option<u64> {
        self.shared.look(|state| state.connection.wants_read().then_some(state.traffic.received))
    }

    /// As [`shutdown`](Self::shutdown), without waiting.
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
    /// How many streams exist: those that have not ended, and those whose handles are not all dropped.
    pub streams: usize,
    /// How many unread bytes all streams hold. Each separate piece of them counts as at least 256 bytes.
    pub unread: usize,
    /// While unread bytes exceed the budget, the socket is not read, and this is the id of the stream with the most
    /// unread bytes. `None` while the socket is read.
    ///
    /// WebSocket channels have no stream ids, so this crate numbers their streams. In exec and attach, 1 is the error
    /// stream, 3 stdin, 5 stdout, 7 stderr and 9 resize. In legacy port-forward, the id is twice the channel's number,
    /// plus one.
    pub stalled_by: Option<u32>,
    /// How many bytes were read from the IO since the upgrade.
    pub received: u64,
    /// How many bytes were written to the IO since the upgrade.
    pub sent: u64,
}
