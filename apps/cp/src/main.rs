//! `kubectl cp`, small: files and folders into a pod and out of it.
//!
//! `cargo run --bin cp -- Cargo.toml demo:/tmp/` copies to a node of its own, on loopback; `--server http://127.0.0.1:8001` takes it to
//! another server. The container needs tar, and for an upload `test`, `mv`, `rm` and, to fill a folder that is there, a `cp` that can link.
//!
//! What differs from kubectl, since kubectl loses data there: whatever goes wrong is an error, and no file has its name before it is whole (but for
//! `--in-place`). A download keeps modes and times, and the content of hard links. Nothing is resumed.

mod download;
mod pack;
mod pipe;
mod place;
mod pod;
mod progress;
mod spec;
mod unpack;
mod upload;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kubestream_apps::session::Transport;
use kubestream_apps::transport::Tls;
use kubestream_apps::{Failure, node};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::pod::{CommandError, Interrupted, Pod};
use crate::spec::{Remote, Spec, SpecError};
use crate::upload::Upload;

/// Copies files and folders into a container and out of it, as kubectl cp does.
///
/// One of the two is in a pod: [NAMESPACE/]POD:PATH. A file goes into a folder under its own name, whether the folder is there or only meant, by a slash at the
/// end. A folder that is uploaded does too if the other is there, and else takes its name; one that is downloaded is always merged into the one that is named.
#[derive(Parser)]
struct Arguments {
    /// The server: a kube-apiserver, or whatever speaks like one. Without it, a node of our own.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The namespace, of a pod that is named without one.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The container.
    #[arg(short, long)]
    container: Option<String>,
    /// Leave out owners and permissions, and, of a download, times.
    #[arg(long)]
    no_preserve: bool,
    /// Upload under the final names at once, with no command but tar: a copy that breaks off leaves what came.
    #[arg(long)]
    in_place: bool,
    /// What carries a session: WebSocket, SPDY, or SPDY where WebSocket is refused.
    #[arg(long, value_enum, default_value_t = Transport::Auto)]
    transport: Transport,
    #[command(flatten)]
    tls: Tls,
    /// What is copied.
    source: OsString,
    /// Where to.
    destination: OsString,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let copied = runtime.block_on(run(arguments));
    // A thread that reads or writes files may still have a last one to close.
    runtime.shutdown_timeout(Duration::from_secs(10));
    match copied {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error, code(&error)),
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("error: {}", progress::harmless(&error.to_string()));
    ExitCode::from(code)
}

/// The remote command's, if there is one.
fn code(error: &Failure) -> u8 {
    const INTERRUPTED: u8 = 130;
    if error.is::<Interrupted>() {
        return INTERRUPTED;
    }
    let ended = error.downcast_ref::<CommandError>();
    ended
        .and_then(|ended| ended.status.code())
        .and_then(|code| u8::try_from(code).ok())
        .filter(|code| *code > 0)
        .unwrap_or(1)
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let ends = (Spec::parse(&arguments.source)?, Spec::parse(&arguments.destination)?);
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_a_signal(signal(SignalKind::interrupt())?, stop.clone()));
    tokio::spawn(stop_on_a_signal(signal(SignalKind::terminate())?, stop.clone()));
    let preserve = !arguments.no_preserve;
    match ends {
        (Spec::Remote(Remote { namespace, pod, path }), Spec::Local(to)) => {
            let pod = reach(arguments, namespace, &pod).await?;
            download::download(&pod, &path, to, preserve, &stop).await
        }
        (Spec::Local(source), Spec::Remote(Remote { namespace, pod, path })) => {
            let in_place = arguments.in_place;
            let pod = &reach(arguments, namespace, &pod).await?;
            Upload { pod, source, to: path, preserve, in_place }.run(&stop).await
        }
        (Spec::Local(_), Spec::Local(_)) => Err(SpecError::BothLocal.into()),
        (Spec::Remote(_), Spec::Remote(_)) => Err(SpecError::BothRemote.into()),
    }
}

async fn stop_on_a_signal(mut signal: tokio::signal::unix::Signal, stop: CancellationToken) {
    if signal.recv().await.is_some() {
        stop.cancel();
    }
}

/// The pod, on the server that was named or on a node of our own.
async fn reach(arguments: Arguments, namespace: Option<String>, pod: &str) -> Result<Pod, Failure> {
    let Arguments { server, container, transport, tls, .. } = arguments;
    let server = match server {
        Some(server) => server.trim_end_matches('/').to_owned(),
        None => node::start().await?,
    };
    let namespace = namespace.unwrap_or(arguments.namespace);
    let url = format!("{server}/api/v1/namespaces/{namespace}/pods/{pod}/exec");
    Ok(Pod { url, container, transport, tls })
}
