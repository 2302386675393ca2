//! Sessions of a client and a server of this library through a translator, with every protocol on either side.
//!
//! Time is virtual and passes only while no task can run.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use kubestream::exec::{Exec, ExecServer, Options, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Error, PortForward, PortForwardServer};
use kubestream::protocol::Subprotocol;
use kubestream::status::{ExitStatus, Status, TerminalSize};
use kubestream::tap::Side;
use kubestream::upgrade::{Protocol, Upgraded, Version};
use kubestream_proxy::{TranslateError, translate_exec_until};
use support::fragment::Fragmented;
use support::websocket::WebSocketPeer;
use support::{exec_client, exec_server, pattern, translate, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot::{Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

type Translating = JoinHandle<Result<(), TranslateError>>;

/// The outer ends of two connections that are joined.
fn joined(from: Protocol, to: Protocol, streams: Streams, most: usize) -> (DuplexStream, DuplexStream, Translating) {
    let ((client, near), (far, server)) = (duplex(4096), duplex(4096));
    let near = Upgraded::new(Fragmented::new(near, 1, most), Bytes::new(), Some(from)).with_ports(&PORTS);
    let far = Upgraded::new(Fragmented::new(far, 2, most), Bytes::new(), Some(to)).with_ports(&PORTS);
    let translating = tokio::spawn(async move { translate(near, far, streams).await });
    (client, server, translating)
}

/// A session through the translator.
async fn session(from: Protocol, to: Protocol, streams: Streams) -> (Exec, ExecServer, Translating) {
    let (client, server, translating) = joined(from, to, streams, 4096);
    let ((client, _), (server, _)) = (exec_client(client, from), exec_server(server, to));
    let (exec, process) = tokio::join!(client.exec(streams), server.accept_exec(streams));
    (exec.unwrap(), process.unwrap(), translating)
}

fn executing() -> impl Iterator<Item = (Protocol, Protocol)> {
    Protocol::ANY_EXEC.iter().flat_map(|from| Protocol::ANY_EXEC.iter().map(|to| (*from, *to)))
}

#[tokio::test(start_paused = true)]
async fn outputs_and_how_it_ended_arrive_between_any_two_protocols() {
    for (from, to) in executing() {
        for (status, code) in [(ExitStatus::Success, 0), (ExitStatus::Code(7), 7)] {
            let (exec, mut process, translating) = session(from, to, Streams::OUTPUT).await;
            let (out, err) = (pattern(1, 300_000), pattern(2, 100_000));
            let serving = {
                let (out, err, mut stdout, mut stderr) =
                    (out.clone(), err.clone(), process.stdout.take().unwrap(), process.stderr.take().unwrap());
                tokio::spawn(async move {
                    tokio::join!(stdout.send(out), stderr.send(err)).0.unwrap();
                    drop((stdout, stderr));
                    process.exit(status).await.unwrap();
                })
            };
            let output =
                exec.wait_with_output(1 << 20).await.unwrap_or_else(|error| panic!("{from:?} {to:?}: {error}"));
            assert!(output.stdout == out && output.stderr == err, "{from:?} {to:?}");
            assert_eq!(output.status.code(), Some(code), "{from:?} {to:?}: {:?}", output.status);
            translating.await.unwrap().unwrap_or_else(|error| panic!("{from:?} {to:?}: {error}"));
            serving.await.unwrap();
        }
    }
}

/// A session that its caller can end, with a message.
async fn endable(from: Protocol, to: Protocol) -> (Exec, ExecServer, Sender<&'static str>, Translating) {
    let ((client, near), (far, server)) = (duplex(4096), duplex(4096));
    let (near, far) = (Upgraded::new(near, Bytes::new(), Some(from)), Upgraded::new(far, Bytes::new(), Some(to)));
    let (end, ended) = channel::<&str>();
    let ended = async move { Status::internal_error(ended.await.unwrap().to_owned()) };
    let translating = tokio::spawn(async move {
        translate_exec_until(near, far, Streams::PIPES, Config::exec(), &Options::default(), ended).await
    });
    let ((client, _), (server, _)) = (exec_client(client, from), exec_server(server, to));
    let (exec, process) = tokio::join!(client.exec(Streams::PIPES), server.accept_exec(Streams::PIPES));
    (exec.unwrap(), process.unwrap(), end, translating)
}

#[tokio::test(start_paused = true)]
async fn the_client_of_a_session_that_is_ended_reads_why_and_the_command_reads_no_end() {
    for (from, to) in executing() {
        let (mut exec, mut process, end, translating) = endable(from, to).await;
        let (mut stdout, mut stderr) = (exec.stdout.take().unwrap(), exec.stderr.take().unwrap());
        let (mut typed, mut typing) = (process.stdin.take().unwrap(), exec.stdin.take().unwrap());
        typing.send(Bytes::from("part of the input")).await.unwrap();
        assert_eq!(typed.data().await.unwrap().unwrap(), "part of the input");
        process.stdout.as_mut().unwrap().send(Bytes::from("before")).await.unwrap();
        assert_eq!(stdout.data().await.unwrap().unwrap(), "before", "{from:?} {to:?}");

        let began = Instant::now();
        end.send("the limit of one hour is over").unwrap();
        assert!(stdout.data().await.is_none() && stderr.data().await.is_none(), "{from:?} {to:?}");
        match exec.wait().await.unwrap() {
            ExitStatus::Failed(status) => {
                assert!(status.message.contains("the limit of one hour is over"), "{from:?} {to:?}: {status:?}");
            }
            other => panic!("{from:?} {to:?}: {other:?}"),
        }
        // It has not got all of the input.
        assert!(matches!(typed.data().await, Some(Err(_))), "{from:?} {to:?}");
        process.client_gone().await;
        assert!(began.elapsed() < Duration::from_secs(1), "{from:?} {to:?}");
        drop((exec, typing, stdout, stderr));
        translating.await.unwrap().unwrap_or_else(|error| panic!("{from:?} {to:?}: {error}"));
    }
}

/// A command that a user no longer may run is not waited for.
#[tokio::test(start_paused = true)]
async fn a_session_can_be_ended_although_nobody_reads_and_before_the_backend_answers() {
    for (from, to) in executing() {
        let (mut exec, process, end, translating) = endable(from, to).await;
        let mut typing = exec.stdin.take().unwrap();
        let typing = tokio::spawn(async move { while typing.send(pattern(1, 10_000)).await.is_ok() {} });
        sleep(Duration::from_secs(1)).await;
        end.send("not any more").unwrap();
        assert!(matches!(exec.wait().await.unwrap(), ExitStatus::Failed(_)), "{from:?} {to:?}");
        process.client_gone().await;
        typing.await.unwrap();
        drop(exec);
        translating.await.unwrap().unwrap_or_else(|error| panic!("{from:?} {to:?}: {error}"));
    }
    let ((client, near), (far, mut server)) = (duplex(4096), duplex(4096));
    let protocol = Protocol::SpdyExec(Version::V4);
    let side = |io| Upgraded::new(io, Bytes::new(), Some(protocol));
    let (near, far) = (side(near), side(far));
    let ended = async {
        sleep(Duration::from_secs(2)).await;
        Status::internal_error("not any more".to_owned())
    };
    let options = Options::default();
    let (client, _) = exec_client(client, protocol);
    let asking = async {
        let exec = client.exec(Streams::OUTPUT).await.unwrap();
        drop(client);
        exec.wait_with_output(100).await.unwrap().status
    };
    let translating = translate_exec_until(near, far, Streams::OUTPUT, Config::exec(), &options, ended);
    let (translated, status) = tokio::join!(translating, asking);
    translated.unwrap();
    assert!(matches!(status, ExitStatus::Failed(status) if status.message.contains("not any more")));
    let mut asked = Vec::new();
    server.read_to_end(&mut asked).await.unwrap();
    assert!(!asked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn stdin_arrives_and_so_does_its_end_where_both_can_say_it() {
    for (from, to) in executing() {
        let (mut exec, mut process, translating) = session(from, to, Streams::PIPES).await;
        let sent = pattern(3, 300_000);
        let (mut stdin, mut stdout) = (exec.stdin.take().unwrap(), exec.stdout.take().unwrap());
        let typing = {
            let sent = sent.clone();
            tokio::spawn(async move {
                stdin.send(sent).await.unwrap();
                stdin.finish();
                stdin
            })
        };
        let mut read = vec![0; sent.len()];
        let mut typed = process.stdin.take().unwrap();
        typed.read_exact(&mut read).await.unwrap();
        assert!(read == sent, "{from:?} {to:?}");
        if from.can_end_stdin() && to.can_end_stdin() {
            assert_eq!(typed.read(&mut [0]).await.unwrap(), 0, "{from:?} {to:?}");
        }
        process.stdout.as_mut().unwrap().send("heard".into()).await.unwrap();
        process.exit(ExitStatus::Success).await.unwrap();
        let mut heard = String::new();
        stdout.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "heard");
        assert_eq!(exec.wait().await.unwrap().code(), Some(0), "{from:?} {to:?}");
        typing.await.unwrap();
        translating.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_terminal_is_resized_from_v3_on_and_over_any_websocket() {
    let resizes = |protocol: Protocol| !matches!(protocol, Protocol::SpdyExec(version) if version < Version::V3);
    for (from, to) in executing().filter(|(from, to)| resizes(*from) && resizes(*to)) {
        let (mut exec, mut process, _translating) = session(from, to, Streams::TTY).await;
        let size = TerminalSize { width: 132, height: 50 };
        exec.resize.as_mut().unwrap().resize(size).await.unwrap();
        assert_eq!(process.resize.as_mut().unwrap().next().await, Some(size), "{from:?} {to:?}");
    }
}

/// A status keeps its fields if both sides can express them, and its message if one side only has text.
#[tokio::test(start_paused = true)]
async fn a_failure_keeps_its_words() {
    for (from, to) in executing() {
        let (exec, process, _translating) = session(from, to, Streams::OUTPUT).await;
        let failed = ExitStatus::Failed(Box::new(Status::internal_error("no such file: nope")));
        process.exit(failed).await.unwrap();
        let output = exec.wait_with_output(100).await.unwrap_or_else(|error| panic!("{from:?} {to:?}: {error}"));
        let ExitStatus::Failed(status) = output.status else { panic!("{from:?} {to:?}: {:?}", output.status) };
        assert!(status.message.contains("no such file: nope"), "{from:?} {to:?}: {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_lost_is_an_error_to_the_client_and_never_a_success() {
    for (from, to) in executing() {
        let (client, mut server, translating) = joined(from, to, Streams::OUTPUT, 4096);
        let (client, _driver) = exec_client(client, from);
        let lost = tokio::spawn(async move {
            // The client has sent nothing, or the beginning of something.
            let mut heard = [0; 1];
            let _ = server.read(&mut heard).await;
        });
        let ended = match client.exec(Streams::OUTPUT).await {
            Ok(exec) => exec.wait_with_output(100).await.map(|output| output.status),
            Err(error) => Err(error),
        };
        assert!(!matches!(&ended, Ok(status) if status.success()), "{from:?} {to:?}: {ended:?}");
        let error = translating.await.unwrap().unwrap_err();
        assert_eq!(error.side(), Some(Side::Server), "{from:?} {to:?}: {error:?}");
        lost.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_takes_its_session_with_it() {
    for (from, to) in executing() {
        let (exec, process, translating) = session(from, to, Streams::OUTPUT).await;
        drop(exec);
        process.client_gone().await;
        drop(process);
        let error = translating.await.unwrap().unwrap_err();
        assert_eq!(error.side(), Some(Side::Client), "{from:?} {to:?}: {error:?}");
    }
}

/// Back-pressure passes through, and after the client reads again nothing is lost.
#[tokio::test(start_paused = true)]
async fn a_slow_client_holds_the_process_up_and_loses_nothing() {
    for (from, to) in [
        (Protocol::WebSocketExec(Subprotocol::V5), Protocol::SpdyExec(Version::V4)),
        (Protocol::SpdyExec(Version::V4), Protocol::WebSocketExec(Subprotocol::V5)),
    ] {
        let (mut exec, mut process, translating) = session(from, to, Streams::OUTPUT).await;
        let all = pattern(4, 20 << 20);
        let (mut stdout, sends) = (process.stdout.take().unwrap(), all.clone());
        let writing = tokio::spawn(async move {
            for piece in sends.chunks(100_000) {
                stdout.send(sends.slice_ref(piece)).await.unwrap();
            }
            drop(stdout);
            process.exit(ExitStatus::Success).await.unwrap();
        });
        sleep(Duration::from_secs(5)).await;
        assert!(!writing.is_finished(), "{from:?} {to:?}: 20 MiB are in buffers");
        let mut read = Vec::new();
        exec.stdout.take().unwrap().read_to_end(&mut read).await.unwrap();
        assert!(read == all, "{from:?} {to:?}");
        assert!(exec.wait().await.unwrap().success());
        writing.await.unwrap();
        translating.await.unwrap().unwrap();
    }
}

/// Both sides send without reading, and then both read. Neither side has waited for the other.
#[tokio::test(start_paused = true)]
async fn two_slow_sides_do_not_wait_for_each_other() {
    for (from, to) in [
        (Protocol::WebSocketExec(Subprotocol::V5), Protocol::SpdyExec(Version::V4)),
        (Protocol::SpdyExec(Version::V4), Protocol::WebSocketExec(Subprotocol::V4Base64)),
    ] {
        let (mut exec, mut process, _translating) = session(from, to, Streams::PIPES).await;
        let (up, down) = (pattern(5, 8 << 20), pattern(6, 8 << 20));
        let (mut stdin, mut stdout) = (exec.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sends, shows) = (up.clone(), down.clone());
        let typing = tokio::spawn(async move { stdin.send(sends).await.map(|()| stdin) });
        let showing = tokio::spawn(async move {
            for piece in shows.chunks(100_000) {
                stdout.send(shows.slice_ref(piece)).await.unwrap();
            }
        });
        sleep(Duration::from_secs(5)).await;
        let (mut typed, mut shown) = (vec![0; up.len()], vec![0; down.len()]);
        let mut reads = (process.stdin.take().unwrap(), exec.stdout.take().unwrap());
        tokio::join!(reads.0.read_exact(&mut typed), reads.1.read_exact(&mut shown)).0.unwrap();
        assert!(typed == up && shown == down, "{from:?} {to:?}");
        typing.await.unwrap().unwrap();
        showing.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_session_in_common_is_not_joined() {
    let exec = Protocol::SpdyExec(Version::V4);
    let legacy = Protocol::LegacyPortForward(Subprotocol::Unnamed);
    let not_joined = async |from, to| {
        let (_client, _server, translating) = joined(from, to, Streams::OUTPUT, 4096);
        translating.await.unwrap().unwrap_err()
    };
    let error = not_joined(Protocol::TunneledPortForward, exec).await;
    assert!(matches!(error, TranslateError::NotPortForward { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "both sides must speak port-forward: the client speaks port-forward over WebSocket \
         (SPDY/3.1+portforward.k8s.io), the backend speaks exec over SPDY (v4.channel.k8s.io)"
    );
    let error = not_joined(exec, legacy).await;
    assert!(matches!(error, TranslateError::NotExec { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "both sides must speak exec: the client speaks exec over SPDY (v4.channel.k8s.io), the backend speaks \
         port-forward over WebSocket"
    );
}

const PORTS: [u16; 3] = [7, 8, 9];
const FORMS: [Protocol; 3] =
    [Protocol::SpdyPortForward, Protocol::TunneledPortForward, Protocol::LegacyPortForward(Subprotocol::V4)];

/// Port 7 is an echo, 8 is closed, and 9 breaks off in the middle.
async fn serve(mut server: PortForwardServer) {
    while let Some(Ok(request)) = server.accept().await {
        let port = request.port();
        if port == 8 {
            request.fail("nobody listens");
            continue;
        }
        let mut connection = request.accept();
        tokio::spawn(async move {
            if port == 9 {
                let mut half = [0; 10];
                if connection.read_exact(&mut half).await.is_err() {
                    return;
                }
                connection.write_all(&half).await.unwrap();
                return connection.flush().await.unwrap();
            }
            while let Some(Ok(data)) = connection.data().await {
                connection.send(data).await.unwrap();
            }
            connection.finish();
        });
    }
}

fn forward(from: Protocol, to: Protocol, most: usize) -> (PortForward, Translating) {
    let (client, server, translating) = joined(from, to, Streams::default(), most);
    let server = Upgraded::new(server, Bytes::new(), Some(to)).with_ports(&PORTS);
    let (mux, driver) = Multiplexer::server(server, Config::default());
    tokio::spawn(driver);
    tokio::spawn(serve(PortForwardServer::new(mux).unwrap()));
    let client = Upgraded::new(client, Bytes::new(), Some(from)).with_ports(&PORTS);
    let (mux, driver) = Multiplexer::client(client, Config::default());
    tokio::spawn(driver);
    (PortForward::new(mux).unwrap(), translating)
}

#[tokio::test(start_paused = true)]
async fn ports_are_forwarded_between_any_two_forms() {
    for from in FORMS {
        for to in FORMS {
            for most in [3, 4096] {
                let (forward, translating) = forward(from, to, most);
                let connection = forward.connect(7).await.unwrap();
                let sent = pattern(1, 20_000);
                let (mut reads, mut writes) = tokio::io::split(connection);
                let mut back = vec![0; sent.len()];
                let (wrote, read) = tokio::join!(writes.write_all(&sent), reads.read_exact(&mut back));
                wrote.unwrap();
                read.unwrap();
                assert!(back == sent, "{from} {to}");
                let streams = |form| form != Protocol::LegacyPortForward(Subprotocol::V4);
                if streams(from) && streams(to) {
                    writes.shutdown().await.unwrap();
                    assert_eq!(reads.read(&mut [0]).await.unwrap(), 0, "{from} {to}: a half-close passes");
                }
                drop(forward);
                drop((reads, writes));
                translating.await.unwrap().unwrap_or_else(|error| panic!("{from} {to}: {error}"));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_says_why_and_takes_no_other_with_it() {
    for from in FORMS {
        for to in FORMS {
            let (forward, _translating) = forward(from, to, 4096);
            let mut lives = forward.connect(7).await.unwrap();
            let failed = match forward.connect(8).await {
                Err(failed) => failed,
                Ok(mut connection) => connection.data().await.unwrap().unwrap_err(),
            };
            // A backend of legacy port-forward has replied before it knows, so that over SPDY only the reset is left.
            if to != Protocol::LegacyPortForward(Subprotocol::V4)
                || from == Protocol::LegacyPortForward(Subprotocol::V4)
            {
                assert!(failed.to_string().contains("nobody listens"), "{from} {to}: {failed}");
            }
            let mut broken = forward.connect(9).await.unwrap();
            broken.send("half of it".into()).await.unwrap();
            let mut half = [0; 10];
            broken.read_exact(&mut half).await.unwrap_or_else(|error| panic!("{from} {to}: {error} {half:?}"));
            assert_eq!(half, *b"half of it", "{from} {to}");
            let error = broken.data().await.expect("no end").unwrap_err();
            assert!(matches!(error, Error::Stream { .. } | Error::Failed { .. }), "{from} {to}: {error:?}");
            lives.send("still here".into()).await.unwrap();
            lives.read_exact(&mut half).await.unwrap();
            assert_eq!(half, *b"still here", "{from} {to}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_connections_at_a_time_leave_nothing_behind() {
    let (forward, _translating) = forward(Protocol::TunneledPortForward, Protocol::SpdyPortForward, 4096);
    let forward = std::sync::Arc::new(forward);
    let mut connections = tokio::task::JoinSet::new();
    for number in 0..300usize {
        let forward = std::sync::Arc::clone(&forward);
        connections.spawn(async move {
            let mut connection = forward.connect(7).await.unwrap();
            let sent = pattern(number, 2000);
            connection.send(sent.clone()).await.unwrap();
            connection.finish();
            let mut back = Vec::new();
            connection.read_to_end(&mut back).await.unwrap();
            assert!(back == sent);
        });
    }
    while let Some(connection) = connections.join_next().await {
        connection.unwrap();
    }
    until(|| forward.multiplexer().stats().streams == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_lost_ends_every_connection() {
    for from in FORMS {
        let (client, server, translating) = joined(from, Protocol::SpdyPortForward, Streams::default(), 4096);
        let client = Upgraded::new(client, Bytes::new(), Some(from)).with_ports(&PORTS);
        let (mux, driver) = Multiplexer::client(client, Config::default());
        tokio::spawn(driver);
        let forward = PortForward::new(mux).unwrap();
        let began = Instant::now();
        drop(server);
        let failed = match forward.connect(7).await {
            Err(failed) => failed,
            Ok(mut connection) => connection.data().await.unwrap().unwrap_err(),
        };
        assert!(began.elapsed() < Duration::from_secs(30), "{from}: {failed:?}");
        drop(forward);
        assert_eq!(translating.await.unwrap().unwrap_err().side(), Some(Side::Server), "{from}");
    }
}

/// The client reads slowly, for example through a pager or over a slow link, so the status is there before the rest of
/// the output.
#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_all_of_the_output() {
    for (from, to) in [
        (Protocol::SpdyExec(Version::V4), Protocol::WebSocketExec(Subprotocol::V5)),
        (Protocol::WebSocketExec(Subprotocol::V5), Protocol::SpdyExec(Version::V4)),
    ] {
        let (mut exec, mut process, translating) = session(from, to, Streams::OUTPUT).await;
        let all = pattern(5, 8 << 20);
        let serving = tokio::spawn({
            let all = all.clone();
            async move {
                process.stdout.as_mut().unwrap().send(all).await.unwrap();
                process.exit(ExitStatus::Code(7)).await.unwrap();
            }
        });
        let mut stdout = exec.stdout.take().unwrap();
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Some(data) = stdout.data().await {
                read.extend_from_slice(&data.unwrap());
                sleep(Duration::from_millis(200)).await;
            }
            read
        });
        let began = Instant::now();
        assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(7), "{from:?} {to:?}");
        assert!(reading.await.unwrap() == all, "{from:?} {to:?}");
        assert!(began.elapsed() > Duration::from_secs(30), "{from:?} {to:?}: {:?}", began.elapsed());
        translating.await.unwrap().unwrap();
        serving.await.unwrap();
    }
}

/// Before v5 a client ends stdin by closing. The backend gets all of it, and an end.
#[tokio::test(start_paused = true)]
async fn an_upload_that_ends_with_its_client_is_whole_at_the_backend() {
    for from in [Subprotocol::Unnamed, Subprotocol::V4, Subprotocol::V5] {
        for to in [Protocol::SpdyExec(Version::V4), Protocol::WebSocketExec(Subprotocol::V5)] {
            let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
            let (client, server, translating) = joined(Protocol::WebSocketExec(from), to, streams, 4096);
            let mut peer = WebSocketPeer::client(client);
            let (server, _driver) = exec_server(server, to);
            let sent = pattern(6, 1_000_000);
            let uploading = tokio::spawn({
                let sent = sent.clone();
                async move {
                    for part in sent.chunks(30_000) {
                        peer.on(0, part).await;
                    }
                    peer.close(1000).await;
                    peer
                }
            });
            let mut process = server.accept_exec(streams).await.unwrap();
            let mut stdin = process.stdin.take().unwrap();
            let mut read = Vec::new();
            while let Some(data) = stdin.data().await {
                read.extend_from_slice(&data.unwrap());
                sleep(Duration::from_millis(10)).await;
            }
            assert!(read == sent, "{from} {to:?}: {} bytes", read.len());
            process.client_gone().await;
            drop((process, uploading.await.unwrap()));
            let ended = translating.await.unwrap().unwrap_err();
            assert_eq!(ended.side(), Some(Side::Client), "{ended}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_ended_after_its_client_is_not_whole_at_the_backend() {
    let to = Protocol::SpdyExec(Version::V4);
    let ((client, near), (far, server)) = (duplex(4096), duplex(4096));
    let near = Upgraded::new(near, Bytes::new(), Some(Protocol::WebSocketExec(Subprotocol::V5)));
    let far = Upgraded::new(far, Bytes::new(), Some(to));
    let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
    let ended = async {
        sleep(Duration::from_secs(2)).await;
        Status::internal_error("not any more".to_owned())
    };
    let options = Options::default();
    let translating = translate_exec_until(near, far, streams, Config::exec(), &options, ended);
    let uploading = async move {
        let mut peer = WebSocketPeer::client(client);
        for part in pattern(6, 500_000).chunks(30_000) {
            peer.on(0, part).await;
        }
        peer.close(1000).await;
        peer
    };
    let reading = async {
        let (server, _driver) = exec_server(server, to);
        let mut process = server.accept_exec(streams).await.unwrap();
        let mut stdin = process.stdin.take().unwrap();
        loop {
            match stdin.data().await {
                Some(Ok(_)) => sleep(Duration::from_millis(500)).await,
                end => return end.is_some(),
            }
        }
    };
    let (translated, _peer, broke_off) = tokio::join!(translating, uploading, reading);
    assert_eq!(translated.unwrap_err().side(), Some(Side::Client));
    assert!(broke_off);
}
