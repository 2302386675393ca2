//! The multiplexer between two of ours, and against peers made by hand.
//!
//! Each test is a transcript of two peers. Time is the runtime's and stands still while anybody can move, but for the
//! tests over TCP.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cancelling;
mod copies;
mod dropping;
mod endings;
mod opening;
mod reading;
mod stalls;
mod time;
mod transfers;
