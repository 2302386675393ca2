//! Exec sessions between two ends of this library, and with peers played by the test that behave as Kubernetes' do.
//!
//! Each test is a transcript of a client and a server. Time is virtual and passes only while no task can run, except in
//! tests over TCP.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod endings;
mod races;
mod resizing;
mod server;
mod sessions;
mod websocket_client;
mod websocket_faults;
mod websocket_server;
