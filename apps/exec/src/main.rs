//! A small `kubectl exec`: runs a command over WebSocket or SPDY/3.1, and exits with the command's exit code.
//!
//! `cargo run --bin exec -- sh -c 'echo out; echo err >&2; exit 7'` uses a built-in node, to which no other
//! process can connect; `--server http://127.0.0.1:8001` names another server.

mod terminal;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kubestream::StreamError;
use kubestream::exec::{Exec, ExecRequest, Reader, Streams};
use kubestream::mux::{Config, Multiplexer, SendHalf};
use kubestream::status::ExitStatus;
use kubestream_apps::Failure;
use kubestream_apps::names::InvalidName;
use kubestream_apps::printable::printable;
use kubestream_apps::server::Server;
use kubestream_apps::session::{self, Preference};
use kubestream_apps::signals::Ending;
use kubestream_apps::stdio::{Input, Output, complain};
use kubestream_apps::transport::Tls;

/// Run a command in a container, as kubectl exec does.
#[derive(Parser)]
struct Arguments {
    /// The URL of the server: a kube-apiserver, or a server with the same paths [default: a built-in node].
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The server is a kubelet: send a request with a kubelet's path and query.
    #[arg(long)]
    kubelet: bool,
    /// The namespace of the pod.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The name of the pod.
    #[arg(long, default_value = "demo")]
    pod: String,
    /// The container name [default: the server's choice; with --kubelet, "main"].
    #[arg(short, long)]
    container: Option<String>,
    /// Pass stdin to the command.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Run the command on a terminal. Requires -i and a local terminal on stdin.
    #[arg(short, long)]
    tty: bool,
    /// The transport of the session. "auto" is WebSocket, or SPDY if the server refuses WebSocket.
    #[arg(long, value_enum, default_value_t = Preference::Auto)]
    transport: Preference,
    /// Offer only this protocol, for example v4.channel.k8s.io. Requires --transport websocket or --transport spdy.
    /// With WebSocket, an empty NAME offers no subprotocol.
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    #[command(flatten)]
    tls: Tls,
    /// The command to run, and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// How long the program waits, after the status, for the end of the connection.
const GOODBYE: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    // A signal drops the session, which ends the command and restores the terminal.
    let ended = runtime.block_on(async {
        let mut ending = Ending::new()?;
        tokio::select! {
            ended = run(arguments) => ended,
            code = ending.next() => Ok(ExitStatus::Code(code.into())),
        }
    });
    let code = match ended {
        Ok(ExitStatus::Failed(status)) => fail(&*status),
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => fail(&*error),
    };
    // A blocked read of stdin cannot be cancelled, so its thread is left behind.
    runtime.shutdown_background();
    code
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    complain(format_args!("error: {}", printable(error)));
    ExitCode::FAILURE
}

async fn run(mut arguments: Arguments) -> Result<ExitStatus, Failure> {
    let server = Server::new(arguments.server.as_deref(), std::mem::take(&mut arguments.tls));
    let streams = wanted_streams(&arguments);
    let url = target(&arguments, &server, streams)?;
    let protocol = arguments.protocol.as_deref();
    let upgraded = session::upgrade(&server, &url, arguments.transport, protocol).await?;
    let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
    let driver = tokio::spawn(driver);
    let mut exec = mux.exec(streams).await?;
    drop(mux);
    let status = converse(&mut exec, streams).await?;
    // Lets the driver write its goodbye, without which a server would see a broken client. The status is here, so a server
    // that is far away is not waited for: that would cost a round trip.
    drop(exec);
    let _ended = tokio::time::timeout(GOODBYE, driver).await;
    Ok(status)
}

/// Turns -i and -t into streams, as kubectl does.
fn wanted_streams(arguments: &Arguments) -> Streams {
    let mut tty = arguments.tty && arguments.stdin;
    if tty && !io::stdin().is_terminal() {
        complain("Unable to use a TTY - input is not a terminal or the right kind of file");
        tty = false;
    }
    Streams { stdin: arguments.stdin, stdout: true, stderr: !tty, tty }
}

/// Returns the URL of the request.
fn target(arguments: &Arguments, server: &Server, streams: Streams) -> Result<String, InvalidName> {
    let Arguments { namespace, pod, container, command, kubelet, .. } = arguments;
    let mut request = ExecRequest::new(command, streams);
    if *kubelet {
        let container = container.as_deref().unwrap_or("main");
        let url = server.kubelet_exec(namespace, pod, container)?;
        return Ok(format!("{url}?{}", request.to_kubelet_query()));
    }
    if let Some(container) = container {
        request = request.container(container);
    }
    Ok(format!("{}?{}", server.pod(namespace, pod, "exec")?, request.to_query()))
}

/// Connects the session to this process's own descriptors until the command has ended.
async fn converse(exec: &mut Exec, streams: Streams) -> Result<ExitStatus, Failure> {
    let _raw = if streams.tty { Some(terminal::RawMode::enter()?) } else { None };
    let resizing = exec.resize.take().map(|resizer| tokio::spawn(terminal::follow_size(resizer)).abort_handle());
    let typing = exec.stdin.take().map(|stdin| tokio::spawn(feed(stdin)).abort_handle());
    let (stdout, stderr) = (exec.stdout.take(), exec.stderr.take());
    // Output is shown even if the session fails later. If a local output is closed, everything ends, as with SIGPIPE.
    let waited = async { Ok(exec.wait().await) };
    let (status, out, err) = tokio::try_join!(waited, show(stdout, Output::stdout()), show(stderr, Output::stderr()))?;
    // They hold streams, and the last one that is dropped ends the connection.
    for task in [typing, resizing].into_iter().flatten() {
        task.abort();
    }
    // If an output broke off, the command did not succeed. The session's own error says more, so it comes first.
    let status = status?;
    out.and(err)?;
    Ok(status)
}

async fn feed(mut to: SendHalf) {
    let mut from = Input::default();
    loop {
        match from.read().await {
            Ok(data) if data.is_empty() => return,
            Ok(data) => {
                // The command may have ended or have closed its stdin. Neither is an error here.
                if to.send(data).await.is_err() {
                    return;
                }
            }
            Err(error) => return complain(format_args!("error: reading stdin: {error}")),
        }
    }
}

/// Shows an output to its end. The outer error is a local one, and the inner one is the session's.
async fn show(from: Option<Reader>, mut to: Output) -> io::Result<Result<(), StreamError>> {
    let Some(mut from) = from else { return Ok(Ok(())) };
    loop {
        // What has arrived already is written at once.
        let arrived = tokio::select! {
            biased;
            data = from.data() => Some(data),
            () = std::future::ready(()) => None,
        };
        let data = match arrived {
            Some(data) => data,
            None => {
                to.flush().await?;
                from.data().await
            }
        };
        match data {
            Some(Ok(data)) => to.write(&data).await?,
            end => {
                to.flush().await?;
                return Ok(end.transpose().map(drop));
            }
        }
    }
}
