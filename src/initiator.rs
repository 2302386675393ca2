//! Who caused an error.
//!
//! Only the type: each error type has a method that returns it.

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // complete by definition: us, our caller, or the other end
pub enum Initiator {
    /// The caller of this crate, that is, your program.
    User,
    /// This crate: a limit or a timer of its own ended the work, and neither the caller nor the peer did anything
    /// wrong. An example is [`ConnectionError::IdleTimeout`](crate::ConnectionError::IdleTimeout).
    Library,
    /// The peer, or the network on the way to it. A peer that exceeds a limit, or does not answer in time, counts here.
    Remote,
}
