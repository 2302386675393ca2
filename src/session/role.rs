//! The two ends of a connection.
//!
//! This file owns the differences between the two that SPDY defines.

/// The role of an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // there are two ends
pub enum Role {
    /// The end that connected. It opens streams with odd ids.
    Client,
    /// The end that accepted. It opens streams with even ids, and sends nothing before the client's first frame.
    Server,
}

impl Role {
    /// Whether this end sends PINGs with this id. A client's ids are odd, and a server's are even (§2.6.5). A received
    /// PING with such an id is an answer.
    pub(crate) fn sends_ping(self, id: u32) -> bool {
        (id & 1 == 1) == (self == Self::Client)
    }
}
