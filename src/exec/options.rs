//! How long a session waits for its peer.
//!
//! Only the values; the client and the server keep the time.

use std::time::Duration;

/// The time limits of a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long it may take until all streams of the session are opened and answered. A client waits for the answers,
    /// and a server waits until the client has opened the streams. Default: 30 s, as in Kubernetes' servers and
    /// clients.
    pub creation_timeout: Duration,
    /// For a client: how long the server may be silent after all outputs have ended and before the status, if the
    /// client has sent stdin that the server may not have read. If the process leaves about a megabyte of stdin unread,
    /// a Go server never sends a status. After half of this time the client sends a PING. The client keeps waiting for
    /// a server that answers, and for a server that was sent no stdin, because a command may close its outputs and work
    /// on for hours. Default: 10 s.
    pub status_timeout: Duration,
    /// For a client: how long the server may be silent after the status, while an output has not ended, before the
    /// client sends a PING. After the same time again without an answer, the client gives up. So the limit is twice
    /// this value. The client keeps waiting for a server that answers or sends anything. Default: 5 s.
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
