//! What a tap tells.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Side;
use crate::channel::ChannelError;
use crate::mux::{PORT, REQUEST_ID, STREAM_TYPE};
use crate::spdy::{CodecError, GoAwayStatus, Headers, RstStatus};
use crate::status::{ExitStatus, ResizeError, StatusError, TerminalSize};
use crate::websocket::{CloseReason, WebSocketError};

/// Bytes of a stream's type or request id that a [`Name`] has: the first 64.
pub const MAX_NAME_LEN: usize = 64;

/// Something that passes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A stream begins. Over WebSocket, where all are there from the start, it does with the first that is said on it.
    Opened {
        /// Who opened it, or spoke first.
        side: Side,
        /// The stream.
        stream: Stream,
    },
    /// Bytes on a stream: never none. Those of the error and the resize stream too, which are told once more when they are read.
    Data {
        /// Who says them.
        side: Side,
        /// The stream.
        stream: Stream,
        /// The bytes: some of them, where more have come than these.
        data: Bytes,
    },
    /// A side says that nothing more comes from it on a stream. Some say it twice, and some talk on.
    End {
        /// Who says it.
        side: Side,
        /// The stream.
        stream: Stream,
        /// What it was reset with, if it was: then it is over both ways.
        reset: Option<RstStatus>,
    },
    /// The client's terminal has a size, or the client says something else on its stream: then no other follows.
    Resize(Result<TerminalSize, ResizeError>),
    /// How the command has ended, once: or that the error stream says something else. A session that ends without this has
    /// no status.
    Status(Result<ExitStatus, StatusError>),
    /// A side says that it goes.
    Farewell {
        /// Who.
        side: Side,
        /// What it says.
        said: Farewell,
    },
    /// A side's bytes have ended, as [`Tap::end`](super::Tap::end) was told.
    Over {
        /// Whose.
        side: Side,
        /// In the middle of a frame or a message.
        cut: bool,
    },
    /// A side's bytes cannot be followed: the last that is reported of it, and with
    /// [`TooManyStreams`](TapError::TooManyStreams) of the other.
    Fault {
        /// Whose.
        side: Side,
        /// Why.
        error: TapError,
    },
}

/// A stream, as its events name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Stream {
    /// What tells it from others of its name: SPDY's id, or the number of the channel.
    pub id: u32,
    /// What it carries.
    pub name: Name,
}

/// What a stream carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Name {
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
    /// The bytes of a connection to a port, both ways.
    Forwarded(Forwarded),
    /// What a server says is wrong with that connection.
    ForwardedError(Forwarded),
    /// Anything else, by the type that it says.
    Other(Arc<str>),
}

/// A connection to a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Forwarded {
    /// The port.
    pub port: u16,
    /// What the client calls the connection; maybe nothing. In the old form of port-forward it is the place of the port among
    /// those that were asked for.
    pub request: Arc<str>,
}

/// How a side says that it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Farewell {
    /// SPDY's GOAWAY.
    GoAway(GoAwayStatus),
    /// WebSocket's Close, and what it says. Nothing is read behind it.
    Close(Option<CloseReason>),
}

/// Why bytes cannot be followed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// They are no SPDY frames within the limits.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// They are no WebSocket frames within the limits.
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    /// They are no messages of the subprotocol.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// More streams live at a time than [`Limits::max_streams`](crate::spdy::Limits::max_streams); in a session all that there ever
    /// were count.
    #[error("more streams than {limit}")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// The header blocks of a side have inflated to more than [`Limits::max_header_bytes`](crate::spdy::Limits::max_header_bytes)
    /// beyond 16 times the bytes that it has said.
    #[error("header blocks that inflate to {limit} bytes more than 16 times what was said")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
}

impl TapError {
    /// Who caused the error: always who said the bytes.
    #[must_use]
    pub fn initiator(&self) -> crate::Initiator {
        crate::Initiator::Remote
    }

    /// Whether the other side cannot be followed either.
    pub(super) fn is_of_both(&self) -> bool {
        matches!(self, Self::TooManyStreams { .. })
    }
}

impl Name {
    /// Of a session's stream.
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

    /// Of one of a pair's.
    pub(super) fn in_pair(headers: &Headers) -> Self {
        let port = headers.get(PORT).and_then(|port| port.parse().ok());
        let forwarded = |port| Forwarded { port, request: text(headers.get_bytes(REQUEST_ID).unwrap_or_default()) };
        match (headers.get_bytes(STREAM_TYPE).unwrap_or_default(), port) {
            (b"data", Some(port)) => Self::Forwarded(forwarded(port)),
            (b"error", Some(port)) => Self::ForwardedError(forwarded(port)),
            (other, _) => Self::Other(text(other)),
        }
    }

    /// Of one of the old form's channels.
    pub(super) fn of_channel(port: u16, channel: u8) -> Self {
        let forwarded = Forwarded { port, request: (channel / 2).to_string().into() };
        if crate::channel::ports::is_error(channel) {
            Self::ForwardedError(forwarded)
        } else {
            Self::Forwarded(forwarded)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("stdin"),
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::Error => f.write_str("error"),
            Self::Resize => f.write_str("resize"),
            Self::Forwarded(Forwarded { port, request }) => write!(f, "port {port}, connection {request}"),
            Self::ForwardedError(Forwarded { port, request }) => {
                write!(f, "port {port}, error of connection {request}")
            }
            Self::Other(kind) => write!(f, "{kind:?}"),
        }
    }
}

fn text(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes.get(..MAX_NAME_LEN).unwrap_or(bytes)).into()
}
