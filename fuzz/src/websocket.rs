//! Tests what is decoded of a peer's WebSocket frames, at any cut, against two other decoders.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use kubestream::unstable::wire::websocket::{Decoder, Opcode, Piece, close_payload, encode_head, mask};
use kubestream::unstable::wire::websocket::{Fault, WebSocketError};
use tungstenite::Message;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

use crate::rfc6455::{self, End, Reading, Said};

const NOT_UTF8: End = End::Broken(WebSocketError::Fault(Fault::NotUtf8));

/// Any bytes are messages or an error, the same at any cut, and the same for a plain decoder of the RFC and for
/// tungstenite. What was decoded can be encoded and decoded again. Limits hold, and the result is no longer than the
/// input.
///
/// The first byte chooses the peer's role and the limits.
pub fn websocket_frame(input: &[u8]) {
    let Some((&choice, input)) = input.split_first() else { return };
    let masked = choice & 1 == 0;
    let max_message = [u64::MAX, 32 << 20, 300, 5][usize::from(choice >> 1 & 3)];
    let max_fragments = [u32::MAX, 1024, 4, 1][usize::from(choice >> 3 & 3)];
    let decode = |step| decode(input, step, masked, max_message, max_fragments);

    let whole = decode(input.len().max(1));
    assert_eq!(whole, decode(1 + input.len() % 13), "a split matters");
    let mut plain = rfc6455::read(input, masked, max_message, max_fragments);
    assert!(plain.taken <= input.len());
    (plain.taken, plain.inside) = (0, false);
    if plain.end == NOT_UTF8 {
        plain.begun.clear();
    }
    assert_eq!(whole, plain, "RFC 6455");
    let carried = |said: &Said| match said {
        Said::Message { bytes, .. } => {
            assert!(bytes.len() as u64 <= max_message);
            bytes.len()
        }
        Said::Ping(payload) | Said::Pong(payload) => payload.len(),
        Said::Close(reason) => reason.as_ref().map_or(0, |(_, reason)| 2 + reason.len()),
    };
    assert!(whole.said.iter().map(carried).sum::<usize>() + whole.begun.len() <= input.len());
    assert!(whole.begun.len() as u64 <= max_message);
    judge(&whole, input, masked);

    // Our frames are not fragmented, and nothing that was decoded within the limits exceeds them.
    let wire = encode(&whole.said, masked);
    let again = self::decode(&wire, wire.len().max(1), masked, max_message, 1);
    let end = if whole.end == End::Closed { End::Closed } else { End::Between };
    assert_eq!(again, Reading { said: whole.said, begun: Vec::new(), inside: false, end, taken: 0 });
}

/// The decoder's result in the words of the other one. Pieces are joined, because the cuts depend on how the input is
/// split.
fn decode(input: &[u8], step: usize, masked: bool, max_message: u64, max_fragments: u32) -> Reading {
    let (mut decoder, mut buffer) = (Decoder::new(masked, max_message, max_fragments), BytesMut::new());
    let (mut said, mut begun, mut closed) = (Vec::new(), None::<(bool, Vec<u8>)>, false);
    let mut pieces = input.chunks(step);
    let end = 'end: loop {
        loop {
            let piece = match decoder.decode(&mut buffer) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => break 'end End::Broken(error),
            };
            assert!(!closed, "{piece:?} after a Close");
            match piece {
                Piece::Data { first, last, text, payload } => {
                    assert_eq!(first, begun.is_none());
                    let (kind, bytes) = begun.get_or_insert((text, Vec::new()));
                    assert_eq!(*kind, text);
                    bytes.extend_from_slice(&payload);
                    if last {
                        said.extend(begun.take().map(|(text, bytes)| Said::Message { text, bytes }));
                    }
                }
                Piece::Ping(payload) => said.push(Said::Ping(payload.to_vec())),
                Piece::Pong(payload) => said.push(Said::Pong(payload.to_vec())),
                Piece::Close(reason) => {
                    closed = true;
                    said.push(Said::Close(reason.map(|reason| (reason.code, reason.reason))));
                }
            }
        }
        match pieces.next() {
            Some(piece) => buffer.extend_from_slice(piece),
            None if closed => break End::Closed,
            None if buffer.is_empty() && decoder.is_between_messages() => break End::Between,
            None => break End::Inside,
        }
    };
    let mut begun = begun.map_or(Vec::new(), |(_, bytes)| bytes);
    if end == NOT_UTF8 {
        // How much of it was passed on before the fault depends on the cuts.
        begun.clear();
    }
    Reading { said, begun, inside: false, end, taken: 0 }
}

fn encode(said: &[Said], masked: bool) -> BytesMut {
    let mut wire = BytesMut::new();
    for (at, said) in said.iter().enumerate() {
        let (opcode, mut payload) = match said {
            Said::Message { text: true, bytes } => (Opcode::Text, bytes.clone()),
            Said::Message { text: false, bytes } => (Opcode::Binary, bytes.clone()),
            Said::Ping(payload) => (Opcode::Ping, payload.clone()),
            Said::Pong(payload) => (Opcode::Pong, payload.clone()),
            Said::Close(None) => (Opcode::Close, Vec::new()),
            Said::Close(Some((code, reason))) => (Opcode::Close, close_payload(*code, reason).to_vec()),
        };
        let key = masked.then(|| u32::try_from(at).unwrap().wrapping_mul(0x9e37_79b9).to_be_bytes());
        encode_head(opcode, payload.len(), key, &mut wire);
        mask(&mut payload, key.unwrap_or_default());
        wire.extend_from_slice(&payload);
    }
    wire
}

/// An IO that has all its bytes, and accepts what is written.
struct Peer<'a>(&'a [u8]);

impl Read for Peer<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// tungstenite decodes the same messages, and none after a fault that we report. It differs in three ways: it accepts a
/// length in a longer form than needed, also in control frames; it reports a Close with an unknown code, such as 1014,
/// as 1002; and its limits differ.
fn judge(ours: &Reading, input: &[u8], masked: bool) {
    let role = if masked { Role::Server } else { Role::Client };
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(Some(1 << 16)).read_buffer_size(4096);
    let mut socket = WebSocket::from_raw_socket(Peer(input), role, Some(config));
    let mut said = Vec::new();
    while let Ok(message) = socket.read() {
        said.push(match message {
            Message::Text(text) => Said::Message { text: true, bytes: text.as_bytes().to_vec() },
            Message::Binary(bytes) => Said::Message { text: false, bytes: bytes.to_vec() },
            Message::Ping(payload) => Said::Ping(payload.to_vec()),
            Message::Pong(payload) => Said::Pong(payload.to_vec()),
            Message::Close(reason) => {
                Said::Close(reason.map(|reason| (reason.code.into(), reason.reason.as_str().to_owned())))
            }
            Message::Frame(_) => unreachable!("never read"),
        });
    }
    let differs = matches!(
        &ours.end,
        End::Broken(
            WebSocketError::Fault(Fault::LongLength | Fault::LongControl | Fault::BadClose)
                | WebSocketError::MessageTooLarge { .. }
                | WebSocketError::TooManyFragments { .. }
        )
    );
    let common = if differs { said.len().min(ours.said.len()) } else { said.len() };
    let known = |said: &Said| match said {
        Said::Close(Some((1014, _))) => Said::Close(Some((1002, "Protocol violation".to_owned()))),
        said => said.clone(),
    };
    assert_eq!(said[..common], ours.said.iter().map(known).collect::<Vec<_>>(), "tungstenite");
}
