//! Port-forward: connections to ports of a pod, each a pair of streams.
//!
//! Owns which streams belong together, what a pair that fails says, and that it takes no other with it. How streams are
//! carried is [`mux`](crate::mux)'s; dialling what is behind a port is the caller's. With the feature `net`, `Forwarder` listens
//! on local ports, as kubectl does.
//!
//! A connection has a data stream and an error stream with the same request id. The client makes both and ends its half
//! of the error stream at once; the server says on it why a connection failed. Over WebSocket the same streams go through a
//! tunnel of SPDY (`Protocol::Tunnel`).
//!
//! A connection that breaks off is none that has ended, for whoever reads it at either end: [`Connection::relay`] joins it to a socket and
//! keeps it so.
//!
//! The old form (`Protocol::PortChannels`) has no streams but channels of WebSocket, made by the request: one connection to
//! each port that it names. A client cannot end what it sends there and only the end of all of them ends one, nor can a
//! server end what it sends and still read: with that the connection is over.
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
//! let protocol = Some(Protocol::PortForward);
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
//!             port => request.fail(&format!("nobody listens on port {port}")),
//!         }
//!     }
//!     Ok::<(), kubestream::portforward::Error>(())
//! });
//!
//! let (mux, driver) = Multiplexer::client(Upgraded::new(near, Default::default(), protocol), Config::default());
//! tokio::spawn(driver);
//! let forward = PortForward::new(mux)?;
//! assert!(forward.connect(8).await.unwrap_err().to_string().contains("nobody listens on port 8"));
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
mod given;
mod options;
#[doc(hidden)] // public for the fuzz target alone
pub mod pairing;
mod relay;
mod server;

pub use client::PortForward;
pub use connection::{Connection, MAX_REASON_LEN};
pub use error::Error;
#[cfg(feature = "net")]
pub use forwarder::{Addresses, Backoff, Forwarder, InvalidPort, LocalConnection, PortPair, Reconnecting};
pub use options::Options;
pub use server::{PortForwardServer, Request};
