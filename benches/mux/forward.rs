//! Port-forward with this crate at both ends: over SPDY, and through the WebSocket tunnel.
//!
//! Holds the server behind the ports: port 1 takes a transfer, and any other port echoes.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Connection, PortForward, PortForwardServer};
use kubestream::upgrade::{Protocol, Upgraded};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use bench_support::table::Sample;
use bench_support::{Flavor, Meter, Outcome, Plan, aligned, ends};

const TAKES: u16 = 1;
const ECHOES: u16 = 2;
pub(crate) const CONNECTIONS: usize = 8_000;

/// One connection takes the whole transfer.
pub(crate) fn bulk(flavor: Flavor, protocol: Protocol, plan: Plan) -> Outcome<Sample> {
    ends(flavor, serve(protocol, plan), move |io| async move {
        let (forward, driver) = client(io, protocol)?;
        let data = aligned(plan.size);
        let mut connection = forward.connect(TAKES).await?;
        let mut meter = Meter::start();
        for part in [plan.warm_up(), plan] {
            meter = Meter::start();
            for _ in 0..part.writes() {
                connection.send(data.clone()).await?;
            }
            connection.data().await.ok_or("no answer")??;
        }
        let sample = meter.transferred(plan);
        connection.finish();
        if connection.data().await.is_some() {
            return Err("more than an answer".into());
        }
        drop((connection, forward));
        driver.await??;
        Ok(sample)
    })
}

/// Connections that carry one byte each way, and end at both ends.
pub(crate) fn connections(flavor: Flavor, protocol: Protocol, at_once: usize) -> Outcome<Sample> {
    ends(flavor, serve(protocol, Plan::default()), move |io| async move {
        let (forward, driver) = client(io, protocol)?;
        let forward = Arc::new(forward);
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..at_once {
            let forward = Arc::clone(&forward);
            clients.spawn(async move {
                for _ in 0..CONNECTIONS / at_once {
                    let mut connection = forward.connect(ECHOES).await?;
                    connection.send(Bytes::from_static(&[7])).await?;
                    connection.finish();
                    connection.data().await.ok_or("no echo")??;
                    if connection.data().await.is_some() {
                        return Err("more than the echo".into());
                    }
                }
                Outcome::Ok(())
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        let sample = Sample::new().with("ops/s", CONNECTIONS as f64 / began.elapsed().as_secs_f64());
        drop(forward);
        driver.await??;
        Ok(sample)
    })
}

type Driver = tokio::task::JoinHandle<Result<(), kubestream::ConnectionError>>;

fn client(io: TcpStream, protocol: Protocol) -> Outcome<(PortForward, Driver)> {
    let (mux, driver) = Multiplexer::client(Upgraded::new(io, Bytes::new(), Some(protocol)), Config::default());
    Ok((PortForward::new(mux)?, tokio::spawn(driver)))
}

fn serve(
    protocol: Protocol,
    plan: Plan,
) -> impl FnOnce(TcpStream) -> futures_util::future::BoxFuture<'static, Outcome<()>> {
    move |io| {
        Box::pin(async move {
            let (mux, driver) = Multiplexer::server(Upgraded::new(io, Bytes::new(), Some(protocol)), Config::default());
            let driver = tokio::spawn(driver);
            let mut server = PortForwardServer::new(mux)?;
            while let Some(request) = server.accept().await.transpose()? {
                let takes = request.port() == TAKES;
                let connection = request.accept();
                tokio::spawn(async move { if takes { take(connection, plan).await } else { echo(connection).await } });
            }
            drop(server);
            Ok(driver.await??)
        })
    }
}

async fn take(mut connection: Connection, plan: Plan) -> Outcome<()> {
    for part in [plan.warm_up(), plan] {
        let mut left = part.bytes;
        while left > 0 {
            left -= connection.data().await.ok_or("the connection ended early")??.len();
        }
        connection.send(Bytes::from_static(&[1])).await?;
    }
    connection.finish();
    match connection.data().await {
        None => Ok(()),
        Some(_) => Err("more than the plan".into()),
    }
}

async fn echo(mut connection: Connection) -> Outcome<()> {
    while let Some(data) = connection.data().await.transpose()? {
        connection.send(data).await?;
    }
    connection.finish();
    Ok(())
}
