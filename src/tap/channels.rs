//! The five channels of exec and attach over WebSocket.
//!
//! This module owns which channels have been used. It must not know what a status or a size means.

use crate::wire::WebSocketConfig;
use crate::wire::channel::{self, Channel, Decoder, Subprotocol};
use crate::wire::websocket::codes::NORMAL;
use crate::wire::websocket::{Fault, Piece, WebSocketError};
use bytes::Bytes;

use super::event::{Events, StreamName, TapEvent, TapStream};
use super::framing::Messages;
use super::session::Session;
use super::side::{Both, Side};
use crate::session::ConnectionError;

#[derive(Debug)]
pub(super) struct Channels {
    subprotocol: Subprotocol,
    messages: Both<Messages>,
    decoders: Both<Decoder>,
    /// The channels that have been used.
    begun: Vec<Channel>,
}

impl Channels {
    pub(super) fn new(subprotocol: Subprotocol, config: &WebSocketConfig) -> Self {
        let decoders = Both { client: Decoder::server(subprotocol), server: Decoder::client(subprotocol) };
        Self { subprotocol, messages: Messages::both(config), decoders, begun: Vec::new() }
    }

    pub(super) fn step(
        &mut self,
        side: Side,
        bytes: &mut Bytes,
        session: Option<&mut Session>,
        events: &mut Events,
    ) -> Result<bool, ConnectionError> {
        match self.messages[side].next(bytes)? {
            None => return Ok(false),
            Some(Piece::Data { first, last, text, payload }) => {
                check_text(text, side, self.subprotocol)?;
                match self.decoders[side].decode(first, last, payload)? {
                    None => {}
                    Some(channel::Event::Data { channel, data }) => self.data(side, channel, data, session, events),
                    Some(channel::Event::Close(channel)) => {
                        let stream = self.stream(side, channel, events);
                        events.push_back(TapEvent::End { side, stream, reset: None });
                    }
                }
            }
            Some(Piece::Ping(_) | Piece::Pong(_)) => {}
            Some(Piece::Close(reason)) => {
                if let Some(session) = session
                    && side == Side::Server
                {
                    let normal = reason.as_ref().is_some_and(|reason| reason.code == NORMAL);
                    session.finish(normal && self.is_between_messages(side), events);
                }
                events.push_back(TapEvent::Close { side, reason });
            }
        }
        Ok(true)
    }

    pub(super) fn is_between_messages(&self, side: Side) -> bool {
        self.messages[side].is_between_messages()
    }

    fn data(&mut self, side: Side, channel: Channel, data: Bytes, session: Option<&mut Session>, events: &mut Events) {
        let stream = self.stream(side, channel, events);
        events.push_back(TapEvent::Data { side, stream: stream.clone(), data: data.clone() });
        if let Some(session) = session {
            session.push(side, &stream.name, &data, events);
        }
    }

    fn stream(&mut self, side: Side, channel: Channel, events: &mut Events) -> TapStream {
        let name = match channel {
            Channel::Stdin => StreamName::Stdin,
            Channel::Stdout => StreamName::Stdout,
            Channel::Stderr => StreamName::Stderr,
            Channel::Error => StreamName::Error,
            Channel::Resize => StreamName::Resize,
        };
        let stream = TapStream { id: channel.number().into(), name };
        if !self.begun.contains(&channel) {
            self.begun.push(channel);
            events.push_back(TapEvent::Opened { side, stream: stream.clone() });
        }
        stream
    }
}

/// A client may send text or binary messages, because Go's servers take both. A server must not send text unless base64
/// was negotiated.
pub(super) fn check_text(text: bool, side: Side, subprotocol: Subprotocol) -> Result<(), WebSocketError> {
    if text && side == Side::Server && !subprotocol.is_base64() { Err(Fault::Text.into()) } else { Ok(()) }
}
