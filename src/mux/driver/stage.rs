//! The stages in which a connection ends, and what is known of the peer in them.
//!
//! This file owns the names and their order. What happens in each stage is in [`closing`](super::closing) and in the
//! driver.

use std::time::Instant;

use crate::session::Connection;

/// How far the ending has come.
///
/// The write side is shut down first, and the socket is still read after that: the kernel resets a socket that is
/// closed with unread bytes, and a reset destroys what the peer has not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    /// The last frames are written, for as long as the peer accepts them. They may be the tail of an output.
    Flushing,
    /// A server has sent its goodbye, and waits until its client ends the connection. `until` is the end of the allowed
    /// silence, and `at_most` the last moment.
    Waiting {
        until: Instant,
        at_most: Instant,
    },
    /// The write side is being shut down. `last`: the peer needs no further waiting.
    Shutting {
        until: Instant,
        last: bool,
    },
    /// The write side is shut down, and the socket is read until the peer ends. `until` is the end of the allowed
    /// silence, and `at_most` the last moment.
    Lingering {
        until: Instant,
        at_most: Instant,
    },
    Ended,
}

/// What a read has found after the connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overheard {
    /// Bytes that no longer matter.
    Talk,
    /// The peer's end or goodbye.
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

/// What can still be written after the connection has stopped sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Every frame was written to its end: a last one may follow.
    Whole,
    /// The last frame, a PING or a GOAWAY, is being written.
    LastFrame,
    /// A frame was not written to its end, or a write failed: no frame can follow.
    Cut,
}

/// What the driver has to know of the state between two of its changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) wants_read: bool,
    pub(super) is_closed: bool,
    pub(super) is_silent: bool,
    pub(super) has_taken_all: bool,
    pub(super) has_output: bool,
}

impl Seen {
    pub(super) fn of(connection: &Connection) -> Self {
        Self {
            wants_read: connection.wants_read(),
            is_closed: connection.is_closed(),
            is_silent: connection.is_silent(),
            has_taken_all: connection.has_taken_all(),
            has_output: connection.has_output(),
        }
    }
}
