//! Futures dropped at each of their await points, over connections that give and take single bytes and are often not ready: who
//! may be called again loses nothing and does nothing twice, and of who may not nothing is left.
//!
//! Owns what `# Cancel safety` says of exec, port-forward, the upgrade, the streaming server and the proxies; the multiplexer's
//! is `mux/cancelling.rs`'s. Time is the runtime's and stands still while anybody can move, but where there are sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[allow(dead_code)] // who is to blame, and how the drivers fare, is asked there
#[path = "every_byte/sessions.rs"]
mod sessions;
#[allow(dead_code)] // nothing goes wrong here but that somebody is dropped
#[path = "every_byte/wire.rs"]
mod wire;

#[macro_use]
#[path = "cancelled/dropping.rs"]
mod dropping;

#[path = "cancelled/exec.rs"]
mod exec;
#[cfg(feature = "net")]
#[path = "cancelled/forwarder.rs"]
mod forwarder;
#[path = "cancelled/handshake.rs"]
mod handshake;
#[path = "cancelled/parts.rs"]
mod parts;
#[path = "cancelled/port_forward.rs"]
mod port_forward;
#[path = "cancelled/proxy.rs"]
mod proxy;
#[path = "cancelled/streaming.rs"]
mod streaming;

use kubestream::channel::Subprotocol;
use kubestream::upgrade::{Protocol, Version};

const V4: Protocol = Protocol::Exec(Version::V4);
const V5: Protocol = Protocol::Channel(Subprotocol::V5);
