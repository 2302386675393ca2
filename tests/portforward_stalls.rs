//! One unread connection among many to a peer without windows, such as Go's peers: it must not block the others for
//! ever.
//!
//! Time is virtual and passes only while no task can run.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use kubestream::mux::RstStatus;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Connection, Error, Options, PortForward, PortForwardServer};
use kubestream::unstable::wire::spdy::Frame;
use kubestream::upgrade::{Protocol, Upgraded, Version};
use kubestream::{Initiator, StreamError};
use support::peer::{Peer, data, fin, reply, syn};
use support::{config, pattern};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const AN_HOUR: Duration = Duration::from_secs(3600);
/// More bytes than may be held unread.
const MUCH: usize = 3 << 20;

/// Our client and a server played by the test that has accepted that many connections. Their data streams are 3, 7, and
/// so on.
async fn to_a_go_server(options: Options, count: usize) -> (PortForward, Vec<Connection>, Peer) {
    // All bytes fit in, so only our end can be what does not read.
    let (near, far) = duplex(16 << 20);
    let upgraded = Upgraded::new(near, Bytes::new(), Some(Protocol::SpdyPortForward));
    // The peer does not answer PINGs, so none are sent.
    let (mux, driver) = Multiplexer::client(upgraded, config(|config| config.keepalive_interval = None));
    tokio::spawn(driver);
    let forward = PortForward::with_options(mux, options).unwrap();
    let (mut peer, mut connections) = (Peer::new(far), Vec::new());
    for _ in 0..count {
        let (connection, ()) = tokio::join!(forward.connect(80), answer(&mut peer));
        connections.push(connection.unwrap());
    }
    (forward, connections, peer)
}

async fn answer(peer: &mut Peer) {
    let mut heard = Vec::new();
    while heard.len() < 2 {
        if let Some(Frame::SynStream { id, .. }) = peer.hear().await {
            heard.push(id.get());
            peer.say(reply(id.get())).await;
        }
    }
}

async fn says(peer: &mut Peer, stream: u32, len: usize) {
    for piece in pattern(1, len).chunks(32 * 1024) {
        peer.say(data(stream, piece.to_vec())).await;
    }
}

/// Waits until the stream is reset, and returns how long that took.
async fn is_reset(peer: &mut Peer, stream: u32) -> u64 {
    let began = Instant::now();
    loop {
        match peer.hear().await.expect("all of them have ended") {
            Frame::RstStream { id, status } if id.get() == stream => {
                assert_eq!(status, RstStatus::INTERNAL_ERROR);
                return began.elapsed().as_secs();
            }
            _ => {}
        }
    }
}

fn stalled(connection: Option<Result<Bytes, Error>>) {
    let error = connection.unwrap().unwrap_err();
    assert_eq!(error.initiator(), Initiator::User);
    let after = Duration::from_secs(20);
    assert!(matches!(error, Error::Stream { port: 80, error: StreamError::Stalled { after: at } } if at == after));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_reads_is_given_up_for_the_others() {
    let (forward, mut connections, mut peer) = to_a_go_server(Options::default(), 2).await;
    says(&mut peer, 3, MUCH).await;
    peer.say(data(7, "hello")).await;
    let began = Instant::now();
    let hello = timeout(AN_HOUR, connections[1].data()).await.expect("it is blocked");
    assert_eq!((hello.unwrap().unwrap(), began.elapsed().as_secs()), (Bytes::from("hello"), 20));
    assert_eq!(is_reset(&mut peer, 3).await, 0);
    // Only that pair, and what it held is free.
    stalled(connections[0].data().await);
    assert!(matches!(
        connections[0].send("x".into()).await,
        Err(Error::Stream { error: StreamError::Stalled { .. }, .. })
    ));
    says(&mut peer, 7, MUCH).await;
    let mut much = vec![0; MUCH];
    connections[1].read_exact(&mut much).await.unwrap();
    assert!(forward.multiplexer().takes_streams() && forward.multiplexer().stats().unread == 0);
}

/// For example a download behind a pager, while nothing else uses the session.
#[tokio::test(start_paused = true)]
async fn alone_it_is_waited_for_for_ever() {
    let (_forward, mut connections, mut peer) = to_a_go_server(Options::default(), 1).await;
    says(&mut peer, 3, MUCH).await;
    sleep(3 * AN_HOUR).await;
    let mut much = vec![0; MUCH];
    connections[0].read_exact(&mut much).await.unwrap();
    assert!(much == pattern(1, MUCH));
}

/// Until another connection is needed: then it has had its time.
#[tokio::test(start_paused = true)]
async fn it_is_given_up_for_a_new_connection() {
    let (forward, mut connections, mut peer) = to_a_go_server(Options::default(), 1).await;
    says(&mut peer, 3, MUCH).await;
    sleep(AN_HOUR).await;
    let began = Instant::now();
    let (connection, ()) = tokio::join!(forward.connect(80), answer(&mut peer));
    connection.unwrap();
    assert_eq!(began.elapsed().as_secs(), 0);
    stalled(connections[0].data().await);

    // Also if both begin at once, within the timeout of a connect.
    let (forward, _connections, mut peer) = to_a_go_server(Options::default(), 1).await;
    says(&mut peer, 3, MUCH).await;
    let (connection, ()) = tokio::join!(forward.connect(80), answer(&mut peer));
    connection.unwrap();
}

/// A connection that waits while another is unread is served in time, also one that begins to wait later.
#[tokio::test(start_paused = true)]
async fn who_begins_to_wait_later_is_not_held_up_for_longer() {
    let (_forward, mut connections, mut peer) = to_a_go_server(Options::default(), 2).await;
    peer.say(data(7, "hello")).await;
    says(&mut peer, 3, MUCH).await;
    peer.say(data(7, "and more")).await;
    sleep(AN_HOUR).await;
    assert_eq!(connections[1].data().await.unwrap().unwrap(), "hello");
    let began = Instant::now();
    assert_eq!(connections[1].data().await.unwrap().unwrap(), "and more");
    assert_eq!(began.elapsed().as_secs(), 0);
}

/// Each has its time, and only as many are given up as necessary.
#[tokio::test(start_paused = true)]
async fn of_several_the_one_goes_first_that_holds_the_most() {
    let (_forward, mut connections, mut peer) = to_a_go_server(Options::default(), 4).await;
    says(&mut peer, 3, 500_000).await;
    says(&mut peer, 7, 1 << 20).await;
    says(&mut peer, 11, MUCH).await;
    peer.say(data(15, "hello")).await;
    let began = Instant::now();
    assert_eq!(connections[3].data().await.unwrap().unwrap(), "hello");
    assert_eq!(began.elapsed().as_secs(), 40);
    stalled(connections[1].data().await);
    stalled(connections[2].data().await);
    assert!(connections[0].data().await.unwrap().is_ok());
}

/// Its reader takes some bytes from time to time, which is no stall.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_left_alone() {
    let (_forward, mut connections, mut peer) = to_a_go_server(Options::default(), 2).await;
    says(&mut peer, 3, MUCH).await;
    let mut slow = connections.remove(0);
    let reading = tokio::spawn(async move {
        let mut piece = vec![0; 200_000];
        let mut had = 0;
        while had + piece.len() <= MUCH {
            sleep(Duration::from_secs(15)).await;
            had += slow.read_exact(&mut piece).await.unwrap();
        }
    });
    assert!(timeout(AN_HOUR, connections[0].data()).await.is_err());
    reading.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_wants_none_given_up_has_none() {
    let mut options = Options::default();
    options.stall_timeout = None;
    let (_forward, mut connections, mut peer) = to_a_go_server(options, 2).await;
    says(&mut peer, 3, MUCH).await;
    peer.say(data(7, "hello")).await;
    assert!(timeout(AN_HOUR, connections[1].data()).await.is_err());
    let mut much = vec![0; MUCH];
    connections[0].read_exact(&mut much).await.unwrap();
    assert_eq!(connections[1].data().await.unwrap().unwrap(), "hello");
}

/// A Go client's upload that the pod does not take, and another of its connections.
#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_reads_is_given_up_by_a_server() {
    let (near, far) = duplex(16 << 20);
    let upgraded = Upgraded::new(near, Bytes::new(), Some(Protocol::SpdyPortForward));
    let (mux, driver) = Multiplexer::server(upgraded, Config::default());
    tokio::spawn(driver);
    let mut server = PortForwardServer::new(mux).unwrap();
    let (mut peer, mut connections) = (Peer::new(far), Vec::new());
    for request in 0..2 {
        let number = request.to_string();
        for (id, kind) in [(4 * request + 1, "error"), (4 * request + 3, "data")] {
            peer.say(syn(id, &[("streamtype", kind), ("port", "80"), ("requestid", &number)])).await;
        }
        peer.say(fin(4 * request + 1)).await;
        connections.push(server.accept().await.unwrap().unwrap().accept());
    }
    says(&mut peer, 3, MUCH).await;
    peer.say(data(7, "hello")).await;
    let began = Instant::now();
    assert_eq!(connections[1].data().await.unwrap().unwrap(), "hello");
    assert_eq!(began.elapsed().as_secs(), 20);
    stalled(connections[0].data().await);
    assert_eq!(is_reset(&mut peer, 3).await, 0);
}

/// The socket that takes nothing is dropped too.
#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_nothing_is_let_go_of() {
    let (_forward, mut connections, mut peer) = to_a_go_server(Options::default(), 2).await;
    let (near, mut program): (_, DuplexStream) = duplex(4096);
    let relaying: JoinHandle<_> = tokio::spawn(connections.remove(0).relay(near));
    says(&mut peer, 3, MUCH).await;
    peer.say(data(7, "hello")).await;
    assert_eq!(connections[0].data().await.unwrap().unwrap(), "hello");
    let ended = timeout(Duration::from_secs(10), relaying).await.expect("it is still held").unwrap();
    assert!(matches!(ended, Err(Error::Stream { error: StreamError::Stalled { .. }, .. })), "{ended:?}");
    let mut had = Vec::new();
    program.read_to_end(&mut had).await.unwrap();
    assert_eq!(had.len(), 4096);
}

/// The streams of a session belong together. None is given up for another, whatever the configuration.
#[tokio::test(start_paused = true)]
async fn of_a_session_no_stream_is_given_up() {
    use kubestream::exec::Streams;

    let (near, far) = duplex(16 << 20);
    let upgraded = Upgraded::new(near, Bytes::new(), Some(Protocol::SpdyExec(Version::V4)));
    let config = config(|config| {
        config.keepalive_interval = None;
        config.stream_stall_timeout = Some(Duration::from_secs(20));
    });
    let (mux, driver) = Multiplexer::client(upgraded, config);
    tokio::spawn(driver);
    let mut peer = Peer::new(far);
    let streams = Streams { stdout: true, stderr: true, ..Streams::default() };
    let answers = async {
        let mut ids = std::collections::HashMap::new();
        while ids.len() < 3 {
            let (id, headers) = peer.hear_syn().await;
            ids.insert(headers.get("streamtype").unwrap().to_owned(), id);
            peer.say(reply(id)).await;
        }
        ids
    };
    let (exec, ids) = tokio::join!(mux.exec(streams), answers);
    let mut exec = exec.unwrap();
    says(&mut peer, ids["stdout"], MUCH).await;
    peer.say(data(ids["stderr"], "hello")).await;
    let (mut stdout, mut stderr) = (exec.stdout.take().unwrap(), exec.stderr.take().unwrap());
    assert!(timeout(AN_HOUR, stderr.read_u8()).await.is_err(), "it is blocked");
    let mut much = vec![0; MUCH];
    stdout.read_exact(&mut much).await.unwrap();
    assert!(much == pattern(1, MUCH));
    assert_eq!(stderr.read_u8().await.unwrap(), b'h');
}

mod translated {
    use kubestream_proxy::translate_port_forward;

    use super::*;

    /// Our client, whose windows keep unread bytes away, in front of a Go server.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_its_client_does_not_read_is_given_up_for_the_others() {
        let ((client, near), (far, server)) = (duplex(1 << 20), duplex(16 << 20));
        let form = Some(Protocol::SpdyPortForward);
        let (near, far) = (Upgraded::new(near, Bytes::new(), form), Upgraded::new(far, Bytes::new(), form));
        tokio::spawn(async move { translate_port_forward(near, far, Config::default(), &Options::default()).await });
        let (mux, driver) = Multiplexer::client(Upgraded::new(client, Bytes::new(), form), Config::default());
        tokio::spawn(driver);
        let (forward, mut peer) = (PortForward::new(mux).unwrap(), Peer::new(server));
        let mut connections = Vec::new();
        for _ in 0..2 {
            let (connection, ()) = tokio::join!(forward.connect(80), answer(&mut peer));
            connections.push(connection.unwrap());
        }
        says(&mut peer, 3, MUCH).await;
        peer.say(data(7, "hello")).await;
        let hello = timeout(AN_HOUR, connections[1].data()).await.expect("it is blocked");
        assert_eq!(hello.unwrap().unwrap(), "hello");
        let mut had = Vec::new();
        let broken = timeout(AN_HOUR, connections[0].read_to_end(&mut had)).await.expect("it is still held");
        assert!(broken.is_err() && had.len() < MUCH, "{broken:?} {}", had.len());
        assert!(had == pattern(1, MUCH)[..had.len()]);
    }
}
