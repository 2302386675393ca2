//! What a connection tells those who use it.
//!
//! This file owns the events, and what a read and a write can come to.

use bytes::Bytes;

use crate::wire::spdy::{RstStatus, StreamId};

/// What happened that somebody may be waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a stream: [`Connection::take_headers`](super::Connection::take_headers), then [`Connection::reply`](super::Connection::reply) or [`Connection::reset`](super::Connection::reset).
    Incoming(StreamId),
    /// The peer answered, or reset, a stream of ours.
    Answered(StreamId),
    /// A reader that was told [`ReadOutcome::Blocked`] should try again.
    Readable(StreamId),
    /// A writer that was told [`WriteOutcome::Blocked`] should try again.
    Writable(StreamId),
    /// Nothing more will come on the stream; what came before may still be unread. Once the connection is closed it comes again when
    /// all of it is read.
    Ended(StreamId),
    /// All that was written on the stream, and its FIN, has been given to the transport; or never will be.
    Sent(StreamId),
    /// An [`Connection::open`](super::Connection::open) that had to wait may succeed now.
    CanOpen,
    /// The peer answered a PING.
    Pong(u32),
    /// The connection is closed or failed: everybody should look again.
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
    /// Nothing yet. [`Event::Readable`] will come.
    Blocked,
}

/// What [`Connection::write`](super::Connection::write) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // complete: there are no other states of a writer
pub enum WriteOutcome {
    /// The bytes are queued.
    Queued,
    /// The stream's send buffer is full; nothing was taken. [`Event::Writable`] will come.
    Blocked,
}
