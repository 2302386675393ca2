//! The name/value pairs of a stream (SPDY/3.1 §2.6.10).
//!
//! This module owns the pairs and their uncompressed encoding. It must not compress them, which is
//! [`block`](super::block)'s job.

use std::fmt;

use bytes::{Buf, BufMut};

use crate::wire::SpdyConfig;

/// Room for the headers of a stream of Kubernetes, in bytes: then they take one allocation.
const USUAL: usize = 96;

/// The headers of a SPDY stream: name/value pairs, in the order in which they were added. Names are lower-case, and
/// each occurs once.
///
/// Several values of one name are joined by a NUL byte, as on the wire.
#[derive(Clone, Default)]
pub struct Headers {
    /// The pairs as in an uncompressed block, behind its count: a name's length, the name, a value's length, the value.
    plain: Vec<u8>,
    count: usize,
    /// The length of the pairs in the block that was read, in bytes, before values of one name were joined.
    taken: usize,
}

/// Headers are equal if their pairs are equal. It does not matter whether values came joined or in several pairs.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.plain == other.plain
    }
}

impl Eq for Headers {}

impl Headers {
    /// Creates empty headers.
    #[must_use]
    pub const fn new() -> Self {
        Self { plain: Vec::new(), count: 0, taken: 0 }
    }

    /// Adds a value. If the name has values already, the new value is joined to them.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        self.merge(name.as_bytes(), value);
    }

    /// The value of `name`, if it is UTF-8. The case of the name does not matter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of `name` as bytes. Several values are joined by NUL.
    #[must_use]
    pub fn get_bytes(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// All pairs.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.plain[..];
        std::iter::from_fn(move || Some((take_string(&mut rest).ok()?, take_string(&mut rest).ok()?)))
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Why these headers cannot be accepted from a peer. `None` if they can. A stream that the peer opens or answers
    /// with such headers is reset, and the connection goes on.
    ///
    /// Two things are defects: an empty name, and an empty value among several values of one name, which is a NUL at
    /// either end of the joined values, or two NULs in a row (§2.6.10). Upper-case names and repeated names are no
    /// defects. Go's peers send them, and both are corrected on receipt.
    #[must_use]
    pub fn defect(&self) -> Option<&'static str> {
        let has_empty_part = |value: &[u8]| value.split(|byte| *byte == 0).any(<[u8]>::is_empty);
        self.iter().find_map(|(name, value)| {
            if name.is_empty() {
                Some("an empty header name")
            } else if !value.is_empty() && has_empty_part(value) {
                Some("an empty header value beside another")
            } else {
                None
            }
        })
    }

    /// Why these headers cannot be sent. `None` if they can. Some of them would make Go's reader stop for ever, without
    /// an error.
    pub(crate) fn unfit(&self, limits: &SpdyConfig) -> Option<&'static str> {
        const CONNECTION_HEADERS: [&[u8]; 5] =
            [b"connection", b"host", b"keep-alive", b"proxy-connection", b"transfer-encoding"];
        if self.count > limits.max_header_pairs {
            return Some("too many headers");
        }
        let too_long = |(name, value): (&[u8], &[u8])| {
            name.len() > limits.max_header_name || value.len() > limits.max_header_value
        };
        if self.iter().any(too_long) || self.plain.len().saturating_add(COUNT) > limits.max_header_block {
            return Some("headers too long");
        }
        if self.iter().any(|(name, _)| !name.iter().all(u8::is_ascii_graphic)) {
            return Some("a header name that is not visible ASCII");
        }
        if self.iter().any(|(name, _)| CONNECTION_HEADERS.contains(&name)) {
            return Some("an HTTP connection header is not allowed in SPDY (§3.2.1)");
        }
        self.defect()
    }

    /// Appends the uncompressed block.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(number(self.count));
        out.put_slice(&self.plain);
    }

    /// Reads an uncompressed block, in which no bytes may be left over.
    pub(super) fn parse(block: &[u8], limits: &SpdyConfig) -> Result<Self, HeaderError> {
        let mut block = block;
        let count = block.try_get_u32().map_err(|_| HeaderError::Truncated)? as usize;
        // A pair takes at least eight bytes.
        if count > limits.max_header_pairs || count > block.len() / 8 {
            return Err(HeaderError::TooManyPairs { count });
        }
        let mut headers = Self { plain: Vec::with_capacity(block.len()), count: 0, taken: 0 };
        for _ in 0..count {
            let name = take_limited(&mut block, limits.max_header_name)?;
            let value = take_limited(&mut block, limits.max_header_value)?;
            headers.merge(name, value);
        }
        if block.is_empty() { Ok(headers) } else { Err(HeaderError::TrailingBytes) }
    }

    /// The length in bytes of the inflated block that these headers were read from.
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.taken.saturating_add(COUNT)
    }

    fn merge(&mut self, name: &[u8], value: &[u8]) {
        let len = name.len().saturating_add(value.len()).saturating_add(8);
        self.taken = self.taken.saturating_add(len);
        if self.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            self.join(name, value);
            return;
        }
        self.plain.reserve(if self.plain.capacity() == 0 { len.max(USUAL) } else { len });
        self.put(name, &[value]);
    }

    /// Joins a value to those of a name that is there. Only odd peers make this needed, so it may write all pairs anew.
    fn join(&mut self, name: &[u8], value: &[u8]) {
        let mut joined = Self { plain: Vec::with_capacity(self.plain.len()), count: 0, taken: self.taken };
        for (known, values) in self.iter() {
            if known.eq_ignore_ascii_case(name) {
                joined.put(known, &[values, b"\0", value]);
            } else {
                joined.put(known, &[values]);
            }
        }
        *self = joined;
    }

    /// Appends a pair whose value consists of `parts`.
    fn put(&mut self, name: &[u8], parts: &[&[u8]]) {
        self.plain.put_u32(number(name.len()));
        let at = self.plain.len();
        self.plain.put_slice(name);
        self.plain.get_mut(at..).unwrap_or_default().make_ascii_lowercase();
        self.plain.put_u32(number(parts.iter().map(|part| part.len()).sum()));
        parts.iter().for_each(|part| self.plain.put_slice(part));
        self.count = self.count.saturating_add(1);
    }
}

/// The length of a block's count of pairs.
const COUNT: usize = 4;

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in pairs {
            headers.append(name.as_ref(), value.as_ref());
        }
        headers
    }
}

/// Shows names and lengths only: values may be secrets, and `Debug` output ends up in logs.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name| String::from_utf8_lossy(name).into_owned();
        let shown = self.iter().map(|(known, value)| (name(known), format_args!("{} bytes", value.len()).to_string()));
        f.debug_map().entries(shown).finish()
    }
}

/// Why a header block cannot be read. Each of these errors ends the connection: the zlib stream cannot be continued, or
/// the peer exceeds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The block is not a zlib stream, or does not continue the stream of the blocks before.
    #[error("the block does not inflate")]
    Inflate,
    /// The block needs another dictionary than SPDY/3's.
    #[error("the block needs the dictionary {adler:#010x}, which is not SPDY/3's")]
    Dictionary {
        /// The Adler-32 checksum of the dictionary.
        adler: u32,
    },
    /// The block ends the zlib stream, which has to last as long as the connection.
    #[error("the block ends the zlib stream")]
    StreamEnd,
    /// The block does not end with a sync flush, so its last bytes may come late or never.
    #[error("the block does not end with a sync flush")]
    NotFlushed,
    /// The block inflates to more than [`SpdyConfig::max_header_block`].
    #[error("the block inflates to more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The block's count of pairs is more than [`SpdyConfig::max_header_pairs`], or more than fit into the block.
    #[error("the block claims {count} pairs, which is too many")]
    TooManyPairs {
        /// The number in the block.
        count: usize,
    },
    /// A name or value is longer than its limit.
    #[error("a header name or value of {len} bytes is over the limit of {limit}")]
    StringTooLong {
        /// The length in the block.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The block ends in the middle of a pair.
    #[error("the block is cut short")]
    Truncated,
    /// Bytes follow the last pair.
    #[error("bytes follow the last pair of the block")]
    TrailingBytes,
}

fn take_limited<'a>(block: &mut &'a [u8], limit: usize) -> Result<&'a [u8], HeaderError> {
    let mut ahead = *block;
    let len = ahead.try_get_u32().map_err(|_| HeaderError::Truncated)? as usize;
    if len > limit { Err(HeaderError::StringTooLong { len, limit }) } else { take_string(block) }
}

/// Takes a length and as many bytes off the front.
fn take_string<'a>(block: &mut &'a [u8]) -> Result<&'a [u8], HeaderError> {
    let len = block.try_get_u32().map_err(|_| HeaderError::Truncated)? as usize;
    let (string, rest) = block.split_at_checked(len).ok_or(HeaderError::Truncated)?;
    *block = rest;
    Ok(string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(block: &[u8]) -> Result<Headers, HeaderError> {
        Headers::parse(block, &SpdyConfig::default())
    }

    fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = (pairs.len() as u32).to_be_bytes().to_vec();
        for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
            out.extend((part.len() as u32).to_be_bytes());
            out.extend(part.as_bytes());
        }
        out
    }

    #[test]
    fn names_are_folded_and_repeated_ones_merged_as_go_does() {
        let headers = parse(&block(&[("streamType", "error"), ("X-A", "1"), ("x-a", "2")])).unwrap();
        assert_eq!(headers.get("streamtype"), Some("error"));
        assert_eq!(headers.get_bytes("X-a"), Some(&b"1\x002"[..]));
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn empty_names_and_empty_values_among_several_are_defects_of_the_stream_alone() {
        const BESIDE: Option<&str> = Some("an empty header value beside another");
        for (pairs, defect) in [
            (&[("", "x")][..], Some("an empty header name")),
            (&[("a", "\0b")], BESIDE),
            (&[("a", "b\0")], BESIDE),
            (&[("a", "b\0\0c")], BESIDE),
            (&[("a", "\0")], BESIDE),
            (&[("a", "b"), ("a", "")], BESIDE),
            (&[("a", "b\0c")], None),
            (&[("a", "")], None),
        ] {
            assert_eq!(parse(&block(pairs)).unwrap().defect(), defect, "{pairs:?}");
        }
    }

    #[test]
    fn lies_about_counts_and_lengths_allocate_nothing() {
        let mut name_lie = 1u32.to_be_bytes().to_vec();
        name_lie.extend([0xff; 12]);
        let mut value_lie = block(&[("a", "b")]);
        value_lie[9..13].copy_from_slice(&2u32.to_be_bytes());
        for (bytes, error) in [
            (&[0xff; 4][..], HeaderError::TooManyPairs { count: 0xffff_ffff }),
            (&[0, 0, 0, 9, 0, 0, 0, 0], HeaderError::TooManyPairs { count: 9 }),
            (&name_lie, HeaderError::StringTooLong { len: 0xffff_ffff, limit: 256 }),
            (&value_lie, HeaderError::Truncated),
            (&[0, 0], HeaderError::Truncated),
            (&[0, 0, 0, 0, 1], HeaderError::TrailingBytes),
        ] {
            assert_eq!(parse(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn what_go_stops_at_or_netty_resets_is_not_sent() {
        let unfit = |name: &str, value: &str| Headers::from_iter([(name, value)]).unfit(&SpdyConfig::default());
        assert!(unfit("Connection", "x").is_some());
        assert!(unfit("host", "x").is_some());
        assert!(unfit("na me", "x").is_some());
        assert!(unfit("", "x").is_some());
        assert!(unfit("a", "\0x").is_some());
        assert!(unfit("a", "x\0").is_some());
        assert!(unfit(&"n".repeat(257), "x").is_some());
        assert!(unfit("a", &"v".repeat(16 * 1024 + 1)).is_some());
        assert_eq!(unfit("streamType", "data"), None);
    }

    #[test]
    fn debug_shows_no_values() {
        let shown = format!("{:?}", Headers::from_iter([("authorization", "secret")]));
        assert!(shown.contains("authorization") && !shown.contains("secret"), "{shown}");
    }
}
