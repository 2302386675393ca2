//! The `channel.k8s.io` subprotocols without IO: what one WebSocket message says.
//!
//! Owns the channel byte, the base64 form and v5's CLOSE, at both ends. It must not know frames, nor who reads a
//! channel: [`mux`](crate::mux) makes streams of them.
//!
//! A message is a channel and its bytes; several make one stream, whatever their bounds. [`Decoder`] takes messages in
//! pieces, as they arrive, so that none has to be whole in memory.
//!
//! ```
//! use bytes::BytesMut;
//! use kubestream::channel::{Channel, Decoder, Event, Subprotocol};
//!
//! let mut message = BytesMut::new();
//! Subprotocol::V4Base64.encode(Channel::Stdout, b"hello\n", &mut message);
//! assert_eq!(&message[..], b"1aGVsbG8K");
//!
//! let mut client = Decoder::client(Subprotocol::V4Base64);
//! let event = client.decode(true, true, message.freeze())?;
//! assert_eq!(event, Some(Event::Data { channel: Channel::Stdout, data: "hello\n".into() }));
//! # Ok::<(), kubestream::channel::ChannelError>(())
//! ```

mod base64;
mod error;
mod message;
pub mod ports;

pub use crate::protocol::Subprotocol;
pub use error::ChannelError;
pub use message::{Channel, Decoder, Event};
