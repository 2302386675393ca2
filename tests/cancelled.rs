//! Futures dropped at each of their await points, over connections that give and take single bytes and are often not ready: who
//! may be called again loses nothing and does nothing twice, and of who may not nothing is left.
//!
//! Owns what `# Cancel safety` says of exec, port-forward, the upgrade, the streaming server and the proxies; the multiplexer's
//! is `mux/cancelling.rs`'s. Time is the runtime's and stands still while anybody can move.

#![cfg(all(feature = "streaming", feature = "translate"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[allow(dead_code)] // who is to blame, and how the drivers fare, is asked there
#[path = "every_byte/sessions.rs"]
mod sessions;
#[allow(dead_code)] // nothing goes wrong here but that somebody is dropped
#[path = "every_byte/wire.rs"]
mod wire;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kubestream::channel::Subprotocol;
use kubestream::exec::{Error, Exec, ExecServer, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{self, Connection, PortForward, PortForwardServer};
use kubestream::proxy::{self, TranslateConfig, translate};
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::upgrade::{self, Protocol, UpgradeError, Upgraded, Version};
use sessions::{Ended, Failure, Streaming, Untrue, What, upgraded};
use support::pattern;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use wire::{Io, wire};

const V4: Protocol = Protocol::Exec(Version::V4);
const V5: Protocol = Protocol::Channel(Subprotocol::V5);
const AN_HOUR: Duration = Duration::from_secs(3600);

/// Plays a transcript, in time that passes only while nobody can move. It takes turns with each of its tasks, so that no poll of
/// its own sees what several of theirs have done.
fn play(transcript: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).event_interval(1).build().unwrap().block_on(transcript);
}

/// Polls a call that many times at most, each time when it is woken, and drops it.
async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match call.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Makes a call again whenever it was dropped, until it is ready. (A function of an async closure could not be spawned.)
macro_rules! pestered {
    ($polls:expr, $call:expr) => {{
        let mut calls = 0;
        loop {
            if let Some(result) = dropped_after($polls, $call).await {
                break result;
            }
            calls += 1;
            between_calls(calls).await;
        }
    }};
}

/// Lets others run, and now and then the time pass.
async fn between_calls(calls: usize) {
    assert!(calls < 1_000_000, "never ready");
    if calls % 1000 == 999 {
        sleep(Duration::from_millis(1)).await;
    }
    yield_now().await;
}

/// In the end no task is left: a connection takes its time to be given up.
async fn nothing_is_left(name: &str) {
    for _ in 0..3600 {
        if Handle::current().metrics().num_alive_tasks() == 0 {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("{name}: tasks are left");
}

/// Both ends of a connection that gives and takes single bytes.
fn ends(protocol: Protocol, seed: u64) -> (Multiplexer, Multiplexer) {
    let (near, far, _) = wire(None, Some(seed));
    let (client, driver) = Multiplexer::client(upgraded(near, protocol), Config::default());
    tokio::spawn(driver);
    let (server, driver) = Multiplexer::server(upgraded(far, protocol), Config::default());
    tokio::spawn(driver);
    (client, server)
}

/// Both ends of a session over such a connection.
async fn started(protocol: Protocol, seed: u64, streams: Streams) -> (Exec, ExecServer) {
    let (client, server) = ends(protocol, seed);
    let (exec, process) = tokio::join!(client.exec(streams), server.accept_exec(streams));
    (exec.unwrap(), process.unwrap())
}

/// How a handshake came out, if it was not dropped.
type Settled = Option<Result<Upgraded<Io>, UpgradeError>>;

/// Who is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Client,
    Server,
    Middle,
}

/// What is between the ends.
#[derive(Clone, Copy, Debug)]
enum Through {
    Nothing,
    Handshake,
    Streaming,
    Pipe,
    Translator(Protocol),
}

/// A session of which one part is dropped at one of its polls. Whether it was: it may have ended before.
async fn dropped(what: &What, protocol: Protocol, through: Through, who: Who, polls: usize) -> bool {
    let name = format!("{what:?} over {protocol:?} through {through:?}, {who:?} dropped after {polls} polls");
    let polls_of = |this: Who| if this == who { polls } else { usize::MAX };
    let (client, near, seen) = wire(None, Some(1));
    let url = "http://proxy/exec?port=7&port=8&port=9";
    let streaming = matches!(through, Through::Streaming).then(|| Streaming::new(what, protocol));
    let (server, middle, behind) = match through {
        Through::Nothing | Through::Handshake | Through::Streaming => (near, None, None),
        Through::Pipe | Through::Translator(_) => {
            let (far, server, behind) = wire(None, Some(2));
            (server, Some((near, far)), Some(behind))
        }
    };
    let client = async {
        match (through, &streaming) {
            (Through::Nothing | Through::Translator(_), _) => what.client(upgraded(client, protocol)).await,
            (_, Some(streaming)) => what.asking(client, &streaming.url, protocol).await,
            (_, None) => what.asking(client, url, protocol).await,
        }
    };
    let server = async {
        match (through, &streaming) {
            (Through::Nothing, _) => what.server(upgraded(server, protocol), protocol).await,
            (Through::Translator(to), _) => what.server(upgraded(server, to), protocol).await,
            (_, Some(streaming)) => streaming.serve(server).await,
            (_, None) => what.answering(server, protocol).await,
        }
    };
    let middle = async {
        let Some((near, far)) = middle else { return };
        if let Through::Translator(to) = through {
            let (near, far) = (upgraded(near, protocol), upgraded(far, to));
            let _ = translate(near, far, what.streams(), &TranslateConfig::default()).await;
        } else if let Ok(pending) = upgrade::accept(near, &upgrade::Config::default()).await {
            let request = pending.to_pass_on();
            if let Ok(pipe) = proxy::forward(pending, far, request).await {
                pipe.run().await;
            }
        }
    };
    let all = async {
        tokio::join!(
            dropped_after(polls_of(Who::Client), client),
            dropped_after(polls_of(Who::Server), server),
            dropped_after(polls_of(Who::Middle), middle)
        )
    };
    let (client, server, middle) = timeout(AN_HOUR, all).await.unwrap_or_else(|_| panic!("{name}: it hangs"));
    let cut = client.is_none() || server.is_none() || middle.is_none();
    for (end, this) in [(client, Who::Client), (server, Who::Server)] {
        let Some(Ended { session: Err(failure), .. }) = end else { continue };
        match failure {
            Failure::Typed(_, error) => assert!(cut, "{name}: the {this:?} failed for nothing: {error}"),
            // A client's stdin ends when it is dropped: so it is documented.
            Failure::Untrue(Untrue::Truncated { what: "stdin", .. }) if who == Who::Client && cut => {}
            // In the old form nothing ends a connection but the end of all, and that was in good order.
            Failure::Untrue(Untrue::Truncated { what: "upload", .. })
                if who == Who::Client && cut && matches!(protocol, Protocol::PortChannels(_)) => {}
            // It has gone in good order, and asks for no more.
            Failure::Untrue(Untrue::Truncated { what: "requests", .. }) if who == Who::Client && cut => {}
            // A translator whose backend is lost says so in a status of its own.
            Failure::Untrue(Untrue::Status(ExitStatus::Failed(status)))
                if cut && status.reason == "InternalError" && matches!(through, Through::Translator(_)) => {}
            Failure::Untrue(untrue) => panic!("{name}: the {this:?} was told what is not so: {untrue:?}"),
        }
    }
    nothing_is_left(&name).await;
    for seen in [Some(seen), behind].into_iter().flatten() {
        assert_eq!(Arc::strong_count(&seen), 1, "{name}: an IO is left");
    }
    cut
}

/// From the first poll on, until it ends by itself.
async fn dropped_everywhere(what: &What, protocol: Protocol, through: Through, who: Who) {
    // Some hundreds of polls are of the middle of a transfer.
    let places = (0..60).chain((60..).step_by(13));
    for (cuts, polls) in places.enumerate() {
        if !dropped(what, protocol, through, who, polls).await {
            assert!(cuts > 10, "{who:?} was hardly dropped: {cuts}");
            return;
        }
    }
}

fn command() -> What {
    What::Exec(Streams::PIPES, ExitStatus::Code(127))
}

#[test]
fn an_end_of_a_command_is_dropped() {
    play(async {
        for protocol in [V4, V5] {
            for through in [Through::Nothing, Through::Streaming] {
                for who in [Who::Client, Who::Server] {
                    dropped_everywhere(&command(), protocol, through, who).await;
                }
            }
        }
    });
}

#[test]
fn an_end_of_port_forward_is_dropped() {
    play(async {
        for protocol in [Protocol::PortForward, Protocol::Tunnel, Protocol::PortChannels(Subprotocol::V4)] {
            for who in [Who::Client, Who::Server] {
                dropped_everywhere(&What::Forward, protocol, Through::Handshake, who).await;
            }
        }
    });
}

#[test]
fn a_pipe_is_dropped() {
    play(async {
        for protocol in [V4, V5] {
            dropped_everywhere(&command(), protocol, Through::Pipe, Who::Middle).await;
        }
    });
}

#[test]
fn a_translator_is_dropped() {
    play(async {
        for (from, to) in [(V5, V4), (V4, V5)] {
            dropped_everywhere(&command(), from, Through::Translator(to), Who::Middle).await;
        }
        dropped_everywhere(&What::Forward, Protocol::Tunnel, Through::Translator(Protocol::PortForward), Who::Middle)
            .await;
    });
}

/// `exec` but for its own future, and `exit`.
#[test]
fn what_a_session_may_call_again_loses_nothing_and_doubles_nothing() {
    play(async {
        let size = TerminalSize { width: 132, height: 50 };
        for protocol in Protocol::ANY.iter().copied() {
            for polls in 1..=3 {
                let (mut exec, mut process) = started(protocol, polls as u64, Streams::TTY).await;
                let serving = tokio::spawn(async move {
                    if let Some(resizes) = &mut process.resize {
                        assert_eq!(pestered!(polls, resizes.next()), Some(size));
                    }
                    let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
                    let mut had = 0;
                    while had < 600 {
                        assert!(dropped_after(1, process.client_gone()).await.is_none());
                        let data = pestered!(polls, stdin.data()).unwrap().unwrap();
                        had += data.len();
                        pestered!(polls, stdout.send(data.clone())).unwrap();
                    }
                    drop(stdout);
                    process.exit(ExitStatus::Code(7)).await.unwrap();
                });
                if let Some(resize) = &mut exec.resize {
                    pestered!(polls, resize.resize(size)).unwrap();
                }
                let (mut stdin, mut stdout) = (exec.stdin.take().unwrap(), exec.stdout.take().unwrap());
                let typing = tokio::spawn(async move {
                    for seed in 0..3 {
                        pestered!(polls, stdin.send(pattern(seed, 200))).unwrap();
                    }
                    stdin
                });
                let mut had = Vec::new();
                while let Some(data) = pestered!(polls, stdout.data()) {
                    had.extend_from_slice(&data.unwrap());
                }
                assert!(had == (0..3).flat_map(|seed| pattern(seed, 200)).collect::<Vec<u8>>(), "{protocol:?} {polls}");
                let status = pestered!(polls, exec.wait()).unwrap();
                assert_eq!(status.code(), Some(7), "{protocol:?} {polls}");
                drop((typing.await.unwrap(), exec));
                serving.await.unwrap();
                nothing_is_left("called again").await;
            }
        }
    });
}

#[test]
fn accept_exec_that_was_dropped_has_taken_nothing_or_refuses_it() {
    play(async {
        for protocol in [V4, V5] {
            let mut refused = 0;
            for polls in 0.. {
                let (client, server) = ends(protocol, 3);
                let asking =
                    tokio::spawn(async move { client.exec(Streams::OUTPUT).await?.wait_with_output(100).await });
                let again = match dropped_after(polls, server.accept_exec(Streams::OUTPUT)).await {
                    Some(process) => {
                        process.unwrap().exit(ExitStatus::Code(7)).await.unwrap();
                        assert_eq!(asking.await.unwrap().unwrap().status, ExitStatus::Code(7));
                        break;
                    }
                    None => server.accept_exec(Streams::OUTPUT).await,
                };
                drop(server);
                match again {
                    Ok(process) => {
                        process.exit(ExitStatus::Code(7)).await.unwrap();
                        assert_eq!(asking.await.unwrap().unwrap().status, ExitStatus::Code(7), "{protocol:?} {polls}");
                    }
                    Err(error) => {
                        let typed = matches!(error, Error::CreationTimeout { .. } | Error::Connection(_));
                        assert!(typed, "{protocol:?} {polls}: {error:?}");
                        asking.await.unwrap().unwrap_err();
                        refused += 1;
                    }
                }
                nothing_is_left("accept_exec").await;
            }
            // Over WebSocket all streams are there at once.
            assert_eq!(refused > 0, protocol == V4, "{refused}");
        }
    });
}

#[test]
fn exit_that_was_dropped_has_said_its_status_or_none() {
    play(async {
        for protocol in [V4, V5] {
            let mut unsaid = 0;
            for polls in 0.. {
                let (exec, mut process) = started(protocol, 4, Streams::OUTPUT).await;
                process.stdout.as_mut().unwrap().send(pattern(1, 40)).await.unwrap();
                let (exited, output) =
                    tokio::join!(dropped_after(polls, process.exit(ExitStatus::Code(7))), exec.wait_with_output(100));
                match output {
                    Ok(output) => assert_eq!((output.stdout, output.status), (pattern(1, 40), ExitStatus::Code(7))),
                    Err(error) => {
                        assert!(exited.is_none(), "{protocol:?}: {error:?}");
                        unsaid += 1;
                    }
                }
                nothing_is_left("exit").await;
                if exited.is_some() {
                    break;
                }
            }
            assert!(unsaid > 0);
        }
    });
}

/// An echo at every port.
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
        for protocol in [Protocol::PortForward, Protocol::Tunnel] {
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
                support::until(|| client.stats().streams == 0).await;
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
fn a_failure_that_was_dropped_takes_no_other_connection_with_it() {
    play(async {
        for polls in 0..40 {
            for late in [false, true] {
                let (client, server) = ends(Protocol::PortForward, 6);
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

/// `connect` and `accept` cannot be called again: with them the connection is gone, and the other end hears it.
#[test]
fn a_handshake_that_was_dropped_closes_its_connection() {
    play(async {
        for protocol in [V4, V5] {
            for client_is_dropped in [true, false] {
                let mut dropped = 0;
                for polls in 0.. {
                    let (near, far, seen) = wire(None, Some(7));
                    let request = http::Request::get("http://node/exec").body(()).unwrap();
                    let config = upgrade::Config::default();
                    let offers = [protocol];
                    let of = |this: bool| if this == client_is_dropped { polls } else { usize::MAX };
                    let client = dropped_after(of(true), upgrade::connect(near, request, &offers, &config));
                    let server = dropped_after(of(false), async {
                        upgrade::accept(far, &upgrade::Config::default()).await?.accept(&[protocol]).await
                    });
                    let (client, server): (Settled, Settled) = tokio::join!(client, server);
                    let cut = client.is_none() || server.is_none();
                    // Whoever had all of the other's head has ended well.
                    for end in [client, server].into_iter().flatten() {
                        match end {
                            Ok(upgraded) if cut => {
                                let (mut io, ahead, _) = upgraded.into_parts();
                                let mut rest = Vec::new();
                                let read = tokio::io::AsyncReadExt::read_to_end(&mut io, &mut rest);
                                timeout(AN_HOUR, read).await.expect("it is closed").unwrap();
                                assert_eq!((ahead, rest), (Bytes::new(), Vec::new()));
                            }
                            Ok(_) => {}
                            Err(error) => assert!(cut, "{protocol:?} {polls}: {error:?}"),
                        }
                    }
                    assert_eq!(Arc::strong_count(&seen), 1, "an IO is left");
                    if !cut {
                        break;
                    }
                    dropped += 1;
                }
                assert!(dropped > 50, "{dropped}");
            }
        }
    });
}

/// `wait_with_output` is not called again: with it goes the session, and the server hears it.
#[test]
fn wait_with_output_that_was_dropped_ends_the_session() {
    play(async {
        for protocol in [V4, V5] {
            for polls in 0..30 {
                let (exec, mut process) = started(protocol, 8, Streams::OUTPUT).await;
                process.stdout.as_mut().unwrap().send(pattern(1, 400)).await.unwrap();
                // No more polls than there is news for.
                let waiting = timeout(Duration::from_secs(1), dropped_after(polls, exec.wait_with_output(1000)));
                assert!(waiting.await.ok().flatten().is_none());
                timeout(AN_HOUR, process.client_gone()).await.expect("it is heard");
                drop(process);
                nothing_is_left("wait_with_output").await;
            }
        }
    });
}
