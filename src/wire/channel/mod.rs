//! The messages of the `channel.k8s.io` subprotocols, without IO.
//!
//! This module owns the channel byte, the base64 form and v5's CLOSE, for both ends. It must not know WebSocket frames,
//! or make streams of the channels, which is the carrier's job.
//!
//! A message is a channel number and bytes. The bytes of all messages on a channel form one stream, and message
//! boundaries mean nothing. [`Decoder`] reads a message in pieces, as they arrive, so that a message is never held as a
//! whole.
//!
//! ```
//! use bytes::BytesMut;
//! use kubestream::protocol::Subprotocol;
//! use kubestream::unstable::wire::channel::{Channel, Decoder, Event, encode};
//!
//! let mut message = BytesMut::new();
//! encode(Subprotocol::V4Base64, Channel::Stdout, b"hello\n", &mut message);
//! assert_eq!(&message[..], b"1aGVsbG8K");
//!
//! let mut client = Decoder::client(Subprotocol::V4Base64);
//! let event = client.decode(true, true, message.freeze())?;
//! assert_eq!(event, Some(Event::Data { channel: Channel::Stdout, data: "hello\n".into() }));
//! # Ok::<(), kubestream::unstable::wire::channel::ChannelError>(())
//! ```

mod base64;
mod error;
mod message;
pub mod ports;

pub use error::ChannelError;
pub(crate) use message::data_len;
pub use message::{Channel, Decoder, Event, channel_byte, encode, encode_close, encoded_len};
pub(crate) use message::{encode_numbered, number_byte};
