//! WebSocket frames without IO (RFC 6455 §5).
//!
//! Owns frame heads, masks, fragments and the rules on them. It must not know what messages mean, nor answer anything:
//! a PING or a Close is handed on like data. That is why it is our own and no library's: the ones there are answer by
//! themselves, and what a client writes while a Go server finishes costs the tail of an output.
//!
//! Messages are handed on as they arrive, fragmented or not, in slices of the buffer they came in: none is ever held whole.

pub mod codes;
mod decode;
mod encode;
mod opcode;
mod utf8;

pub use decode::{CloseReason, Decoder, Fault, Piece, WebSocketError};
pub use encode::{Masks, close_payload, encode_head, mask};
pub use opcode::Opcode;
