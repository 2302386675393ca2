//! The messages of legacy port-forward, without IO.
//!
//! This module owns the channels of the ports, and the port that each of them begins with. It must not know WebSocket
//! frames, or make streams of the channels, which is the carrier's job.
//!
//! Each port has two channels, numbered by the port's index in the request, from 0. Channel 2 × index carries the data
//! in both directions, and channel 2 × index + 1 the server's errors. On each channel the server sends the port first:
//! two bytes, in little-endian order.
//!
//! ```
//! use bytes::{Bytes, BytesMut};
//! use kubestream::protocol::Subprotocol;
//! use kubestream::unstable::wire::channel::ports::{Decoder, encode, greeting};
//!
//! let mut message = BytesMut::new();
//! encode(Subprotocol::V4, 0, &greeting(8080), &mut message);
//! assert_eq!(&message[..], [0, 0x90, 0x1f]);
//!
//! let mut client = Decoder::client(Subprotocol::V4, &[8080]);
//! let piece = client.decode(true, true, message.freeze())?.ok_or("nothing said")?;
//! assert!(piece.begins && piece.data.is_empty());
//! let piece = client.decode(true, true, Bytes::from_static(b"\0hello"))?.ok_or("nothing said")?;
//! assert_eq!((piece.channel, &piece.data[..]), (0, &b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use bytes::{Buf, Bytes, BytesMut};

use super::ChannelError;
use super::base64::Unwrapper;
use super::message::{encode_numbered, number};
use crate::protocol::Subprotocol;

/// The bytes that a server sends first on each channel of a port.
#[must_use]
pub fn greeting(port: u16) -> [u8; 2] {
    port.to_le_bytes()
}

/// Whether a channel carries the server's errors, and not data.
#[must_use]
pub fn is_error(channel: u8) -> bool {
    channel & 1 == 1
}

/// Appends a whole message.
pub fn encode(subprotocol: Subprotocol, channel: u8, data: &[u8], out: &mut BytesMut) {
    encode_numbered(subprotocol, channel, data, out);
}

/// Reads the messages of one end.
#[derive(Debug)]
pub struct Decoder {
    subprotocol: Subprotocol,
    channels: Vec<Greeting>,
    message: Message,
    base64: Unwrapper,
}

/// How much of the port at the beginning of a channel has arrived.
#[derive(Clone, Copy, Debug)]
enum Greeting {
    /// The port has arrived, or none is expected because a client sends.
    Over,
    /// The port has not arrived.
    Expected(u16),
    /// The first of the port's two bytes has arrived.
    Half { expected: u16, low: u8 },
    /// A client may not send on the channel.
    Unheard,
}

/// The state of the current message.
#[derive(Clone, Copy, Debug)]
enum Message {
    /// The first byte has not arrived.
    Begun,
    On(u8),
    /// A message on a channel that is unknown or that only the other end may use. It is discarded.
    Unheard,
}

/// The content of a message, or of a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // the protocol says nothing else
pub struct Piece {
    /// The channel's number.
    pub channel: u8,
    /// The port at the beginning of the channel is complete with this piece.
    pub begins: bool,
    /// The bytes. They may be empty.
    pub data: Bytes,
    /// This is the last piece of its message.
    pub last: bool,
}

impl Decoder {
    /// Creates the decoder of a server for these ports. It reads a client's messages, which may use all channels but
    /// the error channels.
    #[must_use]
    pub fn server(subprotocol: Subprotocol, ports: &[u16]) -> Self {
        Self::new(subprotocol, ports.iter().flat_map(|_| [Greeting::Over, Greeting::Unheard]))
    }

    /// Creates the decoder of a client that asked for these ports. It reads a server's messages.
    #[must_use]
    pub fn client(subprotocol: Subprotocol, ports: &[u16]) -> Self {
        Self::new(subprotocol, ports.iter().flat_map(|port| [Greeting::Expected(*port); 2]))
    }

    fn new(subprotocol: Subprotocol, channels: impl Iterator<Item = Greeting>) -> Self {
        let channels = channels.take(subprotocol.max_ports().saturating_mul(2)).collect();
        Self { subprotocol, channels, message: Message::Begun, base64: Unwrapper::default() }
    }

    /// Reads a piece of a message. `first` and `last` mark the first and the last piece of a message, which may be the
    /// same.
    ///
    /// Returns `None` if the piece has no content, or if the channel is unknown or only the other end may use it. Go's
    /// servers discard such messages too.
    ///
    /// # Errors
    /// [`ChannelError::NotBase64`], [`ChannelError::Port`].
    pub fn decode(&mut self, first: bool, last: bool, mut piece: Bytes) -> Result<Option<Piece>, ChannelError> {
        if first {
            self.message = Message::Begun;
            self.base64 = Unwrapper::default();
        }
        if let Message::Begun = self.message
            && let Ok(byte) = piece.try_get_u8()
        {
            self.message = self.begin(number(self.subprotocol, byte));
        }
        let Message::On(channel) = self.message else { return Ok(None) };
        let mut data = if self.subprotocol.is_base64() { self.base64.unwrap(&piece, last)? } else { piece };
        let begins = self.greet(channel, &mut data)?;
        Ok((begins || last || !data.is_empty()).then_some(Piece { channel, begins, data, last }))
    }

    fn begin(&self, channel: u8) -> Message {
        match self.channels.get(usize::from(channel)) {
            None | Some(Greeting::Unheard) => Message::Unheard,
            Some(_) => Message::On(channel),
        }
    }

    /// Takes bytes of the port from the front of a channel. Returns whether the port is now complete.
    fn greet(&mut self, channel: u8, data: &mut Bytes) -> Result<bool, ChannelError> {
        let Some(greeting) = self.channels.get_mut(usize::from(channel)) else { return Ok(false) };
        if let Greeting::Expected(expected) = *greeting
            && let Ok(low) = data.try_get_u8()
        {
            *greeting = Greeting::Half { expected, low };
        }
        if let Greeting::Half { expected, low } = *greeting
            && let Ok(high) = data.try_get_u8()
        {
            let said = u16::from_le_bytes([low, high]);
            if said != expected {
                return Err(ChannelError::Port { expected, said });
            }
            *greeting = Greeting::Over;
            return Ok(true);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder, message: &[u8]) -> Result<Option<Piece>, ChannelError> {
        decoder.decode(true, true, Bytes::copy_from_slice(message))
    }

    fn piece(channel: u8, begins: bool, data: &'static [u8]) -> Option<Piece> {
        Some(Piece { channel, begins, data: Bytes::from_static(data), last: true })
    }

    #[test]
    fn a_channel_begins_with_its_port_however_it_is_cut() {
        let mut client = Decoder::client(Subprotocol::V4, &[8080, 0x0102]);
        assert_eq!(all(&mut client, &[0, 0x90, 0x1f]), Ok(piece(0, true, b"")));
        assert_eq!(all(&mut client, &[0, b'a']), Ok(piece(0, false, b"a")));
        // The port may come in two messages, or in one message with data.
        assert_eq!(all(&mut client, &[1, 0x90]), Ok(piece(1, false, b"")));
        assert_eq!(all(&mut client, &[1, 0x1f]), Ok(piece(1, true, b"")));
        assert_eq!(all(&mut client, &[2, 2, 1, b'b']), Ok(piece(2, true, b"b")));
    }

    #[test]
    fn a_channel_of_another_port_is_an_error() {
        let mut client = Decoder::client(Subprotocol::V4, &[8080]);
        assert_eq!(all(&mut client, &[0, 0x1f, 0x90]), Err(ChannelError::Port { expected: 8080, said: 0x901f }));
    }

    #[test]
    fn a_server_hears_the_channels_of_data_alone() {
        let mut server = Decoder::server(Subprotocol::V4, &[80, 81]);
        assert_eq!(all(&mut server, b"\x02hello"), Ok(piece(2, false, b"hello")));
        for unheard in [&b"\x01error"[..], b"\x04beyond", b"\xff", b""] {
            assert_eq!(all(&mut server, unheard), Ok(None));
        }
    }

    #[test]
    fn in_base64_a_channel_is_a_character() {
        let mut message = BytesMut::new();
        encode(Subprotocol::V4Base64, 12, b"hello\n", &mut message);
        assert_eq!(&message[..], b"<aGVsbG8K");
        let mut server = Decoder::server(Subprotocol::V4Base64, &[1; 7]);
        assert_eq!(all(&mut server, &message), Ok(piece(12, false, b"hello\n")));
        assert_eq!(all(&mut server, b"<aGV"), Err(ChannelError::NotBase64));
    }
}
