//! A connection past its upgrade.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::Protocol;

/// An IO past its 101, the bytes that were read from it behind the head, and the protocol settled on.
///
/// Users of hyper, kube or axum, whose handshake is made elsewhere, make one with [`Upgraded::new`].
pub struct Upgraded<IO> {
    pub(super) io: IO,
    pub(super) read_ahead: Bytes,
    pub(super) protocol: Option<Protocol>,
    pub(super) ports: Option<Arc<[u16]>>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_payload() {
        let upgraded = Upgraded::new((), Bytes::from_static(b"secret"), None);
        assert_eq!(format!("{upgraded:?}"), "Upgraded { protocol: None, read_ahead: 6, .. }");
    }
}
