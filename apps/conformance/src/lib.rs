//! Tests a server of exec, attach and port-forward: which protocols it offers, and where it departs from what every
//! server must do.
//!
//! Holds the cases, the run and the reports. It is only a client, and knows nothing of how a server is built.

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

/// Compiles the examples of docs/guides.md here, because this crate has the dependencies that they need.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides.md")]
struct Guides;
