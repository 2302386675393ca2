//! SPDY/3.1 frames against bytes that Go's peers sent, cut at every place, and against malformed bytes.
//!
//! Holds the codec's golden vectors (`data/spdystream_frames.tsv`, `data/captures/`) and the table of malformed input.
//! `spdy_connection.rs` tests what frames do to a connection, except for the errors of malformed frames.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use kubestream::ConnectionError;
use kubestream::mux::Multiplexer;
use kubestream::mux::SpdyConfig;
use kubestream::mux::{GoAwayStatus, Headers, RstStatus};
use kubestream::unstable::session::{Config, Connection, Event, Role};
use kubestream::unstable::wire::spdy::CodecError;
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame, Setting, SettingId, Settings};
use kubestream::upgrade::Upgraded;
use quickcheck::{Arbitrary, Gen};
use support::{any_frame, peer, recording};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder};

fn codec() -> Codec {
    Codec::new(SpdyConfig::default())
}

fn syn(id: u32, stream_type: &str) -> Frame {
    peer::syn(id, &[("streamtype", stream_type)])
}

fn data(id: u32, fin: bool, bytes: &'static [u8]) -> Frame {
    Frame::Data { id: StreamId::new(id), fin, data: Bytes::from_static(bytes) }
}

/// Decodes bytes that arrive in pieces of these sizes, in turn. Also returns the bytes that are left.
fn decode(codec: &mut Codec, bytes: &[u8], chunks: &[usize]) -> (Vec<Frame>, BytesMut) {
    let (mut frames, mut buffer, mut rest) = (Vec::new(), BytesMut::new(), bytes);
    let mut sizes = chunks.iter().copied().cycle();
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        buffer.extend_from_slice(chunk);
        rest = later;
        while let Some(frame) = codec.decode(&mut buffer).unwrap() {
            frames.push(frame);
        }
    }
    (frames, buffer)
}

/// Joins adjacent DATA of one stream, because its cuts depend on the pieces.
fn coalesced(frames: impl IntoIterator<Item = Frame>) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    for frame in frames {
        match (all.last_mut(), &frame) {
            (Some(Frame::Data { id, fin, data }), Frame::Data { id: next, fin: last, data: more })
                if id == next && !*fin =>
            {
                *data = [&data[..], &more[..]].concat().into();
                *fin = *last;
            }
            _ => all.push(frame),
        }
    }
    all
}

#[test]
fn each_frame_that_spdystream_writes_is_read_as_its_label_says() {
    let entry = Setting::new(0x1, SettingId::MAX_CONCURRENT_STREAMS, 100);
    let id = StreamId::new;
    let expected = [
        ("SYN_STREAM id=1 streamType=error", syn(1, "error")),
        ("SYN_STREAM id=3 streamType=stdin", syn(3, "stdin")),
        ("SYN_STREAM id=5 streamType=stdout", syn(5, "stdout")),
        ("SYN_STREAM id=7 streamType=stderr", syn(7, "stderr")),
        ("SYN_STREAM id=9 streamType=resize", syn(9, "resize")),
        ("SYN_REPLY id=1 {}", Frame::SynReply { id: id(1), fin: false, headers: Headers::new() }),
        ("SYN_REPLY id=3 {}", Frame::SynReply { id: id(3), fin: false, headers: Headers::new() }),
        (
            "HEADERS id=1 x-a:[1 2]",
            Frame::Headers { id: id(1), fin: false, headers: Headers::from_iter([("x-a", "1"), ("x-a", "2")]) },
        ),
        ("DATA id=5 hello", data(5, false, b"hello")),
        ("DATA id=5 FIN", data(5, true, b"")),
        ("RST id=5 CANCEL", Frame::RstStream { id: id(5), status: RstStatus::CANCEL }),
        ("RST id=5 REFUSED", Frame::RstStream { id: id(5), status: RstStatus::REFUSED_STREAM }),
        ("PING 1", Frame::Ping(1)),
        ("GOAWAY last=5 OK", Frame::GoAway { last_good: id(5), status: GoAwayStatus::OK }),
        ("SETTINGS maxconc=100 persist", Frame::Settings(Settings::new(false, vec![entry]))),
        ("WINDOW_UPDATE id=1 65536", Frame::WindowUpdate { id: id(1), delta: 65536 }),
    ];
    let vectors = std::fs::read_to_string(recording::path("spdystream_frames.tsv")).unwrap();
    let (mut go, mut ours, mut reader) = (codec(), codec(), codec());
    let mut rows = vectors.lines();
    for (label, frame) in expected {
        let (named, hex) = rows.next().unwrap().split_once('\t').unwrap();
        assert_eq!(named, label);
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();

        let (read, rest) = decode(&mut go, &bytes, &[usize::MAX]);
        assert_eq!((&read[..], rest.len()), (&[frame.clone()][..], 0), "{label}");

        let mut written = BytesMut::new();
        ours.encode(frame.clone(), &mut written).unwrap();
        if !matches!(frame, Frame::SynStream { .. } | Frame::SynReply { .. } | Frame::Headers { .. }) {
            assert_eq!(written, bytes, "{label}: only header blocks may be encoded differently");
        }
        assert_eq!(decode(&mut reader, &written, &[usize::MAX]).0, [frame], "{label}");
    }
    assert_eq!(rows.next(), None, "a vector without an expected value");
}

/// One direction of a capture, after the HTTP head.
fn capture(name: &str, direction: &str) -> Bytes {
    recording::said(&format!("captures/{name}"), direction).1
}

/// Frames in the notation of `expected.tsv`.
fn notation(frames: &[Frame]) -> String {
    let mut line = String::new();
    for frame in frames {
        if !line.is_empty() {
            line.push_str("; ");
        }
        match frame {
            Frame::SynStream { id, headers, .. } => {
                write!(line, "SYN_STREAM {id} {}", headers.get("streamtype").unwrap())
            }
            Frame::SynReply { id, .. } => write!(line, "SYN_REPLY {id}"),
            Frame::RstStream { id, status } => write!(line, "RST_STREAM {id} {}", status.get()),
            Frame::Ping(id) => write!(line, "PING {id}"),
            Frame::GoAway { last_good, status } => write!(line, "GOAWAY {last_good} {}", status.get()),
            Frame::Data { id, fin, data } => {
                write!(line, "DATA {id} {}{}", data.len(), if *fin { " FIN" } else { "" })
            }
            other => panic!("Kubernetes' peers do not send {other:?}"),
        }
        .unwrap();
    }
    line
}

#[test]
fn sessions_of_kubectl_and_the_api_server_are_read_at_any_chunking() {
    let expected = std::fs::read_to_string(recording::path("captures/expected.tsv")).unwrap();
    let mut directories = std::fs::read_dir(recording::path("captures")).unwrap().count();
    for row in expected.lines() {
        let [name, direction, frames] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let bytes = capture(name, direction);
        for chunks in [&[usize::MAX][..], &[4096], &[7, 1, 100], &[1]] {
            let mut codec = codec();
            let (read, mut rest) = decode(&mut codec, &bytes, chunks);
            let mut read = notation(&coalesced(read));
            // The recording may have stopped within a frame.
            match codec.decode_eof(&mut rest) {
                Err(CodecError::Truncated) => read.push_str("; CUT"),
                end => assert!(matches!(end, Ok(None)), "{name} {direction}: {end:?}"),
            }
            assert_eq!(read, frames, "{name} {direction} in chunks of {chunks:?}");
        }
        directories -= usize::from(direction == "c2s");
    }
    assert_eq!(directories, 1, "each capture has its rows, and the table is the one remaining file");
}

#[test]
fn what_the_sessions_carried_comes_out() {
    const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;
    const EXIT_7: &str = concat!(
        r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: "#,
        r#"error executing command [sh], exit code 7","reason":"NonZeroExitCode","#,
        r#""details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#
    );
    const EXIT_7_TEXT: &str = "command terminated with non-zero exit code: error executing command [sh], exit code 7";
    let payload = |name: &str, direction: &str, wanted: u32| {
        let frames = decode(&mut codec(), &capture(name, direction), &[1000]).0;
        let pieces = frames.into_iter().filter_map(|frame| match frame {
            Frame::Data { id, data, .. } if id.get() == wanted => Some(data),
            _ => None,
        });
        pieces.flatten().collect::<Vec<u8>>()
    };
    for (name, direction, stream, text) in [
        ("spdy-exec-echo", "s2c", 3, "hello\n"),
        ("spdy-exec-echo", "s2c", 1, SUCCESS),
        ("spdy-exec-stdout-stderr", "s2c", 3, "out\nout2\n"),
        ("spdy-exec-stdout-stderr", "s2c", 5, "err\n"),
        ("spdy-attach", "c2s", 3, "one\ntwo\n"),
        ("spdy-attach", "s2c", 5, "out:one\nout:two\n"),
        ("spdy-attach", "s2c", 7, "err:one\nerr:two\n"),
        ("spdy-exec-tty-resize", "c2s", 7, "{\"Width\":80,\"Height\":24}\n{\"Width\":132,\"Height\":50}\n"),
        ("spdy-v4-exec-exit7", "s2c", 1, EXIT_7),
        ("spdy-v3-exec-exit7", "s2c", 1, EXIT_7_TEXT),
        ("spdy-v2-exec-exit7", "s2c", 1, EXIT_7_TEXT),
        // v1's server resets the error stream first, and still sends the error on it.
        ("spdy-v1-exec-exit7", "s2c", 1, EXIT_7_TEXT),
        // Here the streams were opened in another order, and the error stream is the last.
        ("spdy-v4-exec-order", "s2c", 7, SUCCESS),
        ("spdy-v4-exec-nowait", "s2c", 5, "abc"),
        ("spdy-portforward-two", "s2c", 13, "AAAa2"),
        ("spdy-portforward-two", "s2c", 15, "BBBb2"),
    ] {
        assert_eq!(String::from_utf8(payload(name, direction, stream)).unwrap(), text, "{name} {direction} {stream}");
    }
    assert!(String::from_utf8(payload("spdy-exec-exit-7", "s2c", 1)).unwrap().contains("exit 7], exit code 7"));
    assert!(payload("spdy-exec-notfound", "s2c", 1).ends_with(b"\"code\":500}"));
    let stdin = payload("spdy-exec-stdin-100k", "c2s", 3);
    assert_eq!(stdin.len(), 100 * 1024);
    assert!(payload("spdy-exec-stdin-100k", "s2c", 5) == stdin, "cat returned other bytes than it received");
    assert!(payload("spdy-exec-out-1m", "s2c", 3).iter().all(|byte| *byte == 0));
}

#[derive(Clone, Debug)]
struct AnyFrame(Frame);

impl Arbitrary for AnyFrame {
    fn arbitrary(g: &mut Gen) -> Self {
        Self(any_frame(g, |g| String::arbitrary(g).chars().take(20).collect()))
    }
}

#[test]
fn any_frames_survive_any_split_of_their_bytes() {
    fn property(frames: Vec<AnyFrame>, chunks: Vec<u16>, stored: bool) {
        let mut config = SpdyConfig::default();
        config.compress_headers = !stored;
        let (mut writer, mut wire) = (Codec::new(config), BytesMut::new());
        for AnyFrame(frame) in &frames {
            writer.encode(frame.clone(), &mut wire).unwrap();
        }
        let chunks: Vec<usize> = chunks.into_iter().map(usize::from).chain([1, 3000]).collect();
        let mut reader = codec();
        let (read, mut rest) = decode(&mut reader, &wire, &chunks);
        assert_eq!(coalesced(read), coalesced(frames.into_iter().map(|frame| frame.0)));
        assert!(matches!(reader.decode_eof(&mut rest), Ok(None)));
    }
    quickcheck::quickcheck(property as fn(Vec<AnyFrame>, Vec<u16>, bool));
}

#[test]
fn any_bytes_give_frames_or_an_error_the_same_at_any_split() {
    fn outcome(bytes: &[u8], step: usize) -> (Vec<Frame>, Option<String>) {
        let (mut codec, mut buffer, mut frames) = (codec(), BytesMut::new(), Vec::new());
        for chunk in bytes.chunks(step) {
            buffer.extend_from_slice(chunk);
            loop {
                match codec.decode(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (coalesced(frames), Some(error.to_string())),
                }
            }
        }
        let end = codec.decode_eof(&mut buffer).err().map(|error| error.to_string());
        (coalesced(frames), end)
    }
    fn property(frames: Vec<AnyFrame>, changes: Vec<(u16, u8)>, step: u8) -> bool {
        let (mut writer, mut wire) = (codec(), BytesMut::new());
        for AnyFrame(frame) in frames {
            writer.encode(frame, &mut wire).unwrap();
        }
        for (at, byte) in changes {
            if let Some(place) = wire.get_mut(usize::from(at)) {
                *place = byte;
            }
        }
        outcome(&wire, usize::MAX) == outcome(&wire, usize::from(step).max(1))
    }
    quickcheck::quickcheck(property as fn(Vec<AnyFrame>, Vec<(u16, u8)>, u8) -> bool);
}

/// A control frame of version 3 with any body.
fn control(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&[0x80, 3][..], &kind.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

/// The head of a control frame that claims this length, without a body.
fn head(kind: u16, length: u32) -> Vec<u8> {
    [&[0x80, 3][..], &kind.to_be_bytes(), &length.to_be_bytes()].concat()
}

/// SYN_REPLY on stream 1 with these bytes as its header block, compressed and flushed in this way.
fn reply(plain: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut block = zlib(plain, flush);
    let mut body = 1u32.to_be_bytes().to_vec();
    body.append(&mut block);
    control(2, &body)
}

/// A zlib stream without a dictionary. SPDY/3's dictionary is allowed but not required.
fn zlib(plain: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut block = Vec::with_capacity(plain.len() + 4096);
    Compress::new(Compression::best(), true).compress_vec(plain, &mut block, flush).unwrap();
    block
}

/// An uncompressed header block that claims `count` pairs.
fn block(count: u32, strings: &[(u32, &[u8])]) -> Vec<u8> {
    let mut plain = count.to_be_bytes().to_vec();
    for (len, string) in strings {
        plain.extend(len.to_be_bytes());
        plain.extend(*string);
    }
    plain
}

/// Rows 1 to 7 and 19 of docs/security.md: bytes that are no valid frame, and the error for each.
fn malformed() -> BTreeMap<&'static str, (Vec<u8>, String)> {
    let sized = |kind: u16, length: usize| format!("FrameSize {{ kind: {kind}, length: {length} }}");
    let long = |length: usize| format!("FrameTooLarge {{ length: {length}, limit: 65536 }}");
    let header = |error: &str| format!("Header({error})");
    let sync = FlushCompress::Sync;
    let string = |text: &'static [u8]| (u32::try_from(text.len()).unwrap(), text);
    let mut other_dictionary = reply(&block(0, &[]), sync);
    other_dictionary.splice(12..14, [0x78, 0xbb, 0x12, 0x34, 0x56, 0x78]);
    other_dictionary[7] += 4;
    let mut finished = reply(&block(0, &[]), FlushCompress::Finish);
    finished.extend([0, 0, 0xff, 0xff]);
    finished[7] += 4;
    let mut garbage = control(2, &[0, 0, 0, 1, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    garbage[12..14].copy_from_slice(&[0xff, 0xff]);
    let pairs: Vec<_> = (0..129).flat_map(|_| [string(b"a"), string(b"b")]).collect();
    let value = [b'v'; 15_000];
    let five = [(15_000, &value[..]); 10];
    let settings = |count: u32, entries: usize| control(4, &[&count.to_be_bytes()[..], &vec![0; entries * 8]].concat());
    let rows = [
        // Row 1: judged by the head, before any byte of the body has come.
        ("SYN_STREAM of 9 bytes", head(1, 9), sized(1, 9)),
        ("SYN_REPLY of 3 bytes", head(2, 3), sized(2, 3)),
        ("RST_STREAM of 7 bytes", head(3, 7), sized(3, 7)),
        ("RST_STREAM of 9 bytes", head(3, 9), sized(3, 9)),
        ("SETTINGS of 3 bytes", head(4, 3), sized(4, 3)),
        ("PING of 3 bytes", head(6, 3), sized(6, 3)),
        ("PING of 8 bytes", head(6, 8), sized(6, 8)),
        ("GOAWAY of 4 bytes, as in SPDY/2", head(7, 4), sized(7, 4)),
        ("GOAWAY of 12 bytes", head(7, 12), sized(7, 12)),
        ("HEADERS of 0 bytes", head(8, 0), sized(8, 0)),
        ("WINDOW_UPDATE of 4 bytes", head(9, 4), sized(9, 4)),
        ("WINDOW_UPDATE of 16 MiB", head(9, 0xff_ffff), sized(9, 0xff_ffff)),
        ("SYN_STREAM of 16 MiB", head(1, 0xff_ffff), long(0xff_ffff)),
        ("SYN_REPLY one byte too long", head(2, 65537), long(65537)),
        ("SETTINGS of 2 MiB", head(4, 2 << 20), long(2 << 20)),
        ("HEADERS of 16 MiB", head(8, 0xff_ffff), long(0xff_ffff)),
        ("a type nobody knows of 16 MiB", head(0x7777, 0xff_ffff), long(0xff_ffff)),
        ("CREDENTIAL of 16 MiB", head(10, 0xff_ffff), long(0xff_ffff)),
        // Row 2.
        ("a count of 2^32 - 1 pairs", reply(&[0xff; 4], sync), header("TooManyPairs { count: 4294967295 }")),
        (
            "more pairs than there is room for",
            reply(&block(2, &[string(b"a")]), sync),
            header("TooManyPairs { count: 2 }"),
        ),
        ("129 pairs", reply(&block(129, &pairs), sync), header("TooManyPairs { count: 129 }")),
        // Row 3.
        (
            "a name of 2^32 - 1 bytes",
            reply(&block(1, &[(u32::MAX, b"name")]), sync),
            header("StringTooLong { len: 4294967295, limit: 256 }"),
        ),
        (
            "a name of 257 bytes",
            reply(&block(1, &[(257, &value[..257]), string(b"v")]), sync),
            header("StringTooLong { len: 257, limit: 256 }"),
        ),
        ("a value longer than the block", reply(&block(1, &[string(b"name"), (9, b"v")]), sync), header("Truncated")),
        (
            "a value of 16 KiB and a byte",
            reply(&block(1, &[string(b"n"), (16385, &[0; 16385])]), sync),
            header("StringTooLong { len: 16385, limit: 16384 }"),
        ),
        ("values that pass 64 KiB together", reply(&block(5, &five), sync), header("TooLong { limit: 65536 }")),
        // Row 4.
        ("12 KiB that inflate to 12 MiB", reply(&vec![0; 12 << 20], sync), header("TooLong { limit: 65536 }")),
        // Row 5.
        ("another dictionary", other_dictionary, header("Dictionary { adler: 305419896 }")),
        ("the end of the zlib stream", finished, header("StreamEnd")),
        ("bytes behind the last pair", reply(&[0; 5], sync), header("TrailingBytes")),
        ("a block cut before its flush", reply(&block(0, &[]), FlushCompress::None), header("NotFlushed")),
        ("a block with a partial flush", reply(&block(0, &[]), FlushCompress::Partial), header("NotFlushed")),
        ("an empty block", control(2, &[0, 0, 0, 1]), header("NotFlushed")),
        ("not a zlib stream", garbage, header("Inflate")),
        // Row 7.
        ("SETTINGS that count more than they have", settings(2, 1), sized(4, 12)),
        ("SETTINGS that count fewer than they have", settings(1, 2), sized(4, 20)),
        ("SETTINGS of 2^32 - 1", settings(u32::MAX, 0), "TooManySettings { count: 4294967295, limit: 64 }".to_owned()),
        ("65 SETTINGS", settings(65, 65), "TooManySettings { count: 65, limit: 64 }".to_owned()),
        ("SETTINGS with half an entry", control(4, &[0, 0, 0, 1, 0, 0, 0, 7]), sized(4, 8)),
        // Row 19.
        ("version 2", vec![0x80, 2, 0, 6, 0, 0, 0, 4], "Version(2)".to_owned()),
        ("version 4", vec![0x80, 4, 0, 1, 0, 0, 0, 20], "Version(4)".to_owned()),
        ("version 0x7fff", vec![0xff; 8], "Version(32767)".to_owned()),
    ];
    rows.into_iter().map(|(what, bytes, error)| (what, (bytes, error))).collect()
}

#[test]
fn each_malformed_frame_has_its_error() {
    for (what, (bytes, expected)) in malformed() {
        for split in [bytes.len(), 1] {
            let (mut codec, mut buffer) = (codec(), BytesMut::new());
            let outcome = bytes.chunks(split).find_map(|chunk| {
                buffer.extend_from_slice(chunk);
                codec.decode(&mut buffer).transpose()
            });
            let error = outcome.map(|outcome| outcome.map_err(|error| format!("{error:?}")));
            assert_eq!(error, Some(Err(expected.clone())), "{what}");
        }
    }
}

#[tokio::test]
async fn a_malformed_frame_ends_the_connection_with_goaway_and_its_error() {
    for (what, (bytes, expected)) in malformed() {
        let (near, mut far) = tokio::io::duplex(256 * 1024);
        let (server, driver) = Multiplexer::server(Upgraded::from_io(near), Config::default());
        let peer = async {
            far.write_all(&bytes).await.unwrap();
            far.shutdown().await.unwrap();
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let (ended, answer) = tokio::join!(driver, peer);
        assert!(
            matches!(&ended, Err(ConnectionError::Malformed(error)) if format!("{error:?}") == expected),
            "{what}: {ended:?}"
        );
        let goaway = Frame::GoAway { last_good: StreamId::SESSION, status: GoAwayStatus::PROTOCOL_ERROR };
        assert_eq!(decode(&mut codec(), &answer, &[usize::MAX]).0, [goaway], "{what}");
        assert!(matches!(server.accept().await, Some(Err(ConnectionError::Malformed(_)))), "{what}");
    }
}

#[test]
fn the_largest_of_everything_is_read() {
    let string = |len: usize| vec![b's'; len];
    let mut headers = Headers::new();
    let name = String::from_utf8(string(256)).unwrap();
    headers.append(&name, &string(16 * 1024));
    for pair in 0..127 {
        headers.append(&pair.to_string(), b"");
    }
    let entries = vec![Setting::new(0, SettingId::new(0xff_ffff), u32::MAX); 64];
    let frames = [
        Frame::SynReply { id: StreamId::MAX, fin: true, headers },
        Frame::Settings(Settings::new(true, entries)),
        Frame::Data { id: StreamId::MAX, fin: true, data: vec![1; 0xff_ffff].into() },
    ];
    let (mut writer, mut wire) = (codec(), BytesMut::new());
    for frame in frames.clone() {
        writer.encode(frame, &mut wire).unwrap();
    }
    assert_eq!(coalesced(decode(&mut codec(), &wire, &[60_000]).0), frames);

    let one_more = Frame::Data { id: StreamId::new(1), fin: false, data: vec![1; 0x100_0000].into() };
    let error = writer.encode(one_more, &mut wire).unwrap_err();
    assert!(matches!(error, CodecError::FrameTooLarge { length: 0x100_0000, limit: 0xff_ffff }), "{error:?}");
}

#[test]
fn credential_and_unknown_types_are_skipped_whatever_they_hold() {
    let mut wire = Vec::new();
    for kind in [0, 5, 10, 11, 0xffff] {
        wire.extend(control(kind, &[0xaa; 300]));
        wire.extend(control(kind, &[]));
        wire.extend(control(6, &[0, 0, 0, 7]));
    }
    for chunks in [usize::MAX, 1, 13] {
        assert_eq!(decode(&mut codec(), &wire, &[chunks]).0, vec![Frame::Ping(7); 5]);
    }
    let (mut codec, mut half) = (codec(), BytesMut::from(&control(10, &[1; 20])[..20]));
    assert!(matches!(codec.decode_eof(&mut half), Err(CodecError::Truncated)), "a skipped frame that is cut");
}

#[test]
fn reserved_bits_and_unknown_flags_mean_nothing() {
    let wire = [
        &[0x80, 3, 0, 3, 0xff, 0, 0, 8, 0x80, 0, 0, 5, 0, 0, 0, 5][..],
        &[0x80, 3, 0, 9, 0x00, 0, 0, 8, 0x80, 0, 0, 5, 0x80, 0, 0, 9],
        &[0, 0, 0, 5, 0xfe, 0, 0, 1, b'x'],
    ]
    .concat();
    let id = StreamId::new(5);
    let expected = [
        Frame::RstStream { id, status: RstStatus::CANCEL },
        Frame::WindowUpdate { id, delta: 9 },
        data(5, false, b"x"),
    ];
    assert_eq!(decode(&mut codec(), &wire, &[usize::MAX]).0, expected);
}

/// Row 6 of docs/security.md: only the stream is refused. Its block was read all the same, so the next one is
/// understood.
#[test]
fn defective_headers_cost_one_stream_and_leave_the_compression_in_step() {
    for (name, value) in [("", &b"x"[..]), ("a", b"\0x"), ("a", b"x\0"), ("a", b"x\0\0y")] {
        let (mut writer, mut wire, now) = (codec(), BytesMut::new(), Instant::now());
        let with = |id: u32, name: &str, value: &[u8]| match syn(id, "stdin") {
            Frame::SynStream { id, associated, priority, slot, fin, unidirectional, mut headers } => {
                headers.append(name, value);
                Frame::SynStream { id, associated, priority, slot, fin, unidirectional, headers }
            }
            frame => frame,
        };
        writer.encode(with(1, name, value), &mut wire).unwrap();
        writer.encode(with(3, "StreamType", b"again"), &mut wire).unwrap();
        let mut server = Connection::new(Role::Server, Config::default(), now);
        for frame in decode(&mut codec(), &wire, &[usize::MAX]).0 {
            server.receive(frame, now);
        }
        let refused = Frame::RstStream { id: StreamId::new(1), status: RstStatus::PROTOCOL_ERROR };
        assert_eq!(server.poll_frame(now), Some(refused));
        assert_eq!(server.poll_event(), Some(Event::Incoming(StreamId::new(3))));
        let headers = server.take_headers(StreamId::new(3)).unwrap();
        assert_eq!(headers.get_bytes("streamtype"), Some(&b"stdin\0again"[..]), "folded and merged, as Go does");
        assert_eq!(server.stream_count(), 1);
    }
}
