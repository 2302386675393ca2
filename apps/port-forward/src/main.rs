//! A small `kubectl port-forward`: forwards local ports to ports of a pod.
//!
//! `cargo run --bin port-forward -- 8080:80` uses a built-in node, to which no other process can connect; `--server
//! http://127.0.0.1:8001` names another server. If the connection to the server is lost, the program makes a new one
//! for the next local connection, and says why attempts fail. It ends if the server refuses for good, for example
//! because the pod is gone.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Forwarder, PortForward, PortPair, Reconnecting};
use kubestream::upgrade::{self, Protocol, connect_with_fallback};
use kubestream_apps::Failure;
use kubestream_apps::printable::printable;
use kubestream_apps::server::Server;
use kubestream_apps::stdio::{complain, say};
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
    /// The local addresses to listen on, separated by commas: IP addresses, or localhost, which is 127.0.0.1 and ::1,
    /// where available.
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<Address>,
    #[command(flatten)]
    tls: Tls,
    /// The ports to forward: LOCAL:REMOTE, or PORT for the same port on both sides, or :REMOTE for a free local port.
    #[arg(required = true)]
    ports: Vec<PortPair>,
}

/// What kubectl's `--address` takes.
#[derive(Clone)]
enum Address {
    Localhost,
    Ip(IpAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "localhost" => Ok(Self::Localhost),
            ip => ip.parse().map(Self::Ip).map_err(|_| format!("{ip:?} is neither an IP address nor localhost")),
        }
    }
}

impl Address {
    /// The addresses that it stands for. The library asks for no more than one of the two that are localhost.
    fn ips(&self) -> Vec<IpAddr> {
        match self {
            Self::Localhost => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Self::Ip(ip) => vec![*ip],
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    run(Arguments::parse()).await.unwrap_or_else(failed)
}

fn failed(error: Failure) -> ExitCode {
    complain(format_args!("error: {}", printable(error)));
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { server, namespace, pod, address, tls, ports } = arguments;
    let server = Server::new(server.as_deref(), tls);
    let url = server.pod(&namespace, &pod, "portforward")?;
    // A server that cannot be reached at the start is an error. One that goes away later is waited for.
    let first = connect(&server, &url).await?;
    let mut told = Told::default();
    let mut cluster = Reconnecting::new(|| async { connect(&server, &url).await.map_err(io::Error::other) })
        .starting_with(first)
        .on_failure(|error, attempt| {
            if attempt == 1 {
                told.clear();
            }
            told.tell(&printable(error).to_string());
            true
        });

    let addresses: Vec<IpAddr> = address.iter().flat_map(Address::ips).collect();
    let mut forwarder = Forwarder::bind(&addresses, &ports).await?;
    for error in forwarder.refused() {
        complain(format_args!("warning: {error}"));
    }
    for (address, remote) in forwarder.listening() {
        say(format_args!("Forwarding from {address} -> {remote}"))?;
    }
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let accepted = tokio::select! {
            accepted = forwarder.accept() => accepted,
            interrupted = &mut interrupted => return Ok(interrupted.map(|()| ExitCode::SUCCESS)?),
        };
        let (socket, _, ports) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // There may be no free descriptor now, and one later.
                complain(format_args!("accepting: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // If nobody watches any more, the ports are still used.
        let _ = say(format_args!("Handling connection for {}", ports.local));
        let forward = tokio::select! {
            forward = cluster.get() => forward,
            interrupted = &mut interrupted => return Ok(interrupted.map(|()| ExitCode::SUCCESS)?),
        };
        let forward = match forward {
            Ok(forward) => forward,
            // The reason is told first, and then the socket that waits is reset.
            Err(error) => return Ok(failed(format!("lost connection to pod: {error}").into())),
        };
        tokio::spawn(async move {
            if let Err(error) = forward.forward(socket, ports.remote).await {
                complain(format_args!("{ports}: {}", printable(error)));
            }
        });
    }
}

/// Why attempts to connect have failed, as far as the user knows.
#[derive(Default)]
struct Told(HashSet<String>);

impl Told {
    /// Each outage is told anew. Reasons of which each is different must not be kept without end.
    const MOST: usize = 100;

    fn clear(&mut self) {
        self.0.clear();
    }

    /// Tells the user of a reason once.
    fn tell(&mut self, reason: &str) {
        if self.0.len() >= Self::MOST {
            self.clear();
        }
        if self.0.insert(reason.to_owned()) {
            complain(format_args!("reconnecting: {reason}"));
        }
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
