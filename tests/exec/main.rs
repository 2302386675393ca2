//! Exec sessions between two of ours, and with peers made by hand that speak as Kubernetes' do.
//!
//! Each test is a transcript of a client and a server. Time is the runtime's and stands still while anybody can move, but
//! for the tests over TCP.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "exec/client.rs"]
mod client;
#[path = "exec/endings.rs"]
mod endings;
#[path = "exec/races.rs"]
mod races;
#[path = "exec/resizing.rs"]
mod resizing;
#[path = "exec/server.rs"]
mod server;
#[path = "exec/sessions.rs"]
mod sessions;
#[path = "exec/websocket_client.rs"]
mod websocket_client;
#[path = "exec/websocket_faults.rs"]
mod websocket_faults;
#[path = "exec/websocket_server.rs"]
mod websocket_server;
