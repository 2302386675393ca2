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

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::client::PortForward;
use super::error::Error;
use crate::abort::AbortOnDrop;
use crate::port;

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
    /// Which listener the next call asks first, so that a busy port does not starve the others.
    turn: usize,
}

impl Forwarder {
    /// Listens on each address for each port. If a local port is 0, the same free port is used on all addresses.
    ///
    /// If `addresses` is empty, this listens on `127.0.0.1` and `::1`, and one of the two is enough. Otherwise it fails
    /// unless it can listen on all of them.
    ///
    /// # Errors
    /// The system's error if this cannot listen on a required address. [`InvalidInput`](io::ErrorKind::InvalidInput) if
    /// `ports` is empty.
    ///
    /// # Cancel safety
    /// If dropped before completion, all listeners are closed.
    pub async fn bind(addresses: &[IpAddr], ports: &[PortPair]) -> io::Result<Self> {
        let all = !addresses.is_empty();
        let addresses = if all { addresses } else { &LOCALHOST };
        let mut listeners = Vec::new();
        for pair in ports {
            let (mut pair, mut refused, before) = (*pair, None, listeners.len());
            for ip in addresses {
                match TcpListener::bind((*ip, pair.local)).await {
                    Ok(listener) => {
                        pair.local = listener.local_addr()?.port();
                        listeners.push((listener, pair));
                    }
                    Err(error) if all => return Err(error),
                    Err(error) => refused = Some(error),
                }
            }
            if let Some(error) = refused.filter(|_| listeners.len() == before) {
                return Err(error);
            }
        }
        if listeners.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no port to listen on"));
        }
        Ok(Self { listeners, turn: 0 })
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
#[derive(Debug)]
pub struct Reconnecting<Connect> {
    connect: Connect,
    first_wait: Duration,
    longest_wait: Duration,
    attempts: Option<u32>,
    current: Option<Arc<PortForward>>,
}

impl<Connect, Connecting, E> Reconnecting<Connect>
where
    Connect: FnMut() -> Connecting,
    Connecting: Future<Output = Result<PortForward, E>>,
{
    /// `connect` must dial the server, upgrade the connection, spawn the driver, and return a [`PortForward`].
    pub fn new(connect: Connect) -> Self {
        let (first_wait, longest_wait) = (Duration::from_millis(100), Duration::from_secs(10));
        Self { connect, first_wait, longest_wait, attempts: None, current: None }
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

    /// Sets after how many failed attempts in a row [`get`](Self::get) returns the error. By default it tries again for
    /// ever.
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
    /// The error of the last attempt, after as many failed attempts in a row as [`attempts`](Self::attempts) says.
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
            match (self.connect)().await {
                Ok(forward) => return Ok(Arc::clone(self.current.insert(Arc::new(forward)))),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if self.attempts.is_some_and(|most| failures >= most) {
                        return Err(error);
                    }
                }
            }
            sleep(wait).await;
            wait = wait.saturating_mul(2).min(self.longest_wait);
        }
    }
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
