//! Who caused an error.
//!
//! Only the type: each error type has a method that returns it.

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // complete by definition: us, our caller, or the other end
pub enum Initiator {
    /// The caller of this crate.
    User,
    /// This crate, by a timer that the peer did not cause to run out.
    Library,
    /// The peer, or the network on the way to it. A peer that exceeds a limit, or does not answer in time, counts here.
    Remote,
}
