//! The built-in node: a server for kubectl that runs commands as local processes.
//!
//! `cargo run --bin node -- --listen 127.0.0.1:8001`, then
//! `kubectl --server=http://127.0.0.1:8001 exec demo -- echo hello`.
//!
//! It runs any command that a client sends, as the user that started it, and authenticates no client. Keep it on
//! loopback. It refuses web pages, and hosts that it does not know.

use std::error::Error;
use std::net::SocketAddr;

use clap::Parser;
use kubestream_apps::Origins;
use kubestream_apps::guard::Hosts;
use kubestream_apps::listen::listen;
use kubestream_apps::node::Node;
use kubestream_apps::stdio::{complain, say};

/// Run commands on this machine for any client of kubectl exec, attach and port-forward. Clients are not authenticated.
#[derive(Parser)]
struct Arguments {
    /// The address to listen on, as IP:PORT. Port 0 chooses a free port.
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    #[command(flatten)]
    hosts: Hosts,
    #[command(flatten)]
    origins: Origins,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let listener = listen(arguments.listen).await?;
    say(format_args!("listening on http://{}", listener.local_addr()?))?;
    let node = Node::new(arguments.hosts, arguments.origins.config(), |line| complain(line));
    tokio::select! {
        () = node.serve(listener) => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}
