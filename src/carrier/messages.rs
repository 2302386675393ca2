//! The WebSocket layer of a carrier: frames with their masks, PINGs and Closes.
//!
//! This module owns the parts that all carriers over WebSocket share. It must not interpret the payload of a WebSocket
//! message, which is the carrier's job.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use super::batch::WriteBatch;
use crate::session::{ConnectionError, Role};
use crate::wire::WebSocketConfig;
use crate::wire::spdy::GoAwayStatus;
use crate::wire::websocket::codes;
use crate::wire::websocket::{CloseReason, Decoder, Masks, Opcode, Piece, close_payload, encode_head, mask};

#[derive(Debug)]
pub(super) struct Messages {
    role: Role,
    frames: Decoder,
    /// The masks of a client. A server has none.
    masks: Option<Masks>,
}

impl Messages {
    pub(super) fn new(role: Role, config: &WebSocketConfig) -> Self {
        let from_client = role == Role::Server;
        Self {
            role,
            frames: Decoder::new(from_client, config.max_message, config.max_fragments),
            masks: (!from_client).then(Masks::default),
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Piece>, ConnectionError> {
        Ok(self.frames.decode(src)?)
    }

    pub(super) fn is_between_messages(&self) -> bool {
        self.frames.is_between_messages()
    }

    pub(super) fn release(&mut self) {
        self.frames.release();
    }

    /// The error that a Close from the peer means. For a client only 1000 is an orderly end, as for client-go. A Close
    /// in the middle of a message is a lost connection.
    pub(super) fn ended(&self, reason: Option<CloseReason>) -> ConnectionError {
        let (code, reason) = reason.map_or((None, String::new()), |reason| (Some(reason.code), reason.reason));
        match (code, self.role) {
            _ if !self.frames.is_between_messages() => ConnectionError::Lost,
            (Some(codes::NORMAL), Role::Client) => ConnectionError::Closed,
            _ => ConnectionError::PeerClosed { code, reason },
        }
    }

    /// Appends a small message or a control frame.
    pub(super) fn put(&mut self, opcode: Opcode, payload: &[u8], out: &mut WriteBatch) -> io::Result<()> {
        self.put_message(opcode, payload, Bytes::new(), out)
    }

    /// Appends a message that consists of `head` and `data`. The data is copied only for masking.
    pub(super) fn put_message(
        &mut self,
        opcode: Opcode,
        head: &[u8],
        data: Bytes,
        out: &mut WriteBatch,
    ) -> io::Result<()> {
        let key = self.masks.as_mut().map(Masks::next_key).transpose()?;
        encode_head(opcode, head.len().saturating_add(data.len()), key, out.heads());
        match key {
            None => {
                out.heads().put_slice(head);
                out.push(data);
            }
            Some(mut key) => {
                put_masked(head, key, out.heads());
                key.rotate_left(head.len() % 4);
                put_masked(&data, key, out.heads());
            }
        }
        Ok(())
    }

    /// Appends the Close, which takes the place of GOAWAY. `ended`: the error that the connection ended with.
    pub(super) fn put_close(
        &mut self,
        status: GoAwayStatus,
        ended: Option<&ConnectionError>,
        out: &mut WriteBatch,
    ) -> io::Result<()> {
        let (code, reason) = close_reason(status, ended);
        self.put(Opcode::Close, &close_payload(code, &reason), out)
    }
}

/// Appends a masked copy of `data`, in small steps. Each step is masked while it is in registers, so that memory is
/// read only once, and a small copy does not have the slow case that the alignment of read buffers avoids.
fn put_masked(data: &[u8], key: [u8; 4], out: &mut BytesMut) {
    const STEP: usize = 64;
    out.reserve(data.len());
    let (steps, rest) = data.as_chunks::<STEP>();
    for step in steps {
        let mut step = *step;
        mask(&mut step, key);
        out.put_slice(&step);
    }
    let start = out.len();
    out.put_slice(rest);
    mask(out.get_mut(start..).unwrap_or_default(), key);
}

/// The code and the reason of the Close for an ending (RFC 6455 §7.4.1).
fn close_reason(status: GoAwayStatus, ended: Option<&ConnectionError>) -> (u16, String) {
    let code = match ended.unwrap_or(&ConnectionError::Closed) {
        ConnectionError::Closed if status == GoAwayStatus::OK => return (codes::NORMAL, String::new()),
        ConnectionError::Closed => return (codes::INTERNAL_ERROR, String::new()),
        // A peer's Close is answered with its own code.
        ConnectionError::PeerClosed { code, .. } => return (code.unwrap_or(codes::NORMAL), String::new()),
        ConnectionError::Malformed(error) => error.close_code(),
        ConnectionError::Protocol(_) => codes::PROTOCOL_ERROR,
        ConnectionError::IdleTimeout(_) | ConnectionError::Stalled { .. } => codes::GOING_AWAY,
        ConnectionError::LimitExceeded { .. } => codes::POLICY_VIOLATION,
        _ => codes::INTERNAL_ERROR,
    };
    (code, ended.map(ToString::to_string).unwrap_or_default())
}
