//! Where a writer of channel messages puts them.
//!
//! This file owns the two forms of a message, bytes and base64 text.

use std::io;

use bytes::{Bytes, BytesMut};

use super::batch::WriteBatch;
use super::messages::Messages;
use crate::protocol::Subprotocol;
use crate::wire::websocket::Opcode;

/// Where the messages of a writer go.
pub(super) struct Wire<'a> {
    websocket: &'a mut Messages,
    subprotocol: Subprotocol,
    out: &'a mut WriteBatch,
}

impl<'a> Wire<'a> {
    /// Messages go to `out`, in the form of the subprotocol.
    pub(super) fn new(websocket: &'a mut Messages, subprotocol: Subprotocol, out: &'a mut WriteBatch) -> Self {
        Self { websocket, subprotocol, out }
    }

    /// A message on a channel: its bytes are not copied but to be masked, or to become base64.
    pub(super) fn put(&mut self, channel: u8, data: Bytes) -> io::Result<()> {
        if self.subprotocol.is_base64() {
            let mut message = BytesMut::with_capacity(self.subprotocol.encoded_len(data.len()));
            self.subprotocol.encode_numbered(channel, &data, &mut message);
            return self.websocket.put_message(Opcode::Text, &[], message.freeze(), self.out);
        }
        self.websocket.put_message(Opcode::Binary, &[self.subprotocol.number_byte(channel)], data, self.out)
    }

    /// A message on no channel.
    pub(super) fn put_raw(&mut self, message: &[u8]) -> io::Result<()> {
        self.websocket.put(Opcode::Binary, message, self.out)
    }
}
