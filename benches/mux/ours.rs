//! This crate at either end.
//!
//! Holds what the streams do. The header `do` chooses it, as in interop/benches/go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use kubestream::mux::Headers;
use kubestream::mux::{Config, Multiplexer, Stream};
use kubestream::upgrade::Upgraded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use bench_support::raw::{ECHOES, WARM_UP};
use bench_support::table::Sample;
use bench_support::{Flavor, Meter, Outcome, PAGE, Plan, aligned, aligned_mut, ends, latencies};

pub(crate) fn bulk(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let shares = Arc::new(Shares::new(plan));
    let theirs = Arc::clone(&shares);
    let sample = ends(flavor, move |io| serve(io, theirs), move |io| write(io, plan))?;
    Ok(if plan.streams > 1 { sample.with("share", shares.smallest_to_largest()) } else { sample })
}

pub(crate) fn echo(flavor: Flavor) -> Outcome<Sample> {
    ends(
        flavor,
        |io| serve(io, Arc::default()),
        move |io| async move {
            let mux = client(io);
            let mut stream = open(&mux, "echo", 0).await?;
            let byte = Bytes::from_static(&[7]);
            let mut taken = Vec::new();
            for trip in 0..WARM_UP + ECHOES {
                let began = Instant::now();
                stream.send(byte.clone()).await?;
                stream.data().await.ok_or("the echo ended")??;
                if trip >= WARM_UP {
                    taken.push(began.elapsed());
                }
            }
            stream.finish();
            mux.shutdown().await?;
            Ok(latencies(taken))
        },
    )
}

pub(crate) fn opens(flavor: Flavor, at_once: usize) -> Outcome<Sample> {
    const OPENS: usize = 8_000;
    ends(
        flavor,
        |io| serve(io, Arc::default()),
        move |io| async move {
            let mux = client(io);
            open_many(&mux, 1, WARM_UP).await?;
            let meter = Meter::start();
            open_many(&mux, at_once, OPENS).await?;
            let reading = meter.read();
            mux.shutdown().await?;
            Ok(Sample::new()
                .with("ops/s", OPENS as f64 / reading.seconds)
                .with("CPU µs/op", reading.cpu / OPENS as f64 * 1e6)
                .with("allocs/op", reading.allocations / OPENS as f64))
        },
    )
}

async fn open_many(mux: &Multiplexer, at_once: usize, opens: usize) -> Outcome<()> {
    let mut openers = JoinSet::new();
    for opener in 0..at_once {
        let mux = mux.clone();
        openers.spawn(async move {
            for at in 0..opens / at_once {
                let mut stream = open(&mux, "open", at * at_once + opener).await?;
                stream.finish();
                while stream.data().await.transpose()?.is_some() {}
            }
            Outcome::Ok(())
        });
    }
    while let Some(opener) = openers.join_next().await {
        opener??;
    }
    Ok(())
}

/// The sending end of a transfer to any server.
pub(crate) async fn write(io: TcpStream, plan: Plan) -> Outcome<Sample> {
    let mux = client(io);
    write_all(&mux, "read", Plan { streams: 1, ..plan.warm_up() }).await?;
    let action = match plan {
        Plan { copy_in: true, .. } => "copy",
        Plan { streams: 2.., .. } => "share",
        _ => "read",
    };
    let meter = Meter::start();
    write_all(&mux, action, plan).await?;
    let sample = meter.transferred(plan);
    mux.shutdown().await?;
    Ok(sample)
}

async fn write_all(mux: &Multiplexer, action: &'static str, plan: Plan) -> Outcome<()> {
    // All streams are open before the first one writes.
    let mut streams = Vec::new();
    for number in 0..plan.streams {
        streams.push(open(mux, action, number).await?);
    }
    let mut writers = JoinSet::new();
    for mut stream in streams {
        writers.spawn(async move {
            let data = aligned(plan.size);
            for _ in 0..plan.writes() / plan.streams {
                if plan.copy_out {
                    stream.write_all(&data).await?;
                } else {
                    stream.send(data.clone()).await?;
                }
            }
            stream.finish();
            // One byte, which confirms that everything was read.
            while stream.data().await.transpose()?.is_some() {}
            Outcome::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}

/// The accepting end of streams that are kept open.
pub(crate) async fn keep(io: TcpStream) -> Outcome<()> {
    let (mux, driver) = Multiplexer::server(Upgraded::from_io(io), config());
    tokio::spawn(driver);
    let mut kept = Vec::new();
    while let Some(Ok(incoming)) = mux.accept().await {
        kept.push(incoming.reply());
    }
    Ok(())
}

/// The accepting end, until the client leaves.
pub(crate) async fn serve(io: TcpStream, shares: Arc<Shares>) -> Outcome<()> {
    let (mux, driver) = Multiplexer::server(Upgraded::from_io(io), config());
    tokio::spawn(driver);
    // A client that leaves without a GOAWAY has finished measuring.
    while let Some(Ok(incoming)) = mux.accept().await {
        let action = incoming.headers().get("do").unwrap_or_default().to_owned();
        let number = incoming.headers().get("requestid").and_then(|id| id.parse().ok()).unwrap_or(0);
        let shares = Arc::clone(&shares);
        // The client notices these errors too.
        tokio::spawn(async move { act(incoming.reply(), &action, number, &shares).await });
    }
    Ok(())
}

async fn act(mut stream: Stream, action: &str, number: usize, shares: &Shares) -> Outcome<()> {
    match action {
        "echo" => {
            while let Some(data) = stream.data().await.transpose()? {
                stream.send(data).await?;
            }
        }
        "open" => while stream.data().await.transpose()?.is_some() {},
        "copy" => {
            let mut block = vec![0; READ + PAGE];
            let buffer = aligned_mut(&mut block, READ);
            while stream.read(buffer).await? > 0 {}
            stream.send(Bytes::from_static(&[1])).await?;
        }
        "share" => {
            while let Some(data) = stream.data().await.transpose()? {
                shares.add(number, data.len());
            }
            stream.send(Bytes::from_static(&[1])).await?;
        }
        _ => {
            while stream.data().await.transpose()?.is_some() {}
            stream.send(Bytes::from_static(&[1])).await?;
        }
    }
    stream.finish();
    Ok(())
}

const READ: usize = 256 * 1024;

/// How many bytes each stream has read when half of all bytes have been read.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    half: usize,
    total: AtomicUsize,
    each: Vec<AtomicUsize>,
    at_half: Mutex<Vec<usize>>,
}

impl Shares {
    fn new(plan: Plan) -> Self {
        let each = (0..plan.streams).map(|_| AtomicUsize::new(0)).collect();
        Self { half: plan.bytes / 2, each, ..Self::default() }
    }

    fn add(&self, number: usize, bytes: usize) {
        if let Some(own) = self.each.get(number) {
            own.fetch_add(bytes, Ordering::Relaxed);
        }
        let before = self.total.fetch_add(bytes, Ordering::Relaxed);
        if before < self.half && before + bytes >= self.half {
            let now = self.each.iter().map(|own| own.load(Ordering::Relaxed)).collect();
            *self.at_half.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }

    fn smallest_to_largest(&self) -> f64 {
        let at_half = self.at_half.lock().unwrap_or_else(PoisonError::into_inner);
        match (at_half.iter().min(), at_half.iter().max()) {
            (Some(&least), Some(&most)) if most > 0 => least as f64 / most as f64,
            _ => 0.0,
        }
    }
}

pub(crate) fn client(io: TcpStream) -> Multiplexer {
    let (mux, driver) = Multiplexer::client(Upgraded::from_io(io), config());
    tokio::spawn(driver);
    mux
}

/// The defaults, except that as many streams are allowed as the memory group opens.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.spdy.max_streams = 20_000;
    config
}

/// Opens a stream, with headers as long as a port-forward's, and waits for the reply.
pub(crate) async fn open(mux: &Multiplexer, action: &'static str, number: usize) -> Outcome<Stream> {
    let number = number.to_string();
    let pairs = [("streamtype", "data"), ("port", "8080"), ("requestid", number.as_str()), ("do", action)];
    let mut stream = mux.open(Headers::from_iter(pairs)).await?;
    stream.answered().await?;
    Ok(stream)
}
