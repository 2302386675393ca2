//! Exec and attach sessions: the five streams of one remote process.
//!
//! A session has an error stream, and stdin, stdout, stderr and resize as the request asks for them. A client makes
//! them with [`Multiplexer::exec`](crate::mux::Multiplexer::exec), and a server takes them with
//! [`Multiplexer::accept_exec`](crate::mux::Multiplexer::accept_exec). Both work for every version, from
//! `channel.k8s.io` to `v5.channel.k8s.io`, and over SPDY as over WebSocket. [`mux`](crate::mux) carries the streams,
//! and [`status`](crate::status) reads what the error stream says.
//!
//! ```
//! use kubestream::exec::Streams;
//! use kubestream::mux::{Config, Multiplexer};
//! use kubestream::status::ExitStatus;
//! use kubestream::upgrade::{Protocol, Upgraded, Version};
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = tokio::io::duplex(64 * 1024);
//! let protocol = Some(Protocol::SpdyExec(Version::V4));
//! let (server, driver) = Multiplexer::server(Upgraded::new(far, Default::default(), protocol), Config::exec());
//! tokio::spawn(driver);
//! tokio::spawn(async move {
//!     let mut process = server.accept_exec(Streams::OUTPUT).await?;
//!     process.stdout.take().unwrap().write_all(b"hello\n").await?;
//!     process.exit(ExitStatus::Code(7)).await?;
//!     Ok::<(), std::io::Error>(())
//! });
//!
//! let (client, driver) = Multiplexer::client(Upgraded::new(near, Default::default(), protocol), Config::exec());
//! tokio::spawn(driver);
//! let output = client.exec(Streams::OUTPUT).await?.wait_with_output(1024).await?;
//! assert_eq!((&output.stdout[..], output.status.code()), (&b"hello\n"[..], Some(7)));
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod options;
mod reader;
mod request;
mod server;
mod streams;

pub use client::{Exec, Output, Resizer};
pub use error::Error;
pub use options::Options;
pub use reader::Reader;
pub use request::ExecRequest;
pub use server::{ExecServer, Resizes};
pub use streams::Streams;
