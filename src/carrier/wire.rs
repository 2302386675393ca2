//! The output of a writer of channel messages.
//!
//! This file owns the two forms of a channel message: bytes, and base64 text.

use std::io;

use bytes::{Bytes, BytesMut};

use super::batch::WriteBatch;
use super::messages::Messages;
use crate::protocol::Subprotocol;
use crate::wire::channel::{encode_numbered, encoded_len, number_byte};
use crate::wire::websocket::Opcode;

/// Encodes the channel messages of a writer.
pub(super) struct Wire<'a> {
    websocket: &'a mut Messages,
    subprotocol: Subprotocol,
    out: &'a mut WriteBatch,
}

impl<'a> Wire<'a> {
    /// Appends messages to `out`, in the form of the subprotocol.
    pub(super) fn new(websocket: &'a mut Messages, subprotocol: Subprotocol, out: &'a mut WriteBatch) -> Self {
        Self { websocket, subprotocol, out }
    }

    /// Appends a message on a channel. The bytes are copied only for masking and for base64.
    pub(super) fn put(&mut self, channel: u8, data: Bytes) -> io::Result<()> {
        if self.subprotocol.is_base64() {
            let mut message = BytesMut::with_capacity(encoded_len(self.subprotocol, data.len()));
            encode_numbered(self.subprotocol, channel, &data, &mut message);
            return self.websocket.put_message(Opcode::Text, &[], message.freeze(), self.out);
        }
        self.websocket.put_message(Opcode::Binary, &[number_byte(self.subprotocol, channel)], data, self.out)
    }

    /// Appends a binary message as it is.
    pub(super) fn put_raw(&mut self, message: &[u8]) -> io::Result<()> {
        self.websocket.put(Opcode::Binary, message, self.out)
    }
}
