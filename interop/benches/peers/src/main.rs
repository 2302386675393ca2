//! Compares exec over WebSocket v5, and streams of bytes, through this library and through others, in the same rounds.
//!
//! `cargo run --release --package kubestream-peers` runs all cases, `-- to-server` some. `ROUNDS=9` sets the number of
//! rounds (default 5), and `--write` writes this program's section of docs/benchmarks.md. It is a crate of its own
//! because kube needs over a hundred other crates, which the tests should not have to build.

mod kube_rs;
mod messages;
mod streams;

use std::alloc::System;

use bench_support::chart::{Bar, Bars, bars};
use bench_support::judge::Bound::{RatioAtMost, Shown};
use bench_support::judge::Target;
use bench_support::load;
use bench_support::page::Chart;
use bench_support::program::{Group, Groups, Program};
use bench_support::table::{Case, Row, Sample, Table, run};
use bench_support::{Flavor, Outcome, Plan, raw, websocket};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const GROUPS: [(&str, Group); 5] =
    [("to-server", to_server), ("to-client", to_client), ("echo", echo), ("streams", streams), ("opens", opens)];

const PLAN: Plan = Plan { size: 32 * 1024, bytes: 512 << 20, streams: 1, copy_out: false, copy_in: false };
/// A smaller plan for slow peers. Ratios compare rates, so the size does not matter.
const SHORT: Plan = Plan { bytes: 128 << 20, ..PLAN };
/// The capacity of kube's pipes in bytes. Its default is 1 KiB.
const PIPE: Option<usize> = Some(256 * 1024);

fn main() -> Outcome<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    Program { section: "peers", groups: &GROUPS, targets: TARGETS, charts }.run(&wanted)
}

/// We should be 1.2 times as fast: the ratios here are those of the others to us.
const TARGETS: &[Target] = &[
    Target { table: "to the server", case: TUNGSTENITE, figure: "GB/s", bound: RatioAtMost(0.83) },
    Target { table: "to the client", case: TUNGSTENITE, figure: "GB/s", bound: RatioAtMost(0.83) },
    Target { table: "to the server", case: KUBE, figure: "GB/s", bound: RatioAtMost(0.83) },
    Target { table: "to the client", case: KUBE, figure: "GB/s", bound: RatioAtMost(0.83) },
    Target { table: "to the server", case: OURS, figure: "allocs/write", bound: Shown },
    Target { table: "to the server", case: TUNGSTENITE, figure: "allocs/write", bound: Shown },
    Target { table: "to the server", case: WEBSOCKETS, figure: "allocs/write", bound: Shown },
    Target { table: "to the server", case: KUBE, figure: "allocs/write", bound: Shown },
];

fn charts(groups: &Groups<'_>) -> Vec<Chart> {
    let bar = |row: &Row| {
        let value = row.figure("GB/s")?.value;
        Some(Bar { name: row.name.clone(), value, strong: row.name.ends_with(OURS) })
    };
    let of = |table: &Table| Bars { heading: table.title.clone(), bars: table.rows.iter().filter_map(bar).collect() };
    let has_bars = |table: &&Table| table.rows.iter().any(|row| row.figure("GB/s").is_some());
    let tables = || groups.iter().flat_map(|(_, tables)| tables).filter(has_bars);
    let peers: Vec<Bars> = tables().map(of).collect();
    let note = load::note(tables().map(|table| &table.conditions));
    let title = "Throughput beside other Rust libraries: median and range";
    let svg = bars(title, &note, "GB/s", &peers);
    vec![Chart { file: "throughput-peers.svg", about: "Throughput beside other Rust libraries".to_owned(), svg }]
}

/// The cases for both runtimes. Each case is compared with this library on the same runtime.
fn cases<const N: usize>(of: impl Fn(Flavor) -> [(&'static str, Measure); N]) -> Vec<Case> {
    let mut cases = Vec::new();
    for flavor in Flavor::ALL {
        let ours = flavor.name(OURS);
        for (name, measure) in of(flavor) {
            let base = (name != OURS).then_some(&ours[..]);
            cases.push(Case::new(flavor.name(name), base, measure));
        }
    }
    cases
}

type Measure = Box<dyn Fn() -> Outcome<Sample>>;
const OURS: &str = "ours";
const RAW: &str = "raw TCP";
const TUNGSTENITE: &str = "tungstenite";
const WEBSOCKETS: &str = "tokio-websockets";
const KUBE: &str = "kube, our server";
const H2: &str = "h2, windows of 1 MiB";
const YAMUX: &str = "yamux";
const KUBE_AS_IT_IS: &str = "kube, 1 KiB pipes";

fn to_server() -> Outcome<Vec<Table>> {
    let cases = cases(|flavor| -> [(_, Measure); 6] {
        [
            (OURS, Box::new(move || websocket::to_server(flavor, PLAN))),
            (RAW, Box::new(move || raw::bulk(flavor, PLAN))),
            (TUNGSTENITE, Box::new(move || messages::tungstenite_to_server(flavor, PLAN))),
            (WEBSOCKETS, Box::new(move || messages::websockets_to_server(flavor, PLAN))),
            (KUBE, Box::new(move || kube_rs::to_server(flavor, SHORT, PIPE))),
            (KUBE_AS_IT_IS, Box::new(move || kube_rs::to_server(flavor, SHORT, None))),
        ]
    });
    run("to the server, masked: exec v5, 32 KiB writes; ratios to ours", cases)
}

fn to_client() -> Outcome<Vec<Table>> {
    let cases = cases(|flavor| -> [(_, Measure); 6] {
        [
            (OURS, Box::new(move || websocket::to_client(flavor, PLAN))),
            (RAW, Box::new(move || raw::bulk(flavor, PLAN))),
            (TUNGSTENITE, Box::new(move || messages::tungstenite_to_client(flavor, PLAN))),
            (WEBSOCKETS, Box::new(move || messages::websockets_to_client(flavor, PLAN))),
            (KUBE, Box::new(move || kube_rs::to_client(flavor, SHORT, PIPE))),
            (KUBE_AS_IT_IS, Box::new(move || kube_rs::to_client(flavor, SHORT, None))),
        ]
    });
    run("to the client: exec v5, 32 KiB writes; ratios to ours", cases)
}

fn echo() -> Outcome<Vec<Table>> {
    let cases = cases(|flavor| -> [(_, Measure); 5] {
        [
            (OURS, Box::new(move || websocket::echo(flavor))),
            (RAW, Box::new(move || raw::echo(flavor))),
            (TUNGSTENITE, Box::new(move || messages::tungstenite_echo(flavor))),
            (WEBSOCKETS, Box::new(move || messages::websockets_echo(flavor))),
            (KUBE, Box::new(move || kube_rs::echo(flavor))),
        ]
    });
    run("echo: exec v5, one byte there and back; ratios to ours", cases)
}

fn streams() -> Outcome<Vec<Table>> {
    let cases = cases(|flavor| -> [(_, Measure); 4] {
        [
            (OURS, Box::new(move || streams::ours(flavor, PLAN))),
            (RAW, Box::new(move || raw::bulk(flavor, PLAN))),
            (H2, Box::new(move || streams::h2(flavor, SHORT))),
            (YAMUX, Box::new(move || streams::yamux(flavor, SHORT))),
        ]
    });
    run("streams: one stream of bytes, 32 KiB writes; ratios to ours", cases)
}

fn opens() -> Outcome<Vec<Table>> {
    let mut tables = Vec::new();
    for (title, at_once) in [
        ("opens: streams opened, answered and closed, one after another; ratios to ours", 1),
        ("opens: the same, 16 at a time; ratios to ours", 16),
    ] {
        let cases = cases(|flavor| -> [(_, Measure); 2] {
            [
                (OURS, Box::new(move || streams::ours_opens(flavor, at_once))),
                (H2, Box::new(move || streams::h2_opens(flavor, at_once))),
            ]
        });
        tables.extend(run(title, cases)?);
    }
    Ok(tables)
}
