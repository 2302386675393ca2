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
use http::header;
use tokio::io::{AsyncRead, AsyncReadExt};

pub use client::connect;
pub use error::HandshakeFault;
pub use error::{HeadFault, InvalidRequest, NotSwitched, Refusal, UpgradeError};
pub use fallback::{Connected, FallbackError, connect_with_fallback};
pub use pass::{PassError, PassedOn, answer_for_backend};
pub use ports::{PortsError, asked_ports};
pub use server::{Pending, accept};
pub use websocket::{BearerToken, BearerTokenError, Origins};

use crate::channel::Subprotocol;

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

/// What the bytes past a 101 are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Carrier {
    /// `Upgrade: SPDY/3.1`.
    Spdy,
    /// `Upgrade: websocket`.
    WebSocket,
}

impl Carrier {
    /// Its token in the `Upgrade` header.
    fn token(self) -> &'static str {
        match self {
            Self::Spdy => "SPDY/3.1",
            Self::WebSocket => "websocket",
        }
    }

    /// The header that protocols are offered in.
    fn offers(self) -> HeaderName {
        match self {
            Self::Spdy => X_STREAM_PROTOCOL_VERSION,
            Self::WebSocket => header::SEC_WEBSOCKET_PROTOCOL,
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spdy => "SPDY",
            Self::WebSocket => "WebSocket",
        })
    }
}

/// A protocol that two ends settle on, and with it what carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// Exec and attach over SPDY/3.1, named in `X-Stream-Protocol-Version`.
    Exec(Version),
    /// Exec and attach over WebSocket, named in `Sec-WebSocket-Protocol`.
    Channel(Subprotocol),
    /// Port-forward over SPDY/3.1: `portforward.k8s.io`.
    PortForward,
    /// The same inside WebSocket: `SPDY/3.1+portforward.k8s.io`.
    Tunnel,
    /// The older form, which kubectl never spoke and the clients of Python, Node and Rust do: two channels over WebSocket for
    /// each port that the request names, and one connection to each. `v4.channel.k8s.io`, `v4.base64.channel.k8s.io` or
    /// unnamed, as exec's, so that only what a server is asked for tells them apart.
    PortChannels(Subprotocol),
}

impl Protocol {
    /// All versions of exec and attach over SPDY, the newest first, as Kubernetes' streaming servers list them.
    pub const EXEC: &'static [Self] =
        &[Self::Exec(Version::V4), Self::Exec(Version::V3), Self::Exec(Version::V2), Self::Exec(Version::V1)];

    /// What kubectl offers over WebSocket: the one that can end stdin.
    pub const V5: &'static [Self] = &[Self::Channel(Subprotocol::V5)];

    /// What the servers of Kubernetes take over WebSocket, all of them together.
    pub const CHANNEL: &'static [Self] = &[
        Self::Channel(Subprotocol::V5),
        Self::Channel(Subprotocol::V4),
        Self::Channel(Subprotocol::V4Base64),
        Self::Channel(Subprotocol::V1),
        Self::Channel(Subprotocol::V1Base64),
        Self::Channel(Subprotocol::Unnamed),
    ];

    /// All of the above: for a server that does not care what it is spoken to.
    pub const ANY: &'static [Self] = &[
        Self::Channel(Subprotocol::V5),
        Self::Channel(Subprotocol::V4),
        Self::Channel(Subprotocol::V4Base64),
        Self::Channel(Subprotocol::V1),
        Self::Channel(Subprotocol::V1Base64),
        Self::Channel(Subprotocol::Unnamed),
        Self::Exec(Version::V4),
        Self::Exec(Version::V3),
        Self::Exec(Version::V2),
        Self::Exec(Version::V1),
    ];

    /// Port-forward, each of its forms: for a server that does not care which it is.
    pub const PORT_FORWARD: &'static [Self] = &[
        Self::Tunnel,
        Self::PortForward,
        Self::PortChannels(Subprotocol::V4),
        Self::PortChannels(Subprotocol::V4Base64),
        Self::PortChannels(Subprotocol::Unnamed),
    ];

    /// What carries it.
    #[must_use]
    pub fn carrier(self) -> Carrier {
        match self {
            Self::Exec(_) | Self::PortForward => Carrier::Spdy,
            Self::Channel(_) | Self::Tunnel | Self::PortChannels(_) => Carrier::WebSocket,
        }
    }

    /// The version of the remote-command protocol, where it is one.
    #[must_use]
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Exec(version) => Some(version),
            Self::Channel(subprotocol) => Some(subprotocol.version()),
            Self::Tunnel | Self::PortChannels(_) => None,
            Self::PortForward => None,
        }
    }

    /// Whether it is port-forward, in whatever form.
    #[must_use]
    pub fn is_port_forward(self) -> bool {
        match self {
            Self::PortForward => true,
            Self::Tunnel | Self::PortChannels(_) => true,
            Self::Channel(_) => false,
            Self::Exec(_) => false,
        }
    }

    /// Whether the end of stdin can be said. SPDY's streams end in every version, though no server of v1 listens.
    #[must_use]
    pub fn can_end_stdin(self) -> bool {
        match self {
            Self::Exec(version) => version >= Version::V2,
            Self::Channel(subprotocol) => subprotocol.has_close(),
            Self::Tunnel | Self::PortChannels(_) => false,
            Self::PortForward => false,
        }
    }

    /// The name on the wire, which says nothing of the carrier.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec(Version::V1) => "channel.k8s.io",
            Self::Exec(Version::V2) => "v2.channel.k8s.io",
            Self::Exec(Version::V3) => "v3.channel.k8s.io",
            Self::Exec(Version::V4) => "v4.channel.k8s.io",
            Self::Exec(Version::V5) => "v5.channel.k8s.io",
            Self::Channel(subprotocol) | Self::PortChannels(subprotocol) => subprotocol.name(),
            Self::PortForward => "portforward.k8s.io",
            Self::Tunnel => "SPDY/3.1+portforward.k8s.io",
        }
    }

    /// The protocol of a name on the wire: where exec and port-forward share one, exec's. Names are compared byte by byte, as
    /// in Go.
    #[must_use]
    pub fn from_name(carrier: Carrier, name: &str) -> Option<Self> {
        match carrier {
            Carrier::Spdy => {
                let known = Self::EXEC.iter().copied().chain([Self::PortForward]);
                known.into_iter().find(|protocol| protocol.name() == name)
            }
            Carrier::WebSocket if name == Self::Tunnel.name() => Some(Self::Tunnel),
            Carrier::WebSocket => Subprotocol::from_name(name).map(Self::Channel),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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

const X_STREAM_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const X_ACCEPTED_STREAM_PROTOCOL_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_named_as_on_the_wire() {
        let names = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
        assert!(Protocol::EXEC.iter().map(|protocol| protocol.name()).eq(names));
        for protocol in Protocol::EXEC {
            assert_eq!(Protocol::from_name(Carrier::Spdy, &protocol.to_string()), Some(*protocol));
        }
        for other in ["", "v1.channel.k8s.io", "v5.channel.k8s.io", "V4.channel.k8s.io", " channel.k8s.io"] {
            assert_eq!(Protocol::from_name(Carrier::Spdy, other), None);
        }
    }

    #[test]
    fn a_name_means_another_protocol_on_another_carrier() {
        let (v4, v5) = (Protocol::Channel(Subprotocol::V4), Protocol::Channel(Subprotocol::V5));
        assert_eq!(Protocol::from_name(Carrier::WebSocket, "v4.channel.k8s.io"), Some(v4));
        assert_eq!(Protocol::from_name(Carrier::WebSocket, "v5.channel.k8s.io"), Some(v5));
        for protocol in Protocol::ANY {
            assert_eq!(Protocol::from_name(protocol.carrier(), protocol.name()), Some(*protocol));
        }
    }

    #[test]
    fn debug_shows_no_payload() {
        let upgraded = Upgraded::new((), Bytes::from_static(b"secret"), None);
        assert_eq!(format!("{upgraded:?}"), "Upgraded { protocol: None, read_ahead: 6, .. }");
    }
}
