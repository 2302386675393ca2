//! The five channels of exec and attach, as five streams.
//!
//! Owns what a frame becomes on each of them, and what a message does.
//!
//! | frame | a client's message | a server's |
//! |---|---|---|
//! | DATA | the channel and its bytes | the same |
//! | FIN on stdin | v5's CLOSE, before v5 nothing | – |
//! | any other FIN, RST_STREAM | nothing: only the connection ends | nothing |
//! | PING | PING, or PONG | the same |
//! | GOAWAY | Close | Close |

use std::io;

use bytes::Bytes;

use super::STREAM_TYPE;
use super::channels::{Echoes, Wire, fin, id_at, place_of};
use crate::protocol::Subprotocol;
use crate::protocol::Version;
use crate::session::ConnectionError;
use crate::session::Role;
use crate::wire::channel::{Channel, ChannelError, Decoder, Event};
use crate::wire::spdy::{Frame, Headers, RstStatus, StreamId};

/// The streams of a connection, in the order of their ids: 1, 3, 5, 7, 9.
const STREAMS: [Channel; 5] = [Channel::Error, Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Resize];
/// Their types, as SPDY's headers name them.
const TYPES: [&str; 5] = ["error", "stdin", "stdout", "stderr", "resize"];

#[derive(Debug)]
pub(super) struct Session {
    role: Role,
    subprotocol: Subprotocol,
    messages: Decoder,
    /// A server's streams that are neither taken nor refused yet, and the lowest taken that it writes.
    unsettled: Vec<StreamId>,
    greeted: Option<Channel>,
}

impl Session {
    /// How many streams there are.
    pub(super) const COUNT: usize = STREAMS.len();

    pub(super) fn new(role: Role, subprotocol: Subprotocol) -> Self {
        let messages = match role {
            Role::Server => Decoder::server(subprotocol),
            Role::Client => Decoder::client(subprotocol),
        };
        Self { role, subprotocol, messages, unsettled: (0..Self::COUNT).map(id_at).collect(), greeted: None }
    }

    pub(super) fn subprotocol(&self) -> Subprotocol {
        self.subprotocol
    }

    pub(super) fn streams(&self) -> Vec<Headers> {
        TYPES.map(|kind| Headers::from_iter([(STREAM_TYPE, kind)])).into()
    }

    /// The status may come before anybody asks for the streams. It is the last message that carries anything; the text of the versions
    /// before v4 may take several, and only the Close says that there are no more.
    pub(super) fn last_word(&self) -> Option<(StreamId, bool)> {
        let can_be_whole = self.subprotocol.version() >= Version::V4;
        (self.role == Role::Client).then_some((id_of(Channel::Error), can_be_whole))
    }

    pub(super) fn decode(&mut self, first: bool, last: bool, piece: Bytes) -> Result<Option<Frame>, ChannelError> {
        Ok(match self.messages.decode(first, last, piece)? {
            Some(Event::Data { channel, data }) => Some(Frame::Data { id: id_of(channel), fin: false, data }),
            // The outputs are not the client's to close.
            Some(Event::Close(channel)) if channel.is_clients() => Some(fin(id_of(channel))),
            Some(Event::Close(_)) | None => None,
        })
    }

    pub(super) fn end(&self, ended: &ConnectionError, echoes: &mut Echoes) {
        if matches!(ended, ConnectionError::Closed) && self.role == Role::Client {
            // The outputs have no end of their own.
            echoes.extend([Channel::Stdout, Channel::Stderr, Channel::Error].map(|channel| fin(id_of(channel))));
        }
    }

    pub(super) fn encode(&mut self, frame: Frame, wire: &mut Wire<'_>, echoes: &mut Echoes) -> io::Result<()> {
        match frame {
            Frame::Data { id, fin, data } => {
                let channel = channel_of(id).filter(|channel| self.sends_on(*channel));
                let Some(channel) = channel else {
                    if !data.is_empty() {
                        echoes.push_back(Frame::RstStream { id, status: RstStatus::INVALID_STREAM });
                    }
                    return Ok(());
                };
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
            Frame::SynStream { id, .. } => echoes.push_back(match channel_of(id) {
                Some(_) => Frame::SynReply { id, fin: false, headers: Headers::new() },
                None => Frame::RstStream { id, status: RstStatus::REFUSED_STREAM },
            }),
            Frame::SynReply { id, .. } => {
                let taken = channel_of(id).filter(|channel| self.sends_on(*channel));
                self.greeted = self.greeted.into_iter().chain(taken).min_by_key(|channel| channel.number());
                self.settle(id, wire)?;
            }
            Frame::RstStream { id, .. } => self.settle(id, wire)?,
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
            Some(channel) if before == 1 && self.unsettled.is_empty() && wire.role() == Role::Server => {
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
    id_at(STREAMS.iter().position(|known| *known == channel).unwrap_or(0))
}

fn channel_of(id: StreamId) -> Option<Channel> {
    STREAMS.get(place_of(id)).copied().filter(|channel| id_of(*channel) == id)
}
