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
#[cfg(feature = "net")]
mod forwarder;
pub(crate) mod given;
#[doc(hidden)] // public for the fuzz target alone
pub mod pairing;
mod relay;
mod server;

use std::io;
use std::time::Duration;

pub use client::PortForward;
pub use connection::Connection;
#[cfg(feature = "net")]
pub use forwarder::{Addresses, Backoff, Forwarder, InvalidPort, LocalConnection, PortPair, Reconnecting};
pub use server::{PortForwardServer, Request};

use crate::initiator::Initiator;
use crate::mux::Multiplexer;
use crate::protocol::Protocol;
use crate::session::{ConnectionError, StreamError};
use crate::wire::spdy::RstStatus;

/// Bytes that an error stream may say: 64 KiB. What goes beyond is cut off.
pub const MAX_REASON_LEN: usize = 64 * 1024;

/// How long port-forward waits for what, and how much of it there may be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For a client: for both streams of a connection to be answered. For a server: for the second stream of a pair to
    /// come, as long as Go's servers wait. Default: 30 s.
    pub creation_timeout: Duration,
    /// For a client, once the data stream has ended: for the error stream to say whether that was well. Default: 5 s.
    pub reason_grace: Duration,
    /// For a server: pairs of which one stream has come. The next is refused. Go's clients make the two streams of each
    /// connection in two round trips, so that hundreds of connections at a time have as many halves. Default: 512.
    pub max_half_pairs: usize,
    /// How long one connection that nobody reads may hold up the others, and new ones: then it is reset, where nothing else is read of the peer's for
    /// its sake and somebody waits for that, and its reader gets [`StreamError::Stalled`]. Alone it is left for as long as it likes. `None`: it
    /// always is. Default: 20 s, less than a new connection waits for its answer; [`Config::stream_stall_timeout`](crate::mux::Config::stream_stall_timeout) goes before it.
    ///
    /// Peers without windows, as Go's are, cannot be made to hold back one stream: a browser's tab that is stopped in the midst of a download would
    /// keep all that the other tabs ask for from being read. What a server cannot see is that its client would open one more.
    pub stall_timeout: Option<Duration>,
    /// For [`Connection::relay`], and `LocalConnection::forward`, once the connection has failed: for a socket that was given more than 64 KiB of
    /// late to take the rest. And once the other side has ended and takes nothing more: for a socket to end that still sends. Default: 5 s.
    pub linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            creation_timeout: Duration::from_secs(30),
            reason_grace: Duration::from_secs(5),
            max_half_pairs: 512,
            stall_timeout: Some(Duration::from_secs(20)),
            linger: Duration::from_secs(5),
        }
    }
}

/// Why a connection, or all of them, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection that carries them failed, and they with it.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The connection was not upgraded to port-forward.
    #[error("the connection speaks {0:?}, not port-forward")]
    NotPortForward(Option<Protocol>),
    /// There is no port 0.
    #[error("there is no port 0")]
    NoPort,
    /// The old form connects once to each port that the request named. This one it did not, or it is taken.
    #[error("port {port}: the request did not ask for it, or its connection is taken")]
    NotAsked {
        /// The remote port.
        port: u16,
    },
    /// The server says why it could not forward this connection. The others are not concerned.
    #[error("port {port}: {reason}")]
    Failed {
        /// The remote port.
        port: u16,
        /// What the server says.
        reason: String,
    },
    /// The server did not take a stream of this connection.
    #[error("port {port}: the server refused the connection: {status}")]
    Refused {
        /// The remote port.
        port: u16,
        /// What the stream was reset with.
        status: RstStatus,
    },
    /// The server did not answer this connection's streams in [`Options::creation_timeout`].
    #[error("port {port}: the server did not answer within {after:?}")]
    Timeout {
        /// The remote port.
        port: u16,
        /// How long it was waited for.
        after: Duration,
    },
    /// A stream of this connection failed.
    #[error("port {port}: {error}")]
    Stream {
        /// The remote port.
        port: u16,
        /// Why.
        #[source]
        error: StreamError,
    },
    /// The socket failed that a connection was joined to by [`Connection::relay`].
    #[error("port {port}: the socket failed: {error}")]
    Local {
        /// The remote port.
        port: u16,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl Error {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Connection(error) => error.initiator(),
            Self::Stream { error, .. } => error.initiator(),
            Self::NotPortForward(_) | Self::NoPort | Self::NotAsked { .. } | Self::Local { .. } => Initiator::User,
            Self::Failed { .. } | Self::Refused { .. } | Self::Timeout { .. } => Initiator::Remote,
        }
    }

    fn stream(port: u16, error: StreamError) -> Self {
        match error {
            StreamError::Connection(error) => Self::Connection(error),
            error => Self::Stream { port, error },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Connection(error) => Self::from(error.clone()).kind(),
            Error::Stream { error, .. } => Self::from(error.clone()).kind(),
            Error::NotPortForward(_) | Error::NoPort | Error::NotAsked { .. } => io::ErrorKind::InvalidInput,
            Error::Local { error, .. } => error.kind(),
            Error::Failed { .. } => io::ErrorKind::ConnectionAborted,
            Error::Refused { .. } => io::ErrorKind::ConnectionRefused,
            Error::Timeout { .. } => io::ErrorKind::TimedOut,
        };
        Self::new(kind, error)
    }
}

fn check_protocol(mux: &Multiplexer) -> Result<(), Error> {
    match mux.protocol() {
        Some(protocol) if protocol.is_port_forward() => Ok(()),
        protocol => Err(Error::NotPortForward(protocol)),
    }
}
