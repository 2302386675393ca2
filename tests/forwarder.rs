//! Local ports that stand for remote ports, over real sockets on loopback.

#![cfg(feature = "net")]
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Error, Forwarder, PortForward, PortForwardServer, PortPair, Reconnecting};
use kubestream::upgrade::{self, Protocol, UpgradeError, Upgraded};
use support::pattern;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Localhost, without the address that a machine may not have.
const LOOPBACK: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::LOCALHOST)];
const FORM: Option<Protocol> = Some(Protocol::SpdyPortForward);

/// A cluster where every port echoes except port 1, which is closed. It keeps the drivers of its connections, so that a
/// test can stop them.
struct Cluster {
    address: std::net::SocketAddr,
    drivers: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Cluster {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = Self { address: listener.local_addr().unwrap(), drivers: Arc::default() };
        let drivers = Arc::clone(&cluster.drivers);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (mux, driver) = Multiplexer::server(Upgraded::new(tcp, Bytes::new(), FORM), Config::default());
                drivers.lock().unwrap().push(tokio::spawn(async move { drop(driver.await) }));
                tokio::spawn(serve(PortForwardServer::new(mux).unwrap()));
            }
        });
        cluster
    }

    async fn connect(&self) -> io::Result<PortForward> {
        let tcp = TcpStream::connect(self.address).await?;
        let (mux, driver) = Multiplexer::client(Upgraded::new(tcp, Bytes::new(), FORM), Config::default());
        tokio::spawn(driver);
        Ok(PortForward::new(mux)?)
    }

    fn kill_connections(&self) {
        self.drivers.lock().unwrap().drain(..).for_each(|driver| driver.abort());
    }
}

async fn serve(mut server: PortForwardServer) {
    while let Some(Ok(request)) = server.accept().await {
        if request.port() == 1 {
            request.fail("closed");
            continue;
        }
        tokio::spawn(async move {
            let mut connection = request.accept();
            while let Some(Ok(data)) = connection.data().await {
                connection.send(data).await?;
            }
            connection.finish();
            Ok::<(), Error>(())
        });
    }
}

async fn local(ports: &[PortPair]) -> (Forwarder, Vec<u16>) {
    let forwarder = Forwarder::bind(LOOPBACK, ports).await.unwrap();
    let locals = forwarder.listening().map(|(address, _)| address.port()).collect();
    (forwarder, locals)
}

/// Sends, ends its direction, and reads to the end.
async fn ask(port: u16, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.write_all(request).await?;
    tcp.shutdown().await?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn several_ports_are_forwarded_and_one_that_is_closed_ends_no_other() {
    let cluster = Cluster::start().await;
    let forward = Arc::new(cluster.connect().await.unwrap());
    let ports = [80, 81, 1].map(|remote| PortPair { local: 0, remote });
    let (mut forwarder, locals) = local(&ports).await;
    let outcomes: Arc<Mutex<Vec<(u16, bool)>>> = Arc::default();
    let seen = Arc::clone(&outcomes);
    tokio::spawn(async move {
        loop {
            let (socket, _, PortPair { remote, .. }) = forwarder.accept().await.unwrap();
            let (forward, seen) = (Arc::clone(&forward), Arc::clone(&seen));
            tokio::spawn(async move {
                let outcome = forward.forward(socket, remote).await;
                seen.lock().unwrap().push((remote, outcome.is_ok()));
            });
        }
    });
    let sent = pattern(0, 300_000);
    for _ in 0..3 {
        for &port in &locals[..2] {
            assert!(ask(port, &sent).await.unwrap() == sent);
        }
        assert!(ask(locals[2], b"").await.unwrap_or_default().is_empty());
    }
    let mut outcomes = outcomes.lock().unwrap().clone();
    outcomes.sort_unstable();
    outcomes.dedup();
    assert_eq!(outcomes, [(1, false), (80, true), (81, true)]);
}

#[tokio::test]
async fn a_port_with_many_connections_keeps_no_other_waiting() {
    let (mut forwarder, locals) = local(&[80, 81].map(|remote| PortPair { local: 0, remote })).await;
    let mut waiting = Vec::new();
    for port in [locals[1], locals[0], locals[0], locals[0]] {
        waiting.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let mut accepted = Vec::new();
    for _ in &waiting {
        let (_, _, ports) = forwarder.accept().await.unwrap();
        accepted.push(ports.remote);
    }
    assert_eq!(accepted, [80, 81, 80, 80]);
}

#[tokio::test]
async fn a_connection_to_the_cluster_that_is_lost_is_made_again() {
    let cluster = Cluster::start().await;
    let failures = Cell::new(0);
    let connect = || async {
        // Every other attempt fails.
        if failures.replace(failures.get() + 1) % 2 == 0 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        cluster.connect().await
    };
    let mut reconnecting = Reconnecting::new(connect).first_wait(Duration::from_millis(1));
    for round in 1..=3 {
        let forward = reconnecting.get().await.unwrap();
        assert!(Arc::ptr_eq(&forward, &reconnecting.get().await.unwrap()), "one connection while it works");
        let mut connection = forward.connect(80).await.unwrap();
        connection.send("hello".into()).await.unwrap();
        assert_eq!(connection.data().await.unwrap().unwrap(), "hello");
        assert_eq!(failures.get(), 2 * round);
        cluster.kill_connections();
        assert!(matches!(connection.data().await, Some(Err(Error::Connection(_)))));
    }
}

#[tokio::test]
async fn attempts_are_given_up_where_the_caller_says_so() {
    let tried = Cell::new(0);
    let connect = || async {
        tried.set(tried.get() + 1);
        Err::<PortForward, _>(io::Error::other(tried.get().to_string()))
    };
    let mut reconnecting = Reconnecting::new(connect).first_wait(Duration::from_millis(1)).attempts(3);
    assert_eq!(reconnecting.get().await.unwrap_err().to_string(), "3");
    tried.set(0);
    let connecting = Reconnecting::new(connect).first_wait(Duration::from_millis(1));
    let mut reconnecting = connecting.on_failure(|_, attempt| attempt < 5);
    assert_eq!(reconnecting.get().await.unwrap_err().to_string(), "5");
}

/// What a client says of a server that gives this answer to the upgrade.
async fn refused(status: &str) -> UpgradeError {
    let (near, mut far) = tokio::io::duplex(4096);
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    far.write_all(answer.as_bytes()).await.unwrap();
    let request = http::Request::get("http://node/portforward").body(()).unwrap();
    upgrade::connect(near, request, &[Protocol::SpdyPortForward], &Default::default()).await.unwrap_err()
}

/// Asks for a connection where each attempt fails with the next of these errors, and the one after them succeeds.
/// Returns what the caller gets, what was told, and how many attempts were made.
async fn reconnect<E>(failures: Vec<E>) -> (Result<(), E>, Vec<(String, u32)>, usize)
where
    E: std::error::Error + 'static,
{
    let cluster = Cluster::start().await;
    let (failures, attempts, mut told) = (RefCell::new(failures.into_iter()), Cell::new(0), Vec::new());
    let connect = || async {
        attempts.set(attempts.get() + 1);
        let failure = failures.borrow_mut().next();
        failure.map_or(Ok(()), Err)?;
        Ok(cluster.connect().await.unwrap())
    };
    let connecting = Reconnecting::new(connect).first_wait(Duration::from_millis(1));
    let mut connecting = connecting.on_failure(|error: &E, attempt| {
        told.push((error.to_string(), attempt));
        true
    });
    let got = connecting.get().await.map(drop);
    drop(connecting);
    (got, told, attempts.get())
}

/// The server answers, and will not change its mind: the pod is gone, or the credentials are not valid.
#[tokio::test]
async fn a_refusal_for_good_ends_the_attempts_with_its_reason() {
    for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found", "410 Gone", "400 Bad Request", "200 OK"] {
        let said = refused(status).await.to_string();
        assert!(said.starts_with(&format!("unable to upgrade connection: {status}")), "{said}");
        let (got, told, attempts) = reconnect(vec![refused(status).await]).await;
        assert_eq!((got.unwrap_err().to_string(), told.len(), attempts), (said.clone(), 0, 1));
        // The error may be inside of another one.
        let (got, told, attempts) = reconnect(vec![io::Error::from(refused(status).await)]).await;
        assert_eq!((got.unwrap_err().to_string(), told.len(), attempts), (said.clone(), 0, 1));
        let boxed: Box<dyn std::error::Error + Send + Sync> = refused(status).await.into();
        let (got, told, attempts) = reconnect(vec![io::Error::other(boxed)]).await;
        assert_eq!((got.unwrap_err().to_string(), told.len(), attempts), (said, 0, 1));
    }
    let (got, told, _) = reconnect(vec![refused("302 Found").await]).await;
    assert!(matches!(got.unwrap_err(), UpgradeError::Redirected { .. }) && told.is_empty());
    let other = Error::NotPortForward(None);
    let (got, told, _) = reconnect(vec![io::Error::from(other)]).await;
    assert_eq!(got.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(told.is_empty());
}

#[tokio::test]
async fn a_failure_that_may_pass_is_told_and_tried_again() {
    let statuses = ["408 Request Timeout", "425 Too Early", "429 Too Many Requests", "500 Internal Server Error"];
    let mut failures = Vec::new();
    for status in statuses.into_iter().chain(["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"]) {
        failures.push(io::Error::from(refused(status).await));
    }
    failures.extend([io::ErrorKind::ConnectionRefused.into(), io::ErrorKind::ConnectionReset.into()]);
    failures.push(io::Error::from(UpgradeError::Timeout));
    let mut expected = Vec::new();
    for (failure, attempt) in failures.iter().zip(1..) {
        expected.push((failure.to_string(), attempt));
    }
    let (got, told, attempts) = reconnect(failures).await;
    got.unwrap();
    assert_eq!((told, attempts), (expected, 11));
}

#[tokio::test]
async fn a_free_port_is_the_same_on_every_address_and_localhost_is_content_with_one() {
    let forwarder = Forwarder::bind(&[], &[PortPair { local: 0, remote: 80 }]).await.unwrap();
    let ports: Vec<u16> = forwarder.listening().map(|(address, _)| address.port()).collect();
    assert!(ports.iter().all(|port| *port == ports[0]) && !ports.is_empty());

    // A port in use cannot be listened on where it is required.
    let taken = PortPair { local: ports[0], remote: 80 };
    let error = Forwarder::bind(LOOPBACK, &[taken]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let expected = format!(
        "unable to listen on any of the requested ports: unable to listen on 127.0.0.1:{}: Address already in use",
        ports[0]
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(Forwarder::bind(&[], &[taken]).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(Forwarder::bind(LOOPBACK, &[]).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

fn in_use(address: impl std::fmt::Display) -> String {
    format!("unable to listen on {address}: Address already in use")
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_ends_no_other() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    let ports = [PortPair { local: address.port(), remote: 80 }, PortPair { local: 0, remote: 81 }];
    let forwarder = Forwarder::bind(LOOPBACK, &ports).await.unwrap();
    let remotes: Vec<u16> = forwarder.listening().map(|(_, remote)| remote).collect();
    assert_eq!(remotes, [81]);
    let refused: Vec<String> = forwarder.refused().map(io::Error::to_string).collect();
    assert!(refused.len() == 1 && refused[0].starts_with(&in_use(address)), "{refused:?}");
}

/// A browser may try the missing half first, and reach another program.
#[tokio::test]
async fn half_of_localhost_is_enough_and_the_other_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    let ports = [PortPair { local: address.port(), remote: 80 }];
    let localhost: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    for addresses in [&[][..], &localhost] {
        match Forwarder::bind(addresses, &ports).await {
            Ok(forwarder) => {
                let listening: Vec<_> = forwarder.listening().map(|(address, _)| address.ip()).collect();
                assert_eq!(listening, [Ipv6Addr::LOCALHOST]);
                let refused: Vec<String> = forwarder.refused().map(io::Error::to_string).collect();
                assert!(refused.len() == 1 && refused[0].starts_with(&in_use(address)), "{refused:?}");
            }
            Err(error) => assert!(!has_ipv6() && error.to_string().contains(&in_use(address)), "{error}"),
        }
    }
    // Another address is required.
    let all = [localhost[0], localhost[1], "192.0.2.1".parse().unwrap()];
    let error = Forwarder::bind(&all, &[PortPair { local: 0, remote: 80 }]).await.unwrap_err();
    assert!(error.to_string().contains("unable to listen on 192.0.2.1:"), "{error}");
}

fn has_ipv6() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// As Go's listeners, each is of its family alone, so that one does not take the other's port.
#[tokio::test]
async fn the_wildcards_of_both_families_are_listened_on_together() {
    if !has_ipv6() {
        return;
    }
    let (ipv4, ipv6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
    for (addresses, both) in [(&[ipv4, ipv6][..], true), (&[ipv6, ipv4, ipv6], true), (&[ipv6], false)] {
        let mut forwarder = Forwarder::bind(addresses, &[PortPair { local: 0, remote: 80 }]).await.unwrap();
        assert_eq!(forwarder.listening().count(), if both { 2 } else { 1 });
        let port = forwarder.listening().next().unwrap().0.port();
        let over_ipv6 = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        let (_, from, _) = forwarder.accept().await.unwrap();
        assert_eq!(from, over_ipv6.local_addr().unwrap());
        let over_ipv4 = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        assert_eq!(over_ipv4.is_ok(), both);
    }
}
