//! What docs/benchmarks.md shows of the results: the targets, and what is drawn.
//!
//! Measures nothing, and knows the cases by their names alone.

use bench_support::chart::{Bar, Bars, Series, bars, lines};
use bench_support::judge::Bound::{self, AtLeast, AtMost, RatioAtLeast, RatioAtMost, Shown};
use bench_support::judge::Target;
use bench_support::load;
use bench_support::page::Chart;
use bench_support::program::Groups;
use bench_support::table::{Row, Table};

/// What rounds to no allocation.
const NO_ALLOCATION: Bound = AtMost(0.005);
const KIB: f64 = 1024.0;
/// What an idle connection with four streams may take.
const IDLE: Bound = AtMost(24.0 * KIB);

const fn target(table: &'static str, case: &'static str, figure: &'static str, bound: Bound) -> Target {
    Target { table, case, figure, bound }
}

pub(crate) const TARGETS: &[Target] = &[
    target("bulk:", "current_thread: send, data", "GB/s", RatioAtLeast(0.95)),
    target("bulk:", "multi_thread: send, data", "GB/s", RatioAtLeast(0.9)),
    target("bulk:", "AsyncWrite, AsyncRead", "GB/s", RatioAtLeast(0.85)),
    target("bulk:", "send, data", "CPU-s/GB", RatioAtMost(1.2)),
    target("bulk:", "AsyncWrite, AsyncRead", "CPU-s/GB", RatioAtMost(1.2)),
    target("bulk:", "framing sketch", "CPU-s/GB", Shown),
    target("bulk:", "framing sketch, with hops", "CPU-s/GB", Shown),
    target("bulk:", "send, data", "allocs/write", NO_ALLOCATION),
    target("many:", "current_thread: 64 streams", "GB/s", RatioAtLeast(0.85)),
    target("many:", "multi_thread: 64 streams", "GB/s", RatioAtLeast(0.75)),
    target("many:", "64 streams", "CPU-s/GB", Shown),
    target("many:", "framing sketch", "CPU-s/GB", Shown),
    target("many:", "framing sketch, with hops", "CPU-s/GB", Shown),
    target("many:", "64 streams", "share", AtLeast(0.8)),
    target("echo: the same on one CPU", "send, data", "p50 µs", RatioAtMost(1.25)),
    target("echo: the same on one CPU", "WebSocket", "p50 µs", RatioAtMost(1.25)),
    target("echo:", "send, data", "p99 µs", Shown),
    target("open:", "one after another", "ops/s", RatioAtLeast(0.4)),
    target("open:", "one after another", "allocs/op", AtMost(12.0)),
    target("websocket: exec v5, 32 KiB writes to the server", "send, data", "GB/s", RatioAtLeast(0.85)),
    target("websocket: exec v5, 32 KiB writes to the client", "send, data", "GB/s", RatioAtLeast(0.9)),
    target("websocket: exec v5, 32 KiB", "send, data", "allocs/write", NO_ALLOCATION),
    target("forward: one connection", "SPDY", "allocs/write", NO_ALLOCATION),
    target("forward: one connection", "tunnel", "allocs/write", NO_ALLOCATION),
    target("forward: a download", "SPDY: ours", "GB/s", RatioAtLeast(3.0)),
    target("forward: a download", "tunnel: ours", "GB/s", RatioAtLeast(3.0)),
    target("to a local port, one after another", "SPDY: ours", "ops/s", RatioAtLeast(4.0)),
    target("to a local port, one after another", "tunnel: ours", "ops/s", RatioAtLeast(4.0)),
    target("to a local port, 16 at a time", "SPDY: ours", "ops/s", RatioAtLeast(8.0)),
    target("to a local port, 16 at a time", "tunnel: ours", "ops/s", RatioAtLeast(8.0)),
    target("proxy: an upgraded", "Pipe::splice", "CPU-s/GB", RatioAtMost(1.1)),
    target("proxy: an upgraded", "Pipe::run", "CPU-s/GB", Shown),
    target("proxy: an upgraded", "copy_bidirectional, 64 KiB", "CPU-s/GB", Shown),
    target("proxy: an upgraded", "copy_bidirectional, 8 KiB", "CPU-s/GB", Shown),
    target("proxy: an upgraded", "Go: UpgradeAwareHandler", "CPU-s/GB", Shown),
    target("proxy: WebSocket", "translate", "CPU-s/GB", RatioAtMost(0.125)),
    target("memory: bytes more than before, after", "a connection, 4 streams (of 200)", "client RSS", IDLE),
    target("memory: bytes more than before, after", "a connection, 4 streams (of 200)", "server RSS", IDLE),
    target("memory: bytes more than before, after", "a connection, 4 streams (of 1,000)", "client RSS", IDLE),
    target("memory: bytes more than before, after", "a connection, 4 streams (of 1,000)", "server RSS", IDLE),
    target("memory: bytes more than before, after", "a connection, 4 streams (of 5,000)", "client RSS", IDLE),
    target("memory: bytes more than before, after", "a connection, 4 streams (of 5,000)", "server RSS", IDLE),
    target("memory: bytes more than before, after", "a connection, 4 streams (of 5,000)", "client live", Shown),
    target("memory: bytes more than before, after", "an exec over WebSocket (of 200)", "client live", Shown),
    target("memory: bytes more than before, after", "a stream (of 10,000)", "client RSS", AtMost(500.0)),
    target("memory: bytes more than before, after", "a stream (of 10,000)", "server RSS", AtMost(500.0)),
    target(
        "memory: bytes more than before, after",
        "an exec over WebSocket (of 200)",
        "client RSS",
        AtMost(16.0 * KIB),
    ),
    target(
        "memory: bytes more than before, after",
        "an exec over WebSocket (of 200)",
        "server RSS",
        AtMost(16.0 * KIB),
    ),
    target("go: moby/spdystream as peer, 64 B", "ours to ours", "writes/s", RatioAtLeast(20.0)),
    target("go: moby/spdystream as peer", "ours to Go", "GB/s", RatioAtLeast(1.2)),
    target("go: moby/spdystream as peer", "Go to ours", "GB/s", RatioAtLeast(1.2)),
    target("go: moby/spdystream as peer", "Go to ours", "our cores", Shown),
    target("go: streams opened, answered and closed, one", "ours to ours", "ops/s", RatioAtLeast(10.0)),
    target("go: streams opened, answered and closed, 16", "ours to ours", "ops/s", RatioAtLeast(7.0)),
];

/// How fast every peer is, how fast this crate is over a distance, and what a stream or a connection costs among others.
pub(crate) fn charts(groups: &Groups<'_>) -> Vec<Chart> {
    // Those of small writes have other scales.
    let drawn = ["bulk", "many", "websocket", "forward", "go"];
    let of_large_writes = |table: &&Table| !table.title.contains(" B writes") || table.title.contains(" 32768 B");
    let of = |names: &[&str]| -> Vec<&Table> {
        let chosen = groups.iter().filter(|(name, _)| names.contains(name));
        chosen.flat_map(|(_, tables)| tables).filter(of_large_writes).collect()
    };
    let note = |tables: &[&Table]| load::note(tables.iter().map(|table| &table.conditions));
    let (peers, far, grown) = (of(&drawn), of(&["distance"]), of(&["memory", "growth"]));
    let all: Vec<Bars> = peers.iter().map(|table| throughput(table)).collect();
    vec![
        Chart {
            file: "throughput.svg",
            about: "Throughput of all peers, with writes of 32 KiB".to_owned(),
            svg: bars("Throughput with writes of 32 KiB: median and range", &note(&peers), "GB/s", &all),
        },
        Chart {
            file: "distance.svg",
            about: "Throughput over distance".to_owned(),
            svg: lines("Throughput over distance", &note(&far), "round trip in ms", "MB/s", &series(&far, &["MB/s"])),
        },
        Chart {
            file: "growth.svg",
            about: "What one stream or connection costs among ever more".to_owned(),
            svg: lines(
                "What one costs among ever more",
                &note(&grown),
                "streams on a connection, or connections in a process",
                "compared with the fewest",
                &relative(series(&grown, &["CPU µs/op", "client live"])),
            ),
        },
    ]
}

fn throughput(table: &Table) -> Bars {
    let bar = |row: &Row| {
        let value = row.figure("GB/s")?.value;
        let others = ["raw TCP", "framing sketch", "client-go", "Go to"];
        let strong = !others.iter().any(|other| row.name.contains(other));
        Some(Bar { name: row.name.clone(), value, strong })
    };
    // What follows explains other figures.
    let heading = table.title.split(';').next().unwrap_or_default().to_owned();
    Bars { heading, bars: table.rows.iter().filter_map(bar).collect() }
}

/// A line for each name under which cases say where they stand, of the first of these figures that they have. Cases that
/// were measured in two states stand where they were in the last one.
fn series(tables: &[&Table], figures: &[&str]) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for row in tables.iter().flat_map(|table| &table.rows) {
        let figure = figures.iter().find_map(|name| row.figure(name));
        let (Some((name, place)), Some(figure)) = (&row.point, figure) else { continue };
        let point = (*place, figure.value.median);
        match series.iter_mut().find(|line| line.name == *name) {
            Some(line) => match line.points.iter_mut().find(|other| other.0 == point.0) {
                Some(other) => *other = point,
                None => line.points.push(point),
            },
            None => series.push(Series { name: name.clone(), points: vec![point] }),
        }
    }
    series
}

/// Each line divided by its first point.
fn relative(mut series: Vec<Series>) -> Vec<Series> {
    for line in &mut series {
        line.points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let first = line.points.first().map_or(1.0, |point| point.1);
        line.points.iter_mut().for_each(|point| point.1 /= first);
    }
    series
}
