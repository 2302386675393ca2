//! Streams that the peer opens.
//!
//! This file owns the answer to one: taken, refused or reset.

use std::sync::Arc;

use super::stream::{Stream, StreamRef};
use crate::session::ConnectionError;
use crate::wire::spdy::{Headers, RstStatus, StreamId};

/// A stream that the peer opened and that is not answered yet. Dropped, it is refused.
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

    /// The headers it was opened with.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The id it was opened with.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.stream.id()
    }

    /// Takes the stream, with a SYN_REPLY without headers, as Kubernetes' servers do.
    #[must_use]
    pub fn reply(mut self) -> Stream {
        // No headers cannot be unfit.
        let _ = self.stream.reply(Headers::new());
        self.answered = true;
        Stream::new(Arc::clone(&self.stream))
    }

    /// Takes the stream, with headers in the SYN_REPLY.
    ///
    /// # Errors
    /// [`ConnectionError::InvalidHeader`]; the stream is refused then.
    pub fn reply_with(mut self, headers: Headers) -> Result<Stream, ConnectionError> {
        self.stream.reply(headers)?;
        self.answered = true;
        Ok(Stream::new(Arc::clone(&self.stream)))
    }

    /// Refuses it: nothing was done with it.
    pub fn refuse(self) {
        self.reject(RstStatus::REFUSED_STREAM);
    }

    /// Resets it. Kubernetes' servers say [`RstStatus::CANCEL`] where they do not want a stream.
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
