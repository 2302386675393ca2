//! The errors of a connection and of its streams, and who caused them.
//!
//! Owns the types only. What is an error, and when, is decided where it happens.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::initiator::Initiator;
use crate::wire::channel::ChannelError;
use crate::wire::spdy::{CodecError, GoAwayStatus, RstStatus};
use crate::wire::websocket::{WebSocketError, codes};

/// Why a connection ended, or refused an operation.
///
/// Every handle of a connection gets a clone of the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The connection was closed in good order, here or by the peer, and takes no more streams.
    #[error("the connection is closed")]
    Closed,
    /// The [`Driver`](crate::mux::Driver) was dropped before the connection had ended.
    #[error("the connection's driver was dropped")]
    DriverGone,
    /// The IO failed.
    #[error("connection lost: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The peer ended the connection without a GOAWAY, or a Close over WebSocket, or in the middle of a frame.
    #[error("connection lost: the peer closed it without a farewell")]
    Lost,
    /// The peer sent a WebSocket Close that is no orderly end: to a client every one but 1000, as for client-go.
    #[error("the peer closed the connection{}{}",
        code.map(|code| format!(" with code {code}")).unwrap_or_default(),
        if reason.is_empty() { String::new() } else { format!(": {reason:?}") })]
    PeerClosed {
        /// The status code (RFC 6455 §7.4), if there was one.
        code: Option<u16>,
        /// The peer's words.
        reason: String,
    },
    /// The peer sent GOAWAY: streams above `last_good` were not, and will not be, taken.
    #[error("the peer goes away ({status}), last stream taken: {last_good}")]
    GoneAway {
        /// The highest stream id the peer says it took.
        last_good: u32,
        /// The reason the peer gave.
        status: GoAwayStatus,
    },
    /// The peer's bytes are not frames within the limits.
    #[error("bad frame from the peer: {0}")]
    Codec(#[from] CodecError),
    /// The peer's bytes are not WebSocket frames within the limits.
    #[error("bad WebSocket frame from the peer: {0}")]
    WebSocket(#[from] WebSocketError),
    /// The peer's message is none of the subprotocol's.
    #[error("bad message from the peer: {0}")]
    Channel(#[from] ChannelError),
    /// The peer broke a rule of SPDY/3.1.
    #[error("protocol violation by the peer: {0}")]
    Protocol(&'static str),
    /// The peer went over a limit that [`Limits`](crate::spdy::Limits) sets.
    #[error("the peer exceeded the limit `{limit}` ({value})")]
    LimitExceeded {
        /// The field of [`Limits`](crate::spdy::Limits).
        limit: &'static str,
        /// Its value, in the field's own unit.
        value: u64,
    },
    /// Nothing came from the peer for [`Config::keepalive_timeout`](crate::spdy::Config::keepalive_timeout).
    #[error("nothing was received for {0:?}: the peer is gone")]
    KeepaliveTimeout(Duration),
    /// The connection was being closed and the peer took none of what was queued for
    /// [`Config::flush_timeout`](crate::spdy::Config::flush_timeout), or for
    /// [`Config::linger`](crate::spdy::Config::linger) after a failure: it is lost.
    #[error("the peer took nothing for {0:?} while the connection was being closed")]
    FlushTimeout(Duration),
    /// No frame went either way for [`Config::idle_timeout`](crate::spdy::Config::idle_timeout).
    #[error("no frame was exchanged for {0:?}")]
    IdleTimeout(Duration),
    /// A stream nobody read held the whole connection up for
    /// [`Config::stall_timeout`](crate::spdy::Config::stall_timeout).
    #[error("stream {stream} was left unread for {after:?} and stalled the connection")]
    Stalled {
        /// The stream with the most unread bytes.
        stream: u32,
        /// How long reading had been paused.
        after: Duration,
    },
    /// All 2^30 stream ids of this side are used up.
    #[error("no stream ids are left on this connection")]
    IdsExhausted,
    /// Over WebSocket a connection has the five streams of one session, and this one it has not, or no more.
    #[error("the connection has no such channel, or it is taken")]
    NoChannel,
    /// The headers cannot be sent as SPDY headers.
    #[error("unfit header: {0}")]
    InvalidHeader(&'static str),
}

impl ConnectionError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Closed
            | Self::DriverGone
            | Self::IdsExhausted
            | Self::InvalidHeader(_)
            | Self::NoChannel
            | Self::Stalled { .. } => Initiator::User,
            Self::IdleTimeout(_) => Initiator::Library,
            Self::Io(_)
            | Self::Lost
            | Self::PeerClosed { .. }
            | Self::GoneAway { .. }
            | Self::Codec(_)
            | Self::Protocol(_)
            | Self::LimitExceeded { .. }
            | Self::KeepaliveTimeout(_)
            | Self::FlushTimeout(_) => Initiator::Remote,
            Self::WebSocket(_) | Self::Channel(_) => Initiator::Remote,
        }
    }

    /// Whether a server may take it as its client's goodbye: the client ended the connection itself, in good order.
    #[must_use]
    pub fn is_farewell(&self) -> bool {
        matches!(self, Self::Closed | Self::PeerClosed { code: None | Some(codes::NORMAL | codes::GOING_AWAY), .. })
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Closed | Self::DriverGone => io::ErrorKind::NotConnected,
            Self::Lost | Self::PeerClosed { .. } | Self::GoneAway { .. } => io::ErrorKind::ConnectionAborted,
            Self::Codec(_) | Self::Protocol(_) | Self::LimitExceeded { .. } => io::ErrorKind::InvalidData,
            Self::KeepaliveTimeout(_) | Self::FlushTimeout(_) | Self::IdleTimeout(_) | Self::Stalled { .. } => {
                io::ErrorKind::TimedOut
            }
            Self::IdsExhausted => io::ErrorKind::Other,
            Self::InvalidHeader(_) | Self::NoChannel => io::ErrorKind::InvalidInput,
            Self::WebSocket(_) | Self::Channel(_) => io::ErrorKind::InvalidData,
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Why one stream failed. The other streams of the connection live on, unless it is
/// [`StreamError::Connection`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer reset the stream. Bytes that had come before the reset were still read.
    #[error("stream reset by the peer: {0}")]
    Reset(RstStatus),
    /// The peer broke a rule on this stream, which was reset here for it.
    #[error("stream reset for a fault of the peer's: {0}")]
    Broken(RstStatus),
    /// Nobody read the stream, of which more came than may be held, while others waited: it was reset here, and what was unread is dropped. See
    /// [`Config::stream_stall_timeout`](crate::spdy::Config::stream_stall_timeout).
    #[error("the stream was left unread for {after:?} while others waited, and was given up")]
    Stalled {
        /// How long reading had been paused.
        after: Duration,
    },
    /// The stream was reset, or its send half finished, on this side before.
    #[error("the stream is closed for writing")]
    Finished,
    /// The protocol cannot say that nothing more comes in this direction: before v5 a WebSocket has no end of stdin, nor has the old
    /// form of port-forward a client's half-close. Nothing has ended.
    #[error("the protocol has no half-close: nobody would hear of it")]
    NoHalfClose,
    /// The session has its final status: what is written now would reach nobody.
    ///
    /// See [`SendHalf::send`](crate::mux::SendHalf::send).
    #[error("the remote command has ended")]
    Hushed,
    /// The whole connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl StreamError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Reset(_) | Self::Broken(_) | Self::Hushed => Initiator::Remote,
            Self::Finished | Self::NoHalfClose | Self::Stalled { .. } => Initiator::User,
            Self::Connection(error) => error.initiator(),
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::Broken(_) => io::ErrorKind::InvalidData,
            StreamError::Finished | StreamError::Hushed => io::ErrorKind::BrokenPipe,
            StreamError::NoHalfClose => io::ErrorKind::Unsupported,
            StreamError::Stalled { .. } => io::ErrorKind::TimedOut,
            StreamError::Connection(error) => error.kind(),
        };
        Self::new(kind, error)
    }
}
