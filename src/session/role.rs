//! The two ends of a connection.
//!
//! This file owns what differs between them by definition.

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // there are two ends
pub enum Role {
    /// Connected: opens odd streams.
    Client,
    /// Accepted: opens even streams, and is silent until the client's first frame.
    Server,
}

impl Role {
    /// Whether a PING with this id is one that this end sends, or the answer to it: a client's are odd (§2.6.5).
    pub(crate) fn sends_ping(self, id: u32) -> bool {
        (id & 1 == 1) == (self == Self::Client)
    }
}
