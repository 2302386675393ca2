//! This crate at both ends of a long path: exec over SPDY and over WebSocket, and port-forward through the tunnel.
//!
//! Holds what is sent. The path is in memory, so that nothing but the windows and the delay limits a transfer.

use std::future::Future;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kubestream::exec::Streams;
use kubestream::mux::{Config, Driver, Multiplexer};
use kubestream::portforward::{PortForward, PortForwardServer};
use kubestream::status::ExitStatus;
use kubestream::upgrade::{Protocol, Upgraded, Version};
use support::distance::{Far, Path};

use bench_support::table::{Case, Part, Sample, Table, run_parts};
use bench_support::{Flavor, Outcome, aligned};

const BYTES: usize = 50_000_000;
const PIECE: usize = 32 * 1024;

/// The time of a transfer over each transport, for several round trips. The chart has those where everything may leave
/// at once.
pub(crate) fn distance() -> Outcome<Vec<Table>> {
    let mut parts = Vec::new();
    for (slow_start, paths) in [(false, "at once"), (true, "as TCP begins: twice as much in each round trip")] {
        for milliseconds in [0, 10, 50, 200] {
            let path = Path { slow_start, ..Path::new(Duration::from_millis(milliseconds)) };
            let mut cases = Vec::new();
            for to_server in [false, true] {
                let direction = if to_server { "to the server" } else { "to the client" };
                let base = format!("WebSocket v5, {direction}");
                let exec = |protocol| move || exec(path, protocol, to_server);
                let forward = move || forward(path, to_server);
                let mut push = |case: Case, name: String| {
                    cases.push(if slow_start { case } else { case.at(name, milliseconds as f64) });
                };
                push(Case::new(&base, None, exec(Protocol::WEBSOCKET_EXEC_V5[0])), base.clone());
                let spdy = format!("SPDY v4, {direction}");
                push(Case::new(&spdy, Some(&base), exec(Protocol::SpdyExec(Version::V4))), spdy);
                let tunnel = format!("tunnel, {direction}");
                push(Case::new(&tunnel, Some(&base), forward), tunnel);
            }
            parts.push(Part::new(format!("distance: 50 MB, a round trip of {milliseconds} ms, {paths}"), cases));
        }
    }
    run_parts(parts)
}

/// Runs both ends, each on a thread of its own, and returns the time from the client's start until the bytes have come.
fn timed<S, C, FS, FC>(path: Path, server: S, client: C) -> Outcome<Sample>
where
    S: FnOnce(Far) -> FS + Send + 'static,
    C: FnOnce(Far) -> FC,
    FS: Future<Output = Outcome<()>>,
    FC: Future<Output = Outcome<Duration>>,
{
    let flavor = Flavor::CurrentThread;
    let (near, far) = path.ends();
    let (ready, is_ready) = mpsc::channel();
    let serving = thread::spawn(move || {
        flavor.runtime()?.block_on(async move {
            let server = server(far);
            ready.send(())?;
            server.await
        })
    });
    is_ready.recv()?;
    let took = flavor.runtime()?.block_on(client(near));
    serving.join().map_err(|_| "the server panicked")??;
    let seconds = took?.as_secs_f64();
    Ok(Sample::new().with("seconds", seconds).with("MB/s", BYTES as f64 / seconds / 1e6))
}

type Running = tokio::task::JoinHandle<Result<(), kubestream::ConnectionError>>;

fn spawned((mux, driver): (Multiplexer, Driver<Far>)) -> (Multiplexer, Running) {
    (mux, tokio::spawn(driver))
}

fn upgraded(io: Far, protocol: Protocol) -> Upgraded<Far> {
    Upgraded::new(io, Bytes::new(), Some(protocol))
}

fn exec(path: Path, protocol: Protocol, to_server: bool) -> Outcome<Sample> {
    let server = move |io| async move {
        let (mux, driver) = spawned(Multiplexer::server(upgraded(io, protocol), Config::exec()));
        let mut session = mux.accept_exec(Streams::PIPES).await?;
        drop(mux);
        let mut stdin = session.stdin.take().ok_or("no stdin")?;
        let mut stdout = session.stdout.take().ok_or("no stdout")?;
        if to_server {
            let mut left = BYTES;
            while left > 0 {
                left -= stdin.data().await.ok_or("stdin ended")??.len();
            }
            stdout.send(Bytes::from_static(&[1])).await?;
        } else {
            for piece in pieces() {
                stdout.send(piece).await?;
            }
        }
        drop((stdin, stdout));
        session.exit(ExitStatus::Success).await?;
        Ok(driver.await??)
    };
    timed(path, server, move |io| async move {
        let began = Instant::now();
        let (mux, driver) = spawned(Multiplexer::client(upgraded(io, protocol), Config::exec()));
        let mut session = mux.exec(Streams::PIPES).await?;
        drop(mux);
        let mut stdin = session.stdin.take().ok_or("no stdin")?;
        let mut stdout = session.stdout.take().ok_or("no stdout")?;
        if to_server {
            for piece in pieces() {
                stdin.send(piece).await?;
            }
            stdout.data().await.ok_or("no answer")??;
        } else {
            let mut left = BYTES;
            while left > 0 {
                left -= stdout.data().await.ok_or("stdout ended")??.len();
            }
        }
        let took = began.elapsed();
        drop((stdin, stdout));
        session.wait().await?;
        drop(session);
        driver.await??;
        Ok(took)
    })
}

fn forward(path: Path, to_server: bool) -> Outcome<Sample> {
    let protocol = Protocol::TunneledPortForward;
    let server = move |io| async move {
        let (mux, driver) = spawned(Multiplexer::server(upgraded(io, protocol), Config::default()));
        let mut server = PortForwardServer::new(mux)?;
        let mut connection = server.accept().await.ok_or("nobody connects")??.accept();
        if to_server {
            let mut left = BYTES;
            while left > 0 {
                left -= connection.data().await.ok_or("the connection ended")??.len();
            }
            connection.send(Bytes::from_static(&[1])).await?;
        } else {
            for piece in pieces() {
                connection.send(piece).await?;
            }
        }
        connection.finish();
        while connection.data().await.transpose()?.is_some() {}
        drop((connection, server));
        Ok(driver.await??)
    };
    timed(path, server, move |io| async move {
        let began = Instant::now();
        let (mux, driver) = spawned(Multiplexer::client(upgraded(io, protocol), Config::default()));
        let forward = PortForward::new(mux)?;
        let mut connection = forward.connect(1).await?;
        if to_server {
            for piece in pieces() {
                connection.send(piece).await?;
            }
            connection.data().await.ok_or("no answer")??;
        } else {
            let mut left = BYTES;
            while left > 0 {
                left -= connection.data().await.ok_or("the connection ended")??.len();
            }
        }
        let took = began.elapsed();
        connection.finish();
        while connection.data().await.transpose()?.is_some() {}
        drop((connection, forward));
        driver.await??;
        Ok(took)
    })
}

/// The bytes of a transfer, piece by piece.
fn pieces() -> impl Iterator<Item = Bytes> {
    let piece = aligned(PIECE);
    (0..BYTES).step_by(PIECE).map(move |at| piece.slice(..PIECE.min(BYTES - at)))
}
