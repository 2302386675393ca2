//! SPDY/3.1 frames and header blocks, without IO.
//!
//! This module owns the bytes of a frame. It must not know what a frame does to a connection, and nothing of HTTP,
//! Kubernetes or tokio's runtime.
//!
//! ```
//! use bytes::BytesMut;
//! use kubestream::mux::SpdyConfig;
//! use kubestream::mux::Headers;
//! use kubestream::unstable::wire::spdy::StreamId;
//! use kubestream::unstable::wire::spdy::{Codec, Frame};
//! use tokio_util::codec::{Decoder, Encoder};
//!
//! let syn = Frame::SynStream {
//!     id: StreamId::new(1),
//!     associated: StreamId::SESSION,
//!     priority: 0,
//!     slot: 0,
//!     fin: false,
//!     unidirectional: false,
//!     headers: Headers::from_iter([("streamtype", "error")]),
//! };
//! let mut wire = BytesMut::new();
//! Codec::new(SpdyConfig::default()).encode(syn.clone(), &mut wire)?;
//! let read = Codec::new(SpdyConfig::default()).decode(&mut wire)?;
//! assert_eq!(read, Some(syn));
//! # Ok::<(), kubestream::unstable::wire::spdy::CodecError>(())
//! ```

mod block;
mod codec;
mod frame;
mod headers;
mod pieces;

pub use codec::{Codec, CodecError};
pub use frame::{Frame, GoAwayStatus, RstStatus, Setting, SettingId, Settings, StreamId};
pub use headers::{HeaderError, Headers};
pub(crate) use pieces::Pieces;
