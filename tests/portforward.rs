//! Port-forward between two ends of this library, and with peers played by the test that behave as Go's do.
//!
//! Each test is a transcript of a client and a server. Time is virtual and passes only while no task can run.

#![allow(clippy::unwrap_used)]

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use kubestream::mux::RstStatus;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Connection, Error, MAX_REASON_LEN, PortForward, PortForwardServer};
use kubestream::unstable::wire::spdy::Frame;
use kubestream::upgrade::{Protocol, Upgraded, Version};
use kubestream::{ConnectionError, Initiator};
use support::fragment::Fragmented;
use support::peer::{Peer, carried, data, fin, reply, resets, rst, syn};
use support::{DriverTask, pattern, until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

/// The protocols with streams. `port_channels.rs` tests legacy port-forward.
const FORMS: &[Protocol] = &[Protocol::TunneledPortForward, Protocol::SpdyPortForward];

fn client<IO>(io: IO, form: Protocol) -> (PortForward, Multiplexer, DriverTask)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mux, driver) = Multiplexer::client(Upgraded::new(io, Bytes::new(), Some(form)), Config::default());
    (PortForward::new(mux.clone()).unwrap(), mux, tokio::spawn(driver))
}

fn server<IO>(io: IO, form: Protocol) -> (PortForwardServer, Multiplexer, DriverTask)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mux, driver) = Multiplexer::server(Upgraded::new(io, Bytes::new(), Some(form)), Config::default());
    (PortForwardServer::new(mux.clone()).unwrap(), mux, tokio::spawn(driver))
}

async fn echo(mut connection: Connection) {
    while let Some(data) = connection.data().await {
        if connection.send(data.unwrap()).await.is_err() {
            return;
        }
    }
    connection.finish();
}

/// Serves port 7 with echoes and refuses every other.
async fn serve(mut server: PortForwardServer) -> Option<Error> {
    loop {
        match server.accept().await {
            None => return None,
            Some(Err(error)) => return Some(error),
            Some(Ok(request)) if request.port() == 7 => drop(tokio::spawn(echo(request.accept()))),
            Some(Ok(request)) => {
                let port = request.port();
                request.fail(&format!("nobody listens on port {port}\r\n: it is closed"));
            }
        }
    }
}

/// Two ends, with an echo behind the server's.
fn pair(form: Protocol, pipe: usize) -> (PortForward, Multiplexer, Multiplexer, [DriverTask; 2]) {
    let (near, far) = duplex(pipe);
    let (forward, mux, one) = client(near, form);
    let (server, server_mux, two) = server(far, form);
    tokio::spawn(serve(server));
    (forward, mux, server_mux, [one, two])
}

#[tokio::test(start_paused = true)]
async fn a_connection_reads_and_writes_and_half_closes_both_ways() {
    for &form in FORMS {
        let (forward, ..) = pair(form, 4096);
        let connection = forward.connect(7).await.unwrap();
        assert_eq!(connection.port(), 7);
        let (mut reads, mut writes) = tokio::io::split(connection);
        let sent = pattern(0, 1 << 20);
        let writing = async {
            writes.write_all(&sent).await.unwrap();
            writes.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let (_, read) = tokio::join!(writing, reads.read_to_end(&mut back));
        read.unwrap();
        assert!(back == sent, "{form}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_refused_says_why_and_takes_no_other_with_it() {
    for &form in FORMS {
        let (forward, ..) = pair(form, 4096);
        let mut before = forward.connect(7).await.unwrap();
        let refused = forward.connect(8).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "port 8: the server reports a failure: nobody listens on port 8: it is closed",
            "{form}"
        );
        assert_eq!(refused.initiator(), Initiator::Remote);
        assert!(matches!(forward.connect(0).await, Err(Error::NoPort)));
        let mut after = forward.connect(7).await.unwrap();
        for connection in [&mut before, &mut after] {
            connection.send("still here".into()).await.unwrap();
            assert_eq!(connection.data().await.unwrap().unwrap(), "still here");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hundreds_at_a_time_and_thousands_one_after_another_leave_nothing_behind() {
    for &form in FORMS {
        let (forward, mux, server, _drivers) = pair(form, 64 * 1024);
        let one = |number: usize| {
            let forward = &forward;
            async move {
                let mut connection = forward.connect(7).await.unwrap();
                let sent = pattern(number, 3000);
                connection.send(sent.clone()).await.unwrap();
                connection.finish();
                let mut back = Vec::new();
                connection.read_to_end(&mut back).await.unwrap();
                assert!(back == sent, "{number}");
            }
        };
        join_all((0..400).map(one)).await;
        for number in 0..2000 {
            one(number).await;
        }
        until(|| mux.stats().streams == 0 && server.stats().streams == 0).await;
        assert_eq!((mux.stats().unread, server.stats().unread), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_dropped_is_reset_and_the_server_told() {
    for &form in FORMS {
        let (near, far) = duplex(64 * 1024);
        let (forward, mux, _one) = client(near, form);
        let (mut server, server_mux, _two) = server(far, form);
        let (connection, request) =
            tokio::join!(forward.connect(80), async { server.accept().await.unwrap().unwrap().accept() });
        drop(connection.unwrap());
        let mut served = request;
        assert!(served.data().await.unwrap().is_err(), "{form}: it broke off");
        let write = async {
            while served.send("x".into()).await.is_ok() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        write.await;
        drop(served);
        until(|| mux.stats().streams == 0 && server_mux.stats().streams == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_shutdown_survives_the_drop() {
    for &form in FORMS {
        let (near, far) = duplex(1024);
        let (forward, _mux, _one) = client(near, form);
        let (mut server, _, _two) = server(far, form);
        let serving = tokio::spawn(async move {
            let mut connection = server.accept().await.unwrap().unwrap().accept();
            connection.send(pattern(0, 200_000)).await.unwrap();
            connection.finish();
            drop(connection);
            server.accept().await.is_none()
        });
        let mut connection = forward.connect(80).await.unwrap();
        let mut all = Vec::new();
        connection.read_to_end(&mut all).await.unwrap();
        assert!(all == pattern(0, 200_000), "{form}");
        drop((connection, forward, _mux));
        assert!(serving.await.unwrap(), "an orderly end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_an_error_of_every_connection_on_it() {
    for &form in FORMS {
        let (near, far) = duplex(64 * 1024);
        let (forward, _mux, _one) = client(near, form);
        let (server, _, two) = server(far, form);
        tokio::spawn(serve(server));
        let mut connection = forward.connect(7).await.unwrap();
        two.abort();
        let lost = connection.data().await.unwrap().unwrap_err();
        assert!(matches!(lost, Error::Connection(ConnectionError::Lost)), "{form}: {lost:?}");
        assert_eq!(io::Error::from(lost).kind(), io::ErrorKind::ConnectionAborted);
        assert!(matches!(forward.connect(7).await, Err(Error::Connection(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_however_the_bytes_are_split() {
    for &form in FORMS {
        for seed in 0..10 {
            let (near, far) = duplex(3000);
            let (forward, _mux, _one) = client(Fragmented::new(near, seed, 500), form);
            let (server, _, _two) = server(Fragmented::new(far, !seed, 500), form);
            tokio::spawn(serve(server));
            let mut connection = forward.connect(7).await.unwrap();
            for part in 0..5 {
                connection.send(pattern(part, 5000)).await.unwrap();
            }
            connection.finish();
            let mut back = Vec::new();
            connection.read_to_end(&mut back).await.unwrap();
            assert!(back == (0..5).flat_map(|part| pattern(part, 5000)).collect::<Vec<u8>>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_speaks_something_else_forwards_nothing() {
    let (near, _far) = duplex(1024);
    let (mux, _driver) = support::client(near, Config::default());
    assert!(matches!(PortForward::new(mux.clone()), Err(Error::NotPortForward(None))));
    assert!(matches!(PortForwardServer::new(mux), Err(Error::NotPortForward(None))));
    let spoken = Protocol::SpdyExec(Version::V4);
    assert_eq!(
        Error::NotPortForward(Some(spoken)).to_string(),
        "the connection was not upgraded to port-forward: it speaks exec over SPDY (v4.channel.k8s.io)"
    );
}

/// Our client and a server played by the test that has accepted one connection.
async fn with_go_server() -> (Connection, Peer, PortForward, DriverTask) {
    let (near, far) = duplex(1 << 20);
    let (forward, _, driver) = client(near, Protocol::SpdyPortForward);
    let mut peer = Peer::new(far);
    let answers = async {
        let (error, headers) = peer.hear_syn().await;
        let pairs = [("streamtype", "error"), ("port", "80"), ("requestid", "0")];
        assert!(pairs.iter().all(|(name, value)| headers.get(name) == Some(value)), "{headers:?}");
        let (data, headers) = peer.hear_syn().await;
        assert_eq!((headers.get("streamtype"), headers.get("requestid")), (Some("data"), Some("0")));
        assert_eq!(peer.hear().await, Some(fin(error)), "a client writes nothing to the error stream");
        peer.say(reply(error)).await;
        peer.say(reply(data)).await;
    };
    let (connection, ()) = tokio::join!(forward.connect(80), answers);
    (connection.unwrap(), peer, forward, driver)
}

/// Error text as DATA, then RST CANCEL on both streams (kubernetes#128318) or, as in containerd, FIN on both.
#[tokio::test(start_paused = true)]
async fn what_a_go_server_says_on_the_error_stream_is_an_error_of_that_connection() {
    const REASON: &str =
        "error forwarding port 80 to pod sb, uid : dial tcp4 127.0.0.1:80: connect: connection refused\n";
    let resets: [Frame; 3] = [data(1, REASON), rst(3, RstStatus::CANCEL), rst(1, RstStatus::CANCEL)];
    let fins: [Frame; 3] = [fin(3), data(1, REASON), fin(1)];
    for frames in [resets, fins] {
        let (mut connection, mut peer, ..) = with_go_server().await;
        peer.say(data(3, "some of it")).await;
        for frame in frames {
            peer.say(frame).await;
        }
        assert_eq!(connection.data().await.unwrap().unwrap(), "some of it");
        let failed = connection.data().await.unwrap().unwrap_err();
        assert!(matches!(&failed, Error::Failed { port: 80, reason } if reason == REASON.trim()), "{failed:?}");
        let mut read = [0; 10];
        let failed = connection.read(&mut read).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionAborted, "and again, through AsyncRead");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reason_without_end_is_cut_off() {
    let (mut connection, mut peer, ..) = with_go_server().await;
    peer.say(fin(3)).await;
    let talking = tokio::spawn(async move {
        for _ in 0..100 {
            peer.say(data(1, vec![b'x'; 10_000])).await;
        }
        peer.say(fin(1)).await;
        peer
    });
    let failed = connection.data().await.unwrap().unwrap_err();
    let Error::Failed { reason, .. } = failed else { panic!("{failed:?}") };
    assert_eq!(reason.len(), MAX_REASON_LEN);
    talking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_end_is_an_end_though_the_error_stream_never_ends() {
    let (mut connection, mut peer, ..) = with_go_server().await;
    peer.say(data(3, "all")).await;
    peer.say(fin(3)).await;
    let began = Instant::now();
    let mut all = String::new();
    connection.read_to_string(&mut all).await.unwrap();
    assert_eq!((all.as_str(), began.elapsed().as_secs()), ("all", 5));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_or_does_not_answer_fails_that_connection() {
    let (near, far) = duplex(1 << 20);
    let (forward, mux, _driver) = client(near, Protocol::SpdyPortForward);
    let mut peer = Peer::new(far);
    let refusal = async {
        peer.hear_syn().await;
        let (data, _) = peer.hear_syn().await;
        peer.say(rst(data, RstStatus::REFUSED_STREAM)).await;
    };
    let (refused, ()) = tokio::join!(forward.connect(80), refusal);
    assert!(matches!(refused, Err(Error::Refused { port: 80, status: RstStatus::REFUSED_STREAM })), "{refused:?}");
    let began = Instant::now();
    let late = forward.connect(81).await.unwrap_err();
    assert!(matches!(late, Error::Timeout { port: 81, .. }), "{late:?}");
    assert_eq!(began.elapsed().as_secs(), 30);
    until(|| mux.stats().streams == 0).await;
}

/// Our server and a client played by the test.
fn with_go_client() -> (PortForwardServer, Multiplexer, Peer<DuplexStream>) {
    let (near, far) = duplex(1 << 20);
    let (server, mux, _) = server(near, Protocol::SpdyPortForward);
    (server, mux, Peer::new(far))
}

#[tokio::test(start_paused = true)]
async fn client_gos_streams_are_a_connection() {
    let (mut server, mux, mut peer) = with_go_client();
    let client = tokio::spawn(async move {
        peer.say(syn(1, &[("streamtype", "error"), ("port", "8080"), ("requestid", "0")])).await;
        assert_eq!(peer.hear().await, Some(reply(1)), "client-go waits for that before it opens the other stream");
        peer.say(fin(1)).await;
        peer.say(syn(3, &[("streamtype", "data"), ("port", "8080"), ("requestid", "0")])).await;
        assert_eq!(peer.hear().await, Some(reply(3)));
        peer.say(data(3, "GET /")).await;
        peer.say(fin(3)).await;
        let mut frames = Vec::new();
        while !carried(&frames, 1).1 || !carried(&frames, 3).1 {
            frames.push(peer.hear().await.unwrap());
        }
        // Always, although both directions have ended.
        peer.say(rst(3, RstStatus::CANCEL)).await;
        (carried(&frames, 3).0, carried(&frames, 1).0, peer)
    });
    let request = server.accept().await.unwrap().unwrap();
    assert_eq!((request.port(), request.id()), (8080, "0"));
    let mut connection = request.accept();
    let mut asked = String::new();
    connection.read_to_string(&mut asked).await.unwrap();
    assert_eq!(asked, "GET /");
    connection.send("200 OK".into()).await.unwrap();
    connection.finish();
    drop(connection);
    let (answer, error, _peer) = client.await.unwrap();
    assert_eq!((&answer[..], &error[..]), (&b"200 OK"[..], &b""[..]));
    until(|| mux.stats().streams == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_without_request_ids_is_understood() {
    let (mut server, _mux, mut peer) = with_go_client();
    for (error, port) in [(1, "80"), (5, "81")] {
        peer.say(syn(error, &[("streamtype", "error"), ("port", port)])).await;
        peer.say(syn(error + 2, &[("streamtype", "data"), ("port", port)])).await;
        let request = server.accept().await.unwrap().unwrap();
        assert_eq!((request.port().to_string(), request.id().to_owned()), (port.to_owned(), error.to_string()));
        drop(request);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_half_of_a_pair_is_reset_and_nothing_else() {
    let (mut server, mux, mut peer) = with_go_client();
    let good = [("streamtype", "error"), ("port", "80"), ("requestid", "a")];
    let strays: [&[(&str, &str)]; 6] = [
        &good,
        &[("streamtype", "stdin"), ("port", "80")],
        &[("port", "80"), ("requestid", "b")],
        &[("streamtype", "data"), ("requestid", "c")],
        &[("streamtype", "data"), ("port", "0"), ("requestid", "d")],
        &good,
    ];
    for (number, headers) in strays.iter().enumerate() {
        peer.say(syn(1 + 2 * number as u32, headers)).await;
    }
    peer.say(syn(21, &[("streamtype", "data"), ("port", "80"), ("requestid", "a")])).await;
    let request = server.accept().await.unwrap().unwrap();
    let mut connection = request.accept();
    connection.send("x".into()).await.unwrap();
    let mut frames = Vec::new();
    while carried(&frames, 21).0.is_empty() {
        frames.push(peer.hear().await.unwrap());
    }
    let mut reset: Vec<u32> = resets(&frames).into_iter().map(|(id, _)| id).collect();
    reset.sort_unstable();
    assert_eq!(reset, [3, 5, 7, 9, 11]);
    assert!(mux.stats().streams <= 3);
}

/// Row 42: if a peer falls silent, its connections are freed at either end.
#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_ends_every_connection_with_it() {
    let (mut connection, silent, _forward, driver) = with_go_server().await;
    let began = Instant::now();
    let lost = connection.data().await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::Connection(ConnectionError::KeepaliveTimeout(_))), "{lost:?}");
    assert_eq!(began.elapsed().as_secs(), 60);
    assert!(driver.await.unwrap().is_err());
    drop(silent);

    let (mut server, _mux, mut silent) = with_go_client();
    silent.say(syn(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")])).await;
    silent.say(syn(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")])).await;
    let mut connection = server.accept().await.unwrap().unwrap().accept();
    let lost = connection.data().await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::Connection(ConnectionError::KeepaliveTimeout(_))), "{lost:?}");
    assert!(matches!(server.accept().await, Some(Err(Error::Connection(_)))));
}

/// Row 20.
#[tokio::test(start_paused = true)]
async fn a_half_whose_other_does_not_come_is_given_up_and_freed() {
    let (mut server, mux, mut peer) = with_go_client();
    let client = tokio::spawn(async move {
        for number in 0..600u32 {
            let request = number.to_string();
            peer.say(syn(1 + 2 * number, &[("streamtype", "error"), ("port", "80"), ("requestid", &request)])).await;
        }
        let began = Instant::now();
        let mut frames = Vec::new();
        while resets(&frames).len() < 600 {
            frames.push(peer.hear().await.unwrap());
        }
        (resets(&frames), began.elapsed().as_secs(), peer)
    });
    let accepting = tokio::spawn(async move {
        let accepted = server.accept().await;
        (accepted.is_none(), server)
    });
    let (resets, took, _peer) = client.await.unwrap();
    let refused = resets.iter().filter(|(_, status)| *status == RstStatus::REFUSED_STREAM).count();
    assert_eq!((refused, took), (600 - 512, 30));
    until(|| mux.stats().streams == 0).await;
    assert!(accepting.now_or_never().is_none(), "and it goes on");
}

#[tokio::test(start_paused = true)]
async fn a_failure_said_as_go_says_it_is_on_the_error_stream() {
    let (mut server, _mux, mut peer) = with_go_client();
    peer.say(syn(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")])).await;
    peer.say(syn(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")])).await;
    server.accept().await.unwrap().unwrap().fail_on_error_stream("no such port").await.unwrap();
    let mut frames = Vec::new();
    while !carried(&frames, 1).1 || !carried(&frames, 3).1 {
        frames.push(peer.hear().await.unwrap());
    }
    assert_eq!((&carried(&frames, 1).0[..], &carried(&frames, 3).0[..]), (&b"no such port"[..], &b""[..]));
}

mod tunnel {
    use bytes::BytesMut;
    use kubestream::mux::SpdyConfig;
    use kubestream::unstable::wire::spdy::Codec;
    use support::websocket::{BINARY, CLOSE, PING, PONG, TEXT, WebSocketPeer};
    use tokio_util::codec::Encoder;

    use super::*;

    /// Go puts three messages into a frame, and a proxy whatever it has read.
    #[tokio::test(start_paused = true)]
    async fn messages_are_cut_anywhere() {
        for step in [1, 2, 3, 5, 100] {
            let (near, far) = duplex(1 << 20);
            let (mut server, ..) = server(near, Protocol::TunneledPortForward);
            let mut peer = WebSocketPeer::client(far);
            let (mut codec, mut wire) = (Codec::new(SpdyConfig::default()), BytesMut::new());
            for frame in [
                syn(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]),
                syn(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
                data(3, "GET /"),
                fin(3),
            ] {
                codec.encode(frame, &mut wire).unwrap();
            }
            for piece in wire.chunks(step) {
                peer.say(BINARY, piece).await;
                peer.say(BINARY, b"").await;
            }
            peer.say(PING, b"below").await;
            let mut connection = server.accept().await.unwrap().unwrap().accept();
            let mut asked = String::new();
            connection.read_to_string(&mut asked).await.unwrap();
            assert_eq!(asked, "GET /", "by {step}");
            loop {
                let (opcode, payload) = peer.hear().await.unwrap();
                if opcode == PONG {
                    assert_eq!(payload, b"below");
                    break;
                }
                assert_eq!(opcode, BINARY);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_is_the_end_between_frames_and_a_loss_inside_one() {
        for (inside, code) in [(false, 1000u16), (true, 1000), (false, 1011)] {
            let (near, far) = duplex(1 << 20);
            let (_forward, mux, driver) = client(near, Protocol::TunneledPortForward);
            let mut peer = WebSocketPeer::server(far);
            if inside {
                peer.say(BINARY, b"\x80\x03\x00").await;
            }
            peer.close(code).await;
            let ended = driver;
            let frames = peer.hear_all();
            let (frames, ()) = tokio::join!(frames, async {
                let _ = mux.closed().now_or_never();
            });
            assert!(inside || frames.iter().any(|(opcode, _)| *opcode == CLOSE));
            drop(peer);
            let ended = ended.await.unwrap();
            match (inside, code) {
                (false, 1000) => ended.unwrap(),
                (true, _) => assert!(matches!(ended, Err(ConnectionError::Lost)), "{ended:?}"),
                _ => assert!(matches!(ended, Err(ConnectionError::PeerClosed { code: Some(1011), .. })), "{ended:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_of_text_is_no_part_of_it() {
        let (near, far) = duplex(1 << 20);
        let (_forward, mux, _driver) = client(near, Protocol::TunneledPortForward);
        let mut peer = WebSocketPeer::server(far);
        peer.say(TEXT, b"upstream is gone").await;
        let error = mux.closed().await.unwrap_err();
        assert!(matches!(error, ConnectionError::Malformed(_)), "{error:?}");
    }
}
