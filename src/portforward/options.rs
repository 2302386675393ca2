//! How long port-forward waits, and how much it holds.

use std::time::Duration;

/// How long port-forward waits for what, and how much of it there may be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For a client: for both streams of a connection to be answered. For a server: for the second stream of a pair to
    /// come, as long as Go's servers wait. Default: 30 s.
    pub creation_timeout: Duration,
    /// For a client, once the data stream has ended: for the error stream to say whether that was well. Default: 5 s.
    pub reason_grace: Duration,
    /// For a server: pairs of which one stream has come. The next is refused. Go's clients make the two streams of each
    /// connection in two round trips, so that hundreds of connections at a time have as many halves. Default: 512.
    pub max_half_pairs: usize,
    /// How long one connection that nobody reads may hold up the others, and new ones: then it is reset, where nothing else is read of the peer's for
    /// its sake and somebody waits for that, and its reader gets [`StreamError::Stalled`](crate::StreamError::Stalled). Alone it is left for as long as it likes. `None`: it
    /// always is. Default: 20 s, less than a new connection waits for its answer; [`Config::stream_stall_timeout`](crate::mux::Config::stream_stall_timeout) goes before it.
    ///
    /// Peers without windows, as Go's are, cannot be made to hold back one stream: a browser's tab that is stopped in the midst of a download would
    /// keep all that the other tabs ask for from being read. What a server cannot see is that its client would open one more.
    pub stall_timeout: Option<Duration>,
    /// For [`Connection::relay`](super::Connection::relay), and `LocalConnection::forward`, once the connection has failed: for a socket that was given more than 64 KiB of
    /// late to take the rest. And once the other side has ended and takes nothing more: for a socket to end that still sends. Default: 5 s.
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
