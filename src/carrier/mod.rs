//! What carries the messages of a connection: SPDY on the IO itself or inside WebSocket, or channel messages over WebSocket.
//!
//! Owns, for each of these forms, a reader that makes [`Message`](crate::session::Message)s of bytes and a writer that makes bytes of
//! messages. It must not do IO, nor decide what is said: that is the [`session`](crate::session)'s.

mod batch;
mod channels;
mod choice;
mod exec;
mod legacy_ports;
mod messages;
mod place;
mod tunnel;
mod wire;

pub(crate) use batch::WriteBatch;
pub(crate) use choice::Carrier;
