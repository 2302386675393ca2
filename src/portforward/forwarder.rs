//! Listens on local ports and forwards their connections, as `kubectl port-forward` does.
//!
//! Also reads ports in kubectl's notation, and makes a new connection to the cluster when the old one is lost. It
//! spawns nothing: the caller runs each local connection.

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
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let invalid = || InvalidPort(text.to_owned());
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

/// The text is not a [`PortPair`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid port {0:?}: it is REMOTE, LOCAL:REMOTE or :REMOTE, and the remote one is not 0")]
#[non_exhaustive]
pub struct InvalidPort(pub String);

/// Local addresses to listen on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Addresses {
    /// `127.0.0.1` and `::1`. It is enough if one of them can be listened on.
    #[default]
    Localhost,
    /// These addresses. All of them must be listened on.
    These(Vec<IpAddr>),
}

/// Listens on local ports.
#[derive(Debug)]
pub struct Forwarder {
    listeners: Vec<(TcpListener, PortPair)>,
    /// Which listener is asked first next time, so that a busy port does not starve the others.
    turn: usize,
}

impl Forwarder {
    /// Listens on each address for each port. A free local port is the same on all addresses.
    ///
    /// # Errors
    /// The system's error if a required address cannot be listened on. `InvalidInput` if there is no address or no
    /// port.
    ///
    /// # Cancel safety
    /// If dropped before completion, nothing is listened on.
    pub async fn bind(addresses: &Addresses, ports: &[PortPair]) -> io::Result<Self> {
        let (ips, all) = match addresses {
            Addresses::Localhost => (vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], false),
            Addresses::These(ips) => (ips.clone(), true),
        };
        let mut listeners = Vec::new();
        for pair in ports {
            let (mut pair, mut refused, before) = (*pair, None, listeners.len());
            for ip in &ips {
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
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address or no port to listen on"));
        }
        Ok(Self { listeners, turn: 0 })
    }

    /// The local addresses that it listens on, each with its remote port.
    pub fn listening(&self) -> impl Iterator<Item = (SocketAddr, u16)> {
        let address = |(listener, pair): &(TcpListener, PortPair)| Some((listener.local_addr().ok()?, pair.remote));
        self.listeners.iter().filter_map(address)
    }

    /// Waits for the next local connection.
    ///
    /// # Errors
    /// The system's error. You can call this again after a while: a lack of file descriptors, for example, is
    /// temporary.
    ///
    /// # Cancel safety
    /// If dropped before completion, no connection is lost.
    pub async fn accept(&mut self) -> io::Result<LocalConnection> {
        poll_fn(|cx| {
            let count = self.listeners.len();
            for at in (self.turn..count).chain(0..self.turn) {
                let Some((listener, pair)) = self.listeners.get(at) else { continue };
                if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                    self.turn = at.wrapping_add(1);
                    let local = |(tcp, from)| LocalConnection { tcp: AbortOnDrop::new(tcp), from, pair: *pair };
                    return Poll::Ready(accepted.map(local));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// A connection that was made to a local port. It is reset if it is dropped.
#[derive(Debug)]
pub struct LocalConnection {
    tcp: AbortOnDrop<TcpStream>,
    from: SocketAddr,
    pair: PortPair,
}

impl LocalConnection {
    /// The local and the remote port.
    #[must_use]
    pub fn ports(&self) -> PortPair {
        self.pair
    }

    /// The address of the program that has connected.
    #[must_use]
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// Connects to the remote port, and moves bytes until both directions have ended, each by itself
    /// ([`Connection::relay`](super::Connection::relay)). A break on one side is a reset on the other side. In legacy
    /// port-forward the server is not told when the local side ends its direction.
    ///
    /// # Errors
    /// The same as [`PortForward::connect`] and [`Connection::data`](super::Connection::data). If the local socket
    /// fails, forwarding ends with `Ok`.
    ///
    /// # Cancel safety
    /// If dropped before completion, both sides are reset.
    pub async fn forward(self, to: &PortForward) -> Result<(), Error> {
        let remote = to.connect(self.pair.remote).await?;
        // Small writes may be keystrokes. If the option cannot be set, the socket is gone.
        let _ = self.tcp.get_ref().set_nodelay(true);
        match remote.relay(self.tcp).await {
            Err(Error::Local { .. }) => Ok(()),
            ended => ended,
        }
    }
}

/// How long to wait between attempts to connect to the cluster again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backoff {
    /// The wait after the first failure. Each wait is twice the one before. Default: 100 ms.
    pub first: Duration,
    /// The longest wait. Default: 10 s.
    pub most: Duration,
    /// After how many failed attempts in a row the caller gets the failure. `None`, the default: never.
    pub attempts: Option<u32>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), most: Duration::from_secs(10), attempts: None }
    }
}

/// A connection to the cluster that is replaced by a new one when it is lost.
#[derive(Debug)]
pub struct Reconnecting<Connect> {
    connect: Connect,
    backoff: Backoff,
    current: Option<Arc<PortForward>>,
}

impl<Connect, Connecting, E> Reconnecting<Connect>
where
    Connect: FnMut() -> Connecting,
    Connecting: Future<Output = Result<PortForward, E>>,
{
    /// `connect` has to dial, to upgrade, and to spawn the driver.
    pub fn new(connect: Connect, backoff: Backoff) -> Self {
        Self { connect, backoff, current: None }
    }

    /// Begins with an existing connection.
    #[must_use]
    pub fn starting_with(mut self, forward: PortForward) -> Self {
        self.current = Some(Arc::new(forward));
        self
    }

    /// The current connection if it still takes streams, or else a new one.
    ///
    /// # Errors
    /// The error of the last attempt, after [`Backoff::attempts`] failures in a row.
    ///
    /// # Cancel safety
    /// If dropped before completion, the attempt is dropped, and the next call counts and waits from the beginning.
    pub async fn get(&mut self) -> Result<Arc<PortForward>, E> {
        if let Some(current) = self.current.as_ref().filter(|current| current.multiplexer().takes_streams()) {
            return Ok(Arc::clone(current));
        }
        let (mut wait, mut failures) = (self.backoff.first.min(self.backoff.most), 0u32);
        loop {
            match (self.connect)().await {
                Ok(forward) => return Ok(Arc::clone(self.current.insert(Arc::new(forward)))),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if self.backoff.attempts.is_some_and(|most| failures >= most) {
                        return Err(error);
                    }
                }
            }
            sleep(wait).await;
            wait = wait.saturating_mul(2).min(self.backoff.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_spelt_as_kubectl_spells_them() {
        for (text, local, remote) in [("8080", 8080, 8080), ("8888:80", 8888, 80), (":80", 0, 80), ("0:80", 0, 80)] {
            assert_eq!(text.parse(), Ok(PortPair { local, remote }), "{text}");
        }
        for bad in ["", ":", "0", "80:", "80:0", ":0", "a", "80:a", "65536", "-1", "+80", "1:2:3", " 80", "80:+1"] {
            assert_eq!(bad.parse::<PortPair>(), Err(InvalidPort(bad.to_owned())), "{bad}");
        }
        assert_eq!(PortPair { local: 1, remote: 2 }.to_string(), "1:2");
    }
}
