//! The number of a port as text.
//!
//! Owns what all who read one agree on: Go takes digits alone, and Rust a sign too.

/// A number of a port, 0 too.
pub(crate) fn parse(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
