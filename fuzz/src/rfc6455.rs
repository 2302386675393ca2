//! A second decoder of RFC 6455, slow and plain: it gets all bytes at once, and has each rule where the RFC has it.
//!
//! The fuzz targets compare with this. It must share no code with what it judges, except for the names of the errors.

use kubestream::unstable::wire::websocket::{Fault, WebSocketError};

/// What an end sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Message { text: bool, bytes: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// Why decoding stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The bytes end between two frames and between two messages.
    Between,
    Inside,
    Closed,
    Broken(WebSocketError),
}

/// The result of decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) said: Vec<Said>,
    /// The beginning of the last message, if it is incomplete.
    pub(crate) begun: Vec<u8>,
    /// True if there is such a message.
    pub(crate) inside: bool,
    pub(crate) end: End,
    /// The number of bytes up to the end, or up to the incomplete frame.
    pub(crate) taken: usize,
}

/// Decodes what a client (`masked`) or a server sends.
pub(crate) fn read(bytes: &[u8], masked: bool, max_message: u64, max_fragments: u32) -> Reading {
    let (mut said, mut taken) = (Vec::new(), 0);
    let mut message: Option<Message> = None;
    let end = loop {
        let frame = match frame(&bytes[taken..], masked) {
            Ok(Some(frame)) => frame,
            Ok(None) if taken == bytes.len() && message.is_none() => break End::Between,
            Ok(None) => break End::Inside,
            Err(fault) => break End::Broken(fault.into()),
        };
        if frame.opcode < 8
            && let Err(error) = add(&mut message, &frame, max_message, max_fragments)
        {
            break End::Broken(error);
        }
        let Some(whole) = frame.whole else { break End::Inside };
        taken += whole;
        match frame.opcode {
            ..=7 if frame.fin => {
                said.extend(message.take().map(|Message { text, bytes, .. }| Said::Message { text, bytes }))
            }
            ..=7 => {}
            9 => said.push(Said::Ping(frame.payload)),
            10 => said.push(Said::Pong(frame.payload)),
            _ => match close(&frame.payload) {
                Ok(reason) => {
                    said.push(Said::Close(reason));
                    break End::Closed;
                }
                Err(fault) => break End::Broken(fault.into()),
            },
        }
    };
    let inside = message.is_some();
    Reading { said, begun: message.map_or(Vec::new(), |message| message.bytes), inside, end, taken }
}

/// The first end of a frame that is not before `at`, or the end of the bytes.
pub(crate) fn frame_end(bytes: &[u8], masked: bool, at: usize) -> usize {
    let mut taken = 0;
    while taken < at {
        let Ok(Some(Frame { whole: Some(whole), .. })) = frame(&bytes[taken..], masked) else { return bytes.len() };
        taken += whole;
    }
    taken
}

struct Message {
    text: bool,
    bytes: Vec<u8>,
    /// The length that its frames have announced.
    length: u128,
    fragments: u32,
}

/// §5.4 and §8.1.
fn add(
    message: &mut Option<Message>,
    frame: &Frame,
    max_message: u64,
    max_fragments: u32,
) -> Result<(), WebSocketError> {
    match (frame.opcode, &message) {
        (0, None) => return Err(Fault::LoneContinuation.into()),
        (1 | 2, Some(_)) => return Err(Fault::Interleaved.into()),
        _ => {}
    }
    let begins = message.is_none();
    let new = Message { text: frame.opcode == 1, bytes: Vec::new(), length: 0, fragments: 0 };
    let under_way = message.get_or_insert(new);
    under_way.length += u128::from(frame.length);
    under_way.fragments += 1;
    let over = if under_way.length > u128::from(max_message) {
        Some(WebSocketError::MessageTooLarge { limit: max_message })
    } else if under_way.fragments > max_fragments {
        Some(WebSocketError::TooManyFragments { limit: max_fragments })
    } else {
        None
    };
    if let Some(over) = over {
        if begins {
            *message = None;
        }
        return Err(over);
    }
    under_way.bytes.extend_from_slice(&frame.payload);
    let last = frame.fin && frame.whole.is_some();
    if under_way.text
        && let Err(error) = std::str::from_utf8(&under_way.bytes)
        && (last || error.error_len().is_some())
    {
        return Err(Fault::NotUtf8.into());
    }
    Ok(())
}

struct Frame {
    fin: bool,
    opcode: u8,
    length: u64,
    /// The length of head and payload, if all bytes are there.
    whole: Option<usize>,
    payload: Vec<u8>,
}

/// §5.2, in the order of its figure. Returns `None` if the head is incomplete.
fn frame(bytes: &[u8], masked: bool) -> Result<Option<Frame>, Fault> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let (fin, opcode) = (first >= 0x80, first % 16);
    if first / 16 % 8 != 0 {
        return Err(Fault::ReservedBits);
    }
    if matches!(opcode, 3..=7 | 11..) {
        return Err(Fault::ReservedOpcode);
    }
    if opcode >= 8 && !fin {
        return Err(Fault::FragmentedControl);
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    match (masked, second >= 0x80) {
        (true, false) => return Err(Fault::Unmasked),
        (false, true) => return Err(Fault::Masked),
        _ => {}
    }
    let short = second % 128;
    if opcode >= 8 && short > 125 {
        return Err(Fault::LongControl);
    }
    let width = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(long) = bytes.get(2..2 + width) else { return Ok(None) };
    let long = long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let length = if width == 0 { u64::from(short) } else { long };
    if width == 2 && length < 126 || width == 8 && length < 1 << 16 {
        return Err(Fault::LongLength);
    }
    if length >> 63 == 1 {
        return Err(Fault::HugeLength);
    }
    let start = 2 + width + if masked { 4 } else { 0 };
    let Some(rest) = bytes.get(start..) else { return Ok(None) };
    let there = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
    let mut payload = rest[..there].to_vec();
    if masked {
        payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= bytes[start - 4 + at % 4]);
    }
    let whole = (there as u64 == length).then_some(start + there);
    Ok(Some(Frame { fin, opcode, length, whole, payload }))
}

/// §5.5.1 and §7.4.
fn close(payload: &[u8]) -> Result<Option<(u16, String)>, Fault> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Fault::BadClose),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if matches!(code, ..1000 | 1004 | 1005 | 1006 | 1015..3000 | 5000..) {
        return Err(Fault::BadClose);
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Some((code, reason.to_owned()))),
        Err(_) => Err(Fault::NotUtf8),
    }
}
