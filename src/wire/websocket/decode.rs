//! Reads WebSocket frames and checks their rules (RFC 6455 §5.2 to §5.5).
//!
//! A length is checked before its bytes arrive, and no memory is allocated for bytes that have not arrived.

use bytes::{Buf, Bytes, BytesMut};

use super::codes;
use super::encode::mask;
use super::opcode::{FIN, MASKED, MAX_CONTROL, Opcode, RESERVED};
use super::utf8::Utf8;
use crate::initiator::Initiator;
use crate::wire::Payloads;

/// Reads the frames of one end. An error is final, since the start of the next frame is then unknown.
#[derive(Debug)]
pub struct Decoder {
    /// The peer is a client, whose frames are masked.
    masked: bool,
    max_message: u64,
    max_fragments: u32,
    /// Each data frame has to be a whole message.
    whole: bool,
    expect: Expect,
    message: Option<Message>,
    payloads: Payloads,
}

#[derive(Clone, Copy, Debug)]
enum Expect {
    Head,
    Data(Payload),
    Closed,
}

/// The rest of a data frame.
#[derive(Clone, Copy, Debug)]
struct Payload {
    left: u64,
    key: [u8; 4],
    fin: bool,
}

impl Payload {
    /// How many of the next `len` bytes belong to this frame.
    fn here(self, len: usize) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX).min(len)
    }

    /// The rest of the frame after its next `len` bytes.
    fn behind(mut self, len: usize) -> Self {
        self.left = self.left.saturating_sub(len as u64);
        self.key.rotate_left(len % 4);
        self
    }
}

/// The message that the current data frames belong to.
#[derive(Clone, Copy, Debug)]
struct Message {
    /// The state of the UTF-8 check, for text.
    utf8: Option<Utf8>,
    len: u64,
    fragments: u32,
    /// A piece of the message was returned already.
    begun: bool,
}

/// A piece of a message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // complete by definition of the opcodes
pub enum Piece {
    /// Bytes of a message.
    Data {
        /// These are the first bytes of the message.
        first: bool,
        /// These are the last bytes of the message.
        last: bool,
        /// The message is text.
        text: bool,
        /// The unmasked bytes. They may be empty.
        payload: Bytes,
    },
    /// A PING with its payload, which the PONG must repeat.
    Ping(Bytes),
    /// A PONG with its payload.
    Pong(Bytes),
    /// The peer's last frame. Bytes after it are ignored.
    Close(Option<CloseReason>),
}

/// The content of a Close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // §5.5.1 knows no more
pub struct CloseReason {
    /// The status code (§7.4).
    pub code: u16,
    /// The reason, for people. It may be empty.
    pub reason: String,
}

/// Why the peer's bytes are not valid WebSocket frames. The peer is always the cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The peer broke a rule.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// A message is longer than [`WebSocketConfig::max_message`](crate::mux::WebSocketConfig::max_message).
    #[error("a message of more than {limit} bytes")]
    MessageTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A message has more frames than [`WebSocketConfig::max_fragments`](crate::mux::WebSocketConfig::max_fragments).
    #[error("a message of more than {limit} fragments")]
    TooManyFragments {
        /// The limit.
        limit: u32,
    },
}

/// A rule of RFC 6455 that a peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A client's frame is not masked (§5.1).
    #[error("a client's frame that is not masked")]
    Unmasked,
    /// A server's frame is masked (§5.1).
    #[error("a server's frame that is masked")]
    Masked,
    /// Reserved bits are set, although no extension was negotiated (§5.2).
    #[error("reserved bits are set")]
    ReservedBits,
    /// The opcode is reserved (§5.2).
    #[error("a reserved opcode")]
    ReservedOpcode,
    /// A control frame is fragmented (§5.5).
    #[error("a fragmented control frame")]
    FragmentedControl,
    /// A control frame has more than 125 bytes (§5.5).
    #[error("a control frame of more than 125 bytes")]
    LongControl,
    /// A length is not in its shortest form (§5.2).
    #[error("a length that is not in its shortest form")]
    LongLength,
    /// The highest bit of a 64-bit length is set (§5.2).
    #[error("a length of 2^63 or more")]
    HugeLength,
    /// A continuation frame does not follow a fragment (§5.4).
    #[error("a continuation frame without a message")]
    LoneContinuation,
    /// A message begins before the fragments of another have ended (§5.4).
    #[error("a message inside another")]
    Interleaved,
    /// A message in fragments, where each frame has to be a whole message: Go's servers take each frame of a client for
    /// one.
    #[error("a message in fragments, each of which a server of Go takes for a message")]
    Fragments,
    /// A text message, or the reason of a Close, is not UTF-8 (§8.1).
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// A text message came in a subprotocol of binary messages (§5.6).
    #[error("a text message in a subprotocol of binary messages")]
    Text,
    /// A Close frame has one byte instead of a code, or a code that must not be sent (§5.5.1, §7.4).
    #[error("a Close frame without a valid code")]
    BadClose,
}

impl WebSocketError {
    /// The code of the Close frame that answers this error (§7.4.1).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Fault(Fault::NotUtf8) => codes::INVALID_PAYLOAD,
            Self::Fault(Fault::Text) => codes::UNSUPPORTED_DATA,
            Self::Fault(_) => codes::PROTOCOL_ERROR,
            Self::MessageTooLarge { .. } => codes::MESSAGE_TOO_BIG,
            Self::TooManyFragments { .. } => codes::POLICY_VIOLATION,
        }
    }

    /// Which end caused the error: always the peer.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        Initiator::Remote
    }
}

impl Decoder {
    /// Creates a decoder. `masked`: the peer is a client, whose frames are masked.
    #[must_use]
    pub fn new(masked: bool, max_message: u64, max_fragments: u32) -> Self {
        let payloads = Payloads::default();
        Self { masked, max_message, max_fragments, whole: false, expect: Expect::Head, message: None, payloads }
    }

    /// Takes a fragment of a message for a [`Fault::Fragments`].
    #[must_use]
    pub fn without_fragments(self) -> Self {
        Self { whole: true, ..self }
    }

    /// Takes the next frame, or the next piece of one, off the front of `src`. Returns `None` if more bytes are needed,
    /// and always after a Close.
    ///
    /// # Errors
    /// [`WebSocketError`].
    pub fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Piece>, WebSocketError> {
        match self.expect {
            Expect::Head => {}
            Expect::Data(payload) => return self.decode_payload(payload, src),
            Expect::Closed => {
                src.clear();
                return Ok(None);
            }
        }
        let Some((head, len)) = Head::peek(src, self.masked)? else { return Ok(None) };
        if head.opcode.is_control() {
            return self.decode_control(&head, len, src);
        }
        self.begin(&head)?;
        src.advance(len);
        let payload = Payload { left: head.length, key: head.key, fin: head.fin };
        self.expect = Expect::Data(payload);
        if head.length == 0 {
            return self.finish_payload(payload, Bytes::new()).map(Some);
        }
        self.decode_payload(payload, src)
    }

    /// Takes the next payload bytes of a data frame that has begun: as a slice of `src`, or as a copy if they are
    /// masked. `None` if no data frame has begun or `src` is empty.
    ///
    /// Use it to read bytes that belong to another buffer. Copy everything else into a buffer for
    /// [`decode`](Self::decode), and no more of it than [`missing`](Self::missing) says.
    ///
    /// # Errors
    /// The same as [`decode`](Self::decode).
    pub fn decode_data(&mut self, src: &mut Bytes) -> Result<Option<Piece>, WebSocketError> {
        let Expect::Data(payload) = self.expect else { return Ok(None) };
        if src.is_empty() {
            return Ok(None);
        }
        let mut bytes = src.split_to(payload.here(src.len()));
        let rest = payload.behind(bytes.len());
        if self.masked {
            let mut unmasked = BytesMut::from(&bytes[..]);
            mask(&mut unmasked, payload.key);
            bytes = unmasked.freeze();
        }
        self.finish_payload(rest, bytes).map(Some)
    }

    /// How many bytes must follow `src` before [`decode`](Self::decode) can go on. Payload bytes of data frames do not
    /// count: [`decode_data`](Self::decode_data) takes them.
    #[must_use]
    pub fn missing(&self, src: &[u8]) -> usize {
        match self.expect {
            Expect::Head => Head::wanted(src, self.masked).saturating_sub(src.len()),
            Expect::Data(_) | Expect::Closed => 0,
        }
    }

    /// Whether the bytes read so far end between two frames, and between two messages.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        !matches!(self.expect, Expect::Data(_)) && self.message.is_none()
    }

    /// Frees buffers that are allocated again when they are needed.
    pub fn release(&mut self) {
        self.payloads.release();
    }

    /// Checks a data frame against the current message, or begins a message.
    fn begin(&mut self, head: &Head) -> Result<(), WebSocketError> {
        let message = match (head.opcode, self.message) {
            (Opcode::Continuation, None) => return Err(Fault::LoneContinuation.into()),
            _ if self.whole && !head.fin => return Err(Fault::Fragments.into()),
            (Opcode::Continuation, Some(message)) => message,
            (_, Some(_)) => return Err(Fault::Interleaved.into()),
            (opcode, None) => {
                let utf8 = (opcode == Opcode::Text).then(Utf8::default);
                Message { utf8, len: 0, fragments: 0, begun: false }
            }
        };
        let len = message.len.saturating_add(head.length);
        let fragments = message.fragments.saturating_add(1);
        if len > self.max_message {
            return Err(WebSocketError::MessageTooLarge { limit: self.max_message });
        }
        if fragments > self.max_fragments {
            return Err(WebSocketError::TooManyFragments { limit: self.max_fragments });
        }
        self.message = Some(Message { len, fragments, ..message });
        Ok(())
    }

    fn decode_payload(&mut self, payload: Payload, src: &mut BytesMut) -> Result<Option<Piece>, WebSocketError> {
        if src.is_empty() {
            return Ok(None);
        }
        let mut bytes = src.split_to(payload.here(src.len()));
        let rest = payload.behind(bytes.len());
        if self.masked {
            mask(&mut bytes, payload.key);
        }
        let bytes = self.payloads.take(bytes);
        self.finish_payload(rest, bytes).map(Some)
    }

    /// Returns a piece of the message. `rest`: the part of its frame that has not arrived.
    fn finish_payload(&mut self, rest: Payload, payload: Bytes) -> Result<Piece, WebSocketError> {
        self.expect = if rest.left == 0 { Expect::Head } else { Expect::Data(rest) };
        let last = rest.left == 0 && rest.fin;
        let mut message = self.message.take().ok_or(Fault::LoneContinuation)?;
        if let Some(utf8) = &mut message.utf8
            && !(utf8.push(&payload) && (!last || utf8.is_whole()))
        {
            return Err(Fault::NotUtf8.into());
        }
        let first = !std::mem::replace(&mut message.begun, true);
        let text = message.utf8.is_some();
        if !last {
            self.message = Some(message);
        }
        Ok(Piece::Data { first, last, text, payload })
    }

    fn decode_control(&mut self, head: &Head, len: usize, src: &mut BytesMut) -> Result<Option<Piece>, WebSocketError> {
        let whole = usize::try_from(head.length).unwrap_or(usize::MAX).saturating_add(len);
        if src.len() < whole {
            return Ok(None);
        }
        let mut bytes = src.split_to(whole);
        bytes.advance(len);
        if self.masked {
            mask(&mut bytes, head.key);
        }
        Ok(Some(match head.opcode {
            Opcode::Ping => Piece::Ping(self.payloads.take(bytes)),
            Opcode::Pong => Piece::Pong(self.payloads.take(bytes)),
            _ => {
                let reason = close_reason(bytes)?;
                self.expect = Expect::Closed;
                Piece::Close(reason)
            }
        }))
    }
}

/// The head of a frame (§5.2).
#[derive(Clone, Copy, Debug)]
struct Head {
    opcode: Opcode,
    fin: bool,
    length: u64,
    key: [u8; 4],
}

impl Head {
    /// Reads a head and its length without taking it. Each error is reported as soon as the bytes that show it have
    /// arrived.
    fn peek(src: &[u8], masked: bool) -> Result<Option<(Self, usize)>, WebSocketError> {
        let mut bytes = src;
        let Ok(first) = bytes.try_get_u8() else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(Fault::ReservedBits.into());
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(Fault::ReservedOpcode)?;
        let fin = first & FIN != 0;
        if opcode.is_control() && !fin {
            return Err(Fault::FragmentedControl.into());
        }
        let Ok(second) = bytes.try_get_u8() else { return Ok(None) };
        match (second & MASKED != 0, masked) {
            (false, true) => return Err(Fault::Unmasked.into()),
            (true, false) => return Err(Fault::Masked.into()),
            _ => {}
        }
        let short = second & !MASKED;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(Fault::LongControl.into());
        }
        let length = match short {
            126 => bytes.try_get_u16().map(u64::from),
            127 => bytes.try_get_u64(),
            short => Ok(u64::from(short)),
        };
        let Ok(length) = length else { return Ok(None) };
        match (short, length) {
            (126, ..=125) | (127, ..=0xffff) => return Err(Fault::LongLength.into()),
            (127, 0x8000_0000_0000_0000..) => return Err(Fault::HugeLength.into()),
            _ => {}
        }
        let mut key = [0; 4];
        if masked && bytes.try_copy_to_slice(&mut key).is_err() {
            return Ok(None);
        }
        Ok(Some((Self { opcode, fin, length, key }, src.len().saturating_sub(bytes.len()))))
    }

    /// The length of the head that starts with `src`. For a control frame the payload is included.
    fn wanted(src: &[u8], masked: bool) -> usize {
        let &[first, second, ..] = src else { return 2 };
        let short = second & !MASKED;
        let length = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let key = if masked { 4 } else { 0 };
        let control = Opcode::from_bits(first & 0x0f).is_some_and(Opcode::is_control);
        let payload = if control { usize::from(short) } else { 0 };
        [2, length, key, payload].into_iter().fold(0, usize::saturating_add)
    }
}

fn close_reason(mut payload: BytesMut) -> Result<Option<CloseReason>, WebSocketError> {
    if payload.is_empty() {
        return Ok(None);
    }
    let code = payload.try_get_u16().map_err(|_| Fault::BadClose)?;
    if !codes::may_be_sent(code) {
        return Err(Fault::BadClose.into());
    }
    let reason = String::from_utf8(payload.to_vec()).map_err(|_| Fault::NotUtf8)?;
    Ok(Some(CloseReason { code, reason }))
}
