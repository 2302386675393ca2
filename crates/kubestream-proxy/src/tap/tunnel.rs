//! SPDY inside WebSocket: the bytes of frames in messages, wherever they are cut.

use bytes::Bytes;

use super::spdy::Spdy;
use super::wire::{Both, Messages};
use super::{Event, Events, Farewell, Side, TapError};
use crate::config::Limits;
use crate::upgrade::Protocol;
use crate::websocket::{Fault, Piece, WebSocketError};

#[derive(Debug)]
pub(super) struct Tunnel {
    messages: Both<Messages>,
    /// What came in a message and is not read yet.
    carried: Both<Bytes>,
    spdy: Spdy,
}

impl Tunnel {
    pub(super) fn new(limits: &Limits) -> Self {
        let spdy = Spdy::new(Protocol::Tunnel, limits);
        Self { messages: Messages::both(limits), carried: Both::default(), spdy }
    }

    pub(super) fn step(&mut self, side: Side, bytes: &mut Bytes, events: &mut Events) -> Result<bool, TapError> {
        if self.spdy.step(side, &mut self.carried[side], None, events)? {
            return Ok(true);
        }
        match self.messages[side].next(bytes)? {
            None => return Ok(false),
            // Go's servers say so that something went wrong, and close.
            Some(Piece::Data { text: true, .. }) => return Err(WebSocketError::from(Fault::Text).into()),
            Some(Piece::Data { payload, .. }) => self.carried[side] = payload,
            Some(Piece::Ping(_) | Piece::Pong(_)) => {}
            Some(Piece::Close(reason)) => events.push_back(Event::Farewell { side, said: Farewell::Close(reason) }),
        }
        Ok(true)
    }

    pub(super) fn is_between_frames(&self, side: Side) -> bool {
        self.messages[side].is_between_messages() && self.spdy.is_between_frames(side)
    }
}
