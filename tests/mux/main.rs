//! The multiplexer between two ends of this library, and against peers played by the test.
//!
//! Each test is a transcript of two peers. Time is virtual and passes only while no task can run, except in tests over
//! TCP.

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
