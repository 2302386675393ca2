//! A played WebSocket peer: it sends and reads frames bit by bit, and keeps to no rule. It is written from RFC 6455
//! §5.2 and shares no code with the crate.
//!
//! Encodes and decodes the frames.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame: its first byte as given, and the shortest encoding of its length.
pub fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(mask | len as u8),
        len @ ..0x1_0000 => {
            frame.push(mask | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(mask | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    if masked {
        frame.extend(KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        frame.extend(payload);
    }
    frame
}

pub struct WebSocketPeer<IO = DuplexStream> {
    io: IO,
    client: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> WebSocketPeer<IO> {
    /// A peer that masks its frames.
    pub fn client(io: IO) -> Self {
        Self { io, client: true }
    }

    pub fn server(io: IO) -> Self {
        Self { io, client: false }
    }

    pub async fn say(&mut self, opcode: u8, payload: &[u8]) {
        self.raw(&frame(0x80 | opcode, payload, self.client)).await;
    }

    /// Sends a binary message of a channel.
    pub async fn on(&mut self, channel: u8, data: &[u8]) {
        self.say(BINARY, &[&[channel], data].concat()).await;
    }

    pub async fn close(&mut self, code: u16) {
        self.say(CLOSE, &code.to_be_bytes()).await;
    }

    /// Sends a part of a message.
    pub async fn fragment(&mut self, opcode: u8, last: bool, payload: &[u8]) {
        let fin = if last { 0x80 } else { 0 };
        self.raw(&frame(fin | opcode, payload, self.client)).await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// As [`raw`](Self::raw), if the other end may be gone. Returns whether it still exists.
    pub async fn try_raw(&mut self, bytes: &[u8]) -> bool {
        self.io.write_all(bytes).await.is_ok()
    }

    /// Reads the next frame: its opcode and payload. Checks that it is not fragmented, is masked as it must be, and has
    /// the shortest length. `None` at the end.
    pub async fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = match self.io.read_u8().await {
            Ok(first) => first,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
                return None;
            }
        };
        assert_eq!(first & 0xf0, 0x80, "this library neither fragments nor extends");
        let second = self.io.read_u8().await.unwrap();
        assert_eq!(second & 0x80 != 0, !self.client, "clients mask and servers do not");
        let length = match second & 0x7f {
            126 => u64::from(self.io.read_u16().await.unwrap()),
            127 => self.io.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut key = [0; 4];
        if !self.client {
            self.io.read_exact(&mut key).await.unwrap();
        }
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.io.read_exact(&mut payload).await.unwrap();
        if !self.client {
            for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
        }
        Some((first & 0x0f, payload))
    }

    /// All frames up to the end.
    pub async fn hear_all(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(frame) = self.hear().await {
            frames.push(frame);
        }
        frames
    }

    /// All frames up to the Close, or the end.
    pub async fn hear_to_close(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(frame) = self.hear().await {
            frames.push(frame);
            if frames.last().is_some_and(|(opcode, _)| *opcode == CLOSE) {
                break;
            }
        }
        frames
    }

    pub fn into_io(self) -> IO {
        self.io
    }
}

/// What the messages carry on a channel.
pub fn carried_on(frames: &[(u8, Vec<u8>)], channel: u8) -> Vec<u8> {
    let on = |(opcode, payload): &&(u8, Vec<u8>)| *opcode == BINARY && payload.first() == Some(&channel);
    frames.iter().filter(on).flat_map(|(_, payload)| payload[1..].to_vec()).collect()
}
