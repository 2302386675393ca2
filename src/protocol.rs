//! The protocols of exec, attach and port-forward, and their names on the wire.
//!
//! Owns which protocols there are, what each can say, and which transport it is spoken over. It must not read or write a byte.

use std::fmt;

use http::header::{self, HeaderName};

/// The header of a stream that says what the stream is for: `stdin` or `error` of a session, `data` or `error` of a forwarded
/// connection.
pub const STREAM_TYPE: &str = "streamtype";
/// The header of a port-forward stream that names the port.
pub const PORT: &str = "port";
/// The header of a port-forward stream that its connection's data stream and error stream have in common.
pub const REQUEST_ID: &str = "requestid";
/// The header in the answer to a data stream that says why there will be no connection. client-go gives up all connections when an error
/// stream says anything, and does not look at the headers of an answer; a client of ours does.
pub(crate) const ERROR: &str = "error";

/// The header that names the protocol of SPDY.
pub(crate) const X_STREAM_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");

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
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Spdy => "SPDY/3.1",
            Self::WebSocket => "websocket",
        }
    }

    /// The header that protocols are offered in.
    pub(crate) fn offers(self) -> HeaderName {
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

/// A subprotocol of `Sec-WebSocket-Protocol` that carries exec and attach, and some of them the old form of port-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subprotocol {
    /// None was asked for: as `channel.k8s.io`.
    Unnamed,
    /// `channel.k8s.io`: errors come as text, and stdin has no end.
    V1,
    /// `base64.channel.k8s.io`: the same in messages of text.
    V1Base64,
    /// `v2.channel.k8s.io`, which clients offer and no server of Kubernetes has: here it means what v1 does.
    V2,
    /// `v3.channel.k8s.io`, of which the same is true.
    V3,
    /// `v4.channel.k8s.io`: the end of the command comes as a JSON [`Status`](crate::status::Status).
    V4,
    /// `v4.base64.channel.k8s.io`: the same in messages of text.
    V4Base64,
    /// `v5.channel.k8s.io`: stdin can end.
    V5,
}

impl Subprotocol {
    pub(crate) const ALL: [Self; 8] =
        [Self::Unnamed, Self::V1, Self::V1Base64, Self::V2, Self::V3, Self::V4, Self::V4Base64, Self::V5];

    /// The name on the wire. [`Subprotocol::Unnamed`] has an empty one, which is never written.
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

    /// The subprotocol of a name on the wire. Names are compared byte by byte, as in Go.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subprotocol| subprotocol.name() == name)
    }

    /// The version of the remote-command protocol that it carries.
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

    /// Whether its messages are text: a digit for the channel, and base64.
    #[must_use]
    pub fn is_base64(self) -> bool {
        matches!(self, Self::V1Base64 | Self::V4Base64)
    }

    /// Whether the end of stdin can be said: only v5 has a CLOSE.
    #[must_use]
    pub fn has_close(self) -> bool {
        self == Self::V5
    }

    /// How many ports one connection forwards in the old form of port-forward, which has two channels for each: a channel is
    /// one byte, and in messages of text one ASCII character.
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
}
