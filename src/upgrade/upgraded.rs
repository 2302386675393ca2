//! A connection after its upgrade, for a multiplexer or a proxy.
//!
//! Holds the IO and what the handshake settled, and does nothing with them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::error::UpgradeError;
use crate::protocol::{Protocol, Transport};

/// A connection after its upgrade: the IO, the bytes that were already read from it past the peer's head, and the
/// protocol that was negotiated.
///
/// If another library such as hyper, kube or axum made the handshake, create an `Upgraded` with [`Upgraded::new`].
pub struct Upgraded<IO> {
    pub(super) io: IO,
    pub(super) read_ahead: Bytes,
    pub(super) protocol: Option<Protocol>,
    pub(super) ports: Option<Arc<[u16]>>,
    /// What a proxy knows of the protocol, if it passed the handshake on.
    pub(super) passed_on: Option<(Transport, Box<str>)>,
    pub(super) websocket_refused: Option<Box<UpgradeError>>,
}

impl<IO> Upgraded<IO> {
    /// Wraps an IO whose handshake was made elsewhere. `read_ahead` is what was already read from `io` past the peer's
    /// head. `protocol` is `None` for raw SPDY. For [`Protocol::LegacyPortForward`], also call
    /// [`with_ports`](Self::with_ports).
    pub fn new(io: IO, read_ahead: Bytes, protocol: Option<Protocol>) -> Self {
        Self { io, read_ahead, protocol, ports: None, passed_on: None, websocket_refused: None }
    }

    /// Wraps an IO for raw SPDY, if nothing was read from it past the head.
    pub fn from_io(io: IO) -> Self {
        Self::new(io, Bytes::new(), None)
    }

    /// The negotiated protocol. `None` for raw SPDY.
    ///
    /// It is also `None` after [`Pending::pass_on`](super::Pending::pass_on). There the client and the backend
    /// negotiate the protocol: this crate may not know it, and the name alone does not tell exec from legacy
    /// port-forward. [`protocol_name`](Self::protocol_name) and [`transport`](Self::transport) say what both sides
    /// speak.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// The name of the negotiated protocol on the wire. Empty for raw SPDY, for a protocol without a name, and after
    /// [`Pending::pass_on`](super::Pending::pass_on) if the backend named none.
    pub fn protocol_name(&self) -> &str {
        match &self.passed_on {
            Some((_, name)) => name,
            None => self.protocol.map_or("", Protocol::name),
        }
    }

    /// The transport that the connection has switched to.
    pub fn transport(&self) -> Transport {
        match &self.passed_on {
            Some((transport, _)) => *transport,
            None => self.protocol.map_or(Transport::Spdy, Protocol::transport),
        }
    }

    /// Why the server refused WebSocket, if [`connect_with_fallback`](super::connect_with_fallback) then upgraded a
    /// second connection to SPDY. `None` otherwise.
    pub fn websocket_refused(&self) -> Option<&UpgradeError> {
        self.websocket_refused.as_deref()
    }

    /// Sets the ports that the request asked for, in the request's order. Call this if the handshake of
    /// [`Protocol::LegacyPortForward`] was made elsewhere: without ports, legacy port-forward has no connections.
    /// [`asked_ports`](super::asked_ports) reads them from the query. Other protocols ignore this.
    #[must_use]
    pub fn with_ports(self, ports: &[u16]) -> Self {
        let wants = matches!(self.protocol, Some(Protocol::LegacyPortForward(_)));
        Self { ports: wants.then(|| ports.into()), ..self }
    }

    /// The ports that the request asked for, with `Protocol::LegacyPortForward`. Empty with other protocols.
    pub fn ports(&self) -> &[u16] {
        self.ports.as_deref().unwrap_or_default()
    }

    pub(crate) fn shared_ports(&self) -> Option<Arc<[u16]>> {
        self.ports.clone()
    }

    /// The IO, the bytes that were read past the head, and the protocol.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_payload() {
        let upgraded = Upgraded::new((), Bytes::from_static(b"secret"), None);
        assert_eq!(format!("{upgraded:?}"), "Upgraded { protocol: None, read_ahead: 6, .. }");
    }

    #[test]
    fn a_name_and_a_transport_are_known_with_and_without_a_protocol() {
        let new = |protocol| Upgraded::new((), Bytes::new(), protocol);
        let named = |upgraded: &Upgraded<()>| (upgraded.transport(), upgraded.protocol_name().to_owned());
        let tunnel = new(Some(Protocol::TunneledPortForward));
        assert_eq!(named(&tunnel), (Transport::WebSocket, "SPDY/3.1+portforward.k8s.io".to_owned()));
        assert_eq!(named(&new(None)), (Transport::Spdy, String::new()));
        let passed_on = Upgraded { passed_on: Some((Transport::WebSocket, "new".into())), ..new(None) };
        assert_eq!(named(&passed_on), (Transport::WebSocket, "new".to_owned()));
        assert_eq!(passed_on.protocol(), None);
    }
}
