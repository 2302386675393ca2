//! Tests what a tap reports for any bytes of two sides: the same at any cut, and the same as what the decoders read of
//! one side alone.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kubestream::ConnectionError;
use kubestream::mux::Config;
use kubestream::protocol::Subprotocol;
use kubestream::tap::{Side, Tap, TapEvent as Event};
use kubestream::unstable::wire::channel;
use kubestream::unstable::wire::channel::ChannelError;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use kubestream::unstable::wire::websocket::{self, Piece};
use kubestream::unstable::wire::websocket::{Fault, WebSocketError};
use kubestream::upgrade::{Protocol, Version};
use tokio_util::codec::Decoder;

use crate::channel::SUBPROTOCOLS;

const PORTS: [u16; 3] = [80, 443, 7007];

/// Any bytes of two sides give events without a panic. Each side has at most one fault, and no events after it. The
/// events are the same at any cut, the data is no longer than the bytes, the data of a stream is what the decoders read
/// of it, and the number of streams is within the limits.
///
/// The first byte chooses the protocol. The second chooses the cut, and its highest bit chooses narrow limits. Then
/// come pieces: two bytes for the length, whose highest bit is the side, and the bytes.
pub fn tap(input: &[u8]) {
    let [choice, cut, rest @ ..] = input else { return };
    let protocol = protocol(*choice);
    let mut config = Config::default();
    if cut & 0x80 != 0 {
        config.spdy.max_streams = 3;
        config.spdy.max_control_frame = 300;
        config.websocket.max_message = 300;
        config.websocket.max_fragments = 3;
    }
    let mut said = Vec::new();
    let mut rest = rest;
    while let [high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([high & 0x7f, *low])).min(behind.len());
        let (piece, behind) = behind.split_at(length);
        said.push((if high & 0x80 == 0 { Side::Client } else { Side::Server }, piece));
        rest = behind;
    }
    let whole = follow(protocol, &config, &said, usize::MAX);
    let pieces = follow(protocol, &config, &said, 1 + usize::from(cut & 0x7f) % 23);
    compare(&whole, &pieces);
    for side in [Side::Client, Side::Server] {
        let bytes: Vec<u8> = said.iter().filter(|(of, _)| *of == side).flat_map(|(_, piece)| piece.to_vec()).collect();
        let carried: usize = data(&whole, side).values().map(Vec::len).sum();
        assert!(carried <= bytes.len());
        let fault = whole.iter().position(|event| matches!(event, Event::Fault { side: of, .. } if *of == side));
        let behind = fault.map_or(&[][..], |at| &whole[at + 1..]);
        assert!(behind.iter().all(|event| side_of(event) != side), "an event after a fault");
        check(protocol, &config, side, &bytes, &whole);
    }
    let opened = whole.iter().filter(|event| matches!(event, Event::Opened { .. })).count();
    assert!(protocol.version().is_none() || opened <= config.spdy.max_streams.max(5));
    assert!(whole.iter().filter(|event| matches!(event, Event::Status(_))).count() <= 1);
}

fn protocol(choice: u8) -> Protocol {
    match choice % 24 {
        at @ 0..8 => Protocol::WebSocketExec(SUBPROTOCOLS[usize::from(at)]),
        at @ 8..12 => Protocol::SpdyExec([Version::V1, Version::V2, Version::V3, Version::V4][usize::from(at - 8)]),
        12..15 => Protocol::SpdyPortForward,
        15..18 => Protocol::TunneledPortForward,
        18..20 => Protocol::LegacyPortForward(Subprotocol::V4Base64),
        20 => Protocol::LegacyPortForward(Subprotocol::Unnamed),
        _ => Protocol::LegacyPortForward(Subprotocol::V4),
    }
}

/// All events, with adjacent DATA of one stream joined. A size or a status comes with its last byte.
fn follow(protocol: Protocol, config: &Config, said: &[(Side, &[u8])], step: usize) -> Vec<Event> {
    let mut tap = Tap::new(protocol, &PORTS, config);
    let mut told: Vec<Event> = Vec::new();
    let mut take = |tap: &mut Tap| {
        while let Some(event) = tap.poll_event() {
            let read = |event: &&mut Event| matches!(event, Event::Resize(_) | Event::Status(_));
            match (told.iter_mut().rev().find(|event| !read(event)), event) {
                (Some(Event::Data { side, stream, data }), Event::Data { side: same, stream: one, data: more })
                    if *side == same && *stream == one =>
                {
                    assert!(!more.is_empty());
                    *data = [&data[..], &more[..]].concat().into();
                }
                (_, event) => told.push(event),
            }
        }
    };
    for (side, bytes) in said {
        for piece in bytes.chunks(step) {
            tap.feed(*side, Bytes::copy_from_slice(piece));
            take(&mut tap);
        }
    }
    for side in [Side::Client, Side::Server] {
        tap.end(side);
        take(&mut tap);
    }
    assert!(tap.is_blind(Side::Client) && tap.is_blind(Side::Server));
    told
}

fn side_of(event: &Event) -> Side {
    match event {
        Event::Opened { side, .. }
        | Event::Data { side, .. }
        | Event::End { side, .. }
        | Event::GoAway { side, .. }
        | Event::Close { side, .. }
        | Event::Over { side, .. }
        | Event::Fault { side, .. } => *side,
        Event::Resize(_) => Side::Client,
        Event::Status(_) => Side::Server,
        other => panic!("{other:?}"),
    }
}

/// True for events of a message that turned out to be invalid after part of it had been reported.
fn is_late(event: &Event) -> bool {
    let Event::Fault { error, .. } = event else { return false };
    matches!(
        error,
        ConnectionError::Malformed(error)
            if *error == WebSocketError::Fault(Fault::NotUtf8) || *error == ChannelError::NotBase64
    )
}

fn compare(whole: &[Event], pieces: &[Event]) {
    if !whole.iter().any(is_late) {
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "a cut matters");
        return;
    }
    for side in [Side::Client, Side::Server] {
        let of = |events: &[Event]| {
            events.iter().filter(|event| side_of(event) == side).map(|event| format!("{event:?}")).collect::<Vec<_>>()
        };
        let late = whole.iter().any(|event| is_late(event) && side_of(event) == side);
        if !late {
            // A stream that the other side's message would have begun is begun by this side's.
            let kept = |events: &[Event]| {
                of(events).into_iter().filter(|event| !event.starts_with("Opened")).collect::<Vec<_>>()
            };
            assert_eq!(kept(whole).concat(), kept(pieces).concat(), "a cut matters");
            continue;
        }
        // Another fault of such a message may be noticed before the whole message is there.
        assert!([whole, pieces].iter().all(|events| fault(events, side).is_some()), "a cut matters");
        let (whole, pieces) = (data(whole, side), data(pieces, side));
        for (stream, data) in whole {
            assert!(pieces[&stream].starts_with(&data), "a cut loses something");
        }
    }
}

/// The data of one side's streams, by id.
fn data(events: &[Event], side: Side) -> BTreeMap<u32, Vec<u8>> {
    let mut streams = BTreeMap::<u32, Vec<u8>>::new();
    for event in events {
        if let Event::Data { side: of, stream, data } = event
            && *of == side
        {
            streams.entry(stream.id).or_default().extend_from_slice(data);
        }
    }
    streams
}

fn fault(events: &[Event], side: Side) -> Option<&ConnectionError> {
    events.iter().find_map(|event| match event {
        Event::Fault { side: of, error } if *of == side => Some(error),
        _ => None,
    })
}

/// Checks a session's streams against their bytes, read without a tap.
fn check(protocol: Protocol, config: &Config, side: Side, bytes: &[u8], told: &[Event]) {
    let streams = data(told, side);
    let too_many = told.iter().any(|event| {
        matches!(event, Event::Fault { error: ConnectionError::LimitExceeded { limit: "max_streams", .. }, .. })
    });
    match protocol {
        // Another fault than the decoder's: what Go reads differently.
        Protocol::SpdyExec(_) if !too_many && !matches!(fault(told, side), Some(ConnectionError::Protocol(_))) => {
            let (mut codec, mut wire, mut read) =
                (Codec::new(config.spdy.clone()), BytesMut::from(bytes), BTreeMap::<u32, Vec<u8>>::new());
            let error = loop {
                match codec.decode(&mut wire) {
                    Ok(Some(Frame::Data { id, data, .. })) => {
                        read.entry(id.get()).or_default().extend_from_slice(&data)
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(ConnectionError::from(error).to_string()),
                }
            };
            assert_eq!(fault(told, side).map(ToString::to_string), error);
            for (id, data) in streams {
                assert!(read[&id].ends_with(&data), "{id}: the decoder reads other bytes");
            }
        }
        Protocol::WebSocketExec(subprotocol) if fault(told, side).is_none() => {
            let limits = &config.websocket;
            let mut frames = websocket::Decoder::new(side == Side::Client, limits.max_message, limits.max_fragments);
            if side == Side::Client {
                frames = frames.without_fragments();
            }
            let mut messages = match side {
                Side::Client => channel::Decoder::server(subprotocol),
                Side::Server => channel::Decoder::client(subprotocol),
            };
            let (mut wire, mut read) = (BytesMut::from(bytes), BTreeMap::<u32, Vec<u8>>::new());
            while let Some(piece) = frames.decode(&mut wire).expect("no fault") {
                let Piece::Data { first, last, payload, .. } = piece else { continue };
                let said = messages.decode(first, last, payload).expect("no fault");
                if let Some(channel::Event::Data { channel, data }) = said {
                    read.entry(channel.number().into()).or_default().extend_from_slice(&data);
                }
            }
            assert_eq!(streams, read, "another reading");
        }
        _ => {}
    }
}
