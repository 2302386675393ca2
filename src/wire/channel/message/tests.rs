use quickcheck::{TestResult, quickcheck};

use super::*;

const RAW: [Subprotocol; 6] =
    [Subprotocol::Unnamed, Subprotocol::V1, Subprotocol::V2, Subprotocol::V3, Subprotocol::V4, Subprotocol::V5];
const BASE64: [Subprotocol; 2] = [Subprotocol::V1Base64, Subprotocol::V4Base64];

fn data(channel: Channel, data: &'static [u8]) -> Result<Option<Event>, ChannelError> {
    Ok(Some(Event::Data { channel, data: data.into() }))
}

/// Reads a whole message of a client.
fn server(subprotocol: Subprotocol, message: &[u8]) -> Result<Option<Event>, ChannelError> {
    Decoder::server(subprotocol).decode(true, true, Bytes::copy_from_slice(message))
}

/// Reads a whole message of a server.
fn client(subprotocol: Subprotocol, message: &[u8]) -> Result<Option<Event>, ChannelError> {
    Decoder::client(subprotocol).decode(true, true, Bytes::copy_from_slice(message))
}

/// The bytes of all pieces, or the first error.
fn in_pieces(mut decoder: Decoder, message: &[u8], step: usize) -> Result<Vec<u8>, ChannelError> {
    let count = message.len().div_ceil(step);
    let mut all = Vec::new();
    for (number, piece) in message.chunks(step).enumerate() {
        if let Some(Event::Data { data, .. }) =
            decoder.decode(number == 0, number + 1 == count, Bytes::copy_from_slice(piece))?
        {
            all.extend_from_slice(&data);
        }
    }
    Ok(all)
}

#[test]
fn subprotocols_are_named_as_on_the_wire() {
    for subprotocol in Subprotocol::ALL {
        assert_eq!(Subprotocol::from_name(subprotocol.name()), Some(subprotocol));
    }
    for other in ["v1.channel.k8s.io", "V4.channel.k8s.io", "v5.base64.channel.k8s.io", " channel.k8s.io"] {
        assert_eq!(Subprotocol::from_name(other), None);
    }
}

#[test]
fn a_message_is_a_channel_and_its_bytes() {
    for subprotocol in RAW {
        assert_eq!(server(subprotocol, b"\x00ls\n"), data(Channel::Stdin, b"ls\n"), "{subprotocol}");
        assert_eq!(server(subprotocol, b"\x04{}"), data(Channel::Resize, b"{}"), "{subprotocol}");
        assert_eq!(client(subprotocol, b"\x01out"), data(Channel::Stdout, b"out"), "{subprotocol}");
        assert_eq!(client(subprotocol, b"\x02err"), data(Channel::Stderr, b"err"), "{subprotocol}");
        assert_eq!(client(subprotocol, b"\x03{}"), data(Channel::Error, b"{}"), "{subprotocol}");
    }
    for subprotocol in BASE64 {
        assert_eq!(server(subprotocol, b"0bHMK"), data(Channel::Stdin, b"ls\n"), "{subprotocol}");
        assert_eq!(client(subprotocol, b"1b3V0"), data(Channel::Stdout, b"out"), "{subprotocol}");
        assert_eq!(client(subprotocol, b"3e30="), data(Channel::Error, b"{}"), "{subprotocol}");
    }
}

#[test]
fn what_says_nothing_is_passed_over() {
    for subprotocol in Subprotocol::ALL {
        // An empty message, a channel number only (as in a server's first message), and channels that do not exist.
        for message in [&b""[..], b"\x01", b"1", b"\x05x", b"5eA==", b"\x7fx", b"/eA==", b"\xfe\x00"] {
            assert_eq!(client(subprotocol, message), Ok(None), "{subprotocol} {message:?}");
            assert_eq!(server(subprotocol, message), Ok(None), "{subprotocol} {message:?}");
        }
    }
}

#[test]
fn nobody_speaks_on_a_channel_of_the_other_end() {
    for subprotocol in RAW {
        for message in [&b"\x01x"[..], b"\x02x", b"\x03x"] {
            assert_eq!(server(subprotocol, message), Ok(None), "{subprotocol}");
        }
        for message in [&b"\x00x"[..], b"\x04x"] {
            assert_eq!(client(subprotocol, message), Ok(None), "{subprotocol}");
        }
    }
}

#[test]
fn only_v5_clients_close_channels() {
    assert_eq!(server(Subprotocol::V5, b"\xff\x00"), Ok(Some(Event::Close(Channel::Stdin))));
    assert_eq!(server(Subprotocol::V5, b"\xff\x04"), Ok(Some(Event::Close(Channel::Resize))));
    assert_eq!(server(Subprotocol::V5, b"\xff\x01"), Ok(Some(Event::Close(Channel::Stdout))));
    for (message, error) in [
        (&b"\xff"[..], ChannelError::CloseLength),
        (b"\xff\x00\x00", ChannelError::CloseLength),
        (b"\xff\x05", ChannelError::CloseUnknown(5)),
        (b"\xff\xff", ChannelError::CloseUnknown(255)),
    ] {
        assert_eq!(server(Subprotocol::V5, message), Err(error), "{message:?}");
        assert_eq!(client(Subprotocol::V5, message), Ok(None), "a server's CLOSE is discarded");
        assert_eq!(server(Subprotocol::V4, message), Ok(None), "v4 has no CLOSE");
    }
    assert_eq!(encode_close(Subprotocol::V5, Channel::Stdin), Some([255, 0]));
    assert_eq!(encode_close(Subprotocol::V4, Channel::Stdin), None);
}

#[test]
fn a_close_may_come_in_pieces() {
    let mut server = Decoder::server(Subprotocol::V5);
    assert_eq!(server.decode(true, false, Bytes::from_static(b"\xff")), Ok(None));
    assert_eq!(server.decode(false, false, Bytes::from_static(b"\x00")), Ok(None));
    assert_eq!(server.decode(false, true, Bytes::new()), Ok(Some(Event::Close(Channel::Stdin))));

    let mut server = Decoder::server(Subprotocol::V5);
    assert_eq!(server.decode(true, false, Bytes::from_static(b"\xff")), Ok(None));
    assert_eq!(server.decode(false, true, Bytes::new()), Err(ChannelError::CloseLength));
}

#[test]
fn base64_is_refused_where_it_is_none() {
    for bad in ["0b", "0bH", "0bHM", "0bHMK=", "0====", "0bH=K", "0bHM=bHMK", "0b@MK", "0bHMKbHM", "0bH-_"] {
        for step in 1..bad.len() + 1 {
            let read = in_pieces(Decoder::server(Subprotocol::V4Base64), bad.as_bytes(), step);
            assert_eq!(read, Err(ChannelError::NotBase64), "{bad} by {step}");
        }
    }
    // Line breaks and any trailing bits are accepted, as in Go.
    assert_eq!(server(Subprotocol::V1Base64, b"0bH\r\nMK\n"), data(Channel::Stdin, b"ls\n"));
    assert_eq!(server(Subprotocol::V1Base64, b"0bHN="), data(Channel::Stdin, b"ls"));
}

quickcheck! {
    fn messages_survive_any_split(bytes: Vec<u8>, which: usize, step: usize) -> TestResult {
        if bytes.is_empty() {
            return TestResult::discard();
        }
        let subprotocol = Subprotocol::ALL[which % 8];
        let mut message = BytesMut::new();
        encode(subprotocol, Channel::Stdin, &bytes, &mut message);
        let whole = encoded_len(subprotocol, bytes.len()) == message.len();
        let read = in_pieces(Decoder::server(subprotocol), &message, step % (message.len() + 1) + 1);
        TestResult::from_bool(whole && read == Ok(bytes))
    }

    fn no_bytes_panic_and_no_split_matters(bytes: Vec<u8>, step: usize) -> bool {
        Subprotocol::ALL.into_iter().all(|subprotocol| {
            // Random bytes rarely begin with a channel and are rarely base64, so they are mapped to bytes that nearly
            // are.
            let begins = [channel_byte(subprotocol, Channel::Stdin), channel_byte(subprotocol, Channel::Resize), CLOSE];
            let near = |(at, byte): (usize, &u8)| match at {
                _ if *byte >= 0xfc => *byte,
                0 => begins[usize::from(*byte) % 3],
                _ => b"AQgw09+/abyz=\n"[usize::from(*byte) % 14],
            };
            let bytes: Vec<u8> = bytes.iter().enumerate().map(near).collect();
            let step = step % (bytes.len() + 1) + 1;
            let whole = in_pieces(Decoder::server(subprotocol), &bytes, bytes.len() + 1);
            whole == in_pieces(Decoder::server(subprotocol), &bytes, step)
        })
    }
}
