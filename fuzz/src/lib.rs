//! The bodies of the fuzz targets: plain functions that panic if something does not hold that must hold for any bytes.
//!
//! Holds the properties. libFuzzer or `tests/replay.rs` makes the inputs.

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
use kubestream::mux::Headers;
use kubestream::mux::SpdyConfig;
use kubestream::unstable::head::{HeadReader, parse_request_head, parse_response_head};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use kubestream::unstable::wire::spdy::{CodecError, HeaderError};
pub use pair::pair;
pub use pairing::pairing;
pub use ports::port_channels;
pub use session::websocket_session;
pub use status::status;
pub use tap::tap;
use tokio_util::codec::{Decoder, Encoder};
pub use translate::translate;
pub use websocket::websocket_frame;

/// Runs a target on the files named on the command line, so that a crash can be examined without libFuzzer.
///
/// # Errors
/// Fails if a file cannot be read.
pub fn run_files(target: fn(&[u8])) -> std::io::Result<()> {
    std::env::args_os().skip(1).try_for_each(|path| std::fs::read(path).map(|input| target(&input)))
}

/// Any bytes are frames or an error, and the same at any cut. Frames that are encoded again are decoded as the same
/// ones. The size of the result is bounded by that of the input and by the limits.
pub fn frame(input: &[u8]) {
    let limits = SpdyConfig::default();
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

/// Header blocks after a valid one, so that mutations reach what follows the first bytes: the compressed stream and the
/// plain pairs. The input is a list of pieces: a length in units of 8, with the highest bit set for "compressed
/// already", then bytes.
pub fn header_block(input: &[u8]) {
    let limits = SpdyConfig::default();
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
            // A raw deflater can continue any zlib stream that ended with a sync flush.
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

/// Any bytes are a head or an error, the same at any cut and within the limits. Parsed values contain no line break.
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
            assert!(request.uri().path().starts_with('/') || request.method() == "OPTIONS" && request.uri() == "*");
            assert!(clean(request.uri().to_string().as_bytes()));
            assert!(request.headers().values().all(|value| clean(value.as_bytes())));
        }
        if let Ok(response) = parse_response_head(head, MAX_HEADERS) {
            assert!(response.headers().len() <= MAX_HEADERS);
            assert!(response.headers().values().all(|value| clean(value.as_bytes())));
        }
    }
}

fn decode(input: &[u8], step: usize, limits: SpdyConfig) -> (Vec<Frame>, Option<String>) {
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
    // A DATA frame that was cut came in part, and that part is a whole frame when it is encoded.
    (frames, end)
}

/// Joins adjacent DATA of one stream, because the cuts depend on the pieces.
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

/// Checks that the headers of one block are within the limits, and so are all bytes to which it inflated.
fn check_headers(headers: &Headers, limits: &SpdyConfig) {
    assert!(headers.len() <= limits.max_header_pairs);
    let plain: usize = headers.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
    assert!(plain <= limits.max_header_block);
    for (name, _) in headers.iter() {
        assert!(name.len() <= limits.max_header_name && !name.iter().any(u8::is_ascii_uppercase));
    }
}

/// For frames that were decoded within the limits: merged values and another compression may exceed them.
fn no_limits() -> SpdyConfig {
    let mut limits = SpdyConfig::default();
    limits.max_control_frame = 1 << 24;
    limits.max_header_block = 1 << 24;
    limits.max_header_value = 1 << 24;
    limits
}
