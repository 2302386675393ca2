//! How long a session waits.

use std::time::Duration;

/// How long a session waits for what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For all streams to be made and answered. Default: 30 s, as Kubernetes' servers and clients.
    pub creation_timeout: Duration,
    /// For a sign of life from the server, once all outputs have ended while it may have stdin of ours unread: a Go server whose
    /// process did not read a megabyte of it never sends a status. At half of this time it is asked. Whoever answers, or was sent
    /// no stdin, is waited for: a command may close its outputs and work on for hours. Default: 10 s.
    pub status_timeout: Duration,
    /// For a sign of life from the server, once the status is there and outputs have not ended: after so long it is asked, and after as
    /// long again given up, so that it takes twice this. Whoever answers or sends is waited for. Default: 5 s.
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
