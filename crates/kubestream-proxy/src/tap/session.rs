//! What the error and the resize stream of a session say.
//!
//! Owns when that is told. Which stream it is, the protocols know.

use bytes::Bytes;

use super::{Event, Events, Name, Side};
use crate::spdy::RstStatus;
use crate::status::{ResizeDecoder, StatusReader};
use crate::upgrade::{Carrier, Version};

#[derive(Debug)]
pub(super) struct Session {
    version: Version,
    carrier: Carrier,
    /// `None` once the status is told.
    status: Option<StatusReader>,
    said_something: bool,
    /// `None` once something was no size.
    resize: Option<ResizeDecoder>,
    /// What of the resize stream is not read yet.
    sizes: Bytes,
}

impl Session {
    pub(super) fn new(version: Version, carrier: Carrier) -> Self {
        Self {
            version,
            carrier,
            status: Some(StatusReader::new(version)),
            said_something: false,
            resize: Some(ResizeDecoder::default()),
            sizes: Bytes::new(),
        }
    }

    /// A side says something on a stream.
    pub(super) fn push(&mut self, side: Side, stream: &Name, data: &Bytes, events: &mut Events) {
        match (side, stream) {
            (Side::Server, Name::Error) => self.push_error(data, events),
            (Side::Client, Name::Resize) if self.resize.is_some() => self.sizes = data.clone(),
            _ => {}
        }
    }

    fn push_error(&mut self, bytes: &[u8], events: &mut Events) {
        let Some(reader) = &mut self.status else { return };
        self.said_something = true;
        // To each brace by itself, so that it makes no difference what comes in one piece with it.
        for piece in bytes.split_inclusive(|byte| *byte == b'}') {
            if let Some(said) = reader.push(piece).transpose() {
                events.push_back(Event::Status(said));
                self.status = None;
                return;
            }
        }
    }

    /// The server ends the error stream.
    pub(super) fn end_error(&mut self, reset: Option<RstStatus>, events: &mut Events) {
        // v1's servers reset it as soon as all streams are made, and send the error all the same.
        if reset.is_none() || !self.ends_by_farewell() {
            self.finish(reset.is_none_or(|status| status == RstStatus::CANCEL), events);
        }
    }

    /// The server says GOAWAY.
    pub(super) fn farewell(&mut self, well: bool, events: &mut Events) {
        if self.ends_by_farewell() {
            self.finish(well, events);
        }
    }

    fn ends_by_farewell(&self) -> bool {
        (self.version, self.carrier) == (Version::V1, Carrier::Spdy)
    }

    /// The server says no more. Silence is a success up to v3, but for a server that was cut off: `well`, it was not.
    pub(super) fn finish(&mut self, well: bool, events: &mut Events) {
        let Some(reader) = self.status.take_if(|_| well || self.said_something) else { return };
        if let Some(said) = reader.finish().transpose() {
            events.push_back(Event::Status(said));
        }
    }

    /// The next size of those that have come: each of them, and not the last alone.
    pub(super) fn poll_size(&mut self) -> Option<Event> {
        while !self.sizes.is_empty() {
            let decoder = self.resize.as_mut()?;
            let end = self.sizes.iter().position(|byte| *byte == b'}');
            let end = end.map_or(self.sizes.len(), |end| end.saturating_add(1));
            match decoder.push(&self.sizes.split_to(end)).transpose() {
                Some(Ok(size)) => return Some(Event::Resize(Ok(size))),
                Some(Err(error)) => {
                    self.resize = None;
                    self.sizes = Bytes::new();
                    return Some(Event::Resize(Err(error)));
                }
                None => {}
            }
        }
        None
    }
}
