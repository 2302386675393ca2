//! Exec sessions between two of ours, and with peers made by hand that speak as Kubernetes' do.
//!
//! Each test is a transcript of a client and a server. Time is the runtime's and stands still while anybody can move, but
//! for the tests over TCP.

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
