//! The errors of a connection and of its streams, and which end caused them.
//!
//! This module owns the types. It must not decide when something is an error.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::initiator::Initiator;
use crate::wire::Malformed;
use crate::wire::spdy::{GoAwayStatus, RstStatus};
use crate::wire::websocket::codes;

/// Why a connection ended, or why an operation on it is not possible.
///
/// Every handle of a connection gets a clone of the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The connection was closed in good order, by this end or by the peer. No more streams can be opened.
    #[error("the connection is closed")]
    Closed,
    /// The [`Driver`](crate::mux::Driver) was dropped before the connection had ended.
    #[error("this end dropped the driver of the connection")]
    DriverGone,
    /// The IO failed: for example, the connection was reset.
    #[error("connection lost: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The peer ended the connection in the middle of a frame, or without a goodbye (a GOAWAY, or over WebSocket a
    /// Close).
    #[error("connection lost: the peer closed it without sending GOAWAY or a WebSocket Close")]
    Lost,
    /// The peer sent a WebSocket Close that is not an orderly end. For a client only Close 1000 is an orderly end, as
    /// for client-go. A server also accepts other codes as its client's goodbye: see
    /// [`is_orderly_end`](Self::is_orderly_end).
    #[error("the peer closed the connection{}{}",
        code.map(|code| format!(" with code {code}")).unwrap_or_default(),
        if reason.is_empty() { String::new() } else { format!(": {reason:?}") })]
    PeerClosed {
        /// The status code (RFC 6455 §7.4), if there was one.
        code: Option<u16>,
        /// The peer's reason, as text.
        reason: String,
    },
    /// The peer sent GOAWAY, so it accepts no more streams. A stream above `last_good` that the peer had not answered
    /// gets [`StreamError::Reset`] with [`RstStatus::REFUSED_STREAM`].
    #[error("the peer sent GOAWAY ({status}, last good stream {last_good}) and accepts no more streams")]
    GoneAway {
        /// The highest id of the streams that the peer says it has accepted. Go's peers always send 0.
        last_good: u32,
        /// The reason the peer gave.
        status: GoAwayStatus,
    },
    /// The peer's bytes are not valid SPDY frames, WebSocket frames or messages of the subprotocol, or exceed a limit
    /// on one of these.
    #[error("the peer sent a {0}")]
    Malformed(Malformed),
    /// The peer broke a rule of SPDY/3.1. The text says which.
    #[error("protocol violation by the peer: {0}")]
    Protocol(&'static str),
    /// The peer exceeded a limit of [`SpdyConfig`](crate::mux::SpdyConfig).
    #[error("the peer exceeded the limit `{limit}` ({value})")]
    LimitExceeded {
        /// The name of the field of [`SpdyConfig`](crate::mux::SpdyConfig).
        limit: &'static str,
        /// The limit's value, in the unit of the field.
        value: u64,
    },
    /// Nothing was received from the peer for [`Config::keepalive_timeout`](crate::mux::Config::keepalive_timeout), and
    /// it answered no PING. The field is the time of silence.
    #[error("the peer sent nothing for {} s and answered no PING: it counts as dead", .0.as_secs_f64())]
    KeepaliveTimeout(Duration),
    /// While the connection was being closed, the peer accepted none of the queued bytes for too long: for
    /// [`Config::flush_timeout`](crate::mux::Config::flush_timeout), or after a failure for
    /// [`Config::linger`](crate::mux::Config::linger). The queued bytes are lost. The field is that time.
    #[error("the peer accepted no bytes for {} s while the connection was being closed", .0.as_secs_f64())]
    FlushTimeout(Duration),
    /// No byte was received and no frame was sent for [`Config::idle_timeout`](crate::mux::Config::idle_timeout). The
    /// field is that time.
    #[error(
        "the connection was idle for {} s: nothing was received, and nothing was sent except unanswered PINGs",
        .0.as_secs_f64()
    )]
    IdleTimeout(Duration),
    /// An unread stream kept the socket from being read for
    /// [`Config::stall_timeout`](crate::mux::Config::stall_timeout).
    #[error("this end left stream {stream} unread for {} s, which stalled the connection", after.as_secs_f64())]
    Stalled {
        /// The id of the stream with the most unread bytes. For WebSocket channels, see
        /// [`Stats::stalled_by`](crate::mux::Stats::stalled_by).
        stream: u32,
        /// How long the socket had not been read.
        after: Duration,
    },
    /// All 2^30 stream ids of this end are used up.
    #[error("this end has used up all stream ids of the connection")]
    IdsExhausted,
    /// Over WebSocket channels the streams are fixed. The connection does not have this stream, or the stream was taken
    /// before.
    #[error("the connection has no channel for this stream, or the stream was taken before")]
    NoChannel,
    /// The headers of a stream that this end opens or answers cannot be sent as SPDY headers. The text says why.
    #[error("the headers of the stream cannot be sent: {0}")]
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
            | Self::Malformed(_)
            | Self::Protocol(_)
            | Self::LimitExceeded { .. }
            | Self::KeepaliveTimeout(_)
            | Self::FlushTimeout(_) => Initiator::Remote,
        }
    }

    /// Whether the connection ended in good order, as a server sees it: [`Closed`](Self::Closed), or its client's
    /// WebSocket Close with 1000, with 1001 or without a code. For a client only [`Closed`](Self::Closed) is an orderly
    /// end.
    #[must_use]
    pub fn is_orderly_end(&self) -> bool {
        matches!(self, Self::Closed | Self::PeerClosed { code: None | Some(codes::NORMAL | codes::GOING_AWAY), .. })
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Closed | Self::DriverGone => io::ErrorKind::NotConnected,
            Self::Lost | Self::PeerClosed { .. } | Self::GoneAway { .. } => io::ErrorKind::ConnectionAborted,
            Self::Malformed(_) | Self::Protocol(_) | Self::LimitExceeded { .. } => io::ErrorKind::InvalidData,
            Self::KeepaliveTimeout(_) | Self::FlushTimeout(_) | Self::IdleTimeout(_) | Self::Stalled { .. } => {
                io::ErrorKind::TimedOut
            }
            Self::IdsExhausted => io::ErrorKind::Other,
            Self::InvalidHeader(_) | Self::NoChannel => io::ErrorKind::InvalidInput,
        }
    }
}

impl<E: Into<Malformed>> From<E> for ConnectionError {
    fn from(error: E) -> Self {
        Self::Malformed(error.into())
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

/// Why one stream failed. The other streams of the connection go on, except with [`StreamError::Connection`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer reset the stream. Readers get this error after all bytes that arrived before the reset.
    #[error("the peer reset the stream: {0}")]
    Reset(RstStatus),
    /// The peer broke a rule on this stream, so this end reset the stream with this status.
    #[error("this end reset the stream because the peer broke a rule: {0}")]
    Broken(RstStatus),
    /// The stream was left unread and held up readers of other streams, so this end reset it and dropped its unread
    /// bytes. See [`Config::stream_stall_timeout`](crate::mux::Config::stream_stall_timeout).
    #[error("this end left the stream unread for {} s while others waited, and so reset it", after.as_secs_f64())]
    Stalled {
        /// How long the socket had not been read.
        after: Duration,
    },
    /// This end has already reset the stream, or ended its own direction of it.
    #[error("this end has already finished or reset the stream")]
    Finished,
    /// The protocol cannot tell the peer that this end's direction has ended, and the direction stays open. Over
    /// WebSocket, an exec client can end stdin only from v5 on, and a client of legacy port-forward cannot half-close.
    #[error("the protocol has no half-close: the peer cannot be told that this direction has ended")]
    NoHalfClose,
    /// The remote command has ended, so nothing more can be sent. A client's writes fail with this once the session's
    /// status has arrived.
    #[error("the remote command has ended, so nothing more can be sent")]
    SessionEnded,
    /// The whole connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl StreamError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Reset(_) | Self::Broken(_) | Self::SessionEnded => Initiator::Remote,
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
            StreamError::Finished | StreamError::SessionEnded => io::ErrorKind::BrokenPipe,
            StreamError::NoHalfClose => io::ErrorKind::Unsupported,
            StreamError::Stalled { .. } => io::ErrorKind::TimedOut,
            StreamError::Connection(error) => error.kind(),
        };
        Self::new(kind, error)
    }
}
