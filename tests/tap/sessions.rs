//! Sessions of this library through a watched pipe: for each stream, the tap reports what the two ends sent.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use kubestream::exec::{Exec, ExecServer, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{PortForward, PortForwardServer};
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::tap::{Side, StreamName as Name, TapEvent as Event};
use kubestream::upgrade::{self, Protocol, Upgraded};
use kubestream_proxy::{self as proxy, Operation, Pipe, PipeOutcome, PodRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use crate::{Told, Watcher};
use support::fragment::Fragmented;
use support::pattern;

const POD: &str = "/api/v1/namespaces/default/pods/web";

type Ends = (Upgraded<DuplexStream>, Upgraded<DuplexStream>, Pipe<DuplexStream, Fragmented<DuplexStream>>);

/// Two ends of this library that have agreed on a protocol, and the pipe between them.
async fn between(path: &str, protocol: Protocol) -> Ends {
    let ((near, client_side), (backend_side, far)) = (duplex(5000), duplex(7000));
    let serving = async {
        let pending = upgrade::accept(far, &upgrade::Config::default()).await.unwrap();
        pending.accept(&[protocol]).await.unwrap()
    };
    let asking = async {
        let uri = format!("http://proxy{POD}/{path}");
        let request = http::Request::get(uri).body(()).unwrap();
        upgrade::connect(near, request, &[protocol], &upgrade::Config::default()).await.unwrap()
    };
    let passing = async {
        let pending = upgrade::accept(client_side, &upgrade::Config::default()).await.unwrap();
        let request = pending.to_pass_on();
        proxy::forward(pending, Fragmented::new(backend_side, 3, 4096), request).await.unwrap()
    };
    tokio::join!(asking, serving, passing)
}

/// Runs the pipe and watches it to its end.
fn watch(
    pipe: Pipe<DuplexStream, Fragmented<DuplexStream>>,
    protocol: Protocol,
    path: &str,
) -> JoinHandle<(PipeOutcome, Told)> {
    let asked = PodRequest::from_api(&format!("{POD}/{path}").parse().unwrap()).unwrap().unwrap();
    let settled = pipe.settled(asked.operation).unwrap();
    assert_eq!(settled, protocol);
    let mut watcher = Watcher::new(settled, &asked.ports().unwrap());
    tokio::spawn(async move {
        let moved = pipe.run_with(&mut watcher).await;
        (moved, watcher.told)
    })
}

async fn session(
    path: &str,
    protocol: Protocol,
    streams: Streams,
) -> (Exec, ExecServer, JoinHandle<(PipeOutcome, Told)>) {
    let (client, server, pipe) = between(path, protocol).await;
    let watching = watch(pipe, protocol, path);
    let (client, driver) = Multiplexer::client(client, Config::exec());
    tokio::spawn(driver);
    let (server, driver) = Multiplexer::server(server, Config::exec());
    tokio::spawn(driver);
    let (exec, process) = tokio::join!(client.exec(streams), server.accept_exec(streams));
    (exec.unwrap(), process.unwrap(), watching)
}

#[tokio::test(start_paused = true)]
async fn every_version_of_a_session_is_told_byte_for_byte() {
    let versions = Protocol::ANY_EXEC.iter().copied();
    for protocol in versions.chain([Protocol::SpdyExec(upgrade::Version::V5)]) {
        for end in [ExitStatus::Success, ExitStatus::Code(7)] {
            let path = "exec?command=true&stdin=true&stdout=true&stderr=true";
            let (mut exec, mut process, watching) = session(path, protocol, Streams::PIPES).await;
            let (typed, out, err) = (pattern(1, 100_000), pattern(2, 300_000), pattern(3, 70_000));
            let mut stdin = exec.stdin.take().unwrap();
            let (sent, read_to) = (typed.clone(), typed.len());
            let ends_stdin = exec.can_end_stdin();
            let typing = async move {
                stdin.send(sent).await.unwrap();
                stdin.finish();
            };
            let mut takes = process.stdin.take().unwrap();
            let taking = async move {
                let mut all = vec![0; read_to];
                takes.read_exact(&mut all).await.unwrap();
                if ends_stdin {
                    assert_eq!(takes.read(&mut [0]).await.unwrap(), 0);
                }
                all
            };
            let (mut stdout, mut stderr) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
            let (out_too, err_too) = (out.clone(), err.clone());
            let writing =
                async move { tokio::try_join!(stdout.write_all(&out_too), stderr.write_all(&err_too)).unwrap() };
            let serving = async {
                let (taken, _) = tokio::join!(taking, writing);
                process.exit(end.clone()).await.unwrap();
                taken
            };
            let (_, output, taken) = tokio::join!(typing, exec.wait_with_output(1 << 20), serving);
            let output = output.unwrap();
            assert!(taken == typed && output.stdout == out && output.stderr == err);
            let (moved, told) = watching.await.unwrap();
            assert!(!moved.stopped);
            assert!(told.data(Side::Client, &Name::Stdin) == typed, "{protocol:?}");
            assert!(told.data(Side::Server, &Name::Stdout) == out && told.data(Side::Server, &Name::Stderr) == err);
            assert_eq!(told.statuses(), std::slice::from_ref(&end), "{protocol:?}");
            assert_eq!(told.faults(), [], "{protocol:?}");
            assert_eq!(
                told.ends(Side::Client, &Name::Stdin) > 0,
                ends_stdin || protocol.transport() == upgrade::Transport::Spdy
            );
            let over = told.0.iter().filter(|event| matches!(event, Event::Over { cut: false, .. })).count();
            assert_eq!(over, 2, "{protocol:?}: {:?}", told.0.last());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_terminals_sizes_are_told_each_of_them() {
    for &protocol in &[Protocol::WEBSOCKET_EXEC_V5[0], Protocol::SPDY_EXEC[0], Protocol::SPDY_EXEC[1]] {
        let path = "attach?stdin=true&stdout=true&tty=true";
        let (mut exec, mut process, watching) = session(path, protocol, Streams::TTY).await;
        let sizes = [(80, 24), (132, 50), (0, 65_535)].map(|(width, height)| TerminalSize { width, height });
        let mut resize = exec.resize.take().unwrap();
        for size in sizes {
            resize.resize(size).await.unwrap();
        }
        let mut seen = process.resize.take().unwrap();
        while seen.next().await != Some(sizes[2]) {}
        process.stdout.take().unwrap().write_all(b"$ ").await.unwrap();
        let (status, exit) = tokio::join!(exec.wait(), process.exit(ExitStatus::Code(130)));
        exit.unwrap();
        assert_eq!(status.unwrap(), ExitStatus::Code(130));
        drop((exec, resize));
        let (_, told) = watching.await.unwrap();
        assert_eq!(told.sizes(), sizes, "{protocol:?}");
        assert_eq!(
            (told.statuses(), told.data(Side::Server, &Name::Stdout)),
            (vec![ExitStatus::Code(130)], b"$ ".to_vec())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn forwarded_ports_are_told_in_each_form() {
    for &protocol in Protocol::ANY_PORT_FORWARD {
        let path = "portforward?ports=7&ports=9";
        let (client, server, pipe) = between(path, protocol).await;
        let watching = watch(pipe, protocol, path);
        let (client, driver) = Multiplexer::client(client, Config::default());
        tokio::spawn(driver);
        let (server, driver) = Multiplexer::server(server, Config::default());
        tokio::spawn(driver);
        let mut server = PortForwardServer::new(server).unwrap();
        let serving = tokio::spawn(async move {
            let mut tasks = Vec::new();
            while let Some(Ok(request)) = server.accept().await {
                if request.port() == 9 {
                    request.fail("nobody listens");
                    continue;
                }
                let mut connection = request.accept();
                tasks.push(tokio::spawn(async move {
                    let mut all = vec![0; 100_000];
                    connection.read_exact(&mut all).await.unwrap();
                    all.reverse();
                    connection.write_all(&all).await.unwrap();
                    connection.shutdown().await.unwrap();
                }));
            }
        });
        let forward = PortForward::new(client).unwrap();
        let (up, mut back) = (pattern(4, 100_000), Vec::new());
        let mut connection = forward.connect(7).await.unwrap();
        let mut refused = String::new();
        match forward.connect(9).await {
            Err(error) => refused.push_str(&error.to_string()),
            Ok(mut connection) => {
                let error = connection.data().await.unwrap().unwrap_err();
                refused.push_str(&error.to_string());
            }
        }
        assert!(refused.contains("nobody listens"), "{refused}");
        connection.write_all(&up).await.unwrap();
        connection.read_to_end(&mut back).await.unwrap();
        drop((connection, forward));
        serving.await.unwrap();
        let (_, told) = watching.await.unwrap();
        assert_eq!(told.faults(), [], "{protocol:?}");
        let name = told.0.iter().find_map(|event| match event {
            Event::Data { stream, side: Side::Client, .. } => Some(stream.name.clone()),
            _ => None,
        });
        let name = name.unwrap();
        assert!(matches!(&name, Name::Forwarded { port: 7, .. }), "{name}");
        assert!(told.data(Side::Client, &name) == up && told.data(Side::Server, &name) == back, "{protocol:?}");
        let opened = |port: u16| {
            let of = |event: &&Event| matches!(event, Event::Opened { stream, .. } if stream.name.to_string().starts_with(&format!("port {port},")));
            told.0.iter().filter(of).count()
        };
        assert_eq!((opened(7), opened(9)), (2, 2), "{protocol:?}");
    }
}

/// An observer that is not ready makes the connection wait, and nothing is lost. An observer that stops the pipe has
/// both connections closed.
#[tokio::test(start_paused = true)]
async fn an_observer_may_slow_a_pipe_down_and_stop_it() {
    let protocol = Protocol::SpdyExec(upgrade::Version::V4);
    let path = "exec?command=true&stdout=true";
    let (client, server, pipe) = between(path, protocol).await;
    let (mut client, _, _) = client.into_parts();
    let (mut server, _, _) = server.into_parts();
    struct Slow {
        shown: Vec<u8>,
        rest: std::pin::Pin<Box<tokio::time::Sleep>>,
    }
    impl proxy::Observer for Slow {
        fn observe(&mut self, _: Side, bytes: &Bytes) -> ControlFlow<()> {
            self.shown.extend_from_slice(bytes);
            self.rest.as_mut().reset(tokio::time::Instant::now() + Duration::from_secs(1));
            if self.shown.ends_with(b"stop") { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }

        fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<ControlFlow<()>> {
            self.rest.as_mut().poll(cx).map(|()| ControlFlow::Continue(()))
        }
    }
    let began = tokio::time::Instant::now();
    let running = tokio::spawn(async move {
        let mut slow = Slow { shown: Vec::new(), rest: Box::pin(tokio::time::sleep(Duration::ZERO)) };
        let moved = pipe.run_with(&mut slow).await;
        (moved, slow.shown)
    });
    let sent = pattern(5, 50_000);
    let mut heard = vec![0; sent.len()];
    let (sending, hearing) = tokio::join!(server.write_all(&sent), client.read_exact(&mut heard));
    sending.unwrap();
    hearing.unwrap();
    assert!(heard == sent && began.elapsed() >= Duration::from_secs(5));
    client.write_all(b"stop").await.unwrap();
    assert_eq!((server.read(&mut [0]).await.unwrap(), client.read(&mut [0]).await.unwrap()), (0, 0));
    let (moved, shown) = running.await.unwrap();
    assert!(moved.stopped && shown == [&sent[..], b"stop"].concat());
    assert_eq!((moved.to_client, moved.to_backend), (50_000, 0), "what stopped it is not passed on");
}

/// Exec and port-forward use the same names, and the request's path tells them apart. An unknown name has no protocol.
#[tokio::test(start_paused = true)]
async fn a_pipe_knows_its_protocol_by_what_was_asked() {
    use kubestream::protocol::Subprotocol;
    let (_, _, pipe) = between("exec?command=true&stdout=true", Protocol::WebSocketExec(Subprotocol::V4)).await;
    assert_eq!(pipe.settled(Operation::Exec), Some(Protocol::WebSocketExec(Subprotocol::V4)));
    assert_eq!(pipe.settled(Operation::PortForward), Some(Protocol::LegacyPortForward(Subprotocol::V4)));
    let (_, _, pipe) = between("portforward", Protocol::TunneledPortForward).await;
    assert_eq!(
        (pipe.settled(Operation::Attach), pipe.settled(Operation::PortForward)),
        (None, Some(Protocol::TunneledPortForward))
    );
    let v5 = Protocol::SpdyExec(upgrade::Version::V5);
    let (_, _, pipe) = between("exec?command=true&stdout=true", v5).await;
    assert_eq!(pipe.settled(Operation::Exec), Some(v5), "virtual-kubelet takes it from kubectl");
}
