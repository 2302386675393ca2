//! Streams that both ends have from the start, because their transport has a fixed set of streams.
//!
//! This file owns the description of such a stream by its transport.

use crate::wire::spdy::Headers;

/// A stream that both ends have from the start.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// What the stream is for.
    pub(crate) headers: Headers,
    /// The stream counts as answered from the start.
    pub(crate) answered: bool,
    /// This end may send on the stream. Otherwise a write fails the stream, as if the peer had reset it.
    pub(crate) heard: bool,
    /// When this end finishes the stream, the peer's direction ends too.
    pub(crate) ends_with_ours: bool,
}
