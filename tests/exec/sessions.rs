//! Whole sessions with both ends of this library.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kubestream::Initiator;
use kubestream::exec::{Error, Exec, ExecServer, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::protocol::Subprotocol;
use kubestream::status::{ExitStatus, Status};
use kubestream::upgrade::{Protocol, Transport, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep, timeout};

use support::fragment::Fragmented;
use support::{Settled, client, exec_client, exec_server, pattern};

const PROTOCOLS: &[Protocol] = Protocol::ANY_EXEC;

/// The newest protocol of each transport.
fn newest() -> impl Iterator<Item = Protocol> {
    let newest = |transport| PROTOCOLS.iter().copied().find(|protocol| protocol.transport() == transport);
    let transports = [Transport::Spdy, Transport::WebSocket];
    transports.into_iter().filter_map(newest)
}

/// A session with both ends.
async fn session(settled: impl Settled, want: Streams) -> (Exec, ExecServer) {
    let protocol = settled.protocol();
    let (near, far) = duplex(16 * 1024);
    let (client, _one) = exec_client(near, protocol);
    let (server, _two) = exec_server(far, protocol);
    let (exec, process) = tokio::join!(client.exec(want), server.accept_exec(want));
    (exec.unwrap(), process.unwrap())
}

#[tokio::test(start_paused = true)]
async fn every_version_carries_output_and_every_kind_of_end() {
    let failed = Status::internal_error("error executing command in container: no such file");
    let ends = [ExitStatus::Success, ExitStatus::Code(7), ExitStatus::Code(255), ExitStatus::Failed(Box::new(failed))];
    for &protocol in PROTOCOLS {
        let version = protocol.version().unwrap();
        for end in &ends {
            let (exec, mut process) = session(protocol, Streams::OUTPUT).await;
            assert_eq!((exec.version(), process.version()), (version, version));
            process.stdout.take().unwrap().write_all(b"to stdout").await.unwrap();
            process.stderr.as_mut().unwrap().write_all(b"to stderr").await.unwrap();
            let end = end.clone();
            let (output, exit) = tokio::join!(exec.wait_with_output(100), process.exit(end.clone()));
            exit.unwrap();
            let output = output.unwrap();
            assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"to stdout"[..], &b"to stderr"[..]));
            match (version, &end, &output.status) {
                // Before v4 a failure is its text.
                (Version::V1 | Version::V2 | Version::V3, ExitStatus::Failed(sent), ExitStatus::Failed(came)) => {
                    assert_eq!(came.to_string(), sent.to_string());
                }
                (_, sent, came) => assert_eq!(sent, came, "{version:?}"),
            }
        }
    }
}

/// Row 40 of docs/security.md: the program that shows the text knows what a terminal does with it. When the status
/// begins, a client writes nothing more to Go's servers. A status longer than the window waits for a WINDOW_UPDATE.
#[tokio::test(start_paused = true)]
async fn a_status_longer_than_a_window_arrives_whole() {
    for &protocol in PROTOCOLS {
        let (exec, process) = session(protocol, Streams::OUTPUT).await;
        let message = "no such file: ".repeat(6_000);
        let end = ExitStatus::Failed(Box::new(Status::internal_error(&message)));
        let (output, exit) = tokio::join!(exec.wait_with_output(100), process.exit(end));
        exit.unwrap();
        let ExitStatus::Failed(status) = output.unwrap().status else { panic!("{protocol:?}: a success") };
        assert!(status.to_string().contains(&message), "{protocol:?}: cut at {}", status.to_string().len());
    }
}

#[tokio::test(start_paused = true)]
async fn terminal_escapes_in_an_output_are_bytes_like_others() {
    const ESCAPES: &[u8] = b"\x1b]0;title\x07\x1b[2J\x1b[6n\x9b31m\x90q\x9c\0\x08\x7f\r\n\x1b";
    for protocol in newest() {
        let (exec, mut process) = session(protocol, Streams::OUTPUT).await;
        process.stdout.take().unwrap().write_all(ESCAPES).await.unwrap();
        let (output, exit) = tokio::join!(exec.wait_with_output(100), process.exit(ExitStatus::Success));
        exit.unwrap();
        assert_eq!(output.unwrap().stdout, ESCAPES);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_has_the_streams_that_its_request_asked_for() {
    for &protocol in PROTOCOLS {
        for bits in 1..16 {
            let want = Streams { stdin: bits & 1 > 0, stdout: bits & 2 > 0, stderr: bits & 4 > 0, tty: bits & 8 > 0 };
            let (exec, process) = session(protocol, want).await;
            let stderr = want.stderr && !want.tty;
            // Over WebSocket every session can be resized.
            let resize =
                want.tty && (protocol.version() >= Some(Version::V3) || protocol.transport() != Transport::Spdy);
            let client = (exec.stdin.is_some(), exec.stdout.is_some(), exec.stderr.is_some(), exec.resize.is_some());
            assert_eq!(client, (want.stdin, want.stdout, stderr, resize));
            let server =
                (process.stdin.is_some(), process.stdout.is_some(), process.stderr.is_some(), process.resize.is_some());
            assert_eq!(server, client);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_stdin_reaches_the_process_behind_all_of_it() {
    // SPDY v1 can end stdin too, if the other end is this library.
    let can_end = |protocol: &Protocol| protocol.can_end_stdin() || protocol.transport() == Transport::Spdy;
    for &protocol in PROTOCOLS.iter().filter(|protocol| can_end(protocol)) {
        let (mut exec, mut process) = session(protocol, Streams::PIPES).await;
        assert_eq!(exec.can_end_stdin(), protocol.can_end_stdin());
        let cat = tokio::spawn(async move {
            let mut stdin = process.stdin.take().unwrap();
            let mut stdout = process.stdout.take().unwrap();
            tokio::io::copy(&mut stdin, &mut stdout).await.unwrap();
            drop(stdout);
            process.exit(ExitStatus::Success).await.unwrap();
        });
        let sent = pattern(0, 1 << 20);
        let mut stdin = exec.stdin.take().unwrap();
        let writer = tokio::spawn({
            let sent = sent.clone();
            async move {
                stdin.write_all(&sent[..500_000]).await.unwrap();
                stdin.send(sent.slice(500_000..)).await.unwrap();
                stdin.shutdown().await.unwrap();
                stdin
            }
        });
        let output = exec.wait_with_output(2 << 20).await.unwrap();
        assert!(output.stdout == sent && output.status.success());
        writer.await.unwrap();
        cat.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn wait_ends_a_stdin_that_nobody_took() {
    for protocol in newest() {
        let (mut exec, mut process) = session(protocol, Streams::PIPES).await;
        let cat = tokio::spawn(async move {
            assert!(process.stdin.as_mut().unwrap().data().await.is_none());
            process.exit(ExitStatus::Code(3)).await.unwrap();
        });
        assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(3));
        cat.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn wait_is_not_held_up_by_outputs_that_nobody_took() {
    for protocol in newest() {
        let (mut exec, mut process) = session(protocol, Streams::OUTPUT).await;
        let chatty = tokio::spawn(async move {
            for part in 0..10 {
                process.stdout.as_mut().unwrap().send(pattern(part, 1 << 20)).await.unwrap();
                process.stderr.as_mut().unwrap().send(pattern(part, 1 << 20)).await.unwrap();
            }
            process.exit(ExitStatus::Success).await.unwrap();
        });
        assert!(exec.wait().await.unwrap().success());
        chatty.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_reader_has_not_read_yet_survives_the_end_of_the_session() {
    for protocol in newest() {
        let (mut exec, mut process) = session(protocol, Streams::OUTPUT).await;
        let sent = pattern(0, 3 << 20);
        let quick = tokio::spawn({
            let sent = sent.clone();
            async move {
                let mut stdout = process.stdout.take().unwrap();
                stdout.send(sent).await.unwrap();
                drop(stdout);
                process.exit(ExitStatus::Code(7)).await.unwrap();
            }
        });
        let mut stdout = exec.stdout.take().unwrap();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            let mut buf = [0; 20_000];
            loop {
                sleep(Duration::from_millis(500)).await;
                match stdout.read(&mut buf).await.unwrap() {
                    0 => return all,
                    read => all.extend_from_slice(&buf[..read]),
                }
            }
        });
        assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(7));
        drop(exec);
        assert!(reader.await.unwrap() == sent);
        quick.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn wait_may_be_dropped_and_called_again_at_any_byte() {
    for protocol in newest() {
        let (near, far) = duplex(16);
        let (client, _one) = exec_client(Fragmented::bytewise(near), protocol);
        let (server, _two) = exec_server(Fragmented::bytewise(far), protocol);
        let (exec, process) = tokio::join!(client.exec(Streams::PIPES), server.accept_exec(Streams::PIPES));
        let (mut exec, mut process) = (exec.unwrap(), process.unwrap());
        let mut stdout = exec.stdout.take().unwrap();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            stdout.read_to_end(&mut all).await.unwrap();
            all
        });
        let command = tokio::spawn(async move {
            process.stdout.as_mut().unwrap().write_all(&pattern(0, 5000)).await.unwrap();
            process.exit(ExitStatus::Code(42)).await.unwrap();
        });
        let mut polls = 0;
        let status = loop {
            polls += 1;
            if let Some(status) = exec.wait().now_or_never() {
                break status.unwrap();
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(status, ExitStatus::Code(42));
        assert!(polls > 10, "{polls} polls: it never had to wait");
        assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(42), "and reports it again");
        assert!(reader.await.unwrap() == pattern(0, 5000));
        command.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn output_beyond_the_limit_is_an_error_and_up_to_it_is_not() {
    for protocol in newest() {
        for (limit, fits) in [(10_000, true), (9_999, false), (0, false)] {
            let (exec, mut process) = session(protocol, Streams::OUTPUT).await;
            let command = tokio::spawn(async move {
                process.stderr.as_mut().unwrap().send(pattern(0, 10_000)).await.unwrap();
                let _ = process.exit(ExitStatus::Success).await;
            });
            match exec.wait_with_output(limit).await {
                Ok(output) => assert!(fits && output.stderr == pattern(0, 10_000)),
                Err(error) => {
                    assert!(
                        !fits && matches!(error, Error::OutputTooLong { limit: named } if named == limit),
                        "{error:?}"
                    );
                    assert_eq!(error.initiator(), Initiator::User);
                }
            }
            command.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_session_tells_the_server_that_its_client_is_gone() {
    for protocol in newest() {
        let (near, far) = duplex(16 * 1024);
        let (client, one) = exec_client(near, protocol);
        let (server, two) = exec_server(far, protocol);
        let (exec, process) = tokio::join!(client.exec(Streams::PIPES), server.accept_exec(Streams::PIPES));
        let (exec, mut process) = (exec.unwrap(), process.unwrap());
        drop((exec, client));
        timeout(Duration::from_secs(60), process.client_gone()).await.expect("noticed");
        assert!(process.stdin.as_mut().unwrap().data().await.is_none_or(|data| data.is_err()));
        let exit = process.exit(ExitStatus::Success).await;
        assert!(matches!(exit, Err(Error::Connection(_) | Error::Stream { .. })), "{exit:?}");
        one.await.unwrap().unwrap();
        two.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drops_the_process_gives_no_success() {
    for protocol in newest() {
        let (exec, process) = session(protocol, Streams::OUTPUT).await;
        drop(process);
        let output = exec.wait_with_output(100).await.unwrap();
        assert!(output.status.code().is_none() && output.status.to_string().contains("let the session go"));
    }
}

/// Before v4 a client takes the silence of an orderly end for success.
#[tokio::test(start_paused = true)]
async fn a_server_that_gives_up_before_it_has_its_streams_gives_no_success() {
    for subprotocol in [Subprotocol::V1, Subprotocol::V1Base64, Subprotocol::V4, Subprotocol::V5] {
        let (near, far) = duplex(16 * 1024);
        let (client, _one) = exec_client(near, subprotocol);
        let (server, _two) = exec_server(far, subprotocol);
        // Whether it is ready or not.
        drop(server.accept_exec(Streams::OUTPUT).now_or_never());
        drop(server);
        match client.exec(Streams::OUTPUT).await.unwrap().wait_with_output(100).await {
            Ok(output) => assert!(output.status.code().is_none(), "{subprotocol}: {output:?}"),
            Err(error) => assert!(error.to_string().contains("with code 1011"), "{subprotocol}: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_speaks_no_exec_makes_no_session() {
    let (near, _far) = duplex(1024);
    let (mux, _driver) = client(near, Config::default());
    assert!(matches!(mux.exec(Streams::OUTPUT).await, Err(Error::NotExec(None))));
    assert!(matches!(mux.accept_exec(Streams::OUTPUT).await, Err(Error::NotExec(None))));
}

#[tokio::test(start_paused = true)]
async fn both_drivers_end_well_when_the_session_has() {
    for protocol in newest() {
        let (near, far) = duplex(16 * 1024);
        let began = Instant::now();
        let (client, one) = exec_client(near, protocol);
        let (server, two) = exec_server(far, protocol);
        let command = tokio::spawn(command(server));
        let output = client.exec(Streams::OUTPUT).await.unwrap().wait_with_output(4 << 20).await.unwrap();
        assert!(output.stdout == pattern(0, 3 << 20) && output.status == ExitStatus::Code(7));
        drop(client);
        command.await.unwrap();
        one.await.unwrap().unwrap();
        two.await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "neither waits for the other to close");
    }
}

async fn command(server: Multiplexer) {
    let mut process = server.accept_exec(Streams::OUTPUT).await.unwrap();
    process.stdout.as_mut().unwrap().send(pattern(0, 3 << 20)).await.unwrap();
    process.exit(ExitStatus::Code(7)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_however_the_bytes_are_split() {
    for protocol in newest() {
        for seed in 0..20 {
            let (near, far) = duplex(3000);
            let (client, _one) = exec_client(Fragmented::new(near, seed, 700), protocol);
            let (server, _two) = exec_server(Fragmented::new(far, !seed, 700), protocol);
            let cat = tokio::spawn(async move {
                let mut process = server.accept_exec(Streams::PIPES).await.unwrap();
                let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
                while let Some(data) = stdin.data().await {
                    stdout.send(data.unwrap()).await.unwrap();
                }
                drop(stdout);
                process.stderr.as_mut().unwrap().write_all(b"done").await.unwrap();
                process.exit(ExitStatus::Code(9)).await.unwrap();
            });
            let mut exec = client.exec(Streams::PIPES).await.unwrap();
            let mut stdin = exec.stdin.take().unwrap();
            let writer = tokio::spawn(async move {
                for part in 0..10 {
                    stdin.send(pattern(part, 9000)).await.unwrap();
                }
                stdin.send(Bytes::new()).await.unwrap();
            });
            let output = exec.wait_with_output(1 << 20).await.unwrap();
            let sent: Vec<u8> = (0..10).flat_map(|part| pattern(part, 9000)).collect();
            assert!(output.stdout == sent && &output.stderr[..] == b"done" && output.status == ExitStatus::Code(9));
            writer.await.unwrap();
            cat.await.unwrap();
        }
    }
}
