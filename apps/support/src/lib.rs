//! What the programs share: the built-in node with its processes, and how a client reaches a server.
//!
//! Owns what more than one of the programs needs, and nothing that one alone does. It is published nowhere: the programs show how the
//! crate is used, and this is part of them.

pub mod api;
mod attach;
pub mod forward;
pub mod node;
pub mod process;
pub mod session;
pub mod transport;

/// Why a program does not go on.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
