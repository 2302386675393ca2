//! `kubectl port-forward`, small: local ports that stand for those of a pod.
//!
//! `cargo run --bin port-forward -- 8080:80` forwards to a node of its own, on loopback; `--server
//! http://127.0.0.1:8001` to another server. When the connection to it is lost it is made again.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use clap::Parser;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Addresses, Backoff, Forwarder, PortForward, PortPair, Reconnecting};
use kubestream::upgrade::{self, Protocol, connect_with_fallback};
use kubestream_apps::transport::{self, Tls};
use kubestream_apps::{Failure, node};

/// Forwards local ports to a pod, as kubectl port-forward does.
#[derive(Parser)]
struct Arguments {
    /// The server: a kube-apiserver, or whatever speaks like one. Without it, a node of our own.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The pod.
    #[arg(long, default_value = "demo")]
    pod: String,
    /// Local addresses to listen on, with commas; without them 127.0.0.1 and ::1, as far as there are.
    #[arg(long, value_delimiter = ',')]
    address: Vec<IpAddr>,
    #[command(flatten)]
    tls: Tls,
    /// LOCAL:REMOTE, REMOTE for the same, or :REMOTE for a free local port.
    #[arg(required = true)]
    ports: Vec<PortPair>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let server = match &arguments.server {
        Some(server) => server.trim_end_matches('/').to_owned(),
        None => node::start().await?,
    };
    let Arguments { namespace, pod, tls, .. } = &arguments;
    let url = format!("{server}/api/v1/namespaces/{namespace}/pods/{pod}/portforward");
    // A server that cannot be reached now is said at once; one that goes away later is waited for.
    let first = connect(&url, tls).await?;
    let mut cluster = Reconnecting::new(|| connect(&url, tls), Backoff::default()).starting_with(first);

    let addresses = match &arguments.address[..] {
        [] => Addresses::Localhost,
        these => Addresses::These(these.to_vec()),
    };
    let mut forwarder = Forwarder::bind(&addresses, &arguments.ports).await?;
    for (address, remote) in forwarder.listening() {
        println!("Forwarding from {address} -> {remote}");
    }
    std::io::stdout().flush()?;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let local = tokio::select! {
            local = forwarder.accept() => local,
            interrupted = &mut interrupted => return Ok(interrupted?),
        };
        let local = match local {
            Ok(local) => local,
            Err(error) => {
                // Descriptors run out, and come back.
                eprintln!("accepting: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        println!("Handling connection for {}", local.ports().local);
        let forward = tokio::select! {
            forward = cluster.get() => forward?,
            interrupted = &mut interrupted => return Ok(interrupted?),
        };
        tokio::spawn(async move {
            let ports = local.ports();
            if let Err(error) = local.forward(&forward).await {
                eprintln!("{ports}: {error}");
            }
        });
    }
}

/// Through the tunnel, or over SPDY where WebSocket is refused.
async fn connect(url: &str, tls: &Tls) -> Result<PortForward, Failure> {
    let request = http::Request::get(url).header("User-Agent", "kubestream").body(())?;
    let dial = || transport::connect(url, tls);
    let config = upgrade::Config::default();
    let connected =
        connect_with_fallback(dial, request, &[Protocol::Tunnel], &[Protocol::PortForward], &config).await?;
    let (mux, driver) = Multiplexer::client(connected.upgraded, Config::default());
    tokio::spawn(driver);
    Ok(PortForward::new(mux)?)
}
