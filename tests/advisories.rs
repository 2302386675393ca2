//! Replays published advisories about other implementations against this crate. Each test is named after its advisory.
//!
//! Holds the attacks as they were published; docs/security.md names the tests that replay the others. Memory is what
//! the allocator counts, so the tests take turns. Nothing is timed.

#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use flate2::{Compress, Compression, FlushCompress};
use kubestream::ConnectionError;
use kubestream::mux::Config;
use kubestream::mux::FlowControl;
use kubestream::mux::SpdyConfig;
use kubestream::mux::{GoAwayStatus, Headers, RstStatus};
use kubestream::unstable::head::HeadReader;
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use kubestream::unstable::wire::spdy::{CodecError, HeaderError};
use kubestream::upgrade::{self, UpgradeError};
use stats_alloc::Region;
use support::connection::{End, config, data, goaway, id, reply, rst, syn, window_update};
use support::memory::{ALLOCATOR, Counting, grown, play, turn};
use support::peer::Peer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::codec::Decoder;

#[global_allocator]
static GLOBAL: &Counting = ALLOCATOR;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn control(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&[0x80, 3][..], &kind.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

/// A client's SYN_STREAM whose header block is these bytes, compressed.
fn opening(stream: u32, plain: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(64 * KIB);
    Compress::new(Compression::best(), true).compress_vec(plain, &mut block, FlushCompress::Sync).unwrap();
    control(1, &[&stream.to_be_bytes()[..], &[0; 6], &block].concat())
}

/// The error that these bytes cause, and all that was allocated on the way to it, including memory that was freed at
/// once. The harness's own threads also allocate, so the least of several tries counts.
fn refused(limits: &SpdyConfig, wire: &[u8]) -> (CodecError, usize) {
    let try_once = || {
        let (mut codec, mut wire) = (Codec::new(limits.clone()), BytesMut::from(wire));
        let before = Region::new(ALLOCATOR);
        let error = loop {
            match codec.decode(&mut wire) {
                Ok(frame) => assert!(frame.is_some(), "the bytes are refused at once"),
                Err(error) => break error,
            }
        };
        (error, before.change().bytes_allocated)
    };
    (0..5).map(|_| try_once()).min_by_key(|(_, allocated)| *allocated).unwrap()
}

/// spdystream allocated for whatever count a short frame claimed: entries of SETTINGS, headers, the length of a header.
#[test]
fn cve_2026_35469_counts_and_lengths_that_lie_allocate_nothing() {
    let _turn = turn();
    for count in [1u32 << 20, u32::MAX] {
        let name = [&1u32.to_be_bytes()[..], &count.to_be_bytes(), b"name"].concat();
        let value = [&1u32.to_be_bytes()[..], &[0, 0, 0, 1, b'n'], &count.to_be_bytes(), b"value"].concat();
        let count = count as usize;
        let long = |limit| CodecError::Header(HeaderError::StringTooLong { len: count, limit });
        let cases = [
            (control(4, &(count as u32).to_be_bytes()), CodecError::TooManySettings { count, limit: 64 }),
            (opening(1, &(count as u32).to_be_bytes()), HeaderError::TooManyPairs { count }.into()),
            (opening(1, &name), long(256)),
            (opening(1, &value), long(16 * KIB)),
        ];
        for (wire, expected) in cases {
            let (error, allocated) = refused(&SpdyConfig::default(), &wire);
            assert_eq!(error.to_string(), expected.to_string());
            assert!(allocated < 256 * KIB, "{allocated} bytes for {} of the wire: {error}", wire.len());
        }
    }
}

/// netty kept an entry for each of 262,144 ids in a SETTINGS frame of correct length.
#[test]
fn cve_2026_55831_settings_of_many_ids_are_refused_though_their_count_is_true() {
    let _turn = turn();
    const IDS: u32 = 262_144;
    let entries = (1..=IDS).flat_map(|id| [id.to_be_bytes(), 7u32.to_be_bytes()].concat());
    let wire = control(4, &IDS.to_be_bytes().into_iter().chain(entries).collect::<Vec<u8>>());
    assert_eq!(wire.len(), 12 + 2 * MIB);

    let (error, allocated) = refused(&SpdyConfig::default(), &wire[..8]);
    assert!(matches!(error, CodecError::FrameTooLarge { limit: 65_536, .. }), "{error}");
    assert!(allocated < KIB, "{allocated} bytes");
    // If such long frames are allowed, entries have a limit of their own, and none of them is kept.
    let mut limits = SpdyConfig::default();
    limits.max_control_frame = 4 * MIB;
    let (error, allocated) = refused(&limits, &wire);
    assert!(matches!(error, CodecError::TooManySettings { count: 262_144, limit: 64 }), "{error}");
    assert!(allocated < KIB, "{allocated} bytes");
}

/// netty went on inflating a header block that was over its limit, and skipped the rest.
#[test]
fn cve_2026_55833_nothing_is_inflated_once_a_block_is_over_its_limit() {
    let _turn = turn();
    let bomb = opening(1, &vec![0; 12 * MIB]);
    assert!(bomb.len() < 13 * KIB, "{} bytes that stand for 12 MiB", bomb.len());
    let (error, allocated) = refused(&SpdyConfig::default(), &bomb);
    assert!(matches!(error, CodecError::Header(HeaderError::TooLong { limit: 65_536 })), "{error}");
    assert!(allocated < 512 * KIB, "{allocated} bytes");

    // The blocks of a connection are one zlib stream, so nothing after a cut block can be read.
    play(async {
        let (near, far) = duplex(MIB);
        let (mux, driver) = support::server(near, Config::default());
        let (mut reads, mut writes) = tokio::io::split(far);
        writes.write_all(&[&bomb[..], &opening(3, &[0; 4])].concat()).await.unwrap();
        writes.shutdown().await.unwrap();
        let mut said = Vec::new();
        reads.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, control(7, &[0, 0, 0, 0, 0, 0, 0, 1]), "GOAWAY with a protocol error, and no stream accepted");
        assert!(matches!(mux.accept().await, Some(Err(ConnectionError::Malformed(_)))));
        assert!(matches!(driver.await.unwrap(), Err(ConnectionError::Malformed(_))));
    });
}

/// yamux queued an answer to each PING and each stream of a peer that did not read the answers.
#[test]
fn cve_2024_32984_answers_that_nobody_reads_end_the_connection() {
    let _turn = turn();
    let asks: [fn(u32) -> Frame; 3] =
        [|turn| Frame::Ping(2 * turn + 1), |turn| syn(2 * turn + 1), |turn| reply(2 * turn + 2)];
    for ask in asks {
        let mut server = End::server(config(|config| config.spdy.max_streams = 0));
        let before = Region::new(ALLOCATOR);
        let answered = (0..10_000).take_while(|turn| {
            server.gets(ask(*turn));
            server.error().is_none()
        });
        assert_eq!(answered.count(), 1024);
        assert!(grown(&before) < 256 * KIB, "{} bytes", grown(&before));
        assert_eq!(server.error().as_deref(), Some("the peer exceeded the limit `max_queued_replies` (1024)"));
    }
}

/// yamux added a peer's credit to a window until the sum overflowed, and panicked.
#[test]
fn cve_2026_31814_credit_beyond_31_bits_is_an_error_and_no_panic() {
    let _turn = turn();
    let most = StreamId::MAX.get();
    for (stream, first, second) in
        [(true, most, most), (true, most - 64 * 1024, 1), (false, most, most), (false, most - 64 * 1024, 1)]
    {
        let mut client = End::client(config(|_| {}));
        let (target, other) = (client.opens(), client.opens());
        client.gets_all([reply(target), reply(other)]);
        client.says();
        // Sent as bytes, because the codec must not accept larger values either.
        let (mut codec, mut wire) = (Codec::new(SpdyConfig::default()), BytesMut::new());
        for delta in [first, second, u32::MAX] {
            let on = if stream { target } else { 0 };
            wire.extend_from_slice(&control(9, &[on.to_be_bytes(), delta.to_be_bytes()].concat()));
        }
        while let Some(frame) = codec.decode(&mut wire).unwrap() {
            client.gets(frame);
        }
        if stream {
            assert_eq!(client.says().last(), Some(&rst(target, RstStatus::FLOW_CONTROL_ERROR)));
            assert_eq!(client.error(), None);
            client.writes(other, "the other streams go on");
            assert_eq!(client.says(), [data(other, "the other streams go on")]);
        } else {
            client
                .ended_by("protocol violation by the peer: a WINDOW_UPDATE of the session by 0, or beyond 2^31 - 1", 0);
        }
        client.connection.release(id(target));
    }
}

/// yamux accepted DATA beyond the window that came with the SYN, and panicked because it had not kept the stream.
#[test]
fn cve_2026_32314_data_beyond_the_window_right_behind_a_syn_costs_that_stream() {
    let _turn = turn();
    for flow_control in [FlowControl::Strict, FlowControl::Auto, FlowControl::Off] {
        let mut server = End::server(config(|config| config.spdy.flow_control = flow_control));
        // The session's window becomes larger than a stream's with our first frame.
        server.gets(Frame::Ping(1));
        server.says();
        server.gets_all([syn(1), data(1, vec![0; 64 * KIB + 1]), syn(3), data(1, "more"), data(3, "x")]);
        let said = server.says();
        if flow_control == FlowControl::Strict {
            assert!(said.contains(&rst(1, RstStatus::FLOW_CONTROL_ERROR)), "{said:?}");
            assert_eq!(server.connection.unread(), 256, "only stream 3's short piece");
        } else {
            // Go's peers know no windows, so this counts against the budget, as all their bytes do.
            assert!(!said.iter().any(|frame| matches!(frame, Frame::RstStream { .. })), "{said:?}");
            assert_eq!(server.reads(1).0.len(), 64 * KIB + 1 + 4);
        }
        assert_eq!((server.error(), server.reads(3).0), (None, b"x".to_vec()));
        server.connection.release(id(1));
        server.gets_all([data(1, vec![0; 64 * KIB]), window_update(1, 1)]);
        assert_eq!(server.error(), None, "late frames do not open it again");
    }
}

/// h2 kept streams that a peer had opened and reset until the caller had accepted them, and most servers then served
/// those requests.
#[test]
fn rustsec_2023_0034_cve_2023_44487_rapid_resets_leave_nothing_and_end_the_connection() {
    let _turn = turn();
    play(async {
        let (near, far) = duplex(64 * KIB);
        let (mux, driver) = support::server(near, Config::default());
        let mut peer = Peer::new(far);
        let before = Region::new(ALLOCATOR);
        // What comes after the 201st is read and dropped, because closing a socket with unread bytes would destroy the
        // GOAWAY.
        for turn in 0..100_000 {
            for frame in [syn(2 * turn + 1), rst(2 * turn + 1, RstStatus::CANCEL)] {
                assert!(peer.try_say(frame).await);
            }
        }
        assert!(grown(&before) < MIB, "{} bytes", grown(&before));
        let Some(Err(error)) = mux.accept().await else { panic!("a stream that has ended is not handed out") };
        assert!(
            matches!(error, ConnectionError::LimitExceeded { limit: "max_unanswered_resets", value: 200 }),
            "{error}"
        );
        assert_eq!(mux.stats().streams, 0);
        let heard = peer.hear().await;
        assert_eq!(
            heard,
            Some(goaway(401, GoAwayStatus::PROTOCOL_ERROR)),
            "a GOAWAY for the 201st stream, and nothing else"
        );
        drop(peer);
        assert!(driver.await.unwrap().is_err());
    });
}

/// h2 queued a reset for each stream that a peer had broken, without a limit while the peer did not read.
#[test]
fn rustsec_2024_0003_resets_of_ours_that_nobody_reads_are_bounded() {
    let _turn = turn();
    type Way = (&'static str, fn(u32) -> Vec<Frame>);
    let ways: [Way; 5] = [
        ("a window update of zero", |stream| vec![syn(stream), window_update(stream, 0)]),
        ("too much credit", |stream| vec![syn(stream), window_update(stream, StreamId::MAX.get())]),
        ("a reply to a stream of its own", |stream| vec![syn(stream), reply(stream)]),
        ("HEADERS for an unknown stream", |stream| vec![support::connection::headers(stream, false)]),
        ("invalid headers", |stream| {
            let mut frame = syn(stream);
            if let Frame::SynStream { headers, .. } = &mut frame {
                *headers = Headers::from_iter([("", "x")]);
            }
            vec![frame]
        }),
    ];
    for (way, frames) in ways {
        let mut server = End::server(config(|_| {}));
        let before = Region::new(ALLOCATOR);
        for turn in 0..100_000 {
            let stream = 2 * turn + 1;
            server.gets_all(frames(stream));
            // Its handler takes events at once.
            server.events();
            server.connection.release(id(stream));
            assert!(server.connection.stream_count() <= 1024, "{way}");
        }
        assert!(grown(&before) < 2 * MIB, "{way}: {} bytes", grown(&before));
        let error = server.error();
        assert_eq!(error.as_deref(), Some("the peer exceeded the limit `max_queued_replies` (1024)"), "{way}");
        assert!(matches!(server.says()[..], [Frame::GoAway { .. }]), "{way}: and no reset is queued");
    }
}

/// h2 joined CONTINUATION frames without a limit. SPDY has none: endless headers are one long frame or many HEADERS on
/// a stream, and before the upgrade a head of HTTP.
#[test]
fn rustsec_2024_0332_headers_without_end_are_refused_or_forgotten() {
    let _turn = turn();
    let head = [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff];
    let (error, allocated) = refused(&SpdyConfig::default(), &head);
    assert!(matches!(error, CodecError::FrameTooLarge { length: 0xff_ffff, limit: 65_536 }), "{error}");
    assert!(allocated < KIB, "{allocated} bytes");

    let mut server = End::server(config(|_| {}));
    server.gets(syn(1));
    server.accepts(1);
    server.says();
    let before = Region::new(ALLOCATOR);
    let mut turns = 0..100_000;
    while server.error().is_none()
        && let Some(turn) = turns.next()
    {
        assert!(grown(&before) < 16 * KIB, "{} bytes", grown(&before));
        let (name, value) = (format!("name-{turn}"), "x".repeat(1000));
        server.gets(Frame::Headers { id: id(1), fin: false, headers: Headers::from_iter([(name, value)]) });
    }
    assert_eq!(server.error().as_deref(), Some("the peer exceeded the limit `max_header_bytes` (67108864)"));

    play(async {
        let (mut near, far) = duplex(KIB);
        let serving = tokio::spawn(async move { upgrade::accept(far, &upgrade::Config::default()).await });
        near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        let mut sent = 0;
        while near.write_all(b"X-More: and more\r\n").await.is_ok() && sent < 2000 * KIB {
            sent += 18;
        }
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        drop(near);
        assert!(matches!(serving.await.unwrap(), Err(UpgradeError::HeadTooLarge { limit: 1_048_576 })));
    });
}

/// tungstenite parsed a whole head again for each piece of it that came. A trap shows such work: bytes that were
/// already looked at are changed into an end of the head, which a second look would find.
#[test]
fn cve_2023_43669_a_head_that_drips_in_is_looked_at_once() {
    let _turn = turn();
    let limit = upgrade::Config::default().max_head;
    let mut reader = HeadReader::new(limit);
    reader.buffer().extend_from_slice(b"GET / HTTP/1.1\r\nHost: a\r\nX: ");
    assert!(reader.take_head().unwrap().is_none());
    reader.buffer().fill(b'\n');
    for at in reader.buffer().len()..limit - 1 {
        reader.buffer().extend_from_slice(b"x");
        assert!(reader.take_head().unwrap().is_none(), "byte {at} caused a second look at earlier bytes");
        reader.buffer()[at] = b'\n';
    }
    reader.buffer().extend_from_slice(b"x");
    assert!(matches!(reader.take_head(), Err(UpgradeError::HeadTooLarge { limit: 1_048_576 })));
}
