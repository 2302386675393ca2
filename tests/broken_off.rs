//! Forwarded connections that break off, between real sockets of a local program and of a pod's port. No side may take
//! a break for an end. The tests break the pod's socket, the program's socket, the connection between them, or the
//! program that forwards.
//!
//! Time is real, because there are sockets. No test checks how long something takes.

#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::time::Duration;

use bytes::Bytes;
use kubestream::AbortOnDrop;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Error, Forwarder, Options, PortForward, PortForwardServer, PortPair, Request};
use kubestream::protocol::Subprotocol;
use kubestream::upgrade::{Protocol, Upgraded};
use kubestream_proxy::translate_port_forward;
use support::breaks::{PATIENCE, broke_off, passes, reset, rest};
use support::{pattern, tcp_pair, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

const STREAMS: Protocol = Protocol::SpdyPortForward;
const TUNNEL: Protocol = Protocol::TunneledPortForward;
const OLD: Protocol = Protocol::LegacyPortForward(Subprotocol::V4);
/// The protocols of a connection: the client's and the server's. If they differ, a translator stands between.
const WAYS: [&[Protocol]; 8] = [
    &[STREAMS],
    &[TUNNEL],
    &[OLD],
    &[STREAMS, STREAMS],
    &[TUNNEL, STREAMS],
    &[STREAMS, TUNNEL],
    &[OLD, STREAMS],
    &[STREAMS, OLD],
];

/// A local program and a port of a pod, with everything between them.
struct Chain {
    program: TcpStream,
    pod: TcpStream,
    forwarding: JoinHandle<Result<(), Error>>,
    serving: JoinHandle<()>,
    /// The client's driver and the server's.
    drivers: [AbortHandle; 2],
    client: Multiplexer,
    server: Multiplexer,
}

fn upgraded(io: DuplexStream, form: Protocol, port: u16) -> Upgraded<DuplexStream> {
    Upgraded::new(io, Bytes::new(), Some(form)).with_ports(&[port])
}

/// A local program that has connected to a local port, and the accepted socket.
async fn program() -> (TcpStream, AbortOnDrop<TcpStream>) {
    let ports = [PortPair { local: 0, remote: 80 }];
    let mut forwarder = Forwarder::bind(&["127.0.0.1".parse().unwrap()], &ports).await.unwrap();
    let (address, _) = forwarder.listening().next().unwrap();
    let (program, accepted) = tokio::join!(TcpStream::connect(address), forwarder.accept());
    let (socket, ..) = accepted.unwrap();
    (program.unwrap(), socket)
}

/// Does what a server of port-forward does: joins a connection to its port of the pod.
async fn to_the_pod(request: Request) -> Result<(), Error> {
    let tcp = TcpStream::connect(("127.0.0.1", request.port())).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    request.accept().relay(AbortOnDrop::new(tcp)).await
}

async fn chain(way: &[Protocol]) -> Chain {
    let pods = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = pods.local_addr().unwrap().port();
    let (near, mut far) = duplex(64 * 1024);
    if let [from, to] = *way {
        let (next, server) = duplex(64 * 1024);
        let (client, backend) = (upgraded(far, from, port), upgraded(next, to, port));
        tokio::spawn(
            async move { translate_port_forward(client, backend, Config::default(), &Options::default()).await },
        );
        far = server;
    }
    let (server, driver) = Multiplexer::server(upgraded(far, way[way.len() - 1], port), Config::default());
    let server_driver = tokio::spawn(driver).abort_handle();
    let mut accepting = PortForwardServer::new(server.clone()).unwrap();
    let serving = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                request = accepting.accept() => match request {
                    Some(Ok(request)) => drop(connections.spawn(to_the_pod(request))),
                    _ => break,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        while connections.join_next().await.is_some() {}
    });
    let (client, driver) = Multiplexer::client(upgraded(near, way[0], port), Config::default());
    let client_driver = tokio::spawn(driver).abort_handle();
    let (program, socket) = program().await;
    let mut options = Options::default();
    options.linger = Duration::from_millis(500);
    let to = PortForward::with_options(client.clone(), options).unwrap();
    let forwarding = tokio::spawn(async move { to.forward(socket, port).await });
    let (pod, _) = pods.accept().await.unwrap();
    let mut chain =
        Chain { program, pod, forwarding, serving, drivers: [client_driver, server_driver], client, server };
    // The connection works in both directions.
    let what = format!("{way:?}");
    passes(&mut chain.program, &mut chain.pod, &what).await;
    passes(&mut chain.pod, &mut chain.program, &what).await;
    chain
}

#[tokio::test]
async fn a_pod_that_resets_its_connection_has_not_ended_it() {
    for way in WAYS {
        let Chain { mut program, pod, forwarding, .. } = chain(way).await;
        reset(pod);
        broke_off(&mut program, &format!("{way:?}")).await;
        let failed = timeout(PATIENCE, forwarding).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(failed, Error::Stream { .. } | Error::Failed { .. }), "{way:?}: {failed:?}");
    }
}

/// With legacy port-forward a client cannot report it.
#[tokio::test]
async fn a_program_that_resets_its_connection_has_not_ended_it() {
    for way in WAYS.into_iter().filter(|way| !way.contains(&OLD)) {
        let Chain { program, mut pod, forwarding, server, .. } = chain(way).await;
        reset(program);
        broke_off(&mut pod, &format!("{way:?}")).await;
        timeout(PATIENCE, forwarding).await.unwrap().unwrap().expect("a program that goes away is no error");
        until(|| server.stats().streams == 0).await;
    }
}

/// The pod has ended its own direction and waits for the rest. The reset that comes must not look like an orderly end.
#[tokio::test]
async fn a_program_that_resets_its_connection_behind_the_pods_end_has_not_ended_it() {
    for way in WAYS.into_iter().filter(|way| !way.contains(&OLD)) {
        let Chain { mut program, mut pod, .. } = chain(way).await;
        pod.shutdown().await.unwrap();
        assert_eq!(program.read(&mut [0]).await.unwrap(), 0, "{way:?}");
        reset(program);
        broke_off(&mut pod, &format!("{way:?}")).await;
    }
}

#[tokio::test]
async fn a_connection_to_the_cluster_that_is_lost_has_ended_nothing() {
    for way in WAYS {
        for end in 0..2 {
            let Chain { mut program, mut pod, forwarding, serving, drivers, .. } = chain(way).await;
            drivers[end].abort();
            for (tcp, name) in [(&mut program, "the program"), (&mut pod, "the pod")] {
                broke_off(tcp, &format!("{way:?}, driver {end}: {name}")).await;
            }
            timeout(PATIENCE, forwarding).await.unwrap().unwrap().unwrap_err();
            timeout(PATIENCE, serving).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn who_forwards_and_is_dropped_has_ended_nothing() {
    for way in WAYS.into_iter().filter(|way| !way.contains(&OLD)) {
        for servers in [false, true] {
            let Chain { mut program, mut pod, forwarding, serving, client, .. } = chain(way).await;
            match servers {
                false => forwarding.abort(),
                true => serving.abort(),
            }
            for (tcp, name) in [(&mut program, "the program"), (&mut pod, "the pod")] {
                broke_off(tcp, &format!("{way:?}, {servers}: {name}")).await;
            }
            // Only that pair breaks off.
            assert!(servers || client.takes_streams());
        }
    }
}

/// A killed process runs no destructors. Its sockets still break off, unless they were shut down before.
#[tokio::test]
async fn a_socket_is_set_to_break_off_from_the_first() {
    let (near, mut far) = tcp_pair().await;
    let mut near = AbortOnDrop::new(near);
    assert_eq!(near.get_ref().linger().unwrap(), Some(Duration::ZERO));
    near.shutdown().await.unwrap();
    assert_eq!(near.get_ref().linger().unwrap(), None);
    drop(near);
    rest(&mut far).await.1.unwrap();

    let (near, mut far) = tcp_pair().await;
    drop(AbortOnDrop::new(near).into_inner());
    rest(&mut far).await.1.unwrap();
}

/// A client and a server, directly connected.
fn two_ends() -> (Multiplexer, Multiplexer) {
    let (near, far) = duplex(64 * 1024);
    let (client, driver) = Multiplexer::client(upgraded(near, STREAMS, 80), Config::default());
    tokio::spawn(driver);
    let (server, driver) = Multiplexer::server(upgraded(far, STREAMS, 80), Config::default());
    tokio::spawn(driver);
    (client, server)
}

/// Both before the forwarding begins, and when there is nothing to forward to.
#[tokio::test]
async fn a_program_that_is_forwarded_to_nothing_is_reset() {
    let (mut tcp, socket) = program().await;
    drop(socket);
    broke_off(&mut tcp, "dropped").await;

    let (client, server) = two_ends();
    let mut accepting = PortForwardServer::new(server).unwrap();
    tokio::spawn(async move { accepting.accept().await.unwrap().unwrap().fail("nobody listens") });
    let (mut tcp, socket) = program().await;
    let failed = PortForward::new(client).unwrap().forward(socket, 80).await.unwrap_err();
    assert!(matches!(failed, Error::Failed { .. }), "{failed:?}");
    broke_off(&mut tcp, "refused").await;
}

/// More bytes than a socket takes at once, and the break directly after them.
#[tokio::test]
async fn what_has_come_is_read_before_the_break() {
    let (client, server) = two_ends();
    let mut accepting = PortForwardServer::new(server).unwrap();
    let said = pattern(1, 600_000);
    let says = said.clone();
    let serving = tokio::spawn(async move {
        let mut connection = accepting.accept().await.unwrap().unwrap().accept();
        connection.write_all(&says).await.unwrap();
        connection.fail("it broke").await;
        accepting
    });
    let (mut tcp, socket) = program().await;
    let to = PortForward::new(client).unwrap();
    let forwarding = tokio::spawn(async move { to.forward(socket, 80).await });
    let _accepting = timeout(PATIENCE, serving).await.unwrap().unwrap();
    let (had, end) = rest(&mut tcp).await;
    assert_eq!((had.len(), end.unwrap_err().kind()), (said.len(), io::ErrorKind::ConnectionReset));
    assert!(had == said);
    timeout(PATIENCE, forwarding).await.unwrap().unwrap().unwrap_err();
}

/// The other direction: a program that is reset directly after its last bytes.
#[tokio::test]
async fn what_a_program_has_said_is_read_before_its_break() {
    for way in [&[STREAMS][..], &[TUNNEL], &[STREAMS, TUNNEL]] {
        let Chain { mut program, mut pod, .. } = chain(way).await;
        // More bytes for the program, so that a write may be the first to meet the reset.
        pod.write_all(&pattern(2, 30_000)).await.unwrap();
        // This fits into the buffers of the kernel on the way.
        program.write_all(&pattern(1, 20_000)).await.unwrap();
        reset(program);
        let mut had = vec![0; 20_000];
        timeout(PATIENCE, pod.read_exact(&mut had)).await.unwrap().unwrap();
        assert!(had == pattern(1, 20_000), "{way:?}");
        broke_off(&mut pod, &format!("{way:?}")).await;
    }
}

/// Orderly ends stay ends: each direction has its own, and all bytes arrive.
#[tokio::test]
async fn an_end_is_an_end_at_either_end() {
    for way in WAYS.into_iter().filter(|way| !way.contains(&OLD)) {
        for programs_first in [true, false] {
            let Chain { program, pod, forwarding, client, server, .. } = chain(way).await;
            let (mut first, mut last) = if programs_first { (program, pod) } else { (pod, program) };
            first.write_all(&pattern(2, 300_000)).await.unwrap();
            first.shutdown().await.unwrap();
            let (had, end) = rest(&mut last).await;
            end.unwrap();
            assert!(had == pattern(2, 300_000), "{way:?}");
            last.write_all(&pattern(3, 300_000)).await.unwrap();
            drop(last);
            let (had, end) = rest(&mut first).await;
            end.unwrap();
            assert!(had == pattern(3, 300_000), "{way:?}");
            timeout(PATIENCE, forwarding).await.unwrap().unwrap().unwrap();
            until(|| client.stats().streams == 0 && server.stats().streams == 0).await;
        }
    }
}

/// A server that answers in the middle of an upload and ends. Its answer arrives whole.
#[tokio::test]
async fn a_pod_that_ends_and_reads_no_more_has_its_answer_read() {
    for way in [&[STREAMS][..], &[TUNNEL], &[STREAMS, TUNNEL]] {
        let Chain { program, mut pod, forwarding, .. } = chain(way).await;
        let (mut reads, mut writes) = program.into_split();
        let uploading = tokio::spawn(async move {
            while writes.write_all(&[1; 10_000]).await.is_ok() {}
            writes
        });
        pod.read_exact(&mut vec![0; 100_000]).await.unwrap();
        pod.write_all(&pattern(4, 50_000)).await.unwrap();
        pod.shutdown().await.unwrap();
        let mut had = vec![0; 50_000];
        timeout(PATIENCE, reads.read_exact(&mut had)).await.unwrap().unwrap();
        assert!(had == pattern(4, 50_000), "{way:?}");
        assert_eq!(timeout(PATIENCE, reads.read(&mut [0])).await.unwrap().unwrap(), 0, "{way:?}");
        // The program that still uploads is told.
        drop(pod);
        timeout(PATIENCE, uploading).await.unwrap_or_else(|_| panic!("{way:?}: it still uploads")).unwrap();
        let _ = timeout(PATIENCE, forwarding).await.unwrap().unwrap();
    }
}
