//! The server: gives URLs out, and answers who comes with one.

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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use super::tokens::Tokens;
use super::{Attach, Config, Exec, PortForward, RequestError};
use crate::exec::{self, ExecServer, Streams};
use crate::mux::Multiplexer;
use crate::portforward::{self, PortForwardServer, Request};
use crate::upgrade::{self, Pending, Protocol, UpgradeError};

/// What does the work. A session that it lets go without [`ExecServer::exit`], by an error, a panic, or because
/// [`Server::stop`] drops its future, ends for the client as a command that has failed.
pub trait Runtime: Send + Sync + 'static {
    /// Runs a command, and says with [`ExecServer::exit`] how it ended. Ask [`ExecServer::client_gone`] meanwhile: a client
    /// that goes away is nobody's to wait for.
    ///
    /// # Cancel safety
    /// Its future is dropped where [`Server::stop`] ends it, or [`Server::serve`] is dropped: what it runs has to end with it.
    fn exec(&self, what: Exec, session: ExecServer) -> impl Future<Output = Result<(), exec::Error>> + Send;

    /// Connects a client to a container's own process. That goes on when the client does not.
    ///
    /// # Cancel safety
    /// Its future is dropped as [`exec`](Self::exec)'s is; the process goes on.
    fn attach(&self, what: Attach, session: ExecServer) -> impl Future<Output = Result<(), exec::Error>> + Send;

    /// Connects a client to a port of a pod, for as long as both want.
    ///
    /// # Cancel safety
    /// Its future is dropped as [`exec`](Self::exec)'s is, and when the client goes away.
    fn port_forward(&self, pod_sandbox_id: &str, request: Request) -> impl Future<Output = ()> + Send;
}

/// Gives out one-use URLs and serves them. Clones are the same server.
pub struct Server<R> {
    inner: Arc<Inner<R>>,
}

struct Inner<R> {
    runtime: R,
    base: String,
    /// What of the base is in every path.
    prefix: String,
    config: Config,
    tokens: Mutex<Tokens<Prepared>>,
    state: watch::Sender<State>,
}

/// How far the server has come, and how many connections it serves.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    stopping: Stopping,
    serving: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stopping {
    #[default]
    No,
    /// What runs goes on, and nothing else begins.
    Draining,
    /// What runs is ended.
    Now,
}

/// What a token stands for.
#[derive(Debug)]
enum Prepared {
    Exec(Exec),
    Attach(Attach),
    PortForward(PortForward),
}

impl Prepared {
    /// What its path begins with.
    fn kind(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

impl<R: Runtime> Server<R> {
    /// A server whose URLs begin with `base`: the scheme and address under which kubelet and API server reach it, and maybe
    /// a path.
    ///
    /// # Errors
    /// `InvalidInput` where `base` is no such URL.
    pub fn new(runtime: R, base: &str, config: Config) -> io::Result<Self> {
        let base = base.trim_end_matches('/');
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("{base:?} is no URL of http or https"));
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

    /// A URL under which this command runs, once.
    ///
    /// # Errors
    /// [`RequestError`]: what is wrong with it, or that there are too many.
    pub fn exec_url(&self, what: Exec) -> Result<String, RequestError> {
        what.check()?;
        self.inner.prepare(Prepared::Exec(what))
    }

    /// A URL under which one client is attached, once.
    ///
    /// # Errors
    /// As [`exec_url`](Self::exec_url).
    pub fn attach_url(&self, what: Attach) -> Result<String, RequestError> {
        what.check()?;
        self.inner.prepare(Prepared::Attach(what))
    }

    /// A URL under which one client forwards any number of connections, once.
    ///
    /// # Errors
    /// As [`exec_url`](Self::exec_url).
    pub fn port_forward_url(&self, what: PortForward) -> Result<String, RequestError> {
        what.check()?;
        self.inner.prepare(Prepared::PortForward(what))
    }

    /// Serves one connection, after TLS if there is any: reads its request, and runs the session behind its token to the
    /// end. Over SPDY and WebSocket alike.
    ///
    /// A token that is unknown, was used, has expired or is of another kind is answered with 404; any of these uses it up.
    ///
    /// # Errors
    /// What went wrong, for a log: whatever could be answered was.
    ///
    /// # Cancel safety
    /// Dropped, it ends the session at once, and the runtime's future with it.
    pub async fn serve<IO>(&self, io: IO) -> Result<(), ServeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let inner = &*self.inner;
        let _serving = Serving::begin(&inner.state);
        let pending = inner.unless_stopped(upgrade::accept(io, &inner.config.upgrade)).await??;
        inner.answer(pending).await
    }

    /// Begins nothing more, and waits until all that runs has ended.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits; nothing more is begun all the same.
    pub async fn drain(&self) {
        self.inner.state.send_if_modified(|state| {
            let draining = state.stopping == Stopping::No;
            if draining {
                state.stopping = Stopping::Draining;
            }
            draining
        });
        // The sender is ours: it cannot be gone.
        let _ = self.inner.state.subscribe().wait_for(|state| state.serving == 0).await;
    }

    /// Ends all that runs, and begins nothing more. [`drain`](Self::drain) waits until it has ended.
    pub fn stop(&self) {
        self.inner.state.send_modify(|state| state.stopping = Stopping::Now);
    }

    /// Connections that are being served.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.inner.state.borrow().serving
    }
}

impl<R: Runtime> Inner<R> {
    fn prepare(&self, what: Prepared) -> Result<String, RequestError> {
        if self.is_stopping() {
            return Err(RequestError::Stopping);
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| RequestError::NoRandomness(error.into()))?;
        let token = BASE64_URL_SAFE_NO_PAD.encode(random);
        let url = format!("{}/{}/{token}", self.base, what.kind());
        let now = tokio::time::Instant::now().into_std();
        if self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(token, what, now) {
            Ok(url)
        } else {
            Err(RequestError::TooMany)
        }
    }

    /// Waits for something, for as long as what runs may go on.
    async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Result<T, ServeError> {
        let mut state = self.state.subscribe();
        // What it gives is a lock, which must not be held while anything is dropped.
        let stopped = async { drop(state.wait_for(|state| state.stopping == Stopping::Now).await) };
        tokio::select! {
            biased;
            done = future => Ok(done),
            () = stopped => Err(ServeError::Stopped),
        }
    }

    fn is_stopping(&self) -> bool {
        self.state.borrow().stopping != Stopping::No
    }

    /// What the token in a path stands for. Whoever asks has used it up.
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

    async fn answer<IO>(&self, pending: Pending<IO>) -> Result<(), ServeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let request = pending.request();
        if self.is_stopping() {
            pending.respond(RequestError::Stopping.to_response()).await?;
            return Err(ServeError::Stopped);
        }
        if ![Method::GET, Method::POST].contains(request.method()) {
            let mut response = upgrade::plain(StatusCode::METHOD_NOT_ALLOWED, "405: GET or POST");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
            return Ok(pending.respond(response).await?);
        }
        let Some(prepared) = self.redeem(request.uri().path()) else {
            pending.respond(upgrade::plain(StatusCode::NOT_FOUND, "404 page not found")).await?;
            return Err(ServeError::NoSuchToken);
        };
        match prepared {
            Prepared::Exec(what) => {
                let streams = what.streams;
                self.session(pending, streams, |session| self.runtime.exec(what, session)).await
            }
            Prepared::Attach(what) => {
                let streams = what.streams;
                self.session(pending, streams, |session| self.runtime.attach(what, session)).await
            }
            Prepared::PortForward(what) => self.forward(pending, what).await,
        }
    }

    async fn session<IO, Run, Running>(
        &self,
        pending: Pending<IO>,
        streams: Streams,
        run: Run,
    ) -> Result<(), ServeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
        Run: FnOnce(ExecServer) -> Running,
        Running: Future<Output = Result<(), exec::Error>>,
    {
        let upgraded = pending.accept(Protocol::ANY).await?;
        let (mux, driver) = Multiplexer::server(upgraded, self.config.session.clone());
        let session = async {
            let session = mux.accept_exec_with(streams, self.config.exec.clone()).await?;
            drop(mux);
            // A runtime that panics has let the session go, of which the client is to hear. The panic goes on after that.
            Ok(AssertUnwindSafe(async move { run(session).await }).catch_unwind().await)
        };
        // The driver outlives the session, one that was stopped too: it writes what is left of it, and how it ended.
        let (session, _) = tokio::join!(self.unless_stopped(session), driver);
        match session? {
            Ok(Ok(ended)) => Ok(ended?),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(error) => Err(ServeError::Session(error)),
        }
    }

    async fn forward<IO>(&self, pending: Pending<IO>, what: PortForward) -> Result<(), ServeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let sandbox = &what.pod_sandbox_id;
        let pending = if what.ports.is_empty() { pending } else { pending.with_ports(&what.ports) };
        let upgraded = pending.accept(Protocol::PORT_FORWARD).await?;
        let (mux, driver) = Multiplexer::server(upgraded, self.config.forward.clone());
        let mut server = PortForwardServer::with_options(mux, &self.config.port_forward)?;
        let forwarding = async move {
            let mut connections = FuturesUnordered::new();
            loop {
                tokio::select! {
                    request = server.accept() => match request {
                        Some(Ok(request)) => connections.push(self.runtime.port_forward(sandbox, request)),
                        // It has ended in good order, and what it has sent may not be read yet.
                        None => break,
                        // With a client that is lost goes all that it has forwarded.
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

/// Counts one connection for as long as it is served.
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

/// Why a connection was not served to a good end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// There is no such token, or not any more. It was answered 404.
    #[error("no such token, or it was used, or has expired")]
    NoSuchToken,
    /// The server stops: [`Server::drain`] or [`Server::stop`].
    #[error("the streaming server is stopping")]
    Stopped,
    /// The handshake failed.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The session failed.
    #[error(transparent)]
    Session(#[from] exec::Error),
    /// Port-forward failed, all of it.
    #[error(transparent)]
    PortForward(#[from] portforward::Error),
}

impl<R> Clone for Server<R> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<R> fmt::Debug for Server<R> {
    /// Shows no token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("base", &self.inner.base).finish_non_exhaustive()
    }
}
