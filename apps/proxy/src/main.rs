//! A proxy between kubectl and a cluster: a bastion, or the streaming half of a kube-apiserver.
//!
//! `cargo run --bin proxy -- --listen 127.0.0.1:8002 --backend http://127.0.0.1:8001`, then `kubectl
//! --server=http://127.0.0.1:8002 exec demo -- echo hello`. With `--kubelet https://127.0.0.1:10250` it takes the place
//! of the API server. With `--record DIR` it records each exec and attach session, for `asciinema play`.

mod asciicast;
mod backend;
mod beside;
mod chunked;
mod plain;
mod record;
mod rewrite;
mod tokens;
mod translate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use kubestream_apps::Failure;
use kubestream_apps::listen::listen;
use kubestream_apps::printable::printable;
use kubestream_apps::stdio::{complain, say};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::backend::{Backend, Target};
use crate::record::Record;

/// Pass kubectl's requests to a server, and authenticate, translate or record them.
#[derive(Parser)]
struct Arguments {
    /// The address to listen on, as IP:PORT. Port 0 chooses a free port.
    #[arg(long, default_value = "127.0.0.1:8002")]
    listen: SocketAddr,
    #[command(flatten)]
    backend: Target,
    #[command(flatten)]
    record: Record,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    arguments.record.check().map_err(|error| format!("--record: {error}"))?;
    let backend = Arc::new(Backend::new(arguments.backend, arguments.record)?);
    let listener = listen(arguments.listen).await?;
    say(format_args!("listening on http://{}", listener.local_addr()?))?;
    tokio::select! {
        () = serve(listener, &backend) => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Serves until the future is dropped, which ends every session.
async fn serve(listener: TcpListener, backend: &Arc<Backend>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => {
                    let backend = Arc::clone(backend);
                    connections.spawn(async move {
                        if let Err(error) = backend.answer(tcp, from).await {
                            complain(format_args!("proxy: {from}: {}", printable(error)));
                        }
                    });
                }
                // There may be no free descriptor now, and one later.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
