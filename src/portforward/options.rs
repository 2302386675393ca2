//! How long port-forward waits, and how many streams it holds.
//!
//! Only the values; the client, the server and the relay keep to them.

use std::time::Duration;

/// The limits of port-forward.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For a client: how long it waits until both streams of a connection are answered. For a server: how long it waits
    /// for the second stream of a pair. Default: 30 s, as in Go's servers.
    pub creation_timeout: Duration,
    /// For a client: how long it waits for the end of the error stream once the data stream has ended. If the data
    /// stream ended by RST_STREAM with CANCEL, that is an orderly end only if the error stream was empty and ended in
    /// this time, by FIN or by RST_STREAM with CANCEL. After this time only a FIN of the data stream is an end, and
    /// CANCEL is an error. Default: 5 s.
    pub reason_grace: Duration,
    /// For a server: how many streams may wait for the other stream of their pair. Further streams are refused. Go's
    /// clients make the two streams of a connection in two round trips, so hundreds of new connections have hundreds of
    /// waiting streams. Default: 512.
    pub max_half_pairs: usize,
    /// How long an unread connection may block the other connections and new ones. After this time the unread
    /// connection is reset, and its reader gets [`StreamError::Stalled`](crate::StreamError::Stalled). This applies
    /// only while its unread bytes keep the socket from being read, and another connection waits to read or to be
    /// answered. With `None` no connection is reset. Default: 20 s, which is less than `creation_timeout`.
    /// [`Config::stream_stall_timeout`](crate::mux::Config::stream_stall_timeout) overrides this.
    ///
    /// A Go peer has no windows, so it cannot be told to pause one stream. Without this limit, a browser tab that
    /// pauses a download would block all other tabs. A server cannot know that its client wants to open another
    /// connection, so it does not reset an unread connection for that.
    pub stall_timeout: Option<Duration>,
    /// For [`Connection::relay`](super::Connection::relay) and `PortForward::forward`: how long they wait for the
    /// socket, in three cases.
    /// - The forwarded connection has failed, and more than 64 KiB were written to the socket without a pause of this
    ///   length: how long the socket's peer has to read them.
    /// - The forwarded connection has ended and takes no more bytes: how long the socket has to stop sending.
    /// - Neither the connection nor the socket takes any more bytes: how long the socket has to take some.
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
