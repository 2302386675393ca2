//! SPDY/3.1 without IO: frames, header blocks, and the state of a connection.
//!
//! Owns everything about SPDY that can be said without a socket, a task or a clock: bytes and the time
//! come in as arguments, frames and events come out. It must not know HTTP, Kubernetes or tokio's runtime.
//! [`mux`](crate::mux) drives it over an IO.
//!
//! ```
//! use bytes::BytesMut;
//! use kubestream::spdy::{Codec, Frame, Headers, Limits, StreamId};
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
//! Codec::new(Limits::default()).encode(syn.clone(), &mut wire)?;
//! let read = Codec::new(Limits::default()).decode(&mut wire)?;
//! assert_eq!(read, Some(syn));
//! # Ok::<(), kubestream::spdy::CodecError>(())
//! ```

mod block;
mod clock;
mod codec;
mod connection;
mod ending;
mod flow;
mod frame;
mod headers;
mod liveness;
mod outcome;
mod pieces;
mod receive;
mod stalls;
mod stream;
mod transmit;

pub use crate::config::{Config, FlowControl, HeaderCompression, Limits};
pub use codec::{Codec, CodecError};
pub use connection::{Connection, Event, ReadOutcome, Role, WriteOutcome};
pub use frame::{Frame, GoAwayStatus, RstStatus, Setting, SettingId, Settings, StreamId};
pub use headers::{HeaderError, Headers};
pub(crate) use pieces::Pieces;
