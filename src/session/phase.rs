//! How far a connection has come, and on which stream the peer says its last word.
//!
//! This file owns these two states. It must not change them, which is the job of [`ending`](super::ending).

use super::error::ConnectionError;
use crate::wire::spdy::StreamId;

/// How far the connection has come.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Open,
    /// This end is closing: it opens no new streams, and sends GOAWAY after everything queued.
    Closing,
    /// GOAWAY was sent, or the connection failed. Only the messages in `replies` are still sent.
    Closed(ConnectionError),
}

/// The stream with the peer's last word, such as the status of a command: after DATA on it, this end sends nothing
/// more.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastWord {
    pub(super) id: StreamId,
    /// A reset of the stream by the peer does not end it.
    pub(super) despite_reset: bool,
    /// The transport keeps the order, so that nothing else from the peer can follow the last word.
    pub(super) is_last: bool,
    /// DATA has arrived on the stream.
    pub(super) begun: bool,
}
