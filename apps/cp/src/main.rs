//! A small `kubectl cp`: copies files and folders to and from a pod.
//!
//! `cargo run --bin cp -- Cargo.toml demo:/tmp/` copies to a built-in node, to which no other process
//! can connect; `--server http://127.0.0.1:8001` names another server. The container needs `tar`; an upload also needs `test`, `mv`, `rm` and,
//! to merge into an existing folder, a `cp` that can make links.
//!
//! It differs from kubectl where kubectl loses data: every fault is an error, and a file gets its name only when it is
//! complete (except with `--in-place`). A download keeps modes, times and the content of hard links. A file that is
//! downloaded onto a link goes where the link leads, and onto a device or pipe, such as /dev/stdout, into that. An
//! interrupted copy cannot be resumed.

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
use kubestream_apps::Failure;
use kubestream_apps::names::InvalidName;
use kubestream_apps::printable::printable;
use kubestream_apps::server::Server;
use kubestream_apps::session::Preference;
use kubestream_apps::signals::Ending;
use kubestream_apps::stdio::complain;
use kubestream_apps::transport::Tls;
use tokio_util::sync::CancellationToken;

use crate::pod::{CommandError, Interrupted, Pod};
use crate::spec::{Remote, Spec, SpecError};
use crate::upload::Upload;

/// Copy files and folders to and from a container, as kubectl cp does.
///
/// One of the two paths is in a pod: [NAMESPACE/]POD:PATH. A file is copied into DESTINATION if that is a folder or
/// ends with a slash. A folder that you upload is copied into DESTINATION if that exists, and otherwise gets the name
/// DESTINATION. The content of a folder that you download is always merged into DESTINATION.
#[derive(Parser)]
struct Arguments {
    /// The URL of the server: a kube-apiserver, or a server with the same paths [default: a built-in node].
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The namespace of the pod, if the path names a pod without a namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The container name [default: the server's choice].
    #[arg(short, long)]
    container: Option<String>,
    /// Do not keep the owner and the permissions of the files. A download does not keep the modification times either.
    #[arg(long)]
    no_preserve: bool,
    /// Upload files directly under their final names. The container then needs only tar, but an interrupted copy leaves
    /// incomplete files behind.
    #[arg(long)]
    in_place: bool,
    /// The transport of the session. "auto" is WebSocket, or SPDY if the server refuses WebSocket.
    #[arg(long, value_enum, default_value_t = Preference::Auto)]
    transport: Preference,
    #[command(flatten)]
    tls: Tls,
    /// The file or folder to copy.
    source: OsString,
    /// The path to copy it to.
    destination: OsString,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&printable(error), 1),
    };
    let copied = runtime.block_on(run(arguments));
    // A thread that reads or writes files may still have to close its last one.
    runtime.shutdown_timeout(Duration::from_secs(10));
    match copied {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = code(&error);
            match error.downcast_ref::<CommandError>() {
                // What the command wrote has lines of its own.
                Some(ended) => fail(ended, code),
                None => fail(&printable(error), code),
            }
        }
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    complain(format_args!("error: {error}"));
    ExitCode::from(code)
}

/// The exit code of the remote command, if that was the error.
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
    let mut ending = Ending::new()?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        ending.next().await;
        stopping.cancel();
    });
    let preserve = !arguments.no_preserve;
    match ends {
        (Spec::Remote(Remote { namespace, pod, path }), Spec::Local(to)) => {
            let pod = reach(arguments, namespace, &pod)?;
            download::download(&pod, &path, to, preserve, &stop).await
        }
        (Spec::Local(source), Spec::Remote(Remote { namespace, pod, path })) => {
            let in_place = arguments.in_place;
            let pod = &reach(arguments, namespace, &pod)?;
            Upload { pod, source, to: path, preserve, in_place }.run(&stop).await
        }
        (Spec::Local(_), Spec::Local(_)) => Err(SpecError::BothLocal.into()),
        (Spec::Remote(_), Spec::Remote(_)) => Err(SpecError::BothRemote.into()),
    }
}

/// Returns the pod, on the named server or on a built-in node.
fn reach(arguments: Arguments, namespace: Option<String>, pod: &str) -> Result<Pod, InvalidName> {
    let Arguments { server, container, transport, tls, .. } = arguments;
    let server = Server::new(server.as_deref(), tls);
    let namespace = namespace.unwrap_or(arguments.namespace);
    let url = server.pod(&namespace, pod, "exec")?;
    Ok(Pod { server, url, container, transport })
}
