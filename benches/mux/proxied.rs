//! Proxies between a client and a server. Each proxy has a thread or a process of its own, and its CPU time is
//! measured.
//!
//! Holds the proxies, and the two plain ends for them. [`websocket`](bench_support::websocket) holds what a translated
//! session carries.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http::Method;
use kubestream::exec::{self, Streams};
use kubestream::mux;
use kubestream::upgrade::{self, Config, Protocol};
use kubestream_proxy as proxy;
use rustix::pipe::{SpliceFlags, pipe, splice};
use rustix::time::{ClockId, clock_gettime};

use crate::go;
use bench_support::table::Sample;
use bench_support::{Flavor, Outcome, PAGE, Plan, aligned, aligned_mut, serve_one, websocket};

pub(crate) const GO: &str = "proxy";

/// Which proxy passes the bytes on.
#[derive(Clone, Copy)]
pub(crate) enum Who {
    /// A loop of splice(2) in one direction: the least that the kernel needs.
    BareSplice,
    Splice,
    Copy,
    /// tokio's `copy_bidirectional`, with buffers of this size.
    Tokio(usize),
    Go,
}

const REQUEST: &[u8] = b"POST /exec HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    Content-Length: 0\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";

/// A server that sends everything after its 101, and a client that receives it, through a proxy.
pub(crate) fn forwarded(who: Who, plan: Plan) -> Outcome<Sample> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let backend = listener.local_addr()?;
    let server: JoinHandle<Outcome<()>> = thread::spawn(move || {
        let (mut tcp, _) = listener.accept()?;
        read_head(&mut tcp)?;
        tcp.write_all(SWITCHED)?;
        let data = aligned(plan.size);
        for _ in 0..plan.writes() {
            tcp.write_all(&data)?;
        }
        tcp.shutdown(std::net::Shutdown::Write)?;
        // A proxy may pass on the client's end first, or not.
        let _ = tcp.read(&mut [0]);
        Ok(())
    });
    let proxy = Proxy::start(who, backend, false)?;
    let mut tcp = TcpStream::connect(proxy.address)?;
    tcp.write_all(REQUEST)?;
    read_head(&mut tcp)?;
    const READ: usize = 256 * 1024;
    let mut block = vec![0; READ + PAGE];
    let buffer = aligned_mut(&mut block, READ);
    let (began, mut got) = (Instant::now(), 0);
    loop {
        match tcp.read(buffer)? {
            0 => break,
            count => got += count,
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    if got != plan.bytes {
        return Err(format!("{got} bytes came of {}", plan.bytes).into());
    }
    drop(tcp);
    server.join().map_err(|_| "the server panicked")??;
    let cpu = proxy.end()?;
    Ok(figures(plan.bytes, seconds, cpu))
}

/// A session over WebSocket v5 to a server of SPDY v4, whose stdout has this many bytes.
pub(crate) fn translated(who: Who, plan: Plan) -> Outcome<Sample> {
    let flavor = Flavor::CurrentThread;
    let (backend, server) = serve_one(flavor, websocket::serve)?;
    let proxy = Proxy::start(who, backend, true)?;
    let sample = bench_support::dial(flavor, proxy.address, move |io| websocket::take(io, plan))?;
    server.join().map_err(|_| "the server panicked")??;
    let cpu = proxy.end()?.as_secs_f64() / (plan.bytes + plan.warm_up().bytes) as f64 * 1e9;
    Ok(sample.only(&["GB/s"]).with("CPU-s/GB", cpu))
}

fn figures(bytes: usize, seconds: f64, cpu: Duration) -> Sample {
    Sample::new().with("GB/s", bytes as f64 / seconds / 1e9).with("CPU-s/GB", cpu.as_secs_f64() / bytes as f64 * 1e9)
}

fn read_head(tcp: &mut TcpStream) -> Outcome<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        tcp.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(())
}

/// A proxy for one connection, on a thread or in a process.
struct Proxy {
    address: SocketAddr,
    running: Running,
}

enum Running {
    Thread(JoinHandle<Outcome<Duration>>),
    Process(Child),
}

impl Proxy {
    fn start(who: Who, backend: SocketAddr, translate: bool) -> Outcome<Self> {
        if let Who::Go = who {
            let mut command = Command::new(go::path(GO));
            command.args(["-backend", &format!("http://{backend}")]).stdout(Stdio::piped());
            if translate {
                command.arg("-translate");
            }
            let mut child = command.spawn()?;
            let mut line = String::new();
            BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
            return Ok(Self { address: line.trim().parse()?, running: Running::Process(child) });
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let running = Running::Thread(thread::spawn(move || {
            let (client, _) = listener.accept()?;
            client.set_nodelay(true)?;
            let before = thread_cpu();
            match who {
                Who::BareSplice => bare_splice(client, TcpStream::connect(backend)?)?,
                _ => Flavor::CurrentThread.runtime()?.block_on(pass(who, client, backend, translate))?,
            }
            Ok(thread_cpu().saturating_sub(before))
        }));
        Ok(Self { address, running })
    }

    /// Returns the CPU time that it used.
    fn end(self) -> Outcome<Duration> {
        match self.running {
            Running::Thread(thread) => thread.join().map_err(|_| "the proxy panicked")?,
            Running::Process(mut child) => {
                let cpu = process_cpu(child.id());
                child.kill()?;
                child.wait()?;
                cpu
            }
        }
    }
}

async fn pass(who: Who, client: TcpStream, backend: SocketAddr, translate: bool) -> Outcome<()> {
    client.set_nonblocking(true)?;
    let mut client = tokio::net::TcpStream::from_std(client)?;
    let mut backend = tokio::net::TcpStream::connect(backend).await?;
    backend.set_nodelay(true)?;
    if let Who::Tokio(size) = who {
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, size, size).await?;
        return Ok(());
    }
    let config = Config::default();
    let pending = upgrade::accept(client, &config).await?;
    let mut request = pending.to_pass_on();
    if translate {
        *request.method_mut() = Method::POST;
        // The headers of a WebSocket handshake mean nothing to SPDY.
        let headers = request.headers_mut();
        let names: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("sec-websocket")).cloned().collect();
        names.iter().for_each(|name| drop(headers.remove(name)));
        let backend = upgrade::connect(backend, request, Protocol::SPDY_EXEC, &config).await?;
        let client = pending.accept(Protocol::WEBSOCKET_EXEC_V5).await?;
        // The client has the status and may leave before the end.
        let _ = proxy::translate_exec(client, backend, Streams::PIPES, mux::Config::exec(), &exec::Options::default())
            .await;
        return Ok(());
    }
    let pipe = proxy::forward(pending, backend, request).await?;
    let moved = match who {
        Who::Splice => pipe.splice().await,
        _ => pipe.run().await,
    };
    moved.backend.map_or(Ok(()), |error| Err(error.into()))
}

fn bare_splice(mut client: TcpStream, mut backend: TcpStream) -> Outcome<()> {
    // The request is written by hand. Everything after it goes in one direction.
    read_head(&mut client)?;
    backend.write_all(REQUEST)?;
    let (reads, writes) = pipe()?;
    loop {
        let mut held = splice(&backend, None, &writes, None, 1 << 20, SpliceFlags::MOVE)?;
        if held == 0 {
            client.shutdown(std::net::Shutdown::Write)?;
            return Ok(());
        }
        while held > 0 {
            held -= splice(&reads, None, &client, None, held, SpliceFlags::MOVE)?;
        }
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The CPU time of all threads of a process, in ticks of 10 ms.
fn process_cpu(id: u32) -> Outcome<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
