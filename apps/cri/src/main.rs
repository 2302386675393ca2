//! A container runtime for a kubelet or crictl, whose containers are local processes and whose streams are the library's.
//!
//! `cargo run --bin cri -- --listen unix:///tmp/cri.sock`, then
//! `kubelet --container-runtime-endpoint=unix:///tmp/cri.sock …`.
//!
//! It shows [`kubestream_runtime`] where it belongs: exec, attach and port-forward answer with its URLs. As a runtime it is a
//! toy: every image is there and none is opened, a container runs the command that it is given on this machine, or what `--image`
//! says of its image, or sleeps, and nothing is isolated: no root, user, mounts, addresses or limits of its own. Whoever reaches the
//! socket can run anything as whoever started this.

mod container;
mod exec_sync;
mod fanout;
mod image;
mod image_service;
mod log;
mod runtime_service;
mod serve;
mod store;
mod streams;
mod sweep;
mod time;
mod v1;
mod views;

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Parser;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

/// Runs pods for a kubelet, as processes of this machine.
#[derive(Parser)]
struct Arguments {
    /// The socket for CRI's calls, as `unix:///path`.
    #[arg(long, value_parser = path)]
    listen: PathBuf,
    /// Where the streaming server listens. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    streaming: SocketAddr,
    /// What a container of this image runs if it names no command, as `NAME=COMMAND`, for `sh`. Without, it sleeps.
    #[arg(long = "image", value_name = "NAME=COMMAND", value_parser = image)]
    images: Vec<(String, String)>,
}

fn path(endpoint: &str) -> Result<PathBuf, String> {
    match endpoint.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err("an endpoint is unix:///path".to_owned()),
    }
}

fn image(what: &str) -> Result<(String, String), String> {
    match what.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => Ok((name.to_owned(), command.to_owned())),
        _ => Err("an image and what it runs are NAME=COMMAND".to_owned()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let connections = TcpListener::bind(arguments.streaming).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let calls = bind(&arguments.listen)?;
    println!("listening on unix://{}", arguments.listen.display());
    io::stdout().flush()?;
    let stopped = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let served = serve::serve(calls, connections, arguments.images, stopped).await;
    std::fs::remove_file(&arguments.listen)?;
    served
}

/// Takes over from a runtime that is gone, not from one that is there.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let stale = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    if stale && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}
