//! Tables by stream id or PING id.
//!
//! This file owns how the ids are hashed. It must not know what a table holds.

use std::collections::HashMap;

/// The standard hash takes longer than all else that is done to find a stream. This one has a random seed too, since the
/// peer chooses ids, and need not resist more than that: the limits of streams and PINGs bound how many entries can
/// share a place.
pub(crate) type ById<Id, T> = HashMap<Id, T, foldhash::fast::RandomState>;
