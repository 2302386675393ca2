//! TCP settings with which the kernel detects a dead peer.
//!
//! This module owns the options of a TCP socket. It must not know a connection, which works over any IO: set the options before you wrap the
//! socket.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// When the kernel counts a TCP peer's host as dead: TCP keepalive, and `TCP_USER_TIMEOUT` on Linux.
///
/// The peer's kernel answers probes even while the peer's program reads nothing. So these timers can tell a dead host from a paused reader,
/// and PINGs cannot ([`Config::keepalive_timeout`](super::Config::keepalive_timeout)). If there is a hop between the two ends, the hop
/// answers the probes, not the peer.
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
    /// After this much silence the kernel sends the first probe, if all our bytes are acknowledged. Whole seconds. Default: 30 s.
    pub idle: Duration,
    /// The time between two probes. Whole seconds. Default: 10 s.
    pub interval: Duration,
    /// How many probes may be unanswered before the connection fails. Default: 3, which finds a dead host after a minute.
    ///
    /// The kernel sends probes only while all our bytes are acknowledged: for a client that has its status and is silent, and for an end
    /// that sends no PINGs. While a PING is unacknowledged, `user_timeout` counts instead.
    pub probes: u32,
    /// How long our bytes may stay unacknowledged before the connection fails (`TCP_USER_TIMEOUT`, RFC 5482; Linux only). Default: `None`,
    /// which keeps the system's setting: Linux gives up after some 15 minutes of retransmission (`tcp_retries2`).
    ///
    /// On Linux it also ends the connection to a live peer whose program has read nothing for this long while our bytes wait, for example
    /// because of a pager, or a command that does not read its stdin. Make it longer than such a pause.
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
    /// The system's error.
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
