//! Recorded sessions of Kubernetes' own programs as Wireshark reads them, whole and damaged. Each kind of damage has a
//! case, which shows that Wireshark reports it.
//!
//! Makes the damage. `tshark.rs` tests how Wireshark reads our own bytes.

use futures_util::{StreamExt, stream};
use kubestream::upgrade::Protocol;
use kubestream_interop::matrix::{self, Foreign, Over, Proof, reader_of};
use kubestream_interop::{Side, Wire, at_once, replay};

use Side::{Client, Server};
use support::recording;

const RECORDED: &str = "what Kubernetes sent";
const DAMAGED: &str = "what is damaged";

fn reads(what: &str, cases: &str, over: impl IntoIterator<Item: Into<Over>>) -> Proof {
    matrix::proves(cases).with(Foreign::Wireshark, reader_of(what), over)
}

/// A recording of Kubernetes' own programs: both sides, beginning with their heads.
fn recorded(name: &str) -> (Vec<u8>, Vec<u8>) {
    let side = |side| std::fs::read(recording::path(name).join(side)).unwrap_or_else(|error| panic!("{name}: {error}"));
    (side("c2s.bin"), side("s2c.bin"))
}

/// Wireshark and the library's codec agree on these sessions.
#[tokio::test]
async fn recorded_spdy_reads_as_the_codec_reads_it() {
    let _proof = reads(
        RECORDED,
        "21 sessions, as our codec reads them",
        Protocol::SPDY_EXEC.iter().chain([&Protocol::SpdyPortForward]).copied(),
    );
    let rows = std::fs::read_to_string(recording::path("captures/expected.tsv")).expect("what they read as");
    let rows: Vec<[&str; 3]> =
        rows.lines().map(|row| row.split('\t').collect::<Vec<_>>().try_into().expect("three")).collect();
    let wires = stream::iter(rows.chunks(2).map(|pair| async move {
        let (client, server) = recorded(&format!("captures/{}", pair[0][0]));
        (pair, replay(&client, &server).await)
    }));
    let wires: Vec<_> = wires.buffered(4).collect().await;
    assert_eq!(wires.len(), 21);
    for (pair, wire) in wires {
        for [name, direction, expected] in pair {
            assert_eq!(wire.complaints, [""; 0], "{name}");
            let side = if *direction == "c2s" { Client } else { Server };
            // A frame that is cut off does not count.
            let expected = expected.split("; ").filter(|said| *said != "CUT");
            let (pings, others): (Vec<_>, Vec<_>) = expected.partition(|said| said.starts_with("PING"));
            assert_eq!(wire.by(side), others, "{name} {direction}");
            let pinged = wire.said.iter().filter(|said| said.side == side && said.what == "PING");
            let pinged: Vec<_> =
                pinged.map(|ping| format!("PING {}", ping.says.as_deref().unwrap_or_default())).collect();
            assert_eq!(pinged, pings, "{name} {direction}");
        }
    }
}

/// The expected content of a recording: its name, the subprotocol, and what each side sent.
type Channels = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

#[tokio::test]
async fn recorded_channels_read_as_what_they_carried() {
    let _proof = reads(
        RECORDED,
        "9 sessions, as what they carried",
        Protocol::WEBSOCKET_EXEC.iter().copied().map(Over::from).chain([Over::ChannelsV4, Over::ChannelsV4Base64]),
    );
    const OUTPUT: [&str; 4] = ["stdout 1 0", "stdout 1 3", "stderr 2 3", "error 3 Failure 7"];
    let cases: [Channels; 9] = [
        (
            "exec-exit-7",
            "v5.channel.k8s.io",
            &["close 1000"],
            &["stdout 1 0", "stdout 1 4", "error 3 Failure 7", "close 1000"],
        ),
        (
            "exec-stdin-100k",
            "v5.channel.k8s.io",
            &["stdin 0 102400", "CLOSE 0", "close 1000"],
            &["stdout 1 0", "stdout 1 102400", "error 3 Success", "close 1000"],
        ),
        (
            "exec-tty-resize",
            "v5.channel.k8s.io",
            &["resize 4 80x24", "stdin 0 10", "resize 4 132x50", "stdin 0 17", "close 1000"],
            &["stdout 1 0", "stdout 1 207", "error 3 Failure 3", "close 1000"],
        ),
        (
            "v4b-base64-exec",
            "v4.base64.channel.k8s.io",
            &["stdin 0 29", "close 1000"],
            &[OUTPUT[0], OUTPUT[1], OUTPUT[2], OUTPUT[3], "close 1000"],
        ),
        (
            "v4-base64-exec",
            "base64.channel.k8s.io",
            &["stdin 0 29", "close 1000"],
            &[OUTPUT[0], OUTPUT[1], OUTPUT[2], "error 3 85", "close 1000"],
        ),
        (
            "v1-exec",
            "channel.k8s.io",
            &["stdin 0 29", "close 1000"],
            &[OUTPUT[0], OUTPUT[1], OUTPUT[2], "error 3 85", "close 1000"],
        ),
        ("noproto-exec", "", &["stdin 0 16", "close 1000"], &[OUTPUT[0], OUTPUT[1], "error 3 85", "close 1000"]),
        (
            "v4-portforward",
            "v4.channel.k8s.io",
            &["data 0 5", "close 1000", "close 1000"],
            &["data 0 port 7007", "error 1 port 7007", "data 0 5", "close 1000"],
        ),
        (
            "v4-base64-portforward",
            "v4.base64.channel.k8s.io",
            &["data 0 5", "close 1000", "close 1000"],
            &["data 0 port 7007", "error 1 port 7007", "data 0 5", "close 1000"],
        ),
    ];
    at_once(cases, async |(name, protocol, client, server)| {
        let said = recorded(&format!("websocket/ws-{name}"));
        let wire = replay(&said.0, &said.1).await;
        wire.assert_sound(name);
        assert_eq!(wire.protocol, protocol, "{name}");
        assert_eq!((&wire.by(Client)[..], &wire.by(Server)[..]), (&owned(client)[..], &owned(server)[..]), "{name}");
    })
    .await;
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// A WebSocket frame (RFC 6455 §5.2), built by hand. With a mask it is a client's.
fn message(opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).expect("a short one");
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode, bit | length];
    frame.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const MASK: Option<[u8; 4]> = Some([0x5a, 0x01, 0xff, 0x80]);

/// The heads of an upgrade to WebSocket.
fn heads(path: &str, protocol: &str) -> (Vec<u8>, Vec<u8>) {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol";
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}: {protocol}\r\n{key}\r\n\r\n");
    let granted = format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}: {protocol}\r\n\r\n");
    (asked.into_bytes(), granted.into_bytes())
}

/// The bytes after the head.
fn behind(bytes: &[u8]) -> &[u8] {
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    &bytes[end..]
}

/// The recorded port-forward, with its bytes in tunnel messages of these sizes, used in turn.
fn tunnelled(sizes: &[usize], damage: impl Fn(&mut Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    let said = recorded("captures/spdy-portforward-two");
    let (mut asked, mut granted) =
        heads("/api/v1/namespaces/default/pods/web/portforward", "SPDY/3.1+portforward.k8s.io");
    let mut bytes = behind(&said.0).to_vec();
    damage(&mut bytes);
    for (whole, bytes, mask) in [(&mut asked, &bytes[..], MASK), (&mut granted, behind(&said.1), None)] {
        let mut left = bytes;
        for size in sizes.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let slice = left.split_off(..(*size).min(left.len())).expect("it is there");
            whole.extend(message(BINARY, mask, slice));
        }
    }
    (asked, granted)
}

#[tokio::test]
async fn a_tunnel_cut_anywhere_reads_as_the_spdy_in_it() {
    let _proof = reads(RECORDED, "a session in messages cut anywhere", [Over::Tunnel]);
    let said = recorded("captures/spdy-portforward-two");
    let bare = replay(&said.0, &said.1).await;
    assert_eq!(bare.by(Server).len(), 17);
    at_once([&[1][..], &[2], &[4], &[4, 0, 4, 100], &[125], &[1, 2, 4, 0, 8, 61]], async |sizes| {
        let said = tunnelled(sizes, |_| {});
        let wire = replay(&said.0, &said.1).await;
        assert_eq!(wire.complaints, [""; 0], "{sizes:?}");
        for side in [Client, Server] {
            assert_eq!(wire.by(side), bare.by(side), "{sizes:?}");
        }
        assert_eq!(wire.headers(Client, 15), bare.headers(Client, 15), "{sizes:?}");
    })
    .await;
}

#[track_caller]
fn complains(wire: &Wire, of: &str) {
    assert!(wire.complaints.iter().any(|complaint| complaint.starts_with(of)), "of {of}: {:?}", wire.complaints);
}

/// A recorded exec over SPDY with damage to what the client sends after its head.
async fn with_another_client(damage: impl Fn(&mut Vec<u8>)) -> Wire {
    let (client, server) = recorded("captures/spdy-exec-echo");
    let mut bytes = behind(&client).to_vec();
    damage(&mut bytes);
    let head = &client[..client.len() - behind(&client).len()];
    replay(&[head, &bytes].concat(), &server).await
}

/// The same with other bytes from the server.
async fn with_another_server(bytes: &[u8]) -> Wire {
    let (client, server) = recorded("captures/spdy-exec-echo");
    let head = &server[..server.len() - behind(&server).len()];
    replay(&client, &[head, bytes].concat()).await
}

/// The offset of the first header block, where the zlib stream begins.
const BLOCK: usize = 18;

#[tokio::test]
async fn a_damaged_header_block_is_seen() {
    let _proof = reads(DAMAGED, "header blocks", [Over::SpdyV4]);
    // The id of the dictionary, and its checksum.
    for at in [BLOCK + 1, BLOCK + 5] {
        complains(&with_another_client(|bytes| bytes[at] ^= 1).await, "spdy.inflation_failed");
    }
    // The inflated bytes are not a header block.
    complains(&with_another_client(|bytes| bytes[BLOCK + 12] ^= 0xff).await, "spdy.malformed.frame_data");
}

#[tokio::test]
async fn another_header_is_seen() {
    let _proof = reads(DAMAGED, "another header", [Over::SpdyV4]);
    const NAME: &[u8] = b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05";
    // A stored block after the same dictionary. `Error` in place of `error` is well formed, but differs.
    let with = |value: &'static [u8]| {
        with_another_client(move |bytes| {
            let block = [NAME, value].concat();
            let length = block.len() as u8;
            let zlib = [&[0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0, length, 0, !length, 0xff], &block[..]].concat();
            *bytes =
                [&[0x80, 3, 0, 1, 0, 0, 0, 10 + zlib.len() as u8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], &zlib[..]].concat();
        })
    };
    for (value, expected) in [(&b"error"[..], "SYN_STREAM 1 error"), (b"Error", "SYN_STREAM 1 Error")] {
        let wire = with(value).await;
        assert_eq!((wire.by(Client), wire.complaints), (vec![expected.to_owned()], vec![]));
    }
}

#[tokio::test]
async fn a_malformed_frame_is_seen() {
    let _proof = reads(DAMAGED, "malformed frames", [Over::SpdyV4]);
    // An unknown type, and a length that leaves a byte over.
    complains(&with_another_client(|bytes| bytes[3] = 0x21).await, "spdy.type.invalid");
    complains(&with_another_client(|bytes| bytes[7] -= 1).await, "spdy.type.invalid");
    // SETTINGS that claim nine entries and have one, an unknown status, and half a GOAWAY.
    let settings = [0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 1, 0];
    complains(&with_another_server(&settings).await, "spdy.malformed.setting_frame");
    complains(
        &with_another_server(&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 99]).await,
        "spdy.rst_stream.invalid",
    );
    complains(&with_another_server(&[0x80, 3, 0, 7, 0, 0, 0, 4, 0, 0, 0, 1]).await, "_ws.malformed");
}

#[tokio::test]
async fn another_order_and_other_data_are_seen() {
    let _proof = reads(DAMAGED, "another order; other data", [Over::SpdyV4]);
    let (hello, status) = ([0, 0, 0, 3, 1, 0, 0, 2, b'h', b'i'], [0, 0, 0, 1, 0, 0, 0, 2, b'{', b'}']);
    let one = with_another_server(&[hello, status].concat()).await;
    assert_eq!((one.by(Server), one.bytes(Server, 3)), (owned(&["DATA 3 2 FIN", "DATA 1 2"]), b"hi".to_vec()));
    let other = with_another_server(&[status, hello].concat()).await;
    assert_eq!(other.by(Server), ["DATA 1 2", "DATA 3 2 FIN"]);
}

#[tokio::test]
async fn a_damaged_header_block_in_the_tunnel_is_seen() {
    let _proof = reads(DAMAGED, "header blocks", [Over::Tunnel]);
    for sizes in [&[1][..], &[4, 0, 4, 100]] {
        let said = tunnelled(sizes, |bytes| bytes[BLOCK + 1] ^= 1);
        complains(&replay(&said.0, &said.1).await, "spdy.inflation_failed");
    }
}

const EXEC: &str = "/api/v1/namespaces/default/pods/demo/exec?command=true";

/// A session of channels with one message from each side.
async fn channels(protocol: &str, client: Vec<u8>, server: Vec<u8>) -> Wire {
    let (asked, granted) = heads(EXEC, protocol);
    replay(&[asked, client].concat(), &[granted, server].concat()).await
}

#[tokio::test]
async fn a_mask_on_the_wrong_side_is_seen() {
    let _proof = reads(DAMAGED, "a mask on the wrong side", [Over::WebSocketV5]);
    let (stdin, stdout) = (b"\0in", b"\x01out");
    let masked = |client, server| (message(BINARY, client, stdin), message(BINARY, server, stdout));
    let (client, server) = masked(MASK, None);
    let wire = channels("v5.channel.k8s.io", client, server).await;
    assert_eq!((wire.by(Client), wire.by(Server)), (owned(&["stdin 0 2"]), owned(&["stdout 1 3"])));
    assert_eq!(wire.complaints, [""; 0]);
    let (client, server) = masked(None, None);
    assert_eq!(channels("v5.channel.k8s.io", client, server).await.complaints, ["websocket.mask Client"]);
    let (client, server) = masked(MASK, MASK);
    assert_eq!(channels("v5.channel.k8s.io", client, server).await.complaints, ["websocket.mask Server"]);
}

#[tokio::test]
async fn a_message_that_says_nothing_sensible_is_seen() {
    let _proof = reads(
        DAMAGED,
        "messages that say nothing sensible",
        [Over::WebSocketV4, Over::WebSocketV4Base64, Over::WebSocketV5, Over::ChannelsV4],
    );
    const V5: &str = "v5.channel.k8s.io";
    let from_client: [(&str, u8, &[u8], &str); 9] = [
        (V5, BINARY, b"\x05?", "k8s_channel.unknown"),
        (V5, BINARY, b"\x01out", "k8s_channel.wrong_side"),
        (V5, BINARY, b"\xff", "k8s_channel.bad_close"),
        (V5, BINARY, b"\xff\x05", "k8s_channel.bad_close"),
        (V5, BINARY, b"\xff\0\0", "k8s_channel.bad_close"),
        // Only v5 has it.
        ("v4.channel.k8s.io", BINARY, b"\xff\0", "k8s_channel.unknown"),
        (V5, BINARY, b"\x04{\"Width\":80}", "k8s_channel.bad_size"),
        ("v4.base64.channel.k8s.io", TEXT, b"0aGk", "k8s_channel.bad_base64"),
        ("v4.base64.channel.k8s.io", TEXT, b"xaGk=", "k8s_channel.bad_base64"),
    ];
    at_once(from_client, async |(protocol, opcode, payload, of)| {
        complains(&channels(protocol, message(opcode, MASK, payload), Vec::new()).await, of);
    })
    .await;
    for (payload, of) in [(&b"\0in"[..], "k8s_channel.wrong_side"), (b"\x03exit 7", "k8s_channel.bad_status")] {
        complains(&channels(V5, Vec::new(), message(BINARY, None, payload)).await, of);
    }
    let (asked, granted) = heads("/api/v1/namespaces/default/pods/demo/portforward?ports=80", "v4.channel.k8s.io");
    let wire = replay(&asked, &[granted, message(BINARY, None, b"\0port")].concat()).await;
    complains(&wire, "k8s_channel.bad_port");
}
