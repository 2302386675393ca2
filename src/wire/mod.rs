//! Bytes to frames and messages, and back: SPDY/3.1, WebSocket, and the channel messages inside WebSocket.
//!
//! This module owns the three formats and their limits. It must not know what a frame or a message means for a connection, which is
//! [`session`](crate::session)'s job.

pub mod channel;
mod limits;
mod payload;
pub mod spdy;
pub mod websocket;

pub use limits::{HeaderCompression, Limits};
pub(crate) use payload::Payloads;
