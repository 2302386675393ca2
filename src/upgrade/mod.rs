//! From an HTTP/1.1 request to a connection that speaks SPDY/3.1 (RFC 9110 §7.8).
//!
//! Owns the handshake of both ends: which protocol they settle on, what of the peer's head is believed, and what a refusal
//! says. It must not dial, follow redirects, retry, or read one byte of SPDY: what came behind a head is handed on.
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
#[doc(hidden)] // public for the fuzz target alone
pub mod head;
mod server;

use std::str::FromStr;
use std::time::Duration;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

pub use client::connect;
pub use error::{HeadFault, InvalidRequest, NotSwitched, Refusal, UpgradeError};
pub use server::{Pending, accept};

use head::HeadReader;

/// The version of the remote-command protocol, named `channel.k8s.io`, `v2.channel.k8s.io`, … on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// `channel.k8s.io`: no end of stdin, and errors as text.
    V1,
    /// `v2.channel.k8s.io`: stdin can end.
    V2,
    /// `v3.channel.k8s.io`: terminals can be resized.
    V3,
    /// `v4.channel.k8s.io`: the end of the command comes as a JSON [`Status`](crate::status::Status).
    V4,
    /// `v5.channel.k8s.io`: as v4, and over WebSocket stdin can end. Over SPDY, where it always could, no server has it.
    V5,
}

/// A protocol that two ends settle on in `X-Stream-Protocol-Version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// Exec and attach over SPDY/3.1.
    Exec(Version),
}

impl Protocol {
    /// All versions of exec and attach, the newest first, as Kubernetes' streaming servers list them.
    pub const EXEC: &'static [Self] =
        &[Self::Exec(Version::V4), Self::Exec(Version::V3), Self::Exec(Version::V2), Self::Exec(Version::V1)];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec(Version::V1) => "channel.k8s.io",
            Self::Exec(Version::V2) => "v2.channel.k8s.io",
            Self::Exec(Version::V3) => "v3.channel.k8s.io",
            Self::Exec(Version::V4) => "v4.channel.k8s.io",
            Self::Exec(Version::V5) => "v5.channel.k8s.io",
        }
    }

    /// The protocol of a name on the wire. Names are compared byte by byte, as in Go.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::EXEC.iter().copied().find(|protocol| protocol.name() == name)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        Self::from_name(name).ok_or(UnknownProtocol)
    }
}

/// The name is none of a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown streaming protocol")]
#[non_exhaustive]
pub struct UnknownProtocol;

/// An IO past its 101, the bytes that were read from it behind the head, and the protocol settled on.
///
/// Users of hyper, kube or axum, whose handshake is made elsewhere, make one with [`Upgraded::new`].
pub struct Upgraded<IO> {
    io: IO,
    read_ahead: Bytes,
    protocol: Option<Protocol>,
}

impl<IO> Upgraded<IO> {
    /// `read_ahead` is what was read from `io` and belongs to the new protocol; `protocol` is `None` for raw SPDY.
    pub fn new(io: IO, read_ahead: Bytes, protocol: Option<Protocol>) -> Self {
        Self { io, read_ahead, protocol }
    }

    /// Raw SPDY on an IO nothing was read from.
    pub fn from_io(io: IO) -> Self {
        Self::new(io, Bytes::new(), None)
    }

    /// What the two ends settled on; `None` for raw SPDY.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_head: 64 * 1024,
            max_headers: 100,
            head_timeout: Duration::from_secs(10),
            max_refusal_body: 64 * 1024,
            refusal_body_timeout: Duration::from_secs(5),
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

const SPDY: &str = "SPDY/3.1";
const X_STREAM_PROTOCOL_VERSION: http::HeaderName = http::HeaderName::from_static("x-stream-protocol-version");
const X_ACCEPTED_STREAM_PROTOCOL_VERSIONS: http::HeaderName =
    http::HeaderName::from_static("x-accepted-stream-protocol-versions");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_named_as_on_the_wire() {
        let names = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
        assert!(Protocol::EXEC.iter().map(|protocol| protocol.name()).eq(names));
        for protocol in Protocol::EXEC {
            assert_eq!(protocol.to_string().parse(), Ok(*protocol));
        }
        for other in ["", "v1.channel.k8s.io", "v5.channel.k8s.io", "V4.channel.k8s.io", " channel.k8s.io"] {
            assert_eq!(other.parse::<Protocol>(), Err(UnknownProtocol));
        }
    }

    #[test]
    fn debug_shows_no_payload() {
        let upgraded = Upgraded::new((), Bytes::from_static(b"secret"), None);
        assert_eq!(format!("{upgraded:?}"), "Upgraded { protocol: None, read_ahead: 6, .. }");
    }
}
