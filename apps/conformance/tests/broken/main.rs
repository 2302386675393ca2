//! A server with one fault fails the cases that are about the fault, and no others.
//!
//! Holds which cases those are. A case that passes whatever a server does, or fails for another reason than its own,
//! shows here.

#![allow(clippy::expect_used)]

mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use conformance::cases::Case;
use conformance::column::{Column, Group};
use conformance::echo;
use conformance::run::{Report, run};
use conformance::scale::Scale;
use conformance::target::{Pod, Target};
use conformance::verdict::Departure;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::server::Fault;

/// Sizes that are large enough to show each fault.
fn scale() -> Scale {
    Scale {
        fast_exits: 8,
        megabytes: 1,
        exit_codes: 8,
        sessions: 4,
        connections: 6,
        tails: 2,
        parallel: 4,
        keepalive: Duration::from_millis(500),
        idle: server::TOO_LONG + Duration::from_secs(1),
        patience: Duration::from_secs(8),
        deadline: Duration::from_secs(40),
    }
}

/// One column of each kind. The other columns do not differ in anything that a fault touches.
const COLUMNS: [&str; 4] = ["SPDY v3", "SPDY v4", "WS v1", "WS v5"];

fn is_wanted(case: &Case, column: Column) -> bool {
    match case.group {
        Group::Handshake => true,
        Group::Exec => COLUMNS.contains(&column.name),
        Group::Forward => ["SPDY", "WS tunnel", "WS v4"].contains(&column.name),
    }
}

async fn judged(fault: Fault) -> Report {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(listener, fault));
    let pod = Pod {
        namespace: "default".into(),
        name: "broken".into(),
        container: None,
        attach: Some("main".into()),
        echo: Some(echo::serve(&mut tasks).await.expect("a port")),
        refused: echo::free_port().await.expect("a port"),
        takes_many: true,
    };
    let config = kube::Config::new(url.parse().expect("a URL"));
    let mut target = Target::new(&config, pod).expect("a target");
    target.strict = true;
    run(Arc::new(target), Arc::new(scale()), is_wanted, |_| {}).await
}

/// Checks which cells fail. Each entry is a case with its columns; an empty list stands for all columns in which the
/// case is tried.
async fn fails_in(fault: Fault, expected: &[(&str, &[&str])]) {
    let report = judged(fault).await;
    let mut wanted = BTreeSet::new();
    for (name, columns) in expected {
        let row = report.rows.iter().find(|row| row.case.name == *name).expect("no case of that name");
        let tried = row.cells.iter().filter(|cell| !matches!(cell.outcome, Err(Departure::NotOffered(_))));
        let meant = tried.filter(|cell| columns.is_empty() || columns.contains(&cell.column.name));
        wanted.extend(meant.map(|cell| (*name, cell.column.name)));
    }
    let failed: BTreeSet<_> = report.failures().map(|(case, cell)| (case.name, cell.column.name)).collect();
    let said: Vec<_> = report
        .failures()
        .map(|(case, cell)| format!("{}, {}: {:?}", case.name, cell.column.name, cell.outcome))
        .collect();
    assert_eq!(failed, wanted, "{fault:?}\n{}", said.join("\n"));
}

const ALL: &[&str] = &[];
const JSON: &[&str] = &["SPDY v4", "WS v5"];

#[tokio::test]
async fn a_server_without_a_fault_passes() {
    fails_in(Fault::None, &[]).await;
}

#[tokio::test]
async fn a_status_without_an_exit_code_is_seen_wherever_a_command_has_one() {
    let cases = [
        "output/apart",
        "output/streams",
        "output/fast-exit",
        "output/large",
        "input/large",
        "input/end",
        "input/unread",
        "status/codes",
        "status/signals",
        "terminal/is-one",
        "terminal/keys",
        "terminal/resize",
        "flow/concurrent",
        "flow/unread-stream",
        "flow/idle",
        "ending/client-pings",
        "ending/client-grants",
        "ending/client-types",
    ];
    let expected: Vec<_> = cases.iter().map(|case| (*case, JSON)).collect();
    // These two cases run over the newest version of each transport, which has JSON statuses.
    let expected = [&expected[..], &[("handshake/early-bytes", ALL), ("requests/tty-with-stderr", ALL)]].concat();
    fails_in(Fault::StatusWithoutDetails, &expected).await;
}

#[tokio::test]
async fn a_lost_tail_is_seen_in_whatever_is_long() {
    let long = ["output/large", "input/both-ways", "input/unread", "flow/unread-stream"];
    let ending = ["ending/client-pings", "ending/client-grants", "ending/client-types"];
    let expected: Vec<_> = long.iter().chain(&ending).map(|case| (*case, ALL)).collect();
    fails_in(Fault::LostTail, &expected).await;
}

#[tokio::test]
async fn stdin_without_an_end_is_seen_where_a_command_waits_for_it() {
    fails_in(Fault::EndlessStdin, &[("input/end", ALL)]).await;
}

#[tokio::test]
async fn outputs_that_are_one_are_seen_where_both_are_written() {
    let cases = ["output/apart", "output/streams", "output/fast-exit", "flow/concurrent", "flow/unread-stream"];
    let attach = ["attach/lines", "attach/again"];
    let expected: Vec<_> = cases.iter().chain(&attach).map(|case| (*case, ALL)).collect();
    fails_in(Fault::MergedOutputs, &expected).await;
}

#[tokio::test]
async fn exit_codes_of_seven_bits_are_seen_above_127() {
    fails_in(Fault::SevenBitCodes, &[("status/codes", ALL), ("status/signals", ALL)]).await;
}

#[tokio::test]
async fn a_terminal_that_keeps_its_size_is_seen() {
    fails_in(Fault::FixedTerminal, &[("terminal/resize", ALL)]).await;
}

#[tokio::test]
async fn a_server_that_prefers_for_itself_is_seen() {
    fails_in(Fault::OwnPreference, &[("negotiation/preference", ALL)]).await;
}

#[tokio::test]
async fn a_container_that_is_not_there_and_a_command_that_is_none_are_missed() {
    fails_in(Fault::AnyContainer, &[("requests/unknown-container", ALL)]).await;
    fails_in(Fault::AnyCommand, &[("requests/no-command", ALL)]).await;
}

#[tokio::test]
async fn bytes_that_are_dropped_with_the_request_are_missed() {
    fails_in(Fault::DropsEarlyBytes, &[("handshake/early-bytes", ALL)]).await;
}

#[tokio::test]
async fn two_sessions_at_a_time_are_too_few() {
    fails_in(Fault::TwoAtATime, &[("flow/concurrent", ALL)]).await;
}

#[tokio::test]
async fn a_status_that_waits_for_unread_stdin_is_missed() {
    fails_in(Fault::WaitsForStdin, &[("input/unread", ALL)]).await;
}

#[tokio::test]
async fn a_command_that_outlives_its_client_is_seen() {
    fails_in(Fault::KeepsOrphans, &[("ending/orphan", ALL)]).await;
}

#[tokio::test]
async fn a_silent_session_that_is_ended_is_missed() {
    // Over WebSocket an unread output blocks the other one too.
    let held_up: &[_] = &["WS v1", "WS v5"];
    let expected = [("flow/idle", ALL), ("forward/idle", ALL), ("flow/unread-stream", held_up)];
    fails_in(Fault::EndsTheIdle, &expected).await;
}

#[tokio::test]
async fn a_refused_port_that_takes_all_with_it_is_seen() {
    fails_in(Fault::RefusalEndsAll, &[("forward/refused", ALL)]).await;
}

#[tokio::test]
async fn a_forward_without_a_half_close_is_seen() {
    fails_in(Fault::NoHalfClose, &[("forward/half-close", ALL)]).await;
}

#[tokio::test]
async fn too_few_connections_are_seen() {
    // Legacy port-forward uses a session for each connection.
    fails_in(Fault::FewConnections, &[("forward/many", &["SPDY", "WS tunnel"])]).await;
}
