//! The streaming server: it makes URLs, and serves the connections to these URLs.
//!
//! This module owns which requests are answered, which session a token stands for, and how the server stops. It must
//! not listen, speak TLS or spawn: the caller does, and hands over any IO.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::{self, HeaderValue};
use http::{Method, StatusCode, Uri};
use kubestream::exec::{self, ExecServer, Streams};
use kubestream::mux::Multiplexer;
use kubestream::portforward::PortForwardServer;
use kubestream::upgrade::{self, Pending, Protocol};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::RuntimeConfig;
use crate::error::{Error, plain};
use crate::runtime::Runtime;
use crate::tokens::Tokens;

/// Makes one-use URLs for sessions, and serves the connections to them. A clone is a handle of the same server.
pub struct Server<R> {
    inner: Arc<Inner<R>>,
}

struct Inner<R> {
    runtime: R,
    base: String,
    /// The path of the base URL. Every path begins with it.
    prefix: String,
    config: RuntimeConfig,
    tokens: Mutex<Tokens<Prepared>>,
    state: watch::Sender<State>,
}

/// Whether the server stops, and how many connections it serves.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    stopping: Stopping,
    serving: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stopping {
    #[default]
    No,
    /// Connections that are being served go on, and no others begin.
    Draining,
    /// Connections that are being served are ended.
    Now,
}

/// What a token stands for.
#[derive(Debug)]
enum Prepared {
    Exec { container_id: String, command: Vec<String>, streams: Streams },
    Attach { container_id: String, streams: Streams },
    PortForward { pod_sandbox_id: String, ports: Vec<u16> },
}

impl Prepared {
    /// The first segment of its path.
    fn kind(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }
}

impl<R: Runtime> Server<R> {
    /// Makes a server whose URLs begin with `base`: the scheme and the address under which the kubelet or the
    /// kube-apiserver reaches it, and optionally a path, such as `http://127.0.0.1:10010`.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if `base` is not such a URL.
    pub fn new(runtime: R, base: &str, config: RuntimeConfig) -> io::Result<Self> {
        let base = base.trim_end_matches('/');
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("{base:?} is not an http or https URL"));
        let uri: Uri = base.parse().map_err(|_| invalid())?;
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || uri.host().is_none_or(str::is_empty)
            || base.contains(['?', '#', '@'])
        {
            return Err(invalid());
        }
        let inner = Inner {
            runtime,
            base: base.to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tokens: Mutex::new(Tokens::new(config.token_ttl, config.max_tokens)),
            config,
            state: watch::Sender::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a URL at which one client runs a command once: the answer to CRI's `Exec`.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::TtyAndStderr`] or [`Error::NoStreams`] if a part of the request is not valid,
    /// [`Error::TooMany`] if [`RuntimeConfig::max_tokens`] URLs wait to be used, [`Error::Stopping`] after
    /// [`drain`](Self::drain) or [`stop`](Self::stop), or [`Error::NoRandomness`].
    pub fn exec_url<S: Into<String>>(
        &self,
        container_id: impl Into<String>,
        command: impl IntoIterator<Item = S>,
        streams: Streams,
    ) -> Result<String, Error> {
        let container_id = container_id.into();
        check(&container_id, streams)?;
        let command = command.into_iter().map(Into::into).collect();
        self.inner.prepare(Prepared::Exec { container_id, command, streams })
    }

    /// Makes a URL at which one client attaches once to the main process of a container: the answer to CRI's `Attach`.
    ///
    /// # Errors
    /// As [`exec_url`](Self::exec_url).
    pub fn attach_url(&self, container_id: impl Into<String>, streams: Streams) -> Result<String, Error> {
        let container_id = container_id.into();
        check(&container_id, streams)?;
        self.inner.prepare(Prepared::Attach { container_id, streams })
    }

    /// Makes a URL at which one client can begin port-forward once, with any number of connections: the answer to CRI's
    /// `PortForward`.
    ///
    /// `ports` is the field `port` of CRI's request. A kubelet fills it in for clients of legacy port-forward, which
    /// name their ports in the request to the kubelet. All other clients name a port with each connection. If `ports`
    /// is empty, a client of legacy port-forward must name its ports in the query of the URL.
    ///
    /// # Errors
    /// [`Error::NoSandbox`] if the sandbox's id is empty, and otherwise as [`exec_url`](Self::exec_url).
    pub fn port_forward_url(&self, pod_sandbox_id: impl Into<String>, ports: &[u16]) -> Result<String, Error> {
        let pod_sandbox_id = pod_sandbox_id.into();
        if pod_sandbox_id.is_empty() {
            return Err(Error::NoSandbox);
        }
        self.inner.prepare(Prepared::PortForward { pod_sandbox_id, ports: ports.to_vec() })
    }

    /// Serves one connection: reads its request, and runs the session that the token in its URL stands for, until its
    /// end. If the connection uses TLS, the TLS handshake must be over. The session may use SPDY or WebSocket.
    ///
    /// A token that is unknown, used, expired or of another kind is answered with 404. Every GET or POST uses up its
    /// token, even if it is then refused or fails.
    ///
    /// # Errors
    /// [`Error::NoSuchToken`], [`Error::Stopping`], [`Error::Upgrade`] if the handshake failed, or [`Error::Session`]
    /// or [`Error::PortForward`] if the session failed after the handshake. The error is for a log: the client has been
    /// answered where that was possible.
    ///
    /// # Cancel safety
    /// Dropping the future ends the session at once and drops the runtime's future.
    pub async fn serve<IO>(&self, io: IO) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let inner = &*self.inner;
        let _serving = Serving::begin(&inner.state);
        let pending = inner.unless_stopped(upgrade::accept(io, &inner.config.upgrade)).await??;
        inner.answer(pending).await
    }

    /// Stops accepting requests, and waits until every connection that is being served has ended. There is no time
    /// limit: call [`stop`](Self::stop) to end them.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait. The server still accepts no requests.
    pub async fn drain(&self) {
        self.inner.state.send_if_modified(|state| {
            let draining = state.stopping == Stopping::No;
            if draining {
                state.stopping = Stopping::Draining;
            }
            draining
        });
        // This value holds the sender, so the wait cannot fail.
        let _ = self.inner.state.subscribe().wait_for(|state| state.serving == 0).await;
    }

    /// Stops accepting requests, and ends every connection that is being served. This does not wait:
    /// [`drain`](Self::drain) waits until they have ended.
    pub fn stop(&self) {
        self.inner.state.send_modify(|state| state.stopping = Stopping::Now);
    }

    /// How many connections are being served.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.inner.state.borrow().serving
    }
}

impl<R: Runtime> Inner<R> {
    fn prepare(&self, what: Prepared) -> Result<String, Error> {
        if self.is_stopping() {
            return Err(Error::Stopping);
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Error::NoRandomness(error.into()))?;
        let token = BASE64_URL_SAFE_NO_PAD.encode(random);
        let url = format!("{}/{}/{token}", self.base, what.kind());
        let now = tokio::time::Instant::now().into_std();
        if self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(token, what, now) {
            Ok(url)
        } else {
            Err(Error::TooMany)
        }
    }

    /// Waits for `future` until the server is stopped.
    async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        let mut state = self.state.subscribe();
        // `wait_for` returns a lock guard, which must not be held while anything else is dropped.
        let stopped = async { drop(state.wait_for(|state| state.stopping == Stopping::Now).await) };
        tokio::select! {
            biased;
            done = future => Ok(done),
            () = stopped => Err(Error::Stopping),
        }
    }

    fn is_stopping(&self) -> bool {
        self.state.borrow().stopping != Stopping::No
    }

    /// Returns what the token in a path stands for, and uses the token up.
    fn redeem(&self, path: &str) -> Option<Prepared> {
        let mut parts = path.strip_prefix(&self.prefix)?.strip_prefix('/')?.split('/');
        let (kind, token) = (parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let now = tokio::time::Instant::now().into_std();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.take(token, now).filter(|prepared| prepared.kind() == kind)
    }

    async fn answer<IO>(&self, pending: Pending<IO>) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let request = pending.request();
        if self.is_stopping() {
            pending.respond(Error::Stopping.to_response()).await?;
            return Err(Error::Stopping);
        }
        if ![Method::GET, Method::POST].contains(request.method()) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "405: GET or POST");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
            return Ok(pending.respond(response).await?);
        }
        let Some(prepared) = self.redeem(request.uri().path()) else {
            pending.respond(Error::NoSuchToken.to_response()).await?;
            return Err(Error::NoSuchToken);
        };
        match prepared {
            Prepared::Exec { container_id, command, streams } => {
                self.session(pending, streams, |session| self.runtime.exec(container_id, command, streams, session))
                    .await
            }
            Prepared::Attach { container_id, streams } => {
                self.session(pending, streams, |session| self.runtime.attach(container_id, streams, session)).await
            }
            Prepared::PortForward { pod_sandbox_id, ports } => self.forward(pending, &pod_sandbox_id, &ports).await,
        }
    }

    async fn session<IO, Run, Running>(&self, pending: Pending<IO>, streams: Streams, run: Run) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
        Run: FnOnce(ExecServer) -> Running,
        Running: Future<Output = Result<(), exec::Error>>,
    {
        let upgraded = pending.accept(Protocol::ANY_EXEC).await?;
        let (mux, driver) = Multiplexer::server(upgraded, self.config.session.clone());
        let session = async {
            let session = mux.accept_exec_with(streams, self.config.exec.clone()).await?;
            drop(mux);
            // A runtime that panics has dropped the session. The client must be told before the panic is resumed.
            Ok(AssertUnwindSafe(async move { run(session).await }).catch_unwind().await)
        };
        // The driver outlives the session, even one that was stopped: it writes what is left, and how the session
        // ended.
        let (session, _) = tokio::join!(self.unless_stopped(session), driver);
        match session? {
            Ok(Ok(ended)) => Ok(ended?),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(error) => Err(Error::Session(error)),
        }
    }

    async fn forward<IO>(&self, pending: Pending<IO>, sandbox: &str, ports: &[u16]) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let pending = if ports.is_empty() { pending } else { pending.with_ports(ports) };
        let upgraded = pending.accept(Protocol::ANY_PORT_FORWARD).await?;
        let (mux, driver) = Multiplexer::server(upgraded, self.config.forward.clone());
        let mut server = PortForwardServer::with_options(mux, &self.config.port_forward)?;
        let forwarding = async move {
            let mut connections = FuturesUnordered::new();
            loop {
                tokio::select! {
                    request = server.accept() => match request {
                        Some(Ok(request)) => connections.push(self.runtime.port_forward(sandbox, request)),
                        // The client has ended in an orderly way. What it sent may not have been read yet.
                        None => break,
                        // The client is lost, and with it every connection that it forwarded.
                        Some(Err(_)) => return,
                    },
                    Some(()) = connections.next() => {}
                }
            }
            let rest = async { while connections.next().await.is_some() {} };
            let _ = timeout(self.config.forward.linger, rest).await;
        };
        let (stopped, _) = tokio::join!(self.unless_stopped(forwarding), driver);
        stopped
    }
}

/// Counts one connection while it is served.
struct Serving<'a>(&'a watch::Sender<State>);

impl<'a> Serving<'a> {
    fn begin(state: &'a watch::Sender<State>) -> Self {
        state.send_modify(|state| state.serving = state.serving.saturating_add(1));
        Self(state)
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.serving = state.serving.saturating_sub(1));
    }
}

/// cri-streaming's checks of exec and attach.
fn check(container_id: &str, streams: Streams) -> Result<(), Error> {
    let Streams { stdin, stdout, stderr, tty } = streams;
    if container_id.is_empty() {
        Err(Error::NoContainer)
    } else if tty && stderr {
        Err(Error::TtyAndStderr)
    } else if !(stdin || stdout || stderr) {
        Err(Error::NoStreams)
    } else {
        Ok(())
    }
}

impl<R> Clone for Server<R> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<R> fmt::Debug for Server<R> {
    /// The token must not be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("base", &self.inner.base).finish_non_exhaustive()
    }
}
