//! The five channels of exec and attach.
//!
//! Owns what a channel message says to the session, and the channel message that each message of the session becomes.
//!
//! | message | a client's channel message | a server's |
//! |---|---|---|
//! | data | the channel and its bytes | the same |
//! | end of stdin | v5's CLOSE, before v5 nothing | – |
//! | any other end, reset | nothing: only the connection ends | nothing |
//! | answer | – | once all streams are settled: an empty message on the first channel that the server writes |
//! | ping | PING, or PONG | the same |
//! | goodbye | Close | Close |

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use super::place::{id_at, place_of};
use super::wire::Wire;
use crate::protocol::{STREAM_TYPE, Subprotocol, Version};
use crate::session::{ConnectionError, Given, Message, Role};
use crate::wire::channel::{Channel, ChannelError, Decoder, Event};
use crate::wire::spdy::{Headers, StreamId};

/// The streams of a connection in the order of their ids, 1, 3, 5, 7, 9, with their types as SPDY's headers name them.
const STREAMS: [(Channel, &str); 5] = [
    (Channel::Error, "error"),
    (Channel::Stdin, "stdin"),
    (Channel::Stdout, "stdout"),
    (Channel::Stderr, "stderr"),
    (Channel::Resize, "resize"),
];

/// Reads the peer's channel messages.
#[derive(Debug)]
pub(super) struct Reader {
    role: Role,
    version: Version,
    messages: Decoder,
}

impl Reader {
    /// For the end with this role.
    pub(super) fn new(role: Role, subprotocol: Subprotocol) -> Self {
        let messages = match role {
            Role::Server => Decoder::server(subprotocol),
            Role::Client => Decoder::client(subprotocol),
        };
        Self { role, version: subprotocol.version(), messages }
    }

    /// The status may come before anybody asks for the streams. It is the last message that carries anything; the text of the versions
    /// before v4 may take several, and only the Close says that there are no more.
    pub(super) fn last_word(&self) -> Option<(StreamId, bool)> {
        (self.role == Role::Client).then_some((id_of(Channel::Error), self.version >= Version::V4))
    }

    /// Reads a message, or the next piece of one.
    pub(super) fn read(&mut self, first: bool, last: bool, piece: Bytes) -> Result<Option<Message>, ChannelError> {
        Ok(match self.messages.decode(first, last, piece)? {
            Some(Event::Data { channel, data }) => Some(Message::Data { id: id_of(channel), fin: false, data }),
            // The outputs are not the client's to close.
            Some(Event::Close(channel)) if channel.is_clients() => Some(Message::fin(id_of(channel))),
            Some(Event::Close(_)) | None => None,
        })
    }

    /// What the end of the connection says: the outputs have no end of their own.
    pub(super) fn end(&self, ended: &ConnectionError, said: &mut VecDeque<Message>) {
        if matches!(ended, ConnectionError::Closed) && self.role == Role::Client {
            said.extend([Channel::Stdout, Channel::Stderr, Channel::Error].map(|channel| Message::fin(id_of(channel))));
        }
    }
}

/// Writes channel messages.
#[derive(Debug)]
pub(super) struct Writer {
    role: Role,
    subprotocol: Subprotocol,
    /// A server's streams that are neither taken nor refused yet, and the lowest taken that it writes.
    unsettled: Vec<StreamId>,
    greeted: Option<Channel>,
}

impl Writer {
    /// For the end with this role.
    pub(super) fn new(role: Role, subprotocol: Subprotocol) -> Self {
        Self { role, subprotocol, unsettled: (0..STREAMS.len()).map(id_at).collect(), greeted: None }
    }

    /// All streams there are.
    pub(super) fn streams(&self) -> Vec<Given> {
        let given = |(channel, kind): &(Channel, &str)| Given {
            headers: Headers::from_iter([(STREAM_TYPE, *kind)]),
            answered: true,
            heard: self.sends_on(*channel),
            ends_with_ours: false,
        };
        STREAMS.iter().map(given).collect()
    }

    /// Appends what a message becomes.
    pub(super) fn write(&mut self, message: Message, wire: &mut Wire<'_>) -> io::Result<()> {
        match message {
            Message::Data { id, fin, data } => {
                let Some(channel) = channel_of(id).filter(|channel| self.sends_on(*channel)) else { return Ok(()) };
                if !data.is_empty() {
                    wire.put(channel.number(), data)?;
                }
                if fin
                    && channel == Channel::Stdin
                    && let Some(close) = self.subprotocol.encode_close(channel)
                {
                    wire.put_raw(&close)?;
                }
            }
            Message::Answer { id, .. } => {
                let taken = channel_of(id).filter(|channel| self.sends_on(*channel));
                self.greeted = self.greeted.into_iter().chain(taken).min_by_key(|channel| channel.number());
                self.settle(id, wire)?;
            }
            Message::Reset { id, .. } => self.settle(id, wire)?,
            _ => {}
        }
        Ok(())
    }

    /// Once it is settled which streams there are, a server says that it is there, with an empty message on the lowest
    /// channel that it writes. Clients wait for that.
    fn settle(&mut self, id: StreamId, wire: &mut Wire<'_>) -> io::Result<()> {
        let before = self.unsettled.len();
        self.unsettled.retain(|unsettled| *unsettled != id);
        match self.greeted {
            Some(channel) if before == 1 && self.unsettled.is_empty() && self.role == Role::Server => {
                wire.put(channel.number(), Bytes::new())
            }
            _ => Ok(()),
        }
    }

    fn sends_on(&self, channel: Channel) -> bool {
        channel.is_clients() == (self.role == Role::Client)
    }
}

fn id_of(channel: Channel) -> StreamId {
    id_at(STREAMS.iter().position(|(known, _)| *known == channel).unwrap_or(0))
}

fn channel_of(id: StreamId) -> Option<Channel> {
    let (channel, _) = STREAMS.get(place_of(id))?;
    Some(*channel).filter(|channel| id_of(*channel) == id)
}
