//! The built-in node: what stands between kubectl and a process, all in one.
//!
//! `cargo run --bin node -- --listen 127.0.0.1:8001`, then
//! `kubectl --server=http://127.0.0.1:8001 exec demo -- echo hello`.
//!
//! It runs whatever it is asked to, as whoever started it, and asks nobody who they are: keep it on loopback.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;

use clap::Parser;
use kubestream_apps::node;
use tokio::net::TcpListener;

/// Runs commands on this machine for any client that speaks Kubernetes' exec.
#[derive(Parser)]
struct Arguments {
    /// Where to listen. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    tokio::select! {
        () = node::serve(listener, |line| eprintln!("{line}")) => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}
