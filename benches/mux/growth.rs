//! What an echo costs beside ever more streams on its connection, and beside ever more connections in its process.
//!
//! Holds the numbers and what is drawn of them. The others are idle: they cost memory, which the group `memory` measures,
//! and should cost nothing else.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use kubestream::mux::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::ours;
use bench_support::raw::{ECHOES, WARM_UP};
use bench_support::table::{Case, Part, Sample, Table, run_parts};
use bench_support::{Flavor, Meter, Outcome, ends, latencies};

pub(crate) const STREAMS: [usize; 3] = [1, 100, 10_000];
pub(crate) const CONNECTIONS: [usize; 3] = [1, 1_000, 5_000];

pub(crate) fn growth() -> Outcome<Vec<Table>> {
    let part = |what: &'static str, numbers: [usize; 3], measure: fn(usize) -> Outcome<Sample>| {
        let name = move |number: usize| format!("beside {number} {what}");
        let first = name(numbers[0]);
        let case = |number: usize| {
            let base = (number != numbers[0]).then_some(first.as_str());
            Case::new(name(number), base, move || measure(number)).at(format!("an echo beside {what}"), number as f64)
        };
        Part::new(format!("growth: an echo beside idle {what}"), numbers.map(case))
    };
    run_parts(vec![part("streams", STREAMS, beside_streams), part("connections", CONNECTIONS, beside_connections)])
}

fn beside_streams(number: usize) -> Outcome<Sample> {
    ends(
        Flavor::CurrentThread,
        |io| ours::serve(io, Arc::default()),
        move |io| async move {
            let mux = ours::client(io);
            let mut idle = Vec::new();
            for at in 0..number {
                idle.push(ours::open(&mux, "echo", at).await?);
            }
            let sample = echoes(&mut ours::open(&mux, "echo", number).await?).await?;
            drop(idle);
            mux.shutdown().await?;
            Ok(sample)
        },
    )
}

fn beside_connections(number: usize) -> Outcome<Sample> {
    let server = move |mut io: TcpStream| async move {
        // The first connection only transmits the address for the others, and ends when they are done.
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        io.write_u16(listener.local_addr()?.port()).await?;
        for _ in 0..=number {
            let (io, _) = listener.accept().await?;
            io.set_nodelay(true)?;
            tokio::spawn(ours::serve(io, Arc::default()));
        }
        io.read_u8().await?;
        Ok(())
    };
    ends(Flavor::CurrentThread, server, move |mut io| async move {
        let port = io.read_u16().await?;
        let mut connections = Vec::new();
        for at in 0..=number {
            let io = TcpStream::connect(("127.0.0.1", port)).await?;
            io.set_nodelay(true)?;
            let mux = ours::client(io);
            let stream = ours::open(&mux, "echo", at).await?;
            connections.push((mux, stream));
        }
        let (_, stream) = connections.last_mut().ok_or("no connection")?;
        let sample = echoes(stream).await?;
        io.write_u8(1).await?;
        Ok(sample)
    })
}

async fn echoes(stream: &mut Stream) -> Outcome<Sample> {
    let byte = Bytes::from_static(&[7]);
    let mut taken = Vec::new();
    let mut meter = Meter::start();
    for trip in 0..WARM_UP + ECHOES {
        if trip == WARM_UP {
            meter = Meter::start();
        }
        let began = Instant::now();
        stream.send(byte.clone()).await?;
        stream.data().await.ok_or("the echo ended")??;
        if trip >= WARM_UP {
            taken.push(began.elapsed());
        }
    }
    let cpu = meter.read().cpu / ECHOES as f64 * 1e6;
    Ok(Sample::new().with("CPU µs/op", cpu).with("p50 µs", latencies(taken).figure("p50 µs").unwrap_or_default()))
}
