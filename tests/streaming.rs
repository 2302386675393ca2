//! The streaming server of a container runtime, with a minimal runtime and this library's clients over pipes.
//!
//! Time is virtual and passes only while no task can run.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request as HttpRequest, StatusCode};
use kubestream::exec::{self, ExecServer, Streams};
use kubestream::mux::{Config as MuxConfig, Multiplexer};
use kubestream::portforward::{PortForward as Client, Request};
use kubestream::protocol::Subprotocol;
use kubestream::status::ExitStatus;
use kubestream::upgrade::{self, Protocol, UpgradeError, Version};
use kubestream_runtime::{Error, Runtime, RuntimeConfig, Server};
use support::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Repeats what it was asked. The command `hold` runs until its client leaves, which is counted.
#[derive(Default)]
struct Parrot {
    gone: Arc<AtomicUsize>,
    discarded: Arc<AtomicUsize>,
}

impl Runtime for Parrot {
    async fn exec(
        &self,
        container_id: String,
        command: Vec<String>,
        _: Streams,
        mut session: ExecServer,
    ) -> Result<(), exec::Error> {
        if command == ["panic"] {
            panic!("as runtimes do");
        }
        if command == ["fail"] {
            return Err(exec::Error::MissingStatus);
        }
        if command == ["hold"] {
            session.client_gone().await;
            self.gone.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let said = format!("{container_id}: {}", command.join(" "));
        session.stdout.as_mut().unwrap().write_all(said.as_bytes()).await.unwrap();
        session.exit(ExitStatus::Code(7)).await
    }

    async fn attach(&self, container_id: String, _: Streams, mut session: ExecServer) -> Result<(), exec::Error> {
        let mut typed = String::new();
        session.stdin.take().unwrap().read_to_string(&mut typed).await.unwrap();
        let said = format!("{container_id} heard {typed}");
        session.stdout.as_mut().unwrap().write_all(said.as_bytes()).await.unwrap();
        session.exit(ExitStatus::Success).await
    }

    async fn port_forward(&self, sandbox: &str, request: Request) {
        if request.port() == 1 {
            return request.fail("closed");
        }
        let said = format!("{sandbox}:{}", request.port());
        let mut connection = request.accept();
        if connection.port() == 9 {
            // Reads everything, slowly.
            while let Some(Ok(data)) = connection.data().await {
                self.discarded.fetch_add(data.len(), Ordering::Relaxed);
                sleep(Duration::from_millis(50)).await;
            }
            return connection.finish();
        }
        connection.send(said.into()).await.unwrap();
        connection.finish();
    }
}

fn server() -> (Server<Parrot>, Arc<AtomicUsize>) {
    let parrot = Parrot::default();
    let gone = Arc::clone(&parrot.gone);
    (Server::new(parrot, "http://10.0.0.1:10010/cri/", RuntimeConfig::default()).unwrap(), gone)
}

type Served = JoinHandle<Result<(), Error>>;

/// A connection to the server.
fn dial(server: &Server<Parrot>) -> (DuplexStream, Served) {
    let (near, far) = duplex(64 * 1024);
    let server = server.clone();
    (near, tokio::spawn(async move { server.serve(far).await }))
}

async fn connect(
    server: &Server<Parrot>,
    url: &str,
    protocol: Protocol,
) -> (Result<Multiplexer, UpgradeError>, Served) {
    let (io, served) = dial(server);
    let request = HttpRequest::get(url).body(()).unwrap();
    let upgraded = upgrade::connect(io, request, &[protocol], &upgrade::Config::default()).await;
    let mux = upgraded.map(|upgraded| {
        let (mux, driver) = Multiplexer::client(upgraded, MuxConfig::default());
        tokio::spawn(driver);
        mux
    });
    (mux, served)
}

async fn status(server: &Server<Parrot>, url: &str) -> StatusCode {
    match connect(server, url, Protocol::SpdyExec(Version::V4)).await.0 {
        Err(UpgradeError::Refused { response, .. }) => response.status(),
        other => panic!("{other:?}"),
    }
}

const CARRIERS: [Protocol; 3] = [
    Protocol::SpdyExec(Version::V4),
    Protocol::WebSocketExec(Subprotocol::V5),
    Protocol::WebSocketExec(Subprotocol::V4Base64),
];

#[tokio::test(start_paused = true)]
async fn a_url_runs_its_command_over_either_transport() {
    let (server, _) = server();
    for protocol in CARRIERS {
        let url = server.exec_url("c0ffee", ["say", "hello"], Streams::OUTPUT).unwrap();
        assert!(url.starts_with("http://10.0.0.1:10010/cri/exec/"), "{url}");
        let (mux, served) = connect(&server, &url, protocol).await;
        let output = mux.unwrap().exec(Streams::OUTPUT).await.unwrap().wait_with_output(100).await.unwrap();
        assert_eq!((&output.stdout[..], output.status.code()), (&b"c0ffee: say hello"[..], Some(7)), "{protocol}");
        served.await.unwrap().unwrap();
    }
    assert_eq!(server.serving(), 0);
}

/// The URL is a secret, so only a client that was given it has it, whatever `Origin` that client or its browser sends.
#[tokio::test(start_paused = true)]
async fn a_url_is_good_for_a_page_of_any_origin() {
    let (server, _) = server();
    let url = server.exec_url("c0ffee", ["say"], Streams::OUTPUT).unwrap();
    let (io, _served) = dial(&server);
    let request = HttpRequest::get(url).header("Origin", "https://console.example").body(()).unwrap();
    let offers = [Protocol::WebSocketExec(Subprotocol::V5)];
    let upgraded = upgrade::connect(io, request, &offers, &upgrade::Config::default()).await.unwrap();
    assert_eq!(upgraded.protocol(), Some(offers[0]));
}

#[tokio::test(start_paused = true)]
async fn a_url_attaches_and_forwards() {
    let (server, _) = server();
    let want = Streams { stdin: true, ..Streams::OUTPUT };
    for protocol in &CARRIERS[..2] {
        let url = server.attach_url("c0ffee", want).unwrap();
        let (mux, served) = connect(&server, &url, *protocol).await;
        let mut exec = mux.unwrap().exec(want).await.unwrap();
        exec.stdin.as_mut().unwrap().write_all(b"hello").await.unwrap();
        assert_eq!(exec.wait_with_output(100).await.unwrap().stdout, "c0ffee heard hello");
        served.await.unwrap().unwrap();
    }
    for protocol in [Protocol::TunneledPortForward, Protocol::SpdyPortForward] {
        let url = server.port_forward_url("sandbox", &[]).unwrap();
        let (mux, served) = connect(&server, &url, protocol).await;
        let client = Client::new(mux.unwrap()).unwrap();
        for port in [80, 81] {
            let mut said = String::new();
            client.connect(port).await.unwrap().read_to_string(&mut said).await.unwrap();
            assert_eq!(said, format!("sandbox:{port}"));
        }
        assert_eq!(client.connect(1).await.unwrap_err().to_string(), "port 1: the server reports a failure: closed");
        drop(client);
        served.await.unwrap().unwrap();
    }
}

/// A legacy port-forward request names its ports. The runtime gets them from the kubelet or, without that, from the
/// URL.
#[tokio::test(start_paused = true)]
async fn a_url_forwards_the_ports_that_the_kubelet_has_named() {
    let (server, _) = server();
    for (ports, query) in [(vec![80, 1, 81], "?port=80,1,81"), (vec![], "?port=80,1&ports=81"), (vec![80], "?port=1")] {
        let url = server.port_forward_url("sandbox", &ports).unwrap() + query;
        let (mux, served) = connect(&server, &url, Protocol::LegacyPortForward(Subprotocol::V4)).await;
        let client = Client::new(mux.unwrap()).unwrap();
        if ports == [80] {
            // A client that asks for another port than the kubelet has named is not connected.
            assert!(client.connect(1).await.is_err());
            drop(client);
            served.await.unwrap().unwrap();
            continue;
        }
        for port in [80, 81] {
            let mut said = [0; 10];
            client.connect(port).await.unwrap().read_exact(&mut said).await.unwrap();
            assert_eq!(said, format!("sandbox:{port}").as_bytes());
        }
        let mut refused = client.connect(1).await.unwrap();
        assert_eq!(
            refused.data().await.unwrap().unwrap_err().to_string(),
            "port 1: the server reports a failure: closed"
        );
        drop((client, refused));
        served.await.unwrap().unwrap();
    }
}

/// Row 46.
#[tokio::test(start_paused = true)]
async fn a_token_is_good_once_for_a_minute_and_for_what_it_was_given_for() {
    let (server, _) = server();
    let url = || server.exec_url("c", ["x"], Streams::OUTPUT).unwrap();
    let once = url();
    let (mux, _served) = connect(&server, &once, CARRIERS[0]).await;
    mux.unwrap();
    assert_eq!(status(&server, &once).await, StatusCode::NOT_FOUND, "used");
    let late = url();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(status(&server, &late).await, StatusCode::NOT_FOUND, "expired");
    let other = url();
    assert_eq!(status(&server, &other.replace("/exec/", "/attach/")).await, StatusCode::NOT_FOUND, "another kind");
    assert_eq!(status(&server, &other).await, StatusCode::NOT_FOUND, "which has used it up");
    for path in ["/cri/exec/", "/cri/exec", "/exec/AAAA", "/cri/exec/AAAA", "/", "/cri/"] {
        assert_eq!(status(&server, &format!("http://a{path}")).await, StatusCode::NOT_FOUND, "{path}");
    }
    // A request without an upgrade also uses the token up.
    let plain = url();
    let (mut io, served) = dial(&server);
    let path = plain.strip_prefix("http://10.0.0.1:10010").unwrap();
    io.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(matches!(served.await.unwrap(), Err(Error::Upgrade(UpgradeError::NotAnUpgrade))));
    assert_eq!(status(&server, &plain).await, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_random_and_a_thousand_at_a_time() {
    let (server, _) = server();
    let url = || server.exec_url("c", ["x"], Streams::OUTPUT);
    let urls: HashSet<String> = (0..1000).map(|_| url().unwrap()).collect();
    assert_eq!(urls.len(), 1000);
    // 128 bits.
    assert!(urls.iter().all(|url| url.rsplit('/').next().unwrap().len() == 22));
    // No place has the same value in all tokens: in a thousand tokens nearly all of the 64 values of six bits occur.
    for at in 0..21 {
        let seen: HashSet<u8> = urls.iter().map(|url| url.rsplit('/').next().unwrap().as_bytes()[at]).collect();
        assert!(seen.len() > 32, "{} values at {at}", seen.len());
    }
    let full = url().unwrap_err();
    assert!(matches!(full, Error::TooMany));
    let response = full.to_response();
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &http::HeaderValue::from_static("60"))
    );
    assert_eq!(
        status(&server, &urls.iter().next().unwrap().replace("/exec/", "/attach/")).await,
        StatusCode::NOT_FOUND
    );
    url().unwrap();
    assert!(url().is_err());
    sleep(Duration::from_secs(61)).await;
    assert!((0..1000).all(|_| url().is_ok()), "the others have expired");
    assert!(!format!("{server:?}").contains("exec/"), "no token is shown");
}

#[test]
fn what_cannot_be_is_refused_in_gos_words() {
    let (server, _) = server();
    let exec = |container: &str, streams| server.exec_url(container, ["x"], streams).unwrap_err();
    let tty = Streams { tty: true, ..Streams::PIPES };
    assert_eq!(exec("", Streams::OUTPUT).to_string(), "missing required container_id");
    assert_eq!(exec("c", tty).to_string(), "tty and stderr cannot both be true");
    assert_eq!(exec("c", Streams::default()).to_string(), "one of stdin, stdout, or stderr must be set");
    let attach = server.attach_url("c", tty).unwrap_err();
    assert_eq!(attach.to_response().status(), StatusCode::BAD_REQUEST);
    let forward = server.port_forward_url("", &[]).unwrap_err();
    assert_eq!(forward.to_string(), "missing required pod_sandbox_id");
    for base in ["", "10.0.0.1:80", "ftp://a", "http://", "http://a?b=c", "http://a#b", "http://user:secret@a"] {
        assert!(Server::new(Parrot::default(), base, RuntimeConfig::default()).is_err(), "{base:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_runtime_is_told_at_once_that_its_client_is_gone() {
    let (server, gone) = server();
    for (number, protocol) in CARRIERS.into_iter().enumerate() {
        let url = server.exec_url("c", ["hold"], Streams::PIPES).unwrap();
        let (mux, served) = connect(&server, &url, protocol).await;
        let exec = mux.unwrap().exec(Streams::PIPES).await.unwrap();
        assert_eq!((server.serving(), gone.load(Ordering::Relaxed)), (1, number));
        drop(exec);
        let began = tokio::time::Instant::now();
        until(|| gone.load(Ordering::Relaxed) > number).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{protocol}");
        served.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_streams_never_come_is_given_up() {
    let (server, _) = server();
    let url = server.exec_url("c", ["hold"], Streams::PIPES).unwrap();
    let (_mux, served) = connect(&server, &url, CARRIERS[0]).await;
    let error = served.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Session(exec::Error::CreationTimeout { .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn draining_begins_nothing_and_waits_for_what_runs_and_stopping_ends_it() {
    let (server, _gone) = server();
    let held = server.exec_url("c", ["hold"], Streams::PIPES).unwrap();
    let unused = server.exec_url("c", ["x"], Streams::PIPES).unwrap();
    let (mux, served) = connect(&server, &held, CARRIERS[1]).await;
    let _exec = mux.unwrap().exec(Streams::PIPES).await.unwrap();
    let mut draining = Box::pin(server.drain());
    assert!(draining.as_mut().now_or_never().is_none());
    let refused = server.exec_url("c", ["x"], Streams::PIPES).unwrap_err();
    assert_eq!(refused.to_response().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(&server, &unused).await, StatusCode::SERVICE_UNAVAILABLE);
    sleep(Duration::from_secs(100)).await;
    assert!(draining.as_mut().now_or_never().is_none(), "it waits");
    server.stop();
    draining.await;
    assert!(matches!(served.await.unwrap(), Err(Error::Stopping)));
    assert_eq!(server.serving(), 0);
}

/// client-go takes an end without a status for success, so it must be told.
#[tokio::test(start_paused = true)]
async fn a_session_that_its_runtime_lets_go_has_failed() {
    for protocol in
        [Protocol::SpdyExec(Version::V1), Protocol::SpdyExec(Version::V4), Protocol::WebSocketExec(Subprotocol::V5)]
    {
        for how in ["fail", "panic", "hold"] {
            let (server, _gone) = server();
            let url = server.exec_url("c", [how], Streams::OUTPUT).unwrap();
            let (mux, served) = connect(&server, &url, protocol).await;
            let exec = mux.unwrap().exec(Streams::OUTPUT).await.unwrap();
            if how == "hold" {
                sleep(Duration::from_secs(1)).await;
                server.stop();
            }
            let status = match exec.wait_with_output(100).await {
                Ok(output) => output.status,
                Err(exec::Error::Incomplete { status, .. }) if how == "panic" => status,
                Err(error) => panic!("{how}: {error}"),
            };
            assert!(status.to_string().contains("the server let the session go"), "{how}: {status}");
            match (how, served.await) {
                ("panic", ended) => assert!(ended.unwrap_err().is_panic()),
                (_, ended) => assert!(ended.unwrap().is_err(), "{how}"),
            }
            assert_eq!(server.serving(), 0);
        }
    }
}

/// A client's orderly end dropped the runtime's futures, with what they had not read yet.
#[tokio::test(start_paused = true)]
async fn what_an_orderly_client_has_sent_is_read_to_its_end() {
    let parrot = Parrot::default();
    let discarded = Arc::clone(&parrot.discarded);
    let server = Server::new(parrot, "http://a", RuntimeConfig::default()).unwrap();
    let url = server.port_forward_url("sandbox", &[]).unwrap();
    let (mux, served) = connect(&server, &url, Protocol::SpdyPortForward).await;
    let mux = mux.unwrap();
    let client = Client::new(mux.clone()).unwrap();
    let mut connection = client.connect(9).await.unwrap();
    connection.write_all(&[0; 200_000]).await.unwrap();
    connection.shutdown().await.unwrap();
    drop((connection, client));
    mux.shutdown().await.unwrap();
    served.await.unwrap().unwrap();
    assert_eq!(discarded.load(Ordering::Relaxed), 200_000);
}

/// A lock was held while the runtime's future was dropped.
#[tokio::test(start_paused = true)]
async fn a_runtime_may_ask_the_server_while_it_is_being_stopped() {
    #[derive(Clone, Default)]
    struct Asks(Arc<std::sync::OnceLock<Server<Self>>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            if let Some(server) = self.0.get() {
                server.stop();
            }
        }
    }
    impl Runtime for Asks {
        async fn exec(&self, _: String, _: Vec<String>, _: Streams, session: ExecServer) -> Result<(), exec::Error> {
            let _asks = self.clone();
            std::future::pending::<()>().await;
            session.exit(ExitStatus::Success).await
        }
        async fn attach(&self, _: String, _: Streams, session: ExecServer) -> Result<(), exec::Error> {
            session.exit(ExitStatus::Success).await
        }
        async fn port_forward(&self, _: &str, _: Request) {}
    }
    let asks = Asks::default();
    let server = Server::new(asks.clone(), "http://a", RuntimeConfig::default()).unwrap();
    asks.0.set(server.clone()).unwrap();
    let path = server.exec_url("c", ["x"], Streams::OUTPUT).unwrap();
    let (near, far) = duplex(64 * 1024);
    let served = tokio::spawn({
        let server = server.clone();
        async move { server.serve(far).await }
    });
    let request = HttpRequest::get(path).body(()).unwrap();
    let upgraded = upgrade::connect(near, request, &[CARRIERS[0]], &upgrade::Config::default()).await.unwrap();
    let (mux, driver) = Multiplexer::client(upgraded, MuxConfig::exec());
    tokio::spawn(driver);
    let session = mux.exec(Streams::OUTPUT).await.unwrap();
    server.stop();
    server.drain().await;
    assert!(matches!(served.await.unwrap(), Err(Error::Stopping)));
    drop((session, mux));
}

#[tokio::test(start_paused = true)]
async fn a_token_for_ever_is_good() {
    let mut config = RuntimeConfig::default();
    config.token_ttl = Duration::MAX;
    let server = Server::new(Parrot::default(), "http://a", config).unwrap();
    let url = server.exec_url("c", ["x"], Streams::OUTPUT).unwrap();
    sleep(Duration::from_secs(365 * 24 * 60 * 60)).await;
    connect(&server, &url, CARRIERS[0]).await.0.unwrap();
}
