//! What a local port costs at least: a plain TCP server, and between it and its client a forwarder that copies.
//!
//! Holds the floor for the forwarders of `local.rs`. It frames nothing, and connects once for each connection.

use std::net::SocketAddr;
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use bench_support::{Flavor, Outcome, Plan, Serving, aligned};

/// The buffer of each direction, as large as tokio's users choose it at most.
const BUFFER: usize = 64 * 1024;

/// A server or a forwarder on a thread of its own, until it is dropped.
pub(crate) struct Plain {
    pub(crate) ports: [u16; 2],
    _stop: oneshot::Sender<()>,
    _threads: [Serving; 2],
}

impl Plain {
    /// Starts a server, and a forwarder before it. The first port gives a transfer, and the second one echoes.
    pub(crate) fn start(plan: Plan) -> Outcome<Self> {
        let (stop_server, server_stopped) = oneshot::channel();
        let (behind, server) = listening(server_stopped, move |at, io| async move {
            if at == 0 { give(io, plan).await } else { echo(io).await }
        })?;
        let (stop, stopped) = oneshot::channel();
        let (ports, forwarder) = listening(stopped, move |at, io| {
            // The server ends with its forwarder.
            let _until = &stop_server;
            forward(io, behind[at])
        })?;
        Ok(Self { ports: ports.map(|address| address.port()), _stop: stop, _threads: [server, forwarder] })
    }
}

/// Listens on two ports, and serves the connections of each.
fn listening<S, F>(mut stopped: oneshot::Receiver<()>, serve: S) -> Outcome<([SocketAddr; 2], Serving)>
where
    S: Fn(usize, TcpStream) -> F + Send + 'static,
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    let bind = || -> Outcome<std::net::TcpListener> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let listeners = [bind()?, bind()?];
    let addresses = [listeners[0].local_addr()?, listeners[1].local_addr()?];
    let thread = thread::spawn(move || {
        Flavor::CurrentThread.runtime()?.block_on(async move {
            let [first, second] = listeners;
            let (first, second) = (TcpListener::from_std(first)?, TcpListener::from_std(second)?);
            loop {
                let (at, (io, _)) = tokio::select! {
                    _ = &mut stopped => return Ok(()),
                    accepted = first.accept() => (0, accepted?),
                    accepted = second.accept() => (1, accepted?),
                };
                io.set_nodelay(true)?;
                tokio::spawn(serve(at, io));
            }
        })
    });
    Ok((addresses, thread))
}

async fn forward(mut io: TcpStream, to: SocketAddr) -> Outcome<()> {
    let mut server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut io, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}

async fn give(mut io: TcpStream, plan: Plan) -> Outcome<()> {
    let data = aligned(plan.size);
    for part in [plan.warm_up(), plan] {
        io.read_u8().await?;
        for _ in 0..part.writes() {
            io.write_all(&data).await?;
        }
    }
    io.shutdown().await?;
    Ok(())
}

async fn echo(mut io: TcpStream) -> Outcome<()> {
    let mut bytes = [0; 64];
    loop {
        match io.read(&mut bytes).await? {
            0 => break,
            count => io.write_all(&bytes[..count]).await?,
        }
    }
    io.shutdown().await?;
    Ok(())
}
