//! How long a session waits for its peer.
//!
//! Only the values; the client and the server keep the time.

use std::time::Duration;

/// The time limits of a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The time limit for making all streams of the session, and for their answers. Default: 30 s, as in Kubernetes'
    /// servers and clients.
    pub creation_timeout: Duration,
    /// How long a client accepts silence from the server after all outputs have ended, while the server may have unread
    /// stdin. If the process leaves about a megabyte of stdin unread, a Go server never sends a status. After half of
    /// this time the client sends a PING. The client keeps waiting for a server that answers, and for a server that was
    /// sent no stdin, because a command may close its outputs and work on for hours. Default: 10 s.
    pub status_timeout: Duration,
    /// How long a client accepts silence from the server after the status, while an output has not ended. After this
    /// time the client sends a PING, and after the same time again it gives the server up. So the limit is twice this
    /// value. The client keeps waiting for a server that answers or sends anything. Default: 5 s.
    pub output_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            creation_timeout: Duration::from_secs(30),
            status_timeout: Duration::from_secs(10),
            output_grace: Duration::from_secs(5),
        }
    }
}
