//! kube's `Api::<Pod>::exec` as the client of this library's server.
//!
//! Does the same work through kube's pipes, the only access that kube offers.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, AttachedProcess};
use kube::{Api, Client, Config};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use bench_support::raw::{ECHOES, WARM_UP};
use bench_support::table::Sample;
use bench_support::{Flavor, Meter, Outcome, PAGE, Plan, aligned, aligned_mut, latencies, serve_one, websocket};

/// `pipe` is the capacity of kube's pipes in bytes; `None` leaves kube's default.
pub(crate) fn to_server(flavor: Flavor, plan: Plan, pipe: Option<usize>) -> Outcome<Sample> {
    with_client(flavor, websocket::to_server_command(plan), pipe, async move |stdin, stdout| {
        let data = aligned(plan.size);
        let mut meter = Meter::start();
        for part in [plan.warm_up(), plan] {
            meter = Meter::start();
            for _ in 0..part.writes() {
                stdin.write_all(&data).await?;
            }
            stdout.read_u8().await?;
        }
        Ok(meter.transferred(plan))
    })
}

pub(crate) fn to_client(flavor: Flavor, plan: Plan, pipe: Option<usize>) -> Outcome<Sample> {
    with_client(flavor, websocket::to_client_command(plan), pipe, async move |stdin, stdout| {
        let mut block = vec![0; READ + PAGE];
        let buffer = aligned_mut(&mut block, READ);
        let mut meter = Meter::start();
        for part in [plan.warm_up(), plan] {
            meter = Meter::start();
            stdin.write_all(&[1]).await?;
            let mut left = part.bytes;
            while left > 0 {
                let most = left.min(READ);
                left -= stdout.read(&mut buffer[..most]).await?;
            }
        }
        Ok(meter.transferred(plan))
    })
}

pub(crate) fn echo(flavor: Flavor) -> Outcome<Sample> {
    with_client(flavor, websocket::echo_command(), None, async move |stdin, stdout| {
        let mut taken = Vec::new();
        for trip in 0..WARM_UP + ECHOES {
            let began = Instant::now();
            stdin.write_all(&[7]).await?;
            stdout.read_u8().await?;
            if trip >= WARM_UP {
                taken.push(began.elapsed());
            }
        }
        Ok(latencies(taken))
    })
}

const READ: usize = 256 * 1024;

type Input = Box<dyn AsyncWrite + Send + Unpin>;
type Output = Box<dyn AsyncRead + Send + Unpin>;

fn with_client(
    flavor: Flavor,
    command: Vec<String>,
    pipe: Option<usize>,
    work: impl AsyncFnOnce(&mut Input, &mut Output) -> Outcome<Sample>,
) -> Outcome<Sample> {
    let (address, server) = serve_one(flavor, websocket::serve)?;
    let sample = flavor.runtime()?.block_on(async move {
        let client = Client::try_from(Config::new(format!("http://{address}").parse()?))?;
        let pods = Api::<Pod>::namespaced(client, "default");
        let params = AttachParams {
            stderr: false,
            stdin: true,
            max_stdin_buf_size: pipe,
            max_stdout_buf_size: pipe,
            ..AttachParams::default()
        };
        let mut process: AttachedProcess = pods.exec("demo", command, &params).await?;
        let mut stdin: Input = Box::new(process.stdin().ok_or("no stdin")?);
        let mut stdout: Output = Box::new(process.stdout().ok_or("no stdout")?);
        let status = process.take_status().ok_or("no status")?;
        let sample = work(&mut stdin, &mut stdout).await?;
        stdin.shutdown().await?;
        status.await.ok_or("no status")?;
        Ok(sample)
    });
    server.join().map_err(|_| "the server panicked")??;
    sample
}
