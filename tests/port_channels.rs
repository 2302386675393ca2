//! Legacy port-forward, whose channels follow from the request: between two ends of this library, with peers played by
//! the test that behave as Go's servers and the Python and Node.js clients do, and with a recorded kube-apiserver
//! 1.34.4.
//!
//! Holds its two recordings in `data/websocket/`.

#![allow(clippy::unwrap_used)]

use std::io;
use std::time::Duration;

use bytes::Bytes;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Error, PortForward, PortForwardServer};
use kubestream::protocol::Subprotocol;
use kubestream::unstable::wire::channel::ChannelError;
use kubestream::upgrade::{self, Protocol, UpgradeError, Upgraded};
use kubestream::{ConnectionError, Initiator, StreamError};
use support::fragment::Fragmented;
#[cfg(feature = "net")]
use support::tcp_pair;
use support::websocket::{BINARY, CLOSE, PING, PONG, TEXT, WebSocketPeer, carried_on};
use support::{DriverTask, pattern, until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::time::timeout;

const FORMS: [Subprotocol; 3] = [Subprotocol::V4, Subprotocol::V4Base64, Subprotocol::Unnamed];
const NORMAL: [u8; 2] = 1000u16.to_be_bytes();

fn upgraded<IO>(io: IO, subprotocol: Subprotocol, ports: &[u16]) -> Upgraded<IO> {
    Upgraded::new(io, Bytes::new(), Some(Protocol::LegacyPortForward(subprotocol))).with_ports(ports)
}

fn client<IO>(io: IO, subprotocol: Subprotocol, ports: &[u16]) -> (PortForward, DriverTask)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mux, driver) = Multiplexer::client(upgraded(io, subprotocol, ports), Config::default());
    (PortForward::new(mux).unwrap(), tokio::spawn(driver))
}

fn server<IO>(io: IO, subprotocol: Subprotocol, ports: &[u16]) -> (PortForwardServer, DriverTask)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mux, driver) = Multiplexer::server(upgraded(io, subprotocol, ports), Config::default());
    (PortForwardServer::new(mux).unwrap(), tokio::spawn(driver))
}

/// Our client and a server played by the test that has greeted every channel.
async fn with_server(ports: &[u16]) -> (PortForward, WebSocketPeer, DriverTask) {
    let (near, far) = duplex(1 << 20);
    let (forward, driver) = client(near, Subprotocol::V4, ports);
    let mut peer = WebSocketPeer::server(far);
    for (place, port) in (0..).zip(ports) {
        peer.on(2 * place, &port.to_le_bytes()).await;
        peer.on(2 * place + 1, &port.to_le_bytes()).await;
    }
    (forward, peer, driver)
}

/// Our server and a client played by the test.
fn with_client(ports: &[u16]) -> (PortForwardServer, WebSocketPeer, DriverTask) {
    let (near, far) = duplex(1 << 20);
    let (server, driver) = server(near, Subprotocol::V4, ports);
    (server, WebSocketPeer::client(far), driver)
}

async fn hear(peer: &mut WebSocketPeer<DuplexStream>) -> (u8, Vec<u8>) {
    timeout(Duration::from_secs(1), peer.hear()).await.unwrap().unwrap()
}

/// There is no half-close. Asking for one returns an error, and nothing has ended. `shutdown` pretends to succeed
/// where that does not matter.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_all_is_told_that_nobody_hears_of_it() {
    let (forward, mut peer, driver) = with_server(&[80]).await;
    let mut connection = forward.connect(80).await.unwrap();
    assert!(!connection.can_half_close());
    connection.send("all of it".into()).await.unwrap();
    let error = connection.shutdown().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    let error = error.downcast::<Error>().unwrap();
    assert!(matches!(error, Error::Stream { port: 80, error: StreamError::NoHalfClose }), "{error:?}");
    assert_eq!(error.initiator(), Initiator::User);
    connection.send(", and more".into()).await.unwrap();
    for said in ["all of it", ", and more"] {
        assert_eq!(hear(&mut peer).await, (BINARY, [b"\0", said.as_bytes()].concat()));
    }
    peer.on(0, b"the answer").await;
    assert_eq!(connection.data().await.unwrap().unwrap(), "the answer");
    peer.say(CLOSE, &NORMAL).await;
    assert!(connection.data().await.is_none());
    connection.shutdown().await.expect("no peer is left to be told");
    drop((connection, forward, peer));
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_message_is_longer_than_32_kib_with_its_channel_byte() {
    let (forward, mut peer, _driver) = with_server(&[80]).await;
    let mut connection = forward.connect(80).await.unwrap();
    connection.send(pattern(0, 100_000)).await.unwrap();
    let mut lengths = Vec::new();
    while lengths.iter().sum::<usize>() < 100_000 + lengths.len() {
        lengths.push(hear(&mut peer).await.1.len());
    }
    assert_eq!(lengths, [32 * 1024, 32 * 1024, 32 * 1024, 100_004 - 3 * 32 * 1024]);
}

#[tokio::test(start_paused = true)]
async fn both_ways_are_copied_though_a_client_cannot_say_its_end() {
    for pretends in [true, false] {
        let (forward, mut peer, _driver) = with_server(&[80]).await;
        let mut connection = forward.connect(80).await.unwrap();
        if pretends {
            connection.pretend_half_close();
        }
        let (mut user, mut local) = duplex(100);
        let copying = tokio::spawn(async move { copy_bidirectional(&mut local, &mut connection).await });
        user.write_all(b"the question").await.unwrap();
        user.shutdown().await.unwrap();
        assert_eq!(hear(&mut peer).await, (BINARY, b"\0the question".to_vec()));
        if pretends {
            peer.on(0, b"the answer").await;
            peer.say(CLOSE, &NORMAL).await;
            assert_eq!(copying.await.unwrap().unwrap(), (12, 10));
            let mut answer = String::new();
            user.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "the answer");
        } else {
            assert_eq!(copying.await.unwrap().unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
    }
}

/// A local port stands for the remote one, within the limits of the protocol: a local program that ends its direction
/// still reads the answer.
#[cfg(feature = "net")]
#[tokio::test]
async fn a_local_program_that_ends_its_half_reads_the_answer() {
    use kubestream::portforward::{Forwarder, PortPair};

    let (near, far) = tcp_pair().await;
    let ((forward, _one), (mut server, _two)) =
        (client(near, Subprotocol::V4, &[80]), server(far, Subprotocol::V4, &[80]));
    let localhost = [std::net::Ipv4Addr::LOCALHOST.into()];
    let mut forwarder = Forwarder::bind(&localhost, &[PortPair { local: 0, remote: 80 }]).await.unwrap();
    let (address, _) = forwarder.listening().next().unwrap();
    let program = async {
        let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        tcp.write_all(b"the question").await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "the answer");
    };
    let answering = async {
        let mut connection = server.accept().await.unwrap().unwrap().accept();
        connection.read_exact(&mut [0; 12]).await.unwrap();
        connection.write_all(b"the answer").await.unwrap();
        connection.shutdown().await.unwrap();
    };
    let forwarding = async {
        let (socket, _, ports) = forwarder.accept().await.unwrap();
        forward.forward(socket, ports.remote).await.unwrap();
    };
    tokio::join!(program, answering, forwarding);
}

/// The request names the ports, both ends agree on them, and each port has one connection. The server ends the session
/// with the last of them.
#[tokio::test(start_paused = true)]
async fn each_port_of_the_request_is_one_connection() {
    for form in FORMS {
        for most in [1, 3, 4096] {
            let (near, far) = duplex(4096);
            let serving = async move {
                let pending = upgrade::accept(Fragmented::new(far, 5, most), &Default::default()).await.unwrap();
                let upgraded = pending.accept(Protocol::ANY_PORT_FORWARD).await.unwrap();
                assert_eq!(upgraded.protocol(), Some(Protocol::LegacyPortForward(form)));
                let (mux, driver) = Multiplexer::server(upgraded, Config::default());
                let driver = tokio::spawn(driver);
                let mut server = PortForwardServer::new(mux).unwrap();
                for port in [80, 81, 80] {
                    let request = server.accept().await.unwrap().unwrap();
                    assert_eq!(request.port(), port);
                    let mut connection = request.accept();
                    tokio::spawn(async move {
                        let mut asked = [0; 20_000];
                        connection.read_exact(&mut asked).await.unwrap();
                        connection.write_all(&asked).await.unwrap();
                        connection.write_all(port.to_string().as_bytes()).await.unwrap();
                        connection.shutdown().await.unwrap();
                    });
                }
                assert!(server.accept().await.is_none(), "the client cannot ask for more");
                driver.await.unwrap().unwrap();
            };
            let serving = tokio::spawn(serving);
            let request =
                http::Request::get("http://node/portForward/default/web?port=80,81&port=80").body(()).unwrap();
            let io = Fragmented::new(near, 6, most);
            let offers = [Protocol::LegacyPortForward(form)];
            let upgraded = upgrade::connect(io, request, &offers, &Default::default()).await.unwrap();
            assert_eq!(upgraded.ports(), [80, 81, 80]);
            let (mux, driver) = Multiplexer::client(upgraded, Config::default());
            let driver = tokio::spawn(driver);
            let forward = PortForward::new(mux).unwrap();
            let (first, other, second) = tokio::join!(forward.connect(80), forward.connect(81), forward.connect(80));
            let other_again = forward.connect(81).await.unwrap_err();
            assert!(matches!(other_again, Error::NotAsked { port: 81 }), "{other_again:?}");
            assert_eq!(other_again.initiator(), Initiator::User);
            for (seed, connection) in [first, other, second].into_iter().enumerate() {
                let mut connection = connection.unwrap();
                let sent = pattern(seed, 20_000);
                let (mut reads, mut writes) = tokio::io::split(&mut connection);
                let mut back = vec![0; sent.len() + 2];
                let (wrote, read) = tokio::join!(writes.write_all(&sent), reads.read_exact(&mut back));
                wrote.unwrap();
                read.unwrap();
                assert!(back[..sent.len()] == sent[..], "{form:?} by {most}");
                assert_eq!(&back[sent.len()..], connection.port().to_string().as_bytes());
                if seed == 2 {
                    assert_eq!(connection.read(&mut [0]).await.unwrap(), 0, "all have ended, so the session ends");
                }
            }
            drop(forward);
            driver.await.unwrap().unwrap();
            serving.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_begins_each_channel_with_its_port_and_ends_with_a_close() {
    let (mut server, mut peer, driver) = with_client(&[8080, 7]);
    let web = server.accept().await.unwrap().unwrap();
    assert_eq!(web.port(), 8080);
    let mut web = web.accept();
    let mut echo = server.accept().await.unwrap().unwrap().accept();
    for _ in 0..2 {
        // In any order. Python's client wants these three bytes first on each channel.
        let mut greetings = vec![hear(&mut peer).await, hear(&mut peer).await];
        greetings.sort();
        let place = greetings[0].1[0];
        let port: u16 = if place == 0 { 8080 } else { 7 };
        let greeting = |channel: u8| (BINARY, [&[channel][..], &port.to_le_bytes()].concat());
        assert_eq!(greetings, [greeting(place), greeting(place + 1)]);
    }
    peer.on(0, b"GET /").await;
    peer.say(PING, b"?").await;
    assert_eq!(hear(&mut peer).await, (PONG, b"?".to_vec()));
    assert_eq!(web.data().await.unwrap().unwrap(), "GET /");
    web.send("hello".into()).await.unwrap();
    assert_eq!(hear(&mut peer).await, (BINARY, b"\x00hello".to_vec()));
    web.finish();
    assert!(web.data().await.is_none(), "there is no half-close: what the client still sends is dropped");
    peer.on(0, b"late").await;
    peer.on(2, b"other").await;
    assert_eq!(echo.data().await.unwrap().unwrap(), "other", "the other connection goes on");
    echo.send("tail".into()).await.unwrap();
    echo.finish();
    assert!(server.accept().await.is_none());
    assert_eq!(hear(&mut peer).await, (BINARY, b"\x02tail".to_vec()));
    assert_eq!(hear(&mut peer).await, (CLOSE, NORMAL.to_vec()), "the last of them");
    peer.close(1000).await;
    assert_eq!(peer.hear().await, None);
    drop(peer);
    driver.await.unwrap().unwrap();
}

/// Clients do not wait: their bytes may arrive before the port is reached.
#[tokio::test(start_paused = true)]
async fn a_client_that_speaks_first_is_greeted_all_the_same() {
    let (mut server, mut peer, _driver) = with_client(&[80]);
    peer.on(0, b"early").await;
    let request = server.accept().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut connection = request.accept();
    assert_eq!(connection.data().await.unwrap().unwrap(), "early");
    connection.send("answer".into()).await.unwrap();
    connection.finish();
    assert!(server.accept().await.is_none());
    peer.close(1000).await;
    let frames = peer.hear_all().await;
    assert_eq!(carried_on(&frames, 0), b"\x50\x00answer");
    assert_eq!(carried_on(&frames, 1), b"\x50\x00");
}

#[tokio::test(start_paused = true)]
async fn why_a_port_cannot_be_reached_is_said_on_its_error_channel() {
    let (mut server, mut peer, _driver) = with_client(&[80, 81, 82, 83]);
    server.accept().await.unwrap().unwrap().fail("nobody\r\nlistens");
    server.accept().await.unwrap().unwrap().fail_on_error_stream("nobody either").await.unwrap();
    // A break without an end, which must not look like one.
    drop(server.accept().await.unwrap().unwrap().accept());
    drop(server.accept().await.unwrap().unwrap());
    assert!(server.accept().await.is_none());
    peer.close(1000).await;
    let frames = peer.hear_all().await;
    let said = |channel: u8| String::from_utf8(carried_on(&frames, channel).split_off(2)).unwrap();
    assert_eq!(said(1), "nobodylistens");
    assert_eq!(said(3), "nobody either");
    assert!(said(5).starts_with("the connection was reset"), "{}", said(5));
    assert!(said(7).starts_with("the connection was reset"), "{}", said(7));
    for (place, port) in [80u16, 81, 82, 83].into_iter().enumerate() {
        let channel = 2 * place as u8;
        assert_eq!(carried_on(&frames, channel), port.to_le_bytes(), "each channel begins with its port");
        assert_eq!(carried_on(&frames, channel + 1)[..2], port.to_le_bytes());
    }
}

/// What Go's servers write. It ends the pair, and the other pair goes on.
#[tokio::test(start_paused = true)]
async fn what_a_server_says_on_an_error_channel_is_an_error_of_that_connection() {
    let (forward, mut peer, driver) = with_server(&[80, 81]).await;
    let (mut failing, mut other) = (forward.connect(80).await.unwrap(), forward.connect(81).await.unwrap());
    peer.on(0, b"some of it").await;
    peer.fragment(BINARY, false, b"\x01error forwarding port 80 to pod sb, ").await;
    peer.fragment(0, true, b"uid : connection refused").await;
    assert_eq!(failing.data().await.unwrap().unwrap(), "some of it");
    let failed = failing.data().await.unwrap().unwrap_err();
    let reason = "error forwarding port 80 to pod sb, uid : connection refused";
    assert!(matches!(&failed, Error::Failed { port: 80, reason: said } if said == reason), "{failed:?}");
    // Go's servers may send more, which is ignored.
    peer.on(0, b"more").await;
    peer.on(1, b"and more").await;
    let failed = io::Error::from(failing.data().await.unwrap().unwrap_err());
    assert_eq!(failed.kind(), io::ErrorKind::ConnectionAborted, "and again");
    other.send("hello".into()).await.unwrap();
    assert_eq!(hear(&mut peer).await, (BINARY, b"\x02hello".to_vec()));
    peer.on(2, b"there").await;
    assert_eq!(other.data().await.unwrap().unwrap(), "there");
    peer.close(1000).await;
    assert!(other.data().await.is_none(), "the end of the connection is the end of all");
    drop((failing, other, forward));
    assert_eq!(hear(&mut peer).await, (CLOSE, NORMAL.to_vec()));
    drop(peer);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_close_is_none() {
    for code in [None, Some(1001), Some(1011)] {
        let (forward, mut peer, driver) = with_server(&[80]).await;
        let mut connection = forward.connect(80).await.unwrap();
        peer.on(0, b"half of it").await;
        match code {
            Some(code) => peer.close(code).await,
            None => drop(peer),
        }
        assert_eq!(connection.data().await.unwrap().unwrap(), "half of it");
        let lost = connection.data().await.unwrap().unwrap_err();
        assert!(matches!(lost, Error::Connection(_)), "{lost:?}");
        assert_eq!(lost.initiator(), Initiator::Remote);
        assert!(driver.await.unwrap().is_err());
    }
}

/// Python's client closes when its socket is closed, and Node's when its input ends. What they sent before is not lost.
#[tokio::test(start_paused = true)]
async fn what_a_client_has_sent_before_its_close_is_read_to_an_end() {
    for code in [None, Some(1000), Some(1001)] {
        let (mut server, mut peer, driver) = with_client(&[80]);
        let mut connection = server.accept().await.unwrap().unwrap().accept();
        peer.on(0, b"all of it").await;
        match code {
            Some(code) => peer.close(code).await,
            None => peer.say(CLOSE, b"").await,
        }
        let mut all = String::new();
        connection.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "all of it");
        assert!(connection.send("to nobody".into()).await.is_err());
        assert!(server.accept().await.is_none());
        drop(peer);
        driver.await.unwrap().unwrap();
    }
    let (mut server, peer, driver) = with_client(&[80]);
    let mut connection = server.accept().await.unwrap().unwrap().accept();
    drop(peer);
    assert!(matches!(connection.data().await, Some(Err(Error::Connection(ConnectionError::Lost)))));
    assert!(driver.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_channel_of_another_port_is_no_connection_of_ours() {
    let (near, far) = duplex(1 << 20);
    let (forward, driver) = client(near, Subprotocol::V4, &[80]);
    let mut peer = WebSocketPeer::server(far);
    peer.on(0, &81u16.to_le_bytes()).await;
    let error = forward.connect(80).await.unwrap_err();
    let expected = ConnectionError::from(ChannelError::Port { expected: 80, said: 81 });
    assert_eq!(error.to_string(), expected.to_string());
    drop(forward);
    assert!(matches!(hear(&mut peer).await, (CLOSE, payload) if payload[..2] == 1002u16.to_be_bytes()));
    drop(peer);
    assert!(driver.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_no_port_is_given_up() {
    let (near, _far) = duplex(1 << 20);
    let (forward, _driver) = client(near, Subprotocol::V4, &[80]);
    let late = forward.connect(80).await.unwrap_err();
    assert!(matches!(late, Error::Timeout { port: 80, .. }), "{late:?}");
}

/// A port whose connection was dropped, read or unread, does not block the other.
#[tokio::test(start_paused = true)]
async fn a_dropped_connection_leaves_the_others_alone() {
    let (forward, mut peer, _driver) = with_server(&[80, 81]).await;
    drop(forward.connect(80).await.unwrap());
    let mut other = forward.connect(81).await.unwrap();
    for _ in 0..100 {
        peer.on(0, &pattern(0, 60_000)).await;
    }
    peer.on(2, b"through").await;
    assert_eq!(other.data().await.unwrap().unwrap(), "through");
    until(|| forward.multiplexer().stats().unread == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_text_is_bytes_to_a_server_and_an_error_to_a_client() {
    let (mut server, mut peer, _driver) = with_client(&[80]);
    let mut connection = server.accept().await.unwrap().unwrap().accept();
    peer.say(TEXT, b"\0text").await;
    assert_eq!(connection.data().await.unwrap().unwrap(), "text");
    let (forward, mut peer, _driver) = with_server(&[80]).await;
    let mut connection = forward.connect(80).await.unwrap();
    peer.say(TEXT, b"\0text").await;
    assert!(matches!(connection.data().await, Some(Err(Error::Connection(ConnectionError::Malformed(_))))));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_ports_is_refused_in_gos_words() {
    let v4 = [Protocol::LegacyPortForward(Subprotocol::V4)];
    let (near, far) = duplex(4096);
    let request = http::Request::get("http://node/portForward/default/web").body(()).unwrap();
    let unfit = upgrade::connect(near, request, &v4, &Default::default()).await.unwrap_err();
    assert_eq!(unfit.initiator(), Initiator::User);
    assert_eq!(unfit.to_string(), "the request cannot be sent: query parameter \"port\" is required");
    drop(far);

    for (query, why) in [
        ("", "query parameter \"port\" is required"),
        ("?port=0", "unable to parse \"0\" as a port"),
        ("?ports=80&ports=-1", "unable to parse \"-1\" as a port"),
    ] {
        let (mut near, far) = duplex(4096);
        let head = format!(
            "GET /portForward/default/web{query} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
            Sec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io\r\n\r\n"
        );
        near.write_all(head.as_bytes()).await.unwrap();
        let pending = upgrade::accept(far, &Default::default()).await.unwrap();
        let (refused, answer) = tokio::join!(pending.accept(Protocol::ANY_PORT_FORWARD), async {
            let mut answer = String::new();
            near.shutdown().await.unwrap();
            near.read_to_string(&mut answer).await.unwrap();
            answer
        });
        assert!(matches!(refused, Err(UpgradeError::NoPort | UpgradeError::InvalidPort { .. })), "{refused:?}");
        assert_eq!(refused.unwrap_err().to_string(), why);
        let body = format!("\r\n\r\nunable to upgrade: {why}\n");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with(&body), "{answer}");
    }
}

/// A connection whose handshake was made elsewhere, without the ports: it ends with an error, in an orderly way.
#[tokio::test(start_paused = true)]
async fn without_ports_there_is_nothing_to_forward() {
    let (near, far) = duplex(4096);
    let (mut server, driver) = server(near, Subprotocol::V4, &[]);
    let mut peer = WebSocketPeer::client(far);
    assert!(server.accept().await.is_none());
    assert_eq!(hear(&mut peer).await, (CLOSE, NORMAL.to_vec()));
    drop(peer);
    driver.await.unwrap().unwrap();
}

/// Port-forward to an echo, as a client without a library was recorded through a kube-apiserver 1.34.4.
#[tokio::test(start_paused = true)]
async fn a_recorded_session_is_understood_at_both_ends() {
    for (name, form) in [("ws-v4-portforward", Subprotocol::V4), ("ws-v4-base64-portforward", Subprotocol::V4Base64)] {
        for most in [1, 2, 700] {
            let recorded = |side: &str| support::recording::said(&format!("websocket/{name}"), side);
            // Our client against the recorded server, with the key of the recorded client.
            let (_, behind) = recorded("s2c");
            let (near, mut far) = duplex(1 << 16);
            far.write_all(&behind).await.unwrap();
            let (forward, driver) = client(Fragmented::new(near, 3, most), form, &[7007]);
            let mut connection = forward.connect(7007).await.unwrap();
            let mut all = String::new();
            connection.read_to_string(&mut all).await.unwrap();
            assert_eq!(all, "ping1", "{name} by {most}");
            drop((connection, forward, far));
            driver.await.unwrap().unwrap();

            // Our server against the recorded client.
            let (head, behind) = recorded("c2s");
            let (near, mut far) = duplex(1 << 16);
            far.write_all(&[head.as_bytes(), &behind].concat()).await.unwrap();
            let pending = upgrade::accept(Fragmented::new(near, 4, most), &Default::default()).await.unwrap();
            let upgraded = pending.accept(Protocol::ANY_PORT_FORWARD).await.unwrap();
            assert_eq!((upgraded.protocol(), upgraded.ports()), (Some(Protocol::LegacyPortForward(form)), &[7007][..]));
            let (mux, driver) = Multiplexer::server(upgraded, Config::default());
            let driver = tokio::spawn(driver);
            let mut server = PortForwardServer::new(mux).unwrap();
            let mut connection = server.accept().await.unwrap().unwrap().accept();
            let mut all = String::new();
            connection.read_to_string(&mut all).await.unwrap();
            assert_eq!(all, "ping1", "{name} by {most}");
            drop(connection);
            drop(far);
            driver.await.unwrap().unwrap();
        }
    }
}
