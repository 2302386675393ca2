//! The limits of a handshake.
//!
//! Only the values; the client and the server keep to them.

use std::time::Duration;

use super::websocket::Origins;

/// The limits of a handshake, for clients and servers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The most bytes of the peer's head. For a client, of all 1xx heads and the final head together. For a server that
    /// includes the command: kubectl puts each argument into the query. Default: 64 KiB.
    pub max_head: usize,
    /// The most header lines of the peer's head. Default: 100.
    pub max_headers: usize,
    /// Time for the whole handshake up to the end of the peer's head, not for each read. Also the time to write an
    /// answer. Default: 10 s.
    pub head_timeout: Duration,
    /// How many bytes a client keeps of a refusal's body, and how many a server discards after its own refusal.
    /// Default: 64 KiB.
    pub max_refusal_body: usize,
    /// Time for a client to read a refusal's body, and for a server to wait for the client's end after its own refusal.
    /// Default: 5 s.
    pub refusal_body_timeout: Duration,
    /// Which web pages may open a WebSocket at a server. Default: pages of the same host.
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
