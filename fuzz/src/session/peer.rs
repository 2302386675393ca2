//! What a peer may send in a session.
//!
//! Builds the bytes, so that mutations get past the heads of frames.

use arbitrary::{Arbitrary, Result, Unstructured};
use base64::Engine;
use kubestream::protocol::Subprotocol;

use crate::channel::BASE64;

#[derive(Debug)]
pub(crate) enum Saying<'a> {
    /// A message on a channel, in fragments of `cut` bytes unless that is 0.
    Data {
        channel: u8,
        len: u16,
        cut: u8,
    },
    /// The same on the error channel.
    Status {
        which: u8,
        cut: u8,
    },
    CloseChannel(u8),
    Close {
        code: u8,
        reason: u8,
    },
    Ping(u8),
    /// A frame that may be wrong in any way: `lie` changes its length or its mask.
    Frame {
        head: u8,
        lie: u8,
        payload: &'a [u8],
    },
    Raw(&'a [u8]),
}

impl<'a> Saying<'a> {
    /// `kind` is 0 to 13. Frequent kinds have several values.
    pub(crate) fn next(kind: u8, input: &mut Unstructured<'a>) -> Result<Self> {
        let bytes = |input: &mut Unstructured<'a>| {
            let len = usize::from(u8::arbitrary(input)?);
            input.bytes(len.min(input.len()))
        };
        Ok(match kind {
            0..=3 => Self::Data { channel: input.arbitrary()?, len: input.arbitrary()?, cut: input.arbitrary()? },
            4 | 5 => Self::Status { which: input.arbitrary()?, cut: input.arbitrary()? },
            6 => Self::CloseChannel(input.arbitrary()?),
            7 => Self::Close { code: input.arbitrary()?, reason: input.arbitrary()? },
            8 => Self::Ping(input.arbitrary()?),
            9..=12 => Self::Frame { head: input.arbitrary()?, lie: input.arbitrary()?, payload: bytes(input)? },
            _ => Self::Raw(bytes(input)?),
        })
    }
}

pub(crate) struct Peer {
    masks: bool,
    subprotocol: Subprotocol,
    count: u8,
}

const STATUSES: [&[u8]; 6] = [
    br#"{"metadata":{},"status":"Success"}"#,
    br#"{"status":"Failure","message":"command terminated with non-zero exit code: exit status 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#,
    b"command terminated with non-zero exit code: exit status 7",
    br#"{"status":"Succ"#,
    b" \n",
    b"boom",
];
const CODES: [u16; 8] = [1000, 1001, 1002, NONE, 1011, 3000, 999, 1006];
const NONE: u16 = 1005;

impl Peer {
    pub(crate) fn new(masks: bool, subprotocol: Subprotocol) -> Self {
        Self { masks, subprotocol, count: 0 }
    }

    /// Up to 1,535 bytes, each different from the one before: more than the small budgets, and quickly carried.
    pub(crate) fn bytes(&mut self, len: impl Into<usize>) -> Vec<u8> {
        (0..len.into() % 1536).map(|_| self.byte()).collect()
    }

    fn byte(&mut self) -> u8 {
        self.count = self.count.wrapping_add(1);
        self.count
    }

    pub(crate) fn says(&mut self, saying: Saying<'_>, out: &mut Vec<u8>) {
        match saying {
            Saying::Data { channel, len, cut } => {
                let data = self.bytes(len);
                self.message(channel % 6, &data, cut, out);
            }
            Saying::Status { which, cut } => self.message(3, STATUSES[usize::from(which % 6)], cut, out),
            Saying::CloseChannel(channel) => self.frame(0x82, &[255, channel], 0, out),
            Saying::Close { code, reason } => match CODES[usize::from(code % 8)] {
                NONE => self.frame(0x88, &[], 0, out),
                code => {
                    let reason = vec![b'r'; usize::from(reason % 130)];
                    self.frame(0x88, &[&code.to_be_bytes()[..], &reason].concat(), 0, out);
                }
            },
            Saying::Ping(len) => {
                let payload = self.bytes(len);
                self.frame(0x89, &payload, 0, out);
            }
            Saying::Frame { head, lie, payload } => self.frame(head, payload, lie, out),
            Saying::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }

    pub(crate) fn message(&mut self, number: u8, data: &[u8], cut: u8, out: &mut Vec<u8>) {
        let base64 = self.subprotocol.is_base64();
        let message =
            if base64 { format!("{number}{}", BASE64.encode(data)).into_bytes() } else { [&[number], data].concat() };
        let step = if cut == 0 { message.len() } else { cut.into() };
        let count = message.len().div_ceil(step);
        for (at, piece) in message.chunks(step).enumerate() {
            let opcode = match (at, base64) {
                (0, true) => 1,
                (0, false) => 2,
                _ => 0,
            };
            self.frame(opcode | if at + 1 == count { 0x80 } else { 0 }, piece, 0, out);
        }
    }

    /// The lower half of `lie` says what is wrong, and the upper half by how much.
    fn frame(&mut self, head: u8, payload: &[u8], lie: u8, out: &mut Vec<u8>) {
        let (kind, by) = (lie & 0x0f, lie >> 4);
        let masks = self.masks != (kind == 1);
        let length = payload.len() as u64;
        let length = match kind {
            2 => length + u64::from(by),
            3 => length.saturating_sub(by.into()),
            4 => 1 << (16 + by),
            5 => u64::MAX >> by,
            _ => length,
        };
        let mask = if masks { 0x80 } else { 0 };
        out.push(head);
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ ..126), _) if !matches!(kind, 6 | 7) => out.push(mask | length),
            (_, Ok(length)) if kind != 7 => {
                out.push(mask | 126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                out.push(mask | 127);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
        let key = if masks { [self.byte(), 0x5a, 0xc3, self.byte()] } else { [0; 4] };
        out.extend_from_slice(if masks { &key } else { &[] });
        out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
}
