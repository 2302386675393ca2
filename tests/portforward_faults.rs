//! Faults in port-forward that a review found and that are fixed. Each test is named after the cause.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use kubestream::mux::RstStatus;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Connection, Error, PortForward, PortForwardServer};
use kubestream::unstable::wire::spdy::Frame;
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::upgrade::{Protocol, Upgraded};
use support::peer::{Peer, carried, data, fin, reply, resets, rst, syn};
use support::{pattern, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex};
use tokio::time::{Instant, sleep, timeout};

struct Ends {
    client: Connection,
    server: Connection,
    forward: PortForward,
    client_mux: Multiplexer,
    server_mux: Multiplexer,
    _accepting: PortForwardServer,
}

/// One connection with both its ends.
async fn ends() -> Ends {
    let (near, far) = duplex(64 * 1024);
    let form = Some(Protocol::SpdyPortForward);
    let (client_mux, driver) = Multiplexer::client(Upgraded::new(near, Bytes::new(), form), Config::default());
    tokio::spawn(driver);
    let (server_mux, driver) = Multiplexer::server(Upgraded::new(far, Bytes::new(), form), Config::default());
    tokio::spawn(driver);
    let forward = PortForward::new(client_mux.clone()).unwrap();
    let mut accepting = PortForwardServer::new(server_mux.clone()).unwrap();
    let (client, server) =
        tokio::join!(forward.connect(80), async { accepting.accept().await.unwrap().unwrap().accept() });
    Ends { client: client.unwrap(), server, forward, client_mux, server_mux, _accepting: accepting }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_broke_off_is_no_end_at_either_end() {
    let Ends { mut client, mut server, forward: _forward, client_mux: _near, server_mux: _far, _accepting } =
        ends().await;
    server.send("half of it".into()).await.unwrap();
    server.flush().await.unwrap();
    drop(server);
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(read, b"half of it");

    let Ends { mut client, mut server, forward: _forward, client_mux: _near, server_mux: _far, _accepting } =
        ends().await;
    client.send("half of it".into()).await.unwrap();
    client.flush().await.unwrap();
    sleep(Duration::from_millis(1)).await;
    drop(client);
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(read, b"half of it");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_broke_off_frees_a_server_whose_upstream_is_silent() {
    let Ends { client, mut server, forward, server_mux, client_mux, _accepting } = ends().await;
    let (_upstream, mut far) = duplex(4096);
    let copying = tokio::spawn(async move { copy_bidirectional(&mut server, &mut far).await });
    drop(client);
    let copied = timeout(Duration::from_secs(1), copying).await.expect("it is still held").unwrap();
    assert!(copied.is_err());
    until(|| server_mux.stats().streams == 0 && client_mux.stats().streams == 0).await;
    drop(forward);
}

/// The error stream ended only with the server's connection, which waited for the client.
#[tokio::test(start_paused = true)]
async fn a_server_that_ends_first_is_heard_at_once() {
    let Ends { mut client, mut server, forward: _forward, client_mux: _near, server_mux: _far, _accepting } =
        ends().await;
    let (mut upstream, mut far) = duplex(4096);
    tokio::spawn(async move { copy_bidirectional(&mut server, &mut far).await });
    tokio::spawn(async move {
        upstream.write_all(b"bye").await.unwrap();
        upstream.shutdown().await.unwrap();
        upstream.read_to_end(&mut Vec::new()).await.unwrap();
    });
    let began = Instant::now();
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert_eq!((all.as_str(), began.elapsed().as_secs()), ("bye", 0));
}

/// A finished stream was never reset, so the other side wrote for ever without a reader.
#[tokio::test(start_paused = true)]
async fn who_ends_and_reads_no_more_is_heard_by_who_writes() {
    async fn write_on(mut connection: Connection) {
        for _ in 0..100 {
            if connection.send(pattern(0, 100_000)).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("it still writes");
    }
    let Ends { mut client, server, forward, client_mux, server_mux, _accepting } = ends().await;
    client.finish();
    drop(client);
    write_on(server).await;
    until(|| server_mux.stats().streams == 0 && client_mux.stats().streams == 0).await;
    drop(forward);

    let Ends { client, mut server, forward, client_mux, server_mux, _accepting } = ends().await;
    server.send("the tail".into()).await.unwrap();
    server.finish();
    drop(server);
    let mut client = client;
    assert_eq!(client.data().await.unwrap().unwrap(), "the tail");
    write_on(client).await;
    until(|| server_mux.stats().streams == 0 && client_mux.stats().streams == 0).await;
    drop(forward);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_says_of_which_port_it_was() {
    let Ends { mut client, server, forward: _forward, client_mux: _near, server_mux: _far, _accepting } = ends().await;
    drop(server);
    let error = loop {
        match client.write_all(&[0; 1000]).await {
            Ok(()) => sleep(Duration::from_millis(1)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(error.downcast::<Error>(), Ok(Error::Stream { port: 80, .. })));
}

/// A server ends or resets the data stream, and never writes or ends anything on the error stream.
#[tokio::test(start_paused = true)]
async fn an_error_stream_that_is_never_ended_is_cancelled() {
    for (how, end) in [("FIN", fin(3)), ("RST", rst(3, RstStatus::CANCEL))] {
        for read in [true, false] {
            let (near, far) = duplex(1 << 20);
            let upgraded = Upgraded::new(near, Bytes::new(), Some(Protocol::SpdyPortForward));
            let (mux, driver) = Multiplexer::client(upgraded, Config::default());
            tokio::spawn(driver);
            let forward = PortForward::new(mux.clone()).unwrap();
            let mut peer = Peer::new(far);
            let answers = async {
                assert_eq!((peer.hear_syn().await.0, peer.hear_syn().await.0), (1, 3));
                peer.say(reply(1)).await;
                peer.say(reply(3)).await;
                peer.say(data(3, "all")).await;
                peer.say(end.clone()).await;
            };
            let (connection, ()) = tokio::join!(forward.connect(80), answers);
            let mut connection = connection.unwrap();
            assert_eq!(connection.data().await.unwrap().unwrap(), "all");
            if read {
                let ended = connection.data().await;
                // A server that does not say that its reset was an end has not ended the stream.
                assert_eq!(ended.is_none(), how == "FIN", "{ended:?}");
            }
            connection.finish();
            drop(connection);
            until(|| mux.stats().streams == 0).await;
            loop {
                match peer.hear().await {
                    Some(Frame::RstStream { id, status }) if id == StreamId::new(1) => {
                        break assert_eq!(status, RstStatus::CANCEL);
                    }
                    Some(_) => {}
                    None => panic!("{how}, {read}: it is not told"),
                }
            }
            assert!(mux.takes_streams());
        }
    }
}

/// 201 of them in 30 s ended the whole port-forward, because the server had not replied to them yet.
#[tokio::test(start_paused = true)]
async fn connects_that_are_given_up_end_no_other_connection() {
    let Ends { mut client, mut server, forward, client_mux, server_mux, mut _accepting } = ends().await;
    let dialling = tokio::spawn(async move {
        let mut dialling = tokio::task::JoinSet::new();
        while let Some(request) = _accepting.accept().await {
            let request = request.unwrap();
            dialling.spawn(async move {
                sleep(Duration::from_secs(1)).await;
                request.fail("it cannot be reached");
            });
        }
    });
    for _ in 0..1000 {
        assert!(timeout(Duration::from_millis(10), forward.connect(81)).await.is_err(), "it was given up");
    }
    client.send("still here".into()).await.unwrap();
    assert_eq!(server.data().await.unwrap().unwrap(), "still here");
    drop((client, server));
    until(|| server_mux.stats().streams == 0 && client_mux.stats().streams == 0).await;
    assert!(client_mux.takes_streams());
    dialling.abort();
}

/// A Go client ends its direction of the error stream at once. A client that does not must not fill the server's table.
#[tokio::test(start_paused = true)]
async fn an_error_stream_that_a_client_never_ends_is_given_up_with_its_connection() {
    let (near, far) = duplex(1 << 20);
    let upgraded = Upgraded::new(near, Bytes::new(), Some(Protocol::SpdyPortForward));
    let (mux, driver) = Multiplexer::server(upgraded, Config::default());
    tokio::spawn(driver);
    let mut server = PortForwardServer::new(mux.clone()).unwrap();
    let mut peer = Peer::new(far);
    for (number, fails) in (0..4).zip([false, true, false, true]) {
        let request = number.to_string();
        let (error, stream) = (4 * number + 1, 4 * number + 3);
        for (id, kind) in [(error, "error"), (stream, "data")] {
            peer.say(syn(id, &[("streamtype", kind), ("port", "80"), ("requestid", &request)])).await;
        }
        peer.say(fin(stream)).await;
        let request = server.accept().await.unwrap().unwrap();
        if fails {
            request.fail("nobody listens");
        } else {
            let mut connection = request.accept();
            assert!(connection.data().await.is_none());
            connection.finish();
        }
        until(|| mux.stats().streams == 0).await;
        let mut frames = Vec::new();
        while !resets(&frames).contains(&(error, RstStatus::CANCEL)) {
            frames.push(peer.hear().await.unwrap());
        }
        assert!(carried(&frames, error).1, "after the end of the connection: {frames:?}");
    }
}

#[cfg(feature = "net")]
mod local {
    use std::io;

    use kubestream::AbortOnDrop;
    use kubestream::mux::GoAwayStatus;
    use kubestream::portforward::{Forwarder, Reconnecting};
    use tokio::net::TcpStream;

    use super::*;

    /// An accepted connection of a local program that sends without end.
    async fn uploading() -> AbortOnDrop<TcpStream> {
        let mut forwarder = Forwarder::bind(&["127.0.0.1".parse().unwrap()], &[":80".parse().unwrap()]).await.unwrap();
        let (address, _) = forwarder.listening().next().unwrap();
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tokio::spawn(async move { while tcp.write_all(&[1; 100_000]).await.is_ok() {} });
        let (socket, ..) = forwarder.accept().await.unwrap();
        socket
    }

    fn forward(io: tokio::io::DuplexStream) -> PortForward {
        let upgraded = Upgraded::new(io, Bytes::new(), Some(Protocol::SpdyPortForward));
        let (mux, driver) = Multiplexer::client(upgraded, Config::default());
        tokio::spawn(driver);
        PortForward::new(mux).unwrap()
    }

    #[tokio::test]
    async fn what_a_server_says_while_it_is_written_to_is_not_lost() {
        let (near, far) = duplex(1 << 20);
        let forward = forward(near);
        let mut peer = Peer::new(far);
        let socket = uploading().await;
        let server = tokio::spawn(async move {
            let (error, _) = peer.hear_syn().await;
            let (stream, _) = peer.hear_syn().await;
            for frame in [
                reply(error),
                reply(stream),
                data(error, "connection refused"),
                rst(stream, RstStatus::CANCEL),
                rst(error, RstStatus::CANCEL),
            ] {
                peer.say(frame).await;
            }
            peer
        });
        let failed = timeout(Duration::from_secs(20), forward.forward(socket, 80)).await.expect("an end").unwrap_err();
        assert!(matches!(&failed, Error::Failed { reason, .. } if reason == "connection refused"), "{failed:?}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_cluster_that_is_lost_while_it_is_written_to_is_an_error() {
        let (near, far) = duplex(1 << 20);
        let forward = forward(near);
        let mut peer = Peer::new(far);
        let socket = uploading().await;
        tokio::spawn(async move {
            let (error, _) = peer.hear_syn().await;
            let (stream, _) = peer.hear_syn().await;
            peer.say(reply(error)).await;
            peer.say(reply(stream)).await;
            peer.hear().await;
        });
        let lost = timeout(Duration::from_secs(20), forward.forward(socket, 80)).await.expect("an end").unwrap_err();
        assert!(matches!(lost, Error::Connection(_)), "{lost:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_said_goaway_is_made_anew() {
        let (near, far) = duplex(1 << 20);
        let gone = forward(near);
        let mut peer = Peer::new(far);
        peer.say(Frame::GoAway { last_good: StreamId::new(0), status: GoAwayStatus::OK }).await;
        until(|| !gone.multiplexer().takes_streams()).await;
        let connect = || async { Err::<PortForward, _>(io::Error::other("the connection was requested")) };
        let asked = Reconnecting::new(connect).attempts(1).starting_with(gone).get().await;
        assert_eq!(asked.unwrap_err().to_string(), "the connection was requested");
    }
}
