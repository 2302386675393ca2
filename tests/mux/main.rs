//! The multiplexer between two of ours, and against peers made by hand.
//!
//! Each test is a transcript of two peers. Time is the runtime's and stands still while anybody can move, but for the
//! tests over TCP.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "mux/cancelling.rs"]
mod cancelling;
#[path = "mux/copies.rs"]
mod copies;
#[path = "mux/dropping.rs"]
mod dropping;
#[path = "mux/endings.rs"]
mod endings;
#[path = "mux/opening.rs"]
mod opening;
#[path = "mux/reading.rs"]
mod reading;
#[path = "mux/stalls.rs"]
mod stalls;
#[path = "mux/time.rs"]
mod time;
#[path = "mux/transfers.rs"]
mod transfers;
