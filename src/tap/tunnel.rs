//! SPDY inside WebSocket, as port-forward uses it: the messages carry the bytes of frames, cut anywhere.
//!
//! This module owns the bytes of a message that have not been read as frames yet. It must not know streams.

use crate::protocol::Protocol;
use crate::session::Config;
use crate::wire::websocket::{Fault, Piece, WebSocketError};
use bytes::Bytes;

use super::event::{Events, TapEvent};
use super::framing::Messages;
use super::side::{Both, Side};
use super::spdy::Spdy;
use crate::session::ConnectionError;

#[derive(Debug)]
pub(super) struct Tunnel {
    messages: Both<Messages>,
    /// Bytes that came in a message and have not been read yet.
    carried: Both<Bytes>,
    spdy: Spdy,
}

impl Tunnel {
    pub(super) fn new(config: &Config) -> Self {
        let spdy = Spdy::new(Protocol::TunneledPortForward, &config.spdy);
        Self { messages: Messages::both(&config.websocket), carried: Both::default(), spdy }
    }

    pub(super) fn step(&mut self, side: Side, bytes: &mut Bytes, events: &mut Events) -> Result<bool, ConnectionError> {
        if self.spdy.step(side, &mut self.carried[side], None, events)? {
            return Ok(true);
        }
        match self.messages[side].next(bytes)? {
            None => return Ok(false),
            // A Go server sends a text message to report an error, and closes the connection.
            Some(Piece::Data { text: true, .. }) => return Err(WebSocketError::from(Fault::Text).into()),
            Some(Piece::Data { payload, .. }) => self.carried[side] = payload,
            Some(Piece::Ping(_) | Piece::Pong(_)) => {}
            Some(Piece::Close(reason)) => events.push_back(TapEvent::Close { side, reason }),
        }
        Ok(true)
    }

    pub(super) fn is_between_frames(&self, side: Side) -> bool {
        self.messages[side].is_between_messages() && self.spdy.is_between_frames(side)
    }
}
