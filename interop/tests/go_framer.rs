//! moby/spdystream's framer reads what this library encodes. Its peer `frames` describes each frame.

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::BytesMut;
use kubestream::mux::{RstStatus, SpdyConfig};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use kubestream_interop::binary;
use kubestream_interop::framers::{described, sorted};
use kubestream_interop::matrix::{self, Foreign, Over, Proof, reader_of, writer_of};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use serde_json::Value;
use support::any_frame;
use tokio_util::codec::{Decoder, Encoder};

fn proves(cases: &str) -> Proof {
    matrix::proves(cases).with(Foreign::Spdystream, reader_of("what we encode"), [Over::RawSpdy])
}

/// What the framer reads: one value for each frame, without the length, which depends on compression.
fn read_by_go(wire: &[u8]) -> Vec<Value> {
    let mut command = Command::new(binary("frames"));
    let mut framer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the framer");
    let mut stdin = framer.stdin.take().expect("stdin is a pipe");
    let output = std::thread::scope(|scope| {
        // The framer answers while it reads. If it gives up early, its exit status says so.
        scope.spawn(move || {
            let _ = stdin.write_all(wire);
        });
        framer.wait_with_output().expect("the framer's output")
    });
    let stdout = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{}", stdout.lines().last().unwrap_or_default());
    let parse = |line| {
        let mut frame: Value = serde_json::from_str(line).expect("JSON");
        frame.as_object_mut().expect("an object").remove("length");
        frame
    };
    stdout.lines().map(parse).collect()
}

fn encode(frames: &[Frame], compress: bool) -> BytesMut {
    let mut config = SpdyConfig::default();
    config.compress_headers = compress;
    let mut codec = Codec::new(config);
    let mut wire = BytesMut::new();
    for frame in frames {
        codec.encode(frame.clone(), &mut wire).expect("a frame that fits");
    }
    wire
}

/// What the framer should report of a frame.
fn expected(frame: &Frame) -> Value {
    sorted(described(frame))
}

/// Frames that Go's framer accepts. It refuses stream 0 except for windows, a PING or RST_STREAM of 0, and HTTP's
/// connection headers.
#[derive(Clone, Debug)]
struct Frames(Vec<Frame>);

impl Arbitrary for Frames {
    fn arbitrary(g: &mut Gen) -> Self {
        let count = usize::arbitrary(g) % 40;
        Self((0..count).map(|_| accepted(any_frame(g, name))).collect())
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let all = self.0.clone();
        let without = move |at| [&all[..at], &all[at + 1..]].concat();
        Box::new((0..self.0.len()).map(move |at| Self(without(at))))
    }
}

fn accepted(frame: Frame) -> Frame {
    let stream = |id: StreamId| StreamId::new(id.get().max(1));
    match frame {
        Frame::SynStream { id, associated, priority, slot, fin, unidirectional, headers } => {
            Frame::SynStream { id: stream(id), associated, priority, slot, fin, unidirectional, headers }
        }
        Frame::SynReply { id, fin, headers } => Frame::SynReply { id: stream(id), fin, headers },
        Frame::Headers { id, fin, headers } => Frame::Headers { id: stream(id), fin, headers },
        Frame::RstStream { id, status } => {
            Frame::RstStream { id: stream(id), status: RstStatus::new(status.get().max(1)) }
        }
        Frame::Ping(id) => Frame::Ping(id.max(1)),
        Frame::Data { id, fin, data } => Frame::Data { id: stream(id), fin, data },
        other => other,
    }
}

/// Words of the dictionary and of HTTP, and any other name that Go accepts.
fn name(g: &mut Gen) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-_.:!#$%&'*+^`|~";
    let length = 1 + usize::arbitrary(g) % 20;
    let name: String = (0..length).map(|_| char::from(*g.choose(LETTERS).expect("letters"))).collect();
    let is_refused = ["host", "connection", "keep-alive"].contains(&&*name);
    if bool::arbitrary(g) && !is_refused {
        name
    } else {
        (*g.choose(&["streamtype", "port", "x-a"]).expect("names")).to_owned()
    }
}

/// A frame of each type, as moby/spdystream writes them. One compressor made all of them.
fn recorded() -> (Vec<Frame>, Vec<u8>) {
    let mut wire = Vec::new();
    for line in include_str!("../../tests/data/spdystream_frames.tsv").lines() {
        let (_, bytes) = line.split_once('\t').expect("a name and a frame");
        let byte = |at| u8::from_str_radix(&bytes[at..at + 2], 16).expect("hex");
        wire.extend((0..bytes.len()).step_by(2).map(byte));
    }
    let (mut codec, mut left) = (Codec::new(SpdyConfig::default()), BytesMut::from(&wire[..]));
    let mut frames = Vec::new();
    while let Some(frame) = codec.decode_eof(&mut left).expect("frames") {
        frames.push(frame);
    }
    (frames, wire)
}

#[test]
fn gos_own_frames_mean_to_us_what_they_mean_to_it() {
    let _proof =
        matrix::proves("every type of frame").with(Foreign::Spdystream, writer_of("what we read"), [Over::RawSpdy]);
    let (frames, wire) = recorded();
    assert_eq!(frames.len(), 16);
    assert_eq!(frames.iter().map(expected).collect::<Vec<_>>(), read_by_go(&wire));
}

#[test]
fn gos_own_frames_encoded_again_are_read_by_go() {
    let _proof = proves("every type of frame, compressed and not");
    let (frames, wire) = recorded();
    for compress in [true, false] {
        assert_eq!(read_by_go(&encode(&frames, compress)), read_by_go(&wire), "compressed: {compress}");
    }
}

#[test]
fn any_frames_that_we_encode_are_read_by_go() {
    let _proof = proves("200 times random frames");
    fn property(frames: Frames, stored: bool) {
        let compress = !stored;
        let expected: Vec<_> = frames.0.iter().map(expected).collect();
        assert_eq!(read_by_go(&encode(&frames.0, compress)), expected);
    }
    QuickCheck::new().tests(200).quickcheck(property as fn(Frames, bool));
}
