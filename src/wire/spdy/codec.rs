//! Converts frames to bytes and back (SPDY/3.1 §2.2).
//!
//! This module owns lengths, field layouts and the two compressed streams of header blocks. It must not judge what a
//! frame means for the connection. It must not trust a length from the peer either: it checks a length before the bytes
//! arrive, and allocates memory only for bytes that have arrived.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::block::{Deflater, Inflater};
use super::frame::{Frame, GoAwayStatus, RstStatus, Setting, SettingId, Settings, StreamId};
use super::headers::{HeaderError, Headers};
use crate::wire::Payloads;
use crate::wire::SpdyConfig;

const HEAD: usize = 8;
const CONTROL: u32 = 0x8000_0000;
const VERSION: u16 = 3;
const MAX_LENGTH: usize = 0xff_ffff;
const FLAG_FIN: u8 = 0x01;
const FLAG_UNIDIRECTIONAL: u8 = 0x02;
const FLAG_CLEAR_SETTINGS: u8 = 0x01;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Reads and writes frames. Use one codec for each connection, since the header compression of each direction has
/// state.
///
/// As a [`Decoder`] it returns DATA as it arrives, in pieces. Large pieces are slices of the buffer, and small ones are
/// copies. As an [`Encoder`] it copies each payload behind its head. A decoding error is final: the connection cannot
/// go on.
///
/// CREDENTIAL frames and frames of unknown types are skipped, if they are no longer than
/// [`SpdyConfig::max_control_frame`].
#[derive(Debug)]
pub struct Codec {
    config: SpdyConfig,
    deflater: Deflater,
    inflater: Inflater,
    expect: Expect,
    payloads: Payloads,
}

/// The state of decoding: what the next bytes are.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Head,
    Data { id: StreamId, fin: bool, left: usize },
    Skipped { left: usize },
}

impl Codec {
    /// Creates a codec for a new connection.
    #[must_use]
    pub fn new(config: SpdyConfig) -> Self {
        Self {
            deflater: Deflater::new(config.compress_headers),
            config,
            inflater: Inflater::default(),
            expect: Expect::Head,
            payloads: Payloads::default(),
        }
    }

    /// Appends a frame without the payload of DATA, and returns the payload, for a vectored write.
    ///
    /// # Errors
    /// [`CodecError::FrameTooLarge`] if the content does not fit into a frame. Then nothing is appended. After a header
    /// block that was too large the codec cannot be used any more, because its compression state has changed.
    pub fn encode_head(&mut self, frame: Frame, out: &mut BytesMut) -> Result<Bytes, CodecError> {
        match frame {
            Frame::Data { id, fin, data } => {
                let length = u32::try_from(data.len())
                    .ok()
                    .filter(|_| data.len() <= MAX_LENGTH)
                    .ok_or(CodecError::FrameTooLarge { length: data.len(), limit: MAX_LENGTH })?;
                out.put_u32(id.get());
                out.put_u32(u32::from(flag(fin, FLAG_FIN)) << 24 | length);
                return Ok(data);
            }
            Frame::SynStream { id, associated, priority, slot, fin, unidirectional, headers } => {
                let flags = flag(fin, FLAG_FIN) | flag(unidirectional, FLAG_UNIDIRECTIONAL);
                let mut fixed = [0u8; 10];
                let mut fields = &mut fixed[..];
                fields.put_u32(id.get());
                fields.put_u32(associated.get());
                fields.put_u8((priority & 0x07) << 5);
                fields.put_u8(slot);
                self.encode_block(SYN_STREAM, flags, &fixed, &headers, out)?;
            }
            Frame::SynReply { id, fin, headers } => {
                self.encode_block(SYN_REPLY, flag(fin, FLAG_FIN), &id.get().to_be_bytes(), &headers, out)?;
            }
            Frame::Headers { id, fin, headers } => {
                self.encode_block(HEADERS, flag(fin, FLAG_FIN), &id.get().to_be_bytes(), &headers, out)?;
            }
            Frame::RstStream { id, status } => put_pair(out, RST_STREAM, id.get(), status.get()),
            Frame::GoAway { last_good, status } => put_pair(out, GOAWAY, last_good.get(), status.get()),
            Frame::WindowUpdate { id, delta } => put_pair(out, WINDOW_UPDATE, id.get(), delta),
            Frame::Ping(id) => {
                put_control_head(out, PING, 0, 4);
                out.put_u32(id);
            }
            Frame::Settings(settings) => {
                let entries = settings.entries();
                let length = entries.len().saturating_mul(8).saturating_add(4);
                let (Ok(count), true) = (u32::try_from(entries.len()), length <= MAX_LENGTH) else {
                    return Err(CodecError::FrameTooLarge { length, limit: MAX_LENGTH });
                };
                put_control_head(out, SETTINGS, flag(settings.clear(), FLAG_CLEAR_SETTINGS), length);
                out.put_u32(count);
                for entry in entries {
                    out.put_u32(u32::from(entry.flags) << 24 | (entry.id.get() & 0xff_ffff));
                    out.put_u32(entry.value);
                }
            }
        }
        Ok(Bytes::new())
    }

    /// Frees the zlib states and the copy buffer. They are allocated again when they are needed.
    pub(crate) fn release(&mut self) {
        self.deflater.release();
        self.inflater.release();
        self.payloads.release();
    }

    /// Whether the bytes read so far end between two frames.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        matches!(self.expect, Expect::Head)
    }

    /// Takes the next payload bytes of a DATA frame that has begun, as a slice of `src` instead of a copy. `None` if no
    /// DATA frame has begun or `src` is empty.
    ///
    /// Use it to read bytes that belong to another buffer. Copy everything else into a buffer for
    /// [`decode`](Decoder::decode), and no more of it than [`missing`](Self::missing) says.
    pub fn decode_data(&mut self, src: &mut Bytes) -> Option<Frame> {
        let Expect::Data { id, fin, left } = self.expect else { return None };
        let data = src.split_to(left.min(src.len()));
        (!data.is_empty()).then(|| self.take_data(id, fin, left, data))
    }

    /// How many bytes must follow `src` before [`decode`](Decoder::decode) can go on. Payload bytes of DATA frames do
    /// not count: [`decode_data`](Self::decode_data) takes them.
    #[must_use]
    pub fn missing(&self, src: &BytesMut) -> usize {
        let wanted = match self.expect {
            Expect::Data { .. } => 0,
            Expect::Skipped { left } => left,
            Expect::Head => FrameHead::peek(src).map_or(0, |head| head.length).saturating_add(HEAD),
        };
        wanted.saturating_sub(src.len())
    }

    fn take_data(&mut self, id: StreamId, fin: bool, left: usize, data: Bytes) -> Frame {
        let left = left.saturating_sub(data.len());
        self.expect = if left == 0 { Expect::Head } else { Expect::Data { id, fin, left } };
        Frame::Data { id, fin: fin && left == 0, data }
    }

    fn encode_block(
        &mut self,
        kind: u16,
        flags: u8,
        fixed: &[u8],
        headers: &Headers,
        out: &mut BytesMut,
    ) -> Result<(), CodecError> {
        let start = out.len();
        put_control_head(out, kind, flags, 0);
        out.put_slice(fixed);
        self.deflater.block(headers, out)?;
        let length = out.len().saturating_sub(start).saturating_sub(HEAD);
        if length > MAX_LENGTH {
            out.truncate(start);
            return Err(CodecError::FrameTooLarge { length, limit: MAX_LENGTH });
        }
        // The length, in bytes 5 to 7 of the head, is known only after compression.
        let [_, high, middle, low] = u32::try_from(length).unwrap_or_default().to_be_bytes();
        if let Some(field) = out.get_mut(start.saturating_add(5)..start.saturating_add(HEAD)) {
            field.copy_from_slice(&[high, middle, low]);
        }
        Ok(())
    }

    fn decode_control(&mut self, head: FrameHead, body: BytesMut) -> Result<Frame, CodecError> {
        let mut body = body;
        let fin = head.flags & FLAG_FIN != 0;
        let short = |_| CodecError::FrameSize { kind: head.kind, length: head.length };
        Ok(match head.kind {
            SYN_STREAM => {
                let id = StreamId::new(body.try_get_u32().map_err(short)?);
                let associated = StreamId::new(body.try_get_u32().map_err(short)?);
                let priority = body.try_get_u8().map_err(short)? >> 5;
                let slot = body.try_get_u8().map_err(short)?;
                let unidirectional = head.flags & FLAG_UNIDIRECTIONAL != 0;
                let headers = self.inflater.block(&body, &self.config)?;
                Frame::SynStream { id, associated, priority, slot, fin, unidirectional, headers }
            }
            SYN_REPLY | HEADERS => {
                let id = StreamId::new(body.try_get_u32().map_err(short)?);
                let headers = self.inflater.block(&body, &self.config)?;
                if head.kind == SYN_REPLY {
                    Frame::SynReply { id, fin, headers }
                } else {
                    Frame::Headers { id, fin, headers }
                }
            }
            SETTINGS => {
                let count = body.try_get_u32().map_err(short)? as usize;
                if count > self.config.max_settings {
                    return Err(CodecError::TooManySettings { count, limit: self.config.max_settings });
                }
                if count.saturating_mul(8) != body.len() {
                    return Err(CodecError::FrameSize { kind: head.kind, length: head.length });
                }
                let mut entries = Vec::with_capacity(count);
                for _ in 0..count {
                    let word = body.try_get_u32().map_err(short)?;
                    let [flags, ..] = word.to_be_bytes();
                    let value = body.try_get_u32().map_err(short)?;
                    entries.push(Setting::new(flags, SettingId::new(word & 0xff_ffff), value));
                }
                Frame::Settings(Settings::new(head.flags & FLAG_CLEAR_SETTINGS != 0, entries))
            }
            PING => Frame::Ping(body.try_get_u32().map_err(short)?),
            kind => {
                let id = StreamId::new(body.try_get_u32().map_err(short)?);
                let value = body.try_get_u32().map_err(short)?;
                match kind {
                    RST_STREAM => Frame::RstStream { id, status: RstStatus::new(value) },
                    GOAWAY => Frame::GoAway { last_good: id, status: GoAwayStatus::new(value) },
                    _ => Frame::WindowUpdate { id, delta: StreamId::new(value).get() },
                }
            }
        })
    }
}

impl Decoder for Codec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        loop {
            match self.expect {
                Expect::Data { id, fin, left } => {
                    if src.is_empty() {
                        return Ok(None);
                    }
                    let data = self.payloads.take(src.split_to(left.min(src.len())));
                    return Ok(Some(self.take_data(id, fin, left, data)));
                }
                Expect::Skipped { left } => {
                    let here = left.min(src.len());
                    src.advance(here);
                    let left = left.saturating_sub(here);
                    if left > 0 {
                        self.expect = Expect::Skipped { left };
                        return Ok(None);
                    }
                    self.expect = Expect::Head;
                }
                Expect::Head => {
                    let Some(head) = FrameHead::peek(src) else { return Ok(None) };
                    match head.check(&self.config)? {
                        Body::Data if head.length == 0 => {
                            src.advance(HEAD);
                            return Ok(Some(Frame::Data { id: head.id, fin: head.is_fin(), data: Bytes::new() }));
                        }
                        Body::Data => {
                            src.advance(HEAD);
                            self.expect = Expect::Data { id: head.id, fin: head.is_fin(), left: head.length };
                        }
                        Body::Skipped => {
                            src.advance(HEAD);
                            self.expect = Expect::Skipped { left: head.length };
                        }
                        Body::Control => {
                            let whole = head.length.saturating_add(HEAD);
                            if src.len() < whole {
                                return Ok(None);
                            }
                            let mut body = src.split_to(whole);
                            body.advance(HEAD);
                            return self.decode_control(head, body).map(Some);
                        }
                    }
                }
            }
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        match self.decode(src)? {
            None if !src.is_empty() || !self.is_between_frames() => Err(CodecError::Truncated),
            frame => Ok(frame),
        }
    }
}

impl Encoder<Frame> for Codec {
    type Error = CodecError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), CodecError> {
        let data = self.encode_head(frame, out)?;
        out.extend_from_slice(&data);
        Ok(())
    }
}

/// The first eight bytes of a frame, decoded.
#[derive(Clone, Copy, Debug)]
struct FrameHead {
    control: bool,
    version: u16,
    kind: u16,
    id: StreamId,
    flags: u8,
    length: usize,
}

enum Body {
    Data,
    Control,
    Skipped,
}

impl FrameHead {
    fn peek(src: &BytesMut) -> Option<Self> {
        let mut bytes = src.get(..HEAD)?;
        let first = bytes.try_get_u32().ok()?;
        let second = bytes.try_get_u32().ok()?;
        let [flags, ..] = second.to_be_bytes();
        Some(Self {
            control: first & CONTROL != 0,
            version: u16::try_from(first >> 16 & 0x7fff).unwrap_or_default(),
            kind: u16::try_from(first & 0xffff).unwrap_or_default(),
            id: StreamId::new(first),
            flags,
            length: (second & 0xff_ffff) as usize,
        })
    }

    fn is_fin(&self) -> bool {
        self.flags & FLAG_FIN != 0
    }

    /// Checks the head, before the body has arrived.
    fn check(&self, limits: &SpdyConfig) -> Result<Body, CodecError> {
        if !self.control {
            return Ok(Body::Data);
        }
        if self.version != VERSION {
            return Err(CodecError::Version(self.version));
        }
        let fits = match self.kind {
            RST_STREAM | GOAWAY | WINDOW_UPDATE => self.length == 8,
            PING => self.length == 4,
            SYN_STREAM => self.length >= 10,
            SYN_REPLY | HEADERS | SETTINGS => self.length >= 4,
            _ => true,
        };
        if !fits {
            return Err(CodecError::FrameSize { kind: self.kind, length: self.length });
        }
        if self.length > limits.max_control_frame {
            return Err(CodecError::FrameTooLarge { length: self.length, limit: limits.max_control_frame });
        }
        Ok(match self.kind {
            SYN_STREAM..=SETTINGS | PING..=WINDOW_UPDATE => Body::Control,
            _ => Body::Skipped,
        })
    }
}

/// Why bytes cannot be decoded to frames, or a frame cannot be encoded.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A header block cannot be read.
    #[error("header block: {0}")]
    Header(#[from] HeaderError),
    /// The version field of a control frame is not 3.
    #[error("version {0} is not SPDY/3.1's version 3")]
    Version(u16),
    /// The length is not possible for this type of control frame.
    #[error("a control frame of type {kind} cannot be {length} bytes long")]
    FrameSize {
        /// The type field.
        kind: u16,
        /// The length field.
        length: usize,
    },
    /// The frame is longer than the limit, or than 2^24 - 1 bytes.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    FrameTooLarge {
        /// The length field.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A SETTINGS frame has more entries than [`SpdyConfig::max_settings`].
    #[error("{count} settings are over the limit of {limit}")]
    TooManySettings {
        /// The number of entries.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The bytes end in the middle of a frame.
    #[error("the bytes end in the middle of a frame")]
    Truncated,
    /// The IO of a `FramedRead` or `FramedWrite` failed.
    #[error(transparent)]
    Io(#[from] Arc<io::Error>),
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn put_control_head(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | u32::try_from(length).unwrap_or_default());
}

fn put_pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    put_control_head(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}
