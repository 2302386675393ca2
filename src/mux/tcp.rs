//! TCP settings with which the kernel detects a dead peer.
//!
//! This module owns the options of a TCP socket. It must not know a connection, which works over any IO: set the
//! options before you wrap the socket.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a connection is silent before the first probe, for [`set_tcp_keepalive`]: 30 s.
pub const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// The time between two probes, for [`set_tcp_keepalive`]: 10 s.
pub const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How many probes may be unanswered, for [`set_tcp_keepalive`]: 3. With the other two values it finds a dead host
/// after a minute.
pub const TCP_KEEPALIVE_PROBES: u32 = 3;

/// Sets when the kernel counts a TCP peer's host as dead: TCP keepalive, and `TCP_USER_TIMEOUT` on Linux.
///
/// The peer's kernel answers probes even while the peer's program reads nothing. So these timers can tell a dead host
/// from a paused reader, and PINGs cannot ([`Config::keepalive_timeout`](super::Config::keepalive_timeout)). If there
/// is a hop between the two ends, the hop answers the probes, not the peer.
///
/// - `idle`: how long the connection must be silent before the kernel sends the first probe, in whole seconds. The
///   kernel sends probes only while the peer's kernel has acknowledged all our bytes. [`TCP_KEEPALIVE_IDLE`] is a good
///   value.
/// - `interval`: the time between two probes, in whole seconds. [`TCP_KEEPALIVE_INTERVAL`] is a good value.
/// - `probes`: how many probes may be unanswered before the connection fails. [`TCP_KEEPALIVE_PROBES`] is a good value.
///   Probes matter to a client that has its status and sends nothing more, and to an end that sends no PINGs. While a
///   PING is unacknowledged, there are no probes, and `user_timeout` applies instead.
/// - `user_timeout`: how long our bytes may stay unacknowledged before the connection fails (`TCP_USER_TIMEOUT`, RFC
///   5482; Linux only). `None` keeps the system's setting: Linux gives up after some 15 minutes of retransmission
///   (`tcp_retries2`). On Linux it also ends the connection to a live peer if the peer's program has read nothing for
///   this long while our bytes wait: for example because of a pager, or of a command that does not read its stdin. Make
///   it longer than such a pause.
///
/// Systems other than Linux, macOS, Windows and FreeBSD keep their own `interval` and `probes`.
///
/// ```no_run
/// # async fn serve() -> std::io::Result<()> {
/// use kubestream::mux::{self, TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_PROBES};
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:10010").await?;
/// let (tcp, _) = listener.accept().await?;
/// mux::set_tcp_keepalive(&tcp, TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_PROBES, None)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The system's error if it does not accept an option.
// Not every system has every option.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
pub fn set_tcp_keepalive(
    socket: &TcpStream,
    idle: Duration,
    interval: Duration,
    probes: u32,
    user_timeout: Option<Duration>,
) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(idle);
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows", target_os = "freebsd"))]
    let keepalive = keepalive.with_interval(interval).with_retries(probes);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    if user_timeout.is_some() {
        socket.set_tcp_user_timeout(user_timeout)?;
    }
    Ok(())
}
