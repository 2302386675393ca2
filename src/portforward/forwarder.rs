//! Listens on local ports and forwards their connections, as `kubectl port-forward` does.
//!
//! Also reads ports in kubectl's notation, and makes a new connection to the cluster when the old one is lost. It
//! spawns nothing: the caller runs each forwarding.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

use super::client::PortForward;
use super::error::Error;
use crate::abort::AbortOnDrop;
use crate::port;
use crate::upgrade::UpgradeError;

/// A local port, and the remote port to which it is forwarded. Parses kubectl's notation: `8080`, `8888:80`, and `:80`
/// or `0:80` for any free local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs)] // a pair has two
pub struct PortPair {
    /// The local port. 0 means any free one.
    pub local: u16,
    /// The port of the pod, never 0.
    pub remote: u16,
}

impl FromStr for PortPair {
    /// Always [`Error::InvalidPort`].
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidPort(text.to_owned());
        let port = |text| port::parse(text).ok_or_else(invalid);
        let pair = match text.split_once(':') {
            None => Self { local: port(text)?, remote: port(text)? },
            Some(("", remote)) => Self { local: 0, remote: port(remote)? },
            Some((local, remote)) => Self { local: port(local)?, remote: port(remote)? },
        };
        if pair.remote == 0 { Err(invalid()) } else { Ok(pair) }
    }
}

impl fmt::Display for PortPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.local, self.remote)
    }
}

const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Listens on local ports for the connections to forward, as `kubectl port-forward` does.
#[derive(Debug)]
pub struct Forwarder {
    listeners: Vec<(TcpListener, PortPair)>,
    refused: Vec<io::Error>,
    /// Which listener the next call asks first, so that a busy port does not starve the others.
    turn: usize,
}

impl Forwarder {
    /// Listens on each address for each port. If a local port is 0, the same free port is used on all addresses. `::`
    /// does not include the addresses of IPv4, which `0.0.0.0` stands for.
    ///
    /// `127.0.0.1` and `::1` together are localhost, and one of the two is enough. If `addresses` is empty, this
    /// listens on localhost. A port that cannot be listened on at localhost or at another address is left out, and the
    /// other ports go on. [`refused`](Self::refused) says what is missing.
    ///
    /// # Errors
    /// If this cannot listen on any port, the reasons, with the kind of the first one.
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if `ports` is empty.
    ///
    /// # Cancel safety
    /// If dropped before completion, all listeners are closed.
    pub async fn bind(addresses: &[IpAddr], ports: &[PortPair]) -> io::Result<Self> {
        if ports.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no port to listen on"));
        }
        let addresses = if addresses.is_empty() { &LOCALHOST } else { addresses };
        let localhost = LOCALHOST.iter().all(|ip| addresses.contains(ip));
        let mut forwarder = Self { listeners: Vec::new(), refused: Vec::new(), turn: 0 };
        for pair in ports {
            forwarder.listen_on(addresses, localhost, *pair);
        }
        let Some(first) = forwarder.refused.first().filter(|_| forwarder.listeners.is_empty()) else {
            return Ok(forwarder);
        };
        let reasons: Vec<_> = forwarder.refused.iter().map(io::Error::to_string).collect();
        let reasons = format!("unable to listen on any of the requested ports: {}", reasons.join("; "));
        Err(io::Error::new(first.kind(), reasons))
    }

    /// Listens on a port at all addresses that are required, or at none.
    fn listen_on(&mut self, addresses: &[IpAddr], localhost: bool, mut pair: PortPair) {
        let (mut listeners, mut required, mut optional) = (Vec::new(), Vec::new(), Vec::new());
        for (at, ip) in addresses.iter().enumerate() {
            if addresses.iter().take(at).any(|other| other == ip) {
                continue;
            }
            let address = SocketAddr::new(*ip, pair.local);
            let listening = listen(address).and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
            match listening {
                Ok((port, listener)) => {
                    pair.local = port;
                    listeners.push(listener);
                }
                Err(error) => {
                    let refused = if localhost && LOCALHOST.contains(ip) { &mut optional } else { &mut required };
                    refused.push(io::Error::new(error.kind(), format!("unable to listen on {address}: {error}")));
                }
            }
        }
        if optional.len() == LOCALHOST.len() {
            required.append(&mut optional);
        }
        if required.is_empty() {
            self.listeners.extend(listeners.into_iter().map(|listener| (listener, pair)));
            // Half of localhost is not missing if the machine does not have it.
            optional.retain(|error| matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied));
        }
        self.refused.append(&mut required);
        self.refused.append(&mut optional);
    }

    /// What [`bind`](Self::bind) could not listen on, although it has found a port to listen on: an error for each
    /// address and port, which names both. If a port is left out, or if half of localhost is missing because another
    /// program has the port or because this program may not use it, it is here.
    pub fn refused(&self) -> impl Iterator<Item = &io::Error> {
        self.refused.iter()
    }

    /// The local addresses that it listens on, each with its remote port.
    pub fn listening(&self) -> impl Iterator<Item = (SocketAddr, u16)> {
        let address = |(listener, pair): &(TcpListener, PortPair)| Some((listener.local_addr().ok()?, pair.remote));
        self.listeners.iter().filter_map(address)
    }

    /// Waits for the next local connection. Returns its socket, which is reset if it is dropped, the address of the
    /// program that has connected, and the pair of ports. [`PortForward::forward`] forwards the socket to the remote
    /// port.
    ///
    /// # Errors
    /// The system's error. You can call this again after a while: a lack of file descriptors, for example, is
    /// temporary.
    ///
    /// # Cancel safety
    /// If dropped before completion, no connection is lost.
    pub async fn accept(&mut self) -> io::Result<(AbortOnDrop<TcpStream>, SocketAddr, PortPair)> {
        poll_fn(|cx| {
            let count = self.listeners.len();
            for at in (self.turn..count).chain(0..self.turn) {
                let Some((listener, pair)) = self.listeners.get(at) else { continue };
                if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                    self.turn = at.wrapping_add(1);
                    return Poll::Ready(accepted.map(|(socket, from)| (AbortOnDrop::new(socket), from, *pair)));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// As [`TcpListener::bind`], but a listener on `::` never takes the port of IPv4 too: `0.0.0.0` may be listened on as
/// well.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        SockRef::from(&socket).set_only_v6(true)?;
    }
    // On Windows this would let two programs listen on one port.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    const BACKLOG: u32 = 1024;
    socket.listen(BACKLOG)
}

impl PortForward {
    /// Connects to a port of the pod, and copies bytes between it and a local socket until both directions have ended
    /// ([`Connection::relay`](super::Connection::relay)). One direction can end before the other. If one side fails,
    /// the other side is reset. In legacy port-forward the server is not told when the local program ends its
    /// direction.
    ///
    /// It also sets `TCP_NODELAY` on the socket.
    ///
    /// # Errors
    /// The same as those of [`connect`](Self::connect) and [`Connection::data`](super::Connection::data). If only the
    /// local socket fails, this returns `Ok`.
    ///
    /// # Cancel safety
    /// If dropped before completion, both sides are reset.
    pub async fn forward(&self, socket: AbortOnDrop<TcpStream>, port: u16) -> Result<(), Error> {
        let remote = self.connect(port).await?;
        // Small writes may be keystrokes. If the option cannot be set, the socket is gone.
        let _ = socket.get_ref().set_nodelay(true);
        match remote.relay(socket).await {
            Err(Error::Local { .. }) => Ok(()),
            ended => ended,
        }
    }
}

/// A [`PortForward`] that is replaced by a new one when its connection to the server is lost.
///
/// An attempt that fails is repeated, with waits in between, until it succeeds or fails for good. The pod is gone, for
/// example, or the credentials are not valid any more: then [`get`](Self::get) returns the reason.
///
/// ```no_run
/// # async fn forward(server: &str, token: &str) -> std::io::Result<()> {
/// use kubestream::mux::{Config, Multiplexer};
/// use kubestream::portforward::{Forwarder, PortForward, Reconnecting};
/// use kubestream::upgrade::{self, Protocol};
///
/// let connect = || async {
///     let request = http::Request::get("http://node:8001/api/v1/namespaces/default/pods/web/portforward").body(());
///     let request = request.map_err(std::io::Error::other)?;
///     let tcp = tokio::net::TcpStream::connect("node:8001").await?;
///     let upgraded = upgrade::connect(tcp, request, &[Protocol::TunneledPortForward], &Default::default()).await?;
///     let (mux, driver) = Multiplexer::client(upgraded, Config::default());
///     tokio::spawn(driver);
///     Ok::<_, std::io::Error>(PortForward::new(mux)?)
/// };
/// let mut cluster = Reconnecting::new(connect).on_failure(|error, attempt| {
///     eprintln!("attempt {attempt} failed: {error}");
///     true
/// });
/// let mut forwarder = Forwarder::bind(&[], &["8080:80".parse().map_err(std::io::Error::from)?]).await?;
/// loop {
///     let (socket, _, ports) = forwarder.accept().await?;
///     let forward = cluster.get().await?;
///     tokio::spawn(async move { forward.forward(socket, ports.remote).await });
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Reconnecting<Connect, Told> {
    connect: Connect,
    told: Told,
    first_wait: Duration,
    longest_wait: Duration,
    attempts: Option<u32>,
    current: Option<Arc<PortForward>>,
}

impl<Connect, Connecting, E> Reconnecting<Connect, fn(&E, u32) -> bool>
where
    Connect: FnMut() -> Connecting,
    Connecting: Future<Output = Result<PortForward, E>>,
{
    /// `connect` must dial the server, upgrade the connection, spawn the driver, and return a [`PortForward`]. If it wraps
    /// the [`UpgradeError`] in another error, for example by [`io::Error::other`], it must keep it as the inner error or
    /// as a source: else no refusal counts as one for good.
    pub fn new(connect: Connect) -> Self {
        let (first_wait, longest_wait) = (Duration::from_millis(100), Duration::from_secs(10));
        Self { connect, told: |_, _| true, first_wait, longest_wait, attempts: None, current: None }
    }
}

impl<Connect, Connecting, E, Told> Reconnecting<Connect, Told>
where
    Connect: FnMut() -> Connecting,
    Connecting: Future<Output = Result<PortForward, E>>,
    E: std::error::Error + 'static,
    Told: FnMut(&E, u32) -> bool,
{
    /// Sets what is told of each failed attempt before it is repeated: its error, and how many attempts in a row have
    /// failed, which is 1 after the first. If `told` returns `false`, [`get`](Self::get) does not try again, and
    /// returns the error. By default each failed attempt is repeated.
    ///
    /// `told` does not decide on permanent failures, which are never repeated.
    #[must_use]
    pub fn on_failure<F: FnMut(&E, u32) -> bool>(self, told: F) -> Reconnecting<Connect, F> {
        let Self { connect, told: _, first_wait, longest_wait, attempts, current } = self;
        Reconnecting { connect, told, first_wait, longest_wait, attempts, current }
    }

    /// Sets how long [`get`](Self::get) waits after the first failed attempt. Each further wait is twice the wait
    /// before it. Default: 100 ms.
    #[must_use]
    pub fn first_wait(mut self, wait: Duration) -> Self {
        self.first_wait = wait;
        self
    }

    /// Sets the longest wait between two attempts. Default: 10 s.
    #[must_use]
    pub fn longest_wait(mut self, wait: Duration) -> Self {
        self.longest_wait = wait;
        self
    }

    /// Sets after how many failed attempts in a row [`get`](Self::get) returns the error. By default their number has
    /// no limit.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Begins with an existing `PortForward`, so that the first [`get`](Self::get) does not connect.
    #[must_use]
    pub fn starting_with(mut self, forward: PortForward) -> Self {
        self.current = Some(Arc::new(forward));
        self
    }

    /// Returns the current `PortForward` if its connection still accepts new streams, or else connects anew.
    ///
    /// # Errors
    /// The error of the last attempt, if its failure is permanent, if as many attempts in a row have failed as
    /// [`attempts`](Self::attempts) says, or if [`on_failure`](Self::on_failure) says so.
    ///
    /// A failure is permanent if its error, or an error that this has as its source or inside of an [`io::Error`], is
    /// an [`UpgradeError`] that [is permanent](UpgradeError::is_permanent), or is [`Error::NotPortForward`]. An error
    /// of any other type is not. If you call this again after a permanent failure, it connects anew.
    ///
    /// # Cancel safety
    /// If dropped before completion, the current attempt is dropped. The next call counts attempts and waits from the
    /// beginning.
    pub async fn get(&mut self) -> Result<Arc<PortForward>, E> {
        if let Some(current) = self.current.as_ref().filter(|current| current.multiplexer().takes_streams()) {
            return Ok(Arc::clone(current));
        }
        let (mut wait, mut failures) = (self.first_wait.min(self.longest_wait), 0u32);
        loop {
            let error = match (self.connect)().await {
                Ok(forward) => return Ok(Arc::clone(self.current.insert(Arc::new(forward)))),
                Err(error) => error,
            };
            failures = failures.saturating_add(1);
            let last = is_permanent(&error) || self.attempts.is_some_and(|most| failures >= most);
            if last || !(self.told)(&error, failures) {
                return Err(error);
            }
            sleep(wait).await;
            wait = wait.saturating_mul(2).min(self.longest_wait);
        }
    }
}

/// Whether an attempt that has failed in this way would fail again.
fn is_permanent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<UpgradeError>() {
            return error.is_permanent();
        }
        if matches!(error.downcast_ref::<Error>(), Some(Error::NotPortForward(_))) {
            return true;
        }
        // The source of an `io::Error` is not the error inside of it, but that error's own source.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside.map(|inside| inside as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_spelt_as_kubectl_spells_them() {
        for (text, local, remote) in [("8080", 8080, 8080), ("8888:80", 8888, 80), (":80", 0, 80), ("0:80", 0, 80)] {
            assert_eq!(text.parse::<PortPair>().unwrap(), PortPair { local, remote }, "{text}");
        }
        for bad in ["", ":", "0", "80:", "80:0", ":0", "a", "80:a", "65536", "-1", "+80", "1:2:3", " 80", "80:+1"] {
            let error = bad.parse::<PortPair>().unwrap_err();
            assert!(matches!(&error, Error::InvalidPort(text) if text == bad), "{bad}: {error}");
        }
        assert_eq!(PortPair { local: 1, remote: 2 }.to_string(), "1:2");
    }
}
