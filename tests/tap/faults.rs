//! Bytes that a tap cannot follow: they pass all the same, and are reported once.

use bytes::{Bytes, BytesMut};
use kubestream::ConnectionError;
use kubestream::mux::Config;
use kubestream::mux::SpdyConfig;
use kubestream::mux::{Headers, RstStatus};
use kubestream::protocol::Subprotocol;
use kubestream::status::MAX_STATUS_LEN;
use kubestream::tap::{MAX_NAME_LEN, Side, StreamName as Name, Tap, TapEvent as Event};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use kubestream::upgrade::{self, Protocol, Version};
use kubestream_proxy::{self as proxy};
use quickcheck::quickcheck;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::codec::Encoder;

use crate::{Told, Watcher, told};
use support::peer::{rst, syn};
use support::read_head;
use support::websocket::{BINARY, frame};

fn data(id: u32, bytes: &[u8]) -> Frame {
    Frame::Data { id: StreamId::new(id), fin: false, data: Bytes::copy_from_slice(bytes) }
}

fn wire(frames: impl IntoIterator<Item = Frame>) -> Bytes {
    let (mut codec, mut wire) = (Codec::new(SpdyConfig::default()), BytesMut::new());
    frames.into_iter().for_each(|frame| codec.encode(frame, &mut wire).unwrap());
    wire.freeze()
}

/// The beginning of a session, with some bytes in both directions.
fn session() -> [(Side, Bytes); 2] {
    let kinds = ["error", "stdin", "stdout"].map(|kind| [("streamtype", kind)]);
    let syns = kinds.iter().zip([1, 3, 5]).map(|(headers, id)| syn(id, headers));
    let client = wire(syns.chain([data(3, &[b'i'; 3000]), Frame::Ping(1)]));
    let replies = [1, 3, 5].map(|id| Frame::SynReply { id: StreamId::new(id), fin: false, headers: Headers::new() });
    let server = wire(replies.into_iter().chain([data(5, &[b'o'; 3000]), data(1, b"{\"status\":\"Success\"}")]));
    [(Side::Client, client), (Side::Server, server)]
}

/// What a pipe carries of these bytes, and what the tap reports.
async fn carried(said: &[(Side, Bytes); 2], protocol: Protocol) -> ([Vec<u8>; 2], Told) {
    let ((mut client, near), (far, mut server)) = (duplex(100), duplex(100));
    let passing = async {
        let pending = upgrade::accept(near, &upgrade::Config::default()).await.unwrap();
        let request = pending.to_pass_on();
        proxy::forward(pending, far, request).await.unwrap()
    };
    let (pipe, ()) = tokio::join!(passing, async {
        let head = "POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
            X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
        let answer = "HTTP/1.1 101 a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
            X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        read_head(&mut server).await;
        server.write_all(answer.as_bytes()).await.unwrap();
        read_head(&mut client).await;
    });
    let mut watcher = Watcher::new(protocol, &[]);
    let ends = async |io: tokio::io::DuplexStream, bytes: Bytes| {
        let ((mut reads, mut writes), mut heard) = (tokio::io::split(io), Vec::new());
        let sending = async {
            writes.write_all(&bytes).await.unwrap();
            writes.shutdown().await.unwrap();
        };
        tokio::join!(sending, reads.read_to_end(&mut heard)).1.unwrap();
        heard
    };
    let (to_client, to_server, moved) =
        tokio::join!(ends(client, said[0].1.clone()), ends(server, said[1].1.clone()), pipe.run_with(&mut watcher));
    assert!(!moved.stopped);
    ([to_server, to_client], watcher.told)
}

quickcheck! {
    /// One wrong bit anywhere costs the session nothing: all bytes arrive, and at most one event reports it.
    fn a_flipped_bit_costs_nothing(at: usize, bit: u8, of_client: bool) -> bool {
        let mut said = session();
        let side = usize::from(!of_client);
        let mut bytes = said[side].1.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        said[side].1 = bytes.into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (heard, seen) = runtime.block_on(carried(&said, Protocol::SpdyExec(Version::V4)));
        assert!(heard[0] == said[0].1 && heard[1] == said[1].1);
        let faults = seen.faults();
        assert!(faults.len() <= 1 && faults.iter().all(|(whose, _)| *whose == said[side].0), "{faults:?}");
        let fault = seen.0.iter().position(|event| matches!(event, Event::Fault { .. }));
        let behind = &seen.0[fault.unwrap_or(seen.0.len())..];
        let of = |event: &&Event| matches!(event, Event::Data { side, .. } | Event::Over { side, .. } if *side == said[usize::from(!of_client)].0);
        assert_eq!(behind.iter().filter(of).count(), 0);
        true
    }
}

#[test]
fn a_fault_is_told_once_and_nothing_behind_it() {
    let [(_, client), server] = session();
    let version = Bytes::from_static(&[0x80, 4, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
    let said = [(Side::Client, client.clone()), (Side::Client, version), (Side::Client, client), server];
    let told = told(Protocol::SpdyExec(Version::V4), &[], &said, &[]);
    assert_eq!(
        told.faults(),
        [(Side::Client, "the peer sent a malformed SPDY frame: version 4 is not SPDY/3.1's version 3".to_owned())]
    );
    assert_eq!(told.data(Side::Client, &Name::Stdin).len(), 3000);
    assert_eq!(told.data(Side::Server, &Name::Stdout).len(), 3000, "the other side goes on");
    assert_eq!(told.statuses().len(), 1);
}

/// The tap reports nothing more of a side that it cannot follow, and not that the other side can go on.
#[test]
fn a_stream_of_one_direction_has_an_end_of_that_direction_alone() {
    let headers = Headers::from_iter([("streamtype", "stdout")]);
    let (id, associated) = (StreamId::new(2), StreamId::SESSION);
    let stream = Frame::SynStream { id, associated, priority: 0, slot: 0, fin: true, unidirectional: true, headers };
    let version = Bytes::from_static(&[0x80, 4, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
    let said = [(Side::Client, version), (Side::Server, wire([stream]))];
    let told = told(Protocol::SpdyExec(Version::V4), &[], &said, &[]);
    assert_eq!(told.faults().len(), 1);
    assert_eq!([Side::Client, Side::Server].map(|side| told.ends(side, &Name::Stdout)), [0, 1]);
}

#[test]
fn websockets_that_break_a_rule_are_faults() {
    let v5 = Protocol::WebSocketExec(Subprotocol::V5);
    for (side, bytes, error) in [
        (
            Side::Client,
            frame(0x82, b"\0a", false),
            "the peer sent a malformed WebSocket frame: a client's frame that is not masked",
        ),
        (
            Side::Server,
            frame(0x82, b"\x01a", true),
            "the peer sent a malformed WebSocket frame: a server's frame that is masked",
        ),
        (
            Side::Server,
            frame(0x81, b"\x01a", false),
            "the peer sent a malformed WebSocket frame: a text message in a subprotocol of binary messages",
        ),
        (
            Side::Client,
            frame(0x82, b"\xff\0\0", true),
            "the peer sent a malformed channel message: a CLOSE that does not name exactly one channel",
        ),
        (
            Side::Client,
            vec![0x82, 0xff, 0, 0, 0, 0, 0x10, 0, 0, 0, 1, 2, 3, 4],
            "the peer sent a malformed WebSocket frame: a message of more than 33554432 bytes",
        ),
        (
            Side::Server,
            [frame(BINARY, b"\x01a", false), frame(0, b"", false).repeat(1024)].concat(),
            "the peer sent a malformed WebSocket frame: a message of more than 1024 fragments",
        ),
    ] {
        let bytes = [frame(0x80 | BINARY, b"\x04", side == Side::Client), bytes].concat();
        let told = told(v5, &[], &[(side, bytes.into())], &[]);
        assert_eq!(told.faults(), [(side, error.to_owned())], "{told:?}");
    }
    let channels = Protocol::LegacyPortForward(Subprotocol::V4);
    let told = told(channels, &[80], &[(Side::Server, frame(0x82, &[0, 81, 0], false).into())], &[]);
    assert_eq!(
        told.faults(),
        [(
            Side::Server,
            "the peer sent a malformed channel message: a channel for port 80 begins with port 81".to_owned()
        )]
    );
}

/// A server of Go would take the fragments for two messages, and the second one's first byte for its channel.
#[test]
fn fragments_of_a_client_are_a_fault_before_anything_of_them_is_reported() {
    let error = "the peer sent a malformed WebSocket frame: a message in fragments, each of which a server of Go takes \
        for a message";
    let fragments = |masked| [frame(BINARY, b"\x00a", masked), frame(0x80, b"\x00b", masked)].concat();
    for protocol in [Subprotocol::V5, Subprotocol::V1].map(Protocol::WebSocketExec) {
        let told = told(protocol, &[], &[(Side::Client, fragments(true).into())], &[]);
        assert_eq!(told.faults(), [(Side::Client, error.to_owned())]);
        assert_eq!(told.data(Side::Client, &Name::Stdin), b"");
    }
    let channels = Protocol::LegacyPortForward(Subprotocol::V4);
    assert_eq!(told(channels, &[80], &[(Side::Client, fragments(true).into())], &[]).faults().len(), 1);
    // A server's fragments are read by clients as RFC 6455 §5.4 says, and the bytes of a tunnel by both ends.
    let output = [frame(BINARY, b"\x01a", false), frame(0x80, b"\x01b", false)].concat();
    let told_of = told(Protocol::WebSocketExec(Subprotocol::V5), &[], &[(Side::Server, output.into())], &[]);
    assert_eq!((told_of.faults(), told_of.data(Side::Server, &Name::Stdout)), (vec![], b"a\x01b".to_vec()));
    let (begin, end) = (wire([Frame::Ping(1)]), wire([syn(1, &[("streamtype", "error")])]));
    let carried = [frame(BINARY, &begin, true), frame(0x80, &end, true)].concat();
    assert_eq!(told(Protocol::TunneledPortForward, &[], &[(Side::Client, carried.into())], &[]).faults(), []);
}

/// spdystream takes the first of several values.
#[test]
fn several_values_of_a_header_that_names_a_stream_are_a_fault() {
    let error = "protocol violation by the peer: a header that names a stream has several values";
    let exec = Protocol::SpdyExec(Version::V4);
    for (protocol, headers) in [
        (exec, &[("streamtype", "stdin\0resize")][..]),
        (exec, &[("streamtype", "stdin"), ("streamType", "resize")]),
        (Protocol::SpdyPortForward, &[("streamtype", "data"), ("port", "80\x0010250"), ("requestid", "0")]),
        (Protocol::SpdyPortForward, &[("streamtype", "data"), ("port", "80"), ("requestid", "0\x001")]),
    ] {
        let said = [(Side::Client, wire([syn(1, headers), data(1, b"a")]))];
        let told = told(protocol, &[], &said, &[]);
        assert_eq!(told.faults(), [(Side::Client, error.to_owned())], "{headers:?}");
        assert!(told.0.iter().all(|event| !matches!(event, Event::Opened { .. })), "{headers:?}");
    }
    let others = [("streamtype", "stdin"), ("x", "1\x002")];
    assert_eq!(told(exec, &[], &[(Side::Client, wire([syn(1, &others)]))], &[]).faults(), []);
}

/// spdystream may handle the SYN_STREAM first.
#[test]
fn data_before_its_stream_is_a_fault() {
    let early = [syn(1, &[("streamtype", "error")]), data(3, b"ls"), syn(3, &[("streamtype", "stdin")])];
    let exec = Protocol::SpdyExec(Version::V4);
    let error = "protocol violation by the peer: DATA on a stream before its SYN_STREAM";
    let told_of = told(exec, &[], &[(Side::Client, wire(early))], &[]);
    assert_eq!(told_of.faults(), [(Side::Client, error.to_owned())]);
    // Late DATA of a forwarded connection that has ended is none, nor is the answer on a stream that was not seen.
    let headers = [("streamtype", "data"), ("port", "80"), ("requestid", "0")];
    let reset = Frame::RstStream { id: StreamId::new(1), status: RstStatus::CANCEL };
    let late =
        [(Side::Client, wire([syn(1, &headers), reset, data(1, b"late")])), (Side::Server, wire([data(3, b"a")]))];
    assert_eq!(told(Protocol::SpdyPortForward, &[], &late, &[]).faults(), []);
}

#[test]
fn a_stream_with_an_id_of_the_other_end_is_a_fault() {
    let error = "protocol violation by the peer: a stream with an id of the other end";
    for (side, id) in [(Side::Client, 2), (Side::Server, 1)] {
        let told =
            told(Protocol::SpdyExec(Version::V4), &[], &[(side, wire([syn(id, &[("streamtype", "stdin")])]))], &[]);
        assert_eq!(told.faults(), [(side, error.to_owned())]);
    }
}

/// A client may read on after the server's reason, so the tap reports what still comes.
#[test]
fn what_follows_the_reason_of_a_legacy_port_forward_is_reported() {
    let said: [&[u8]; 6] = [&[0, 80, 0], &[1, 80, 0], b"\0hello", b"\x01no", b"\0more", b"\x01 way"];
    let bytes: Vec<u8> = said.iter().flat_map(|message| frame(0x82, message, false)).collect();
    let told = told(Protocol::LegacyPortForward(Subprotocol::V4), &[80], &[(Side::Server, bytes.into())], &[]);
    let (port, request) = (80, "0".into());
    let data = Name::Forwarded { port, request };
    let request = "0".into();
    let error = Name::ForwardedError { port, request };
    assert_eq!((told.data(Side::Server, &data), told.faults()), (b"hellomore".to_vec(), vec![]));
    assert_eq!(told.data(Side::Server, &error), b"no way");
    assert_eq!([&data, &error].map(|name| told.ends(Side::Server, name)), [1, 1]);
}

/// A malformed status or size is reported in its place, and the tap goes on.
#[test]
fn a_status_that_is_none_costs_no_output() {
    let v5 = Protocol::WebSocketExec(Subprotocol::V5);
    let mut server = frame(0x82, b"\x03boom", false);
    server.extend(frame(0x82, &[&b"\x03"[..], &vec![b'x'; MAX_STATUS_LEN]].concat(), false));
    server.extend(frame(0x82, b"\x01tail", false));
    let mut client = frame(0x82, b"\x04boom", true);
    client.extend(frame(0x82, b"\x04{\"Width\":1,\"Height\":1}", true));
    let told = told(v5, &[], &[(Side::Client, client.into()), (Side::Server, server.into())], &[]);
    let wrong = |event: &&Event| matches!(event, Event::Status(Err(_)) | Event::Resize(Err(_)));
    assert_eq!(told.0.iter().filter(wrong).count(), 2, "{told:?}");
    assert_eq!((told.faults(), told.data(Side::Server, &Name::Stdout)), (vec![], b"tail".to_vec()));
}

#[test]
fn more_streams_than_the_limit_are_followed_no_more_by_either_side() {
    let mut config = Config::default();
    config.spdy.max_streams = 3;
    let mut tap = Tap::new(Protocol::SpdyPortForward, &[], &config);
    let syns = (0..4).map(|at| syn(2 * at + 1, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]));
    tap.feed(Side::Client, wire(syns));
    tap.feed(Side::Server, wire([data(1, b"x")]));
    let mut seen = Told::default();
    seen.take(&mut tap);
    assert!(
        matches!(
            seen.0[..],
            [_, _, _, Event::Fault { error: ConnectionError::LimitExceeded { limit: "max_streams", value: 3 }, .. }]
        ),
        "{seen:?}"
    );
    assert!(tap.is_blind(Side::Client) && tap.is_blind(Side::Server));
}

/// Row 49: blocks that inflate a hundredfold pass like all others, but the tap soon stops following them. The blocks of
/// Kubernetes' clients inflate threefold and are followed, however many there are: here ten times the limit.
#[test]
fn blocks_that_inflate_too_far_are_followed_no_more() {
    let mut config = Config::default();
    config.spdy.max_header_bytes = 50_000;
    let long = "x".repeat(10_000);
    for protocol in [Protocol::SpdyExec(Version::V4), Protocol::SpdyPortForward, Protocol::TunneledPortForward] {
        let (mut tap, mut seen) = (Tap::new(protocol, &[], &config), Told::default());
        let mut codec = Codec::new(SpdyConfig::default());
        let mut says = |headers: &[(&str, &str)]| {
            let mut wire = BytesMut::new();
            let headers = headers.iter().copied().collect();
            codec.encode(Frame::Headers { id: StreamId::new(1), fin: false, headers }, &mut wire).unwrap();
            let bytes = if protocol == Protocol::TunneledPortForward {
                frame(0x80 | BINARY, &wire, true)
            } else {
                wire.to_vec()
            };
            // However the bytes are cut.
            for piece in bytes.chunks(7) {
                tap.feed(Side::Client, Bytes::copy_from_slice(piece));
                seen.take(&mut tap);
            }
            seen.faults()
        };
        for number in 0..8_000 {
            let faults = says(&[("streamtype", "data"), ("port", "80"), ("requestid", &number.to_string())]);
            assert_eq!(faults, [], "{protocol}: {number}");
        }
        let bombs = (1..100).find(|_| !says(&[("a", &long)]).is_empty()).expect("all of it is followed");
        assert!((5..=7).contains(&bombs), "{protocol}: {bombs}");
        assert!(matches!(
            seen.0[..],
            [Event::Fault { error: ConnectionError::LimitExceeded { limit: "max_header_bytes", value: 50_000 }, .. }]
        ));
        assert!(tap.is_blind(Side::Client) && !tap.is_blind(Side::Server));
    }
}

/// A port-forward may have any number of streams, one after the other.
#[test]
fn streams_that_were_do_not_count() {
    let mut config = Config::default();
    config.spdy.max_streams = 3;
    let mut tap = Tap::new(Protocol::SpdyPortForward, &[], &config);
    let mut seen = Told::default();
    let headers = [("streamtype", "data"), ("port", "80"), ("requestid", "0")];
    tap.feed(
        Side::Client,
        wire((0..100).flat_map(|at| [syn(2 * at + 1, &headers), rst(2 * at + 1, RstStatus::CANCEL)])),
    );
    seen.take(&mut tap);
    assert_eq!((seen.faults(), seen.0.len()), (vec![], 200));
}

/// The session is followed all the same. The name is only for the reader of events.
#[test]
fn a_long_name_is_told_by_its_beginning() {
    let long = "n".repeat(100);
    let mut tap = Tap::new(Protocol::SpdyPortForward, &[], &Config::default());
    let headers = [("streamtype", "data"), ("port", "80"), ("requestid", &long[..])];
    tap.feed(Side::Client, wire([syn(1, &headers), syn(3, &[("streamtype", &long)])]));
    let mut seen = Told::default();
    seen.take(&mut tap);
    let told = format!("{seen:?}");
    assert_eq!(told.matches(&long[..MAX_NAME_LEN]).count(), 2, "{told}");
    assert!(!told.contains(&long[..=MAX_NAME_LEN]), "{told}");
}
