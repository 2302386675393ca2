//! moby/spdystream on raw TCP, in both roles: the scenarios of the suite's README.

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use kubestream::mux::{Config, Multiplexer, RecvHalf, SendHalf, Stream};
use kubestream::mux::{Headers, RstStatus};
use kubestream::upgrade::Upgraded;
use kubestream::{ConnectionError, StreamError};
use kubestream_interop::matrix::{self, Foreign, Over, Proof, client_of, server_for};
use kubestream_interop::{
    Input, Peer, binary, digest, pattern, read_all, read_pattern, run, send_pattern, serve, within,
};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const BYTES: usize = 300_000;
const SCENARIOS: usize = 10;

/// Proves cases of a spdystream server.
fn proves(cases: &str) -> Proof {
    matrix::proves(cases).with(Foreign::Spdystream, server_for("`mux`"), [Over::RawSpdy])
}

/// Their client against our server.
#[tokio::test]
async fn every_scenario_works_as_the_acceptor() {
    const ALL: &str = "echo; half-close; reset; refuse; source; sink; PING; GOAWAY; 1,000 streams";
    let _proof = matrix::proves(ALL).with(Foreign::Spdystream, client_of("`mux`"), [Over::RawSpdy]);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let mut dial = Command::new(binary("spdy-peer"));
    dial.arg("-dial").arg(listener.local_addr().expect("an address").to_string()).args(["-scenario", "all"]);
    let acceptor = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            tokio::spawn(serve(tcp, Config::default()));
        }
    });
    let ended = run(dial, Input::Null).await;
    acceptor.abort();
    let stdout = String::from_utf8_lossy(&ended.stdout);
    let results: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let failed: Vec<_> = results.iter().filter(|result| result["ok"] != true).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!((results.len(), ended.code), (SCENARIOS, Some(0)), "{}", ended.stderr);
}

/// Our connection to their server.
struct Dialled {
    mux: Multiplexer,
    // Serves one connection at a time, until it is dropped.
    _server: Peer,
}

impl Dialled {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(arguments: &[&str]) -> Self {
        let server = Peer::go("spdy-peer", &[&["-listen"], arguments].concat());
        let tcp = TcpStream::connect(server.address()).await.expect("a connection");
        let (mux, driver) = Multiplexer::client(Upgraded::from_io(tcp), Config::default());
        tokio::spawn(driver);
        Self { mux, _server: server }
    }

    async fn open(&self, scenario: &str, length: usize) -> Stream {
        let headers = Headers::from_iter([("scenario", scenario), ("bytes", &length.to_string())]);
        self.mux.open(headers).await.expect("a stream")
    }

    async fn opened(&self, scenario: &str, length: usize) -> (RecvHalf, SendHalf) {
        let mut stream = self.open(scenario, length).await;
        within("the reply", stream.answered()).await.expect("a reply");
        stream.split()
    }

    async fn echo(&self, length: usize) -> Result<(), StreamError> {
        let (mut recv, mut send) = self.open("echo", length).await.split();
        let both = async { tokio::try_join!(send_pattern(&mut send, length), read_pattern(&mut recv, length)) };
        within("the echo", both).await.map(|_| ())
    }
}

#[tokio::test]
async fn an_echo_is_the_same_bytes() {
    let _proof = proves("echo; GOAWAY");
    let dialled = Dialled::new().await;
    dialled.echo(BYTES).await.expect("an echo");
    within("the end", dialled.mux.shutdown()).await.expect("an orderly end");
}

#[tokio::test]
async fn everything_comes_after_our_half_close() {
    let _proof = proves("half-close");
    let dialled = Dialled::new().await;
    let (mut recv, mut send) = dialled.opened("half-close", BYTES).await;
    for piece in pattern(BYTES).chunks(1000) {
        send.send(Bytes::copy_from_slice(piece)).await.expect("it is taken");
    }
    // The answer to the PING comes after anything that the server would have sent.
    dialled.mux.ping().await.expect("an answer");
    assert!(recv.data().now_or_never().is_none(), "the server answered before our FIN");
    send.finish();
    within("the answer", read_pattern(&mut recv, BYTES)).await.expect("all of it");
}

#[tokio::test]
async fn a_reset_is_told_from_an_end_and_the_connection_lives_on() {
    let _proof = proves("reset");
    let dialled = Dialled::new().await;
    let (mut recv, mut send) = dialled.opened("reset", 0).await;
    send.send(Bytes::from_static(b"to be reset")).await.expect("it is taken");
    let end = within("the reset", recv.data()).await;
    assert!(matches!(end, Some(Err(StreamError::Reset(RstStatus::CANCEL)))), "{end:?}");
    let sent = send.send(Bytes::from_static(b"more")).await;
    assert!(matches!(sent, Err(StreamError::Reset(_))), "{sent:?}");
    dialled.echo(BYTES).await.expect("an echo");
}

#[tokio::test]
async fn a_refusal_is_known_and_the_connection_lives_on() {
    let _proof = proves("refuse");
    let dialled = Dialled::new().await;
    let mut stream = dialled.open("refuse", 0).await;
    let answer = within("the refusal", stream.answered()).await;
    assert!(matches!(answer, Err(StreamError::Reset(RstStatus::REFUSED_STREAM))), "{answer:?}");
    dialled.echo(BYTES).await.expect("an echo");
}

#[tokio::test]
async fn a_source_is_read_to_its_end() {
    let _proof = proves("source");
    let dialled = Dialled::new().await;
    let (mut recv, mut send) = dialled.opened("source", BYTES).await;
    send.finish();
    within("the end", read_pattern(&mut recv, BYTES)).await.expect("the pattern");
}

#[tokio::test]
async fn a_sink_gets_every_byte() {
    let _proof = proves("sink");
    let dialled = Dialled::new().await;
    let (mut recv, mut send) = dialled.opened("sink", BYTES).await;
    send_pattern(&mut send, BYTES).await.expect("it is taken");
    let answer = within("the digest", read_all(&mut recv)).await.expect("a digest");
    assert_eq!(String::from_utf8_lossy(&answer), digest(&pattern(BYTES)));
}

#[tokio::test]
async fn pings_are_answered_both_ways() {
    let _proof = proves("PING");
    let dialled = Dialled::new().await;
    for _ in 0..10 {
        within("an answer", dialled.mux.ping()).await.expect("an answer");
    }
    let (mut recv, mut send) = dialled.opened("ping", 0).await;
    send.finish();
    let answer = within("its pings", read_all(&mut recv)).await.expect("an answer");
    assert_eq!(answer, b"10 pings");
}

#[tokio::test]
async fn what_was_sent_before_a_goaway_is_read_and_nothing_is_opened_after_it() {
    let _proof = proves("GOAWAY");
    let dialled = Dialled::new().await;
    let (mut recv, mut send) = dialled.opened("goaway", BYTES).await;
    send.finish();
    within("the end", read_pattern(&mut recv, BYTES)).await.expect("the pattern");
    drop((recv, send));
    within("the GOAWAY", dialled.mux.closed()).await.expect("an orderly end");
    let refused = dialled.mux.open(Headers::new()).await;
    assert!(matches!(refused, Err(ConnectionError::GoneAway { .. } | ConnectionError::Closed)), "{refused:?}");
}

#[tokio::test]
async fn a_thousand_streams_carry_what_they_were_given() {
    let _proof = proves("1,000 streams");
    let dialled = Dialled::new().await;
    let echoes = stream::iter((0..1000).map(|number| dialled.echo(1 + number * 7)));
    echoes.buffer_unordered(100).try_collect::<()>().await.expect("echoes");
    assert_eq!(dialled.mux.stats().streams, 0);
    within("the end", dialled.mux.shutdown()).await.expect("an orderly end");
}

#[tokio::test]
async fn a_goaway_leaves_the_open_streams_alone() {
    let _proof = proves("open streams outlive a GOAWAY");
    // The server sends GOAWAY when the first stream is over.
    let dialled = Dialled::with(&["-goaway-after", "1"]).await;
    let (mut recv, mut send) = dialled.opened("echo", 0).await;
    let (mut first, mut finish) = dialled.opened("sink", 0).await;
    finish.finish();
    within("the end of the first", read_all(&mut first)).await.expect("a digest");

    send_pattern(&mut send, BYTES).await.expect("it is taken");
    within("the echo", read_pattern(&mut recv, BYTES)).await.expect("all of it");
    within("the end", dialled.mux.closed()).await.expect("an orderly end");
}
