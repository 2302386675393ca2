//! Futures dropped at each of their await points, over connections that give and take single bytes and are often not ready: who
//! may be called again loses nothing and does nothing twice, and of who may not nothing is left.
//!
//! Owns what `# Cancel safety` says of exec, port-forward, the upgrade, the streaming server and the proxies; the multiplexer's
//! is `mux/cancelling.rs`'s. Time is the runtime's and stands still while anybody can move, but where there are sockets.

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

use kubestream::channel::Subprotocol;
use kubestream::upgrade::{Protocol, Version};

const V4: Protocol = Protocol::Exec(Version::V4);
const V5: Protocol = Protocol::Channel(Subprotocol::V5);
