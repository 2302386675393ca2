//! The sizes of a run.
//!
//! Holds the figures and their defaults in one place.

use std::time::Duration;

/// The sizes of a run.
#[derive(Clone, Debug)]
pub struct Scale {
    /// The number of commands that exit at once. Each must deliver its whole output.
    pub fast_exits: usize,
    /// The size of a large transfer in each direction, in megabytes of 10^6 bytes.
    pub megabytes: usize,
    /// How many exit codes are tried, of 256.
    pub exit_codes: usize,
    /// The number of concurrent sessions, each on its own connection.
    pub sessions: usize,
    /// The number of concurrent forwarded connections.
    pub connections: usize,
    /// How many outputs are read to their end while the client writes.
    pub tails: usize,
    /// How many short sessions run at once, in a case that has many.
    pub parallel: usize,
    /// The interval of the client's keepalive; the default is kubectl's.
    pub keepalive: Duration,
    /// How long a case stays silent to see what an idle session does.
    pub idle: Duration,
    /// The time limit of a step that a healthy server does at once.
    pub patience: Duration,
    /// The time limit of a case in one column.
    pub deadline: Duration,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            fast_exits: 1000,
            megabytes: 100,
            exit_codes: 256,
            sessions: 50,
            connections: 100,
            tails: 20,
            parallel: 8,
            keepalive: Duration::from_secs(5),
            idle: Duration::from_secs(12),
            patience: Duration::from_secs(20),
            deadline: Duration::from_secs(600),
        }
    }
}
