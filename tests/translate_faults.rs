//! Faults in the translator that a review found and that are fixed. Each test is named after the cause. A translated
//! session must do what the same session does without a translator.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use kubestream::StreamError;
use kubestream::exec::Streams;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Connection, Error, PortForward, PortForwardServer};
use kubestream::protocol::Subprotocol;
use kubestream::tap::Side;
use kubestream::upgrade::{Protocol, Upgraded, Version};
use kubestream_proxy::TranslateError;
use support::{DriverTask, exec_client, exec_server, pattern, translate};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const V4: Protocol = Protocol::SpdyExec(Version::V4);
const V5: Protocol = Protocol::WebSocketExec(Subprotocol::V5);
const STREAMS: Protocol = Protocol::SpdyPortForward;
const OLD: Protocol = Protocol::LegacyPortForward(Subprotocol::V4);
const AN_HOUR: Duration = Duration::from_secs(3600);

type Translating = JoinHandle<Result<(), TranslateError>>;

fn upgraded(io: DuplexStream, protocol: Protocol) -> Upgraded<DuplexStream> {
    Upgraded::new(io, Bytes::new(), Some(protocol)).with_ports(&[7])
}

fn joined(from: Protocol, to: Protocol, streams: Streams) -> (DuplexStream, DuplexStream, Translating) {
    let ((client, near), (far, server)) = (duplex(4096), duplex(4096));
    let (near, far) = (upgraded(near, from), upgraded(far, to));
    (client, server, tokio::spawn(async move { translate(near, far, streams).await }))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_lost_has_not_ended_its_stdin() {
    for (from, to) in [(V4, V4), (V5, V4), (V4, V5), (V5, V5)] {
        let (client, server, translating) = joined(from, to, Streams::PIPES);
        let ((client, driver), (server, _driver)) = (exec_client(client, from), exec_server(server, to));
        let (exec, process) = tokio::join!(client.exec(Streams::PIPES), server.accept_exec(Streams::PIPES));
        let (mut exec, mut process) = (exec.unwrap(), process.unwrap());
        exec.stdin.as_mut().unwrap().send("first half".into()).await.unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.read_exact(&mut [0; 10]).await.unwrap();
        // The client's socket is closed without a goodbye.
        driver.abort();
        let end = timeout(AN_HOUR, stdin.data()).await.unwrap();
        assert!(matches!(end, Some(Err(StreamError::Connection(_)))), "{from:?} {to:?}: {end:?}");
        assert_eq!(translating.await.unwrap().unwrap_err().side(), Some(Side::Client));
    }
}

/// All that the client sent came while the translator was still opening the session at the backend.
#[tokio::test(start_paused = true)]
async fn a_client_that_says_all_at_once_and_closes_has_said_it() {
    for to in [V4, V5] {
        let from = Protocol::WebSocketExec(Subprotocol::V4);
        let (client, server, translating) = joined(from, to, Streams::PIPES);
        let (client, _driver) = exec_client(client, from);
        let mut exec = client.exec(Streams::PIPES).await.unwrap();
        exec.stdin.take().unwrap().send("all of it".into()).await.unwrap();
        drop((exec, client));
        sleep(Duration::from_secs(1)).await;
        let (server, _driver) = exec_server(server, to);
        let mut process = server.accept_exec(Streams::PIPES).await.unwrap();
        let mut typed = Vec::new();
        process.stdin.take().unwrap().read_to_end(&mut typed).await.unwrap();
        assert_eq!(typed, b"all of it", "{to:?}");
        assert_eq!(translating.await.unwrap().unwrap_err().side(), Some(Side::Client));
    }
}

/// A server that sends its status first and then more output.
#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_status_is_shown_as_long_as_it_comes() {
    let streams = Streams { stdout: true, ..Streams::default() };
    let (client, server, translating) = joined(V4, V4, streams);
    let all = pattern(1, 20_000);
    let (mux, driver) = Multiplexer::server(upgraded(server, V4), Config::exec());
    tokio::spawn(driver);
    let sends = all.clone();
    tokio::spawn(async move {
        let (mut error, mut stdout) = (None, None);
        while error.is_none() || stdout.is_none() {
            let incoming = mux.accept().await.unwrap().unwrap();
            let slot = if incoming.headers().get("streamtype") == Some("error") { &mut error } else { &mut stdout };
            *slot = Some(incoming.reply());
        }
        let (mut error, mut stdout) = (error.unwrap(), stdout.unwrap());
        error.send(r#"{"status":"Success"}"#.into()).await.unwrap();
        error.finish();
        for piece in sends.chunks(1000) {
            sleep(Duration::from_secs(1)).await;
            stdout.send(sends.slice_ref(piece)).await.unwrap();
        }
        // The streams have not ended: containerd resets them, and the resets may be lost.
        sleep(AN_HOUR).await;
    });
    let (client, _driver) = exec_client(client, V4);
    let mut exec = client.exec(streams).await.unwrap();
    let mut shown = Vec::new();
    exec.stdout.take().unwrap().read_to_end(&mut shown).await.unwrap();
    assert_eq!(shown.len(), all.len());
    assert!(exec.wait().await.unwrap().success());
    drop((exec, client));
    timeout(Duration::from_secs(60), translating).await.expect("it ends").unwrap().unwrap();
}

struct Ends {
    client: Connection,
    server: Connection,
    forward: PortForward,
    accepting: PortForwardServer,
    client_driver: DriverTask,
    translating: Translating,
}

/// One forwarded connection through a translator, with both its ends.
async fn forwarded(from: Protocol, to: Protocol) -> Ends {
    let (client, server, translating) = joined(from, to, Streams::default());
    let (mux, driver) = Multiplexer::server(upgraded(server, to), Config::default());
    tokio::spawn(driver);
    let mut accepting = PortForwardServer::new(mux).unwrap();
    let (mux, driver) = Multiplexer::client(upgraded(client, from), Config::default());
    let client_driver = tokio::spawn(driver);
    let forward = PortForward::new(mux).unwrap();
    let (client, server) =
        tokio::join!(forward.connect(7), async { accepting.accept().await.unwrap().unwrap().accept() });
    Ends { client: client.unwrap(), server, forward, accepting, client_driver, translating }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_lost_has_not_ended_its_upload() {
    for (from, to) in
        [(STREAMS, STREAMS), (OLD, STREAMS), (STREAMS, OLD), (OLD, OLD), (STREAMS, Protocol::TunneledPortForward)]
    {
        let Ends { mut client, mut server, forward: _forward, accepting: _accepting, client_driver, .. } =
            forwarded(from, to).await;
        client.send("first half".into()).await.unwrap();
        assert_eq!(server.data().await.unwrap().unwrap(), "first half");
        client_driver.abort();
        let end = timeout(AN_HOUR, server.data()).await.unwrap();
        assert!(matches!(end, Some(Err(_))), "{from} {to}: {end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_reads_slowly_gets_all_that_an_orderly_client_has_sent() {
    for (from, to) in
        [(STREAMS, Protocol::TunneledPortForward), (STREAMS, STREAMS), (Protocol::TunneledPortForward, STREAMS)]
    {
        let Ends { mut client, mut server, forward, mut accepting, translating, .. } = forwarded(from, to).await;
        let pod = tokio::spawn(async move {
            let accepting = tokio::spawn(async move { accepting.accept().await.is_none() });
            let mut got = 0;
            loop {
                sleep(Duration::from_millis(500)).await;
                match server.data().await {
                    Some(data) => got += data.unwrap().len(),
                    None => break,
                }
            }
            drop(accepting);
            got
        });
        for _ in 0..100 {
            client.send(pattern(1, 10_000)).await.unwrap();
        }
        client.finish();
        drop((client, forward));
        assert_eq!(timeout(AN_HOUR, pod).await.unwrap().unwrap(), 1_000_000, "{from} {to}");
        translating.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_all_of_a_backend_that_has_ended() {
    for (from, to) in [(STREAMS, STREAMS), (STREAMS, OLD), (OLD, OLD)] {
        let Ends { mut client, mut server, forward, accepting, translating, .. } = forwarded(from, to).await;
        let pod = tokio::spawn(async move {
            for _ in 0..60 {
                server.send(pattern(1, 10_000)).await.unwrap();
            }
            server.finish();
            while server.data().await.is_some_and(|data| data.is_ok()) {}
            drop((server, accepting));
        });
        let mut got = 0;
        loop {
            sleep(Duration::from_secs(1)).await;
            match client.data().await {
                Some(data) => got += data.unwrap_or_else(|error| panic!("{from} {to}, {got}: {error}")).len(),
                None => break,
            }
        }
        assert_eq!(got, 600_000, "{from} {to}");
        drop((client, forward));
        pod.await.unwrap();
        translating.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_heard_though_a_pod_that_does_not_read_holds_up_what_was_sent() {
    let Ends { mut client, mut server, forward: _forward, mut accepting, .. } = forwarded(STREAMS, STREAMS).await;
    let _accepting = tokio::spawn(async move { accepting.accept().await.is_some() });
    let filling = async {
        loop {
            client.send(pattern(1, 10_000)).await.unwrap();
        }
    };
    assert!(timeout(Duration::from_secs(5), filling).await.is_err());
    drop(client);
    sleep(Duration::from_secs(60)).await;
    let sent = server.send("x".into()).await;
    assert!(matches!(sent, Err(Error::Stream { error: StreamError::Reset(_), .. })), "{sent:?}");
}
