//! The streams of a SPDY connection.
//!
//! This module owns the table of streams. A session's streams stay in it to the end of the session, because some Go
//! servers send more after a reset. A port-forward stream stays until both sides have ended it. The module must not
//! answer a frame.

use std::collections::HashMap;

use crate::protocol::Protocol;
use crate::wire::SpdyConfig;
use crate::wire::spdy::{Frame, GoAwayStatus, Headers, RstStatus, StreamId};
use bytes::Bytes;

use super::event::{Events, StreamName, TapEvent, TapStream, too_many_streams};
use super::framing::Frames;
use super::session::Session;
use super::side::{Both, Side};
use crate::session::ConnectionError;

/// How many bytes of headers one byte on the wire may inflate to, on average. The peers of Kubernetes reach three.
const INFLATION: usize = 16;

#[derive(Debug)]
pub(super) struct Spdy {
    frames: Both<Frames>,
    /// Bytes of headers beyond [`INFLATION`] times the bytes on the wire.
    inflated: Both<usize>,
    max_header_bytes: usize,
    streams: HashMap<StreamId, Known>,
    is_session: bool,
    max_streams: usize,
}

#[derive(Debug)]
struct Known {
    stream: TapStream,
    ended: Both<bool>,
}

impl Spdy {
    pub(super) fn new(protocol: Protocol, config: &SpdyConfig) -> Self {
        let is_session = protocol.version().is_some();
        Self {
            frames: Frames::both(config),
            inflated: Both::default(),
            max_header_bytes: config.max_header_bytes,
            streams: HashMap::new(),
            is_session,
            max_streams: config.max_streams,
        }
    }

    pub(super) fn step(
        &mut self,
        side: Side,
        bytes: &mut Bytes,
        session: Option<&mut Session>,
        events: &mut Events,
    ) -> Result<bool, ConnectionError> {
        let before = bytes.len();
        let frame = self.frames[side].next(bytes)?;
        let paid = before.saturating_sub(bytes.len()).saturating_mul(INFLATION);
        let inflated = &mut self.inflated[side];
        *inflated = inflated.saturating_sub(paid);
        let Some(frame) = frame else { return Ok(false) };
        *inflated = inflated.saturating_add(frame.headers().map_or(0, Headers::block_len));
        if *inflated > self.max_header_bytes {
            return Err(ConnectionError::LimitExceeded {
                limit: "max_header_bytes",
                value: self.max_header_bytes as u64,
            });
        }
        self.take(side, frame, session, events)?;
        Ok(true)
    }

    pub(super) fn is_between_frames(&self, side: Side) -> bool {
        self.frames[side].is_between_frames()
    }

    fn take(
        &mut self,
        side: Side,
        frame: Frame,
        mut session: Option<&mut Session>,
        events: &mut Events,
    ) -> Result<(), ConnectionError> {
        match frame {
            // A second SYN_STREAM with the same id is an error of that stream and opens none.
            Frame::SynStream { id, .. } if self.streams.contains_key(&id) => {}
            Frame::SynStream { id, headers, fin, unidirectional, .. } => {
                if self.streams.len() >= self.max_streams {
                    return Err(too_many_streams(self.max_streams));
                }
                let name = if self.is_session {
                    StreamName::in_session(&headers)
                } else {
                    StreamName::in_port_forward(&headers)
                };
                let stream = TapStream { id: id.get(), name };
                events.push_back(TapEvent::Opened { side, stream: stream.clone() });
                // The other direction of a unidirectional stream never existed, so its end is not reported.
                let mut ended = Both::default();
                ended[side.other()] = unidirectional;
                self.streams.insert(id, Known { stream, ended });
                if fin {
                    self.end(side, id, None, session, events);
                }
            }
            Frame::SynReply { id, fin: true, .. } | Frame::Headers { id, fin: true, .. } => {
                self.end(side, id, None, session, events);
            }
            Frame::Data { id, fin, data } => {
                if let Some(Known { stream, .. }) = self.streams.get(&id)
                    && !data.is_empty()
                {
                    events.push_back(TapEvent::Data { side, stream: stream.clone(), data: data.clone() });
                    if let Some(session) = session.as_deref_mut() {
                        session.push(side, &stream.name, &data, events);
                    }
                }
                if fin {
                    self.end(side, id, None, session, events);
                }
            }
            Frame::RstStream { id, status } => self.end(side, id, Some(status), session, events),
            Frame::GoAway { status, .. } => {
                if let Some(session) = session
                    && side == Side::Server
                {
                    session.goaway(status == GoAwayStatus::OK, events);
                }
                events.push_back(TapEvent::GoAway { side, status });
            }
            _ => {}
        }
        Ok(())
    }

    fn end(
        &mut self,
        side: Side,
        id: StreamId,
        reset: Option<RstStatus>,
        session: Option<&mut Session>,
        events: &mut Events,
    ) {
        let Some(known) = self.streams.get_mut(&id) else { return };
        events.push_back(TapEvent::End { side, stream: known.stream.clone(), reset });
        if let Some(session) = session
            && (side, &known.stream.name) == (Side::Server, &StreamName::Error)
        {
            session.end_error(reset, events);
        }
        known.ended[side] = true;
        if !self.is_session && (reset.is_some() || known.ended.client && known.ended.server) {
            self.streams.remove(&id);
        }
    }
}
