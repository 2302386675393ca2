//! The streaming server of a container runtime: one-use URLs, and what is behind them.
//!
//! A kubelet asks its runtime, over the Container Runtime Interface, to prepare exec, attach or port-forward, and gets a URL.
//! It connects to that URL, or sends its client there, and the session runs. This is that server, as `cri-streaming` is Go's:
//! [`Server::exec_url`] and its like make the URLs, [`Server::serve`] answers a connection, and a [`Runtime`] does the work.
//!
//! Owns the tokens, what a request must be, and which session a token stands for. It must not listen, accept TLS or
//! spawn: the caller does, and gives it any IO. Nothing but the token says who a client is: 128 random bits that are
//! good once and for a minute.
//!
//! ```
//! use kubestream::exec::{self, ExecServer, Streams};
//! use kubestream::portforward::Request;
//! use kubestream::status::ExitStatus;
//! use kubestream::streaming::{Attach, Config, Exec, Runtime, Server};
//! use tokio::io::AsyncWriteExt;
//!
//! struct Parrot;
//!
//! impl Runtime for Parrot {
//!     async fn exec(&self, what: Exec, mut session: ExecServer) -> Result<(), exec::Error> {
//!         if let Some(mut stdout) = session.stdout.take() {
//!             // A client that has gone needs no answer.
//!             let _ = stdout.write_all(what.command.join(" ").as_bytes()).await;
//!         }
//!         session.exit(ExitStatus::Success).await
//!     }
//!     async fn attach(&self, _: Attach, session: ExecServer) -> Result<(), exec::Error> {
//!         session.exit(ExitStatus::Code(1)).await
//!     }
//!     async fn port_forward(&self, _: &str, request: Request) {
//!         request.fail("parrots have no ports");
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let server = Server::new(Parrot, &format!("http://{}", listener.local_addr()?), Config::default())?;
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
//! let url = server.exec_url(Exec::new("c0ffee", ["hello"], Streams::OUTPUT))?;
//! assert!(url.starts_with("http://127.0.0.1:") && url.contains("/exec/"));
//! # Ok(())
//! # }
//! ```

mod request;
mod server;
mod tokens;

use std::time::Duration;

pub use request::{Attach, Exec, PortForward, RequestError};
pub use server::{Runtime, ServeError, Server};

use crate::{exec, mux, portforward, upgrade};

/// What a server allows, and how long it waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How long a URL is good. Default: 60 s, as Go's.
    pub token_ttl: Duration,
    /// URLs that were given out and neither used nor have expired. Default: 1000, as Go's.
    pub max_tokens: usize,
    /// For the request that uses one.
    pub upgrade: upgrade::Config,
    /// For connections of exec and attach, which have five streams. Their
    /// [`idle_timeout`](mux::Config::idle_timeout) is 4 h by default, as Go's.
    pub session: mux::Config,
    /// For connections of port-forward.
    pub forward: mux::Config,
    /// How long the streams of a session are waited for.
    pub exec: exec::Options,
    /// How long, and how many, halves of forwarded connections are waited for.
    pub port_forward: portforward::Options,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            token_ttl: Duration::from_secs(60),
            max_tokens: 1000,
            upgrade: upgrade::Config::default(),
            session: mux::Config::exec(),
            forward: mux::Config::default(),
            exec: exec::Options::default(),
            port_forward: portforward::Options::default(),
        }
    }
}
