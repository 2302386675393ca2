//! The streaming server of a container runtime: one-use URLs for exec, attach and port-forward.
//!
//! A kubelet asks its container runtime, over the Container Runtime Interface (CRI), to prepare exec, attach or
//! port-forward, and gets a URL. The kubelet connects to that URL, or the kube-apiserver does, and the session runs
//! over that connection. This crate is the server behind these URLs, as `cri-streaming` is in Go: [`Server::exec_url`],
//! [`Server::attach_url`] and [`Server::port_forward_url`] make the URLs, [`Server::serve`] serves a connection, and
//! your [`Runtime`] runs the commands and opens the ports.
//!
//! This crate does not listen, speak TLS or spawn: the caller does. Only the token in the URL authenticates a client. A
//! token is 128 random bits, and can be used once, within a minute.
//!
//! ```
//! use kubestream::exec::{self, ExecServer, Streams};
//! use kubestream::portforward::Request;
//! use kubestream::status::ExitStatus;
//! use kubestream_runtime::{Runtime, RuntimeConfig, Server};
//! use tokio::io::AsyncWriteExt;
//!
//! struct Parrot;
//!
//! impl Runtime for Parrot {
//!     async fn exec(
//!         &self,
//!         _container_id: String,
//!         command: Vec<String>,
//!         _streams: Streams,
//!         mut session: ExecServer,
//!     ) -> Result<(), exec::Error> {
//!         if let Some(mut stdout) = session.stdout.take() {
//!             // If the client has gone, there is no one to tell.
//!             let _ = stdout.write_all(command.join(" ").as_bytes()).await;
//!         }
//!         session.exit(ExitStatus::Success).await
//!     }
//!
//!     async fn attach(&self, _: String, _: Streams, session: ExecServer) -> Result<(), exec::Error> {
//!         session.exit(ExitStatus::Code(1)).await
//!     }
//!
//!     async fn port_forward(&self, _: &str, request: Request) {
//!         request.fail("parrots have no ports");
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let server = Server::new(Parrot, &format!("http://{}", listener.local_addr()?), RuntimeConfig::default())?;
//! tokio::spawn({
//!     let server = server.clone();
//!     async move {
//!         while let Ok((tcp, _)) = listener.accept().await {
//!             let server = server.clone();
//!             tokio::spawn(async move { server.serve(tcp).await });
//!         }
//!     }
//! });
//!
//! let url = server.exec_url("c0ffee", ["hello"], Streams::OUTPUT)?;
//! assert!(url.starts_with("http://127.0.0.1:") && url.contains("/exec/"));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
// Nearly all of this code handles what a peer has sent.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(not(test), deny(clippy::panic, clippy::unreachable, clippy::todo, clippy::unimplemented))]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod config;
mod error;
mod runtime;
mod server;
mod tokens;

pub use config::RuntimeConfig;
pub use error::Error;
pub use runtime::Runtime;
pub use server::Server;
