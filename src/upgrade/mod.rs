//! The upgrade: turns an HTTP/1.1 connection into one that speaks SPDY/3.1 or WebSocket (RFC 9110 §7.8, RFC 6455 §4).
//!
//! This module does the handshake, as client or server: it writes and checks the HTTP heads, negotiates a transport and
//! a protocol, and writes or reads a refusal. It dials nothing and follows no redirect. Bytes that were read past the
//! peer's head are kept in [`Upgraded`].
//!
//! ```
//! use kubestream::upgrade::{self, Config, Protocol, Version};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = tokio::io::duplex(64 * 1024);
//! tokio::spawn(async move {
//!     let pending = upgrade::accept(far, &Config::default()).await?;
//!     assert_eq!(pending.request().uri().path(), "/exec/web");
//!     pending.accept(Protocol::SPDY_EXEC).await
//! });
//!
//! let request = http::Request::post("http://node:10250/exec/web?output=1&command=true").body(())?;
//! let upgraded = upgrade::connect(near, request, Protocol::SPDY_EXEC, &Config::default()).await?;
//! assert_eq!(upgraded.protocol(), Some(Protocol::SpdyExec(Version::V4)));
//! # Ok(())
//! # }
//! ```
//!
//! All functions that wait need a tokio runtime with its timer enabled.

mod body;
mod client;
mod config;
mod error;
mod fallback;
pub(crate) mod head;
mod pass;
mod ports;
mod query;
mod read;
mod refusal;
mod server;
mod upgraded;
mod websocket;

pub use crate::protocol::{Protocol, Transport, Version};
pub use client::connect;
pub use config::Config;
pub use error::UpgradeError;
pub use fallback::connect_with_fallback;
pub use pass::answer_for_backend;
pub use ports::asked_ports;
pub use query::{query, set_query};
pub use server::{Pending, accept};
pub use upgraded::Upgraded;
pub use websocket::{BearerToken, is_own_origin};
