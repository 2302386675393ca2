//! What the kernel is told to find out about a peer's host.
//!
//! Owns the options of a TCP socket. A connection works over any IO and must not know which: whoever has a socket sets these before it
//! is wrapped.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// When the kernel gives a TCP peer's host up: TCP keepalive, and `TCP_USER_TIMEOUT` on Linux.
///
/// A peer's kernel answers though its program reads nothing, so that this tells a dead host from a reader that pauses, where PINGs cannot
/// ([`Config::keepalive_timeout`](super::Config::keepalive_timeout)). A hop in between answers for itself.
///
/// ```no_run
/// # async fn serve() -> std::io::Result<()> {
/// use kubestream::mux::TcpLiveness;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:10010").await?;
/// let (tcp, _) = listener.accept().await?;
/// TcpLiveness::default().apply(&tcp)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TcpLiveness {
    /// Silence of the peer's kernel after which it is probed, while nothing of ours is on the way. Whole seconds. Default: 30 s.
    pub idle: Duration,
    /// Between probes. Whole seconds. Default: 10 s.
    pub interval: Duration,
    /// Probes that may go unanswered. Default: 3: a dead host is found after a minute, where no byte of ours is on the way: by a client that
    /// has its status and is silent, and by whoever sends no PINGs. Behind a PING that nobody acknowledges the kernel sends no probes:
    /// there it is `user_timeout` that counts.
    pub probes: u32,
    /// How long bytes of ours may be on the way unacknowledged (`TCP_USER_TIMEOUT`, RFC 5482; Linux alone). Default: `None`, as the
    /// system has it: Linux gives up after some 15 minutes of retransmission (`tcp_retries2`).
    ///
    /// On Linux it also ends the connection to a live peer whose program has read nothing for so long while bytes of ours wait: a pager,
    /// or a command that does not read its stdin. Set it no shorter than such a pause may be.
    pub user_timeout: Option<Duration>,
}

impl Default for TcpLiveness {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 3, user_timeout: None }
    }
}

impl TcpLiveness {
    /// Sets the options of a socket.
    ///
    /// # Errors
    /// What the system says.
    pub fn apply(&self, socket: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(socket);
        let keepalive = TcpKeepalive::new().with_time(self.idle);
        #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows", target_os = "freebsd"))]
        let keepalive = keepalive.with_interval(self.interval).with_retries(self.probes);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}
