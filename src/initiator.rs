//! Who caused an error.
//!
//! Only the type: each error type has a method that returns it.

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // complete by definition: us, our caller, or the other end
pub enum Initiator {
    /// The caller of this crate.
    User,
    /// This crate, by one of its limits or timers.
    Library,
    /// The peer, or the network on the way to it.
    Remote,
}
