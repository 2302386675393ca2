//! Endings that once hung or lost bytes: one direction ends while the other is in full flow.
//!
//! Time is virtual and passes only while no task can run.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use kubestream::StreamError;
use kubestream::exec::{ExecServer, Options, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::mux::{GoAwayStatus, RstStatus};
use kubestream::protocol::Subprotocol;
use kubestream::status::ExitStatus;
use kubestream::unstable::wire::spdy::Frame;
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::upgrade::{Protocol, Upgraded, Version};
use kubestream_proxy::{TranslateError, translate_exec};
use support::peer::{Peer, data, fin, goaway, rst, syn};
use support::websocket::WebSocketPeer;
use support::{DriverTask, client, exec_client, exec_server, pattern};
use tokio::io::duplex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Longer than any timer of a session.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server that is dropped in the middle of its output. The failure overtook the queued output, the client granted no
/// more, each side answered the other's PINGs, and neither ended.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_let_go_in_mid_output_ends_behind_its_output() {
    for protocol in [Protocol::SpdyExec(Version::V4), Protocol::WebSocketExec(Subprotocol::V5)] {
        let (near, far) = duplex(4096);
        let (client, one) = exec_client(near, protocol);
        let (server, two) = exec_server(far, protocol);
        let (exec, process) = tokio::join!(client.exec(Streams::OUTPUT), server.accept_exec(Streams::OUTPUT));
        drop((client, server));
        let mut process = process.unwrap();
        let waiting = tokio::spawn(exec.unwrap().wait_with_output(1 << 20));
        process.stdout.as_mut().unwrap().send(pattern(1, 250_000)).await.unwrap();
        drop(process);
        let output = timeout(A_DAY, waiting).await.expect("it hangs").unwrap().unwrap();
        assert!(output.stdout == pattern(1, 250_000) && output.status.code().is_none(), "{protocol:?}");
        one.await.unwrap().unwrap();
        two.await.unwrap().unwrap();
    }
}

/// A WebSocket client through a translator to a SPDY server. It sends stdin and closes.
async fn uploaded(
    bytes: usize,
) -> (ExecServer, DriverTask, JoinHandle<WebSocketPeer>, JoinHandle<Result<(), TranslateError>>) {
    let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
    let (from, to) = (Protocol::WebSocketExec(Subprotocol::V4), Protocol::SpdyExec(Version::V4));
    let ((client, near), (far, server)) = (duplex(4096), duplex(4096));
    let (near, far) = (Upgraded::new(near, Bytes::new(), Some(from)), Upgraded::new(far, Bytes::new(), Some(to)));
    let translating =
        tokio::spawn(async move { translate_exec(near, far, streams, Config::exec(), &Options::default()).await });
    let (server, driver): (Multiplexer, _) = exec_server(server, to);
    let mut peer = WebSocketPeer::client(client);
    let uploading = tokio::spawn(async move {
        for part in pattern(6, bytes).chunks(30_000) {
            peer.on(0, part).await;
        }
        peer.close(1000).await;
        peer
    });
    (server.accept_exec(streams).await.unwrap(), driver, uploading, translating)
}

/// A command that writes more than the buffers hold before it reads. Its output is not read any more, which must not
/// block its stdin.
#[tokio::test(start_paused = true)]
async fn an_upload_to_a_command_that_writes_first_is_whole() {
    let (mut process, _driver, uploading, translating) = uploaded(1_000_000).await;
    let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    let command = async {
        sleep(Duration::from_secs(5)).await;
        for _ in 0..40 {
            // The client may be gone.
            let _ = stdout.send(pattern(2, 100_000)).await;
        }
        let mut read = Vec::new();
        while let Some(data) = stdin.data().await {
            read.extend_from_slice(&data.unwrap());
        }
        read
    };
    let read = timeout(A_DAY, command).await.expect("it hangs");
    assert!(read == pattern(6, 1_000_000), "{} bytes", read.len());
    drop((process, stdout, uploading.await.unwrap()));
    translating.await.unwrap().unwrap_err();
}

/// A command that reads nothing and never ends by itself is told that its client is gone, and does not see an end of
/// stdin.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_takes_a_command_with_it_that_reads_nothing() {
    let (mut process, _driver, uploading, translating) = uploaded(900_000).await;
    let mut stdin = process.stdin.take().unwrap();
    timeout(A_DAY, process.client_gone()).await.expect("it is never told");
    let mut read = 0;
    let end = loop {
        match stdin.data().await {
            Some(Ok(data)) => read += data.len(),
            end => break end,
        }
    };
    assert!(read < 900_000 && matches!(end, Some(Err(_))), "{read} bytes, then {end:?}");
    drop((process, uploading.await.unwrap()));
    translating.await.unwrap().unwrap_err();
}

/// A server of stdout alone, with a client played by the test.
async fn served(streams: Streams, kinds: &[&str]) -> (ExecServer, Peer, DriverTask) {
    let (near, far) = duplex(1 << 20);
    let (server, driver) = exec_server(near, Version::V4);
    let mut peer = Peer::new(far);
    for (kind, id) in kinds.iter().zip((1..).step_by(2)) {
        peer.say(syn(id, &[("streamtype", kind)])).await;
    }
    (server.accept_exec(streams).await.unwrap(), peer, driver)
}

/// kubectl with a pager: it sends a PING, and then neither reads nor sends anything, while the tail is in the sockets.
#[tokio::test(start_paused = true)]
async fn a_ping_of_the_clients_does_not_show_that_it_has_read_the_tail() {
    let (mut process, mut peer, driver) = served(Streams::OUTPUT, &["error", "stdout", "stderr"]).await;
    let mut stdout = process.stdout.take().unwrap();
    for _ in 0..4 {
        stdout.send(pattern(2, 100_000)).await.unwrap();
    }
    drop(stdout);
    process.exit(ExitStatus::Code(7)).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    peer.say(Frame::Ping(1)).await;
    sleep(Duration::from_secs(70)).await;
    assert!(!driver.is_finished(), "400 kB are unread");
}

#[tokio::test(start_paused = true)]
async fn stdin_that_was_broken_off_has_not_ended() {
    let kinds = ["error", "stdin", "stdout", "stderr"];
    for (status, is_end) in [(RstStatus::CANCEL, true), (RstStatus::INTERNAL_ERROR, false)] {
        let (mut process, mut peer, _driver) = served(Streams::PIPES, &kinds).await;
        peer.say(data(3, "half of it")).await;
        peer.say(rst(3, status)).await;
        let mut stdin = process.stdin.take().unwrap();
        assert_eq!(stdin.data().await.unwrap().unwrap(), "half of it");
        match stdin.data().await {
            None => assert!(is_end, "Go's clients end their streams like this"),
            Some(Err(StreamError::Reset(RstStatus::INTERNAL_ERROR))) => assert!(!is_end),
            end => panic!("{end:?}"),
        }
    }
}

/// A server may send GOAWAY and finish what was begun (SPDY/3.1 §2.6.6), on its own streams too.
#[tokio::test(start_paused = true)]
async fn a_goaway_cuts_no_stream_that_the_server_has_opened() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(2, &[("name", "theirs")])).await;
    let mut stream = mux.accept().await.unwrap().unwrap().reply();
    stream.finish();
    peer.say(goaway(0)).await;
    sleep(Duration::from_secs(1)).await;
    peer.say(data(2, "after")).await;
    peer.say(fin(2)).await;
    assert_eq!(stream.data().await.unwrap().unwrap(), "after");
    assert!(stream.data().await.is_none());
    let ended = Instant::now();
    peer.hear_all().await;
    assert_eq!(ended.elapsed().as_secs(), 0, "with it the client ends");
    drop(peer);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_goaway_that_names_a_fault_is_no_good_end() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let status = GoAwayStatus::PROTOCOL_ERROR;
    peer.say(Frame::GoAway { last_good: StreamId::new(0), status }).await;
    assert_eq!(peer.hear_all().await, [goaway(0)], "it waits for the client's end");
    drop(peer);
    let ended = mux.closed().await.unwrap_err();
    assert!(ended.to_string().starts_with("the peer sent GOAWAY"), "{ended}");
    driver.await.unwrap().unwrap_err();
}
