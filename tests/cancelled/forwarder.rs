//! Local ports, and reconnecting to the cluster. These tests use sockets and real time.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use kubestream::portforward::{Forwarder, PortForward, PortForwardServer, PortPair, Reconnecting};
use kubestream::upgrade::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::dropping::{Alive, dropped_after, ends, nothing_is_left, play, play_with_sockets};
use support::{pattern, until};

const PAIRS: [PortPair; 2] = [PortPair { local: 0, remote: 80 }, PortPair { local: 0, remote: 81 }];

/// Localhost, without the address that a machine may not have.
const LOOPBACK: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::LOCALHOST)];

#[test]
fn bind_that_was_dropped_or_has_failed_listens_no_more() {
    // An address on which no other test is given a port that was free a moment ago.
    let ip = if cfg!(target_os = "linux") { Ipv4Addr::new(127, 0, 0, 77) } else { Ipv4Addr::LOCALHOST };
    let addresses = [ip.into()];
    play_with_sockets(async {
        let mut pairs = PAIRS;
        for polls in 0.. {
            let Some(bound) = dropped_after(polls, Forwarder::bind(&addresses, &pairs)).await else { continue };
            for (pair, (address, remote)) in pairs.iter_mut().zip(bound.unwrap().listening()) {
                assert_eq!(pair.remote, remote);
                pair.local = address.port();
            }
            break;
        }
        // The port is free at one address, and not at the other. It stays open at neither.
        let other = Forwarder::bind(&addresses, &pairs[1..]).await.unwrap();
        let free = if cfg!(target_os = "linux") { vec![Ipv4Addr::new(127, 0, 0, 78).into()] } else { Vec::new() };
        let both = [&free[..], &addresses].concat();
        assert_eq!(Forwarder::bind(&both, &pairs[1..]).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        if !free.is_empty() {
            Forwarder::bind(&free, &pairs[1..]).await.unwrap();
        }
        drop(other);
        let all = Forwarder::bind(&addresses, &pairs).await.unwrap();
        assert_eq!(all.listening().count(), pairs.len());
    });
}

#[test]
fn accept_that_was_dropped_has_accepted_nothing() {
    play_with_sockets(async {
        for polls in 1..=2 {
            let mut forwarder = Forwarder::bind(LOOPBACK, &PAIRS).await.unwrap();
            let locals: Vec<_> = forwarder.listening().map(|(address, _)| address).collect();
            let clients = tokio::spawn(async move {
                let mut clients = Vec::new();
                for at in 0..20 {
                    clients.push(TcpStream::connect(locals[at % 2]).await.unwrap());
                }
                clients
            });
            let mut locals = Vec::new();
            for _ in 0..20 {
                locals.push(pestered!(polls, forwarder.accept()).unwrap());
            }
            let mut accepted: Vec<_> = locals.iter().map(|(_, from, ports)| (*from, ports.remote)).collect();
            let mut came = Vec::new();
            for (at, client) in clients.await.unwrap().iter().enumerate() {
                came.push((client.local_addr().unwrap(), 80 + at as u16 % 2));
            }
            assert!(forwarder.accept().now_or_never().is_none());
            came.sort_unstable();
            accepted.sort_unstable();
            assert_eq!(accepted, came);
        }
    });
}

/// An echo server at the other end of a connection in memory.
fn cluster() -> PortForward {
    let (client, server) = ends(Protocol::SpdyPortForward, 15);
    tokio::spawn(async move {
        let mut server = PortForwardServer::new(server).unwrap();
        while let Some(Ok(request)) = server.accept().await {
            let mut connection = request.accept();
            tokio::spawn(async move {
                while let Some(Ok(data)) = connection.data().await {
                    if connection.send(data).await.is_err() {
                        return;
                    }
                }
                connection.finish();
            });
        }
    });
    PortForward::new(client).unwrap()
}

#[test]
fn forward_that_was_dropped_breaks_off_both_its_ends_and_no_other() {
    play_with_sockets(async {
        let forward = cluster();
        let mut forwarder = Forwarder::bind(LOOPBACK, &PAIRS[..1]).await.unwrap();
        let (local, _) = forwarder.listening().next().unwrap();
        let sent = pattern(6, 60);
        let mut cut = Vec::new();
        for polls in 0.. {
            let client = async {
                let mut had = Vec::new();
                // The connection was reset before the client saw that it was connected.
                let Ok(mut client) = TcpStream::connect(local).await else { return (had, false) };
                let ended = client.write_all(&sent).await.is_ok()
                    && client.shutdown().await.is_ok()
                    && client.read_to_end(&mut had).await.is_ok();
                // All of the data may have come before the reset, but what has ended is all of it.
                assert!(!ended || had.len() == sent.len(), "{polls}: half of the data has ended");
                (had, ended)
            };
            let serving = async {
                let (socket, _, ports) = forwarder.accept().await.unwrap();
                dropped_after(polls, forward.forward(socket, ports.remote)).await
            };
            let ((had, ended), served) = tokio::join!(client, serving);
            assert!(sent.starts_with(&had), "{polls}");
            until(|| forward.multiplexer().stats().streams == 0).await;
            if let Some(served) = served {
                served.unwrap();
                assert!(ended && had == sent);
                break;
            }
            cut.push(had.len());
        }
        assert!(cut.len() > 20, "{cut:?}");
        assert!(forward.multiplexer().takes_streams());
        drop(forward);
        nothing_is_left("forward").await;
    });
}

#[test]
fn get_that_was_dropped_gives_its_attempt_up_and_is_asked_again() {
    play(async {
        let mut given_up = 0;
        for polls in 0.. {
            let (attempts, alive) = (Cell::new(0), Alive::default());
            let connect = || {
                let alive = alive.clone();
                let attempt = attempts.replace(attempts.get() + 1);
                async move {
                    sleep(Duration::from_millis(1)).await;
                    drop(alive);
                    // The first two attempts fail.
                    if attempt < 2 { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) } else { Ok(cluster()) }
                }
            };
            let mut reconnecting = Reconnecting::new(connect).first_wait(Duration::from_millis(1));
            let got = dropped_after(polls, reconnecting.get()).await;
            assert_eq!(alive.count(), 0, "{polls}: the attempt goes on");
            let before = attempts.get();
            let again = reconnecting.get().await.unwrap();
            match &got {
                // The existing connection. No other is made.
                Some(got) => {
                    assert_eq!(attempts.get(), 3);
                    assert!(Arc::ptr_eq(got.as_ref().unwrap(), &again));
                }
                None => assert_eq!(attempts.get(), 3.max(before + 1), "{polls}"),
            }
            let mut connection = again.connect(80).await.unwrap();
            connection.send("hello".into()).await.unwrap();
            connection.finish();
            let mut had = Vec::new();
            while let Some(data) = connection.data().await {
                had.extend_from_slice(&data.unwrap());
            }
            assert_eq!(had, b"hello");
            let ready = got.is_some();
            drop((reconnecting, again, connection, got));
            nothing_is_left("get").await;
            if ready {
                break;
            }
            given_up += 1;
        }
        assert!(given_up > 5, "{given_up}");
    });
}
