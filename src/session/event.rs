//! The events of a connection.
//!
//! This file owns the events, and the outcomes of a read and a write.

use bytes::Bytes;

use crate::wire::spdy::{RstStatus, StreamId};

/// Something happened that a task may be waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a stream. Get its headers with [`Connection::take_headers`](super::Connection::take_headers), and answer it with
    /// [`Connection::reply`](super::Connection::reply) or [`Connection::reset`](super::Connection::reset).
    Incoming(StreamId),
    /// The peer answered, or reset, a stream of ours.
    Answered(StreamId),
    /// A reader that was told [`ReadOutcome::Blocked`] should try again.
    Readable(StreamId),
    /// A writer that was told [`WriteOutcome::Blocked`] should try again.
    Writable(StreamId),
    /// No more bytes will arrive on the stream. Bytes that arrived before may still be unread. On a closed connection the event is
    /// repeated when all of them are read.
    Ended(StreamId),
    /// All bytes that were written on the stream, and its FIN, have been taken for sending, or never will be.
    Sent(StreamId),
    /// An [`Connection::open`](super::Connection::open) that had to wait may succeed now.
    CanOpen,
    /// The peer answered a PING.
    Pong(u32),
    /// The connection is closed or failed: every waiting task should check its state.
    Closed,
}

/// What [`Connection::read`](super::Connection::read) found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // complete: there are no other states of a reader
pub enum ReadOutcome {
    /// The next bytes.
    Data(Bytes),
    /// The peer sent FIN, and all before it was read.
    Finished,
    /// The peer reset the stream, and all before it was read.
    Reset(RstStatus),
    /// There are no bytes yet. [`Event::Readable`] tells when to try again.
    Blocked,
}

/// What [`Connection::write`](super::Connection::write) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // complete: there are no other states of a writer
pub enum WriteOutcome {
    /// The bytes are queued.
    Queued,
    /// The stream's send buffer is full, and nothing was queued. [`Event::Writable`] tells when to try again.
    Blocked,
}
