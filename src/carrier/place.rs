//! The ids of streams where the transport has none: by their places, 1, 3, 5, and so on.
//!
//! Owns the two directions of that.

use crate::wire::spdy::StreamId;

/// The id of a stream by its place.
pub(super) fn id_at(at: usize) -> StreamId {
    StreamId::new(u32::try_from(at).unwrap_or(0).saturating_mul(2).saturating_add(1))
}

/// The place of a stream by its id.
pub(super) fn place_of(id: StreamId) -> usize {
    usize::try_from(id.get() / 2).unwrap_or(usize::MAX)
}
