//! The rules of one connection, without IO: which streams exist, what each may send, how much may be queued, and how
//! streams and connections end.
//!
//! This module owns the state of a connection. It takes messages and the time as arguments, and returns messages and
//! events. It must not do IO, know the transport, or know Kubernetes. [`mux`](crate::mux) drives it over an IO.

mod clock;
mod config;
mod connection;
mod ending;
mod error;
mod event;
mod flow;
mod given;
mod liveness;
mod message;
mod outcome;
mod path;
mod phase;
mod receive;
mod role;
mod stalls;
mod stream;
mod table;
mod timers;
mod transmit;
mod windows;

pub use config::Config;
pub(crate) use config::SURELY_TAKEN;
pub use connection::Connection;
pub use error::{ConnectionError, StreamError};
pub use event::{Event, ReadOutcome, WriteOutcome};
pub(crate) use given::Given;
pub use message::Message;
pub use role::Role;
pub(crate) use table::ById;
