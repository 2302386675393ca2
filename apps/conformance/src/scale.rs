//! How much of everything a run does.
//!
//! Owns the figures, in one place, and their defaults.

use std::time::Duration;

/// The size of a run.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Fast exits, each of which must have all its output.
    pub fast_exits: usize,
    /// Megabytes, of 10^6 bytes, each way.
    pub megabytes: usize,
    /// Exit codes 0, 1, … up to this many, of which there are 256.
    pub exit_codes: usize,
    /// Sessions at a time, each on its own connection.
    pub sessions: usize,
    /// Forwarded connections at a time.
    pub connections: usize,
    /// Outputs that end under a client that writes.
    pub tails: usize,
    /// Short sessions that run at a time where a case has many of them.
    pub parallel: usize,
    /// What the client's keepalive is set to: kubectl's.
    pub keepalive: Duration,
    /// How long nothing happens, where nothing must.
    pub idle: Duration,
    /// For anything that happens at once on a server that is well.
    pub patience: Duration,
    /// For a case in one column, whatever it does.
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
