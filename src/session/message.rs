//! The messages between the two ends of a connection, for every transport.
//!
//! This module owns the messages and their conversion to and from SPDY frames. Other transports convert them in their
//! own readers and writers. It must not decide when a message may be sent, which is the
//! [`Connection`](super::Connection)'s job.

use bytes::Bytes;

use crate::wire::spdy::{Frame, GoAwayStatus, Headers, RstStatus, Settings, StreamId};

/// A message from one end of a connection to the other.
///
/// The ids, the statuses and the headers are SPDY's. A transport without stream ids gives each stream an id according
/// to its position.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // complete: a connection handles no other message
pub enum Message {
    /// Bytes of a stream: DATA.
    Data {
        /// The stream.
        id: StreamId,
        /// This end sends no more DATA on the stream.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
    /// Opens a stream: SYN_STREAM.
    Open {
        /// The new stream's id.
        id: StreamId,
        /// 0 goes first, 7 last.
        priority: u8,
        /// This end sends no more DATA on the stream.
        fin: bool,
        /// The other end may send no DATA on the stream.
        unidirectional: bool,
        /// What the stream is for.
        headers: Headers,
    },
    /// Accepts a stream that the other end opened: SYN_REPLY.
    Answer {
        /// The stream.
        id: StreamId,
        /// This end sends no more DATA on the stream.
        fin: bool,
        /// The headers of the answer.
        headers: Headers,
    },
    /// Ends a stream at once, in both directions: RST_STREAM.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        status: RstStatus,
    },
    /// Adds headers to a stream: HEADERS. No program of Kubernetes sends or reads them.
    Headers {
        /// The stream.
        id: StreamId,
        /// This end sends no more DATA on the stream.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// Lets the other end send more bytes: WINDOW_UPDATE.
    Window {
        /// The stream, or [`StreamId::SESSION`] for all streams together.
        id: StreamId,
        /// How many more bytes.
        delta: u32,
    },
    /// What this end allows: SETTINGS.
    Settings(Settings),
    /// Asks whether the other end is alive, or answers such a question: PING. A client asks with odd ids, and a server
    /// with even ids.
    Ping(u32),
    /// Says that this end takes no more streams, and that this is its last message: GOAWAY.
    Goodbye {
        /// The last stream of the other end that this end has taken.
        last_good: StreamId,
        /// Why.
        status: GoAwayStatus,
    },
}

impl Message {
    /// The headers of the message.
    pub(crate) fn headers(&self) -> Option<&Headers> {
        match self {
            Self::Open { headers, .. } | Self::Answer { headers, .. } | Self::Headers { headers, .. } => Some(headers),
            _ => None,
        }
    }

    /// The FIN of a stream, without bytes.
    pub(crate) fn fin(id: StreamId) -> Self {
        Self::Data { id, fin: true, data: Bytes::new() }
    }
}

impl From<Frame> for Message {
    #[inline]
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Data { id, fin, data } => Self::Data { id, fin, data },
            Frame::SynStream { id, priority, fin, unidirectional, headers, associated: _, slot: _ } => {
                Self::Open { id, priority, fin, unidirectional, headers }
            }
            Frame::SynReply { id, fin, headers } => Self::Answer { id, fin, headers },
            Frame::RstStream { id, status } => Self::Reset { id, status },
            Frame::Headers { id, fin, headers } => Self::Headers { id, fin, headers },
            Frame::WindowUpdate { id, delta } => Self::Window { id, delta },
            Frame::Settings(settings) => Self::Settings(settings),
            Frame::Ping(id) => Self::Ping(id),
            Frame::GoAway { last_good, status } => Self::Goodbye { last_good, status },
        }
    }
}

impl From<Message> for Frame {
    #[inline]
    fn from(message: Message) -> Self {
        match message {
            Message::Data { id, fin, data } => Self::Data { id, fin, data },
            Message::Open { id, priority, fin, unidirectional, headers } => {
                Self::SynStream { id, associated: StreamId::SESSION, priority, slot: 0, fin, unidirectional, headers }
            }
            Message::Answer { id, fin, headers } => Self::SynReply { id, fin, headers },
            Message::Reset { id, status } => Self::RstStream { id, status },
            Message::Headers { id, fin, headers } => Self::Headers { id, fin, headers },
            Message::Window { id, delta } => Self::WindowUpdate { id, delta },
            Message::Settings(settings) => Self::Settings(settings),
            Message::Ping(id) => Self::Ping(id),
            Message::Goodbye { last_good, status } => Self::GoAway { last_good, status },
        }
    }
}
