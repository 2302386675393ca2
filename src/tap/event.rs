//! What a tap reports.
//!
//! This module owns the events and the names of streams. The modules of the protocols decide what is reported, and
//! when.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::protocol::{PORT, REQUEST_ID, STREAM_TYPE};
use crate::session::ConnectionError;
use crate::status::{ExitStatus, StatusError, TerminalSize};
use crate::wire::spdy::{GoAwayStatus, Headers, RstStatus};
use bytes::Bytes;

use super::side::Side;

/// How many bytes of a stream's type, or of its request id, a [`StreamName`] keeps: the first 64.
pub const MAX_NAME_LEN: usize = 64;

/// The name of the limit of streams, as in [`SpdyConfig`](crate::mux::SpdyConfig).
const MAX_STREAMS: &str = "max_streams";

/// The events of one step: a few at most.
pub(super) type Events = VecDeque<TapEvent>;

/// Something that a side sends to the other one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TapEvent {
    /// A stream begins. Over WebSocket channels all streams exist from the start, and this event comes before the first
    /// bytes of each.
    Opened {
        /// The side that opened the stream or sent its first bytes.
        side: Side,
        /// The stream.
        stream: TapStream,
    },
    /// Bytes of a stream, at least one. This includes the error stream and the resize stream of a session: what their
    /// bytes mean follows as [`Status`](Self::Status) and [`Resize`](Self::Resize).
    Data {
        /// The side that sent the bytes.
        side: Side,
        /// The stream.
        stream: TapStream,
        /// The bytes.
        data: Bytes,
    },
    /// A side ends its direction of a stream. Some peers end it twice, and some send more bytes after they have ended
    /// it. A CLOSE (v5) of a channel that only the other side writes ends nothing, and is not reported.
    End {
        /// The side that ended its direction.
        side: Side,
        /// The stream.
        stream: TapStream,
        /// The status of the reset that ended it, if it was reset. A reset ends both directions.
        reset: Option<RstStatus>,
    },
    /// The client's terminal has this size. An error means that the resize stream carries something that is not a size.
    /// No size is reported after an error.
    Resize(Result<TerminalSize, StatusError>),
    /// How the command ended. An error means that the error stream carries something that is not a status. This event
    /// is reported at most once. If a session ends without this event, it had no status.
    Status(Result<ExitStatus, StatusError>),
    /// A side sends GOAWAY, which ends the SPDY connection.
    GoAway {
        /// The side that sent GOAWAY.
        side: Side,
        /// Why it ends the connection.
        status: GoAwayStatus,
    },
    /// A side sends a Close, which ends the WebSocket connection. Bytes that it sends after that are not read.
    Close {
        /// The side that sent it.
        side: Side,
        /// The code, if the Close has one (RFC 6455 §7.4).
        code: Option<u16>,
        /// The reason, for people. It may be empty.
        reason: String,
    },
    /// The bytes of a side have ended: [`Tap::end`](super::Tap::end) was called.
    Over {
        /// The side whose bytes have ended.
        side: Side,
        /// Whether they ended in the middle of a frame or a message.
        cut: bool,
    },
    /// The tap cannot read the bytes of a side, because they are malformed or exceed a limit. It reports nothing more
    /// about that side. If the limit is `max_streams`, it reports nothing more about the other side either.
    Fault {
        /// The side whose bytes cannot be read.
        side: Side,
        /// Why. In its text, "the peer" is this side.
        error: ConnectionError,
    },
}

/// A stream, as its events name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TapStream {
    /// Tells streams of the same name apart: the stream id of SPDY, or the number of the WebSocket channel.
    pub id: u32,
    /// What the stream carries.
    pub name: StreamName,
}

/// What a stream carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamName {
    /// What the command reads.
    Stdin,
    /// What the command writes, or its terminal shows.
    Stdout,
    /// What the command writes to stderr.
    Stderr,
    /// How the command ended.
    Error,
    /// The sizes of the terminal.
    Resize,
    /// The bytes of a forwarded connection, both ways.
    Forwarded {
        /// The port of the pod.
        port: u16,
        /// The request id, which is the client's name for the connection and may be empty. In legacy port-forward it is
        /// the position of the port among those that the request asked for.
        request: Arc<str>,
    },
    /// The server's error message about a forwarded connection.
    ForwardedError {
        /// The port of the pod.
        port: u16,
        /// The request id, as in [`Forwarded`](Self::Forwarded).
        request: Arc<str>,
    },
    /// Any other type of stream, by the type in its headers.
    Other(Arc<str>),
}

/// Whether the tap can read neither side after this error.
pub(super) fn is_of_both(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::LimitExceeded { limit: MAX_STREAMS, .. })
}

/// More streams are open at the same time than the limit allows. In a session, every stream that was ever opened counts
/// as open.
pub(super) fn too_many_streams(limit: usize) -> ConnectionError {
    ConnectionError::LimitExceeded { limit: MAX_STREAMS, value: limit as u64 }
}

impl StreamName {
    /// The name of a session's stream.
    pub(super) fn in_session(headers: &Headers) -> Self {
        match headers.get_bytes(STREAM_TYPE).unwrap_or_default() {
            b"stdin" => Self::Stdin,
            b"stdout" => Self::Stdout,
            b"stderr" => Self::Stderr,
            b"error" => Self::Error,
            b"resize" => Self::Resize,
            other => Self::Other(text(other)),
        }
    }

    /// The name of a port-forward stream.
    pub(super) fn in_port_forward(headers: &Headers) -> Self {
        // Go's servers take no sign, which Rust's parser does.
        let digits = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
        let port = headers.get(PORT).filter(digits).and_then(|port| port.parse().ok());
        let request = || text(headers.get_bytes(REQUEST_ID).unwrap_or_default());
        match (headers.get_bytes(STREAM_TYPE).unwrap_or_default(), port) {
            (b"data", Some(port)) => Self::Forwarded { port, request: request() },
            (b"error", Some(port)) => Self::ForwardedError { port, request: request() },
            (other, _) => Self::Other(text(other)),
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("stdin"),
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::Error => f.write_str("error"),
            Self::Resize => f.write_str("resize"),
            Self::Forwarded { port, request } => write!(f, "port {port}, connection {request}"),
            Self::ForwardedError { port, request } => write!(f, "port {port}, error of connection {request}"),
            Self::Other(kind) => write!(f, "{kind:?}"),
        }
    }
}

fn text(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes.get(..MAX_NAME_LEN).unwrap_or(bytes)).into()
}
