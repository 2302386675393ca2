//! Months in short form: as many sessions as a proxy sees in months, through one process, which must leave nothing
//! behind.
//!
//! `KUBESTREAM_LONG=50` does fifty times as much: 100,000 exec sessions, 200,000 forwarded connections, and some
//! thousands of each kind of broken peer. Counted are memory, by the allocator, file descriptors, and tasks of the
//! runtime.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::Cell;
use std::future::{Future, pending};
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use kubestream::ConnectionError;
use kubestream::exec::{Error, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{self, PortForward, PortForwardServer};
use kubestream::protocol::Subprotocol;
use kubestream::status::ExitStatus;
use kubestream::upgrade::{self, Protocol, Upgraded, Version};
use kubestream_proxy::{self as proxy, translate_port_forward};
use stats_alloc::Region;
use support::memory::{ALLOCATOR, Counting, grown, play, turn};
use support::{exec_client, exec_server, pattern, tcp_pair, until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, duplex, repeat, sink, split};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

#[global_allocator]
static GLOBAL: &Counting = ALLOCATOR;

const MIB: usize = 1024 * 1024;
/// Runs before counting begins, for memory that is allocated once and stays.
const WARM_UP: usize = 200;

fn times(usual: usize) -> usize {
    match std::env::var("KUBESTREAM_LONG") {
        Ok(factor) => usual * factor.parse::<usize>().expect("KUBESTREAM_LONG is a factor"),
        Err(_) => usual,
    }
}

fn descriptors() -> usize {
    // On a system without this folder nothing is counted.
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn no_task_is_left() -> bool {
    Handle::current().metrics().num_alive_tasks() == 0
}

/// Repeats something, and checks that nothing is left of it when `over` is true.
async fn leaves_nothing<F: Future<Output = ()>>(
    times: usize,
    over: impl Fn() -> bool,
    mut does: impl FnMut(usize) -> F,
) {
    for number in 0..WARM_UP.min(times) {
        does(number).await;
    }
    until(&over).await;
    let (open, memory) = (descriptors(), Region::new(ALLOCATOR));
    for number in 0..times {
        does(number).await;
    }
    until(&over).await;
    assert!(grown(&memory) < MIB, "{} bytes are left of {times}", grown(&memory));
    assert_eq!(descriptors(), open, "descriptors after {times}");
}

fn play_over_sockets<T>(transcript: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(transcript)
}

/// A session from its handshake to its exit code, over sockets.
async fn exec_session(number: usize) {
    let (near, far) = tcp_pair().await;
    let protocols = [
        Protocol::SpdyExec(Version::V4),
        Protocol::WebSocketExec(Subprotocol::V5),
        Protocol::WebSocketExec(Subprotocol::V4Base64),
    ];
    let protocol = protocols[number % protocols.len()];
    let serving = async {
        let pending = upgrade::accept(far, &upgrade::Config::default()).await.unwrap();
        let (mux, driver) = Multiplexer::server(pending.accept(Protocol::ANY_EXEC).await.unwrap(), Config::exec());
        let serving = async move {
            let mut server = mux.accept_exec(Streams::PIPES).await.unwrap();
            drop(mux);
            let said = server.stdin.as_mut().unwrap().data().await.unwrap().unwrap();
            server.stdout.take().unwrap().send(said).await.unwrap();
            server.exit(ExitStatus::Code(7)).await.unwrap();
        };
        let ((), _) = tokio::join!(serving, driver);
    };
    let asking = async {
        let request = http::Request::get("http://node/exec").body(()).unwrap();
        let upgraded = upgrade::connect(near, request, &[protocol], &upgrade::Config::default()).await.unwrap();
        let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
        let asking = async move {
            let mut exec = mux.exec(Streams::PIPES).await.unwrap();
            drop(mux);
            let said = pattern(number, 1000);
            exec.stdin.as_mut().unwrap().send(said.clone()).await.unwrap();
            let output = exec.wait_with_output(10_000).await.unwrap();
            assert_eq!((output.stdout, output.status), (said, ExitStatus::Code(7)));
        };
        let ((), _) = tokio::join!(asking, driver);
    };
    tokio::join!(serving, asking);
}

#[test]
fn of_thousands_of_exec_sessions_nothing_is_left() {
    let _turn = turn();
    play_over_sockets(leaves_nothing(times(2000), no_task_is_left, exec_session));
}

/// Connections one after another through one session, some of which break off. If the ends speak different protocols, a
/// translator stands between.
async fn forwards(from: Protocol, to: Protocol, connections: usize) {
    let (near, far) = tcp_pair().await;
    let mut tasks = JoinSet::new();
    let upgraded = |io, protocol| Upgraded::new(io, Bytes::new(), Some(protocol));
    let far = if from == to {
        far
    } else {
        let (behind, last) = tcp_pair().await;
        let (client, backend) = (upgraded(far, from), upgraded(behind, to));
        tasks.spawn(async {
            translate_port_forward(client, backend, Config::default(), &portforward::Options::default()).await.unwrap();
        });
        last
    };
    let (client, client_driver) = Multiplexer::client(upgraded(near, from), Config::default());
    let (server, server_driver) = Multiplexer::server(upgraded(far, to), Config::default());
    tasks.spawn(async { drop(client_driver.await) });
    tasks.spawn(async { drop(server_driver.await) });
    tasks.spawn(async move {
        let mut server = PortForwardServer::new(server).unwrap();
        let mut connections = JoinSet::new();
        while let Some(Ok(request)) = server.accept().await {
            connections.spawn(async move {
                if request.port() == 1 {
                    return request.fail("nobody listens there");
                }
                let (mut from, mut to) = split(request.accept());
                // A client that breaks off needs nothing sent back.
                let _ = copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
            while connections.try_join_next().is_some() {}
        }
    });
    let forward = PortForward::new(client).unwrap();
    let one = |number: usize| {
        let forward = &forward;
        async move {
            if number.is_multiple_of(50) {
                assert!(matches!(forward.connect(1).await, Err(portforward::Error::Failed { port: 1, .. })));
                return;
            }
            let mut connection = forward.connect(80).await.unwrap();
            connection.send(pattern(number, 100)).await.unwrap();
            if number.is_multiple_of(10) {
                return;
            }
            connection.finish();
            let mut back = Vec::new();
            connection.read_to_end(&mut back).await.unwrap();
            assert_eq!(back, pattern(number, 100));
        }
    };
    leaves_nothing(connections, || forward.multiplexer().stats().streams == 0, one).await;
    drop(forward);
    while tasks.join_next().await.is_some() {}
}

#[test]
fn of_thousands_of_forwarded_connections_nothing_is_left() {
    let _turn = turn();
    let protocols = [Protocol::SpdyPortForward, Protocol::TunneledPortForward];
    for (from, to) in protocols.iter().flat_map(|from| protocols.map(|to| (*from, to))) {
        play_over_sockets(forwards(from, to, times(2000)));
    }
}

#[test]
fn two_thousand_idle_connections_are_held_by_their_keepalive() {
    let _turn = turn();
    play(async {
        let memory = Region::new(ALLOCATOR);
        let mut held = Vec::new();
        for number in 0..2000 {
            let protocol = [Protocol::SpdyExec(Version::V4), Protocol::WebSocketExec(Subprotocol::V5)][number % 2];
            let (near, far) = duplex(64 * 1024);
            let ((client, _), (server, _)) = (exec_client(near, protocol), exec_server(far, protocol));
            held.push((client, server));
        }
        sleep(Duration::from_secs(15 * 60)).await;
        for (client, _) in &held {
            timeout(Duration::from_secs(1), client.ping()).await.expect("an answer").unwrap();
        }
        drop(held);
        until(no_task_is_left).await;
        assert!(grown(&memory) < MIB, "{} bytes are left", grown(&memory));
    });
}

/// An end that has sent this text and many bytes after it, has taken everything, and is silent from then on.
fn talked(said: &'static str) -> impl AsyncRead + AsyncWrite + Unpin {
    let (silent, held) = duplex(1);
    std::mem::forget(held);
    tokio::io::join(said.as_bytes().chain(repeat(7).take(MIB as u64)).chain(silent), sink())
}

/// An hour of silence after a megabyte in each direction. Only the timers are left, with or without an observer.
#[test]
fn an_idle_pipe_keeps_no_buffers() {
    let _turn = turn();
    const ASKS: &str = "POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
        X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
    const SWITCHES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
        X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
    for watched in [false, true] {
        play(async {
            let pending = upgrade::accept(talked(ASKS), &upgrade::Config::default()).await.unwrap();
            let request = pending.to_pass_on();
            let backend = talked(SWITCHES);
            let memory = Region::new(ALLOCATOR);
            let pipe = proxy::forward(pending, backend, request).await.unwrap();
            let shown = Cell::new(0);
            let mut observer = |_: proxy::Side, bytes: &Bytes| {
                shown.set(shown.get() + bytes.len());
                ControlFlow::Continue(())
            };
            let run = async { if watched { pipe.run_with(&mut observer).await } else { pipe.run().await } };
            let mut run = pin!(run);
            timeout(Duration::from_secs(3600), &mut run).await.expect_err("nobody ends");
            assert!(grown(&memory) < 4 * 1024, "{} bytes are kept, watched: {watched}", grown(&memory));
            assert_eq!(shown.get(), if watched { 2 * MIB } else { 0 });
        });
    }
}

/// What happens to the connection between two ends while their session runs.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Nothing is read from it any more, at either end.
    Blocked,
    /// It accepts bytes and does not deliver them.
    Hole,
    /// It is lost.
    Cut,
}

/// How many bytes pass in each direction before that happens. Both ends still have more to send, so they do wait.
const PASSES: u64 = 100_000;
const PIECES: usize = 50;

async fn full_flow(mut to: impl AsyncWrite + Unpin, number: usize) {
    for _ in 0..PIECES {
        if to.write_all(&pattern(number, 8000)).await.is_err() {
            return;
        }
    }
    // Nothing more to send for now, but no end.
    pending().await
}

/// Runs a session at full speed, and then the fault happens. Both ends find out.
async fn abandoned(way: Way, number: usize) {
    let is_websocket = number % 2 == 1;
    let protocol =
        if is_websocket { Protocol::WebSocketExec(Subprotocol::V5) } else { Protocol::SpdyExec(Version::V4) };
    let ((near, middle), (behind, far)) = (duplex(64 * 1024), duplex(64 * 1024));
    let ((client, _), (server, _)) = (exec_client(near, protocol), exec_server(far, protocol));
    let between = tokio::spawn(async move {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (split(middle), split(behind));
        let (mut up, mut down) = ((&mut from_client).take(PASSES), (&mut from_server).take(PASSES));
        let passed = tokio::try_join!(copy(&mut up, &mut to_server), copy(&mut down, &mut to_client));
        assert_eq!(passed.unwrap(), (PASSES, PASSES), "neither end ends the session");
        match way {
            Way::Blocked => sleep(HELD).await,
            Way::Hole => {
                let (mut here, mut there) = (sink(), sink());
                let taken =
                    async { tokio::join!(copy(&mut from_client, &mut here), copy(&mut from_server, &mut there)) };
                let _ = timeout(HELD, taken).await;
            }
            Way::Cut => {}
        }
    });
    let (exec, process) = tokio::join!(client.exec(Streams::PIPES), server.accept_exec(Streams::PIPES));
    let (mut exec, mut process) = (exec.unwrap(), process.unwrap());
    drop((client, server));
    let (stdin, stdout) = (exec.stdin.take().unwrap(), process.stdout.take().unwrap());
    let (mut typed, mut shown) = (process.stdin.take().unwrap(), exec.stdout.take().unwrap());
    let mut flow = JoinSet::new();
    flow.spawn(full_flow(stdin, number));
    flow.spawn(full_flow(stdout, number));
    flow.spawn(async move { while let Some(Ok(_)) = typed.data().await {} });
    flow.spawn(async move { while let Some(Ok(_)) = shown.data().await {} });
    let found = timeout(HELD / 2, async { tokio::join!(exec.wait(), process.client_gone()) });
    let (status, ()) = found.await.unwrap_or_else(|_| panic!("{way:?}, {protocol}: no end finds out"));
    match (way, status) {
        (Way::Cut, Err(Error::Connection(ConnectionError::Lost | ConnectionError::Io(_)))) => {}
        (Way::Blocked | Way::Hole, Err(Error::Connection(ConnectionError::KeepaliveTimeout(_)))) => {}
        // Without windows, a process that leaves its stdin unread silences its whole server. After DATA, that silence
        // proves nothing.
        (Way::Blocked | Way::Hole, Err(Error::Connection(ConnectionError::IdleTimeout(_)))) if is_websocket => {}
        (_, status) => panic!("{way:?}, {protocol}: {status:?}"),
    }
    drop((exec, process));
    // A task that still writes, or still holds the connection, would do so for ever.
    flow.shutdown().await;
    between.abort();
    let _ = between.await;
}

/// Longer than any timer of both ends.
const HELD: Duration = Duration::from_secs(10 * 60 * 60);

#[test]
fn a_way_that_is_blocked_leads_nowhere_or_is_cut_is_found_out_at_both_ends() {
    let _turn = turn();
    for way in [Way::Blocked, Way::Hole, Way::Cut] {
        play(leaves_nothing(times(100), no_task_is_left, |number| abandoned(way, number)));
    }
}
