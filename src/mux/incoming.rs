//! Streams that the peer opens.
//!
//! This file owns how such a stream is answered: it is accepted, refused or reset.

use std::sync::Arc;

use super::stream::Stream;
use super::stream_ref::StreamRef;
use crate::session::ConnectionError;
use crate::wire::spdy::{Headers, RstStatus};

/// A stream that the peer has opened and that this end has not answered yet. If it is dropped, the stream is refused.
#[derive(Debug)]
pub struct Incoming {
    stream: Arc<StreamRef>,
    headers: Headers,
    answered: bool,
}

impl Incoming {
    pub(super) fn new(stream: Arc<StreamRef>, headers: Headers) -> Self {
        Self { stream, headers, answered: false }
    }

    /// The headers of the SYN_STREAM. Over WebSocket channels, the headers that the stream would have over SPDY.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Forgets the headers, which may take 64 KiB, of a stream that waits for long.
    pub(crate) fn forget_headers(&mut self) {
        self.headers = Headers::new();
    }

    /// The stream's id on the wire. For WebSocket channels, see [`Stats::stalled_by`](super::Stats::stalled_by).
    #[must_use]
    pub fn id(&self) -> u32 {
        self.stream.id()
    }

    /// Accepts the stream. The SYN_REPLY has no headers, as with Kubernetes' servers.
    #[must_use]
    pub fn reply(mut self) -> Stream {
        // This cannot fail: empty headers are valid.
        let _ = self.stream.reply(Headers::new());
        self.answered = true;
        Stream::new(Arc::clone(&self.stream))
    }

    /// Accepts the stream, with headers in the SYN_REPLY.
    ///
    /// # Errors
    /// [`ConnectionError::InvalidHeader`] if the headers cannot be sent. The stream is then refused.
    pub fn reply_with(mut self, headers: Headers) -> Result<Stream, ConnectionError> {
        self.stream.reply(headers)?;
        self.answered = true;
        Ok(Stream::new(Arc::clone(&self.stream)))
    }

    /// Refuses the stream with [`RstStatus::REFUSED_STREAM`], which tells the peer that nothing was done with it.
    pub fn refuse(self) {
        self.reject(RstStatus::REFUSED_STREAM);
    }

    /// Resets the stream with a status of your choice. Kubernetes' servers use [`RstStatus::CANCEL`] for a stream that
    /// they do not want.
    pub fn reject(mut self, status: RstStatus) {
        self.answered = true;
        self.stream.reset(status);
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.answered {
            self.stream.reset(RstStatus::REFUSED_STREAM);
        }
    }
}
