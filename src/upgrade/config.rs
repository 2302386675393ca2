//! What a handshake may cost.

use std::time::Duration;

use super::websocket::Origins;

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
