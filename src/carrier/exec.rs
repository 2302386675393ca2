//! The five channels of exec and attach.
//!
//! This module owns the conversion between session messages and channel messages. It must not decide when a message is
//! sent.
//!
//! | session message | what a client sends | what a server sends |
//! |---|---|---|
//! | data | the channel number and the bytes | the same |
//! | FIN of stdin | a CLOSE in v5, nothing before v5 | – |
//! | FIN of another stream, reset | nothing: only the connection ends | nothing |
//! | answer | – | after all streams are taken or refused: an empty message on the lowest channel that the server writes |
//! | ping | PING, or PONG | the same |
//! | goodbye | Close | Close |

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use super::place::{id_at, place_of};
use super::wire::Wire;
use crate::protocol::{STREAM_TYPE, Subprotocol, Version};
use crate::session::{ConnectionError, Given, Message, Role};
use crate::wire::channel::{Channel, ChannelError, Decoder, Event, encode_close};
use crate::wire::spdy::{Headers, StreamId};

/// The streams in the order of their ids (1, 3, 5, 7, 9), with their types as in SPDY's `streamtype` header.
pub(crate) const CHANNELS: [(Channel, &str); 5] = [
    (Channel::Error, "error"),
    (Channel::Stdin, "stdin"),
    (Channel::Stdout, "stdout"),
    (Channel::Stderr, "stderr"),
    (Channel::Resize, "resize"),
];

/// How many streams there are.
pub(super) const STREAM_COUNT: usize = CHANNELS.len();

/// Reads the peer's channel messages.
#[derive(Debug)]
pub(crate) struct Reader {
    role: Role,
    version: Version,
    messages: Decoder,
}

impl Reader {
    /// Creates it for the end with this role.
    pub(crate) fn new(role: Role, subprotocol: Subprotocol) -> Self {
        let messages = match role {
            Role::Server => Decoder::server(subprotocol),
            Role::Client => Decoder::client(subprotocol),
        };
        Self { role, version: subprotocol.version(), messages }
    }

    /// The stream with the server's last word, and whether the end of that word can be recognised. The status is the
    /// last message of a server that has content. From v4 on it is one message. Before v4 it may be several messages of
    /// text, which end with the Close.
    pub(super) fn last_word(&self) -> Option<(StreamId, bool)> {
        (self.role == Role::Client).then_some((id_of(Channel::Error), self.version >= Version::V4))
    }

    /// Reads a message, or the next piece of one.
    pub(crate) fn read(&mut self, first: bool, last: bool, piece: Bytes) -> Result<Option<Message>, ChannelError> {
        Ok(match self.messages.decode(first, last, piece)? {
            Some(Event::Data { channel, data }) => Some(Message::Data { id: id_of(channel), fin: false, data }),
            // A client's CLOSE of an output is ignored.
            Some(Event::Close(channel)) if channel.is_clients() => Some(Message::fin(id_of(channel))),
            Some(Event::Close(_)) | None => None,
        })
    }

    /// Adds the messages that follow from the end of the connection: an orderly end is the FIN of the outputs, which
    /// have no other.
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
    /// The streams of a server that are neither taken nor refused yet.
    unsettled: Vec<StreamId>,
    /// The lowest channel of the taken streams that a server writes.
    greeted: Option<Channel>,
}

impl Writer {
    /// Creates it for the end with this role.
    pub(super) fn new(role: Role, subprotocol: Subprotocol) -> Self {
        Self { role, subprotocol, unsettled: (0..CHANNELS.len()).map(id_at).collect(), greeted: None }
    }

    /// All streams of the session.
    pub(super) fn streams(&self) -> Vec<Given> {
        let given = |(channel, kind): &(Channel, &str)| Given {
            headers: Headers::from_iter([(STREAM_TYPE, *kind)]),
            answered: true,
            heard: self.sends_on(*channel),
            ends_with_ours: false,
        };
        CHANNELS.iter().map(given).collect()
    }

    /// Encodes a session message.
    pub(super) fn write(&mut self, message: Message, wire: &mut Wire<'_>) -> io::Result<()> {
        match message {
            Message::Data { id, fin, data } => {
                let Some(channel) = channel_of(id).filter(|channel| self.sends_on(*channel)) else { return Ok(()) };
                if !data.is_empty() {
                    wire.put(channel.number(), data)?;
                }
                if fin
                    && channel == Channel::Stdin
                    && let Some(close) = encode_close(self.subprotocol, channel)
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

    /// Notes that a stream is taken or refused. After the last one, a server sends an empty message on the lowest
    /// channel that it writes. Clients wait for this message.
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
    id_at(CHANNELS.iter().position(|(known, _)| *known == channel).unwrap_or(0))
}

fn channel_of(id: StreamId) -> Option<Channel> {
    let (channel, _) = CHANNELS.get(place_of(id))?;
    Some(*channel).filter(|channel| id_of(*channel) == id)
}
