//! The status codes of a Close frame (RFC 6455 §7.4.1).
//!
//! This file owns the codes that this crate sends or understands, and which codes a peer may send.

/// The connection ends normally, and nothing is missing.
pub const NORMAL: u16 = 1000;
/// The sender goes away. This crate sends it when a connection was idle or stalled for too long.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke a rule of WebSocket or of the subprotocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// The peer sent a type of message that the sender does not accept: text, where the subprotocol has binary messages.
pub const UNSUPPORTED_DATA: u16 = 1003;
/// The bytes of a message do not fit its type: text that is not UTF-8, or base64 that does not decode.
pub const INVALID_PAYLOAD: u16 = 1007;
/// The peer went over a limit that has no code of its own.
pub const POLICY_VIOLATION: u16 = 1008;
/// The peer sent a message that is too large.
pub const MESSAGE_TOO_BIG: u16 = 1009;
/// The sender failed.
pub const INTERNAL_ERROR: u16 = 1011;

/// Whether a peer may send this code. 1004 to 1006 and 1015 are never sent, and the other codes below 3000 that are
/// missing here are reserved (§7.4.1, §7.4.2).
pub(super) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
