//! The channels of legacy port-forward: two for each port.
//!
//! This module owns which of them have been used and which the server has ended. It must not change the order of what
//! it reports.

use crate::wire::WebSocketConfig;
use crate::wire::channel::Subprotocol;
use crate::wire::channel::ports::{Decoder, is_error};
use crate::wire::websocket::Piece;
use bytes::Bytes;

use super::channels::check_text;
use super::event::{Events, StreamName, TapEvent, TapStream};
use super::framing::Messages;
use super::side::{Both, Side};
use crate::session::ConnectionError;

#[derive(Debug)]
pub(super) struct Ports {
    subprotocol: Subprotocol,
    messages: Both<Messages>,
    decoders: Both<Decoder>,
    /// Indexed by their numbers.
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Channel {
    stream: TapStream,
    /// [`TapEvent::Opened`] was reported.
    begun: bool,
    /// The server has sent more than the port's number on this channel.
    heard: bool,
    ended: bool,
}

impl Ports {
    pub(super) fn new(subprotocol: Subprotocol, ports: &[u16], config: &WebSocketConfig) -> Self {
        let ports = ports.get(..subprotocol.max_ports()).unwrap_or(ports);
        let (client, server) = (Decoder::server(subprotocol, ports), Decoder::client(subprotocol, ports));
        let decoders = Both { client, server };
        let numbers = ports.iter().flat_map(|port| [*port; 2]).zip(0u8..=u8::MAX);
        let channels = numbers.map(|(port, number)| Channel {
            stream: TapStream { id: number.into(), name: StreamName::of_channel(port, number) },
            begun: false,
            heard: false,
            ended: false,
        });
        Self { subprotocol, messages: Messages::both(config), decoders, channels: channels.collect() }
    }

    pub(super) fn step(&mut self, side: Side, bytes: &mut Bytes, events: &mut Events) -> Result<bool, ConnectionError> {
        match self.messages[side].next(bytes)? {
            None => return Ok(false),
            Some(Piece::Data { first, last, text, payload }) => {
                check_text(text, side, self.subprotocol)?;
                let Some(piece) = self.decoders[side].decode(first, last, payload)? else { return Ok(true) };
                let Some(channel) = self.channels.get_mut(usize::from(piece.channel)) else { return Ok(true) };
                if (piece.begins || !piece.data.is_empty()) && !std::mem::replace(&mut channel.begun, true) {
                    events.push_back(TapEvent::Opened { side, stream: channel.stream.clone() });
                }
                if !piece.data.is_empty() {
                    channel.heard |= side == Side::Server;
                    events.push_back(TapEvent::Data { side, stream: channel.stream.clone(), data: piece.data });
                }
                if side == Side::Server && is_error(piece.channel) && piece.last && channel.heard {
                    self.end_pair(piece.channel, events);
                }
            }
            Some(Piece::Ping(_) | Piece::Pong(_)) => {}
            Some(Piece::Close(reason)) => events.push_back(TapEvent::Close { side, reason }),
        }
        Ok(true)
    }

    /// A server that has reported an error sends nothing more for that port.
    fn end_pair(&mut self, channel: u8, events: &mut Events) {
        for number in [channel & !1, channel | 1] {
            if let Some(channel) = self.channels.get_mut(usize::from(number))
                && !std::mem::replace(&mut channel.ended, true)
            {
                events.push_back(TapEvent::End { side: Side::Server, stream: channel.stream.clone(), reset: None });
            }
        }
    }

    pub(super) fn is_between_messages(&self, side: Side) -> bool {
        self.messages[side].is_between_messages()
    }
}
