//! SPDY frames, made with one short call each, for peers made by hand and for connections without IO.
//!
//! Owns the frames that both need. It must not know who sends them.

use bytes::Bytes;
use kubestream::spdy::{Frame, Headers, RstStatus, StreamId};

pub fn reply(id: u32) -> Frame {
    Frame::SynReply { id: StreamId::new(id), fin: false, headers: Headers::new() }
}

pub fn data(id: u32, data: impl Into<Bytes>) -> Frame {
    Frame::Data { id: StreamId::new(id), fin: false, data: data.into() }
}

/// Go's end of a stream: no bytes, and FIN.
pub fn fin(id: u32) -> Frame {
    Frame::Data { id: StreamId::new(id), fin: true, data: Bytes::new() }
}

pub fn rst(id: u32, status: RstStatus) -> Frame {
    Frame::RstStream { id: StreamId::new(id), status }
}

pub fn window_update(id: u32, delta: u32) -> Frame {
    Frame::WindowUpdate { id: StreamId::new(id), delta }
}
