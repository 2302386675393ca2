//! What is wrong with bytes of a peer, whatever carries them.
//!
//! This module owns the error that users see. Each codec owns its own error, which this one wraps.

use std::fmt;

use super::channel::ChannelError;
use super::spdy::CodecError;
use super::websocket::{WebSocketError, codes};

/// What is wrong with bytes that are not valid SPDY frames, WebSocket frames or channel messages, or that exceed a
/// limit on one of these. Its text says which rule or limit it is.
#[derive(Clone)]
pub struct Malformed(Of);

#[derive(Clone)]
enum Of {
    Spdy(CodecError),
    WebSocket(WebSocketError),
    Channel(ChannelError),
}

impl Malformed {
    /// The code of the WebSocket Close that answers the bytes (RFC 6455 §7.4.1).
    pub(crate) fn close_code(&self) -> u16 {
        match &self.0 {
            Of::Spdy(_) => codes::INTERNAL_ERROR,
            Of::WebSocket(error) => error.close_code(),
            Of::Channel(ChannelError::NotBase64) => codes::INVALID_PAYLOAD,
            Of::Channel(_) => codes::PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Of::Spdy(error) => write!(f, "malformed SPDY frame: {error}"),
            Of::WebSocket(error) => write!(f, "malformed WebSocket frame: {error}"),
            Of::Channel(error) => write!(f, "malformed channel message: {error}"),
        }
    }
}

impl fmt::Debug for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Of::Spdy(error) => error.fmt(f),
            Of::WebSocket(error) => error.fmt(f),
            Of::Channel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Malformed {}

impl From<CodecError> for Malformed {
    fn from(error: CodecError) -> Self {
        Self(Of::Spdy(error))
    }
}

impl From<WebSocketError> for Malformed {
    fn from(error: WebSocketError) -> Self {
        Self(Of::WebSocket(error))
    }
}

impl From<ChannelError> for Malformed {
    fn from(error: ChannelError) -> Self {
        Self(Of::Channel(error))
    }
}

impl PartialEq<WebSocketError> for Malformed {
    fn eq(&self, other: &WebSocketError) -> bool {
        matches!(&self.0, Of::WebSocket(error) if error == other)
    }
}

impl PartialEq<ChannelError> for Malformed {
    fn eq(&self, other: &ChannelError) -> bool {
        matches!(&self.0, Of::Channel(error) if error == other)
    }
}
