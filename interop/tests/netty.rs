//! netty's SPDY, which has windows for the session and for each stream, in both roles: the scenarios of the suite's
//! README. The harness counts the windows by itself.
//!
//! netty has windows but announces them only if it is told to. `Strict` is for such peers. `Auto` cannot tell netty
//! from a server whose SETTINGS limit the streams and which never grants a window, such as those of spdystream-rs.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use kubestream::mux::{Config, FlowControl, Multiplexer, RecvHalf, SendHalf, Stream};
use kubestream::mux::{Headers, RstStatus};
use kubestream::upgrade::Upgraded;
use kubestream::{ConnectionError, StreamError};
use kubestream_interop::matrix::{self, Foreign, Over, Proof, client_of, server_for};
use kubestream_interop::{
    Ended, Input, Peer, Watched, Windows, digest, java, pattern, read_all, read_pattern, run, send_pattern, serve,
    within,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

const BYTES: usize = 300_000;
/// The size of each of netty's windows until it announces another, and always that of the session.
const WINDOW: usize = 64 * 1024;
const SMALL: usize = 16 * 1024;
/// netty's MAX_CONCURRENT_STREAMS.
const AT_ONCE: usize = 100;

/// Our mode, and the window that netty announces, if any.
const MODES: [(FlowControl, Option<usize>); 3] =
    [(FlowControl::Strict, None), (FlowControl::Strict, Some(SMALL)), (FlowControl::Auto, Some(SMALL))];

fn config(flow_control: FlowControl) -> Config {
    let mut config = Config::default();
    config.spdy.flow_control = flow_control;
    config
}

fn announcing(window: Option<usize>) -> Vec<String> {
    window.map_or_else(Vec::new, |window| vec!["--window".to_owned(), window.to_string()])
}

/// Proves cases of a netty server.
fn proves(cases: &str) -> Proof {
    matrix::proves(cases).with(Foreign::Netty, server_for("`mux`"), [Over::RawSpdy])
}

/// Our connection to a netty server.
struct Dialled {
    server: Peer,
    mux: Multiplexer,
    windows: Arc<Mutex<Windows>>,
}

impl Dialled {
    async fn new(config: Config, window: Option<usize>) -> Self {
        let arguments = announcing(window);
        let server = Peer::netty(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        Self::at(server, config).await
    }

    async fn at(server: Peer, config: Config) -> Self {
        let tcp = TcpStream::connect(server.address()).await.expect("a connection");
        tcp.set_nodelay(true).expect("a socket");
        let (io, windows) = Watched::new(tcp);
        let (mux, driver) = Multiplexer::client(Upgraded::from_io(io), config);
        tokio::spawn(driver);
        Self { server, mux, windows }
    }

    async fn open(&self, scenario: &str, length: usize) -> Stream {
        let headers = Headers::from_iter([("scenario", scenario), ("bytes", &length.to_string())]);
        self.mux.open(headers).await.expect("a stream")
    }

    async fn opened(&self, scenario: &str, length: usize) -> (RecvHalf, SendHalf) {
        let mut stream = self.open(scenario, length).await;
        let answer = within("the reply", stream.answered()).await.expect("a reply");
        assert_eq!(answer.get("x-peer"), Some("netty"));
        stream.split()
    }

    async fn echo(&self, length: usize) -> Result<(), StreamError> {
        let (mut recv, mut send) = self.open("echo", length).await.split();
        let both = async { tokio::try_join!(send_pattern(&mut send, length), read_pattern(&mut recv, length)) };
        within("the echo", both).await.map(|_| ())
    }

    /// Ends it in an orderly way, and checks that netty found nothing wrong but these resets. Returns netty's report
    /// and the windows.
    async fn end(mut self, resets: &[&str]) -> (Peer, Value, Arc<Mutex<Windows>>) {
        within("the end", self.mux.shutdown()).await.expect("an orderly end");
        let report = self.server.report();
        assert_eq!(report["received"]["GOAWAY OK"], 1, "{report}");
        assert_nothing_was_wrong(&report, resets);
        (self.server, report, self.windows)
    }
}

/// Checks that netty reset only the streams that a scenario wants, and ended no session with an error.
fn assert_nothing_was_wrong(report: &Value, resets: &[&str]) {
    assert_eq!(report["wrong"], "", "{report}");
    assert!(report["received"]["BAD_HEADERS"].is_null(), "{report}");
    let sent = report["sent"].as_object().expect("counts");
    let said = |what: &str| sent.keys().filter(|key| key.starts_with(what)).map(String::as_str).collect::<Vec<_>>();
    assert_eq!(said("RST_STREAM"), resets, "{report}");
    assert!(said("GOAWAY").iter().all(|&away| away == "GOAWAY OK"), "{report}");
}

/// Checks that no window was overdrawn, and that both sides granted what the other needed.
fn assert_windows_were_obeyed(windows: &Mutex<Windows>, sent: usize, received: usize, announced: bool) {
    let windows = windows.lock().expect("the account");
    assert_eq!((windows.sent, windows.received), (sent, received), "{windows:?}");
    assert!(windows.lowest >= 0, "a window was overdrawn: {windows:?}");
    assert_eq!(windows.announced, announced, "{windows:?}");
    assert!(windows.granted_to_us >= sent.saturating_sub(WINDOW) as u64, "{windows:?}");
    assert!(windows.granted_by_us >= received.saturating_sub(WINDOW) as u64, "{windows:?}");
}

/// Both directions at once, and one direction at a time, where nothing from the other side shows that there are
/// windows.
#[tokio::test]
async fn windows_are_obeyed_and_granted_as_the_opener() {
    let _proof = proves(
        "300 KB there and back, and each way alone: `Strict`, windows of 64 KiB and 16 KiB, and `Auto`, where it announces them",
    );
    for (flow_control, window) in MODES {
        let what = format!("{flow_control:?}, {window:?}");
        let announced = window.is_some();
        let dialled = Dialled::new(config(flow_control), window).await;
        // Until then Auto cannot know of the windows, and Strict may not know that one is smaller.
        dialled.mux.ping().await.expect("its SETTINGS came before the answer");
        dialled.echo(BYTES).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let (server, _, windows) = dialled.end(&[]).await;
        assert_windows_were_obeyed(&windows, BYTES, BYTES, announced);

        let dialled = Dialled::at(server, config(flow_control)).await;
        dialled.mux.ping().await.expect("its SETTINGS came before the answer");
        let (mut recv, mut send) = dialled.opened("sink", 0).await;
        within("all is sent", send_pattern(&mut send, BYTES)).await.expect("it is taken");
        let answer = within("the digest", read_all(&mut recv)).await.expect("a digest");
        assert_eq!(String::from_utf8_lossy(&answer), digest(&pattern(BYTES)), "{what}");
        drop((recv, send));
        let (server, _, windows) = dialled.end(&[]).await;
        assert_windows_were_obeyed(&windows, BYTES, answer.len(), announced);

        let dialled = Dialled::at(server, config(flow_control)).await;
        let (mut recv, mut send) = dialled.opened("source", BYTES).await;
        send.finish();
        within("the end", read_pattern(&mut recv, BYTES)).await.expect("the pattern");
        drop((recv, send));
        let (_, _, windows) = dialled.end(&[]).await;
        assert_windows_were_obeyed(&windows, 0, BYTES, announced);
    }
}

#[tokio::test]
async fn everything_comes_after_our_half_close() {
    let _proof = proves("half-close");
    let dialled = Dialled::new(config(FlowControl::Strict), None).await;
    let (mut recv, mut send) = dialled.opened("half-close", BYTES).await;
    for piece in pattern(BYTES).chunks(1000) {
        send.send(Bytes::copy_from_slice(piece)).await.expect("it is taken");
    }
    // The answer to the PING comes after anything that the server would have sent.
    dialled.mux.ping().await.expect("an answer");
    assert!(recv.data().now_or_never().is_none(), "the server answered before our FIN");
    send.finish();
    within("the answer", read_pattern(&mut recv, BYTES)).await.expect("all of it");
    drop((recv, send));
    dialled.end(&[]).await;
}

#[tokio::test]
async fn resets_and_refusals_are_known_and_the_connection_lives_on() {
    let _proof = proves("reset; reset of ours; refuse");
    let dialled = Dialled::new(config(FlowControl::Strict), None).await;
    let (mut recv, mut send) = dialled.opened("reset", 0).await;
    send.send(Bytes::from_static(b"to be reset")).await.expect("it is taken");
    let end = within("the reset", recv.data()).await;
    assert!(matches!(end, Some(Err(StreamError::Reset(RstStatus::CANCEL)))), "{end:?}");
    let sent = send.send(Bytes::from_static(b"more")).await;
    assert!(matches!(sent, Err(StreamError::Reset(_))), "{sent:?}");

    let mut stream = dialled.open("refuse", 0).await;
    let answer = within("the refusal", stream.answered()).await;
    assert!(matches!(answer, Err(StreamError::Reset(RstStatus::REFUSED_STREAM))), "{answer:?}");

    // One reset is ours: netty forgets the stream, with what it still had to send.
    let (mut recv, send) = dialled.opened("source", 10 * BYTES).await;
    within("its first bytes", recv.data()).await.expect("a beginning").expect("data");
    send.reset(RstStatus::CANCEL);
    drop(recv);
    dialled.echo(BYTES).await.expect("an echo");
    drop(stream);
    let (_, report, _) = dialled.end(&["RST_STREAM CANCEL", "RST_STREAM REFUSED_STREAM"]).await;
    assert_eq!(report["received"]["RST_STREAM CANCEL"], 1, "{report}");
}

#[tokio::test]
async fn pings_are_answered_both_ways() {
    let _proof = proves("PING");
    let dialled = Dialled::new(config(FlowControl::Strict), None).await;
    for _ in 0..10 {
        within("an answer", dialled.mux.ping()).await.expect("an answer");
    }
    let (mut recv, mut send) = dialled.opened("ping", 0).await;
    send.finish();
    let answer = within("its pings", read_all(&mut recv)).await.expect("an answer");
    assert_eq!(answer, b"10 pings");
    drop((recv, send));
    let (_, report, _) = dialled.end(&[]).await;
    // Ten of our PINGs and ten of netty's, each with its answer.
    assert_eq!((&report["received"]["Ping"], &report["sent"]["Ping"]), (&json!(20), &json!(20)), "{report}");
}

#[tokio::test]
async fn what_was_sent_before_a_goaway_is_read_and_nothing_is_opened_after_it() {
    let _proof = proves("GOAWAY");
    let mut dialled = Dialled::new(config(FlowControl::Strict), None).await;
    let (mut recv, mut send) = dialled.opened("goaway", BYTES).await;
    send.finish();
    within("the end", read_pattern(&mut recv, BYTES)).await.expect("the pattern");
    drop((recv, send));
    within("the GOAWAY", dialled.mux.closed()).await.expect("an orderly end");
    let refused = dialled.mux.open(Headers::new()).await;
    assert!(matches!(refused, Err(ConnectionError::GoneAway { .. } | ConnectionError::Closed)), "{refused:?}");
    let report = dialled.server.report();
    assert_eq!(report["sent"]["GOAWAY OK"], 1, "{report}");
    assert_nothing_was_wrong(&report, &[]);
}

#[tokio::test]
async fn no_more_streams_are_opened_at_once_than_netty_takes() {
    let _proof = proves("no more than 100 streams at once, which is its limit");
    let dialled = Dialled::new(config(FlowControl::Strict), None).await;
    let mut open = Vec::new();
    for _ in 0..AT_ONCE {
        open.push(dialled.opened("echo", 0).await);
    }
    let mut one_more = Box::pin(dialled.opened("echo", 0));
    assert!(one_more.as_mut().now_or_never().is_none(), "the limit was passed");
    let (mut recv, mut send) = open.pop().expect("a stream");
    send.finish();
    let (rest, _) = within("a place", async { tokio::join!(read_all(&mut recv), one_more) }).await;
    assert_eq!(rest.expect("an end"), b"");
    drop((open, recv, send));
    let (_, report, _) = dialled.end(&[]).await;
    assert_eq!(report["received"]["SynStream"], AT_ONCE + 1, "{report}");
}

#[tokio::test]
async fn a_thousand_streams_carry_what_they_were_given() {
    let _proof = proves("1,000 streams");
    let dialled = Dialled::new(config(FlowControl::Strict), None).await;
    dialled.mux.ping().await.expect("its SETTINGS came before the answer");
    let echoes = stream::iter((0..1000).map(|number| dialled.echo(1 + number * 7)));
    echoes.buffer_unordered(3 * AT_ONCE).try_collect::<()>().await.expect("echoes");
    assert_eq!(dialled.mux.stats().streams, 0);
    let (_, _, windows) = dialled.end(&[]).await;
    let bytes = (0..1000).map(|number| 1 + number * 7).sum();
    assert_windows_were_obeyed(&windows, bytes, bytes, false);
}

/// Blocks of every size in sequence. The state of each compressor and inflater carries over from block to block.
#[tokio::test]
async fn headers_come_back_as_they_were_sent() {
    let _proof = proves("headers of every size, compressed and not");
    let mut server = Peer::netty(&[]);
    for compress_headers in [true, false] {
        let mut config = config(FlowControl::Strict);
        config.spdy.compress_headers = compress_headers;
        let dialled = Dialled::at(server, config).await;
        for number in 0..10 {
            let mut sent = Headers::from_iter([("scenario", "headers"), ("bytes", "0"), (":path", "/headers")]);
            for name in 0..=number * 10 {
                sent.append(&format!("name-{name}"), format!("value {}", name * number).as_bytes());
            }
            sent.append("long", "x".repeat(number * 500).as_bytes());
            sent.append("many", b"one");
            sent.append("many", b"two");
            sent.append("last", b"");
            let mut stream = dialled.mux.open(sent.clone()).await.expect("a stream");
            let came = within("the reply", stream.answered()).await.expect("a reply");
            assert_eq!(came, sent, "{compress_headers:?}, block {number}");
            stream.finish();
            assert!(within("the end", stream.data()).await.is_none());
        }
        (server, ..) = dialled.end(&[]).await;
    }
}

/// Their client against our server: every scenario on a connection of its own.
async fn accept_from_netty(flow_control: FlowControl, window: Option<usize>) {
    const SCENARIOS: [&str; 11] = [
        "echo",
        "half-close",
        "reset",
        "refuse",
        "source",
        "sink",
        "ping",
        "server-ping",
        "thousand",
        "headers",
        "goaway",
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let mut dial = java("Netty");
    dial.args(announcing(window)).arg("dial").arg(listener.local_addr().expect("an address").to_string());
    dial.arg(BYTES.to_string()).args(SCENARIOS);
    let accounts = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&accounts);
    let acceptor = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            tcp.set_nodelay(true).expect("a socket");
            let (io, windows) = Watched::new(tcp);
            kept.lock().expect("the accounts").push(windows);
            tokio::spawn(serve(io, config(flow_control)));
        }
    });
    let Ended { code, stdout, stderr } = run(dial, Input::Null).await;
    acceptor.abort();
    let stdout = String::from_utf8_lossy(&stdout);
    let results: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let what = format!("{flow_control:?}, {window:?}: {results:#?}, {stderr}");
    assert_eq!((results.len(), code), (SCENARIOS.len(), Some(0)), "{what}");
    for (scenario, result) in SCENARIOS.iter().zip(&results) {
        assert_eq!((&result["scenario"], &result["ok"]), (&json!(scenario), &json!(true)), "{what}");
        assert_nothing_was_wrong(result, &[]);
    }
    let accounts = accounts.lock().expect("the accounts");
    for (scenario, windows) in SCENARIOS.iter().zip(&*accounts) {
        let answer = digest(&pattern(BYTES)).len();
        match *scenario {
            "echo" | "half-close" => assert_windows_were_obeyed(windows, BYTES, BYTES, window.is_some()),
            "source" => assert_windows_were_obeyed(windows, BYTES, 0, window.is_some()),
            "sink" => assert_windows_were_obeyed(windows, answer, BYTES, window.is_some()),
            _ => assert!(windows.lock().expect("the account").lowest >= 0, "{scenario}: {windows:?}"),
        }
    }
}

#[tokio::test]
async fn every_scenario_works_as_the_acceptor() {
    const ALL: &str = "300 KB there and back, `Strict` and `Auto`, windows of 64 KiB and 16 KiB; half-close; reset; refuse; source; sink; PING; \
        1,000 streams; headers; GOAWAY";
    let _proof = matrix::proves(ALL).with(Foreign::Netty, client_of("`mux`"), [Over::RawSpdy]);
    for (flow_control, window) in MODES {
        accept_from_netty(flow_control, window).await;
    }
}
