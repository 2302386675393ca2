//! The framers of moby/spdystream and netty: each reads any bytes and describes the frames in them.
//!
//! Holds the description of a frame, which is used for our frames too, and the life of the two processes. It does not
//! know which differences are allowed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bytes::BytesMut;
use kubestream::mux::Headers;
use kubestream::mux::SpdyConfig;
use kubestream::unstable::wire::spdy::CodecError;
use kubestream::unstable::wire::spdy::{Codec, Frame, Setting};
use serde_json::{Map, Value, json};
use tokio_util::codec::Decoder;

use crate::{binary, java};

/// The longest life of a framer process, in seconds. Millions of inputs take hours.
const LIFE: &str = "14400";

/// Describes a frame as the other framers do. Headers are in the order in which they came.
#[must_use]
pub fn described(frame: &Frame) -> Value {
    const VERSION: u16 = 3;
    let fin = |fin: bool| u8::from(fin);
    match frame {
        Frame::SynStream { id, associated, priority, slot, fin: ends, unidirectional, headers } => json!({
            "type": "SYN_STREAM", "version": VERSION, "flags": fin(*ends) | fin(*unidirectional) << 1,
            "id": id.get(), "associated": associated.get(), "priority": priority, "slot": slot, "headers": pairs(headers),
        }),
        Frame::SynReply { id, fin: ends, headers } => json!({
            "type": "SYN_REPLY", "version": VERSION, "flags": fin(*ends), "id": id.get(), "headers": pairs(headers),
        }),
        Frame::Headers { id, fin: ends, headers } => json!({
            "type": "HEADERS", "version": VERSION, "flags": fin(*ends), "id": id.get(), "headers": pairs(headers),
        }),
        Frame::RstStream { id, status } => json!({
            "type": "RST_STREAM", "version": VERSION, "flags": 0, "id": id.get(), "status": status.get(),
        }),
        Frame::Settings(settings) => {
            let entry = |entry: &Setting| json!({"flags": entry.flags, "id": entry.id.get(), "value": entry.value});
            let entries: Vec<_> = settings.entries().iter().map(entry).collect();
            json!({"type": "SETTINGS", "version": VERSION, "flags": fin(settings.clear()), "settings": entries})
        }
        Frame::Ping(id) => json!({"type": "PING", "version": VERSION, "flags": 0, "id": id}),
        Frame::GoAway { last_good, status } => json!({
            "type": "GOAWAY", "version": VERSION, "flags": 0, "last": last_good.get(), "status": status.get(),
        }),
        Frame::WindowUpdate { id, delta } => json!({
            "type": "WINDOW_UPDATE", "version": VERSION, "flags": 0, "id": id.get(), "delta": delta,
        }),
        Frame::Data { id, fin: ends, data } => {
            json!({"type": "DATA", "flags": fin(*ends), "id": id.get(), "data": hex(data)})
        }
    }
}

fn pairs(headers: &Headers) -> Vec<Value> {
    let text = |bytes| std::str::from_utf8(bytes).map_or_else(|_| json!({"hex": hex(bytes)}), |text| json!(text));
    headers.iter().map(|(name, value)| json!([text(name), text(value)])).collect()
}

/// Sorts the headers by name, because Go's framer does not keep their order.
///
/// # Panics
/// Panics if this is not the description of a frame.
#[must_use]
pub fn sorted(mut frame: Value) -> Value {
    if let Some(headers) = frame.get_mut("headers") {
        let name = |pair: &Value| pair[0].as_str().unwrap_or_default().to_owned();
        headers.as_array_mut().expect("pairs").sort_by_cached_key(name);
    }
    frame
}

/// Bytes as in the description of a frame.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |four: u8| char::from(DIGITS[usize::from(four)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// What another framer reads in an input, up to its first error.
#[derive(Debug)]
pub struct Reading {
    /// The description of each frame.
    pub frames: Vec<Value>,
    /// The error after these frames, if any.
    pub error: Option<Map<String, Value>>,
}

/// What this library's codec reads in an input.
#[derive(Debug)]
pub struct Ours {
    /// A DATA frame that the input cuts is left out, as the other framers do.
    pub frames: Vec<Frame>,
    /// The error after these frames, if any.
    pub error: Option<CodecError>,
    /// The offset of each frame, and the offset after the last one.
    pub starts: Vec<usize>,
}

impl Ours {
    /// Reads an input in one piece.
    #[must_use]
    pub fn read(input: &[u8], limits: SpdyConfig) -> Self {
        let (mut codec, mut left) = (Codec::new(limits), BytesMut::from(input));
        let (mut frames, mut starts, mut at) = (Vec::new(), Vec::new(), 0);
        let error = loop {
            let decoded = codec.decode(&mut left);
            at = behind_the_skipped(input, at);
            starts.push(at);
            let length = Head::at(input, at).map(|head| head.length);
            match decoded {
                Ok(Some(Frame::Data { data, .. })) if length != Some(data.len()) => break None,
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            at = input.len() - left.len();
        };
        Self { frames, error, starts }
    }
}

fn behind_the_skipped(input: &[u8], mut at: usize) -> usize {
    while let Some(head) = Head::at(input, at).filter(|head| head.is_unknown() && head.version == Some(3)) {
        at += Head::SIZE + head.length;
    }
    at
}

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// `None` for DATA.
    pub version: Option<u16>,
    /// 0 for DATA.
    pub kind: u16,
    /// The flags as they came.
    pub flags: u8,
    /// The length field.
    pub length: usize,
}

impl Head {
    /// The length of a head.
    pub const SIZE: usize = 8;

    /// Returns the head at an offset, if the input has all of it.
    #[must_use]
    pub fn at(input: &[u8], at: usize) -> Option<Self> {
        let Some(&[a, b, c, d, flags, high, middle, low]) = input.get(at..at.saturating_add(Self::SIZE)) else {
            return None;
        };
        let control = a & 0x80 != 0;
        Some(Self {
            version: control.then_some(u16::from_be_bytes([a & 0x7f, b])),
            kind: if control { u16::from_be_bytes([c, d]) } else { 0 },
            flags,
            length: usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low),
        })
    }

    /// True for a control frame of a type that SPDY/3.1 does not have, or no longer has.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        self.version.is_some() && !matches!(self.kind, 1..=4 | 6..=9)
    }
}

/// A process that reads one input after another, each without knowledge of the others.
#[derive(Debug)]
pub struct Framer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Framer {
    /// The framer of moby/spdystream.
    #[must_use]
    pub fn go() -> Self {
        let mut command = Command::new(binary("frames"));
        command.args(["-inputs", "-watchdog", &format!("{LIFE}s")]);
        Self::start(command)
    }

    /// The framer of netty.
    #[must_use]
    pub fn netty() -> Self {
        let mut command = java("Frames");
        command.args(["--watchdog", LIFE]);
        Self::start(command.into_std())
    }

    fn start(mut command: Command) -> Self {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { child, stdin, stdout }
    }

    /// Returns what it reads in each of these inputs.
    ///
    /// # Panics
    /// Panics if it does not answer.
    pub fn read(&mut self, inputs: &[Vec<u8>]) -> Vec<Reading> {
        let (stdin, stdout) = (self.stdin.as_mut().expect("stdin is open"), &mut self.stdout);
        let written = inputs.iter().flat_map(|input| {
            let length = u32::try_from(input.len()).expect("an input of no more than 4 GiB");
            [&length.to_be_bytes()[..], input].concat()
        });
        let written: Vec<u8> = written.collect();
        std::thread::scope(|scope| {
            // It answers while it still reads, so writing needs a thread of its own.
            let writing = scope.spawn(move || stdin.write_all(&written).and_then(|()| stdin.flush()));
            let answers = inputs.iter().map(|_| {
                let mut line = String::new();
                stdout.read_line(&mut line).expect("a line of its answers");
                answer(&line)
            });
            let answers = answers.collect();
            writing.join().expect("no panic").expect("it reads its inputs");
            answers
        })
    }
}

fn answer(line: &str) -> Reading {
    let mut said: Map<String, Value> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let Some(Value::Array(frames)) = said.remove("frames") else { panic!("not a list of frames: {line}") };
    Reading { frames, error: said.contains_key("error").then_some(said) }
}

impl Drop for Framer {
    fn drop(&mut self) {
        // Closing stdin ends the process.
        drop(self.stdin.take());
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
