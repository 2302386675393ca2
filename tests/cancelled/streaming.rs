//! The futures of the streaming server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request as HttpRequest, StatusCode};
use kubestream::exec::{self, ExecServer, Output, Streams};
use kubestream::mux::{Config as MuxConfig, Multiplexer};
use kubestream::portforward::Request;
use kubestream::status::ExitStatus;
use kubestream::upgrade::{self, Protocol, UpgradeError};
use kubestream_runtime::{Error, Runtime, RuntimeConfig, Server};
use tokio::time::sleep;

use crate::dropping::{Alive, dropped_after, nothing_is_left, play};
use crate::{V4, V5};
use support::pattern;
use support::wire::{Io, wire};

/// Writes something and ends. Attached to, it writes when the client has sent something.
#[derive(Clone, Default)]
struct Command {
    begun: Arc<AtomicUsize>,
    running: Alive,
}

impl Runtime for Command {
    async fn exec(&self, _: String, _: Vec<String>, _: Streams, mut session: ExecServer) -> Result<(), exec::Error> {
        let _running = self.running.clone();
        self.begun.fetch_add(1, Ordering::Relaxed);
        // If the client has gone, ending fails too.
        let _ = session.stdout.as_mut().unwrap().send(pattern(1, 40)).await;
        session.exit(ExitStatus::Code(7)).await
    }

    async fn attach(&self, container: String, streams: Streams, mut session: ExecServer) -> Result<(), exec::Error> {
        let _ = session.stdin.as_mut().unwrap().data().await;
        self.exec(container, Vec::new(), streams, session).await
    }

    async fn port_forward(&self, _: &str, request: Request) {
        request.fail("a command has no ports");
    }
}

fn server() -> (Server<Command>, Command) {
    let command = Command::default();
    (Server::new(command.clone(), "http://node:10250", RuntimeConfig::default()).unwrap(), command)
}

fn say(server: &Server<Command>) -> Result<String, Error> {
    server.exec_url("c0ffee", ["say"], Streams::OUTPUT)
}

/// The result for a client that uses a URL.
#[derive(Debug)]
enum Used {
    Output(Output),
    Refused(StatusCode),
    Failed,
}

async fn connected(io: Io, url: String, protocol: Protocol) -> Result<Multiplexer, UpgradeError> {
    let request = HttpRequest::get(url).body(()).unwrap();
    let upgraded = upgrade::connect(io, request, &[protocol], &upgrade::Config::default()).await?;
    let (mux, driver) = Multiplexer::client(upgraded, MuxConfig::exec());
    tokio::spawn(driver);
    Ok(mux)
}

async fn used(io: Io, url: String, protocol: Protocol) -> Used {
    let mux = match connected(io, url, protocol).await {
        Ok(mux) => mux,
        Err(UpgradeError::Refused { response, .. }) => return Used::Refused(response.status()),
        Err(_) => return Used::Failed,
    };
    let output = async { mux.exec(Streams::OUTPUT).await?.wait_with_output(100).await };
    output.await.map_or(Used::Failed, Used::Output)
}

fn is_whole(used: &Used) -> bool {
    match used {
        Used::Output(output) => {
            assert_eq!((&output.stdout, &output.status), (&pattern(1, 40), &ExitStatus::Code(7)));
            true
        }
        Used::Refused(_) | Used::Failed => false,
    }
}

#[test]
fn serve_that_was_dropped_ends_its_session_and_is_counted_no_more() {
    play(async {
        for protocol in [V4, V5] {
            // Counted: before the URL was used, while the command ran, and afterwards.
            let mut dropped_when = [0; 3];
            for polls in (0..).step_by(3) {
                let (server, command) = server();
                let url = say(&server).unwrap();
                let (near, far, seen) = wire(None, Some(16));
                let first = tokio::spawn(used(near, url.clone(), protocol));
                let idle = command.running.count();
                let served = dropped_after(polls, server.serve(far)).await;
                assert_eq!((server.serving(), command.running.count()), (0, idle), "{protocol:?} {polls}");
                let begun = command.begun.load(Ordering::Relaxed);
                let first = first.await.unwrap();
                assert!(served.is_none() || is_whole(&first), "{protocol:?} {polls}: {first:?}");
                nothing_is_left("serve").await;
                assert_eq!(Arc::strong_count(&seen), 1, "{protocol:?} {polls}: an IO is left");

                // A URL works once: for the request that came with it, even without an answer, or for the next one.
                let (near, far, _) = wire(None, Some(17));
                let (again, _) = tokio::join!(used(near, url, protocol), server.serve(far));
                let refused = matches!(again, Used::Refused(StatusCode::NOT_FOUND));
                assert!(is_whole(&again) || refused, "{protocol:?} {polls}: {again:?}");
                assert!(refused || begun == 0, "{protocol:?} {polls}: it runs twice");
                if served.is_some() {
                    break;
                }
                dropped_when[usize::from(refused) + begun] += 1;
                nothing_is_left("another").await;
            }
            assert!(dropped_when.iter().all(|count| *count > 10), "{dropped_when:?}");
        }
    });
}

#[test]
fn drain_that_was_dropped_goes_on_refusing_and_is_asked_again() {
    play(async {
        for polls in 1..=3 {
            let (server, _) = server();
            let streams = Streams { stdin: true, ..Streams::OUTPUT };
            let url = server.attach_url("c0ffee", streams).unwrap();
            let unused = say(&server).unwrap();
            let (near, far, _) = wire(None, Some(18));
            let serving = server.clone();
            let serving = tokio::spawn(async move { serving.serve(far).await });
            let mut exec = connected(near, url, V4).await.unwrap().exec(streams).await.unwrap();

            assert!(dropped_after(0, server.drain()).await.is_none());
            say(&server).unwrap();
            assert!(server.drain().now_or_never().is_none());
            assert!(matches!(say(&server), Err(Error::Stopping)));
            let (near, far, _) = wire(None, Some(19));
            let (refused, served) = tokio::join!(used(near, unused, V4), server.serve(far));
            assert!(matches!(refused, Used::Refused(StatusCode::SERVICE_UNAVAILABLE)), "{refused:?}");
            served.unwrap_err();

            let draining = server.clone();
            let draining = tokio::spawn(async move { pestered!(polls, draining.drain()) });
            sleep(Duration::from_millis(20)).await;
            assert!(!draining.is_finished() && server.serving() == 1);
            // A running session goes on.
            exec.stdin.as_mut().unwrap().send("say".into()).await.unwrap();
            assert!(is_whole(&Used::Output(exec.wait_with_output(100).await.unwrap())));
            draining.await.unwrap();
            assert_eq!(server.serving(), 0);
            assert!(server.drain().now_or_never().is_some());
            serving.await.unwrap().unwrap();
            nothing_is_left("drain").await;
        }
    });
}
