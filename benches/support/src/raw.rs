//! The same work on plain TCP, with a system call for each write.
//!
//! Holds the baselines. They must write and read as the cases do: the same sizes, page-aligned buffers, TCP_NODELAY.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::table::Sample;
use super::{Flavor, Meter, Outcome, PAGE, Plan, aligned, aligned_mut, ends, latencies};

const READ: usize = 256 * 1024;

/// Blocking calls, without a runtime.
pub fn std_bulk(plan: Plan) -> Outcome<Sample> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> std::io::Result<()> {
        let (mut io, _) = listener.accept()?;
        let mut block = vec![0; READ + PAGE];
        let buffer = aligned_mut(&mut block, READ);
        for part in [plan.warm_up(), plan] {
            let mut left = part.bytes;
            while left > 0 {
                let most = left.min(READ);
                left -= io.read(&mut buffer[..most])?;
            }
            io.write_all(&[1])?;
        }
        Ok(())
    });
    let mut io = std::net::TcpStream::connect(address)?;
    io.set_nodelay(true)?;
    let data = aligned(plan.size);
    let mut meter = Meter::start();
    for part in [plan.warm_up(), plan] {
        meter = Meter::start();
        for _ in 0..part.writes() {
            io.write_all(&data)?;
        }
        io.read_exact(&mut [0])?;
    }
    let sample = meter.transferred(plan);
    io.shutdown(Shutdown::Both)?;
    server.join().map_err(|_| "the server panicked")??;
    Ok(sample)
}

/// A transfer on tokio.
pub fn bulk(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let server = move |mut io: TcpStream| async move {
        let mut block = vec![0; READ + PAGE];
        let buffer = aligned_mut(&mut block, READ);
        for part in [plan.warm_up(), plan] {
            let mut left = part.bytes;
            while left > 0 {
                let most = left.min(READ);
                left -= io.read(&mut buffer[..most]).await?;
            }
            io.write_all(&[1]).await?;
        }
        Ok(())
    };
    ends(flavor, server, move |mut io| async move {
        let data = aligned(plan.size);
        let mut meter = Meter::start();
        for part in [plan.warm_up(), plan] {
            meter = Meter::start();
            for _ in 0..part.writes() {
                io.write_all(&data).await?;
            }
            io.read_u8().await?;
        }
        Ok(meter.transferred(plan))
    })
}

/// Round trips of one byte.
pub fn echo(flavor: Flavor) -> Outcome<Sample> {
    let server = move |mut io: TcpStream| async move {
        let mut byte = [0];
        while io.read(&mut byte).await? > 0 {
            io.write_all(&byte).await?;
        }
        Ok(())
    };
    ends(flavor, server, move |mut io| async move {
        let mut byte = [7];
        let mut taken = Vec::new();
        for trip in 0..WARM_UP + ECHOES {
            let began = Instant::now();
            io.write_all(&byte).await?;
            io.read_exact(&mut byte).await?;
            if trip >= WARM_UP {
                taken.push(began.elapsed());
            }
        }
        Ok(latencies(taken))
    })
}

/// Successive connections that carry one byte each way, and end at both ends.
pub fn connections(flavor: Flavor, number: usize) -> Outcome<Sample> {
    let server = move |mut io: TcpStream| async move {
        // The first connection only transmits the address for the others.
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        io.write_u16(listener.local_addr()?.port()).await?;
        for _ in 0..number {
            let (mut io, _) = listener.accept().await?;
            io.set_nodelay(true)?;
            let byte = io.read_u8().await?;
            io.write_u8(byte).await?;
            io.shutdown().await?;
        }
        Ok(())
    };
    ends(flavor, server, move |mut io| async move {
        let port = io.read_u16().await?;
        let began = Instant::now();
        for _ in 0..number {
            let mut io = TcpStream::connect(("127.0.0.1", port)).await?;
            io.set_nodelay(true)?;
            io.write_u8(7).await?;
            io.shutdown().await?;
            io.read_u8().await?;
            if io.read(&mut [0]).await? > 0 {
                return Err("more than the echo".into());
            }
        }
        Ok(Sample::new().with("ops/s", number as f64 / began.elapsed().as_secs_f64()))
    })
}

/// How many round trips come before those that are measured.
pub const WARM_UP: usize = 1_000;
/// How many round trips are measured.
pub const ECHOES: usize = 8_000;
