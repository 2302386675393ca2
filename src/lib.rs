//! kubectl's exec, attach and port-forward on the wire, for clients and servers.
//!
//! Kubernetes runs `kubectl exec` and `attach` over one upgraded HTTP/1.1 connection. On it, stdin, stdout, stderr, the
//! status and the terminal size of a remote process each have a stream. `kubectl port-forward` has two streams for each
//! forwarded connection. This crate implements the client and the server, over SPDY/3.1 and over WebSocket.
//!
//! - [`upgrade`] turns an HTTP/1.1 connection into one that speaks SPDY/3.1 or WebSocket, as client or server.
//! - [`mux`] carries many streams over that connection: [`mux::Multiplexer`] opens and accepts them, and
//!   [`mux::Driver`] does the IO.
//! - [`exec`] is a session of exec or attach: [`exec::Exec`] for a client, shaped after [`std::process::Child`], and
//!   [`exec::ExecServer`] for a server. It speaks `channel.k8s.io` to `v5.channel.k8s.io`, over both transports.
//! - [`portforward`] makes and accepts connections to the ports of a pod.
//! - [`status`] says how a command ended.
//! - [`protocol`] has the names of the protocols, and says what each of them can do.
//! - [`AbortOnDrop`] is a socket that is reset if it is dropped before it was shut down.
//! - [`tap`] reads the bytes that pass between two other ends, reports what they mean, and changes nothing.
//!
//! The feature `unstable` exposes the parts without IO: the codecs of SPDY, WebSocket and the channel messages, and the
//! rules of one connection. Any release may change them.
//!
//! Two more crates build on this one: [kubestream-proxy](https://docs.rs/kubestream-proxy) stands between a client and
//! a backend, and [kubestream-runtime](https://docs.rs/kubestream-runtime) is the streaming server of a container
//! runtime.
//!
//! The crate works over any [`AsyncRead`](tokio::io::AsyncRead) + [`AsyncWrite`](tokio::io::AsyncWrite). It spawns no
//! tasks, and needs a tokio runtime only for timers.
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
//!     let upgraded = upgrade::connect(tcp, request, Protocol::SPDY_EXEC, &upgrade::Config::default()).await?;
//!     let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
//!     tokio::spawn(driver);
//!
//!     let output = mux.exec(Streams::OUTPUT).await?.wait_with_output(4096).await?;
//!     println!("exit code {:?}", output.status.code());
//!     Ok(String::from_utf8(output.stdout.to_vec())?)
//! }
//! ```
//!
//! How the modules build on each other:
//! [docs/architecture.md](https://docs.rs/crate/kubestream/latest/source/docs/architecture.md).
//!
//! All limits, their defaults, and what happens beyond them:
#![doc = include_str!("../docs/limits.md")]
#![forbid(unsafe_code)]
// Nearly all of the code handles bytes from a peer, so no index and no sum may panic.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(not(test), deny(clippy::panic, clippy::unreachable, clippy::todo, clippy::unimplemented))]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
// Without the feature nothing outside reaches what `unstable` exposes, and tests alone use some of it.
#![cfg_attr(not(feature = "unstable"), allow(dead_code, unreachable_pub, unused_imports))]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod abort;
mod carrier;
pub mod exec;
mod initiator;
pub mod mux;
mod port;
pub mod portforward;
pub mod protocol;
mod session;
pub mod status;
pub mod tap;
pub mod upgrade;
mod wire;

pub use abort::{Abort, AbortOnDrop};
pub use initiator::Initiator;
pub use session::{ConnectionError, StreamError};

/// The parts without IO: frames and messages, the rules of one connection, the readers that the modules above use.
///
/// They are for tests, fuzzing and experiments. Any release may change them: the promises of semantic versioning do not
/// hold here.
#[cfg(feature = "unstable")]
pub mod unstable {
    pub use crate::status::reader::StatusReader;
    pub use crate::status::resize::ResizeDecoder;

    /// Finds and parses the HTTP/1.1 heads of an upgrade.
    pub mod head {
        pub use crate::upgrade::head::*;
    }

    /// Pairs the streams of port-forward.
    pub mod pairing {
        pub use crate::portforward::pairing::*;
    }

    /// How often the lock of a connection's state was taken so far, this call included.
    #[must_use]
    pub fn locked(mux: &crate::mux::Multiplexer) -> u64 {
        mux.locked()
    }

    /// The rules of one connection.
    pub mod session {
        pub use crate::session::*;
    }

    /// SPDY frames, WebSocket frames, channel messages.
    pub mod wire {
        pub use crate::wire::*;
    }
}

/// Compiles the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
