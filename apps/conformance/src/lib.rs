//! Judges a server of exec, attach and port-forward: what it speaks, and where it departs from what every server must do.
//!
//! Owns the cases and how they are run and told. It is a client alone: what a server is made of, it does not know.

pub mod bench;
pub mod cases;
pub mod column;
pub mod created;
pub mod echo;
pub mod known;
pub mod report;
pub mod run;
pub mod scale;
pub mod target;
pub mod verdict;

/// The examples of docs/guides.md, compiled: what they need is here.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides.md")]
struct Guides;
