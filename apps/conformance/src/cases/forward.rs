//! Port-forward: connections to ports of the pod.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Connection, Error, PortForward};
use sha2::{Digest, Sha256};

use super::output::{hex, sum_of_lines};
use crate::bench::{Bench, within};
use crate::known;
use crate::verdict::{Departure, Instead, Outcome, expect, failed};

const LINE: &[u8] = b"through kubestream to a port\n";

fn echo_port(bench: &Bench) -> Outcome<u16> {
    bench
        .target
        .pod
        .echo
        .ok_or_else(|| Departure::NotOffered("no --echo-port was given, which would send back what it receives".into()))
}

async fn session(bench: &Bench, ports: &[u16]) -> Outcome<PortForward> {
    let url = bench.forward_url(ports);
    let protocol = bench.column.protocol;
    let upgraded = bench.offer(&url, &[protocol]).await?.instead_of("an upgrade")?;
    let mut config = Config::default();
    config.keepalive_interval = Some(bench.scale.keepalive);
    let (mux, driver) = Multiplexer::client(upgraded, config);
    tokio::spawn(async { drop(driver.await) });
    PortForward::new(mux).instead_of("a port-forward")
}

/// Connections to the echo port.
struct Echo {
    bench: Bench,
    port: u16,
    /// The one session of all connections, where the protocol allows that.
    shared: Option<Arc<PortForward>>,
}

/// One connection, and the session that it needs.
struct Echoing {
    connection: Connection,
    _forward: Arc<PortForward>,
}

impl Echo {
    async fn new(bench: &Bench) -> Outcome<Self> {
        let port = echo_port(bench)?;
        let shared = if bench.column.names_ports() { None } else { Some(Arc::new(session(bench, &[port]).await?)) };
        Ok(Self { bench: bench.clone(), port, shared })
    }

    async fn connect(&self) -> Outcome<Echoing> {
        let forward = match &self.shared {
            Some(forward) => Arc::clone(forward),
            None => Arc::new(session(&self.bench, &[self.port]).await?),
        };
        let connection = within("a connection", self.bench.scale.patience, forward.connect(self.port)).await?;
        Ok(Echoing { connection: connection.instead_of("a connection")?, _forward: forward })
    }
}

impl Echoing {
    async fn say(&mut self, bench: &Bench, text: &str) -> Outcome {
        self.connection.send(Bytes::from(text.to_owned())).await.instead_of("a connection that takes bytes")?;
        let mut came = Vec::new();
        let heard = async {
            while came.len() < text.len() {
                match self.connection.data().await {
                    Some(data) => came.extend_from_slice(&data.instead_of("bytes")?),
                    None => return Err(failed(format_args!("{text:?}"), "the end")),
                }
            }
            Ok(())
        };
        within(&format!("{text:?} back"), bench.scale.patience, heard).await??;
        expect(String::from_utf8_lossy(&came).as_ref(), text)
    }
}

pub(super) async fn echo(bench: Bench) -> Outcome {
    let mut connection = Echo::new(&bench).await?.connect().await?;
    for number in 0..10 {
        connection.say(&bench, &format!("line {number}")).await?;
    }
    Ok(())
}

/// Sends lines of this total length and reads as many bytes back, with or without ending its own direction.
async fn there_and_back(bench: &Bench, Echoing { connection, _forward }: Echoing, len: usize, ends: bool) -> Outcome {
    let (mut from, mut to) = tokio::io::split(connection);
    let sending = async {
        use tokio::io::AsyncWriteExt;
        let many = LINE.repeat(1000);
        let mut left = len;
        while left > 0 {
            let piece = &many[..many.len().min(left)];
            to.write_all(piece).await?;
            left -= piece.len();
        }
        to.flush().await?;
        if ends { to.shutdown().await } else { Ok(()) }
    };
    let reading = async {
        use tokio::io::AsyncReadExt;
        let (mut sum, mut came, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(read) => read,
                Err(error) => return Err(failed("the rest", format_args!("{error} after {came} bytes"))),
            };
            sum.update(&buffer[..read]);
            came += read;
            if read == 0 || came >= len && !ends {
                return Ok((came, hex(&sum.finalize())));
            }
        }
    };
    let both = async { tokio::join!(sending, reading) };
    let (sent, came) = within("all of it", bench.scale.deadline, both).await?;
    let came = came?;
    sent.instead_of("a connection that takes bytes")?;
    expect(came, sum_of_lines(LINE, len))
}

pub(super) async fn half_close(bench: Bench) -> Outcome {
    echo_port(&bench)?;
    if bench.column.names_ports() {
        return Err(Departure::NotOffered("legacy port-forward has no half-close".into()));
    }
    let echo = Echo::new(&bench).await?;
    let connection = echo.connect().await?;
    there_and_back(&bench, connection, 1_000_000, true).await
}

pub(super) async fn large(bench: Bench) -> Outcome {
    let connection = Echo::new(&bench).await?.connect().await?;
    there_and_back(&bench, connection, bench.scale.megabytes * 1_000_000, false).await
}

pub(super) async fn refused(bench: Bench) -> Outcome {
    let (open, closed) = (echo_port(&bench)?, bench.target.pod.refused);
    let forward = Arc::new(session(&bench, &[closed, open]).await?);
    let failing = async {
        let mut connection = forward.connect(closed).await?;
        // Where the server replies to both streams before it dials, the error comes with the first read.
        match connection.data().await {
            Some(Err(error)) => Err(error),
            Some(Ok(data)) => Ok(format!("{data:?}")),
            None => Ok("an orderly end of the data stream".to_owned()),
        }
    };
    match within("a reason", bench.scale.patience, failing).await? {
        Err(Error::Failed { reason, .. }) if !reason.is_empty() => {}
        Err(error) => return Err(failed("a reason on the error stream", error)),
        Ok(came) => return Err(failed("a reason on the error stream", came)),
    }
    let connection =
        within("another connection of the same session", bench.scale.patience, forward.connect(open)).await?;
    let connection = connection.instead_of("another connection of the same session")?;
    Echoing { connection, _forward: forward }.say(&bench, "beside it").await
}

pub(super) async fn many(bench: Bench) -> Outcome {
    let echo = Echo::new(&bench).await?;
    let mut connections = try_join_all((0..bench.scale.connections).map(|_| echo.connect())).await?;
    // All connections are open before the first of them ends.
    for round in ["first", "second"] {
        let said = connections.iter_mut().enumerate().map(|(number, connection)| {
            let (bench, text) = (&bench, format!("{round} of connection {number}"));
            async move { connection.say(bench, &text).await }
        });
        try_join_all(said).await.map_err(|departure| {
            if bench.target.pod.takes_many { departure } else { departure.known_silence(&known::CROWDED) }
        })?;
    }
    Ok(())
}

pub(super) async fn one_by_one(bench: Bench) -> Outcome {
    let echo = Echo::new(&bench).await?;
    for number in 0..bench.scale.connections {
        let mut connection = echo.connect().await?;
        connection.say(&bench, &format!("connection {number}")).await?;
    }
    Ok(())
}

pub(super) async fn broken_off(bench: Bench) -> Outcome {
    let echo = Echo::new(&bench).await?;
    let mut lives = echo.connect().await?;
    for number in 0..10 {
        let mut broken = echo.connect().await?;
        // Many bytes are on their way when the connection is dropped.
        let sent = broken.connection.send(Bytes::from(LINE.repeat(10_000)));
        within("room for the bytes", bench.scale.patience, sent).await?.instead_of("a connection that takes bytes")?;
        drop(broken);
        lives.say(&bench, &format!("after {number} connections that have ended")).await?;
    }
    Ok(())
}

pub(super) async fn idle(bench: Bench) -> Outcome {
    let mut connection = Echo::new(&bench).await?.connect().await?;
    connection.say(&bench, "before").await?;
    tokio::time::sleep(bench.scale.idle).await;
    connection.say(&bench, "after").await
}
