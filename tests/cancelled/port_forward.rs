//! The futures of port-forward.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kubestream::mux::RstStatus;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{self, Connection, PortForward, PortForwardServer};
use kubestream::unstable::wire::spdy::{Frame, SettingId, Settings};
use kubestream::upgrade::{Protocol, Upgraded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::dropping::{AN_HOUR, dropped_after, ends, nothing_is_left, play};
use support::peer::{Peer, fin, reply, rst};
use support::wire::wire;
use support::{pattern, until};

/// An echo server on every port.
fn echo(server: Multiplexer, polls: usize) -> tokio::task::JoinHandle<usize> {
    tokio::spawn(async move {
        let mut server = PortForwardServer::new(server).unwrap();
        let mut taken = 0;
        while let Some(request) = pestered!(polls, server.accept()) {
            let mut connection = request.unwrap().accept();
            taken += 1;
            tokio::spawn(async move {
                while let Some(Ok(data)) = pestered!(polls, connection.data()) {
                    if pestered!(polls, connection.send(data.clone())).is_err() {
                        return;
                    }
                }
                connection.finish();
            });
        }
        taken
    })
}

async fn echoed(mut connection: Connection, polls: usize) {
    for seed in 0..3 {
        pestered!(polls, connection.send(pattern(seed, 100))).unwrap();
    }
    connection.finish();
    let mut had = Vec::new();
    while let Some(data) = pestered!(polls, connection.data()) {
        had.extend_from_slice(&data.unwrap());
    }
    assert!(had == (0..3).flat_map(|seed| pattern(seed, 100)).collect::<Vec<u8>>());
}

#[test]
fn connect_that_was_dropped_leaves_no_stream_and_the_next_one_connects() {
    play(async {
        for protocol in [Protocol::SpdyPortForward, Protocol::TunneledPortForward] {
            let mut dropped = 0;
            for polls in 0.. {
                let (client, server) = ends(protocol, 5);
                let serving = echo(server, polls % 3 + 1);
                let forward = PortForward::new(client.clone()).unwrap();
                let connected = dropped_after(polls, forward.connect(7)).await;
                echoed(forward.connect(7).await.unwrap(), polls % 3 + 1).await;
                let ready = connected.is_some();
                if let Some(connection) = connected {
                    echoed(connection.unwrap(), 1).await;
                }
                until(|| client.stats().streams == 0).await;
                drop((forward, client));
                let taken = serving.await.unwrap();
                assert!((1..=2).contains(&taken), "{taken}");
                nothing_is_left("connect").await;
                if ready {
                    break;
                }
                dropped += 1;
            }
            assert!(dropped > 1, "{dropped}");
        }
    });
}

#[test]
fn connect_that_was_dropped_while_the_peer_allows_one_stream_has_reset_it() {
    play(async {
        let (near, far) = tokio::io::duplex(1 << 16);
        let upgraded = Upgraded::new(near, Bytes::new(), Some(Protocol::SpdyPortForward));
        let (mux, driver) = Multiplexer::client(upgraded, Config::default());
        tokio::spawn(driver);
        let mut peer = Peer::new(far);
        peer.say(Frame::Settings(Settings::single(SettingId::MAX_CONCURRENT_STREAMS, 1))).await;
        let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
        rtt.unwrap();
        let forward = PortForward::new(mux).unwrap();
        {
            let mut connecting = pin!(forward.connect(7));
            assert!(connecting.as_mut().now_or_never().is_none());
            assert_eq!(peer.hear_syn().await.0, 1);
            assert_eq!(peer.hear().await, Some(fin(1)));
            peer.say(reply(1)).await;
            tokio::task::yield_now().await;
            assert!(connecting.as_mut().now_or_never().is_none());
        }
        assert_eq!(peer.hear().await, Some(rst(1, RstStatus::CANCEL)));
        assert_eq!(forward.multiplexer().stats().streams, 0);
        drop((forward, peer));
        nothing_is_left("connect").await;
    });
}

#[test]
fn a_failure_that_was_dropped_takes_no_other_connection_with_it() {
    play(async {
        for polls in 0..40 {
            for late in [false, true] {
                let (client, server) = ends(Protocol::SpdyPortForward, 6);
                let serving = tokio::spawn(async move {
                    let mut server = PortForwardServer::new(server).unwrap();
                    let failing = server.accept().await.unwrap().unwrap();
                    if late {
                        let mut connection = failing.accept();
                        connection.send("some".into()).await.unwrap();
                        dropped_after(polls, connection.fail("broken")).await;
                    } else {
                        let _ = dropped_after(polls, failing.fail_on_error_stream("broken")).await;
                    }
                    let mut connection = server.accept().await.unwrap().unwrap().accept();
                    while let Some(data) = connection.data().await {
                        connection.send(data.unwrap()).await.unwrap();
                    }
                    connection.finish();
                    assert!(server.accept().await.is_none());
                    assert!(server.shutdown().now_or_never().is_none_or(|ended| ended.is_ok()));
                });
                let forward = PortForward::new(client).unwrap();
                let failed = async {
                    let mut failed = forward.connect(7).await?;
                    while let Some(data) = failed.data().await {
                        data?;
                    }
                    Ok::<_, portforward::Error>(())
                };
                let failed = timeout(AN_HOUR, failed).await.expect("an end");
                assert!(failed.is_err(), "{polls} {late}: it looks like an end");
                echoed(forward.connect(8).await.unwrap(), 1).await;
                drop(forward);
                serving.await.unwrap();
                nothing_is_left("fail").await;
            }
        }
    });
}

#[test]
fn client_gone_that_was_dropped_is_asked_again() {
    play(async {
        for protocol in [Protocol::SpdyPortForward, Protocol::TunneledPortForward] {
            for polls in 1..=3 {
                let (client, server) = ends(protocol, 7);
                let serving = tokio::spawn(async move {
                    let mut server = PortForwardServer::new(server).unwrap();
                    let mut connection = server.accept().await.unwrap().unwrap().accept();
                    assert!(server.client_gone().now_or_never().is_none());
                    assert_eq!(connection.data().await.unwrap().unwrap(), "f");
                    pestered!(polls, server.client_gone());
                    // Once more: it still reports that.
                    server.client_gone().await;
                });
                let forward = PortForward::new(client).unwrap();
                let mut connection = forward.connect(7).await.unwrap();
                connection.send("first".into()).await.unwrap();
                sleep(Duration::from_millis(20)).await;
                assert!(!serving.is_finished());
                drop((connection, forward));
                timeout(AN_HOUR, serving).await.expect("it is heard").unwrap();
                nothing_is_left("client_gone").await;
            }
        }
    });
}

/// While connections still exist.
#[test]
fn shutdown_that_was_dropped_goes_on() {
    play(async {
        for protocol in [Protocol::SpdyPortForward, Protocol::TunneledPortForward] {
            let mut dropped = 0;
            for polls in 1.. {
                let (client, server) = ends(protocol, 8);
                let forward = PortForward::new(client).unwrap();
                let mut server = PortForwardServer::new(server).unwrap();
                let accepting = async { server.accept().await.unwrap().unwrap().accept() };
                let (connected, mut held) = tokio::join!(forward.connect(7), accepting);
                let mut connection = connected.unwrap();
                held.send(pattern(1, 40)).await.unwrap();
                let ended = dropped_after(polls, server.shutdown()).await;
                let mut had = Vec::new();
                let reading = async {
                    while let Some(data) = connection.data().await {
                        had.extend_from_slice(&data?);
                    }
                    Ok::<_, portforward::Error>(())
                };
                // Nothing has ended it.
                timeout(AN_HOUR, reading).await.expect("an end").unwrap_err();
                assert!(had == pattern(1, 40), "{protocol:?} {polls}: {had:?}");
                forward.connect(8).await.unwrap_err();
                nothing_is_left("shutdown").await;
                drop((held, connection));
                if let Some(ended) = ended {
                    ended.unwrap();
                    break;
                }
                dropped += 1;
            }
            assert!(dropped > 1, "{dropped}");
        }
    });
}

/// The same bytes through `AsyncRead` and `AsyncWrite`, at both ends.
#[test]
fn what_reads_and_writes_as_an_io_loses_nothing_and_doubles_nothing() {
    async fn echoes(mut connection: Connection, polls: usize) -> io::Result<()> {
        let mut buffer = [0; 7];
        while let read @ 1.. = pestered!(polls, connection.read(&mut buffer))? {
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                let written = pestered!(polls, connection.write(rest))?;
                rest = &rest[written..];
            }
            pestered!(polls, connection.flush())?;
        }
        pestered!(polls, connection.shutdown())
    }
    play(async {
        for protocol in [Protocol::SpdyPortForward, Protocol::TunneledPortForward] {
            for polls in 1..=3 {
                let (client, server) = ends(protocol, 9);
                let serving = tokio::spawn(async move {
                    let mut server = PortForwardServer::new(server).unwrap();
                    echoes(server.accept().await.unwrap().unwrap().accept(), polls).await.unwrap();
                    assert!(server.accept().await.is_none());
                });
                let forward = PortForward::new(client).unwrap();
                echoed(forward.connect(7).await.unwrap(), polls).await;
                drop(forward);
                serving.await.unwrap();
                nothing_is_left("as an IO").await;
            }
        }
    });
}

/// A relay owns the connection and the socket, and drops both. Each end sees all bytes, or a break.
#[test]
fn relay_that_was_dropped_breaks_off_its_connection_and_no_other() {
    play(async {
        for protocol in [Protocol::SpdyPortForward, Protocol::TunneledPortForward] {
            let mut cut = Vec::new();
            for polls in 0.. {
                let (client, server) = ends(protocol, 10);
                let (near, far, seen) = wire(None, Some(11));
                let serving = tokio::spawn(async move {
                    let mut server = PortForwardServer::new(server).unwrap();
                    let connection = server.accept().await.unwrap().unwrap().accept();
                    let relayed = dropped_after(polls, connection.relay(near)).await;
                    echoed_by(server).await;
                    relayed
                });
                // An echo server, piece by piece.
                tokio::spawn(async move {
                    let (mut reads, mut writes) = tokio::io::split(far);
                    // The relay between may be gone.
                    if tokio::io::copy(&mut reads, &mut writes).await.is_ok() {
                        let _ = writes.shutdown().await;
                    }
                });
                let forward = PortForward::new(client.clone()).unwrap();
                let (sent, mut had) = (pattern(1, 60), Vec::new());
                let all = async {
                    let mut connection = forward.connect(7).await?;
                    connection.send(sent.clone()).await?;
                    connection.finish();
                    while let Some(data) = connection.data().await {
                        had.extend_from_slice(&data?);
                    }
                    Ok::<_, portforward::Error>(())
                };
                let ended = all.await.is_ok();
                assert!(sent.starts_with(&had), "{protocol} {polls}");
                assert!(!ended || had == sent, "{protocol} {polls}: half of it has ended");
                echoed(forward.connect(8).await.unwrap(), 1).await;
                until(|| client.stats().streams == 0).await;
                drop((forward, client));
                let relayed = serving.await.unwrap();
                nothing_is_left("relay").await;
                assert_eq!(Arc::strong_count(&seen), 1, "{protocol} {polls}: an IO is left");
                if let Some(relayed) = relayed {
                    relayed.unwrap();
                    assert!(ended);
                    break;
                }
                cut.push(had.len());
            }
            assert!(cut.len() > 20, "{cut:?}");
        }
    });
}

/// Checks that one more connection works.
async fn echoed_by(mut server: PortForwardServer) {
    let mut connection = server.accept().await.unwrap().unwrap().accept();
    while let Some(data) = connection.data().await {
        connection.send(data.unwrap()).await.unwrap();
    }
    connection.finish();
    assert!(server.accept().await.is_none());
}
