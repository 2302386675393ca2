//! What these benches and those of other libraries share: two ends over loopback TCP, the meter, aligned buffers, the
//! cases that both measure, and the tables and the page of the results.
//!
//! Runs and measures cases. It does not know what is compared.

pub mod chart;
pub mod judge;
pub mod load;
pub mod page;
pub mod program;
pub mod raw;
pub mod sketch;
pub mod spread;
pub mod table;
pub mod websocket;

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stats_alloc::INSTRUMENTED_SYSTEM;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use load::process_cpu as cpu;
use table::Sample;

/// A result with any error.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The runtime of each end: a single thread, or two workers.
#[derive(Clone, Copy, Debug)]
pub enum Flavor {
    /// A single thread.
    CurrentThread,
    /// Two workers.
    MultiThread,
}

impl Flavor {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::CurrentThread, Self::MultiThread];

    /// The name of a case on this runtime.
    pub fn name(self, case: &str) -> String {
        match self {
            Self::CurrentThread => format!("current_thread: {case}"),
            Self::MultiThread => format!("multi_thread: {case}"),
        }
    }

    /// A new runtime.
    pub fn runtime(self) -> std::io::Result<Runtime> {
        match self {
            Self::CurrentThread => Builder::new_current_thread().enable_all().build(),
            Self::MultiThread => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        }
    }
}

/// A transfer in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The bytes of each write.
    pub size: usize,
    /// The bytes of all writes.
    pub bytes: usize,
    /// The number of streams that share them.
    pub streams: usize,
    /// Write through `AsyncWrite` instead of handing buffers over.
    pub copy_out: bool,
    /// Read through `AsyncRead` instead of taking buffers.
    pub copy_in: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { size: 32 * 1024, bytes: 256 << 20, streams: 1, copy_out: false, copy_in: false }
    }
}

impl Plan {
    /// A part of the plan that runs first and is not measured, while buffers, windows and the socket's sizes settle.
    pub fn warm_up(self) -> Self {
        Self { bytes: (self.bytes / 8).min(64 << 20), ..self }
    }

    /// The number of writes.
    pub fn writes(self) -> usize {
        self.bytes / self.size
    }
}

/// Runs both ends, each on its own runtime, and returns what the client measured.
pub fn ends<S, C, FS, FC>(flavor: Flavor, server: S, client: C) -> Outcome<Sample>
where
    S: FnOnce(TcpStream) -> FS + Send + 'static,
    C: FnOnce(TcpStream) -> FC + Send + 'static,
    FS: Future<Output = Outcome<()>> + Send + 'static,
    FC: Future<Output = Outcome<Sample>> + Send + 'static,
{
    let (address, server) = serve_one(flavor, server)?;
    let sample = dial(flavor, address, client);
    server.join().map_err(|_| "the server panicked")??;
    sample
}

/// A server on a thread of its own.
pub type Serving = thread::JoinHandle<Outcome<()>>;

/// Serves the first connection on a thread of its own.
pub fn serve_one<S, FS>(flavor: Flavor, server: S) -> Outcome<(SocketAddr, Serving)>
where
    S: FnOnce(TcpStream) -> FS + Send + 'static,
    FS: Future<Output = Outcome<()>> + Send + 'static,
{
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let serving = thread::spawn(move || {
        flavor.runtime()?.block_on(async move {
            let (io, _) = TcpListener::from_std(listener)?.accept().await?;
            io.set_nodelay(true)?;
            tokio::spawn(server(io)).await?
        })
    });
    Ok((address, serving))
}

/// Runs the client on a thread of its own, like a worker of the caller's runtime.
pub fn dial<C, FC>(flavor: Flavor, address: SocketAddr, client: C) -> Outcome<Sample>
where
    C: FnOnce(TcpStream) -> FC + Send + 'static,
    FC: Future<Output = Outcome<Sample>> + Send + 'static,
{
    flavor.runtime()?.block_on(async move {
        let io = TcpStream::connect(address).await?;
        io.set_nodelay(true)?;
        tokio::spawn(client(io)).await?
    })
}

/// Runs `work` and all threads that it starts on one CPU. Where that cannot be had, this is an error.
#[cfg(target_os = "linux")]
pub fn on_one_cpu<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let all = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).ok_or("no CPU")?;
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one)?;
    let done = work();
    sched_setaffinity(None, &all)?;
    done
}

/// Where threads cannot be kept on one CPU, this is an error.
#[cfg(not(target_os = "linux"))]
pub fn on_one_cpu<T>(_: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    Err("threads can be kept on one CPU on Linux alone".into())
}

/// Measures time, and what the whole process with both ends used of the CPU and of the global allocator. The program
/// must declare [`INSTRUMENTED_SYSTEM`] as that allocator.
pub struct Meter {
    began: Instant,
    cpu: Duration,
    allocations: usize,
}

/// What was used since the meter started.
pub struct Reading {
    /// The time that passed.
    pub seconds: f64,
    /// Seconds of CPU time.
    pub cpu: f64,
    /// The number of allocations and reallocations.
    pub allocations: f64,
}

impl Meter {
    /// Starts now.
    pub fn start() -> Self {
        Self { began: Instant::now(), cpu: cpu(), allocations: allocations() }
    }

    /// What was used so far.
    pub fn read(&self) -> Reading {
        Reading {
            seconds: self.began.elapsed().as_secs_f64(),
            cpu: cpu().saturating_sub(self.cpu).as_secs_f64(),
            allocations: (allocations() - self.allocations) as f64,
        }
    }

    /// The figures of a transfer that ends now.
    pub fn transferred(&self, plan: Plan) -> Sample {
        let (reading, bytes) = (self.read(), plan.bytes as f64);
        let writes = plan.writes() as f64;
        Sample::new()
            .with("GB/s", bytes / reading.seconds / 1e9)
            .with("CPU-s/GB", reading.cpu / bytes * 1e9)
            .with("writes/s", writes / reading.seconds)
            .with("allocs/write", reading.allocations / writes)
    }
}

fn allocations() -> usize {
    let stats = INSTRUMENTED_SYSTEM.stats();
    stats.allocations + stats.reallocations
}

/// The percentiles of successive round trips.
pub fn latencies(mut taken: Vec<Duration>) -> Sample {
    taken.sort_unstable();
    let total: Duration = taken.iter().sum();
    let at = |share: usize| taken.get(taken.len() * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6);
    Sample::new().with("p50 µs", at(50)).with("p99 µs", at(99)).with("ops/s", taken.len() as f64 / total.as_secs_f64())
}

/// Bytes that begin at a page. Allocators put large blocks 16 bytes after a page's begin, where copies are slow on some
/// processors.
pub fn aligned(size: usize) -> Bytes {
    let block = vec![7u8; size + PAGE];
    let skip = block.as_ptr().align_offset(PAGE);
    Bytes::from(block).slice(skip..skip + size)
}

/// The part of `block` that begins at a page. `block` is a page larger than `size`.
pub fn aligned_mut(block: &mut [u8], size: usize) -> &mut [u8] {
    let skip = block.as_ptr().align_offset(PAGE);
    &mut block[skip..skip + size]
}

/// The size of a page of memory.
pub const PAGE: usize = 4096;
