//! The same bytes read by this library, by moby/spdystream's framer and by netty's, and compared frame by frame up to
//! the first error of any of them. Each permitted difference is an [`Excuse`], which is checked against the input. Any
//! other difference fails and prints the input.
//!
//! `KUBESTREAM_INPUTS=1000000` runs longer, on other inputs each time. It prints its seed, and `KUBESTREAM_SEED`
//! repeats a run.

use std::collections::BTreeMap;
use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::{Decompress, FlushDecompress, Status};
use kubestream::mux::SpdyConfig;
use kubestream::unstable::wire::spdy::Frame;
use kubestream::unstable::wire::spdy::{CodecError, HeaderError};
use kubestream_interop::framers::{self, Framer, Head, Reading, described, hex, sorted};
use kubestream_interop::inputs::{DICTIONARY, Inputs};
use kubestream_interop::matrix::{self, Foreign, Over, model_of};
use serde_json::{Map, Value, json};

/// The number of inputs without `KUBESTREAM_INPUTS`, and their seed.
const INPUTS: usize = 30_000;
const SEED: u64 = 0x5bd1_e995_9e37_79b9;
const AT_ONCE: usize = 500;
/// How many failures are printed at most.
const ENOUGH: usize = 3;

macro_rules! excuses {
    ($($(#[$why:meta])* $name:ident,)*) => {
        /// A permitted difference. The sections are those of the draft of SPDY/3.1.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        enum Excuse {
            $($(#[$why])* $name,)*
        }

        impl Excuse {
            const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

excuses! {
    /// Go ignores the version. We and netty end the connection if it is not 3 (§2.2.1).
    GoReadsAnyVersion,
    /// Go ends the connection at an unknown type, which the draft says to ignore (§2.2.1).
    GoKnowsAllTypes,
    /// netty uses 0 as DATA's type, and so refuses a control frame of type 0, which should be ignored too.
    NettyHasDataAsType0,
    /// Go and netty reject an id, a status or a delta of 0 while they read it. Here the connection does, because it
    /// knows the stream.
    ZeroIsTheConnections,
    /// Go allows no flag on PING, GOAWAY and WINDOW_UPDATE, and netty none on RST_STREAM. We ignore undefined flags.
    UndefinedFlag,
    /// Go refuses a name with upper-case letters, which is wrong (§2.6.10). We fold ASCII and accept it.
    GoRefusesUpperCase,
    /// Go compares names with their canonical form. It refuses a repeated name that is the same in both forms, and
    /// merges all others, as we do with every repeated name.
    GoRefusesSomeRepeatedNames,
    /// netty refuses repeated names (§2.6.10). We merge them, as Go does.
    NettyRefusesRepeatedNames,
    /// Go refuses HTTP's connection headers (§3.2.1). We do not send them, and leave those that we receive to the
    /// caller.
    GoRefusesConnectionHeaders,
    /// netty refuses an empty name, and an empty value among several (§2.6.10). Here the connection does, by
    /// `Headers::defect`.
    DefectIsTheConnections,
    /// netty resets only the stream if its pairs cannot be read. We end the connection, because the next block cannot
    /// be trusted either.
    NettyForgivesBrokenPairs,
    /// Go reads only the pairs of a block. It finds an error after them in the next block, or never.
    GoReadsOnlyThePairs,
    /// netty accepts a block without the SYNC_FLUSH of §2.6.10.1.
    NettyNeedsNoFlush,
    /// netty masks the count of SETTINGS to 31 bits, and so accepts one that is 2^31 too large.
    NettyMasksTheCount,
    /// A limit of ours that differs from Go's.
    OurLimit,
}

type Checked = Result<Vec<Excuse>, String>;

/// What our codec reads in an input, in the words of the other framers.
struct Ours<'a> {
    input: &'a [u8],
    frames: Vec<Value>,
    error: Option<CodecError>,
    starts: Vec<usize>,
    /// Whether the connection would refuse the headers of each frame.
    defects: Vec<bool>,
}

impl<'a> Ours<'a> {
    fn new(input: &'a [u8], limits: SpdyConfig) -> Self {
        let framers::Ours { frames, error, starts } = framers::Ours::read(input, limits);
        assert_eq!(starts.len(), frames.len() + 1);
        let defect = |frame: &Frame| match frame {
            Frame::SynStream { headers, .. } | Frame::SynReply { headers, .. } | Frame::Headers { headers, .. } => {
                headers.defect().is_some()
            }
            _ => false,
        };
        let defects = frames.iter().map(defect).collect();
        Self { input, frames: frames.iter().map(described).collect(), error, starts, defects }
    }

    fn head(&self, frame: usize) -> Option<Head> {
        Head::at(self.input, self.starts[frame])
    }

    fn flags(&self, frame: usize) -> u8 {
        self.head(frame).map_or(0, |head| head.flags)
    }

    /// The bytes after the head of a frame, as far as the input has them.
    fn body(&self, frame: usize) -> &[u8] {
        let start = self.starts[frame].saturating_add(Head::SIZE);
        let end = start.saturating_add(self.head(frame).map_or(0, |head| head.length)).min(self.input.len());
        self.input.get(start..end).unwrap_or_default()
    }

    /// The compressed part of a frame.
    fn block(&self, frame: usize) -> &[u8] {
        let fixed = match self.head(frame).map_or(0, |head| head.kind) {
            1 => 10,
            2 | 8 => 4,
            _ => usize::MAX,
        };
        self.body(frame).get(fixed..).unwrap_or_default()
    }

    /// True if the input cuts the frame in which we found an error or for which we wait.
    fn ends_cut(&self) -> bool {
        let last = self.frames.len();
        self.head(last).is_none_or(|head| self.body(last).len() < head.length)
    }

    /// True if that frame's block ends with a flush.
    fn ends_flushed(&self) -> bool {
        self.block(self.frames.len()).ends_with(&[0, 0, 0xff, 0xff])
    }

    /// What a frame's block inflates to after the earlier ones, and whether the zlib stream ends there.
    fn inflated(&self, frame: usize) -> (Vec<u8>, bool) {
        let (mut zlib, mut plain) = (Decompress::new(true), Vec::new());
        for at in 0..=frame {
            let (mut rest, mut chunk) = (self.block(at), [0; 4096]);
            plain.clear();
            loop {
                let before = (zlib.total_in(), zlib.total_out());
                let outcome = zlib.decompress(rest, &mut chunk, FlushDecompress::Sync);
                let (taken, made) = (zlib.total_in() - before.0, zlib.total_out() - before.1);
                rest = &rest[usize::try_from(taken).expect("of what is there")..];
                plain.extend_from_slice(&chunk[..usize::try_from(made).expect("into what is there")]);
                match outcome {
                    Ok(Status::StreamEnd) => return (plain, true),
                    Ok(_) if (taken, made) != (0, 0) => {}
                    Err(error) if error.needs_dictionary().is_some() && zlib.set_dictionary(DICTIONARY).is_ok() => {}
                    _ => break,
                }
            }
        }
        (plain, false)
    }

    /// True if a frame's block has more pairs than headers, because names are repeated.
    fn is_merged(&self, frame: usize) -> bool {
        let count = self.inflated(frame).0.first_chunk().map_or(0, |count| u32::from_be_bytes(*count));
        count as usize > pairs(&self.frames[frame]).len()
    }

    /// True if a control frame of type 0 was skipped before a frame.
    fn skips_type_0(&self, frame: usize) -> bool {
        let mut at = frame.checked_sub(1).map_or(0, |before| self.starts[before]);
        let mut heads = std::iter::from_fn(|| {
            let head = Head::at(self.input, at).filter(|_| at < self.starts[frame])?;
            at = at.saturating_add(Head::SIZE).saturating_add(head.length);
            Some(head)
        });
        heads.any(|head| head.is_unknown() && head.kind == 0)
    }
}

/// Limits that are not below those of the other framers.
fn limits() -> SpdyConfig {
    let mut limits = SpdyConfig::default();
    limits.max_control_frame = 0xff_ffff;
    limits.max_header_pairs = 1000;
    limits.max_header_name = 1 << 20;
    limits.max_header_value = 1 << 20;
    limits.max_header_block = 1 << 26;
    limits.max_settings = 1 << 21;
    limits
}

/// Our default limits may only end a reading early.
fn check_limits(ours: &Ours<'_>) -> Checked {
    let limited = Ours::new(ours.input, SpdyConfig::default());
    if !ours.frames.starts_with(&limited.frames) {
        return Err(format!("other frames: {:?}", limited.frames));
    }
    match &limited.error {
        Some(
            CodecError::FrameTooLarge { .. }
            | CodecError::TooManySettings { .. }
            | CodecError::Header(
                HeaderError::TooLong { .. } | HeaderError::StringTooLong { .. } | HeaderError::TooManyPairs { .. },
            ),
        ) => Ok(vec![Excuse::OurLimit]),
        error if limited.frames == ours.frames && format!("{error:?}") == format!("{:?}", ours.error) => Ok(vec![]),
        error => Err(format!("another end: {error:?}")),
    }
}

fn check_go(ours: &Ours<'_>, go: &Reading, netty: &Reading) -> Checked {
    for (at, theirs) in go.frames.iter().enumerate() {
        let Some(frame) = ours.frames.get(at) else {
            return go_reads_on(ours, theirs, netty).map(|excuse| vec![excuse]).ok_or_else(|| "it reads on".to_owned());
        };
        if sorted(frame.clone()) != without_what_is_reserved(theirs) {
            return Err(format!("another frame {at}"));
        }
    }
    let read = go.frames.len();
    let next = ours.frames.get(read);
    let Some(error) = &go.error else {
        return if next.is_none() && ours.error.is_none() { Ok(vec![]) } else { Err("it has no error".to_owned()) };
    };
    let start = error["offset"].as_u64().and_then(|at| usize::try_from(at).ok()).expect("an offset");
    if Head::at(ours.input, start).is_some_and(|head| head.is_unknown() && error["cut"] == false) {
        return Ok(vec![Excuse::GoKnowsAllTypes]);
    }
    match next {
        // We have judged the head of a cut frame, while Go waits for the rest.
        None if error["cut"] == true => match ours.error {
            None if ours.ends_cut() => Ok(vec![]),
            Some(CodecError::Version(_) | CodecError::FrameSize { .. }) => Ok(vec![]),
            _ => Err("it waits for more".to_owned()),
        },
        None if ours.error.is_some() && ours.starts[read] != start => Err(format!("its error is at {start}")),
        None if ours.error.is_some() || ours.ends_cut() => Ok(vec![]),
        None => Err("it refuses what we have read to the end".to_owned()),
        Some(frame) => {
            let excuse = why_go_refuses(ours, frame, read, error, netty).filter(|_| ours.starts[read] == start);
            excuse.map(|excuse| vec![excuse]).ok_or_else(|| format!("it refuses frame {read}"))
        }
    }
}

/// Go reads a frame in which we found an error.
fn go_reads_on(ours: &Ours<'_>, theirs: &Value, netty: &Reading) -> Option<Excuse> {
    let netty_reads_it = netty.frames.get(ours.frames.len()).is_some_and(|frame| frame["invalid"] != true);
    let excused = match ours.error.as_ref()? {
        CodecError::Version(version) => {
            return (theirs["version"] == *version && *version != 3).then_some(Excuse::GoReadsAnyVersion);
        }
        CodecError::Header(HeaderError::NotFlushed) => !ours.ends_flushed(),
        CodecError::Header(HeaderError::StreamEnd) => ours.inflated(ours.frames.len()).1,
        CodecError::Header(HeaderError::TrailingBytes | HeaderError::Inflate) => !netty_reads_it,
        _ => false,
    };
    (excused && theirs["headers"].is_array()).then_some(Excuse::GoReadsOnlyThePairs)
}

fn why_go_refuses(
    ours: &Ours<'_>,
    frame: &Value,
    at: usize,
    error: &Map<String, Value>,
    netty: &Reading,
) -> Option<Excuse> {
    const CONNECTION_HEADERS: [&str; 5] = ["connection", "host", "keep-alive", "proxy-connection", "transfer-encoding"];
    // netty keeps names as they came, if it has read that far.
    let names_as_they_came = netty.frames.get(at).filter(|frame| frame["invalid"] != true);
    let changes = |name: String| name.contains('\u{fffd}') || name.to_lowercase() != name;
    let (excuse, holds) = match (error["error"].as_str()?, frame["type"].as_str()?) {
        ("stream id zero is disallowed", _) => (Excuse::ZeroIsTheConnections, frame["id"] == 0),
        ("invalid control frame", "RST_STREAM") => (Excuse::ZeroIsTheConnections, frame["status"] == 0),
        ("invalid control frame", "PING" | "GOAWAY" | "WINDOW_UPDATE") => (Excuse::UndefinedFlag, ours.flags(at) != 0),
        ("header was not lowercased", _) => {
            (Excuse::GoRefusesUpperCase, names_as_they_came.is_none_or(|frame| names(frame).any(changes)))
        }
        ("multiple headers with same name", _) => (Excuse::GoRefusesSomeRepeatedNames, ours.is_merged(at)),
        ("frame contained invalid header", _) => {
            (Excuse::GoRefusesConnectionHeaders, names(frame).any(|name| CONNECTION_HEADERS.contains(&&*name)))
        }
        _ => return None,
    };
    holds.then_some(excuse)
}

fn check_netty(ours: &Ours<'_>, netty: &Reading) -> Checked {
    let mut excuses = Vec::new();
    for (at, theirs) in netty.frames.iter().enumerate() {
        let Some(frame) = ours.frames.get(at) else {
            excuses.push(netty_reads_on(ours, theirs).ok_or("it reads on")?);
            return Ok(excuses);
        };
        let (mut frame, mut theirs) = (as_netty_has_it(frame), with_names_folded(theirs));
        if theirs["invalid"] == true {
            // netty reads on after a stream's error, and so do we.
            let excuse = why_netty_refuses_headers(ours, &frame, at);
            excuses.push(excuse.ok_or_else(|| format!("it refuses the headers of frame {at}"))?);
            theirs.as_object_mut().expect("an object").remove("invalid");
            (frame["headers"], theirs["headers"]) = (Value::Null, Value::Null);
        } else if ours.defects[at] {
            return Err(format!("it takes the headers of frame {at}"));
        }
        if frame != theirs {
            return Err(format!("another frame {at}"));
        }
    }
    let read = netty.frames.len();
    let next = ours.frames.get(read);
    let Some(error) = &netty.error else {
        return if next.is_none() && ours.error.is_none() { Ok(excuses) } else { Err("it has no error".to_owned()) };
    };
    let why = error["error"].as_str().unwrap_or_default();
    if why == "Invalid Frame Error" && ours.skips_type_0(read) {
        excuses.push(Excuse::NettyHasDataAsType0);
    } else if let Some(frame) = next {
        excuses.push(why_netty_refuses(ours, frame, read, why).ok_or_else(|| format!("it refuses frame {read}"))?);
    } else if ours.error.is_none() && !ours.ends_cut() {
        return Err("it refuses what we have read to the end".to_owned());
    }
    Ok(excuses)
}

/// netty reads a frame in which we found an error.
fn netty_reads_on(ours: &Ours<'_>, theirs: &Value) -> Option<Excuse> {
    let (excuse, holds) = match ours.error.as_ref()? {
        CodecError::TooManySettings { .. } | CodecError::FrameSize { kind: 4, .. } => {
            let masked = ours.body(ours.frames.len()).first().is_some_and(|high| high & 0x80 != 0);
            (Excuse::NettyMasksTheCount, masked && theirs["settings"].is_array())
        }
        CodecError::Header(HeaderError::NotFlushed) => (Excuse::NettyNeedsNoFlush, !ours.ends_flushed()),
        CodecError::Header(
            HeaderError::Truncated
            | HeaderError::TrailingBytes
            | HeaderError::TooManyPairs { .. }
            | HeaderError::StringTooLong { .. },
        ) => (Excuse::NettyForgivesBrokenPairs, theirs["invalid"] == true),
        _ => return None,
    };
    holds.then_some(excuse)
}

/// Why netty refuses headers that we have read.
fn why_netty_refuses_headers(ours: &Ours<'_>, frame: &Value, at: usize) -> Option<Excuse> {
    if ours.defects[at] {
        return Some(Excuse::DefectIsTheConnections);
    }
    // netty may take two different names that are not UTF-8 for the same.
    let same = names(frame).filter(|name| name.contains('\u{fffd}')).count() > 1;
    (same || ours.is_merged(at)).then_some(Excuse::NettyRefusesRepeatedNames)
}

fn why_netty_refuses(ours: &Ours<'_>, frame: &Value, at: usize, why: &str) -> Option<Excuse> {
    let (excuse, holds) = match (why, frame["type"].as_str()?) {
        ("Invalid Frame Error", "RST_STREAM") => (Excuse::UndefinedFlag, ours.flags(at) != 0),
        ("Invalid Frame Error", "DATA")
        | ("Invalid SYN_STREAM Frame", "SYN_STREAM")
        | ("Invalid SYN_REPLY Frame", "SYN_REPLY")
        | ("Invalid HEADERS Frame", "HEADERS") => (Excuse::ZeroIsTheConnections, frame["id"] == 0),
        ("Invalid RST_STREAM Frame", "RST_STREAM") => {
            (Excuse::ZeroIsTheConnections, frame["id"] == 0 || frame["status"] == 0)
        }
        ("Invalid WINDOW_UPDATE Frame", "WINDOW_UPDATE") => (Excuse::ZeroIsTheConnections, frame["delta"] == 0),
        _ => return None,
    };
    holds.then_some(excuse)
}

fn pairs(frame: &Value) -> &[Value] {
    frame["headers"].as_array().map_or(&[], Vec::as_slice)
}

fn names(frame: &Value) -> impl Iterator<Item = String> {
    pairs(frame).iter().map(|pair| text(&pair[0]))
}

/// Text, with a single U+FFFD for any bytes that are not UTF-8, because decoders differ in how many they use.
fn text(part: &Value) -> String {
    let lossy = |hex: &str| {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let text = part.as_str().map_or_else(|| lossy(part["hex"].as_str().expect("text, or hex")), str::to_owned);
    let mut last = ' ';
    text.chars().filter(|&one| (std::mem::replace(&mut last, one), one) != ('\u{fffd}', '\u{fffd}')).collect()
}

/// Go passes on reserved bits and undefined flags, which are removed here.
fn without_what_is_reserved(theirs: &Value) -> Value {
    let mut frame = theirs.clone();
    let (names, defined): (&[_], _) = match frame["type"].as_str().expect("a type") {
        "SYN_STREAM" => (&["id", "associated"], 3),
        "SYN_REPLY" | "HEADERS" => (&["id"], 1),
        "SETTINGS" | "DATA" => (&[], 1),
        "PING" => (&[], 0),
        _ => (&["id", "last", "delta"], 0),
    };
    for name in names {
        if let Some(number) = frame.get_mut(name) {
            *number = json!(number.as_u64().expect("a number") & 0x7fff_ffff);
        }
    }
    frame["flags"] = json!(frame["flags"].as_u64().expect("flags") & defined);
    frame.as_object_mut().expect("an object").remove("length");
    frame
}

/// Removes what netty does not pass on: the slot, undefined flags of settings, and values that are not text.
fn as_netty_has_it(frame: &Value) -> Value {
    let mut frame = in_text(frame);
    for name in ["slot", "version"] {
        frame.as_object_mut().expect("an object").remove(name);
    }
    for entry in frame.get_mut("settings").and_then(Value::as_array_mut).into_iter().flatten() {
        entry["flags"] = json!(entry["flags"].as_u64().expect("flags") & 3);
    }
    frame
}

fn with_names_folded(theirs: &Value) -> Value {
    let mut frame = in_text(theirs);
    for pair in frame.get_mut("headers").and_then(Value::as_array_mut).into_iter().flatten() {
        pair[0] = json!(pair[0].as_str().expect("a name").to_ascii_lowercase());
    }
    frame
}

fn in_text(frame: &Value) -> Value {
    let mut frame = frame.clone();
    for pair in frame.get_mut("headers").and_then(Value::as_array_mut).into_iter().flatten() {
        *pair = json!([text(&pair[0]), text(&pair[1])]);
    }
    frame
}

#[test]
fn any_bytes_are_the_same_frames_to_us_to_go_and_to_netty() {
    let cases = format!(
        "30,000 inputs, recorded, changed and made up: the same frames up to the first error, but for {} differences with a name",
        Excuse::ALL.len()
    );
    let model = || model_of("`spdy::Codec`");
    let proof = matrix::proves(&cases).with(Foreign::Spdystream, model(), [Over::RawSpdy]);
    let _proof = proof.with(Foreign::Netty, model(), [Over::RawSpdy]);
    let number = |name| env::var(name).ok().map(|number| number.parse::<u64>().unwrap_or_else(|_| panic!("{name}")));
    let longer = number("KUBESTREAM_INPUTS").and_then(|count| usize::try_from(count).ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let seed = number("KUBESTREAM_SEED").unwrap_or_else(|| longer.map_or(SEED, |_| now()));
    let count = longer.unwrap_or(INPUTS);
    println!("KUBESTREAM_INPUTS={count} KUBESTREAM_SEED={seed}");

    let (mut by_go, mut by_netty) = (Framer::go(), Framer::netty());
    let mut all = Inputs::new(seed).take(count);
    let (mut frames, mut whole, mut excused, mut failures) = (0, 0, BTreeMap::new(), Vec::new());
    while failures.len() < ENOUGH {
        let inputs: Vec<_> = all.by_ref().take(AT_ONCE).collect();
        if inputs.is_empty() {
            break;
        }
        let (go, netty) = std::thread::scope(|scope| {
            let go = scope.spawn(|| by_go.read(&inputs));
            let netty = by_netty.read(&inputs);
            (go.join().expect("Go's readings"), netty)
        });
        for (input, (go, netty)) in inputs.iter().zip(go.iter().zip(&netty)) {
            let ours = Ours::new(input, limits());
            frames += ours.frames.len();
            let errors = [ours.error.is_some(), go.error.is_some(), netty.error.is_some()];
            whole += usize::from(!errors.contains(&true));
            let checks = [
                ("Go", check_go(&ours, go, netty)),
                ("netty", check_netty(&ours, netty)),
                ("limits", check_limits(&ours)),
            ];
            for (whose, checked) in checks {
                match checked {
                    Ok(excuses) => excuses.into_iter().for_each(|one| *excused.entry(one).or_insert(0) += 1),
                    Err(how) => failures.push(format!(
                        "{whose}: {how}\n  {}\n  ours: {}, {:?}\n  Go's: {}, {:?}\n  netty's: {}, {:?}",
                        hex(input),
                        json!(ours.frames),
                        ours.error,
                        json!(go.frames),
                        go.error,
                        json!(netty.frames),
                        netty.error
                    )),
                }
            }
        }
    }
    println!("{frames} frames, {whole} inputs without an error to any; {excused:?}");
    assert!(failures.is_empty(), "KUBESTREAM_SEED={seed}\n{}", failures.join("\n"));
    // An excuse that no input needs must be removed.
    let idle: Vec<_> = Excuse::ALL.iter().filter(|one| !excused.contains_key(one)).collect();
    assert!(count < INPUTS || idle.is_empty(), "{idle:?}");
}
