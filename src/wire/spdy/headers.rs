//! The name/value pairs of a stream (SPDY/3.1 §2.6.10).
//!
//! This module owns the pairs and their uncompressed encoding. It must not compress them, which is [`block`](super::block)'s job.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::wire::SpdyConfig;

/// The headers of a stream, in the order in which they were added. Names are lower-case, and each occurs once.
///
/// Several values of one name are joined by NUL, as on the wire.
#[derive(Clone, Default)]
pub struct Headers {
    pairs: Vec<(Bytes, Bytes)>,
    /// The length of the pairs in the block that was read, in bytes, before values of one name were joined.
    taken: usize,
}

/// Headers are equal if their pairs are equal. It does not matter whether values came joined or in several pairs.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl Eq for Headers {}

impl Headers {
    /// Creates empty headers.
    #[must_use]
    pub const fn new() -> Self {
        Self { pairs: Vec::new(), taken: 0 }
    }

    /// Adds a value. If the name has values already, the new value is joined to them.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        self.merge(Bytes::from(name.to_ascii_lowercase()), Bytes::copy_from_slice(value));
    }

    /// The value of `name`, if it is UTF-8. The case of the name does not matter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of `name` as bytes. Several values are joined by NUL.
    #[must_use]
    pub fn get_bytes(&self, name: &str) -> Option<&[u8]> {
        self.pairs.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| &value[..])
    }

    /// All pairs.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs.iter().map(|(name, value)| (&name[..], &value[..]))
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Why these headers cannot be accepted from a peer. `None` if they can. A defect costs the peer the stream, not the connection.
    ///
    /// Defects are an empty name, and an empty value among several: a NUL at either end of them, or two in a row (§2.6.10).
    /// Upper-case names and repeated names are no defects. Go's peers send them, and both are corrected on receipt.
    #[must_use]
    pub fn defect(&self) -> Option<&'static str> {
        let has_empty_part = |value: &Bytes| value.split(|byte| *byte == 0).any(<[u8]>::is_empty);
        self.pairs.iter().find_map(|(name, value)| {
            if name.is_empty() {
                Some("an empty header name")
            } else if !value.is_empty() && has_empty_part(value) {
                Some("an empty header value beside another")
            } else {
                None
            }
        })
    }

    /// Why these headers cannot be sent. `None` if they can. Some of them would make Go's reader stop for ever, without an error.
    pub(crate) fn unfit(&self, limits: &SpdyConfig) -> Option<&'static str> {
        const CONNECTION_HEADERS: [&[u8]; 5] =
            [b"connection", b"host", b"keep-alive", b"proxy-connection", b"transfer-encoding"];
        if self.pairs.len() > limits.max_header_pairs {
            return Some("too many headers");
        }
        let too_long = |(name, value): &(Bytes, Bytes)| {
            name.len() > limits.max_header_name || value.len() > limits.max_header_value
        };
        if self.pairs.iter().any(too_long) || self.plain_len() > limits.max_header_block {
            return Some("headers too long");
        }
        if self.pairs.iter().any(|(name, _)| !name.iter().all(u8::is_ascii_graphic)) {
            return Some("a header name that is not visible ASCII");
        }
        if self.pairs.iter().any(|(name, _)| CONNECTION_HEADERS.contains(&&name[..])) {
            return Some("an HTTP connection header is not allowed in SPDY (§3.2.1)");
        }
        self.defect()
    }

    /// Appends the uncompressed block.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        out.reserve(self.plain_len());
        out.put_u32(number(self.pairs.len()));
        for (name, value) in &self.pairs {
            out.put_u32(number(name.len()));
            out.put_slice(name);
            out.put_u32(number(value.len()));
            out.put_slice(value);
        }
    }

    /// Reads an uncompressed block, in which no bytes may be left over. The pairs are slices of it.
    pub(super) fn parse(block: BytesMut, limits: &SpdyConfig) -> Result<Self, HeaderError> {
        let mut block = block;
        let count = block.try_get_u32().map_err(|_| HeaderError::Truncated)? as usize;
        // A pair takes at least eight bytes, so a wrong count is detected before memory is allocated for it.
        if count > limits.max_header_pairs || count > block.len() / 8 {
            return Err(HeaderError::TooManyPairs { count });
        }
        let mut headers = Self { pairs: Vec::with_capacity(count), taken: 0 };
        for _ in 0..count {
            let mut name = take_string(&mut block, limits.max_header_name)?;
            name.make_ascii_lowercase();
            let value = take_string(&mut block, limits.max_header_value)?;
            headers.merge(name.freeze(), value.freeze());
        }
        if block.is_empty() { Ok(headers) } else { Err(HeaderError::TrailingBytes) }
    }

    /// The length in bytes of the inflated block that these headers were read from.
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.taken.saturating_add(4)
    }

    fn merge(&mut self, name: Bytes, value: Bytes) {
        self.taken = self.taken.saturating_add(8).saturating_add(name.len()).saturating_add(value.len());
        match self.pairs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => *values = Bytes::from([&values[..], &value[..]].join(&0)),
            None => self.pairs.push((name, value)),
        }
    }

    fn plain_len(&self) -> usize {
        self.pairs.iter().fold(4, |sum: usize, (name, value)| {
            sum.saturating_add(8).saturating_add(name.len()).saturating_add(value.len())
        })
    }
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
        let shown = self.pairs.iter().map(|(name, value)| (name, format_args!("{} bytes", value.len()).to_string()));
        f.debug_map().entries(shown).finish()
    }
}

/// Why a header block cannot be read. Each of these errors ends the connection: the zlib stream cannot be continued, or the peer exceeds a
/// limit.
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

fn take_string(block: &mut BytesMut, limit: usize) -> Result<BytesMut, HeaderError> {
    let len = block.try_get_u32().map_err(|_| HeaderError::Truncated)? as usize;
    if len > limit {
        return Err(HeaderError::StringTooLong { len, limit });
    }
    if len > block.len() {
        return Err(HeaderError::Truncated);
    }
    Ok(block.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(block: &[u8]) -> Result<Headers, HeaderError> {
        Headers::parse(BytesMut::from(block), &SpdyConfig::default())
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
