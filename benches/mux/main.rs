//! Measures the costs of the multiplexer, as ratios to plain TCP and to moby/spdystream in the same rounds.
//!
//! `cargo bench --bench mux` runs every group, and `cargo bench --bench mux -- bulk echo` some. `ROUNDS=9` sets the
//! number of rounds (default 5), and `-- --write` writes docs/benchmarks.md. Chooses what is compared with what, and
//! does not judge: no figure fails a run, and `shown.rs` has the targets.

mod distance;
mod forward;
mod go;
mod growth;
mod local;
mod memory;
mod ours;
mod plain;
mod proxied;
mod shown;

use std::alloc::System;

use bench_support::program::{Group, Program};
use bench_support::table::{Case, Part, Sample, Table, run, run_parts};
use bench_support::{Flavor, Outcome, Plan, on_one_cpu, raw, sketch, websocket};
use kubestream::upgrade::Protocol;
use local::Who;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KIB: usize = 1024;

const GROUPS: [(&str, Group); 12] = [
    ("bulk", bulk),
    ("many", many),
    ("small", small),
    ("echo", echo),
    ("open", open),
    ("websocket", over_websocket),
    ("forward", port_forward),
    ("distance", distance::distance),
    ("proxy", proxy),
    ("memory", memory::measure),
    ("growth", growth::growth),
    ("go", against_go),
];

fn main() -> Outcome<()> {
    // Cargo passes `--bench` to every bench.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if memory::is_child() {
        return memory::child(&wanted);
    }
    let program = Program { section: "mux", groups: &GROUPS, targets: shown::TARGETS, charts: shown::charts };
    program.run(&wanted)
}

/// The proxy alone: its own CPU time, and its throughput.
fn proxy() -> Outcome<Vec<Table>> {
    let plan = Plan { size: 256 * KIB, bytes: 1 << 30, ..Plan::default() };
    let bare = "splice(2), a bare loop";
    let mut cases = vec![Case::new(bare, None, move || proxied::forwarded(proxied::Who::BareSplice, plan))];
    for (name, who) in [
        ("Pipe::splice", proxied::Who::Splice),
        ("Pipe::run", proxied::Who::Copy),
        ("copy_bidirectional, 64 KiB", proxied::Who::Tokio(64 * KIB)),
        ("copy_bidirectional, 8 KiB", proxied::Who::Tokio(8 * KIB)),
    ] {
        cases.push(Case::new(name, Some(bare), move || proxied::forwarded(who, plan)));
    }
    if go::is_built(proxied::GO) {
        cases
            .push(Case::new("Go: UpgradeAwareHandler", Some(bare), move || proxied::forwarded(proxied::Who::Go, plan)));
    }
    let passed_on = Part::new("proxy: an upgraded connection passed on, 1 GiB to the client", cases);

    let plan = Plan { size: 32 * KIB, bytes: 256 << 20, ..Plan::default() };
    let theirs = "Go: StreamTranslator";
    let ours = |base| Case::new("translate", base, move || proxied::translated(proxied::Who::Copy, plan));
    let cases = if go::is_built(proxied::GO) {
        vec![Case::new(theirs, None, move || proxied::translated(proxied::Who::Go, plan)), ours(Some(theirs))]
    } else {
        vec![ours(None)]
    };
    run_parts(vec![passed_on, Part::new("proxy: WebSocket v5 in front of SPDY v4, stdout of 256 MiB", cases)])
}

fn bulk() -> Outcome<Vec<Table>> {
    let plan = Plan { size: 32 * KIB, bytes: 768 << 20, ..Plan::default() };
    let mut cases = vec![Case::new("std: raw TCP", None, move || raw::std_bulk(plan))];
    for flavor in Flavor::ALL {
        let raw = flavor.name("raw TCP");
        let ours = |name: &str, plan: Plan| Case::new(flavor.name(name), Some(&raw), move || ours::bulk(flavor, plan));
        cases.push(Case::new(&raw, None, move || raw::bulk(flavor, plan)));
        cases.push(ours("send, data", plan));
        cases.push(ours("AsyncWrite, data", Plan { copy_out: true, ..plan }));
        cases.push(ours("AsyncWrite, AsyncRead", Plan { copy_out: true, copy_in: true, ..plan }));
        cases.extend(sketches(flavor, &raw, plan));
    }
    run("bulk: one stream, 32 KiB writes, 768 MiB", cases)
}

/// What framing costs at least.
fn sketches(flavor: Flavor, raw: &str, plan: Plan) -> [Case; 2] {
    [
        Case::new(flavor.name("framing sketch"), Some(raw), move || sketch::bulk(flavor, plan)),
        Case::new(flavor.name("framing sketch, with hops"), Some(raw), move || sketch::bulk_with_hops(flavor, plan)),
    ]
}

fn many() -> Outcome<Vec<Table>> {
    let plan = Plan { size: 32 * KIB, bytes: 512 << 20, ..Plan::default() };
    let mut cases = Vec::new();
    for flavor in Flavor::ALL {
        let raw = flavor.name("raw TCP, one writer");
        cases.push(Case::new(&raw, None, move || raw::bulk(flavor, plan)));
        let many = Plan { streams: 64, ..plan };
        cases.push(Case::new(flavor.name("64 streams"), Some(&raw), move || ours::bulk(flavor, many)));
        cases.extend(sketches(flavor, &raw, many));
    }
    run(
        "many: 64 streams at once, 32 KiB writes, 512 MiB; share: the smallest stream's bytes at half time ÷ the largest's",
        cases,
    )
}

fn small() -> Outcome<Vec<Table>> {
    let mut parts = Vec::new();
    for (size, bytes) in [(4 * KIB, 256 << 20), (64, 64 * 400_000)] {
        let plan = Plan { size, bytes, ..Plan::default() };
        let mut cases = Vec::new();
        for flavor in Flavor::ALL {
            let raw = flavor.name("raw TCP");
            let copy_out = Plan { copy_out: true, ..plan };
            cases.push(Case::new(&raw, None, move || raw::bulk(flavor, plan)));
            cases.push(Case::new(flavor.name("send"), Some(&raw), move || ours::bulk(flavor, plan)));
            cases.push(Case::new(flavor.name("AsyncWrite"), Some(&raw), move || ours::bulk(flavor, copy_out)));
        }
        parts.push(Part::new(format!("small: one stream, {size} B writes"), cases));
    }
    run_parts(parts)
}

fn echo() -> Outcome<Vec<Table>> {
    let mut cases = Vec::new();
    for flavor in Flavor::ALL {
        let raw = flavor.name("raw TCP");
        cases.push(Case::new(&raw, None, move || raw::echo(flavor)));
        cases.push(Case::new(flavor.name("send, data"), Some(&raw), move || ours::echo(flavor)));
    }
    let mut parts = vec![Part::new("echo: one byte there and back", cases)];
    let mut cases = Vec::new();
    for flavor in Flavor::ALL {
        let raw = flavor.name("raw TCP");
        type Echo = fn(Flavor) -> Outcome<Sample>;
        let pinned = |echo: Echo| move || on_one_cpu(|| echo(flavor));
        cases.push(Case::new(&raw, None, pinned(raw::echo)));
        cases.push(Case::new(flavor.name("send, data"), Some(&raw), pinned(ours::echo)));
        cases.push(Case::new(flavor.name("WebSocket"), Some(&raw), pinned(websocket::echo)));
    }
    if cfg!(target_os = "linux") {
        parts.push(Part::new("echo: the same on one CPU", cases));
    }
    run_parts(parts)
}

fn open() -> Outcome<Vec<Table>> {
    let mut cases = Vec::new();
    for flavor in Flavor::ALL {
        let raw = flavor.name("raw TCP echo");
        cases.push(Case::new(&raw, None, move || raw::echo(flavor)));
        for (name, at_once) in [("one after another", 1), ("16 at a time", 16)] {
            cases.push(Case::new(flavor.name(name), Some(&raw), move || ours::opens(flavor, at_once)));
        }
    }
    run("open: streams opened, answered and closed from both ends", cases)
}

/// interop/benches/peers runs other libraries in the same rounds.
fn over_websocket() -> Outcome<Vec<Table>> {
    type Transfer = fn(Flavor, Plan) -> Outcome<Sample>;
    let directions: [(&str, Transfer, Transfer); 2] = [
        ("to the server, masked", websocket::to_server, go::exec_to_server),
        ("to the client", websocket::to_client, go::exec_to_client),
    ];
    let client_go = has(go::CLIENT_GO);
    let plan = Plan { size: 32 * KIB, bytes: 768 << 20, ..Plan::default() };
    let their_plan = Plan { bytes: 256 << 20, ..plan };
    let mut parts = Vec::new();
    for (direction, ours, theirs) in directions {
        let mut cases = Vec::new();
        for flavor in Flavor::ALL {
            let raw = flavor.name("raw TCP");
            cases.push(Case::new(&raw, None, move || raw::bulk(flavor, plan)));
            cases.push(Case::new(flavor.name("send, data"), Some(&raw), move || ours(flavor, plan)));
        }
        if client_go {
            let (flavor, raw) = (Flavor::CurrentThread, Flavor::CurrentThread.name("raw TCP"));
            cases.push(Case::new("client-go and our server", Some(&raw), move || theirs(flavor, their_plan)));
        }
        parts.push(Part::new(format!("websocket: exec v5, 32 KiB writes {direction}"), cases));
    }
    let mut cases = Vec::new();
    for flavor in Flavor::ALL {
        let raw = flavor.name("raw TCP");
        cases.push(Case::new(&raw, None, move || raw::echo(flavor)));
        cases.push(Case::new(flavor.name("send, data"), Some(&raw), move || websocket::echo(flavor)));
    }
    if client_go {
        let (flavor, raw) = (Flavor::CurrentThread, Flavor::CurrentThread.name("raw TCP"));
        cases.push(Case::new("client-go and our server", Some(&raw), move || go::exec_echo(flavor)));
    }
    parts.push(Part::new("websocket: exec v5, one byte there and back", cases));
    run_parts(parts)
}

type Through = fn(Who, Plan) -> Outcome<Sample>;

fn port_forward() -> Outcome<Vec<Table>> {
    let transports = [("SPDY", Protocol::SpdyPortForward), ("tunnel", Protocol::TunneledPortForward)];
    let plan = Plan { size: 32 * KIB, bytes: 512 << 20, ..Plan::default() };
    let (mut bulk, mut short) = (Vec::new(), Vec::new());
    for flavor in Flavor::ALL {
        let raw = flavor.name("raw TCP");
        bulk.push(Case::new(&raw, None, move || raw::bulk(flavor, plan)));
        short.push(Case::new(&raw, None, move || raw::connections(flavor, forward::CONNECTIONS)));
        for (transport, protocol) in transports {
            let case = |name: &str| flavor.name(&format!("{transport}{name}"));
            bulk.push(Case::new(case(""), Some(&raw), move || forward::bulk(flavor, protocol, plan)));
            for (name, at_once) in [("", 1), (", 16 at a time", 16)] {
                let measure = move || forward::connections(flavor, protocol, at_once);
                short.push(Case::new(case(name), Some(&raw), measure));
            }
        }
    }
    let mut parts = vec![
        Part::new("forward: one connection, 32 KiB writes", bulk),
        Part::new("forward: connections of a byte there and back, one after another", short),
    ];
    if !has(local::CLIENT_GO) {
        return run_parts(parts);
    }
    let plan = Plan { bytes: 256 << 20, ..plan };
    let through = |title: &str, measure: Through| {
        let floor = "a plain copy, nothing framed";
        let mut cases = vec![Case::new(floor, None, move || measure(Who::Plain, plan))];
        for (transport, protocol) in transports {
            let (ours, theirs) = (format!("{transport}: ours"), format!("{transport}: client-go"));
            cases.push(Case::new(&theirs, None, move || measure(Who::ClientGo(protocol), plan)));
            cases.push(Case::new(ours, Some(&theirs), move || measure(Who::Ours(protocol), plan)));
            let of_floor = format!("{transport}: ours ÷ the plain copy");
            cases.push(Case::new(of_floor, Some(floor), move || measure(Who::Ours(protocol), plan)));
        }
        Part::new(title, cases)
    };
    parts.extend([
        through("forward: a download through a local port, 32 KiB writes, our server", local::download),
        through(
            "forward: connections of a byte there and back to a local port, one after another, our server",
            |who, _| local::connections(who, 1),
        ),
        through("forward: connections of a byte there and back to a local port, 16 at a time, our server", |who, _| {
            local::connections(who, 16)
        }),
    ]);
    run_parts(parts)
}

/// Returns whether a peer is built, and prints a note if it is not.
fn has(program: &str) -> bool {
    if !go::is_built(program) {
        let path = go::path(program);
        println!("\n## skipped: {} is not built (cd interop/benches/go && go build -o bin/ ./...)", path.display());
    }
    go::is_built(program)
}

fn against_go() -> Outcome<Vec<Table>> {
    if !has(go::SPDYSTREAM) {
        return Ok(Vec::new());
    }
    let mut parts = Vec::new();
    let flavor = Flavor::CurrentThread;
    let both = "Go to Go";
    for (size, bytes) in [(32 * KIB, 256 << 20), (4 * KIB, 128 << 20), (64, 64 * 100_000)] {
        let plan = Plan { size, bytes, ..Plan::default() };
        let cases = [
            Case::new(both, None, move || go::bulk(plan)),
            Case::new("ours to Go", Some(both), move || go::read_by_go(flavor, plan)),
            Case::new("Go to ours", Some(both), move || go::written_by_go(flavor, plan)),
            Case::new("ours to ours", Some(both), move || ours::bulk(flavor, plan)),
        ];
        parts.push(Part::new(format!("go: moby/spdystream as peer, {size} B writes"), cases));
    }
    let cases = [Case::new(both, None, go::echo), Case::new("ours to ours", Some(both), move || ours::echo(flavor))];
    parts.push(Part::new("go: one byte there and back", cases));
    for (name, at_once) in [("one after another", 1), ("16 at a time", 16)] {
        let cases = [
            Case::new(both, None, move || go::opens(at_once)),
            Case::new("ours to ours", Some(both), move || ours::opens(flavor, at_once)),
        ];
        parts.push(Part::new(format!("go: streams opened, answered and closed, {name}"), cases));
    }
    run_parts(parts)
}
