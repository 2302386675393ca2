//! The base64 form of a message, decoded in pieces.
//!
//! This module owns the characters that are left between two pieces. The `base64` crate does the decoding, with the
//! standard alphabet and padding. Like Go, it accepts any trailing bits and line breaks.

use base64::alphabet::STANDARD;
use base64::engine::{Engine, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Bytes, BytesMut};

use super::error::ChannelError;

const ENGINE: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

pub(super) fn encode(data: &[u8], out: &mut BytesMut) {
    let start = out.len();
    out.resize(start.saturating_add(data.len().div_ceil(3).saturating_mul(4)), 0);
    let room = out.get_mut(start..).unwrap_or_default();
    // This cannot fail, since the room is exactly what the data needs.
    let written = ENGINE.encode_slice(data, room).unwrap_or(0);
    out.truncate(start.saturating_add(written));
}

/// Decodes one message. Four characters make three bytes, and the characters of an incomplete group wait for the next
/// piece.
#[derive(Debug, Default)]
pub(super) struct Unwrapper {
    group: [u8; 4],
    grouped: usize,
    /// Padding was read. No characters may follow it.
    padded: bool,
}

impl Unwrapper {
    pub(super) fn unwrap(&mut self, piece: &[u8], last: bool) -> Result<Bytes, ChannelError> {
        // Go's decoder skips line breaks.
        if piece.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            let one_line: Vec<u8> = piece.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
            return self.unwrap_line(&one_line, last);
        }
        self.unwrap_line(piece, last)
    }

    fn unwrap_line(&mut self, mut piece: &[u8], last: bool) -> Result<Bytes, ChannelError> {
        let mut out = BytesMut::new();
        if self.grouped > 0 {
            let missing = self.group.len().saturating_sub(self.grouped);
            let (now, later) = piece.split_at_checked(missing).unwrap_or((piece, &[]));
            self.hold(now);
            piece = later;
            if self.grouped == self.group.len() {
                let group = self.group;
                self.grouped = 0;
                self.decode(&group, &mut out)?;
            }
        }
        let (groups, rest) = piece.as_chunks::<4>();
        self.decode(groups.as_flattened(), &mut out)?;
        self.hold(rest);
        if self.grouped > 0 && (last || self.padded) {
            return Err(ChannelError::NotBase64);
        }
        Ok(out.freeze())
    }

    fn hold(&mut self, bytes: &[u8]) {
        let end = self.grouped.saturating_add(bytes.len());
        if let Some(room) = self.group.get_mut(self.grouped..end) {
            room.copy_from_slice(bytes);
            self.grouped = end;
        }
    }

    fn decode(&mut self, groups: &[u8], out: &mut BytesMut) -> Result<(), ChannelError> {
        if groups.is_empty() {
            return Ok(());
        }
        if std::mem::replace(&mut self.padded, groups.last() == Some(&b'=')) {
            return Err(ChannelError::NotBase64);
        }
        let start = out.len();
        out.resize(start.saturating_add(groups.len()), 0);
        let room = out.get_mut(start..).unwrap_or_default();
        let written = ENGINE.decode_slice(groups, room).map_err(|_| ChannelError::NotBase64)?;
        out.truncate(start.saturating_add(written));
        Ok(())
    }
}
