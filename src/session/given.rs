//! Streams that both ends have from the start, because their transport has a fixed set of them.
//!
//! This file owns what a transport says of such a stream.

use crate::wire::spdy::Headers;

/// A stream that both ends have from the start.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// What it is for.
    pub(crate) headers: Headers,
    /// The server need not answer it.
    pub(crate) answered: bool,
    /// The peer listens to what this end sends on it. Else what is written fails the stream, as if the peer had reset it.
    pub(crate) heard: bool,
    /// The peer's direction ends with ours.
    pub(crate) ends_with_ours: bool,
}
