//! The streams of a connection, and what happens to them.
//!
//! This module owns the table of streams. A session's streams stay in it to the end of the session, because some Go
//! servers send more after a reset, and those of WebSocket channels are in it from the start. A port-forward stream of
//! SPDY stays until both sides have ended it. The module must not answer a message.

use std::collections::HashMap;

use super::event::{Events, StreamName, TapEvent, TapStream, too_many_streams};
use super::session::Session;
use super::side::{Both, Side};
use crate::carrier::{EXEC_CHANNELS, id_at, legacy_ports_headers};
use crate::protocol::{PORT, Protocol, REQUEST_ID, STREAM_TYPE};
use crate::session::{ConnectionError, Message};
use crate::wire::spdy::{GoAwayStatus, Headers, RstStatus, StreamId};

#[derive(Debug)]
pub(super) struct Streams {
    known: HashMap<StreamId, Known>,
    is_session: bool,
    /// Streams stay when they have ended: those of a session, and the fixed ones of WebSocket channels.
    stay: bool,
    max_streams: usize,
    /// The highest id that each side has opened.
    opened: Both<u32>,
}

#[derive(Debug)]
struct Known {
    stream: TapStream,
    /// [`TapEvent::Opened`] was reported.
    opened: bool,
    ended: Both<bool>,
}

impl Streams {
    pub(super) fn new(protocol: Protocol, ports: &[u16], max_streams: usize) -> Self {
        let known: HashMap<_, _> = match protocol {
            Protocol::WebSocketExec(_) => EXEC_CHANNELS
                .iter()
                .enumerate()
                .map(|(place, (channel, kind))| {
                    let name = StreamName::in_session(&Headers::from_iter([(STREAM_TYPE, *kind)]));
                    (id_at(place), Known::new(channel.number().into(), name))
                })
                .collect(),
            Protocol::LegacyPortForward(_) => legacy_ports_headers(ports)
                .map(|(channel, headers)| {
                    let known = Known::new(channel.into(), StreamName::in_port_forward(&headers));
                    (id_at(channel.into()), known)
                })
                .collect(),
            Protocol::SpdyExec(_) | Protocol::SpdyPortForward | Protocol::TunneledPortForward => HashMap::new(),
        };
        let is_session = protocol.version().is_some();
        let stay = is_session || matches!(protocol, Protocol::LegacyPortForward(_));
        Self { known, is_session, stay, max_streams, opened: Both::default() }
    }

    /// Takes a message of a side.
    pub(super) fn take(
        &mut self,
        side: Side,
        message: Message,
        mut session: Option<&mut Session>,
        events: &mut Events,
    ) -> Result<(), ConnectionError> {
        match message {
            // A second SYN_STREAM with the same id is an error of that stream and opens none.
            Message::Open { id, .. } if self.known.contains_key(&id) => {}
            Message::Open { id, headers, fin, unidirectional, .. } => {
                if self.known.len() >= self.max_streams {
                    return Err(too_many_streams(self.max_streams));
                }
                if opener(id) != side {
                    return Err(ConnectionError::Protocol("a stream with an id of the other end"));
                }
                check_single(&headers)?;
                self.opened[side] = self.opened[side].max(id.get());
                let name = if self.is_session {
                    StreamName::in_session(&headers)
                } else {
                    StreamName::in_port_forward(&headers)
                };
                let mut known = Known::new(id.get(), name);
                known.open(side, events);
                // The other direction of a unidirectional stream never existed, so its end is not reported.
                known.ended[side.other()] = unidirectional;
                self.known.insert(id, known);
                if fin {
                    self.end(side, id, None, session, events);
                }
            }
            Message::Answer { id, fin, .. } | Message::Headers { id, fin, .. } => {
                if let Some(known) = self.known.get_mut(&id) {
                    known.open(side, events);
                }
                if fin {
                    self.end(side, id, None, session, events);
                }
            }
            // spdystream may handle the SYN_STREAM first, since it has the higher priority, and then deliver the DATA.
            Message::Data { id, .. } if !self.known.contains_key(&id) && self.is_early(side, id) => {
                return Err(ConnectionError::Protocol("DATA on a stream before its SYN_STREAM"));
            }
            Message::Data { id, fin, data } => {
                if let Some(known) = self.known.get_mut(&id)
                    && !data.is_empty()
                {
                    known.open(side, events);
                    events.push_back(TapEvent::Data { side, stream: known.stream.clone(), data: data.clone() });
                    if let Some(session) = session.as_deref_mut() {
                        session.push(side, &known.stream.name, &data, events);
                    }
                }
                if fin {
                    self.end(side, id, None, session, events);
                }
            }
            Message::Reset { id, status } => self.end(side, id, Some(status), session, events),
            Message::Goodbye { status, .. } => {
                if let Some(session) = session
                    && side == Side::Server
                {
                    session.goaway(status == GoAwayStatus::OK, events);
                }
                events.push_back(TapEvent::GoAway { side, status });
            }
            Message::Window { .. } | Message::Settings(_) | Message::Ping(_) => {}
        }
        Ok(())
    }

    /// Whether a side is to open this stream, and has not.
    fn is_early(&self, side: Side, id: StreamId) -> bool {
        side == opener(id) && id.get() > self.opened[side]
    }

    fn end(
        &mut self,
        side: Side,
        id: StreamId,
        reset: Option<RstStatus>,
        session: Option<&mut Session>,
        events: &mut Events,
    ) {
        let Some(known) = self.known.get_mut(&id) else { return };
        known.open(side, events);
        events.push_back(TapEvent::End { side, stream: known.stream.clone(), reset });
        if let Some(session) = session
            && (side, &known.stream.name) == (Side::Server, &StreamName::Error)
        {
            session.end_error(reset, events);
        }
        known.ended[side] = true;
        if !self.stay && (reset.is_some() || known.ended.client && known.ended.server) {
            self.known.remove(&id);
        }
    }
}

/// The side whose streams have such an id (SPDY/3.1 §2.3.2).
fn opener(id: StreamId) -> Side {
    if id.get() % 2 == 1 { Side::Client } else { Side::Server }
}

/// A header that names the stream must have a single value. Of several, which SPDY joins by NUL, Go's peers read the
/// first (spdystream), and others read something else.
fn check_single(headers: &Headers) -> Result<(), ConnectionError> {
    let names = [STREAM_TYPE, PORT, REQUEST_ID];
    if names.iter().filter_map(|name| headers.get_bytes(name)).any(|value| value.contains(&0)) {
        return Err(ConnectionError::Protocol("a header that names a stream has several values"));
    }
    Ok(())
}

impl Known {
    fn new(id: u32, name: StreamName) -> Self {
        Self { stream: TapStream { id, name }, opened: false, ended: Both::default() }
    }

    fn open(&mut self, side: Side, events: &mut Events) {
        if !std::mem::replace(&mut self.opened, true) {
            events.push_back(TapEvent::Opened { side, stream: self.stream.clone() });
        }
    }
}
