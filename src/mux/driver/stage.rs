//! The stages of a connection's ending.
//!
//! This file owns the order. What happens in each stage is in [`closing`](super::closing) and in the driver.

use std::time::Instant;

/// How far the ending has come. The write side ends first, and is read on from: a socket closed with bytes unread is reset by the
/// kernel, and a reset takes with it what the peer has not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    /// The last frames go out, for as long as the peer takes them: they may be the tail of somebody's output.
    Flushing,
    /// A server has said goodbye, and leaves the end to its client: until that is silent for too long, or does not end at all.
    Waiting {
        until: Instant,
        at_most: Instant,
    },
    Shutting {
        until: Instant,
        last: bool,
    },
    /// The peer's end is read for: until it is silent for too long, or does not end at all.
    Lingering {
        until: Instant,
        at_most: Instant,
    },
    Ended,
}

/// What a peer says that nobody listens to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overheard {
    Talk,
    /// It says no more, or nothing that could matter.
    End,
}

/// What the peer's bytes are while the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Frames, of which only a goodbye still matters.
    Frames,
    /// No frames, or frames that break a rule: they are dropped.
    Unreadable,
    /// Whatever follows the peer's GOAWAY or Close: it is dropped, and the peer waits for nothing more.
    Goodbye,
}

/// What can still be written once the connection has fallen silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Every frame was written to its end: a last one may follow.
    Whole,
    /// The last frame, a PING or a GOAWAY, is being written.
    LastFrame,
    /// A frame was not written to its end, or a write failed: no frame can follow.
    Cut,
}
