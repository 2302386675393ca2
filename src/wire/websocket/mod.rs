//! WebSocket frames without IO (RFC 6455 §5).
//!
//! Owns frame heads, masks, fragments and the rules on them. It must not know what messages mean, nor answer anything:
//! a PING or a Close is handed on like data. That is why it is our own and no library's: the ones there are answer by
//! themselves, and what a client writes while a Go server finishes costs the tail of an output.
//!
//! Messages are handed on as they arrive, fragmented or not, in slices of the buffer they came in: none is ever held whole.

mod decode;
mod encode;
mod utf8;

pub use decode::{CloseReason, Decoder, Fault, Piece, WebSocketError};
pub use encode::{Masks, close_payload, encode_head, mask};

/// The code of a Close that ends a connection normally: nothing is missing (§7.4.1).
pub const NORMAL: u16 = 1000;

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // every other opcode is reserved
pub enum Opcode {
    /// More of the message before.
    Continuation,
    /// A message of UTF-8.
    Text,
    /// A message of bytes.
    Binary,
    /// The sender says its last.
    Close,
    /// To be answered by a PONG.
    Ping,
    /// Answers a PING, or nothing.
    Pong,
}

impl Opcode {
    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn from_bits(bits: u8) -> Option<Self> {
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong]
            .into_iter()
            .find(|opcode| opcode.bits() == bits)
    }

    fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// Bytes that the payload of a control frame may have (§5.5).
const MAX_CONTROL: usize = 125;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
