//! What one end of a connection says to the other, whatever carries it.
//!
//! Owns the messages and their two forms: SPDY has a frame for each of them, other transports have what their reader and writer make of
//! it. It must not know when a message may be sent: that is the [`Connection`](super::Connection)'s.

use bytes::Bytes;

use crate::wire::spdy::{Frame, GoAwayStatus, Headers, RstStatus, Settings, StreamId};

/// What one end of a connection says to the other.
///
/// The ids, the reasons and the headers are SPDY's. A transport that has none of its own gives each stream an id by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // complete: a transport that can say more has nobody to say it to
pub enum Message {
    /// Bytes of a stream: DATA.
    Data {
        /// The stream.
        id: StreamId,
        /// Nothing more comes on it from this end.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
    /// A new stream: SYN_STREAM.
    Open {
        /// Its id.
        id: StreamId,
        /// 0 goes first, 7 last.
        priority: u8,
        /// Nothing more comes on it from this end.
        fin: bool,
        /// Nothing may come on it from the other end.
        unidirectional: bool,
        /// What it is for.
        headers: Headers,
    },
    /// A stream of the other end's is taken: SYN_REPLY.
    Answer {
        /// The stream.
        id: StreamId,
        /// Nothing more comes on it from this end.
        fin: bool,
        /// The answer.
        headers: Headers,
    },
    /// A stream ends at once, in both directions: RST_STREAM.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        status: RstStatus,
    },
    /// More headers of a stream: HEADERS. Nobody in Kubernetes sends or reads them.
    Headers {
        /// The stream.
        id: StreamId,
        /// Nothing more comes on it from this end.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// So many more bytes may be sent: WINDOW_UPDATE.
    Window {
        /// The stream, or [`StreamId::SESSION`] for all together.
        id: StreamId,
        /// Bytes.
        delta: u32,
    },
    /// What this end allows: SETTINGS.
    Settings(Settings),
    /// A question whether the other end is there, or the answer: PING.
    Ping(u32),
    /// This end says no more, and takes no more streams: GOAWAY.
    Goodbye {
        /// The last stream of the other end's that was taken.
        last_good: StreamId,
        /// Why.
        status: GoAwayStatus,
    },
}

impl Message {
    /// The headers it carries.
    pub(super) fn headers(&self) -> Option<&Headers> {
        match self {
            Self::Open { headers, .. } | Self::Answer { headers, .. } | Self::Headers { headers, .. } => Some(headers),
            _ => None,
        }
    }

    /// Nothing more comes on a stream.
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
