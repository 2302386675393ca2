//! Builds SPDY frames, each with one short call, for played peers and for connections without IO.
//!
//! Holds only the frames that both need. It does not know which side sends them.

use bytes::Bytes;
use kubestream::mux::{Headers, RstStatus};
use kubestream::unstable::wire::spdy::Frame;
use kubestream::unstable::wire::spdy::StreamId;

pub fn reply(id: u32) -> Frame {
    Frame::SynReply { id: StreamId::new(id), fin: false, headers: Headers::new() }
}

pub fn data(id: u32, data: impl Into<Bytes>) -> Frame {
    Frame::Data { id: StreamId::new(id), fin: false, data: data.into() }
}

/// FIN without bytes, as Go ends a stream.
pub fn fin(id: u32) -> Frame {
    Frame::Data { id: StreamId::new(id), fin: true, data: Bytes::new() }
}

pub fn rst(id: u32, status: RstStatus) -> Frame {
    Frame::RstStream { id: StreamId::new(id), status }
}

pub fn window_update(id: u32, delta: u32) -> Frame {
    Frame::WindowUpdate { id: StreamId::new(id), delta }
}
