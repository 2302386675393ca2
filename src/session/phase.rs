//! How far a connection has come, and which word of its peer's is the last.
//!
//! This file owns the two states. What changes them is in [`ending`](super::ending).

use super::error::ConnectionError;
use crate::wire::spdy::StreamId;

/// How far the connection has come.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Open,
    /// We are closing: no new streams, and GOAWAY once all that is queued is out.
    Closing,
    /// GOAWAY is out, or the connection failed: nothing more is sent but what `replies` holds.
    Closed(ConnectionError),
}

/// The stream on which DATA means that the peer has said its last.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastWord {
    pub(super) id: StreamId,
    pub(super) despite_reset: bool,
    /// Nothing else that the peer has to say comes behind it.
    pub(super) is_last: bool,
    pub(super) begun: bool,
}
