//! How long port-forward waits, and how many streams it holds.
//!
//! Only the values; the client, the server and the relay keep to them.

use std::time::Duration;

/// The limits of port-forward.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For a client: time for both streams of a connection to be answered. For a server: time for the second stream of
    /// a pair to come. Default: 30 s, as in Go's servers.
    pub creation_timeout: Duration,
    /// For a client: time for the error stream to end once the data stream has ended. A data stream that ended by
    /// RST_STREAM with CANCEL is an end only if the error stream ended in that time, by FIN or RST_STREAM with CANCEL,
    /// and said nothing. After this time only a FIN of the data stream is an end, and CANCEL is an error. Default: 5 s.
    pub reason_grace: Duration,
    /// For a server: the most streams that wait for the other stream of their pair. Further ones are refused. Go's
    /// clients make the two streams of a connection in two round trips, so hundreds of new connections have hundreds of
    /// waiting streams. Default: 512.
    pub max_half_pairs: usize,
    /// How long an unread connection may block the other connections and new ones. Then it is reset, and its reader
    /// gets [`StreamError::Stalled`](crate::StreamError::Stalled). This applies only while its unread bytes keep the
    /// socket from being read, and another connection waits to read or to be answered. With `None` it is never reset.
    /// Default: 20 s, which is less than `creation_timeout`.
    /// [`Config::stream_stall_timeout`](crate::mux::Config::stream_stall_timeout) overrides this.
    ///
    /// A Go peer has no windows, so it cannot be told to pause one stream. Without this limit, a browser tab that
    /// pauses a download would block all other tabs. A server cannot know that its client wants to open another
    /// connection, so it does not reset an unread connection for that.
    pub stall_timeout: Option<Duration>,
    /// For [`Connection::relay`](super::Connection::relay) and `LocalConnection::forward`, in two cases. When the
    /// connection fails: time for the socket's peer to read what the socket was given, if that was more than 64 KiB
    /// without a pause of this length. When the forwarded connection has ended and reads no more: time for the socket
    /// to stop sending. Default: 5 s.
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
