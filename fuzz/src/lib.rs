//! What must hold for any bytes: the bodies of the fuzz targets, as plain functions that panic where it does not.
//!
//! Owns the properties. How inputs are made is libFuzzer's business, or `tests/replay.rs`'s.

mod channel;
mod connection;
mod handshake;
mod io;
mod pair;
mod pairing;
mod ports;
mod rfc6455;
mod session;
mod status;
mod tap;
mod translate;
mod websocket;

use bytes::{Bytes, BytesMut};
pub use channel::{base64, channel};
pub use connection::connection;
use flate2::{Compress, Compression, FlushCompress};
pub use handshake::websocket_handshake;
use kubestream::spdy::{Codec, CodecError, Frame, HeaderError, Headers, Limits, StreamId};
use kubestream::upgrade::head::{HeadReader, parse_request_head, parse_response_head};
pub use pair::pair;
pub use pairing::pairing;
pub use ports::port_channels;
pub use session::websocket_session;
pub use status::status;
pub use tap::tap;
use tokio_util::codec::{Decoder, Encoder};
pub use translate::translate;
pub use websocket::websocket_frame;

/// Runs a target over the files named on the command line: a crash can be looked at without libFuzzer.
///
/// # Errors
/// A file that cannot be read.
pub fn run_files(target: fn(&[u8])) -> std::io::Result<()> {
    std::env::args_os().skip(1).try_for_each(|path| std::fs::read(path).map(|input| target(&input)))
}

/// Any bytes are frames or an error, the same at any split; frames written anew are read as the same ones; what comes
/// out is bounded by what went in and by the limits.
pub fn frame(input: &[u8]) {
    let limits = Limits::default();
    let (frames, end) = decode(input, input.len().max(1), limits.clone());
    let step = 1 + input.len() % 13;
    assert_eq!((&frames, &end), (&decode(input, step, limits.clone()).0, &decode(input, step, limits.clone()).1));

    let carried: usize =
        frames.iter().map(|frame| if let Frame::Data { data, .. } = frame { data.len() } else { 0 }).sum();
    assert!(carried <= input.len());
    for frame in &frames {
        if let Some(headers) = headers_of(frame) {
            check_headers(headers, &limits);
        }
    }
    let (mut writer, mut wire) = (Codec::new(limits), BytesMut::new());
    for frame in frames.clone() {
        writer.encode(frame, &mut wire).unwrap();
    }
    assert_eq!(decode(&wire, wire.len().max(1), no_limits()), (frames, None));
}

/// Blocks behind a good one, so that the mutations are of what lies behind the first bytes: of the compressed stream
/// and of the plain pairs. The input is a list of pieces: a length in units of 8, with its highest bit for "compressed
/// already", then bytes.
pub fn header_block(input: &[u8]) {
    let limits = Limits::default();
    let (mut codec, mut reader, mut wire) = (Codec::new(limits.clone()), Codec::new(limits.clone()), BytesMut::new());
    let id = StreamId::new(1);
    let headers = Headers::from_iter([("streamtype", "error"), ("port", "8080"), ("requestid", "0")]);
    let first = Frame::SynReply { id, fin: false, headers };
    codec.encode(first.clone(), &mut wire).unwrap();
    assert!(matches!(reader.decode(&mut wire), Ok(Some(read)) if read == first));

    let mut rest = input;
    while let Some((&length, behind)) = rest.split_first() {
        let (piece, behind) = behind.split_at(behind.len().min(usize::from(length & 0x7f) * 8));
        rest = behind;
        let mut block = Vec::with_capacity(piece.len() + 4096);
        if length & 0x80 == 0 {
            // A raw deflater goes on with any zlib stream that ended with a sync flush.
            let mut deflater = Compress::new_with_window_bits(Compression::fast(), false, 11);
            deflater.compress_vec(piece, &mut block, FlushCompress::Sync).unwrap();
        } else {
            block.extend_from_slice(piece);
            block.extend_from_slice(&[0, 0, 0xff, 0xff]);
        }
        let length = u32::try_from(block.len() + 4).unwrap();
        wire.clear();
        wire.extend_from_slice(&[0x80, 3, 0, 8]);
        wire.extend_from_slice(&length.to_be_bytes());
        wire.extend_from_slice(&id.get().to_be_bytes());
        wire.extend_from_slice(&block);
        match reader.decode(&mut wire) {
            Ok(Some(Frame::Headers { headers, .. })) => check_headers(&headers, &limits),
            Err(CodecError::Header(error)) => {
                assert!(error != HeaderError::NotFlushed, "it ends with a sync flush");
                return;
            }
            other => panic!("{other:?}"),
        }
        assert!(wire.is_empty());
    }
}

/// Any bytes are a head or an error, the same at any split, within the limits, and with no line's end in what is
/// parsed.
pub fn upgrade_head(input: &[u8]) {
    const MAX_HEAD: usize = 1024;
    const MAX_HEADERS: usize = 16;
    let heads = |step: usize| {
        let mut reader = HeadReader::new(MAX_HEAD);
        let mut heads = Vec::new();
        for piece in input.chunks(step) {
            reader.buffer().extend_from_slice(piece);
            loop {
                match reader.take_head() {
                    Ok(Some(head)) => heads.push(head),
                    Ok(None) => break,
                    Err(error) => return (heads, Err(error.to_string())),
                }
            }
        }
        (heads, Ok(reader.into_rest()))
    };
    let (whole, end) = heads(input.len().max(1));
    assert_eq!((&whole, &end), (&heads(1 + input.len() % 13).0, &heads(1 + input.len() % 13).1));
    assert!(whole.iter().map(Bytes::len).sum::<usize>() <= MAX_HEAD);
    if let Ok(rest) = &end {
        let taken = whole.iter().map(Bytes::len).sum::<usize>();
        assert_eq!(&input[taken..], rest, "no byte is lost between the head and what follows");
    }

    let clean = |bytes: &[u8]| !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    for head in whole.iter().map(|head| &head[..]).chain([input]) {
        if let Ok(request) = parse_request_head(head, MAX_HEADERS) {
            assert!(request.headers().len() <= MAX_HEADERS);
            assert!(request.uri().path().starts_with('/') && clean(request.uri().to_string().as_bytes()));
            assert!(request.headers().values().all(|value| clean(value.as_bytes())));
        }
        if let Ok(response) = parse_response_head(head, MAX_HEADERS) {
            assert!(response.headers().len() <= MAX_HEADERS);
            assert!(response.headers().values().all(|value| clean(value.as_bytes())));
        }
    }
}

fn decode(input: &[u8], step: usize, limits: Limits) -> (Vec<Frame>, Option<String>) {
    let (mut codec, mut buffer, mut frames) = (Codec::new(limits), BytesMut::new(), Vec::new());
    for piece in input.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => push(&mut frames, frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    let end = codec.decode_eof(&mut buffer).err().map(|error| error.to_string());
    // A DATA frame that was cut came in part, which as a frame of its own is whole.
    (frames, end)
}

/// Joins DATA with the DATA of the same stream before it: where a frame is cut is up to the splits.
fn push(frames: &mut Vec<Frame>, frame: Frame) {
    match (frames.last_mut(), &frame) {
        (Some(Frame::Data { id, fin, data }), Frame::Data { id: next, fin: last, data: more })
            if id == next && !*fin && data.len() + more.len() < 1 << 24 =>
        {
            *data = [&data[..], &more[..]].concat().into();
            *fin = *last;
        }
        _ => frames.push(frame),
    }
}

fn headers_of(frame: &Frame) -> Option<&Headers> {
    match frame {
        Frame::SynStream { headers, .. } | Frame::SynReply { headers, .. } | Frame::Headers { headers, .. } => {
            Some(headers)
        }
        _ => None,
    }
}

/// What was read from one block is within the limits, and so was all that it inflated to.
fn check_headers(headers: &Headers, limits: &Limits) {
    assert!(headers.len() <= limits.max_header_pairs);
    let plain: usize = headers.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
    assert!(plain <= limits.max_header_block);
    for (name, _) in headers.iter() {
        assert!(name.len() <= limits.max_header_name && !name.iter().any(u8::is_ascii_uppercase));
    }
}

/// For what was read once within the limits: merged values and another compression may pass them.
fn no_limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_control_frame = 1 << 24;
    limits.max_header_block = 1 << 24;
    limits.max_header_value = 1 << 24;
    limits
}
