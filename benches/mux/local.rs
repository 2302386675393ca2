//! Forwarded local ports as their users see them: by this crate's `Forwarder` and by client-go's, to the same server of
//! this crate.
//!
//! Holds the forwarders and the server behind the ports: one port sends a transfer, and one echoes. Each forwarder has
//! a thread or a process of its own, between those of the client and the server.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use http::Method;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Connection, Forwarder, PortForward, PortForwardServer};
use kubestream::upgrade::{self, Protocol, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::go;
use crate::plain::Plain;
use bench_support::table::Sample;
use bench_support::{Flavor, Outcome, PAGE, Plan, Serving, aligned, aligned_mut, serve_one};

pub(crate) const CLIENT_GO: &str = "client-go-forward";
pub(crate) const CONNECTIONS: usize = 2_000;

const GIVES: u16 = 1;
const ECHOES: u16 = 2;
const PATH: &str = "/api/v1/namespaces/default/pods/demo/portforward";

/// Which forwarder is measured.
#[derive(Clone, Copy)]
pub(crate) enum Who {
    Ours(Protocol),
    ClientGo(Protocol),
    /// A copy from one plain connection to another.
    Plain,
}

/// One connection receives the whole transfer, and asks for each part with a byte.
pub(crate) fn download(who: Who, plan: Plan) -> Outcome<Sample> {
    forwarded(who, plan, move |ports| async move {
        let mut tcp = dial(ports[0]).await?;
        const READ: usize = 256 * 1024;
        let mut block = vec![0; READ + PAGE];
        let buffer = aligned_mut(&mut block, READ);
        let mut seconds = 0.0;
        for part in [plan.warm_up(), plan] {
            let began = Instant::now();
            tcp.write_u8(1).await?;
            let mut left = part.bytes;
            while left > 0 {
                let most = left.min(READ);
                match tcp.read(&mut buffer[..most]).await? {
                    0 => return Err("the connection ended early".into()),
                    count => left -= count,
                }
            }
            seconds = began.elapsed().as_secs_f64();
        }
        tcp.shutdown().await?;
        match tcp.read(&mut buffer[..1]).await? {
            0 => Ok(Sample::new().with("GB/s", plan.bytes as f64 / seconds / 1e9)),
            _ => Err("more than the plan".into()),
        }
    })
}

/// Connections that carry one byte each way, and end at both ends.
pub(crate) fn connections(who: Who, at_once: usize) -> Outcome<Sample> {
    forwarded(who, Plan::default(), move |ports| async move {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..at_once {
            clients.spawn(async move {
                for _ in 0..CONNECTIONS / at_once {
                    let mut tcp = dial(ports[1]).await?;
                    tcp.write_u8(7).await?;
                    tcp.shutdown().await?;
                    tcp.read_u8().await?;
                    if tcp.read(&mut [0]).await? > 0 {
                        return Err("more than the echo".into());
                    }
                }
                Outcome::Ok(())
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(Sample::new().with("ops/s", CONNECTIONS as f64 / began.elapsed().as_secs_f64()))
    })
}

async fn dial(port: u16) -> std::io::Result<TcpStream> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Runs a client of the two local ports, with everything behind them.
fn forwarded<C, F>(who: Who, plan: Plan, client: C) -> Outcome<Sample>
where
    C: FnOnce([u16; 2]) -> F,
    F: Future<Output = Outcome<Sample>>,
{
    let flavor = Flavor::CurrentThread;
    match who {
        Who::Ours(protocol) => {
            let (address, server) = serve_one(flavor, move |io| serve(io, protocol, plan))?;
            let ours = Ours::start(address, protocol)?;
            let sample = flavor.runtime()?.block_on(client(ours.ports))?;
            ours.stop()?;
            server.join().map_err(|_| "the server panicked")??;
            Ok(sample)
        }
        Who::ClientGo(protocol) => {
            let (address, server) = serve_one(flavor, move |io| serve(io, protocol, plan))?;
            let (theirs, ports) = ClientGo::start(address, protocol)?;
            let sample = flavor.runtime()?.block_on(client(ports))?;
            drop(theirs);
            server.join().map_err(|_| "the server panicked")??;
            Ok(sample)
        }
        Who::Plain => {
            let plain = Plain::start(plan)?;
            flavor.runtime()?.block_on(client(plain.ports))
        }
    }
}

struct Ours {
    ports: [u16; 2],
    stop: oneshot::Sender<()>,
    forwarding: Serving,
}

impl Ours {
    fn start(server: SocketAddr, protocol: Protocol) -> Outcome<Self> {
        let (stop, stopped) = oneshot::channel();
        let (say, said) = std::sync::mpsc::channel();
        let forwarding = thread::spawn(move || {
            Flavor::CurrentThread.runtime()?.block_on(async move {
                let method = if protocol.transport() == Transport::WebSocket { Method::GET } else { Method::POST };
                let request = http::Request::builder().method(method).uri(format!("http://{server}{PATH}")).body(())?;
                let io = dial(server.port()).await?;
                let upgraded = upgrade::connect(io, request, &[protocol], &upgrade::Config::default()).await?;
                let (mux, driver) = Multiplexer::client(upgraded, Config::default());
                let driver = tokio::spawn(driver);
                let forward = Arc::new(PortForward::new(mux)?);
                let ports = [format!(":{GIVES}").parse()?, format!(":{ECHOES}").parse()?];
                let mut forwarder = Forwarder::bind(&[server.ip()], &ports).await?;
                say.send(forwarder.listening().map(|(local, _)| local.port()).collect::<Vec<_>>())?;
                let accepting = async {
                    loop {
                        let (socket, _, ports) = forwarder.accept().await?;
                        let forward = Arc::clone(&forward);
                        tokio::spawn(async move { forward.forward(socket, ports.remote).await });
                    }
                };
                let ended: Outcome<()> = tokio::select! {
                    ended = accepting => ended,
                    _ = stopped => Ok(()),
                };
                drop(forward);
                // The server may have gone before the goodbye.
                let _ = driver.await?;
                ended
            })
        });
        let Ok(ports) = said.recv() else {
            forwarding.join().map_err(|_| "the forwarder panicked")??;
            return Err("the forwarder ended early".into());
        };
        Ok(Self { ports: two(&ports)?, stop, forwarding })
    }

    fn stop(self) -> Outcome<()> {
        // The forwarder may have failed, and then reports that itself.
        let _ = self.stop.send(());
        self.forwarding.join().map_err(|_| "the forwarder panicked")?
    }
}

struct ClientGo(Child);

impl ClientGo {
    fn start(server: SocketAddr, protocol: Protocol) -> Outcome<(Self, [u16; 2])> {
        let mut command = Command::new(go::path(CLIENT_GO));
        command.args(["-url", &format!("http://{server}{PATH}"), "-ports", &format!("0:{GIVES},0:{ECHOES}")]);
        if protocol == Protocol::TunneledPortForward {
            command.arg("-tunnel");
        }
        let mut process = Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        if let Some(output) = process.0.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let ports = line.split_whitespace().map(str::parse).collect::<Result<Vec<u16>, _>>()?;
        Ok((process, two(&ports)?))
    }
}

impl Drop for ClientGo {
    fn drop(&mut self) {
        // The process ends when its stdin ends.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn two(ports: &[u16]) -> Outcome<[u16; 2]> {
    Ok(ports.try_into().map_err(|_| format!("two local ports, not {ports:?}"))?)
}

async fn serve(io: TcpStream, protocol: Protocol, plan: Plan) -> Outcome<()> {
    let upgraded = upgrade::accept(io, &upgrade::Config::default()).await?.accept(&[protocol]).await?;
    let (mux, driver) = Multiplexer::server(upgraded, Config::default());
    let driver = tokio::spawn(driver);
    let mut server = PortForwardServer::new(mux)?;
    // client-go may end in any way.
    while let Some(Ok(request)) = server.accept().await {
        let gives = request.port() == GIVES;
        let connection = request.accept();
        tokio::spawn(async move { if gives { give(connection, plan).await } else { echo(connection).await } });
    }
    drop(server);
    let _ = driver.await?;
    Ok(())
}

async fn give(mut connection: Connection, plan: Plan) -> Outcome<()> {
    let data = aligned(plan.size);
    for part in [plan.warm_up(), plan] {
        connection.data().await.ok_or("nobody asks")??;
        for _ in 0..part.writes() {
            connection.send(data.clone()).await?;
        }
    }
    if connection.data().await.transpose()?.is_some() {
        return Err("more than was asked for".into());
    }
    connection.finish();
    Ok(())
}

async fn echo(mut connection: Connection) -> Outcome<()> {
    while let Some(data) = connection.data().await.transpose()? {
        connection.send(data).await?;
    }
    connection.finish();
    Ok(())
}
