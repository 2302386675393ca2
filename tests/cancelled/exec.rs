//! The futures of exec.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use kubestream::exec::{Error, Exec, ExecServer, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::protocol::Subprotocol;
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::upgrade::{Protocol, Version};
use kubestream::{ConnectionError, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::dropping::{AN_HOUR, dropped_after, ends, nothing_is_left, play};
use crate::{V4, V5};
use support::sessions::upgraded;
use support::wire::wire;
use support::{pattern, until};

/// Both ends of a session over such a connection.
async fn started(protocol: Protocol, seed: u64, streams: Streams) -> (Exec, ExecServer) {
    let (client, server) = ends(protocol, seed);
    let (exec, process) = tokio::join!(client.exec(streams), server.accept_exec(streams));
    (exec.unwrap(), process.unwrap())
}

/// Except for `exit`, which may not be called again.
#[test]
fn what_a_session_may_call_again_loses_nothing_and_doubles_nothing() {
    play(async {
        let sizes = [TerminalSize { width: 80, height: 24 }, TerminalSize { width: 132, height: 50 }];
        for protocol in Protocol::ANY_EXEC.iter().copied() {
            for polls in 1..=3 {
                let (mut exec, mut process) = started(protocol, polls as u64, Streams::TTY).await;
                let serving = tokio::spawn(async move {
                    if let Some(resizes) = &mut process.resize {
                        // The first size may be skipped. A size that came twice would be noticed here.
                        let mut size = pestered!(polls, resizes.next());
                        if size == Some(sizes[0]) {
                            size = pestered!(polls, resizes.next());
                        }
                        assert_eq!(size, Some(sizes[1]));
                    }
                    let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
                    let mut had = 0;
                    while had < 600 {
                        assert!(dropped_after(1, process.client_gone()).await.is_none());
                        let data = pestered!(polls, stdin.data()).unwrap().unwrap();
                        had += data.len();
                        pestered!(polls, stdout.send(data.clone())).unwrap();
                    }
                    if let Some(resizes) = &mut process.resize {
                        assert_eq!(resizes.next().now_or_never(), None);
                    }
                    drop(stdout);
                    process.exit(ExitStatus::Code(7)).await.unwrap();
                });
                if let Some(resize) = &mut exec.resize {
                    for size in sizes {
                        pestered!(polls, resize.resize(size)).unwrap();
                    }
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
                        let told = asking.await.unwrap();
                        assert!(told.is_err() || told.is_ok_and(|output| output.status.code().is_none()));
                        refused += 1;
                    }
                }
                nothing_is_left("accept_exec").await;
            }
            // Over WebSocket all streams exist at once.
            assert_eq!(refused > 0, protocol == V4, "{refused}");
        }
    });
}

#[test]
fn accept_exec_that_was_dropped_holds_no_stream() {
    play(async {
        let mut dropped = 0;
        for polls in 0.. {
            let (client, server) = ends(V4, 20);
            let asking = tokio::spawn(async move { client.exec(Streams::PIPES).await.map(drop) });
            if dropped_after(polls, server.accept_exec(Streams::PIPES)).await.is_some() {
                break;
            }
            // What the client gives up too does not exist any more.
            asking.abort();
            until(|| server.stats().streams == 0).await;
            drop(server);
            nothing_is_left("accept_exec").await;
            dropped += 1;
        }
        assert!(dropped > 1, "{dropped}");
    });
}

#[test]
fn exit_that_was_dropped_has_said_its_status_or_none() {
    play(async {
        // Before v4 the status is a text, and a part of it is a valid text as well.
        for protocol in [V4, V5, Protocol::SpdyExec(Version::V3), Protocol::WebSocketExec(Subprotocol::V1)] {
            let mut unsaid = 0;
            for polls in 0.. {
                let (exec, mut process) = started(protocol, 4, Streams::OUTPUT).await;
                process.stdout.as_mut().unwrap().send(pattern(1, 40)).await.unwrap();
                let (exited, output) =
                    tokio::join!(dropped_after(polls, process.exit(ExitStatus::Code(127))), exec.wait_with_output(100));
                match output {
                    Ok(output) if exited.is_none() && output.status.code().is_none() => unsaid += 1,
                    Ok(output) => assert_eq!((output.stdout, output.status), (pattern(1, 40), ExitStatus::Code(127))),
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

#[test]
fn wait_with_output_that_was_dropped_ends_the_session() {
    play(async {
        for protocol in [V4, V5] {
            for polls in 0..30 {
                let (exec, mut process) = started(protocol, 8, Streams::OUTPUT).await;
                process.stdout.as_mut().unwrap().send(pattern(1, 400)).await.unwrap();
                // At most as many polls as there are events.
                let waiting = timeout(Duration::from_secs(1), dropped_after(polls, exec.wait_with_output(1000)));
                assert!(waiting.await.ok().flatten().is_none());
                timeout(AN_HOUR, process.client_gone()).await.expect("it is heard");
                drop(process);
                nothing_is_left("wait_with_output").await;
            }
        }
    });
}

/// The multiplexer still exists, and the server has accepted some of the streams.
#[test]
fn exec_that_was_dropped_leaves_no_stream() {
    play(async {
        for protocol in [Protocol::SpdyExec(Version::V1), V4] {
            let mut dropped = 0;
            for polls in 0.. {
                let (client, server) = ends(protocol, 11);
                let serving = tokio::spawn(async move {
                    let mut process = server.accept_exec(Streams::PIPES).await?;
                    drop(server);
                    // A stream that was reset has ended.
                    assert!(!matches!(process.stdin.as_mut().unwrap().data().await, Some(Ok(_))));
                    process.client_gone().await;
                    Ok::<(), Error>(())
                });
                let exec = dropped_after(polls, client.exec(Streams::PIPES)).await;
                if exec.is_none() {
                    until(|| client.stats().streams == 0).await;
                }
                drop(client);
                let ready = exec.map(|exec| drop(exec.unwrap())).is_some();
                timeout(AN_HOUR, serving).await.expect("it is heard").unwrap().ok();
                nothing_is_left("exec").await;
                if ready {
                    break;
                }
                dropped += 1;
            }
            assert!(dropped > 1, "{protocol:?} {dropped}");
        }
        // Over WebSocket all streams exist at once.
        assert!(ends(V5, 11).0.exec(Streams::PIPES).now_or_never().is_some());
    });
}

#[test]
fn client_gone_that_was_dropped_is_asked_again() {
    play(async {
        for protocol in [V4, V5] {
            for polls in 1..=3 {
                let (exec, mut process) = started(protocol, 12, Streams::OUTPUT).await;
                // Polled by another task than the next time.
                assert!(process.client_gone().now_or_never().is_none());
                let serving = tokio::spawn(async move {
                    pestered!(polls, process.client_gone());
                    // Once more: it still reports that.
                    process.client_gone().await;
                    process.stdout.as_mut().unwrap().send(pattern(1, 40)).await.unwrap_err();
                });
                sleep(Duration::from_millis(20)).await;
                assert!(!serving.is_finished());
                drop(exec);
                timeout(AN_HOUR, serving).await.expect("it is heard").unwrap();
                nothing_is_left("client_gone").await;
            }
        }
    });
}

/// The same bytes through `AsyncRead` and `AsyncWrite`, at both ends.
#[test]
fn what_reads_and_writes_as_an_io_loses_nothing_and_doubles_nothing() {
    play(async {
        let all = pattern(5, 600);
        for protocol in [V4, V5] {
            for polls in 1..=3 {
                let (mut exec, mut process) = started(protocol, 13 + polls as u64, Streams::PIPES).await;
                let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
                let serving = tokio::spawn(async move {
                    let mut buffer = [0; 7];
                    let mut had = 0;
                    while had < 600 {
                        let read = pestered!(polls, stdin.read(&mut buffer)).unwrap();
                        let mut rest = &buffer[..read];
                        while !rest.is_empty() {
                            let written = pestered!(polls, stdout.write(rest)).unwrap();
                            rest = &rest[written..];
                        }
                        pestered!(polls, stdout.flush()).unwrap();
                        had += read;
                    }
                    pestered!(polls, stdout.shutdown()).unwrap();
                    process.exit(ExitStatus::Code(7)).await.unwrap();
                });
                let (mut stdin, mut stdout) = (exec.stdin.take().unwrap(), exec.stdout.take().unwrap());
                let sent = all.clone();
                let typing = tokio::spawn(async move {
                    let mut rest = &sent[..];
                    while !rest.is_empty() {
                        let written = pestered!(polls, stdin.write(rest)).unwrap();
                        rest = &rest[written..];
                    }
                    pestered!(polls, stdin.flush()).unwrap();
                    stdin
                });
                let mut had = Vec::new();
                let mut buffer = [0; 5];
                while let read @ 1.. = pestered!(polls, stdout.read(&mut buffer)).unwrap() {
                    had.extend_from_slice(&buffer[..read]);
                }
                assert!(had == all, "{protocol:?} {polls}");
                drop(typing.await.unwrap());
                assert_eq!(exec.wait().await.unwrap().code(), Some(7));
                drop(exec);
                serving.await.unwrap();
                nothing_is_left("as an IO").await;
            }
        }
    });
}

/// The connection ends with its driver, and every task that waits for it is told.
#[test]
fn a_driver_that_was_dropped_takes_its_connection_with_it() {
    fn is_told(error: &Error) -> bool {
        use ConnectionError::DriverGone;
        matches!(
            error,
            Error::Connection(DriverGone)
                | Error::Stream { error: StreamError::Connection(DriverGone), .. }
                | Error::Incomplete { error: StreamError::Connection(DriverGone), .. }
        )
    }
    play(async {
        for protocol in [V4, V5] {
            for server_is_cut in [false, true] {
                let mut cut = 0;
                // Several hundred of the polls are in the middle of a transfer.
                for polls in (0..40).chain((40..).step_by(7)) {
                    let (near, far, seen) = wire(None, Some(14));
                    let polls_of = |server: bool| if server == server_is_cut { polls } else { usize::MAX };
                    let (client, driver) = Multiplexer::client(upgraded(near, protocol), Config::exec());
                    let client_driver = tokio::spawn(dropped_after(polls_of(false), driver));
                    let (server, driver) = Multiplexer::server(upgraded(far, protocol), Config::exec());
                    let server_driver = tokio::spawn(dropped_after(polls_of(true), driver));
                    let asking = async move { client.exec(Streams::OUTPUT).await?.wait_with_output(100).await };
                    let serving = async move {
                        let mut process = server.accept_exec(Streams::OUTPUT).await?;
                        drop(server);
                        let stdout = process.stdout.as_mut().unwrap();
                        let error = |error| Error::Stream { stream: "stdout", error };
                        stdout.send(pattern(1, 40)).await.map_err(error)?;
                        process.exit(ExitStatus::Code(7)).await
                    };
                    let both = timeout(AN_HOUR, async { tokio::join!(asking, serving) });
                    let (had, served) = both.await.unwrap_or_else(|_| panic!("{protocol:?} {polls}: it hangs"));
                    let was_cut = client_driver.await.unwrap().is_none() || server_driver.await.unwrap().is_none();
                    match had {
                        Ok(output) => {
                            assert_eq!((output.stdout, output.status), (pattern(1, 40), ExitStatus::Code(7)));
                        }
                        Err(error) => assert!(was_cut && (server_is_cut || is_told(&error)), "{polls}: {error:?}"),
                    }
                    if let Err(error) = served {
                        assert!(was_cut && (!server_is_cut || is_told(&error)), "{protocol:?} {polls}: {error:?}");
                    }
                    nothing_is_left("a driver").await;
                    assert_eq!(Arc::strong_count(&seen), 1, "an IO is left");
                    if !was_cut {
                        break;
                    }
                    cut += 1;
                }
                assert!(cut > 40, "{protocol:?} {cut}");
            }
        }
    });
}
