//! The protocols of exec, attach and port-forward: their names on the wire, their transports, and what each of them can
//! do.
//!
//! Reads and writes no bytes.

use std::fmt;

use http::header::{self, HeaderName};

/// The name of the stream header that carries the stream's type: for example `stdin` or `error` in a session, and
/// `data` or `error` in a forwarded connection.
pub const STREAM_TYPE: &str = "streamtype";
/// The name of the stream header that carries the port of a port-forward stream.
pub const PORT: &str = "port";
/// The name of the stream header that carries the request id of a port-forward stream. The data stream and the error
/// stream of one forwarded connection have the same request id.
pub const REQUEST_ID: &str = "requestid";
/// The name of a header in the answer to a data stream. It says why the server could not reach the port. Our client
/// reads it, and client-go ignores it. The reason is not sent on the error stream, because then client-go would give up
/// all its connections.
pub(crate) const ERROR: &str = "error";

/// The HTTP header that names the subprotocol over SPDY.
pub(crate) const X_STREAM_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// The version of the protocol of exec and attach. On the wire it is named `channel.k8s.io`, `v2.channel.k8s.io` and so
/// on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// `channel.k8s.io`: the client cannot end stdin, and the server reports a failure as a text.
    V1,
    /// `v2.channel.k8s.io`: as v1, and over SPDY the client can end stdin.
    V2,
    /// `v3.channel.k8s.io`: as v2, and over SPDY the client can set the terminal's size.
    V3,
    /// `v4.channel.k8s.io`: as v3, and the error stream carries a JSON [`Status`](crate::status::Status) that says how
    /// the command ended.
    V4,
    /// `v5.channel.k8s.io`: as v4, and over WebSocket the client can end stdin. Over SPDY, where the client can end stdin
    /// from v2 on, it is the same as v4. kubectl offers it there first, and virtual-kubelet takes it; the streaming
    /// servers of Kubernetes do not.
    V5,
}

/// The transport: what the connection speaks after the 101 response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// SPDY/3.1: `Upgrade: SPDY/3.1`.
    Spdy,
    /// WebSocket: `Upgrade: websocket`.
    WebSocket,
}

impl Transport {
    /// The transport's token in the `Upgrade` header.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Spdy => "SPDY/3.1",
            Self::WebSocket => "websocket",
        }
    }

    /// The header in which a client offers protocols.
    pub(crate) fn offers(self) -> HeaderName {
        match self {
            Self::Spdy => X_STREAM_PROTOCOL_VERSION,
            Self::WebSocket => header::SEC_WEBSOCKET_PROTOCOL,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spdy => "SPDY",
            Self::WebSocket => "WebSocket",
        })
    }
}

/// A protocol that client and server negotiate, including its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// Exec and attach over SPDY/3.1. Its name is in `X-Stream-Protocol-Version`.
    SpdyExec(Version),
    /// Exec and attach over WebSocket. Its name is in `Sec-WebSocket-Protocol`.
    WebSocketExec(Subprotocol),
    /// Port-forward over SPDY/3.1: `portforward.k8s.io`.
    SpdyPortForward,
    /// Port-forward over SPDY/3.1 inside the messages of a WebSocket: `SPDY/3.1+portforward.k8s.io`.
    TunneledPortForward,
    /// Legacy port-forward: over WebSocket, with two channels and one connection for each port that the request names.
    /// kubectl never used it; the Python, Node.js, Java and Rust clients do. Its names are `v4.channel.k8s.io`,
    /// `v4.base64.channel.k8s.io` or no name, which are also names of exec: only the path of the request tells the two
    /// apart.
    LegacyPortForward(Subprotocol),
}

impl Protocol {
    /// v4 to v1 of exec and attach over SPDY, the newest first. Kubernetes' streaming servers support the same. A server
    /// that shall also take v5 over SPDY lists `Protocol::SpdyExec(Version::V5)` as well.
    pub const SPDY_EXEC: &'static [Self] = &[
        Self::SpdyExec(Version::V4),
        Self::SpdyExec(Version::V3),
        Self::SpdyExec(Version::V2),
        Self::SpdyExec(Version::V1),
    ];

    /// v5 over WebSocket, as kubectl offers it for exec and attach. Over WebSocket only v5 can end stdin.
    pub const WEBSOCKET_EXEC_V5: &'static [Self] = &[Self::WebSocketExec(Subprotocol::V5)];

    /// Exec and attach over WebSocket: all subprotocols that any server of Kubernetes supports.
    pub const WEBSOCKET_EXEC: &'static [Self] = &[
        Self::WebSocketExec(Subprotocol::V5),
        Self::WebSocketExec(Subprotocol::V4),
        Self::WebSocketExec(Subprotocol::V4Base64),
        Self::WebSocketExec(Subprotocol::V1),
        Self::WebSocketExec(Subprotocol::V1Base64),
        Self::WebSocketExec(Subprotocol::Unnamed),
    ];

    /// [`WEBSOCKET_EXEC`](Self::WEBSOCKET_EXEC) and [`SPDY_EXEC`](Self::SPDY_EXEC): everything that a server of exec
    /// and attach can support.
    pub const ANY_EXEC: &'static [Self] = &[
        Self::WebSocketExec(Subprotocol::V5),
        Self::WebSocketExec(Subprotocol::V4),
        Self::WebSocketExec(Subprotocol::V4Base64),
        Self::WebSocketExec(Subprotocol::V1),
        Self::WebSocketExec(Subprotocol::V1Base64),
        Self::WebSocketExec(Subprotocol::Unnamed),
        Self::SpdyExec(Version::V4),
        Self::SpdyExec(Version::V3),
        Self::SpdyExec(Version::V2),
        Self::SpdyExec(Version::V1),
    ];

    /// All protocols of port-forward: everything that a server of port-forward can support.
    pub const ANY_PORT_FORWARD: &'static [Self] = &[
        Self::TunneledPortForward,
        Self::SpdyPortForward,
        Self::LegacyPortForward(Subprotocol::V4),
        Self::LegacyPortForward(Subprotocol::V4Base64),
        Self::LegacyPortForward(Subprotocol::Unnamed),
    ];

    /// The protocol's transport.
    #[must_use]
    pub fn transport(self) -> Transport {
        match self {
            Self::SpdyExec(_) | Self::SpdyPortForward => Transport::Spdy,
            Self::WebSocketExec(_) | Self::TunneledPortForward | Self::LegacyPortForward(_) => Transport::WebSocket,
        }
    }

    /// The version of a protocol of exec and attach. `None` for port-forward.
    #[must_use]
    pub fn version(self) -> Option<Version> {
        match self {
            Self::SpdyExec(version) => Some(version),
            Self::WebSocketExec(subprotocol) => Some(subprotocol.version()),
            Self::TunneledPortForward | Self::LegacyPortForward(_) => None,
            Self::SpdyPortForward => None,
        }
    }

    /// Whether this is a protocol of port-forward.
    #[must_use]
    pub fn is_port_forward(self) -> bool {
        match self {
            Self::SpdyPortForward => true,
            Self::TunneledPortForward | Self::LegacyPortForward(_) => true,
            Self::WebSocketExec(_) => false,
            Self::SpdyExec(_) => false,
        }
    }

    /// Whether a client can end stdin: over SPDY from v2 on, because v1's servers ignore the end, and over WebSocket
    /// only in v5.
    #[must_use]
    pub fn can_end_stdin(self) -> bool {
        match self {
            Self::SpdyExec(version) => version >= Version::V2,
            Self::WebSocketExec(subprotocol) => subprotocol.has_close(),
            Self::TunneledPortForward | Self::LegacyPortForward(_) => false,
            Self::SpdyPortForward => false,
        }
    }

    /// The name on the wire. Protocols of different transports can have the same name, and the name of a protocol can
    /// be empty: see [`Subprotocol::Unnamed`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SpdyExec(Version::V1) => "channel.k8s.io",
            Self::SpdyExec(Version::V2) => "v2.channel.k8s.io",
            Self::SpdyExec(Version::V3) => "v3.channel.k8s.io",
            Self::SpdyExec(Version::V4) => "v4.channel.k8s.io",
            Self::SpdyExec(Version::V5) => "v5.channel.k8s.io",
            Self::WebSocketExec(subprotocol) | Self::LegacyPortForward(subprotocol) => subprotocol.name(),
            Self::SpdyPortForward => "portforward.k8s.io",
            Self::TunneledPortForward => "SPDY/3.1+portforward.k8s.io",
        }
    }

    /// Finds a protocol by its name on the wire. If exec and port-forward share the name, this returns exec. Names are
    /// compared byte by byte, as in Go.
    #[must_use]
    pub fn from_name(transport: Transport, name: &str) -> Option<Self> {
        match transport {
            Transport::Spdy => {
                let known = [Self::SpdyExec(Version::V5), Self::SpdyPortForward];
                Self::SPDY_EXEC.iter().copied().chain(known).find(|protocol| protocol.name() == name)
            }
            Transport::WebSocket if name == Self::TunneledPortForward.name() => Some(Self::TunneledPortForward),
            Transport::WebSocket => Subprotocol::from_name(name).map(Self::WebSocketExec),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A subprotocol of exec and attach over WebSocket, named in `Sec-WebSocket-Protocol`. Some also carry legacy
/// port-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subprotocol {
    /// The client offered no subprotocol. The messages are those of `channel.k8s.io`.
    Unnamed,
    /// `channel.k8s.io`: the server reports a failure as a text, and the client cannot end stdin.
    V1,
    /// `base64.channel.k8s.io`: as `channel.k8s.io`, in text messages with base64.
    V1Base64,
    /// `v2.channel.k8s.io`: the same as `channel.k8s.io`. Some clients offer it, but no server of Kubernetes supports
    /// it.
    V2,
    /// `v3.channel.k8s.io`: the same as `channel.k8s.io`. Some clients offer it, but no server of Kubernetes supports
    /// it.
    V3,
    /// `v4.channel.k8s.io`: the error channel carries a JSON [`Status`](crate::status::Status) that says how the
    /// command ended.
    V4,
    /// `v4.base64.channel.k8s.io`: as `v4.channel.k8s.io`, in text messages with base64.
    V4Base64,
    /// `v5.channel.k8s.io`: as `v4.channel.k8s.io`, and the client can end stdin.
    V5,
}

impl Subprotocol {
    pub(crate) const ALL: [Self; 8] =
        [Self::Unnamed, Self::V1, Self::V1Base64, Self::V2, Self::V3, Self::V4, Self::V4Base64, Self::V5];

    /// The name on the wire. For [`Subprotocol::Unnamed`] it is empty, and is never sent.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unnamed => "",
            Self::V1 => "channel.k8s.io",
            Self::V1Base64 => "base64.channel.k8s.io",
            Self::V2 => "v2.channel.k8s.io",
            Self::V3 => "v3.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V4Base64 => "v4.base64.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }

    /// Finds a subprotocol by its name on the wire. Names are compared byte by byte, as in Go.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subprotocol| subprotocol.name() == name)
    }

    /// The version of exec and attach that it carries.
    #[must_use]
    pub fn version(self) -> Version {
        match self {
            Self::Unnamed | Self::V1 | Self::V1Base64 => Version::V1,
            Self::V2 => Version::V2,
            Self::V3 => Version::V3,
            Self::V4 | Self::V4Base64 => Version::V4,
            Self::V5 => Version::V5,
        }
    }

    /// Whether its messages are text: one character for the channel, and then the bytes in base64.
    #[must_use]
    pub fn is_base64(self) -> bool {
        matches!(self, Self::V1Base64 | Self::V4Base64)
    }

    /// Whether it has the CLOSE message, with which a client ends stdin. Only v5 has it.
    #[must_use]
    pub fn has_close(self) -> bool {
        self == Self::V5
    }

    /// The maximum number of ports of one connection in legacy port-forward: 128, or 40 in base64. Each port has two
    /// channels. A channel's number is one byte. In base64 it is one ASCII character, and the numbers begin with the
    /// character `0`.
    #[must_use]
    pub fn max_ports(self) -> usize {
        let channels = if self.is_base64() { 0x80_usize.saturating_sub(usize::from(b'0')) } else { 0x100 };
        channels / 2
    }
}

impl fmt::Display for Subprotocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subprotocol_is_found_by_its_name() {
        // A new variant does not compile until it has its place here.
        let next = |subprotocol| match subprotocol {
            Subprotocol::Unnamed => Some(Subprotocol::V1),
            Subprotocol::V1 => Some(Subprotocol::V1Base64),
            Subprotocol::V1Base64 => Some(Subprotocol::V2),
            Subprotocol::V2 => Some(Subprotocol::V3),
            Subprotocol::V3 => Some(Subprotocol::V4),
            Subprotocol::V4 => Some(Subprotocol::V4Base64),
            Subprotocol::V4Base64 => Some(Subprotocol::V5),
            Subprotocol::V5 => None,
        };
        let all: Vec<_> = std::iter::successors(Some(Subprotocol::Unnamed), |known| next(*known)).collect();
        assert_eq!(all, Subprotocol::ALL);
        for subprotocol in all {
            assert_eq!(Subprotocol::from_name(subprotocol.name()), Some(subprotocol));
        }
    }

    #[test]
    fn protocols_are_named_as_on_the_wire() {
        let names = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
        assert!(Protocol::SPDY_EXEC.iter().map(|protocol| protocol.name()).eq(names));
        for protocol in Protocol::SPDY_EXEC {
            assert_eq!(Protocol::from_name(Transport::Spdy, &protocol.to_string()), Some(*protocol));
        }
        let v5 = Protocol::from_name(Transport::Spdy, "v5.channel.k8s.io");
        assert_eq!((v5, Protocol::SPDY_EXEC.contains(&v5.unwrap())), (Some(Protocol::SpdyExec(Version::V5)), false));
        for other in ["", "v1.channel.k8s.io", "V4.channel.k8s.io", " channel.k8s.io"] {
            assert_eq!(Protocol::from_name(Transport::Spdy, other), None);
        }
    }

    #[test]
    fn a_name_means_another_protocol_on_another_transport() {
        let (v4, v5) = (Protocol::WebSocketExec(Subprotocol::V4), Protocol::WebSocketExec(Subprotocol::V5));
        assert_eq!(Protocol::from_name(Transport::WebSocket, "v4.channel.k8s.io"), Some(v4));
        assert_eq!(Protocol::from_name(Transport::WebSocket, "v5.channel.k8s.io"), Some(v5));
        for protocol in Protocol::ANY_EXEC {
            assert_eq!(Protocol::from_name(protocol.transport(), protocol.name()), Some(*protocol));
        }
    }
}
