//! The node's HTTP side: which request gets which answer.
//!
//! Holds the paths of a kube-apiserver that kubectl needs for exec, attach and port-forward, and those of a kubelet.
//! [`process`] runs the commands.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use kubestream::exec::ExecRequest;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{self, PortForwardServer};
use kubestream::upgrade::{self, Pending, Protocol, UpgradeError};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::{self, failure, ok, response};
use crate::attach::Main;
use crate::forward;
use crate::guard::{self, Hosts};
use crate::printable::printable;
use crate::process::{self, Place};
use crate::transport;

/// The only container of every pod.
const CONTAINER: &str = "main";

/// Takes messages about clients whose session failed. Other clients are not affected.
pub type Log = fn(fmt::Arguments<'_>);

/// A node, which serves its clients until it is dropped.
pub struct Node {
    hosts: Hosts,
    config: upgrade::Config,
    main: Main,
    log: Log,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Node {
    #[must_use]
    pub fn new(hosts: Hosts, mut config: upgrade::Config, log: Log) -> Self {
        config.long_queries = true;
        Self { hosts, config, main: Main::default(), log }
    }

    /// Serves clients over TCP until the future is dropped, which ends every session.
    pub async fn serve(self, listener: TcpListener) {
        let node = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    // Either the connection had gone before it was accepted, or no descriptor was free and the next
                    // try comes soon.
                    if accepted.is_err() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    if let Ok((tcp, _)) = accepted {
                        let node = Arc::clone(&node);
                        connections.spawn(async move { node.over_tcp(tcp).await });
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn over_tcp(&self, tcp: TcpStream) {
        let own = transport::set_options(&tcp).and_then(|()| tcp.local_addr());
        let answered = match own {
            Ok(own) => self.answer(tcp, &[own.ip()]).await,
            Err(error) => Err(error.into()),
        };
        self.report(answered);
    }

    /// Connects a client of this process, in memory: no other process can reach this connection. It is served while the
    /// runtime lives.
    pub fn connect(self: &Arc<Self>) -> DuplexStream {
        /// What either side may be ahead.
        const BUFFER: usize = 64 * 1024;
        let (client, server) = tokio::io::duplex(BUFFER);
        let node = Arc::clone(self);
        tokio::spawn(async move { node.report(node.answer(server, &[]).await) });
        client
    }

    fn report(&self, answered: Result<(), UpgradeError>) {
        if let Err(error) = answered {
            (self.log)(format_args!("node: {}", printable(error)));
        }
    }

    async fn answer<IO>(&self, io: IO, own: &[IpAddr]) -> Result<(), UpgradeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { hosts, config, main, log } = self;
        let log = *log;
        let pending = upgrade::accept(io, config).await?;
        if let Err(refusal) = hosts.check(pending.request(), own) {
            return pending.respond(*refusal).await;
        }
        if let Err(refusal) = guard::check_origin(pending.request().headers(), &config.allowed_origins) {
            return pending.respond(*refusal).await;
        }
        let path = pending.request().uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts[..] {
            ["api", "v1", "namespaces", namespace, "pods", name] => pending.respond(ok(&pod(namespace, name))).await,
            ["api", "v1", "namespaces", _, "pods", _, "exec"]
            | ["exec", _, _, CONTAINER]
            | ["exec", _, _, _, CONTAINER] => session(pending, parts[..].get(5), None, log).await,
            ["api", "v1", "namespaces", _, "pods", _, "attach"]
            | ["attach", _, _, CONTAINER]
            | ["attach", _, _, _, CONTAINER] => session(pending, parts[..].get(5), Some(main), log).await,
            ["api", "v1", "namespaces", _, "pods", _, "portforward"]
            | ["portForward", _, _]
            | ["portForward", _, _, _] => port_forward(pending, log).await,
            _ => {
                if let Some(known) = api::discovery(&parts) {
                    return pending.respond(known).await;
                }
                let message = format!("the server could not find the requested resource: {path}");
                pending.respond(failure(StatusCode::NOT_FOUND, "NotFound", &message)).await
            }
        }
    }
}

/// Serves an exec, or an attach to the main process.
async fn session<IO>(
    pending: Pending<IO>,
    pod: Option<&&str>,
    main: Option<&Main>,
    log: Log,
) -> Result<(), UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let request = pending.request();
    if ![Method::GET, Method::POST].contains(request.method()) {
        let message = format!("the server does not allow {} here", request.method());
        return pending.respond(failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message)).await;
    }
    let wanted = match ExecRequest::from_query(upgrade::query(request)) {
        Ok(wanted) => wanted,
        Err(error) => return pending.respond(text(StatusCode::BAD_REQUEST, &error.to_string())).await,
    };
    if let Some(container) = wanted.container.as_deref().filter(|name| *name != CONTAINER) {
        let message = format!("container {container} is not valid for pod {}", pod.unwrap_or(&"demo"));
        return pending.respond(failure(StatusCode::BAD_REQUEST, "BadRequest", &message)).await;
    }
    if wanted.command.is_empty() && main.is_none() {
        return pending.respond(text(StatusCode::BAD_REQUEST, "you must specify a command")).await;
    }
    if !pending.is_upgrade() {
        return pending.respond(failure(StatusCode::BAD_REQUEST, "BadRequest", "Upgrade request required")).await;
    }
    let upgraded = pending.accept(Protocol::ANY_EXEC).await?;
    let (mux, driver) = Multiplexer::server(upgraded, Config::exec());
    let session = async move {
        match mux.accept_exec(wanted.streams).await {
            Ok(server) => match main {
                Some(main) => main.attach(server).await,
                None => process::run(&wanted.command, wanted.streams.tty, &Place::default(), server).await,
            },
            Err(error) => Err(error),
        }
    };
    // The driver outlives the session, to write what is left.
    let (session, _) = tokio::join!(session, driver);
    if let Err(error) = session {
        log(format_args!("node: session: {}", printable(error)));
    }
    Ok(())
}

async fn port_forward<IO>(pending: Pending<IO>, log: Log) -> Result<(), UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    if !pending.is_upgrade() {
        return pending.respond(failure(StatusCode::BAD_REQUEST, "BadRequest", "Upgrade request required")).await;
    }
    let upgraded = pending.accept(Protocol::ANY_PORT_FORWARD).await?;
    let (mux, driver) = Multiplexer::server(upgraded, Config::default());
    let (forwarded, _) = tokio::join!(forward(mux), driver);
    match forwarded {
        // kubectl ends a port-forward by closing its connection.
        Ok(()) | Err(portforward::Error::Connection(_)) => {}
        Err(error) => log(format_args!("node: port-forward: {}", printable(error))),
    }
    Ok(())
}

/// Forwards until the client goes away, which ends its connections.
async fn forward(mux: Multiplexer) -> Result<(), portforward::Error> {
    let mut server = PortForwardServer::new(mux)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            request = server.accept() => match request.transpose()? {
                Some(request) => drop(connections.spawn(forward::connect(request))),
                // The client has ended in an orderly way. Bytes that it has sent may still be on their way.
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    const LAST_BYTES: Duration = Duration::from_secs(10);
    let _ = timeout(LAST_BYTES, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": CONTAINER, "image": "localhost/none"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": CONTAINER, "ready": true, "state": {"running": {}}}],
        },
    })
}

fn text(code: StatusCode, message: &str) -> Response<Bytes> {
    response(code, "text/plain; charset=utf-8", format!("{message}\n"))
}
