//! A container runtime for a kubelet or crictl. Its containers are local processes, and this library carries their
//! streams.
//!
//! `cargo run --bin cri -- --listen unix:///tmp/cri.sock`, then `kubelet
//! --container-runtime-endpoint=unix:///tmp/cri.sock …`.
//!
//! It shows [`kubestream_runtime`] in use: exec, attach and port-forward answer with its URLs. As a runtime it is a
//! toy. It reports every image as present, but reads no image. A container runs its own command on this machine, or
//! else the command that `--image` gives for its image, or else it sleeps. Nothing is isolated: a container has no
//! root, user, mounts, addresses or limits of its own. Anyone who can open the socket can run commands as the user that
//! started this program, so only that user can open it.

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
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Parser;
use kubestream_apps::listen::listen;
use kubestream_apps::signals::default_for_commands;
use kubestream_apps::stdio::say;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

/// Run pods for a kubelet, as processes of this machine and without isolation.
#[derive(Parser)]
struct Arguments {
    /// The socket on which to serve CRI, as unix:///PATH.
    #[arg(long, value_parser = path)]
    listen: PathBuf,
    /// The address on which the streaming server listens, as IP:PORT. Port 0 chooses a free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    streaming: SocketAddr,
    /// If a container of image NAME names no command, run COMMAND in it with sh. May be given several times. A
    /// container without a command, and without this option for its image, sleeps.
    #[arg(long = "image", value_name = "NAME=COMMAND", value_parser = image)]
    images: Vec<(String, String)>,
}

fn path(endpoint: &str) -> Result<PathBuf, String> {
    match endpoint.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err("an endpoint must have the form unix:///PATH".to_owned()),
    }
}

fn image(what: &str) -> Result<(String, String), String> {
    match what.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => Ok((name.to_owned(), command.to_owned())),
        _ => Err("an image must have the form NAME=COMMAND".to_owned()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let connections = listen(arguments.streaming).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    default_for_commands();
    let calls = bind(&arguments.listen)?;
    say(format_args!("listening on unix://{}", arguments.listen.display()))?;
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

/// Replaces the socket of a runtime that has ended, but not of one that still runs. From the moment at which it is there,
/// only the owner can open the socket. The umask belongs to the whole process, which creates no other file yet.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let stale = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    if stale && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}
