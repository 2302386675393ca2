//! A server that is correct except for one fault.
//!
//! Holds the faults. Each is one that a real server could have. Everything else is done correctly.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use kubestream::exec::{ExecRequest, ExecServer, Reader, Resizes};
use kubestream::mux::{Config, Multiplexer, SendHalf};
use kubestream::portforward::{PortForwardServer, Request};
use kubestream::status::{ExitStatus, Status};
use kubestream::upgrade::{self, Pending, Protocol, UpgradeError, Upgraded};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// The fault of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The status of a failure has no details, and so no exit code.
    StatusWithoutDetails,
    /// The last piece of a long output is missing.
    LostTail,
    /// The end of stdin does not reach the command.
    EndlessStdin,
    /// Both outputs come on stdout.
    MergedOutputs,
    /// Exit codes are cut to seven bits.
    SevenBitCodes,
    /// A terminal ignores new sizes.
    FixedTerminal,
    /// The server chooses by its own preference, not by the client's.
    OwnPreference,
    /// A container of any name exists.
    AnyContainer,
    /// An exec without a command runs `true`.
    AnyCommand,
    /// Bytes that came with the request are dropped.
    DropsEarlyBytes,
    /// At most two sessions run at once.
    TwoAtATime,
    /// stdin that does not fit into the pipe delays the status for ever.
    WaitsForStdin,
    /// A command survives its client.
    KeepsOrphans,
    /// A session that is silent for long is ended.
    EndsTheIdle,
    /// A refused port ends the whole session.
    RefusalEndsAll,
    /// The client's end of a forwarded connection closes both directions.
    NoHalfClose,
    /// Only a few connections are accepted at once.
    FewConnections,
}

/// How much silence [`Fault::EndsTheIdle`] allows.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(2);
/// How long an output is long for [`Fault::LostTail`], in bytes.
const LONG: usize = 500_000;
/// How much stdin [`Fault::WaitsForStdin`] allows, in bytes.
const KEYS: usize = 1000;
/// How many connections [`Fault::FewConnections`] allows.
const FEW: usize = 3;

pub(crate) async fn serve(listener: TcpListener, fault: Fault) {
    let sessions = Arc::new(Semaphore::new(if fault == Fault::TwoAtATime { 2 } else { Semaphore::MAX_PERMITS }));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((tcp, _)) = listener.accept() => {
                let sessions = Arc::clone(&sessions);
                connections.spawn(async move { drop(answer(tcp, fault, &sessions).await) });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(tcp: TcpStream, fault: Fault, sessions: &Semaphore) -> Result<(), UpgradeError> {
    tcp.set_nodelay(true)?;
    let pending = upgrade::accept(tcp, &upgrade::Config::default()).await?;
    let path = pending.request().uri().path().to_owned();
    if path.ends_with("/portforward") {
        return forward(pending, fault).await;
    }
    let request = pending.request();
    let refused = match ExecRequest::from_query(request.uri().query().unwrap_or_default()) {
        _ if ![Method::GET, Method::POST].contains(request.method()) => StatusCode::METHOD_NOT_ALLOWED,
        Ok(wanted)
            if wanted.container.as_deref().is_some_and(|name| name != "main") && fault != Fault::AnyContainer =>
        {
            StatusCode::NOT_FOUND
        }
        Ok(mut wanted) => {
            let attach = path.ends_with("/attach");
            if attach {
                const LINES: &str = "while IFS= read -r line; do echo \"out:$line\"; echo \"err:$line\" >&2; done";
                wanted.command = ["sh", "-c", LINES].map(String::from).to_vec();
            }
            if wanted.command.is_empty() && fault == Fault::AnyCommand {
                wanted.command = vec!["true".into()];
            }
            if !wanted.command.is_empty() && pending.is_upgrade() {
                let _held = sessions.acquire().await;
                return session(pending, fault, wanted).await;
            }
            StatusCode::BAD_REQUEST
        }
        Err(_) => StatusCode::BAD_REQUEST,
    };
    let mut response = Response::new(Bytes::from_static(b"not here\n"));
    *response.status_mut() = refused;
    pending.respond(response).await
}

async fn session(pending: Pending<TcpStream>, fault: Fault, wanted: ExecRequest) -> Result<(), UpgradeError> {
    let mut supported = Protocol::ANY_EXEC.to_vec();
    if fault == Fault::OwnPreference {
        // Chooses the first of its own protocols that the client offers too.
        let transport = pending.transport();
        let named =
            |name: &str, protocol: &Protocol| protocol.name() == name && Some(protocol.transport()) == transport;
        supported.retain(|protocol| pending.offers().any(|name| named(name, protocol)));
        if !supported.is_empty() {
            supported.truncate(1);
        } else {
            supported = Protocol::ANY_EXEC.to_vec();
        }
    }
    let mut upgraded = pending.accept(&supported).await?;
    if fault == Fault::DropsEarlyBytes {
        let (io, _, protocol) = upgraded.into_parts();
        upgraded = Upgraded::new(io, Bytes::new(), protocol);
    }
    let (mux, driver) = Multiplexer::server(upgraded, Config::exec());
    let session = async move {
        if let Ok(server) = mux.accept_exec(wanted.streams).await {
            run(&wanted, fault, server).await;
        }
    };
    let (_, ()) = tokio::join!(driver, session);
    Ok(())
}

/// Runs the process and copies its streams.
async fn run(wanted: &ExecRequest, fault: Fault, mut server: ExecServer) {
    let unread = Arc::new(AtomicUsize::new(0));
    let active = Arc::new(Notify::new());
    let mut outputs = JoinSet::new();
    let mut others = JoinSet::new();
    let started = if wanted.streams.tty {
        on_terminal(wanted, fault, &mut server, &mut outputs, &mut others)
    } else {
        on_pipes(wanted, fault, &mut server, &mut outputs, &mut others, &unread, &active)
    };
    let Ok(mut child) = started else {
        let status = Status::internal_error("there is no such command");
        let _ = server.exit(ExitStatus::Failed(Box::new(status))).await;
        return;
    };
    let status = tokio::select! {
        status = child.wait() => status,
        () = server.client_gone(), if fault != Fault::KeepsOrphans => {
            let _ = child.kill().await;
            return;
        }
        () = silent(&active), if fault == Fault::EndsTheIdle => {
            let _ = child.kill().await;
            return;
        }
    };
    while outputs.join_next().await.is_some() {}
    if fault == Fault::WaitsForStdin && unread.load(Ordering::Relaxed) > 0 {
        std::future::pending::<()>().await;
    }
    let status = status.ok().and_then(|status| {
        use std::os::unix::process::ExitStatusExt;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal))
    });
    let status = match status.unwrap_or(255) {
        0 => ExitStatus::Success,
        code if fault == Fault::SevenBitCodes => ExitStatus::Code(code & 0x7f),
        code if fault == Fault::StatusWithoutDetails => {
            // The message is correct. Before v4 a status has nothing else.
            let mut status = Status::exit(code);
            status.details = None;
            ExitStatus::Failed(Box::new(status))
        }
        code => ExitStatus::Code(code),
    };
    let _ = server.exit(status).await;
}

fn on_pipes(
    wanted: &ExecRequest,
    fault: Fault,
    server: &mut ExecServer,
    outputs: &mut JoinSet<()>,
    others: &mut JoinSet<()>,
    unread: &Arc<AtomicUsize>,
    active: &Arc<Notify>,
) -> std::io::Result<Child> {
    let mut command = Command::new(&wanted.command[0]);
    if fault == Fault::MergedOutputs {
        command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 2>&1", "sh", &wanted.command[0]]);
    }
    let mut child = command
        .args(&wanted.command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(fault != Fault::KeepsOrphans)
        .spawn()?;
    let to = child.stdin.take();
    if let (Some(from), Some(to)) = (server.stdin.take(), to) {
        others.spawn(feed(from, to, fault, Arc::clone(unread), Arc::clone(active)));
    }
    if let Some(from) = child.stdout.take() {
        outputs.spawn(drain(from, server.stdout.take(), fault, Arc::clone(active)));
    }
    if let Some(from) = child.stderr.take() {
        outputs.spawn(drain(from, server.stderr.take(), fault, Arc::clone(active)));
    }
    Ok(child)
}

/// Ready when nothing has happened for too long.
async fn silent(active: &Notify) {
    while tokio::time::timeout(TOO_LONG, active.notified()).await.is_ok() {}
}

async fn drain(mut from: impl AsyncRead + Unpin, mut to: Option<SendHalf>, fault: Fault, active: Arc<Notify>) {
    let (mut buffer, mut came, mut held) = (BytesMut::new(), 0, None);
    loop {
        buffer.reserve(32 * 1024);
        let Ok(read @ 1..) = from.read_buf(&mut buffer).await else { break };
        active.notify_one();
        came += read;
        let Some(to) = &mut to else { continue };
        let piece = buffer.split().freeze();
        // The last piece of a long output is never sent.
        let piece = if fault == Fault::LostTail && came > LONG { held.replace(piece) } else { Some(piece) };
        if let Some(piece) = piece
            && to.send(piece).await.is_err()
        {
            return;
        }
    }
}

async fn feed(
    mut from: Reader,
    mut to: impl AsyncWrite + Unpin,
    fault: Fault,
    unread: Arc<AtomicUsize>,
    active: Arc<Notify>,
) {
    while let Some(Ok(data)) = from.data().await {
        active.notify_one();
        // A few keys do not count.
        unread.store(if data.len() > KEYS { data.len() } else { 0 }, Ordering::Relaxed);
        if to.write_all(&data).await.is_err() {
            // Whatever else comes is discarded.
            while let Some(Ok(_)) = from.data().await {}
            return;
        }
        unread.store(0, Ordering::Relaxed);
    }
    if fault == Fault::EndlessStdin {
        std::future::pending::<()>().await;
    }
}

fn on_terminal(
    wanted: &ExecRequest,
    fault: Fault,
    server: &mut ExecServer,
    outputs: &mut JoinSet<()>,
    others: &mut JoinSet<()>,
) -> std::io::Result<Child> {
    let (terminal, end) = pty_process::open().map_err(std::io::Error::other)?;
    let command = pty_process::Command::new(&wanted.command[0]).args(&wanted.command[1..]).kill_on_drop(true);
    let child = command.spawn(end).map_err(std::io::Error::other)?;
    let (from, to) = terminal.into_split();
    outputs.spawn(drain(from, server.stdout.take(), Fault::None, Arc::new(Notify::new())));
    let (stdin, sizes) = (server.stdin.take(), server.resize.take());
    others.spawn(operate(to, stdin, sizes, fault));
    Ok(child)
}

async fn operate(
    mut terminal: pty_process::OwnedWritePty,
    mut stdin: Option<Reader>,
    mut sizes: Option<Resizes>,
    fault: Fault,
) {
    loop {
        let typed = async {
            match &mut stdin {
                Some(stdin) => stdin.data().await,
                None => std::future::pending().await,
            }
        };
        let resized = async {
            match &mut sizes {
                Some(sizes) => sizes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            data = typed => match data {
                Some(Ok(data)) => drop(terminal.write_all(&data).await),
                _ => stdin = None,
            },
            size = resized => match size {
                Some(size) if fault != Fault::FixedTerminal => {
                    let _ = terminal.resize(pty_process::Size::new(size.height, size.width));
                }
                Some(_) => {}
                None => sizes = None,
            },
        }
    }
}

async fn forward(pending: Pending<TcpStream>, fault: Fault) -> Result<(), UpgradeError> {
    let upgraded = pending.accept(Protocol::ANY_PORT_FORWARD).await?;
    let (mux, driver) = Multiplexer::server(upgraded, Config::default());
    let refused = Arc::new(AtomicBool::new(false));
    let accepting = async {
        let Ok(mut server) = PortForwardServer::new(mux) else { return };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                request = server.accept() => match request {
                    Some(Ok(request)) if fault == Fault::FewConnections && connections.len() >= FEW => {
                        request.fail("too many connections");
                    }
                    Some(Ok(request)) => drop(connections.spawn(connect(request, fault, Arc::clone(&refused)))),
                    _ => return,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    };
    let _ = tokio::join!(accepting, driver);
    Ok(())
}

async fn connect(request: Request, fault: Fault, refused: Arc<AtomicBool>) {
    let connected = TcpStream::connect(("127.0.0.1", request.port())).await;
    let Ok(mut tcp) = connected else {
        request.fail("nothing listens on the port");
        refused.store(true, Ordering::Relaxed);
        return;
    };
    if fault == Fault::RefusalEndsAll {
        // Legacy port-forward asks for both ports at once.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if refused.load(Ordering::Relaxed) {
            return request.fail("another port was refused");
        }
    }
    let mut connection = request.accept();
    match fault {
        Fault::NoHalfClose | Fault::EndsTheIdle => {
            let (mut read, mut write) = tokio::io::split(connection);
            let (mut from, mut to) = tcp.split();
            let active = Notify::new();
            let there = async {
                let mut buffer = vec![0; 32 * 1024];
                while let Ok(read @ 1..) = read.read(&mut buffer).await {
                    active.notify_one();
                    if to.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
                // The server ignores whatever else the client sends.
                if fault != Fault::NoHalfClose {
                    let _ = to.shutdown().await;
                    std::future::pending::<()>().await;
                }
            };
            let back = async {
                let _ = tokio::io::copy(&mut from, &mut write).await;
                let _ = write.shutdown().await;
            };
            tokio::select! {
                () = there => {}
                () = back => {}
                () = silent(&active), if fault == Fault::EndsTheIdle => {}
            }
        }
        _ => drop(tokio::io::copy_bidirectional(&mut connection, &mut tcp).await),
    }
}
