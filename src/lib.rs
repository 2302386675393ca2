//! kubectl exec on the wire, for clients, servers and whatever stands between them.
//!
//! Kubernetes runs `kubectl exec` and `attach` over one upgraded HTTP/1.1 connection, on which the stdin, stdout, stderr,
//! status and terminal size of a remote process each have a stream. This crate is both ends of that, over SPDY/3.1 and
//! over WebSocket.
//!
//! - [`upgrade`] turns an HTTP/1.1 connection into one that speaks SPDY/3.1 or WebSocket, as client or server.
//! - [`mux`] makes streams of it: [`mux::Multiplexer`] to open and accept them, [`mux::Driver`] to do the IO.
//! - [`exec`] is a session on it: [`exec::Exec`] is shaped after [`std::process::Child`], [`exec::ExecServer`] is what the
//!   process gets, for `channel.k8s.io` to `v5.channel.k8s.io`. Which carrier it has makes no difference.
//! - [`portforward`] is connections to the ports of a pod.
//! - [`status`] is how a command ended.
//! - [`AbortOnDrop`] is a socket of which nobody takes a break for an end.
//! - [`spdy`], [`channel`] and [`websocket`] are the protocols underneath, without IO.
//!
//! Two roles have crates of their own: [kubestream-proxy](https://docs.rs/kubestream-proxy) stands between a client and a
//! backend, and [kubestream-runtime](https://docs.rs/kubestream-runtime) is the streaming server of a container runtime.
//!
//! It works over any [`AsyncRead`](tokio::io::AsyncRead) + [`AsyncWrite`](tokio::io::AsyncWrite), spawns nothing, and
//! needs a tokio runtime for its timers only.
//!
//! ```
//! use kubestream::exec::{ExecRequest, Streams};
//! use kubestream::mux::{Config, Multiplexer};
//! use kubestream::upgrade::{self, Protocol};
//! use tokio::net::TcpStream;
//!
//! async fn hostname(server: &str) -> Result<String, Box<dyn std::error::Error>> {
//!     let query = ExecRequest::new(["hostname"], Streams::OUTPUT).to_query();
//!     let url = format!("http://{server}/api/v1/namespaces/default/pods/demo/exec?{query}");
//!     let request = http::Request::post(url).body(())?;
//!
//!     let tcp = TcpStream::connect(server).await?;
//!     let upgraded = upgrade::connect(tcp, request, Protocol::EXEC, &upgrade::Config::default()).await?;
//!     let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
//!     tokio::spawn(driver);
//!
//!     let output = mux.exec(Streams::OUTPUT).await?.wait_with_output(4096).await?;
//!     println!("exit code {:?}", output.status.code());
//!     Ok(String::from_utf8(output.stdout.to_vec())?)
//! }
//! ```
//!
//! Every limit, its default and what happens beyond it:
#![doc = include_str!("../docs/limits.md")]
#![forbid(unsafe_code)]
// Nearly all of it touches what a peer has sent.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(not(test), deny(clippy::panic, clippy::unreachable, clippy::todo, clippy::unimplemented))]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod abort;
mod carrier;
pub mod exec;
mod initiator;
pub mod mux;
mod port;
pub mod portforward;
pub mod protocol;
pub mod session;
pub mod status;
pub mod upgrade;
pub mod wire;

pub use wire::{channel, websocket};

/// The names from before the floors, until all users have moved.
#[doc(hidden)]
pub mod spdy {
    pub use crate::session::{Config, Connection, Event, FlowControl, ReadOutcome, Role, WriteOutcome};
    pub use crate::wire::spdy::*;
    pub use crate::wire::{HeaderCompression, Limits};
}

pub use abort::{Abort, AbortOnDrop};
pub use initiator::Initiator;
pub use session::{ConnectionError, StreamError};

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
