//! The opcodes, and the bits of a frame's head (RFC 6455 §5.2).
//!
//! This file owns the constants of the frame format.

/// The type of a frame (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // every other opcode is reserved
pub enum Opcode {
    /// A further fragment of a message.
    Continuation,
    /// A message of UTF-8 text, or its first fragment.
    Text,
    /// A message of bytes, or its first fragment.
    Binary,
    /// The last frame of its sender.
    Close,
    /// A PING, which has to be answered by a PONG.
    Ping,
    /// The answer to a PING. It may also come unasked.
    Pong,
}

impl Opcode {
    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong]
            .into_iter()
            .find(|opcode| opcode.bits() == bits)
    }

    pub(super) fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// The longest payload of a control frame, in bytes (§5.5).
pub(super) const MAX_CONTROL: usize = 125;
pub(super) const FIN: u8 = 0x80;
pub(super) const RESERVED: u8 = 0x70;
pub(super) const MASKED: u8 = 0x80;
