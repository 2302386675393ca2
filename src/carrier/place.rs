//! Stream ids for a transport that has none: the streams are numbered 1, 3, 5 and so on, by their position.
//!
//! This file owns the conversion between position and id.

use crate::wire::spdy::StreamId;

/// The id of the stream at a position.
pub(crate) fn id_at(at: usize) -> StreamId {
    StreamId::new(u32::try_from(at).unwrap_or(0).saturating_mul(2).saturating_add(1))
}

/// The position of the stream with an id.
pub(super) fn place_of(id: StreamId) -> usize {
    usize::try_from(id.get() / 2).unwrap_or(usize::MAX)
}
