//! Random SPDY frames of every type.
//!
//! Makes the frames only. The tests say what a frame may hold for its reader.

use kubestream::mux::{GoAwayStatus, Headers, RstStatus};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Frame, Setting, SettingId, Settings};
use quickcheck::{Arbitrary, Gen};

/// A frame of any type. Its streams, statuses and values are any that the frame has room for. `name` makes the names of
/// its headers.
pub fn any_frame(g: &mut Gen, name: fn(&mut Gen) -> String) -> Frame {
    let id = StreamId::new(u32::arbitrary(g));
    let fin = bool::arbitrary(g);
    match u8::arbitrary(g) % 12 {
        0 => Frame::SynStream {
            id,
            associated: StreamId::new(u32::arbitrary(g)),
            priority: u8::arbitrary(g) % 8,
            slot: u8::arbitrary(g),
            fin,
            unidirectional: bool::arbitrary(g),
            headers: headers(g, name),
        },
        1 => Frame::SynReply { id, fin, headers: headers(g, name) },
        2 => Frame::Headers { id, fin, headers: headers(g, name) },
        3 => Frame::RstStream { id, status: RstStatus::new(u32::arbitrary(g)) },
        4 => Frame::GoAway { last_good: id, status: GoAwayStatus::new(u32::arbitrary(g)) },
        5 => Frame::WindowUpdate { id: if fin { StreamId::SESSION } else { id }, delta: u32::arbitrary(g) >> 1 },
        6 => Frame::Ping(u32::arbitrary(g)),
        7 => {
            let entries = (0..usize::arbitrary(g) % 64)
                .map(|_| Setting::new(u8::arbitrary(g), SettingId::new(u32::arbitrary(g) >> 8), u32::arbitrary(g)));
            Frame::Settings(Settings::new(fin, entries.collect()))
        }
        // Short payloads are copied out of the read buffer, and long ones are slices of it.
        8 => Frame::Data { id, fin, data: vec![u8::arbitrary(g); usize::arbitrary(g) % 70_000].into() },
        _ => Frame::Data { id, fin, data: Vec::arbitrary(g).into() },
    }
}

fn headers(g: &mut Gen, name: fn(&mut Gen) -> String) -> Headers {
    let mut headers = Headers::new();
    for _ in 0..u8::arbitrary(g) % 8 {
        headers.append(&name(g), &Vec::arbitrary(g));
    }
    headers
}
