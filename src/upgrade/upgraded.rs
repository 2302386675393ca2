//! A connection past its 101, for a multiplexer or a proxy.
//!
//! Holds the IO and what the handshake settled, and does nothing with them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::Protocol;

/// An IO past its 101, the bytes that were read from it past the head, and the protocol that was negotiated.
///
/// If another library such as hyper, kube or axum made the handshake, make one with [`Upgraded::new`].
pub struct Upgraded<IO> {
    pub(super) io: IO,
    pub(super) read_ahead: Bytes,
    pub(super) protocol: Option<Protocol>,
    pub(super) ports: Option<Arc<[u16]>>,
}

impl<IO> Upgraded<IO> {
    /// Wraps an IO whose handshake was made elsewhere. `read_ahead` is what was already read from `io` past the head.
    /// `protocol` is `None` for raw SPDY.
    pub fn new(io: IO, read_ahead: Bytes, protocol: Option<Protocol>) -> Self {
        Self { io, read_ahead, protocol, ports: None }
    }

    /// Wraps an IO for raw SPDY, if nothing was read from it past the head.
    pub fn from_io(io: IO) -> Self {
        Self::new(io, Bytes::new(), None)
    }

    /// The negotiated protocol. `None` for raw SPDY.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// Sets the ports that the request asked for, in the request's order. Needed if the handshake of
    /// [`Protocol::LegacyPortForward`] was made elsewhere: without ports, legacy port-forward has no connections. Other
    /// protocols ignore this.
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
}
