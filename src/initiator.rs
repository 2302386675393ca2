//! Who caused an error.
//!
//! Owns the three answers. Each error type says which of them it is.

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // complete by definition: us, our caller, or the other end
pub enum Initiator {
    /// The caller of this crate.
    User,
    /// This crate: a limit or a timer of ours.
    Library,
    /// The peer, or the network on the way to it.
    Remote,
}
