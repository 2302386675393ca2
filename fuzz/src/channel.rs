//! Tests the channel messages of a peer, and the base64 of two of the subprotocols.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::{Bytes, BytesMut};
use kubestream::protocol::Subprotocol;
use kubestream::unstable::wire::channel::{
    Channel, ChannelError, Decoder, Event, channel_byte, encode, encode_close, encoded_len,
};

/// Decodes as Go does: padding is required, and unused bits may have any value.
pub(crate) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

pub(crate) const SUBPROTOCOLS: [Subprotocol; 8] = [
    Subprotocol::Unnamed,
    Subprotocol::V1,
    Subprotocol::V1Base64,
    Subprotocol::V2,
    Subprotocol::V3,
    Subprotocol::V4,
    Subprotocol::V4Base64,
    Subprotocol::V5,
];

/// Decodes as Go does, and skips line breaks.
pub(crate) fn decode_base64(characters: &[u8]) -> Result<Vec<u8>, ChannelError> {
    let line: Vec<u8> = characters.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
    BASE64.decode(line).map_err(|_| ChannelError::NotBase64)
}

/// The content of a whole message, or the first error in it.
pub(crate) type Said = Result<Option<Event>, ChannelError>;

/// Any sequence of messages is data, a CLOSE, nothing or an error. The result is the same for any pieces, the same as
/// that of a plain decoder, and the same again after encoding and decoding.
///
/// The first byte chooses the subprotocol and the reader, and the second how messages are cut. Then come messages, each
/// after a byte with its length. The highest bit of that byte puts a CLOSE before the message.
pub fn channel(input: &[u8]) {
    let [choice, step, rest @ ..] = input else { return };
    let subprotocol = SUBPROTOCOLS[usize::from(choice & 7)];
    let from_client = choice & 8 == 0;
    let new = || if from_client { Decoder::server(subprotocol) } else { Decoder::client(subprotocol) };
    let (mut whole, mut cut, step) = (new(), new(), 1 + usize::from(step % 13));
    let mut rest = rest;
    while let Some((&length, behind)) = rest.split_first() {
        let (piece, behind) = behind.split_at(behind.len().min(usize::from(length & 0x7f)));
        rest = behind;
        let close: &[u8] = if length & 0x80 == 0 { &[] } else { &[255] };
        let message = [close, piece].concat();
        let said = read(&mut whole, &message, message.len().max(1));
        assert_eq!(said, read(&mut cut, &message, step), "a cut matters");
        assert_eq!(said, plain(subprotocol, from_client, &message), "another reading");
        if let Ok(Some(event)) = &said {
            write_and_read(subprotocol, from_client, event);
        }
    }
}

/// Any characters, in any pieces, decode as the `base64` crate decodes all of them at once, without line breaks. Any
/// bytes encode as that crate encodes them.
///
/// The first byte chooses how they are cut. Its highest bit turns all characters into those of the alphabet.
pub fn base64(input: &[u8]) {
    let Some((&choice, input)) = input.split_first() else { return };
    let step = 1 + usize::from(choice & 0x7f) % 13;
    let alphabet = STANDARD.as_str().as_bytes();
    let character = |byte: &u8| if *byte == b'=' { b'=' } else { alphabet[usize::from(byte & 63)] };
    let characters: Vec<u8> = if choice & 0x80 == 0 { input.to_vec() } else { input.iter().map(character).collect() };
    let message = [b"0", &characters[..]].concat();
    let said = read(&mut Decoder::server(Subprotocol::V1Base64), &message, step);
    assert_eq!(said, decode_base64(&characters).map(|data| event(Channel::Stdin, data)));

    let mut message = BytesMut::new();
    encode(Subprotocol::V4Base64, Channel::Stdin, input, &mut message);
    assert_eq!(message, format!("0{}", BASE64.encode(input)));
    assert_eq!(message.len(), encoded_len(Subprotocol::V4Base64, input.len()));
    let said = read(&mut Decoder::server(Subprotocol::V4Base64), &message, step);
    assert_eq!(said, Ok(event(Channel::Stdin, input.to_vec())));
}

fn event(channel: Channel, data: Vec<u8>) -> Option<Event> {
    (!data.is_empty()).then(|| Event::Data { channel, data: data.into() })
}

/// Passes a message in pieces, and joins the results.
fn read(decoder: &mut Decoder, message: &[u8], step: usize) -> Said {
    let mut said = None;
    let count = message.len().div_ceil(step).max(1);
    for at in 0..count {
        let piece = &message[at * step..message.len().min((at + 1) * step)];
        let event = decoder.decode(at == 0, at + 1 == count, Bytes::copy_from_slice(piece))?;
        said = match (said, event) {
            (said, None) => said,
            (None, Some(event)) => {
                assert!(!matches!(&event, Event::Data { data, .. } if data.is_empty()));
                Some(event)
            }
            (Some(Event::Data { channel, data }), Some(Event::Data { channel: same, data: more })) => {
                assert!(channel == same && !more.is_empty());
                Some(Event::Data { channel, data: [data, more].concat().into() })
            }
            (said, event) => panic!("{event:?} after {said:?}"),
        };
    }
    Ok(said)
}

/// The same, decoded at once.
pub(crate) fn plain(subprotocol: Subprotocol, from_client: bool, message: &[u8]) -> Said {
    let Some((&first, data)) = message.split_first() else { return Ok(None) };
    let (number, data) = if subprotocol.is_base64() { (first.wrapping_sub(b'0'), data) } else { (first, data) };
    if (number, subprotocol, from_client) == (255, Subprotocol::V5, true) {
        return match data {
            [number] => {
                Channel::from_number(*number).map(Event::Close).map(Some).ok_or(ChannelError::CloseUnknown(*number))
            }
            _ => Err(ChannelError::CloseLength),
        };
    }
    let clients = [0, 4].contains(&number);
    let channel = Channel::from_number(number).filter(|_| clients == from_client);
    let Some(channel) = channel else { return Ok(None) };
    if !subprotocol.is_base64() {
        return Ok(event(channel, data.to_vec()));
    }
    decode_base64(data).map(|data| event(channel, data))
}

fn write_and_read(subprotocol: Subprotocol, from_client: bool, event: &Event) {
    let mut message = BytesMut::new();
    match event {
        Event::Data { channel, data } => {
            encode(subprotocol, *channel, data, &mut message);
            assert_eq!(message.len(), encoded_len(subprotocol, data.len()));
            assert_eq!(message[0], channel_byte(subprotocol, *channel));
        }
        Event::Close(channel) => message.extend_from_slice(&encode_close(subprotocol, *channel).unwrap()),
    }
    let mut decoder = if from_client { Decoder::server(subprotocol) } else { Decoder::client(subprotocol) };
    assert_eq!(read(&mut decoder, &message, message.len()), Ok(Some(event.clone())));
}
