//! RFC 6455 case by case: which bytes are valid frames, and which are not.
//!
//! One table for each section. Each row is read whole and byte by byte, as a server and as a client reads it.

#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use kubestream::mux::WebSocketConfig;
use kubestream::unstable::wire::websocket::{CloseReason, Fault, WebSocketError};
use kubestream::unstable::wire::websocket::{Decoder, Piece, close_payload, encode_head, mask};
use quickcheck::quickcheck;
use support::websocket::{BINARY, CLOSE, PING, PONG, TEXT, frame};

/// A joined message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// All that a decoder reads in `wire`, fed in pieces of `step` bytes, and how it ended.
fn read(
    wire: &[u8],
    from_client: bool,
    step: usize,
    limits: &WebSocketConfig,
) -> (Vec<Heard>, Result<(), WebSocketError>) {
    let mut decoder = Decoder::new(from_client, limits.max_message, limits.max_fragments);
    let (mut heard, mut message, mut buffer) = (Vec::new(), Vec::new(), BytesMut::new());
    for part in wire.chunks(step) {
        buffer.extend_from_slice(part);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(None) => break,
                Ok(Some(Piece::Data { first, last, text, payload })) => {
                    assert!(!first || message.is_empty(), "a message ends before the next begins");
                    if first {
                        message.clear();
                    }
                    message.extend_from_slice(&payload);
                    if last {
                        let whole = std::mem::take(&mut message);
                        heard.push(if text { Heard::Text(whole) } else { Heard::Binary(whole) });
                    }
                }
                Ok(Some(Piece::Ping(payload))) => heard.push(Heard::Ping(payload.to_vec())),
                Ok(Some(Piece::Pong(payload))) => heard.push(Heard::Pong(payload.to_vec())),
                Ok(Some(Piece::Close(reason))) => {
                    heard.push(Heard::Close(reason.map(|CloseReason { code, reason }| (code, reason))));
                }
                Err(error) => return (heard, Err(error)),
            }
        }
    }
    (heard, Ok(()))
}

fn expect(frames: &[(u8, &[u8])], heard: &[Heard], end: Result<(), Fault>) {
    for from_client in [true, false] {
        let wire: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload, from_client)).collect();
        for step in [1, 2, 3, 7, wire.len().max(1)] {
            let seen = read(&wire, from_client, step, &WebSocketConfig::default());
            let end = end.map_err(WebSocketError::from);
            assert_eq!(seen, (heard.to_vec(), end), "{frames:02x?}, client: {from_client}, by {step}");
        }
    }
}

fn binary(payload: &[u8]) -> Heard {
    Heard::Binary(payload.to_vec())
}

fn text(payload: &str) -> Heard {
    Heard::Text(payload.as_bytes().to_vec())
}

/// §5.2: lengths of 7, 16 and 64 bits.
#[test]
fn messages_of_every_length_are_read() {
    for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 70_000] {
        let payload = vec![0xa5; len];
        expect(&[(0x80 | BINARY, &payload), (0x80 | BINARY, b"next")], &[binary(&payload), binary(b"next")], Ok(()));
    }
}

/// §5.7: the examples of the RFC.
#[test]
fn the_examples_of_the_rfc_are_read() {
    let hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let fragments = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    for (wire, from_client, heard) in [
        (&hello[..], false, text("Hello")),
        (&masked, true, text("Hello")),
        (&fragments, false, text("Hello")),
        (&ping, false, Heard::Ping(b"Hello".to_vec())),
        (&pong, true, Heard::Pong(b"Hello".to_vec())),
    ] {
        assert_eq!(read(wire, from_client, 1, &WebSocketConfig::default()), (vec![heard], Ok(())));
    }
}

/// §5.4: fragmented messages, with control frames between the fragments.
#[test]
fn fragments_are_put_together_around_control_frames() {
    expect(&[(BINARY, b"a"), (0, b"b"), (0x80, b"c")], &[binary(b"abc")], Ok(()));
    expect(&[(BINARY, b""), (0, b""), (0x80, b"")], &[binary(b"")], Ok(()));
    expect(
        &[(TEXT, b"a"), (0x80 | PING, b"1"), (0, b"b"), (0x80 | PONG, b""), (0x80, b"c")],
        &[Heard::Ping(b"1".to_vec()), Heard::Pong(vec![]), text("abc")],
        Ok(()),
    );
    expect(&[(0x80, b"x")], &[], Err(Fault::LoneContinuation));
    expect(&[(0, b"x")], &[], Err(Fault::LoneContinuation));
    expect(&[(0x80 | BINARY, b"x"), (0x80, b"y")], &[binary(b"x")], Err(Fault::LoneContinuation));
    expect(&[(BINARY, b"x"), (0x80 | BINARY, b"y")], &[], Err(Fault::Interleaved));
    expect(&[(TEXT, b"x"), (TEXT, b"y")], &[], Err(Fault::Interleaved));
}

/// Row 26, §5.1.
#[test]
fn clients_mask_and_servers_do_not() {
    for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
        let seen = read(&frame(0x80 | opcode, b"", false), true, 1, &WebSocketConfig::default());
        assert_eq!(seen, (vec![], Err(Fault::Unmasked.into())));
        let seen = read(&frame(0x80 | opcode, b"", true), false, 1, &WebSocketConfig::default());
        assert_eq!(seen, (vec![], Err(Fault::Masked.into())));
    }
}

/// Row 27, §5.2.
#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for reserved in [0x40, 0x20, 0x10, 0x70] {
        for opcode in [BINARY, 0, PING] {
            expect(&[(0x80 | reserved | opcode, b"x")], &[], Err(Fault::ReservedBits));
        }
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        expect(&[(0x80 | opcode, b"x")], &[], Err(Fault::ReservedOpcode));
    }
}

/// Row 27, §5.5.
#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [PING, PONG, CLOSE] {
        expect(&[(opcode, b"")], &[], Err(Fault::FragmentedControl));
        expect(&[(0x80 | opcode, &[0; 126])], &[], Err(Fault::LongControl));
        expect(&[(0x80 | opcode, &[0; 70_000])], &[], Err(Fault::LongControl));
    }
    expect(&[(0x80 | PING, &[7; 125])], &[Heard::Ping(vec![7; 125])], Ok(()));
}

/// Row 27, §5.2: only the shortest form, and at most 63 bits (tomcat CVE-2020-13935, gorilla CVE-2020-27813).
#[test]
fn a_length_that_lies_is_refused_before_anything_comes_of_it() {
    let lengths: [(&[u8], Fault); 7] = [
        (&[126, 0, 0], Fault::LongLength),
        (&[126, 0, 125], Fault::LongLength),
        (&[127, 0, 0, 0, 0, 0, 0, 0, 0], Fault::LongLength),
        (&[127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Fault::LongLength),
        (&[127, 0x80, 0, 0, 0, 0, 0, 0, 0], Fault::HugeLength),
        (&[127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Fault::HugeLength),
        (&[127, 0x80, 0, 0, 0, 0, 0, 0, 5], Fault::HugeLength),
    ];
    for (length, fault) in lengths {
        let mut wire = vec![0x80 | BINARY];
        wire.extend(length);
        assert_eq!(read(&wire, false, 1, &WebSocketConfig::default()), (vec![], Err(fault.into())), "{length:?}");
        wire[1] |= 0x80;
        wire.extend([0; 4]);
        assert_eq!(read(&wire, true, 1, &WebSocketConfig::default()), (vec![], Err(fault.into())), "{length:?}");
    }
}

/// Rows 28 and 29.
#[test]
fn messages_have_a_longest_length_and_a_greatest_number_of_fragments() {
    let mut limits = WebSocketConfig::default();
    (limits.max_message, limits.max_fragments) = (10, 3);
    let wire = |frames: &[(u8, &[u8])]| -> Vec<u8> {
        frames.iter().flat_map(|(first, payload)| frame(*first, payload, true)).collect()
    };
    let read = |frames: &[(u8, &[u8])]| read(&wire(frames), true, 1, &limits);
    let too_large = Err(WebSocketError::MessageTooLarge { limit: 10 });
    assert_eq!(read(&[(0x80 | BINARY, &[1; 10])]), (vec![binary(&[1; 10])], Ok(())));
    assert_eq!(read(&[(0x80 | BINARY, &[1; 11])]), (vec![], too_large.clone()));
    assert_eq!(read(&[(BINARY, &[1; 6]), (0x80, &[1; 5])]), (vec![], too_large));
    assert_eq!(read(&[(BINARY, b"a"), (0, b"b"), (0x80, b"c")]), (vec![binary(b"abc")], Ok(())));
    let many = Err(WebSocketError::TooManyFragments { limit: 3 });
    assert_eq!(read(&[(BINARY, b""), (0, b""), (0, b""), (0, b"")]), (vec![], many));
    // Each message is counted anew.
    let twice = [(BINARY, &b"a"[..]), (0x80, b"b"), (BINARY, b"c"), (0x80, b"d")];
    assert_eq!(read(&twice), (vec![binary(b"ab"), binary(b"cd")], Ok(())));
}

/// Row 30, §8.1.
#[test]
fn text_is_utf8_wherever_it_is_cut() {
    expect(&[(0x80 | TEXT, "\u{20ac}\u{1f600}".as_bytes())], &[text("\u{20ac}\u{1f600}")], Ok(()));
    expect(&[(TEXT, b"\xe2\x82"), (0x80, b"\xac")], &[text("\u{20ac}")], Ok(()));
    for bad in [&b"\xff"[..], b"a\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\xe2\x28\xa1"] {
        expect(&[(0x80 | TEXT, bad)], &[], Err(Fault::NotUtf8));
    }
    expect(&[(TEXT, b"\xe2\x82"), (0x80, b"")], &[], Err(Fault::NotUtf8));
    expect(&[(0x80 | BINARY, b"\xff\xfe")], &[binary(b"\xff\xfe")], Ok(()));
}

/// Row 31, §5.5.1 and §7.4.
#[test]
fn a_close_has_a_code_that_is_sent_and_a_reason_that_is_text() {
    expect(&[(0x80 | CLOSE, b"")], &[Heard::Close(None)], Ok(()));
    for code in [1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 4999] {
        let closed = Heard::Close(Some((code, "bye".to_owned())));
        expect(&[(0x80 | CLOSE, &close_payload(code, "bye"))], &[closed], Ok(()));
    }
    expect(&[(0x80 | CLOSE, b"\x03")], &[], Err(Fault::BadClose));
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        expect(&[(0x80 | CLOSE, &code.to_be_bytes())], &[], Err(Fault::BadClose));
    }
    expect(&[(0x80 | CLOSE, b"\x03\xe8\xff")], &[], Err(Fault::NotUtf8));
    // Nothing after a Close is read, whatever it is.
    expect(&[(0x80 | CLOSE, b""), (0xff, b"x")], &[Heard::Close(None)], Ok(()));
    // A reason that is too long is cut between two characters.
    let long = "\u{20ac}".repeat(60);
    assert_eq!(close_payload(1011, &long)[2..], *"\u{20ac}".repeat(41).as_bytes());
}

#[test]
fn every_fault_has_the_code_of_the_rfc() {
    for (error, code) in [
        (WebSocketError::from(Fault::Unmasked), 1002),
        (Fault::ReservedBits.into(), 1002),
        (Fault::Text.into(), 1003),
        (Fault::NotUtf8.into(), 1007),
        (WebSocketError::TooManyFragments { limit: 1 }, 1008),
        (WebSocketError::MessageTooLarge { limit: 1 }, 1009),
    ] {
        assert_eq!(error.close_code(), code, "{error}");
    }
}

quickcheck! {
    fn what_we_write_is_what_is_read(payload: Vec<u8>, repeat: u8, key: (u8, u8, u8, u8), step: usize) -> bool {
        let payload = payload.repeat(usize::from(repeat) + 1);
        let step = step % (payload.len() + 20) + 1;
        [None, Some(key)].into_iter().all(|key| {
            let key = key.map(|(a, b, c, d)| [a, b, c, d]);
            let mut wire = BytesMut::new();
            encode_head(kubestream::unstable::wire::websocket::Opcode::Binary, payload.len(), key, &mut wire);
            let start = wire.len();
            wire.extend_from_slice(&payload);
            if let Some(key) = key {
                mask(&mut wire[start..], key);
            }
            read(&wire, key.is_some(), step, &WebSocketConfig::default()) == (vec![binary(&payload)], Ok(()))
        })
    }
}
