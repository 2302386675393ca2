//! Reads the error stream and the resize stream of a session.
//!
//! This module owns when a status and a size are reported. It must not know frames or messages. The modules of the
//! protocols read those, and pass on the bytes with the stream's name.

use crate::protocol::{Transport, Version};
use crate::status::{ResizeDecoder, StatusReader};
use crate::wire::spdy::RstStatus;
use bytes::Bytes;

use super::event::{Events, StreamName, TapEvent};
use super::side::Side;

#[derive(Debug)]
pub(super) struct Session {
    version: Version,
    transport: Transport,
    /// `None` once the status has been reported.
    status: Option<StatusReader>,
    error_has_bytes: bool,
    /// `None` once the resize stream carried something that is not a size.
    resize: Option<ResizeDecoder>,
    /// Bytes of the resize stream that have not been read yet.
    sizes: Bytes,
}

impl Session {
    pub(super) fn new(version: Version, transport: Transport) -> Self {
        Self {
            version,
            transport,
            status: Some(StatusReader::new(version)),
            error_has_bytes: false,
            resize: Some(ResizeDecoder::default()),
            sizes: Bytes::new(),
        }
    }

    /// A side sends bytes on a stream.
    pub(super) fn push(&mut self, side: Side, stream: &StreamName, data: &Bytes, events: &mut Events) {
        match (side, stream) {
            (Side::Server, StreamName::Error) => self.push_error(data, events),
            (Side::Client, StreamName::Resize) if self.resize.is_some() => self.sizes = data.clone(),
            _ => {}
        }
    }

    fn push_error(&mut self, bytes: &[u8], events: &mut Events) {
        let Some(reader) = &mut self.status else { return };
        self.error_has_bytes = true;
        // Up to one brace at a time, so that the result does not depend on how the bytes were cut.
        for piece in bytes.split_inclusive(|byte| *byte == b'}') {
            if let Some(status) = reader.push(piece).transpose() {
                events.push_back(TapEvent::Status(status));
                self.status = None;
                return;
            }
        }
    }

    /// The server ends the error stream.
    pub(super) fn end_error(&mut self, reset: Option<RstStatus>, events: &mut Events) {
        // Servers of v1 over SPDY reset the error stream as soon as all streams are made, and still send the error on
        // it.
        if reset.is_none() || !self.ends_by_goaway() {
            self.finish(reset.is_none_or(|status| status == RstStatus::CANCEL), events);
        }
    }

    /// The server sends GOAWAY.
    pub(super) fn goaway(&mut self, orderly: bool, events: &mut Events) {
        if self.ends_by_goaway() {
            self.finish(orderly, events);
        }
    }

    /// Whether the session ends with GOAWAY and not with the end of the error stream.
    fn ends_by_goaway(&self) -> bool {
        (self.version, self.transport) == (Version::V1, Transport::Spdy)
    }

    /// The server sends nothing more on the error stream. Up to v3 an empty error stream means success, but only if the
    /// server ended the stream in an `orderly` way.
    pub(super) fn finish(&mut self, orderly: bool, events: &mut Events) {
        let Some(reader) = self.status.take_if(|_| orderly || self.error_has_bytes) else { return };
        if let Some(status) = reader.finish().transpose() {
            events.push_back(TapEvent::Status(status));
        }
    }

    /// Returns the next size. Every size is reported, not only the last.
    pub(super) fn poll_size(&mut self) -> Option<TapEvent> {
        while !self.sizes.is_empty() {
            let decoder = self.resize.as_mut()?;
            let end = self.sizes.iter().position(|byte| *byte == b'}');
            let end = end.map_or(self.sizes.len(), |end| end.saturating_add(1));
            match decoder.push(&self.sizes.split_to(end)).transpose() {
                Some(Ok(size)) => return Some(TapEvent::Resize(Ok(size))),
                Some(Err(error)) => {
                    self.resize = None;
                    self.sizes = Bytes::new();
                    return Some(TapEvent::Resize(Err(error)));
                }
                None => {}
            }
        }
        None
    }
}
