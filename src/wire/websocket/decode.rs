//! Bytes to frames, and the rules on them (RFC 6455 §5.2 to §5.5).
//!
//! A length is checked before its bytes are waited for, and nothing is allocated on a peer's word.

use bytes::{Buf, Bytes, BytesMut};

use super::codes;
use super::encode::mask;
use super::opcode::{FIN, MASKED, MAX_CONTROL, Opcode, RESERVED};
use super::utf8::Utf8;
use crate::initiator::Initiator;
use crate::wire::Payloads;

/// Reads one end's frames. An error is final: where the next frame begins is not known any more.
#[derive(Debug)]
pub struct Decoder {
    /// The peer is a client, and masks.
    masked: bool,
    max_message: u64,
    max_fragments: u32,
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
    /// How much of `len` bytes is its own.
    fn here(self, len: usize) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX).min(len)
    }

    /// What is left of it behind so many bytes.
    fn behind(mut self, len: usize) -> Self {
        self.left = self.left.saturating_sub(len as u64);
        self.key.rotate_left(len % 4);
        self
    }
}

/// The message that data frames belong to.
#[derive(Clone, Copy, Debug)]
struct Message {
    /// For text.
    utf8: Option<Utf8>,
    len: u64,
    fragments: u32,
    /// A piece of it was handed on.
    begun: bool,
}

/// What a peer sends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // complete by definition of the opcodes
pub enum Piece {
    /// Bytes of a message.
    Data {
        /// They are its first.
        first: bool,
        /// They are its last.
        last: bool,
        /// It is one of text.
        text: bool,
        /// The bytes, unmasked.
        payload: Bytes,
    },
    /// A PING with its payload, which the PONG repeats.
    Ping(Bytes),
    /// A PONG with its payload.
    Pong(Bytes),
    /// The last frame: what follows is not read.
    Close(Option<CloseReason>),
}

/// What a Close frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // §5.5.1 knows no more
pub struct CloseReason {
    /// The status code (§7.4).
    pub code: u16,
    /// Words for people, maybe none.
    pub reason: String,
}

/// The peer's bytes are not frames within the limits: always its fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// A rule is broken.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// A message is longer than [`Limits::max_message`](crate::mux::Limits::max_message).
    #[error("a message of more than {limit} bytes")]
    MessageTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A message has more frames than [`Limits::max_fragments`](crate::mux::Limits::max_fragments).
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
    /// §5.1: clients mask.
    #[error("a frame of a client that is not masked")]
    Unmasked,
    /// §5.1: servers do not.
    #[error("a masked frame of a server")]
    Masked,
    /// §5.2: nothing was negotiated that gives them a meaning.
    #[error("reserved bits are set")]
    ReservedBits,
    /// §5.2.
    #[error("a reserved opcode")]
    ReservedOpcode,
    /// §5.5.
    #[error("a fragmented control frame")]
    FragmentedControl,
    /// §5.5.
    #[error("a control frame of more than 125 bytes")]
    LongControl,
    /// §5.2: the shortest form is the only one.
    #[error("a length in a longer form than it needs")]
    LongLength,
    /// §5.2: its highest bit is 0.
    #[error("a length beyond 2^63")]
    HugeLength,
    /// §5.4.
    #[error("a continuation of no message")]
    LoneContinuation,
    /// §5.4.
    #[error("a message begins inside another")]
    Interleaved,
    /// §8.1.
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// §5.6: the subprotocol speaks in bytes.
    #[error("a message of text in a subprotocol of bytes")]
    Text,
    /// §5.5.1, §7.4.
    #[error("a Close frame with half a code, or with one that is never sent")]
    BadClose,
}

impl WebSocketError {
    /// The code of the Close frame that answers it (§7.4.1).
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

    /// Who caused it: always the peer.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        Initiator::Remote
    }
}

impl Decoder {
    /// For what a peer sends that is a client (`masked`) or a server.
    #[must_use]
    pub fn new(masked: bool, max_message: u64, max_fragments: u32) -> Self {
        let payloads = Payloads::default();
        Self { masked, max_message, max_fragments, expect: Expect::Head, message: None, payloads }
    }

    /// Takes the next frame, or the next piece of one, off the front of `src`. `None`: more bytes are needed, or there
    /// will be none after a Close.
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

    /// Takes the next payload bytes of a data frame that has begun: as a slice of `src`, or as a copy if they are masked. `None` if
    /// no data frame has begun or `src` is empty.
    ///
    /// Use it to read bytes that belong to another buffer. Copy everything else into a buffer for [`decode`](Self::decode), and
    /// no more of it than [`missing`](Self::missing) says.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
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

    /// How many bytes must follow `src` before [`decode`](Self::decode) can go on. Payload bytes of data frames do not count:
    /// [`decode_data`](Self::decode_data) takes them.
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

    /// Gives buffers back that come again by themselves when they are needed.
    pub fn release(&mut self) {
        self.payloads.release();
    }

    /// Checks a data frame against the message that is under way, or begins one.
    fn begin(&mut self, head: &Head) -> Result<(), WebSocketError> {
        let message = match (head.opcode, self.message) {
            (Opcode::Continuation, None) => return Err(Fault::LoneContinuation.into()),
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

    /// Hands on a piece of the message. `rest`: what of its frame is still to come.
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
    /// Reads a head without taking it, and how many bytes it has. What is wrong with it is known as soon as its bytes are there.
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

    /// How many bytes a head that begins so has, and with them a control frame's payload.
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
