//! A small `kubectl port-forward`: forwards local ports to ports of a pod.
//!
//! `cargo run --bin port-forward -- 8080:80` uses a built-in node, to which no other process can connect; `--server
//! http://127.0.0.1:8001` names another server. If the connection to the server is lost, the program makes a new one.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Forwarder, PortForward, PortPair, Reconnecting};
use kubestream::upgrade::{self, Protocol, connect_with_fallback};
use kubestream_apps::Failure;
use kubestream_apps::printable::printable;
use kubestream_apps::server::Server;
use kubestream_apps::transport::Tls;

/// Forward local ports to a pod, as kubectl port-forward does.
#[derive(Parser)]
struct Arguments {
    /// The URL of the server: a kube-apiserver, or a server with the same paths [default: a built-in node].
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The namespace of the pod.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The name of the pod.
    #[arg(long, default_value = "demo")]
    pod: String,
    /// The local IP addresses to listen on, separated by commas [default: 127.0.0.1 and ::1, where available].
    #[arg(long, value_delimiter = ',')]
    address: Vec<IpAddr>,
    #[command(flatten)]
    tls: Tls,
    /// The ports to forward: LOCAL:REMOTE, or PORT for the same port on both sides, or :REMOTE for a free local port.
    #[arg(required = true)]
    ports: Vec<PortPair>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", printable(error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, namespace, pod, address, tls, ports } = arguments;
    let server = Server::new(server.as_deref(), tls);
    let url = server.pod(&namespace, &pod, "portforward")?;
    // A server that cannot be reached at the start is an error. One that goes away later is waited for.
    let first = connect(&server, &url).await?;
    let mut cluster = Reconnecting::new(|| connect(&server, &url)).starting_with(first);

    let mut forwarder = Forwarder::bind(&address, &ports).await?;
    for (address, remote) in forwarder.listening() {
        println!("Forwarding from {address} -> {remote}");
    }
    std::io::stdout().flush()?;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let accepted = tokio::select! {
            accepted = forwarder.accept() => accepted,
            interrupted = &mut interrupted => return Ok(interrupted?),
        };
        let (socket, _, ports) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // There may be no free descriptor now, and one later.
                eprintln!("accepting: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        println!("Handling connection for {}", ports.local);
        let forward = tokio::select! {
            forward = cluster.get() => forward?,
            interrupted = &mut interrupted => return Ok(interrupted?),
        };
        tokio::spawn(async move {
            if let Err(error) = forward.forward(socket, ports.remote).await {
                eprintln!("{ports}: {}", printable(error));
            }
        });
    }
}

/// Connects through the tunnel, or over SPDY if the server refuses WebSocket.
async fn connect(server: &Server, url: &str) -> Result<PortForward, Failure> {
    let request = http::Request::get(url).header("User-Agent", "kubestream").body(())?;
    let dial = || server.connect();
    let config = upgrade::Config::default();
    let upgraded =
        connect_with_fallback(dial, request, &[Protocol::TunneledPortForward], &[Protocol::SpdyPortForward], &config)
            .await
            .map_err(|error| server.explain(error))?;
    let (mux, driver) = Multiplexer::client(upgraded, Config::default());
    tokio::spawn(driver);
    Ok(PortForward::new(mux)?)
}
