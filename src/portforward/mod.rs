//! Port-forward: connections to ports of a pod, each a pair of streams.
//!
//! A forwarded [`Connection`] has a data stream and an error stream with the same request id. The client opens both
//! streams, and ends its direction of the error stream at once. If the connection fails, the server writes the reason
//! to the error stream, and the other connections go on. Over WebSocket the same streams go through the tunnel: SPDY
//! inside the messages of the WebSocket (`Protocol::TunneledPortForward`).
//!
//! If a forwarded connection is cut off, its reader gets an error and never an end, at the client and at the server.
//! [`Connection::relay`] copies between a forwarded connection and a socket in both directions. If one of them is cut
//! off, it cuts the other off, too.
//!
//! Legacy port-forward (`Protocol::LegacyPortForward`) has WebSocket channels instead of streams. The request names the
//! ports, and each named port has one forwarded connection. It has no half-close for a client: a client's direction
//! ends only together with the whole multiplexed connection. When a server ends its direction, that forwarded
//! connection is over.
//!
//! With the feature `net`, `Forwarder` listens on local ports, as kubectl does, and `PortForward::forward` forwards
//! each socket that it accepts to a remote port. This module does not dial the ports of the pod: the code of the server
//! does. [`mux`](crate::mux) carries the streams.
//!
//! ```
//! use kubestream::mux::{Config, Multiplexer};
//! use kubestream::portforward::{PortForward, PortForwardServer};
//! use kubestream::upgrade::{Protocol, Upgraded};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = tokio::io::duplex(64 * 1024);
//! let protocol = Some(Protocol::SpdyPortForward);
//! let (mux, driver) = Multiplexer::server(Upgraded::new(far, Default::default(), protocol), Config::default());
//! tokio::spawn(driver);
//! tokio::spawn(async move {
//!     let mut server = PortForwardServer::new(mux)?;
//!     while let Some(request) = server.accept().await.transpose()? {
//!         match request.port() {
//!             7 => {
//!                 let mut connection = request.accept();
//!                 tokio::spawn(async move {
//!                     let (mut reads, mut writes) = tokio::io::split(&mut connection);
//!                     tokio::io::copy(&mut reads, &mut writes).await?;
//!                     writes.shutdown().await
//!                 });
//!             }
//!             port => request.fail(&format!("nothing listens on port {port}")),
//!         }
//!     }
//!     Ok::<(), kubestream::portforward::Error>(())
//! });
//!
//! let (mux, driver) = Multiplexer::client(Upgraded::new(near, Default::default(), protocol), Config::default());
//! tokio::spawn(driver);
//! let forward = PortForward::new(mux)?;
//! assert!(forward.connect(8).await.unwrap_err().to_string().contains("nothing listens on port 8"));
//!
//! let mut echo = forward.connect(7).await?;
//! echo.write_all(b"hello").await?;
//! echo.shutdown().await?;
//! let mut back = String::new();
//! echo.read_to_string(&mut back).await?;
//! assert_eq!(back, "hello");
//! # Ok(())
//! # }
//! ```

mod client;
mod connection;
mod error;
#[cfg(feature = "net")]
mod forwarder;
mod options;
pub(crate) mod pairing;
mod relay;
mod server;
mod unconfirmed;

pub use client::PortForward;
pub use connection::{Connection, MAX_REASON_LEN};
pub use error::Error;
#[cfg(feature = "net")]
pub use forwarder::{Forwarder, PortPair, Reconnecting};
pub use options::Options;
pub use server::{PortForwardServer, Request};
