//! From an HTTP/1.1 request to a connection that speaks SPDY/3.1 or WebSocket (RFC 9110 §7.8, RFC 6455 §4).
//!
//! Owns the handshake of both ends: which carrier and protocol they settle on, what of the peer's head is believed, and
//! what a refusal says. It must not dial, follow redirects, or read one byte behind a head: that is handed on.
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
//!     pending.accept(Protocol::EXEC).await
//! });
//!
//! let request = http::Request::post("http://node:10250/exec/web?output=1&command=true").body(())?;
//! let upgraded = upgrade::connect(near, request, Protocol::EXEC, &Config::default()).await?;
//! assert_eq!(upgraded.protocol(), Some(Protocol::Exec(Version::V4)));
//! # Ok(())
//! # }
//! ```
//!
//! Both ends need a tokio runtime with its timer enabled.

mod body;
mod client;
mod error;
mod fallback;
#[doc(hidden)] // public for the fuzz target alone
pub mod head;
mod pass;
mod ports;
mod server;
mod websocket;

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use http::HeaderName;
use tokio::io::{AsyncRead, AsyncReadExt};

pub use crate::protocol::{Carrier, Protocol, Version};
pub use client::connect;
pub use error::HandshakeFault;
pub use error::{HeadFault, InvalidRequest, NotSwitched, Refusal, UpgradeError};
pub use fallback::{Connected, FallbackError, connect_with_fallback};
pub use pass::{PassError, PassedOn, answer_for_backend};
pub use ports::{PortsError, asked_ports};
pub use server::{Pending, accept};
pub use websocket::{BearerToken, BearerTokenError, Origins};

use head::HeadReader;

/// An IO past its 101, the bytes that were read from it behind the head, and the protocol settled on.
///
/// Users of hyper, kube or axum, whose handshake is made elsewhere, make one with [`Upgraded::new`].
pub struct Upgraded<IO> {
    io: IO,
    read_ahead: Bytes,
    protocol: Option<Protocol>,
    ports: Option<Arc<[u16]>>,
}

impl<IO> Upgraded<IO> {
    /// `read_ahead` is what was read from `io` and belongs to the new protocol; `protocol` is `None` for raw SPDY.
    pub fn new(io: IO, read_ahead: Bytes, protocol: Option<Protocol>) -> Self {
        Self { io, read_ahead, protocol, ports: None }
    }

    /// Raw SPDY on an IO nothing was read from.
    pub fn from_io(io: IO) -> Self {
        Self::new(io, Bytes::new(), None)
    }

    /// What the two ends settled on; `None` for raw SPDY.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// The ports that the request asked for, in its order: for whoever makes the handshake of [`Protocol::PortChannels`]
    /// elsewhere. Without them there is nothing that such a connection could forward. No other protocol has any.
    #[must_use]
    pub fn with_ports(self, ports: &[u16]) -> Self {
        let wants = matches!(self.protocol, Some(Protocol::PortChannels(_)));
        Self { ports: wants.then(|| ports.into()), ..self }
    }

    /// The ports that the request asked for, where the protocol is `Protocol::PortChannels`; else none.
    pub fn ports(&self) -> &[u16] {
        self.ports.as_deref().unwrap_or_default()
    }

    pub(crate) fn shared_ports(&self) -> Option<Arc<[u16]>> {
        self.ports.clone()
    }

    /// The IO, what was read ahead, and the protocol.
    pub fn into_parts(self) -> (IO, Bytes, Option<Protocol>) {
        (self.io, self.read_ahead, self.protocol)
    }
}

impl<IO> fmt::Debug for Upgraded<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded")
            .field("protocol", &self.protocol)
            .field("read_ahead", &self.read_ahead.len())
            .finish_non_exhaustive()
    }
}

/// What a handshake may cost, at either end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Bytes of the peer's head; for a client, of its 1xx heads and the final one together. The command is part of it: kubectl puts each argument
    /// into the query. Default: 64 KiB.
    pub max_head: usize,
    /// Header lines of the peer's head. Default: 100.
    pub max_headers: usize,
    /// For the whole of the handshake up to the peer's head, not for each read; and for an answer to be written.
    /// Default: 10 s.
    pub head_timeout: Duration,
    /// Bytes that a client keeps of a refusal's body, and that a server discards after its own refusal. Default: 64 KiB.
    pub max_refusal_body: usize,
    /// For a client to read a refusal's body, and for a server to wait for the peer's end after its own. Default: 5 s.
    pub refusal_body_timeout: Duration,
    /// Which pages may open a WebSocket at a server. Default: those of the same host.
    pub origins: Origins,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_head: 64 * 1024,
            max_headers: 100,
            head_timeout: Duration::from_secs(10),
            max_refusal_body: 64 * 1024,
            refusal_body_timeout: Duration::from_secs(5),
            origins: Origins::default(),
        }
    }
}

/// Reads up to the end of a head. What was read behind it stays in `reader`.
async fn read_head<IO: AsyncRead + Unpin>(io: &mut IO, reader: &mut HeadReader) -> Result<Bytes, UpgradeError> {
    loop {
        if let Some(head) = reader.take_head()? {
            return Ok(head);
        }
        if fill(io, reader.buffer()).await? == 0 {
            return Err(UpgradeError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Reads some bytes to the end of the buffer: how many, 0 at the end.
async fn fill<IO: AsyncRead + Unpin>(io: &mut IO, buffer: &mut BytesMut) -> io::Result<usize> {
    if buffer.capacity() == buffer.len() {
        buffer.reserve(READ_CHUNK);
    }
    io.read_buf(buffer).await
}

const READ_CHUNK: usize = 4 * 1024;

const X_ACCEPTED_STREAM_PROTOCOL_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_payload() {
        let upgraded = Upgraded::new((), Bytes::from_static(b"secret"), None);
        assert_eq!(format!("{upgraded:?}"), "Upgraded { protocol: None, read_ahead: 6, .. }");
    }
}
