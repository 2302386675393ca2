//! The tap beside what Go's servers read: no byte that a server gets of a client is unknown to the tap. The peer is
//! `delivered`, with moby/spdystream and with wsstream on golang.org/x/net/websocket.
//!
//! As with a proxy that records, a server gets only the pieces before the one with the tap's fault.
//!
//! `KUBESTREAM_INPUTS=100000` runs longer, on other inputs each time. It prints its seed, and `KUBESTREAM_SEED` repeats
//! a run.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use kubestream::mux::{Config, Headers, SpdyConfig};
use kubestream::protocol::Subprotocol;
use kubestream::tap::{Side, StreamName, Tap, TapEvent};
use kubestream::unstable::wire::spdy::{Codec, Frame, GoAwayStatus, StreamId};
use kubestream::upgrade::{Protocol, Version};
use kubestream_interop::binary;
use kubestream_interop::matrix::{self, Foreign, Over, model_of};
use serde_json::Value;
use support::mutation::{Numbers, mutate};
use support::websocket::frame;
use tokio_util::codec::Encoder;

const INPUTS: usize = 6_000;
const SEED: u64 = 0x7a9_0f90;

/// The subprotocols in the order of the peer.
const SUBPROTOCOLS: [Subprotocol; 5] =
    [Subprotocol::V1, Subprotocol::V1Base64, Subprotocol::V4, Subprotocol::V4Base64, Subprotocol::V5];

/// What a client sends after the handshake, in the pieces that a proxy reads.
struct Input {
    protocol: Protocol,
    pieces: Vec<Bytes>,
}

impl Input {
    fn any(numbers: &mut Numbers) -> Self {
        let (protocol, mut bytes) = match numbers.below(3) {
            0 => (Protocol::SpdyExec(Version::V4), spdy(numbers, false)),
            1 => (Protocol::SpdyPortForward, spdy(numbers, true)),
            _ => {
                let subprotocol = *numbers.choose(&SUBPROTOCOLS);
                (Protocol::WebSocketExec(subprotocol), websocket(numbers, subprotocol))
            }
        };
        if matches!(protocol, Protocol::WebSocketExec(_)) && numbers.one_in(6) {
            let other = bytes.clone();
            mutate(&mut bytes, &other, numbers);
        }
        let mut pieces = Vec::new();
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            let length = (1 + numbers.below(80)).min(bytes.len());
            pieces.push(bytes.split_to(length));
        }
        Self { protocol, pieces }
    }
}

/// Frames of a session or of a port-forward. One in some has headers, ids or ends that no client of Kubernetes sends.
///
/// There are no frames that make spdystream wait for its user: RST_STREAM, HEADERS and SYN_REPLY.
fn spdy(numbers: &mut Numbers, is_port_forward: bool) -> Vec<u8> {
    const ODD_KINDS: [&str; 9] =
        ["stdin\0resize", "resize\0stdin", "\0stdin", "Stdin", " stdin", "", "data\0error", "error\0data", "other"];
    const ODD_PORTS: [&str; 5] = ["80\x0010250", "10250\x0080", "+80", "080", ""];
    let (mut codec, mut wire) = (Codec::new(SpdyConfig::default()), BytesMut::new());
    let (mut opened, mut next) = (Vec::new(), 1);
    for sent in 0..3 + numbers.below(14) {
        let is_new = opened.is_empty() || numbers.one_in(4);
        let frame = if numbers.one_in(40) {
            Frame::GoAway { last_good: StreamId::SESSION, status: GoAwayStatus::OK }
        } else if numbers.one_in(20) {
            Frame::Ping(1)
        } else if is_new && !numbers.one_in(30) {
            let id = if numbers.one_in(15) { *numbers.choose(&[1, 2, 3, 4, 9]) } else { next };
            next = next.max(id | 1) + 2;
            opened.push(id);
            let kind = match (numbers.one_in(12), is_port_forward) {
                (true, _) => *numbers.choose(&ODD_KINDS),
                (false, true) => *numbers.choose(&["data", "error"]),
                (false, false) => *numbers.choose(&["stdin", "resize", "error"]),
            };
            let mut headers = vec![(if numbers.one_in(8) { "streamType" } else { "streamtype" }, kind)];
            if is_port_forward {
                headers.push(("port", if numbers.one_in(12) { *numbers.choose(&ODD_PORTS) } else { "80" }));
                headers
                    .push(("requestid", if numbers.one_in(20) { "0\x001" } else { *numbers.choose(&["0", "1", ""]) }));
            }
            if numbers.one_in(20) {
                headers.push((*numbers.choose(&["streamtype", "streamType", "port"]), "resize"));
            }
            let (fin, unidirectional) = (numbers.one_in(20), numbers.one_in(20));
            let (id, associated, headers) = (StreamId::new(id), StreamId::SESSION, Headers::from_iter(headers));
            Frame::SynStream { id, associated, priority: numbers.below(8) as u8, slot: 0, fin, unidirectional, headers }
        } else {
            let id = if opened.is_empty() || numbers.one_in(15) { next } else { *numbers.choose(&opened) };
            Frame::Data { id: StreamId::new(id), fin: numbers.one_in(10), data: format!("<{sent}>").into() }
        };
        codec.encode(frame, &mut wire).expect("a frame that fits");
    }
    wire.to_vec()
}

/// Messages of channels, whole and in fragments, and frames that break a rule.
fn websocket(numbers: &mut Numbers, subprotocol: Subprotocol) -> Vec<u8> {
    const FIRST: [u8; 6] = [0x81, 0x02, 0x80, 0x89, 0xc2, 0x83];
    let mut wire = Vec::new();
    for sent in 0..1 + numbers.below(8) {
        let channel = *numbers.choose(&[0, 0, 0, 4, 4, 1, 3, 9]);
        let payload = match (subprotocol.is_base64(), numbers.below(12)) {
            (_, 0) if numbers.one_in(3) => Vec::new(),
            (false, 1) => vec![255, channel],
            (false, _) => [&[channel][..], format!("<{sent}>").as_bytes()].concat(),
            // "<0>" and so on in base64, and what is not base64.
            (true, _) => {
                let text = numbers.choose::<&[u8]>(&[b"PDA+", b"PDE+", b"PDI+", b"PDM+", b"PDQ+", b"PDU+", b"PD"]);
                [&[b'0' + channel], *text].concat()
            }
        };
        let first = if numbers.one_in(8) { *numbers.choose(&FIRST) } else { 0x82 };
        wire.extend(frame(first, &payload, !numbers.one_in(30)));
    }
    wire
}

/// What one side of a stream is and has carried.
#[derive(Debug, Default, PartialEq)]
struct Carried {
    name: String,
    data: Vec<u8>,
}

/// What the tap reports of an input, and what a proxy passes on of it.
fn tapped(input: &Input) -> (HashMap<u32, Vec<Carried>>, Vec<u8>) {
    let mut tap = Tap::new(input.protocol, &[], &Config::default());
    let (mut streams, mut passed) = (HashMap::<u32, Vec<Carried>>::new(), Vec::new());
    for piece in &input.pieces {
        tap.feed(Side::Client, piece.clone());
        while let Some(event) = tap.poll_event() {
            match event {
                TapEvent::Opened { stream, .. } => {
                    let name = named(&stream.name);
                    streams.entry(stream.id).or_default().push(Carried { name, data: Vec::new() });
                }
                TapEvent::Data { stream, data, .. } => {
                    let carried = streams.get_mut(&stream.id).and_then(|all| all.last_mut()).expect("an open stream");
                    carried.data.extend_from_slice(&data);
                }
                TapEvent::Fault { .. } => return (streams, passed),
                _ => {}
            }
        }
        passed.extend_from_slice(piece);
    }
    (streams, passed)
}

fn named(name: &StreamName) -> String {
    match name {
        StreamName::Stdin => "stdin".to_owned(),
        StreamName::Stdout => "stdout".to_owned(),
        StreamName::Stderr => "stderr".to_owned(),
        StreamName::Error => "error".to_owned(),
        StreamName::Resize => "resize".to_owned(),
        StreamName::Forwarded { port, request } => format!("data {port} {request}"),
        StreamName::ForwardedError { port, request } => format!("error {port} {request}"),
        StreamName::Other(kind) => kind.to_string(),
        other => panic!("{other:?}"),
    }
}

/// The name that a server finds for a stream: the first value of each header.
fn named_by_go(stream: &Value, protocol: Protocol) -> String {
    let header = |name: &str| stream["headers"][name][0].as_str().unwrap_or_default();
    let kind = match (protocol, stream["id"].as_u64()) {
        (Protocol::WebSocketExec(_), Some(0)) => "stdin",
        (Protocol::WebSocketExec(_), _) => "resize",
        _ => header("Streamtype"),
    };
    // A kubelet reads a port with ParseUint, which takes no sign.
    let port = Some(header("Port")).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) if protocol.is_port_forward() && matches!(kind, "data" | "error") => {
            format!("{kind} {port} {}", header("Requestid"))
        }
        _ => kind.to_owned(),
    }
}

/// The readings of Go, one for each input.
fn delivered(inputs: &[(Protocol, Vec<u8>)]) -> Vec<Value> {
    let mut command = Command::new(binary("delivered"));
    command.arg("-watchdog=600s").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut peer = command.spawn().expect("the peer");
    let (mut stdin, stdout) = (peer.stdin.take().expect("a pipe"), peer.stdout.take().expect("a pipe"));
    let lines: Vec<Value> = std::thread::scope(|scope| {
        scope.spawn(move || {
            for (protocol, bytes) in inputs {
                let place = |subprotocol| SUBPROTOCOLS.iter().position(|known| *known == subprotocol).expect("known");
                let reader = match protocol {
                    Protocol::WebSocketExec(subprotocol) => 1 + place(*subprotocol),
                    _ => 0,
                };
                let length = u32::try_from(bytes.len()).expect("a short input").to_be_bytes();
                stdin.write_all(&[&[reader as u8][..], &length, bytes].concat()).expect("the peer reads");
            }
        });
        BufReader::new(stdout).lines().map(|line| serde_json::from_str(&line.expect("text")).expect("JSON")).collect()
    });
    assert!(peer.wait().expect("the peer's status").success());
    lines
}

/// Whether `part` is `whole` with some bytes left out. spdystream drops DATA that comes at the wrong time.
fn is_part(part: &[u8], whole: &[u8]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|byte| rest.any(|other| other == byte))
}

#[test]
fn nothing_that_go_delivers_of_a_client_is_unknown_to_the_tap() {
    let cases =
        "6,000 inputs, also ones that two readers could read differently: nothing delivered is unknown to the tap";
    let spdy = [Over::SpdyV4, Over::Forward];
    let websocket = SUBPROTOCOLS.map(Protocol::WebSocketExec);
    let proof = matrix::proves(cases).with(Foreign::Spdystream, model_of("`Tap`"), spdy);
    let _proof = proof.with(Foreign::CriStreaming, model_of("`Tap`"), websocket);
    let number = |name| env::var(name).ok().map(|number| number.parse::<u64>().unwrap_or_else(|_| panic!("{name}")));
    let longer = number("KUBESTREAM_INPUTS");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let seed = number("KUBESTREAM_SEED").unwrap_or_else(|| longer.map_or(SEED, |_| now()));
    let count = longer.and_then(|count| usize::try_from(count).ok()).unwrap_or(INPUTS);
    println!("KUBESTREAM_INPUTS={count} KUBESTREAM_SEED={seed}");

    let mut numbers = Numbers::seeded(seed);
    let inputs: Vec<Input> = (0..count).map(|_| Input::any(&mut numbers)).collect();
    let (reported, passed): (Vec<_>, Vec<_>) = inputs.iter().map(tapped).unzip();
    let asked: Vec<_> = inputs.iter().zip(passed).map(|(input, passed)| (input.protocol, passed)).collect();
    let answers = delivered(&asked);
    assert_eq!(answers.len(), count);
    let (mut bytes, mut faults) = ([0, 0], 0);
    for ((input, (protocol, passed)), (reported, answer)) in
        inputs.iter().zip(&asked).zip(reported.iter().zip(&answers))
    {
        faults += usize::from(passed.len() < input.pieces.iter().map(Bytes::len).sum());
        for stream in answer["streams"].as_array().into_iter().flatten() {
            let id = u32::try_from(stream["id"].as_u64().expect("an id")).expect("an id");
            let digits = stream["data"].as_str().expect("hexadecimal");
            let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
            let data: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
            let is_spdy = !matches!(protocol, Protocol::WebSocketExec(_));
            bytes[usize::from(is_spdy)] += data.len();
            // Over WebSocket the channels are there whether or not something comes on them.
            let name = named_by_go(stream, *protocol);
            let known = reported.get(&id).into_iter().flatten();
            let mut known = known.filter(|known| known.name == name);
            // The tap reports the bytes of a message as they come, and wsstream delivers whole messages.
            let is_in = |known: &[u8]| if is_spdy { is_part(&data, known) } else { known.starts_with(&data) };
            let is_known = known.any(|known| is_in(&known.data)) || (!is_spdy && data.is_empty());
            assert!(
                is_known,
                "KUBESTREAM_SEED={seed} {protocol:?}\n  {passed:02x?}\n  Go: {stream}\n  the tap: {reported:?}"
            );
        }
    }
    println!("{bytes:?} bytes delivered over WebSocket and SPDY, {faults} inputs with a fault");
    assert!(bytes[0] > count && bytes[1] > count && faults > count / 10 && faults < count, "{bytes:?} {faults}");
}
