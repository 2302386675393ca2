//! The frames of SPDY/3.1 as plain data.
//!
//! This module owns their fields and the names of their codes. It must not know their bytes, which is the codec's job,
//! or what a frame does to a connection, which is [`session`](crate::session)'s job.

use std::fmt;

use bytes::Bytes;

use super::Headers;

/// A frame of SPDY/3.1 (§2.2).
///
/// The codec skips CREDENTIAL, which is obsolete in 3.1, and frames of unknown types, which carry no state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // the protocol is frozen: there will be no other frame
pub enum Frame {
    /// Opens a stream (§2.6.1).
    SynStream {
        /// The new stream.
        id: StreamId,
        /// The stream that this one belongs to, or [`StreamId::SESSION`] if there is none. Kubernetes never sets it.
        associated: StreamId,
        /// 0 is the most urgent, 7 the least. Kubernetes always sends 0.
        priority: u8,
        /// An index into the client's certificates; unused.
        slot: u8,
        /// The opener will send no DATA.
        fin: bool,
        /// The acceptor may send nothing.
        unidirectional: bool,
        /// The headers the stream is opened with.
        headers: Headers,
    },
    /// Answers SYN_STREAM (§2.6.2).
    SynReply {
        /// The stream answered.
        id: StreamId,
        /// The acceptor will send no DATA.
        fin: bool,
        /// The headers of the answer.
        headers: Headers,
    },
    /// Ends a stream at once, in both directions (§2.6.3).
    RstStream {
        /// The stream ended.
        id: StreamId,
        /// Why.
        status: RstStatus,
    },
    /// Sends settings (§2.6.4).
    Settings(Settings),
    /// Asks for the same frame back (§2.6.5). The client's ids are odd, the server's even.
    Ping(u32),
    /// The sender will take no more streams (§2.6.6).
    GoAway {
        /// The highest stream id of the peer that the sender has taken.
        last_good: StreamId,
        /// Why.
        status: GoAwayStatus,
    },
    /// More headers for an open stream (§2.6.7).
    Headers {
        /// The stream.
        id: StreamId,
        /// The sender will send no more DATA.
        fin: bool,
        /// The headers added.
        headers: Headers,
    },
    /// Grants the peer more bytes (§2.6.8).
    WindowUpdate {
        /// The stream, or [`StreamId::SESSION`] for all of them together.
        id: StreamId,
        /// How many bytes.
        delta: u32,
    },
    /// Bytes of a stream (§2.2.2).
    ///
    /// The decoder returns a long DATA frame in pieces, as it arrives. `fin` is set on the last piece.
    Data {
        /// The stream.
        id: StreamId,
        /// The sender will send no more DATA.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
}

impl Frame {
    /// The headers of a SYN_STREAM, SYN_REPLY or HEADERS frame. `None` for every other frame.
    #[must_use]
    pub fn headers(&self) -> Option<&Headers> {
        match self {
            Self::SynStream { headers, .. } | Self::SynReply { headers, .. } | Self::Headers { headers, .. } => {
                Some(headers)
            }
            _ => None,
        }
    }
}

/// The id of a stream: 31 bits. The client's ids are odd, and the server's are even.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// 0: the connection itself.
    pub const SESSION: Self = Self(0);
    /// The highest id.
    pub const MAX: Self = Self(0x7fff_ffff);

    /// Creates an id from the lower 31 bits. The highest bit is reserved and ignored (§2.2.1).
    #[must_use]
    pub const fn new(id: u32) -> Self {
        Self(id & Self::MAX.0)
    }

    /// The id as a number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether a client opened it.
    #[must_use]
    pub const fn is_client(self) -> bool {
        self.0 & 1 == 1
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $type:ident { $($(#[$code_doc:meta])* $name:ident = $value:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $type(u32);

        impl $type {
            $($(#[$code_doc])* pub const $name: Self = Self($value);)*

            /// Creates a code from any number. A peer may send codes that have no name.
            #[must_use]
            pub const fn new(code: u32) -> Self {
                Self(code)
            }

            /// The code as a number.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($value => f.write_str(stringify!($name)),)*
                    other => write!(f, "{other:#x}"),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($value => f.write_str($text),)*
                    other => write!(f, "code {other:#x}"),
                }
            }
        }
    };
}

codes! {
    /// The status of RST_STREAM: why a stream was reset (SPDY/3.1 §2.6.3).
    RstStatus {
        /// The peer broke a rule on this stream.
        PROTOCOL_ERROR = 1, "protocol error";
        /// The peer sent a frame for a stream that is not open.
        INVALID_STREAM = 2, "invalid stream";
        /// The sender did not accept the stream, and did nothing with it.
        REFUSED_STREAM = 3, "refused";
        /// The peer speaks another version.
        UNSUPPORTED_VERSION = 4, "unsupported version";
        /// The sender no longer wants the stream. Go's peers end every stream with this status, also a complete one.
        CANCEL = 5, "cancelled";
        /// The sender failed.
        INTERNAL_ERROR = 6, "internal error";
        /// The peer sent more DATA than the window allowed, or raised a window beyond 2^31 - 1.
        FLOW_CONTROL_ERROR = 7, "flow control error";
        /// The peer sent a second SYN_REPLY.
        STREAM_IN_USE = 8, "stream in use";
        /// The peer sent DATA after FIN.
        STREAM_ALREADY_CLOSED = 9, "stream already closed";
        /// The peer sent a frame that is larger than the sender accepts.
        FRAME_TOO_LARGE = 11, "frame too large";
    }
}

codes! {
    /// The status of GOAWAY: why a connection ends (SPDY/3.1 §2.6.6).
    GoAwayStatus {
        /// The sender ends the connection in good order.
        OK = 0, "in good order";
        /// The peer broke a rule.
        PROTOCOL_ERROR = 1, "protocol error";
        /// The sender failed.
        INTERNAL_ERROR = 2, "internal error";
    }
}

codes! {
    /// What a [`Setting`] sets (§2.6.4).
    SettingId {
        /// Expected upload bandwidth.
        UPLOAD_BANDWIDTH = 1, "upload bandwidth";
        /// Expected download bandwidth.
        DOWNLOAD_BANDWIDTH = 2, "download bandwidth";
        /// Expected round-trip time.
        ROUND_TRIP_TIME = 3, "round-trip time";
        /// How many streams the sender lets the peer have open.
        MAX_CONCURRENT_STREAMS = 4, "maximum of concurrent streams";
        /// TCP's congestion window.
        CURRENT_CWND = 5, "congestion window";
        /// Retransmission rate.
        DOWNLOAD_RETRANS_RATE = 6, "retransmission rate";
        /// The window new streams start with, in bytes.
        INITIAL_WINDOW_SIZE = 7, "initial window size";
        /// Size of the client certificate vector.
        CLIENT_CERTIFICATE_VECTOR_SIZE = 8, "client certificate vector size";
    }
}

/// The entries of a SETTINGS frame, in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    clear: bool,
    entries: Vec<Setting>,
}

impl Settings {
    /// One entry, with no flags.
    #[must_use]
    pub fn single(id: SettingId, value: u32) -> Self {
        Self::new(false, vec![Setting::new(0, id, value)])
    }

    /// Creates a SETTINGS frame's content. `clear` asks the peer to forget its stored settings.
    #[must_use]
    pub fn new(clear: bool, entries: Vec<Setting>) -> Self {
        Self { clear, entries }
    }

    /// Whether the peer shall forget its stored settings.
    #[must_use]
    pub fn clear(&self) -> bool {
        self.clear
    }

    /// All entries, repeated ones included.
    #[must_use]
    pub fn entries(&self) -> &[Setting] {
        &self.entries
    }

    /// The value of `id`. If an id is repeated, the first value counts (§2.6.4).
    #[must_use]
    pub fn get(&self, id: SettingId) -> Option<u32> {
        self.entries.iter().find(|entry| entry.id == id).map(|entry| entry.value)
    }
}

/// One entry of SETTINGS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// 0x1 PERSIST_VALUE, 0x2 PERSISTED.
    pub flags: u8,
    /// Which setting this is: 24 bits.
    pub id: SettingId,
    /// The setting's value.
    pub value: u32,
}

impl Setting {
    /// Creates an entry. Only the lower 24 bits of `id` are sent.
    #[must_use]
    pub const fn new(flags: u8, id: SettingId, value: u32) -> Self {
        Self { flags, id, value }
    }
}
