//! The conformance runner against Go's servers: their known departures are noted, and there are no others.
//!
//! Lists the expected notes. An unknown departure is a failure in the runner, and so in these tests.

use std::collections::BTreeSet;

use kubestream::upgrade::Protocol;
use kubestream_interop::matrix::{Foreign, Over, client_of, hop_before, proves, server_for};
use kubestream_interop::{Peer, Scratch, app};
use serde_json::Value;
use tokio::process::Command;

/// The runner takes longer than most peers live.
const WATCHDOG: [&str; 2] = ["-watchdog", "900s"];
/// A tenth of the runner's default sizes.
const SIZE: [&str; 4] = ["--runs", "100", "--megabytes", "10"];

/// Runs the runner against a server, which must succeed, and returns its JSON.
async fn judged(server: &Peer, arguments: &[&str]) -> Value {
    let scratch = Scratch::new();
    let file = scratch.path().join("result.json");
    let mut command = Command::new(app("conformance"));
    command.args(["--server", server.address()]).args(arguments).args(SIZE).arg("--json").arg(&file);
    // Each case of the runner has a deadline of its own.
    let ended = command.kill_on_drop(true).output().await.expect("it runs");
    let [said, progress] = [&ended.stdout, &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(ended.status.success(), "{said}{progress}");
    let result = std::fs::read(&file).expect("a result");
    serde_json::from_slice(&result).expect("JSON")
}

/// The cells with that outcome, as case and column.
fn cells(result: &Value, word: &str) -> BTreeSet<(String, String)> {
    let mut cells = BTreeSet::new();
    for case in result["cases"].as_array().expect("cases") {
        for cell in case["results"].as_array().expect("results") {
            if cell["result"] == word {
                let text = |value: &Value| value.as_str().expect("a text").to_owned();
                cells.insert((text(&case["name"]), text(&cell["column"])));
            }
        }
    }
    cells
}

/// Checks that only these cases are noted. Some of them are races, and are not noted every time.
fn only(noted: &BTreeSet<(String, String)>, cases: &[&str]) {
    let others: Vec<_> = noted.iter().filter(|(case, _)| !cases.contains(&case.as_str())).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn cri_streaming_does_what_it_is_known_for_and_nothing_worse() {
    let over = [
        Over::SpdyV1,
        Over::SpdyV2,
        Over::SpdyV3,
        Over::SpdyV4,
        Over::WebSocket,
        Over::WebSocketV1,
        Over::WebSocketBase64,
        Over::WebSocketV4,
        Over::WebSocketV4Base64,
    ];
    let _proof = proves("all cases of the conformance runner, with what it is known for noted").with(
        Foreign::CriStreaming,
        server_for("`conformance`"),
        over,
    );
    let result = judged(&Peer::go("cri-server", &WATCHDOG), &["--kubelet"]).await;
    let noted = cells(&result, "note");
    let writing = ["input/unread", "ending/client-pings", "ending/client-grants", "ending/client-types"];
    only(&noted, &[&["requests/no-command", "flow/unread-stream"], &writing[..]].concat());
    for version in ["SPDY v1", "SPDY v2", "SPDY v3", "SPDY v4"] {
        let unread = ("flow/unread-stream".to_owned(), version.to_owned());
        assert!(noted.contains(&unread), "no windows, and no note: {noted:?}");
    }
    let absent = cells(&result, "not offered");
    for (case, column) in [("output/apart", "WS v5"), ("forward/echo", "WS tunnel")] {
        assert!(absent.contains(&(case.to_owned(), column.to_owned())), "{absent:?}");
    }
}

/// No foreign peer but the runner takes part, and its client is this library's. Our proxy must be as good as the node
/// behind it.
#[tokio::test]
async fn our_proxy_departs_in_nothing_from_the_node_behind_it() {
    let over = Protocol::ANY_EXEC.iter().chain(Protocol::ANY_PORT_FORWARD).copied();
    let _proof =
        proves("all cases of the conformance runner, but for flow/unread-stream where that translates to WebSocket")
            .with(Foreign::Bytes, client_of("`proxy`, however"), over);
    let all = ["--strict", "--only", "negotiation", "handshake", "requests", "output", "input", "status", "terminal"];
    let all = [&all[..], &["ending", "flow/concurrent", "flow/idle", "attach", "forward"]].concat();
    // Over WebSocket an unread output blocks the connection, also for a client that is translated to it.
    let with_unread = [&all[..], &["flow/unread-stream"]].concat();
    let node = Peer::node;
    let untouched = node().behind_proxy("--backend", &[]);
    let [spdy, websocket] = ["spdy", "websocket"].map(|to| node().behind_proxy("--backend", &["--translate", to]));
    tokio::join!(judged(&untouched, &with_unread), judged(&spdy, &with_unread), judged(&websocket, &all));
}

#[tokio::test]
async fn so_do_the_handlers_of_the_apiserver_in_front_of_it() {
    let _proof = proves("all cases of the conformance runner, with what they are known for noted").with(
        Foreign::Apiserver,
        hop_before("cri-streaming"),
        [Over::WebSocketV5, Over::Tunnel],
    );
    let result = judged(&Peer::go("translator", &WATCHDOG), &["--column", "WS v5", "WS tunnel"]).await;
    only(&cells(&result, "note"), &["input/unread", "ending/client-pings", "ending/client-types", "ending/orphan"]);
    assert!(cells(&result, "pass").contains(&("forward/half-close".to_owned(), "WS tunnel".to_owned())));
}
