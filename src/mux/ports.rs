//! The channels of the old form of port-forward, as the pairs of streams of its newer forms.
//!
//! Owns what a frame becomes on each of them, and what a message does. A pair's data stream has the id of its even channel,
//! counted from 1, 5, 9, and its error stream the next odd one.
//!
//! | frame | a client's message | a server's |
//! |---|---|---|
//! | SYN_STREAM | nothing: the request has said it | – |
//! | SYN_REPLY | – | the channel and its port |
//! | SYN_REPLY that says why not | – | the same, and the reason on the error channel |
//! | DATA | the channel and its bytes | the same |
//! | FIN on a data stream | nothing: it cannot be said | nothing, and the pair is over |
//! | RST_STREAM | nothing | what it was reset with, on the error channel |
//!
//! Nobody but the server can end a pair, and what it has for that is the error, or the end of the connection: that comes once
//! all pairs are over.

use std::io;

use bytes::Bytes;

use super::channels::{Echoes, Wire, fin, id_at, place_of};
use super::{ERROR, PORT, REQUEST_ID, STREAM_TYPE};
use crate::protocol::Subprotocol;
use crate::session::ConnectionError;
use crate::session::Role;
use crate::wire::channel::ChannelError;
use crate::wire::channel::ports::{Decoder, greeting, is_error};
use crate::wire::spdy::{Frame, Headers, RstStatus, StreamId};

#[derive(Debug)]
pub(super) struct Ports {
    role: Role,
    subprotocol: Subprotocol,
    ports: Vec<u16>,
    messages: Decoder,
    /// By their numbers.
    channels: Box<[Channel; 0x100]>,
}

/// How far a channel has come.
#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    /// We have said the port.
    greeted: bool,
    /// The peer has said something, beside the port.
    heard: bool,
    /// The server says nothing more on it.
    ended: bool,
}

impl Ports {
    pub(super) fn new(role: Role, subprotocol: Subprotocol, ports: &[u16]) -> Self {
        let ports = ports.get(..subprotocol.max_ports()).unwrap_or(ports);
        let messages = match role {
            Role::Server => Decoder::server(subprotocol, ports),
            Role::Client => Decoder::client(subprotocol, ports),
        };
        let channels = Box::new([Channel::default(); 0x100]);
        Self { role, subprotocol, ports: ports.to_vec(), messages, channels }
    }

    pub(super) fn subprotocol(&self) -> Subprotocol {
        self.subprotocol
    }

    pub(super) fn streams(&self) -> Vec<Headers> {
        let pairs = self.ports.iter().enumerate().flat_map(|(place, port)| {
            let (port, request) = (port.to_string(), place.to_string());
            ["data", "error"]
                .map(|kind| Headers::from_iter([(STREAM_TYPE, kind), (PORT, &port[..]), (REQUEST_ID, &request[..])]))
        });
        pairs.collect()
    }

    pub(super) fn is_over(&self) -> bool {
        self.role == Role::Server && self.channels.iter().take(self.count()).all(|channel| channel.ended)
    }

    pub(super) fn decode(
        &mut self,
        first: bool,
        last: bool,
        piece: Bytes,
        echoes: &mut Echoes,
    ) -> Result<Option<Frame>, ChannelError> {
        let Some(piece) = self.messages.decode(first, last, piece)? else { return Ok(None) };
        let (id, channel) = (id_of(piece.channel), self.at(piece.channel));
        if piece.begins {
            echoes.push_back(Frame::SynReply { id, fin: false, headers: Headers::new() });
        }
        // A pair is over with its error, and what comes after that is nobody's.
        if !piece.data.is_empty() && !channel.ended {
            channel.heard = true;
            echoes.push_back(Frame::Data { id, fin: false, data: piece.data });
        }
        if is_error(piece.channel) && piece.last && channel.heard {
            self.end_pair(piece.channel, echoes);
        }
        Ok(echoes.pop_front())
    }

    /// A server that has said what is wrong has said all.
    fn end_pair(&mut self, channel: u8, echoes: &mut Echoes) {
        for channel in [channel & !1, channel | 1] {
            if !std::mem::replace(&mut self.at(channel).ended, true) {
                echoes.push_back(fin(id_of(channel)));
            }
        }
    }

    /// A Close that is none of an error's ends all streams.
    pub(super) fn end(&self, ended: &ConnectionError, echoes: &mut Echoes) {
        let farewell = match self.role {
            Role::Client => matches!(ended, ConnectionError::Closed),
            Role::Server => ended.is_farewell(),
        };
        if farewell {
            let channels = (0..=u8::MAX).zip(&self.channels[..]).take(self.count());
            let heard = channels.filter(|(number, channel)| self.hears(*number) && !channel.ended);
            echoes.extend(heard.map(|(number, _)| fin(id_of(number))));
        }
    }

    pub(super) fn encode(&mut self, frame: Frame, wire: &mut Wire<'_>, echoes: &mut Echoes) -> io::Result<()> {
        match frame {
            Frame::Data { id, fin, data } => {
                let Some(channel) = self.channel_of(id).filter(|channel| self.sends_on(*channel)) else {
                    if !data.is_empty() {
                        echoes.push_back(Frame::RstStream { id, status: RstStatus::INVALID_STREAM });
                    }
                    return Ok(());
                };
                if !data.is_empty() {
                    wire.put(channel, data)?;
                }
                if fin {
                    self.finish(channel, echoes);
                }
            }
            Frame::SynReply { id, headers, .. } => {
                let Some(channel) = self.channel_of(id) else { return Ok(()) };
                self.greet(channel, wire)?;
                if let Some(reason) = headers.get(ERROR) {
                    self.say(channel, reason, wire)?;
                }
            }
            Frame::RstStream { id, status } if self.role == Role::Server => {
                let Some(channel) = self.channel_of(id) else { return Ok(()) };
                // Of a pair that was reset as a whole, either stream may come first.
                if !self.at(channel & !1).ended {
                    self.greet(channel, wire)?;
                    self.say(channel, &format!("the connection was reset: {status}"), wire)?;
                }
                self.finish(channel, echoes);
            }
            Frame::SynStream { id, .. } if self.channel_of(id).is_none() => {
                echoes.push_back(Frame::RstStream { id, status: RstStatus::REFUSED_STREAM });
            }
            _ => {}
        }
        Ok(())
    }

    /// A server has said its last on a channel. There is no half-close: with the data of a server ends that of its client.
    fn finish(&mut self, channel: u8, echoes: &mut Echoes) {
        if self.role == Role::Server && !std::mem::replace(&mut self.at(channel).ended, true) && !is_error(channel) {
            echoes.push_back(fin(id_of(channel)));
        }
    }

    fn greet(&mut self, channel: u8, wire: &mut Wire<'_>) -> io::Result<()> {
        let port = self.ports.get(usize::from(channel / 2)).copied().unwrap_or_default();
        if std::mem::replace(&mut self.at(channel).greeted, true) {
            return Ok(());
        }
        wire.put(channel, Bytes::copy_from_slice(&greeting(port)))
    }

    /// Says on a pair's error channel what is wrong with it.
    fn say(&mut self, channel: u8, reason: &str, wire: &mut Wire<'_>) -> io::Result<()> {
        let error = channel | 1;
        if self.at(error).ended || reason.is_empty() {
            return Ok(());
        }
        self.greet(error, wire)?;
        wire.put(error, Bytes::copy_from_slice(reason.as_bytes()))
    }

    #[allow(clippy::indexing_slicing)] // there is a channel for each number that a byte can be
    fn at(&mut self, channel: u8) -> &mut Channel {
        &mut self.channels[usize::from(channel)]
    }

    pub(super) fn count(&self) -> usize {
        self.ports.len().saturating_mul(2)
    }

    fn channel_of(&self, id: StreamId) -> Option<u8> {
        let place = place_of(id);
        u8::try_from(place).ok().filter(|_| id_at(place) == id && place < self.count())
    }

    fn sends_on(&self, channel: u8) -> bool {
        self.role == Role::Server || !is_error(channel)
    }

    fn hears(&self, channel: u8) -> bool {
        self.role == Role::Client || !is_error(channel)
    }
}

fn id_of(channel: u8) -> StreamId {
    id_at(usize::from(channel))
}
