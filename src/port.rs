//! Reads a port number from text, in one way for the whole crate.
//!
//! Accepts digits only, as Go does. Rust's `parse` would also accept a sign.

/// A port number from 0 to 65535.
pub(crate) fn parse(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
