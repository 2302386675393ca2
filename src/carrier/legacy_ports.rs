//! The channels of legacy port-forward: two for each port.
//!
//! This module owns the conversion between session messages and channel messages. It must not decide when a message is
//! sent. A pair's data stream has an even channel and the id 1, 5, 9 and so on. Its error stream has the next channel,
//! and the id 3, 7, 11 and so on.
//!
//! | session message | what a client sends | what a server sends |
//! |---|---|---|
//! | answer | – | the channel number and the port |
//! | answer with the reason why there is no connection | – | the same, and the reason on the error channel |
//! | data | the channel number and the bytes | the same |
//! | FIN of a data stream | nothing: there is no half-close | nothing, and the pair is over |
//! | reset | nothing | the status of the reset, as text on the error channel |
//!
//! Only the server can end a pair. It does so by a reason on the error channel, or by ending the connection after all
//! pairs are over.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use super::place::{id_at, place_of};
use super::wire::Wire;
use crate::protocol::{ERROR, PORT, REQUEST_ID, STREAM_TYPE, Subprotocol};
use crate::session::{ConnectionError, Given, Message, Role};
use crate::wire::channel::ChannelError;
use crate::wire::channel::ports::{Decoder, greeting, is_error};
use crate::wire::spdy::{Headers, StreamId};

/// One value for each channel, by the channel's number.
type ByChannel<T> = Box<[T; 0x100]>;

/// Reads the peer's channel messages.
#[derive(Debug)]
pub(crate) struct Reader {
    role: Role,
    messages: Decoder,
    count: usize,
    channels: ByChannel<Heard>,
}

/// What was received on a channel.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// Bytes were received, besides the port.
    something: bool,
    /// The pair is over: the server has sent a reason.
    all: bool,
}

impl Reader {
    /// Creates it for the end with this role.
    pub(crate) fn new(role: Role, subprotocol: Subprotocol, ports: &[u16]) -> Self {
        let messages = match role {
            Role::Server => Decoder::server(subprotocol, ports),
            Role::Client => Decoder::client(subprotocol, ports),
        };
        let channels = Box::new([Heard::default(); 0x100]);
        Self { role, messages, count: ports.len().saturating_mul(2), channels }
    }

    /// Reads a message, or the next piece of one.
    pub(crate) fn read(
        &mut self,
        first: bool,
        last: bool,
        piece: Bytes,
        said: &mut VecDeque<Message>,
    ) -> Result<(), ChannelError> {
        let Some(piece) = self.messages.decode(first, last, piece)? else { return Ok(()) };
        let (id, channel) = (id_of(piece.channel), at(&mut self.channels, piece.channel));
        if piece.begins {
            said.push_back(Message::Answer { id, fin: false, headers: Headers::new() });
        }
        // A pair is over after its reason. A connection discards what still comes on it, and a tap reports it.
        if !piece.data.is_empty() {
            channel.something = true;
            said.push_back(Message::Data { id, fin: false, data: piece.data });
        }
        if is_error(piece.channel) && piece.last && channel.something {
            // The reason is the end of both streams of the pair.
            for channel in [piece.channel & !1, piece.channel | 1] {
                if !std::mem::replace(&mut at(&mut self.channels, channel).all, true) {
                    said.push_back(Message::fin(id_of(channel)));
                }
            }
        }
        Ok(())
    }

    /// Adds the messages that follow from the end of the connection: an orderly end is the FIN of all streams.
    pub(super) fn end(&self, ended: &ConnectionError, said: &mut VecDeque<Message>) {
        let orderly = match self.role {
            Role::Client => matches!(ended, ConnectionError::Closed),
            Role::Server => ended.is_orderly_end(),
        };
        if orderly {
            let channels = (0..=u8::MAX).zip(&self.channels[..]).take(self.count);
            let open = channels.filter(|(number, channel)| self.hears(*number) && !channel.all);
            said.extend(open.map(|(number, _)| Message::fin(id_of(number))));
        }
    }

    fn hears(&self, channel: u8) -> bool {
        self.role == Role::Client || !is_error(channel)
    }
}

/// Writes channel messages.
#[derive(Debug)]
pub(super) struct Writer {
    role: Role,
    ports: Vec<u16>,
    channels: ByChannel<Said>,
}

/// What was sent on a channel.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// The port was sent.
    port: bool,
    /// The server has sent everything.
    all: bool,
}

impl Writer {
    /// Creates it for the end with this role.
    pub(super) fn new(role: Role, ports: &[u16]) -> Self {
        Self { role, ports: ports.to_vec(), channels: Box::new([Said::default(); 0x100]) }
    }

    /// All streams of the connection. The port that a server sends on a channel is its answer to the client. Since
    /// there is no half-close, a client's data ends together with the server's.
    pub(super) fn streams(&self) -> Vec<Given> {
        let given = |(channel, headers)| Given {
            headers,
            answered: false,
            heard: self.sends_on(channel),
            ends_with_ours: self.role == Role::Server && !is_error(channel),
        };
        headers(&self.ports).map(given).collect()
    }

    /// Whether a server has sent everything on all channels.
    pub(super) fn is_over(&self) -> bool {
        self.role == Role::Server && self.channels.iter().take(self.count()).all(|channel| channel.all)
    }

    /// Encodes a session message.
    pub(super) fn write(&mut self, message: Message, wire: &mut Wire<'_>) -> io::Result<()> {
        match message {
            Message::Data { id, fin, data } => {
                let Some(channel) = self.channel_of(id).filter(|channel| self.sends_on(*channel)) else {
                    return Ok(());
                };
                if !data.is_empty() {
                    wire.put(channel, data)?;
                }
                if fin {
                    self.finish(channel);
                }
            }
            Message::Answer { id, headers, .. } => {
                let Some(channel) = self.channel_of(id) else { return Ok(()) };
                self.greet(channel, wire)?;
                if let Some(reason) = headers.get(ERROR) {
                    self.say(channel, reason, wire)?;
                }
            }
            Message::Reset { id, status } if self.role == Role::Server => {
                let Some(channel) = self.channel_of(id) else { return Ok(()) };
                // If both streams of a pair are reset, either of the two resets may come first.
                if !at(&mut self.channels, channel & !1).all {
                    self.greet(channel, wire)?;
                    self.say(channel, &format!("the connection was reset: {status}"), wire)?;
                }
                self.finish(channel);
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes that a server has sent everything on a channel.
    fn finish(&mut self, channel: u8) {
        if self.role == Role::Server {
            at(&mut self.channels, channel).all = true;
        }
    }

    fn greet(&mut self, channel: u8, wire: &mut Wire<'_>) -> io::Result<()> {
        let port = self.ports.get(usize::from(channel / 2)).copied().unwrap_or_default();
        if std::mem::replace(&mut at(&mut self.channels, channel).port, true) {
            return Ok(());
        }
        wire.put(channel, Bytes::copy_from_slice(&greeting(port)))
    }

    /// Sends a reason on a pair's error channel.
    fn say(&mut self, channel: u8, reason: &str, wire: &mut Wire<'_>) -> io::Result<()> {
        let error = channel | 1;
        if at(&mut self.channels, error).all || reason.is_empty() {
            return Ok(());
        }
        self.greet(error, wire)?;
        wire.put(error, Bytes::copy_from_slice(reason.as_bytes()))
    }

    /// How many streams there are.
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
}

/// The channels for the ports of a request, with the headers that their streams would have over SPDY.
pub(crate) fn headers(ports: &[u16]) -> impl Iterator<Item = (u8, Headers)> {
    let kinds = ports.iter().enumerate().flat_map(|(place, port)| ["data", "error"].map(|kind| (place, port, kind)));
    (0..=u8::MAX).zip(kinds).map(|(channel, (place, port, kind))| {
        let (port, request) = (port.to_string(), place.to_string());
        (channel, Headers::from_iter([(STREAM_TYPE, kind), (PORT, &port[..]), (REQUEST_ID, &request[..])]))
    })
}

#[allow(clippy::indexing_slicing)] // the array has an element for every value of a byte
fn at<T>(channels: &mut ByChannel<T>, channel: u8) -> &mut T {
    &mut channels[usize::from(channel)]
}

fn id_of(channel: u8) -> StreamId {
    id_at(usize::from(channel))
}
