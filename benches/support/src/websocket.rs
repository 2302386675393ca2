//! This crate at both ends of an exec over WebSocket v5: 32 KiB to the server on stdin, or to the client on stdout.
//!
//! Defines what a command does at the server, so that other clients can ask for the same. Each transfer runs twice, and
//! the first only warms up.

use std::time::Instant;

use bytes::Bytes;
use kubestream::exec::{Exec, ExecRequest, ExecServer, Reader, Streams};
use kubestream::mux::{Config, Multiplexer, SendHalf};
use kubestream::status::ExitStatus;
use kubestream::upgrade::{self, Protocol};
use tokio::net::TcpStream;

use super::raw::{ECHOES, WARM_UP};
use super::table::Sample;
use super::{Flavor, Meter, Outcome, Plan, aligned, ends, latencies};

/// `read BYTES BYTES`: reads that much stdin and then writes one byte, twice.
pub fn to_server_command(plan: Plan) -> Vec<String> {
    vec!["read".to_owned(), plan.warm_up().bytes.to_string(), plan.bytes.to_string()]
}

/// `write SIZE BYTES BYTES`: waits for one byte and then writes that much to stdout, twice.
pub fn to_client_command(plan: Plan) -> Vec<String> {
    vec!["write".to_owned(), plan.size.to_string(), plan.warm_up().bytes.to_string(), plan.bytes.to_string()]
}

/// Echoes stdin until its end.
pub fn echo_command() -> Vec<String> {
    vec!["echo".to_owned()]
}

/// A transfer to the server, on stdin.
pub fn to_server(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    ends(flavor, serve, move |io| async move {
        let mut session = Session::open(io, to_server_command(plan)).await?;
        let data = aligned(plan.size);
        let mut meter = Meter::start();
        for part in [plan.warm_up(), plan] {
            meter = Meter::start();
            for _ in 0..part.writes() {
                session.stdin.send(data.clone()).await?;
            }
            session.stdout.data().await.ok_or("no answer")??;
        }
        let sample = meter.transferred(plan);
        session.end().await?;
        Ok(sample)
    })
}

/// A transfer to the client, on stdout.
pub fn to_client(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    ends(flavor, serve, move |io| take(io, plan))
}

/// The client of a transfer to the client.
pub async fn take(io: TcpStream, plan: Plan) -> Outcome<Sample> {
    let mut session = Session::open(io, to_client_command(plan)).await?;
    let mut meter = Meter::start();
    for part in [plan.warm_up(), plan] {
        meter = Meter::start();
        session.stdin.send(Bytes::from_static(&[1])).await?;
        let mut left = part.bytes;
        while left > 0 {
            left -= session.stdout.data().await.ok_or("stdout ended")??.len();
        }
    }
    let sample = meter.transferred(plan);
    session.end().await?;
    Ok(sample)
}

/// Round trips of one byte.
pub fn echo(flavor: Flavor) -> Outcome<Sample> {
    ends(flavor, serve, move |io| async move {
        let mut session = Session::open(io, echo_command()).await?;
        let byte = Bytes::from_static(&[7]);
        let mut taken = Vec::new();
        for trip in 0..WARM_UP + ECHOES {
            let began = Instant::now();
            session.stdin.send(byte.clone()).await?;
            session.stdout.data().await.ok_or("the echo ended")??;
            if trip >= WARM_UP {
                taken.push(began.elapsed());
            }
        }
        session.end().await?;
        Ok(latencies(taken))
    })
}

/// The client.
struct Session {
    exec: Exec,
    stdin: SendHalf,
    stdout: Reader,
}

impl Session {
    async fn open(io: TcpStream, command: Vec<String>) -> Outcome<Self> {
        let mut exec = connect(io, command).await?;
        let stdin = exec.stdin.take().ok_or("no stdin")?;
        let stdout = exec.stdout.take().ok_or("no stdout")?;
        Ok(Self { exec, stdin, stdout })
    }

    async fn end(mut self) -> Outcome<()> {
        drop((self.stdin, self.stdout));
        let status = self.exec.wait().await?;
        if status.success() { Ok(()) } else { Err(format!("the command: {status:?}").into()) }
    }
}

/// Starts a session that runs a command, and spawns its driver.
pub async fn connect(io: TcpStream, command: Vec<String>) -> Outcome<Exec> {
    let query = ExecRequest::new(command, Streams::PIPES).to_query();
    let url = format!("http://{}{}?{query}", io.peer_addr()?, PATH);
    let request = http::Request::get(url).body(())?;
    let upgraded = upgrade::connect(io, request, Protocol::WEBSOCKET_EXEC_V5, &upgrade::Config::default()).await?;
    let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
    tokio::spawn(driver);
    Ok(mux.exec(Streams::PIPES).await?)
}

/// Where the server is asked for a session.
pub const PATH: &str = "/api/v1/namespaces/default/pods/demo/exec";

/// The server, until everything is sent. It also serves SPDY, for a translator.
pub async fn serve(io: TcpStream) -> Outcome<()> {
    let pending = upgrade::accept(io, &upgrade::Config::default()).await?;
    let request = ExecRequest::from_query(pending.request().uri().query().unwrap_or_default())?;
    let upgraded = pending.accept(Protocol::ANY_EXEC).await?;
    let (mux, driver) = Multiplexer::server(upgraded, Config::exec());
    let driver = tokio::spawn(driver);
    let session = mux.accept_exec(request.streams).await?;
    drop(mux);
    let words: Vec<&str> = request.command.iter().map(String::as_str).collect();
    act(session, &words).await?;
    // The client has the status and may leave before the Close.
    let _ = driver.await?;
    Ok(())
}

async fn act(mut session: ExecServer, command: &[&str]) -> Outcome<()> {
    let stdin = session.stdin.take().ok_or("no stdin")?;
    let stdout = session.stdout.take().ok_or("no stdout")?;
    match *command {
        ["hold"] => return hold(session).await,
        ["read", warm_up, bytes] => read(stdin, stdout, [warm_up.parse()?, bytes.parse()?]).await?,
        ["write", size, warm_up, bytes] => {
            write(stdin, stdout, size.parse()?, [warm_up.parse()?, bytes.parse()?]).await?;
        }
        ["echo"] => say_again(stdin, stdout).await?,
        _ => return Err("an unknown command".into()),
    }
    // A client that leaves without a goodbye when it has the status, as kube does, has finished measuring.
    let _ = session.exit(ExitStatus::Success).await;
    Ok(())
}

/// Keeps an idle session open.
async fn hold(session: ExecServer) -> Outcome<()> {
    session.client_gone().await;
    Ok(())
}

async fn read(mut stdin: Reader, mut stdout: SendHalf, parts: [usize; 2]) -> Outcome<()> {
    for bytes in parts {
        let mut left = bytes;
        while left > 0 {
            left -= stdin.data().await.ok_or("stdin ended")??.len();
        }
        stdout.send(Bytes::from_static(&[1])).await?;
    }
    Ok(())
}

async fn write(mut stdin: Reader, mut stdout: SendHalf, size: usize, parts: [usize; 2]) -> Outcome<()> {
    let data = aligned(size);
    for bytes in parts {
        stdin.data().await.ok_or("stdin ended")??;
        for _ in 0..bytes / size {
            stdout.send(data.clone()).await?;
        }
    }
    Ok(())
}

async fn say_again(mut stdin: Reader, mut stdout: SendHalf) -> Outcome<()> {
    while let Some(data) = stdin.data().await.transpose()? {
        stdout.send(data).await?;
    }
    Ok(())
}
