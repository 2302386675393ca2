//! How long a session waits for its peer.
//!
//! Only the values; the client and the server keep the time.

use std::time::Duration;

/// The time limits of a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Time for all streams of the session to be made and answered. Default: 30 s, as in Kubernetes' servers and
    /// clients.
    pub creation_timeout: Duration,
    /// How long a client accepts silence from the server after all outputs have ended, while the server may have unread
    /// stdin. If the process leaves about a megabyte of stdin unread, a Go server never sends a status. After half of
    /// this time the client sends a PING. A server that answers is waited for, and so is a server that was sent no
    /// stdin: a command may close its outputs and work on for hours. Default: 10 s.
    pub status_timeout: Duration,
    /// How long a client accepts silence from the server after the status, while an output has not ended. Then the
    /// client sends a PING, and after the same time once more it gives the server up: the limit is twice this value. A
    /// server that answers or sends is waited for. Default: 5 s.
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
