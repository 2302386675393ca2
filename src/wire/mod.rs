//! Bytes to frames and messages, and back: SPDY/3.1, WebSocket, and the channel messages inside WebSocket.
//!
//! This module owns the three formats and their limits. It must not know what a frame or a message means for a
//! connection, which is [`session`](crate::session)'s job.

pub mod channel;
mod config;
mod error;
mod payload;
pub mod spdy;
pub mod websocket;

pub use config::{FlowControl, SpdyConfig, WebSocketConfig};
pub use error::Malformed;
pub(crate) use payload::Payloads;
