//! The columns of the table: each transport, and each version on it.
//!
//! Holds the order of the columns and their names.

use kubestream::protocol::Subprotocol;
use kubestream::upgrade::{Protocol, Transport, Version};

/// Cases that are tried in the same columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// The request and its answer: one column for each transport.
    Handshake,
    /// Exec and attach: one column for each version.
    Exec,
    /// Port-forward: one column for each protocol of it.
    Forward,
}

impl Group {
    pub const ALL: [Self; 3] = [Self::Handshake, Self::Exec, Self::Forward];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake and requests",
            Self::Exec => "exec and attach",
            Self::Forward => "port-forward",
        }
    }

    #[must_use]
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Handshake => &HANDSHAKE,
            Self::Exec => &EXEC,
            Self::Forward => &FORWARD,
        }
    }
}

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// The protocol of the column. In [`Group::Handshake`] it stands for its whole transport.
    pub protocol: Protocol,
}

impl Column {
    const fn new(name: &'static str, protocol: Protocol) -> Self {
        Self { name, protocol }
    }

    #[must_use]
    pub fn is_spdy(self) -> bool {
        self.protocol.transport() == Transport::Spdy
    }

    /// True for legacy port-forward: the request names the ports, and each port has one connection.
    #[must_use]
    pub fn names_ports(self) -> bool {
        matches!(self.protocol, Protocol::LegacyPortForward(_))
    }

    /// True if the client can set the size of a terminal. Over WebSocket every version has the channel for it.
    #[must_use]
    pub fn resizes(self) -> bool {
        !self.is_spdy() || self.protocol.version() >= Some(Version::V3)
    }
}

static HANDSHAKE: [Column; 2] = [
    Column::new("SPDY", Protocol::SpdyExec(Version::V4)),
    Column::new("WebSocket", Protocol::WebSocketExec(Subprotocol::V4)),
];

static EXEC: [Column; 10] = [
    Column::new("SPDY v1", Protocol::SpdyExec(Version::V1)),
    Column::new("SPDY v2", Protocol::SpdyExec(Version::V2)),
    Column::new("SPDY v3", Protocol::SpdyExec(Version::V3)),
    Column::new("SPDY v4", Protocol::SpdyExec(Version::V4)),
    Column::new("WS unnamed", Protocol::WebSocketExec(Subprotocol::Unnamed)),
    Column::new("WS v1", Protocol::WebSocketExec(Subprotocol::V1)),
    Column::new("WS v1 base64", Protocol::WebSocketExec(Subprotocol::V1Base64)),
    Column::new("WS v4", Protocol::WebSocketExec(Subprotocol::V4)),
    Column::new("WS v4 base64", Protocol::WebSocketExec(Subprotocol::V4Base64)),
    Column::new("WS v5", Protocol::WebSocketExec(Subprotocol::V5)),
];

static FORWARD: [Column; 5] = [
    Column::new("SPDY", Protocol::SpdyPortForward),
    Column::new("WS tunnel", Protocol::TunneledPortForward),
    Column::new("WS unnamed", Protocol::LegacyPortForward(Subprotocol::Unnamed)),
    Column::new("WS v4", Protocol::LegacyPortForward(Subprotocol::V4)),
    Column::new("WS v4 base64", Protocol::LegacyPortForward(Subprotocol::V4Base64)),
];
