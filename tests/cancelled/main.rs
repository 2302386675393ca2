//! Drops futures at each of their await points, over connections that carry single bytes and are often not ready. A
//! future that may be called again loses nothing and does nothing twice. Of any other future nothing is left.
//!
//! Tests the `# Cancel safety` sections of exec, port-forward, the upgrade, the streaming server and the proxies;
//! `mux/cancelling.rs` tests those of the multiplexer. Time is virtual and passes only while no task can run, except in
//! tests with sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[macro_use]
mod dropping;
mod exec;
#[cfg(feature = "net")]
mod forwarder;
mod handshake;
mod parts;
mod port_forward;
mod proxy;
mod streaming;

use kubestream::protocol::Subprotocol;
use kubestream::upgrade::{Protocol, Version};

const V4: Protocol = Protocol::SpdyExec(Version::V4);
const V5: Protocol = Protocol::WebSocketExec(Subprotocol::V5);
