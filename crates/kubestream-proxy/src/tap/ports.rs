//! The old form of port-forward: two channels for each port.

use bytes::Bytes;

use super::channels::check_text;
use super::wire::{Both, Messages};
use super::{Event, Events, Farewell, Name, Side, Stream, TapError};
use crate::channel::Subprotocol;
use crate::channel::ports::{Decoder, is_error};
use crate::config::Limits;
use crate::websocket::Piece;

#[derive(Debug)]
pub(super) struct Ports {
    subprotocol: Subprotocol,
    messages: Both<Messages>,
    decoders: Both<Decoder>,
    /// By their numbers.
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Channel {
    stream: Stream,
    begun: bool,
    /// The server has said something on it beside the port.
    heard: bool,
    ended: bool,
}

impl Ports {
    pub(super) fn new(subprotocol: Subprotocol, ports: &[u16], limits: &Limits) -> Self {
        let ports = ports.get(..subprotocol.max_ports()).unwrap_or(ports);
        let (client, server) = (Decoder::server(subprotocol, ports), Decoder::client(subprotocol, ports));
        let decoders = Both { client, server };
        let numbers = ports.iter().flat_map(|port| [*port; 2]).zip(0u8..=u8::MAX);
        let channels = numbers.map(|(port, number)| Channel {
            stream: Stream { id: number.into(), name: Name::of_channel(port, number) },
            begun: false,
            heard: false,
            ended: false,
        });
        Self { subprotocol, messages: Messages::both(limits), decoders, channels: channels.collect() }
    }

    pub(super) fn step(&mut self, side: Side, bytes: &mut Bytes, events: &mut Events) -> Result<bool, TapError> {
        match self.messages[side].next(bytes)? {
            None => return Ok(false),
            Some(Piece::Data { first, last, text, payload }) => {
                check_text(text, side, self.subprotocol)?;
                let Some(piece) = self.decoders[side].decode(first, last, payload)? else { return Ok(true) };
                let Some(channel) = self.channels.get_mut(usize::from(piece.channel)) else { return Ok(true) };
                if (piece.begins || !piece.data.is_empty()) && !std::mem::replace(&mut channel.begun, true) {
                    events.push_back(Event::Opened { side, stream: channel.stream.clone() });
                }
                if !piece.data.is_empty() {
                    channel.heard |= side == Side::Server;
                    events.push_back(Event::Data { side, stream: channel.stream.clone(), data: piece.data });
                }
                if side == Side::Server && is_error(piece.channel) && piece.last && channel.heard {
                    self.end_pair(piece.channel, events);
                }
            }
            Some(Piece::Ping(_) | Piece::Pong(_)) => {}
            Some(Piece::Close(reason)) => events.push_back(Event::Farewell { side, said: Farewell::Close(reason) }),
        }
        Ok(true)
    }

    /// A server that has said what is wrong has said all.
    fn end_pair(&mut self, channel: u8, events: &mut Events) {
        for number in [channel & !1, channel | 1] {
            if let Some(channel) = self.channels.get_mut(usize::from(number))
                && !std::mem::replace(&mut channel.ended, true)
            {
                events.push_back(Event::End { side: Side::Server, stream: channel.stream.clone(), reset: None });
            }
        }
    }

    pub(super) fn is_between_messages(&self, side: Side) -> bool {
        self.messages[side].is_between_messages()
    }
}
