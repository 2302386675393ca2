//! What the programs share: the built-in node, its processes, and connecting to a server.
//!
//! Holds only what more than one program needs. It is not published: the programs show how the crate is used, and this
//! is part of them.

pub mod api;
mod attach;
pub mod forward;
pub mod guard;
pub mod listen;
pub mod names;
pub mod node;
mod origins;
pub mod printable;
pub mod process;
pub mod server;
pub mod session;
pub mod signals;
pub mod stdio;
pub mod transport;

pub use origins::Origins;

/// Why a program fails.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
