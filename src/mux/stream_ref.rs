//! What all handles of one stream share.
//!
//! This module owns the reference of a stream's handles to its connection. It must not read or write the stream.

use std::fmt;
use std::sync::Arc;

use super::shared::Shared;
use crate::session::ConnectionError;
use crate::wire::spdy::{Headers, RstStatus, StreamId};

/// The stream that both halves refer to. When the last half is dropped, the connection may forget the stream.
pub(super) struct StreamRef {
    pub(super) shared: Arc<Shared>,
    pub(super) id: StreamId,
}

impl StreamRef {
    /// The caller must have counted the handle already, while it held the lock under which the stream was created.
    pub(super) fn new(shared: &Arc<Shared>, id: StreamId) -> Arc<Self> {
        Arc::new(Self { shared: Arc::clone(shared), id })
    }

    pub(super) fn id(&self) -> u32 {
        self.id.get()
    }

    pub(super) fn reply(&self, headers: Headers) -> Result<(), ConnectionError> {
        self.shared.with(|state| state.connection.reply(self.id, headers))
    }

    pub(super) fn reset(&self, status: RstStatus) {
        self.shared.with(|state| state.connection.reset(self.id, status));
    }
}

impl Drop for StreamRef {
    fn drop(&mut self) {
        let _unused_wakers = self.shared.with(|state| {
            state.connection.release(self.id);
            state.forget(self.id)
        });
        self.shared.handle_dropped();
    }
}

impl fmt::Debug for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamRef").field(&self.id).finish()
    }
}
