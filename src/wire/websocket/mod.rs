//! WebSocket frames without IO (RFC 6455 §5).
//!
//! This module owns frame heads, masks, fragments and the rules for them. It must not interpret messages or answer
//! anything: a PING or a Close is passed on like data. This is why the crate does not use a WebSocket library.
//! Libraries answer by themselves, and bytes that a client writes while a Go server ends the session cost the tail of
//! an output.
//!
//! The bytes of a message are passed on as they arrive, fragmented or not, as slices of the buffer that they were read
//! into. A message is never held as a whole.

pub mod codes;
mod decode;
mod encode;
mod opcode;
mod utf8;

pub use decode::{CloseReason, Decoder, Fault, Piece, WebSocketError};
pub use encode::{Masks, close_payload, encode_head, mask};
pub use opcode::Opcode;
