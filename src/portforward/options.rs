//! How long port-forward waits, and how many streams it holds.
//!
//! Only the values; the client, the server and the relay keep to them.

use std::time::Duration;

/// The limits of port-forward.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For a client: how long it waits until the server has answered both streams of a forwarded connection. For a
    /// server: how long one stream of a connection waits for the other one. Default: 30 s, as in Go's servers.
    pub creation_timeout: Duration,
    /// For a client: how long it waits, once the data stream has ended, until the error stream ends too. Then it knows
    /// whether the server has reported a failure. If the error stream does not end in this time, it is reset. Default:
    /// 5 s.
    ///
    /// Go's servers end a complete data stream by FIN or by RST_STREAM with CANCEL. FIN is always an end, unless the
    /// error stream carries a reason. CANCEL is an end only if the error stream has ended in this time, by FIN or
    /// CANCEL and without a reason, and is an error otherwise.
    pub reason_grace: Duration,
    /// For a server: how many streams may wait for the other stream of their connection. Further streams are refused.
    /// Go's clients open the two streams of a connection in two round trips, so hundreds of new connections have
    /// hundreds of waiting streams. Default: 512.
    pub max_half_pairs: usize,
    /// How long an unread forwarded connection may block the others. After this time this end resets it, and its reader
    /// gets [`StreamError::Stalled`](crate::StreamError::Stalled). This happens only if its unread bytes have kept the
    /// socket from being read for all this time, and another forwarded connection waits to read or to be answered. With
    /// `None` no connection is reset. Default: 20 s, which is less than `creation_timeout`.
    /// [`Config::stream_stall_timeout`](crate::mux::Config::stream_stall_timeout) overrides this, unless it is `None`.
    ///
    /// A Go peer has no flow control, so it cannot be told to pause one stream. Without this limit, a browser tab that
    /// pauses a download would block all other tabs. While a server does not read its socket, it cannot see that its
    /// client wants to open another connection. So only connections that are open already count as waiting.
    pub stall_timeout: Option<Duration>,
    /// For [`Connection::relay`](super::Connection::relay) and `PortForward::forward`: how long they wait for the
    /// socket to which they copy a forwarded connection, in three cases:
    /// - The forwarded connection has failed, and more than 64 KiB were written to the socket since the last pause of
    ///   at least this length. Then the program at the other end of the socket may not have read them yet. It has this
    ///   long after the last write to do so, and then the socket is dropped.
    /// - The forwarded connection has ended and accepts no more bytes, but the socket still sends. Then the program at
    ///   its other end has this long to stop.
    /// - Neither the forwarded connection nor the socket accepts any more bytes. Then the socket has this long to
    ///   accept some.
    ///
    /// Default: 5 s.
    pub linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            creation_timeout: Duration::from_secs(30),
            reason_grace: Duration::from_secs(5),
            max_half_pairs: 512,
            stall_timeout: Some(Duration::from_secs(20)),
            linger: Duration::from_secs(5),
        }
    }
}
