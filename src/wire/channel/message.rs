//! The messages of exec and attach: a channel byte, and the bytes of the channel.
//!
//! This file owns the five channels and v5's CLOSE. It must not interpret the bytes of a channel.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::base64::{self, Unwrapper};
use super::error::ChannelError;
use crate::protocol::Subprotocol;

/// The first byte of a message of `channel`.
#[must_use]
pub fn channel_byte(subprotocol: Subprotocol, channel: Channel) -> u8 {
    number_byte(subprotocol, channel.number())
}

/// The first byte of a message of any channel.
pub(crate) fn number_byte(subprotocol: Subprotocol, number: u8) -> u8 {
    if subprotocol.is_base64() { number.wrapping_add(b'0') } else { number }
}

/// The channel number of a message that begins with `byte`.
pub(super) fn number(subprotocol: Subprotocol, byte: u8) -> u8 {
    if subprotocol.is_base64() { byte.wrapping_sub(b'0') } else { byte }
}

/// The length of a message with `len` bytes of data.
#[must_use]
pub fn encoded_len(subprotocol: Subprotocol, len: usize) -> usize {
    let data = if subprotocol.is_base64() { len.div_ceil(3).saturating_mul(4) } else { len };
    data.saturating_add(1)
}

/// How many bytes of data fit into a message of `len` bytes.
#[must_use]
pub(crate) fn data_len(subprotocol: Subprotocol, len: usize) -> usize {
    let data = len.saturating_sub(1);
    if subprotocol.is_base64() { (data / 4).saturating_mul(3) } else { data }
}

/// Appends a whole message.
pub fn encode(subprotocol: Subprotocol, channel: Channel, data: &[u8], out: &mut BytesMut) {
    encode_numbered(subprotocol, channel.number(), data, out);
}

/// As [`encode`], for any channel number.
pub(crate) fn encode_numbered(subprotocol: Subprotocol, number: u8, data: &[u8], out: &mut BytesMut) {
    out.put_u8(number_byte(subprotocol, number));
    if subprotocol.is_base64() {
        base64::encode(data, out);
    } else {
        out.put_slice(data);
    }
}

/// The message that ends `channel`. `None` if the subprotocol has no such message.
#[must_use]
pub fn encode_close(subprotocol: Subprotocol, channel: Channel) -> Option<[u8; 2]> {
    subprotocol.has_close().then_some([CLOSE, channel.number()])
}

/// A channel. Each channel has one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // the protocol has these five and a CLOSE
pub enum Channel {
    /// 0, client to server.
    Stdin,
    /// 1, server to client.
    Stdout,
    /// 2, server to client.
    Stderr,
    /// 3, server to client: how the command ended.
    Error,
    /// 4, client to server: the terminal's size, in JSON.
    Resize,
}

impl Channel {
    /// All channels, by number.
    pub const ALL: [Self; 5] = [Self::Stdin, Self::Stdout, Self::Stderr, Self::Error, Self::Resize];

    /// The channel's number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Error => 3,
            Self::Resize => 4,
        }
    }

    /// The channel with this number. `None` if it does not exist.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether the client sends on the channel.
    #[must_use]
    pub fn is_clients(self) -> bool {
        matches!(self, Self::Stdin | Self::Resize)
    }
}

/// The channel number of v5's CLOSE message.
const CLOSE: u8 = 255;

/// Reads the messages of one end.
#[derive(Debug)]
pub struct Decoder {
    subprotocol: Subprotocol,
    /// Whether the messages are a client's.
    from_client: bool,
    message: Message,
    base64: Unwrapper,
}

/// The state of the current message.
#[derive(Clone, Copy, Debug)]
enum Message {
    /// The first byte has not arrived.
    Begun,
    On(Channel),
    /// A CLOSE: how many bytes have arrived after the first, and the first of those.
    Close {
        len: usize,
        number: u8,
    },
    /// A message on a channel that is unknown or that only the other end may use. It is discarded.
    Unheard,
}

/// The content of a message, or of a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // the protocol says nothing else
pub enum Event {
    /// Bytes on a channel. They are never empty.
    Data {
        /// The channel.
        channel: Channel,
        /// The bytes.
        data: Bytes,
    },
    /// The channel has ended.
    Close(Channel),
}

impl Decoder {
    /// Creates the decoder of a server, which reads a client's messages.
    #[must_use]
    pub fn server(subprotocol: Subprotocol) -> Self {
        Self::new(subprotocol, true)
    }

    /// Creates the decoder of a client, which reads a server's messages.
    #[must_use]
    pub fn client(subprotocol: Subprotocol) -> Self {
        Self::new(subprotocol, false)
    }

    fn new(subprotocol: Subprotocol, from_client: bool) -> Self {
        Self { subprotocol, from_client, message: Message::Begun, base64: Unwrapper::default() }
    }

    /// Reads a piece of a message. `first` and `last` mark the first and the last piece of a message, which may be the
    /// same.
    ///
    /// Returns `None` for an empty message, and for one with a channel number only, which servers send as a greeting.
    /// Also for a message on a channel that is unknown or that only the other end may use, which Go's peers discard
    /// too.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn decode(&mut self, first: bool, last: bool, mut piece: Bytes) -> Result<Option<Event>, ChannelError> {
        if first {
            self.message = Message::Begun;
            self.base64 = Unwrapper::default();
        }
        if let Message::Begun = self.message
            && let Ok(number) = piece.try_get_u8()
        {
            self.message = self.begin(number);
        }
        match &mut self.message {
            Message::Begun | Message::Unheard => Ok(None),
            Message::On(channel) => {
                let channel = *channel;
                let data = if self.subprotocol.is_base64() { self.base64.unwrap(&piece, last)? } else { piece };
                Ok((!data.is_empty()).then_some(Event::Data { channel, data }))
            }
            Message::Close { len, number } => {
                *len = len.saturating_add(piece.len());
                *number = piece.first().copied().unwrap_or(*number);
                let (len, number) = (*len, *number);
                if len > 1 || last && len == 0 {
                    return Err(ChannelError::CloseLength);
                }
                let channel = Channel::from_number(number).ok_or(ChannelError::CloseUnknown(number));
                if last { channel.map(Event::Close).map(Some) } else { Ok(None) }
            }
        }
    }

    fn begin(&self, byte: u8) -> Message {
        let number = number(self.subprotocol, byte);
        // A server's CLOSE is discarded, since Go's clients do not know it either.
        if number == CLOSE && self.subprotocol.has_close() && self.from_client {
            return Message::Close { len: 0, number: 0 };
        }
        let channel = Channel::from_number(number).filter(|channel| channel.is_clients() == self.from_client);
        channel.map_or(Message::Unheard, Message::On)
    }
}

#[cfg(test)]
mod tests;
