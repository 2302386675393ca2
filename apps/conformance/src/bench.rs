//! What a case works with: the server, one column, and functions that start sessions.
//!
//! Holds the client's side of what nearly every case does. The cases themselves say what is right.

use std::cmp::Reverse;
use std::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use kubestream::exec::{self, Exec, ExecRequest, Output, Reader, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::status::ExitStatus;
use kubestream::upgrade::{self, Protocol, UpgradeError, Upgraded, Version};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::column::Column;
use crate::scale::Scale;
use crate::target::{Io, Operation, Paths, Target};
use crate::verdict::{Departure, Instead, Known, Outcome, failed, late};

/// One case in one column.
#[derive(Clone, Debug)]
pub struct Bench {
    pub target: Arc<Target>,
    pub scale: Arc<Scale>,
    pub column: Column,
    /// The protocols that the server was found to offer, of all columns.
    pub offered: Arc<[Protocol]>,
}

/// A session and the driver of its connection.
#[derive(Debug)]
pub struct Session {
    pub exec: Exec,
    pub mux: Multiplexer,
    /// The driver ends by itself after the session is dropped. Aborting it breaks the connection off.
    pub driver: JoinHandle<()>,
}

/// A server's answer to a request that asks for no session.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Bench {
    /// A request with the user's credentials.
    pub async fn request(&self, method: Method, url: &str) -> Outcome<http::request::Builder> {
        let request = Request::builder().method(method).uri(url).header("User-Agent", "kubestream-conformance");
        let request = request.body(()).instead_of("a request")?;
        let authorised = within("credentials", self.scale.patience, self.target.authorised(request)).await?;
        let request = authorised.instead_of("credentials")?;
        let mut builder = Request::builder().method(request.method()).uri(request.uri());
        if let Some(headers) = builder.headers_mut() {
            *headers = request.headers().clone();
        }
        Ok(builder)
    }

    pub async fn dial(&self) -> Outcome<Box<dyn Io>> {
        match timeout(self.scale.patience, self.target.dial()).await {
            Ok(dialled) => dialled.map_err(|error| Departure::Unreached(causes(&*error))),
            Err(_) => Err(Departure::Unreached(format!("nothing within {} s", self.scale.patience.as_secs()))),
        }
    }

    /// Asks for an upgrade. A refusal is an `Ok` here.
    pub async fn offer(&self, url: &str, offers: &[Protocol]) -> Outcome<Result<Upgraded<Box<dyn Io>>, UpgradeError>> {
        let io = self.dial().await?;
        self.offer_over(io, url, offers).await
    }

    /// The same over a connection that the case has made.
    pub async fn offer_over<IO>(
        &self,
        io: IO,
        url: &str,
        offers: &[Protocol],
    ) -> Outcome<Result<Upgraded<IO>, UpgradeError>>
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let request = self.request(self.method(), url).await?.body(()).instead_of("a request")?;
        within("an answer", self.scale.patience, upgrade::connect(io, request, offers, &upgrade::Config::default()))
            .await
    }

    /// Sends a request that asks for no session. hyper is the client.
    pub async fn ask(&self, method: Method, url: &str, headers: &[(&str, String)]) -> Outcome<Answer> {
        let mut request = self.request(method, url).await?;
        let authority = url.split('/').nth(2).unwrap_or_default();
        request = request.header("Host", authority);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).instead_of("a request")?;
        let io = TokioIo::new(self.dial().await?);
        let asked = async {
            let (mut client, connection) = hyper::client::conn::http1::handshake(io).await?;
            let connection = tokio::spawn(connection);
            let answer = client.send_request(request).await?;
            let (head, body) = answer.into_parts();
            let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
                Bytes::new()
            } else {
                const LONGEST: usize = 64 * 1024;
                Limited::new(body, LONGEST).collect().await.map(|body| body.to_bytes()).unwrap_or_default()
            };
            connection.abort();
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok::<_, hyper::Error>(Answer { status: head.status, headers: head.headers, body })
        };
        within("an answer", self.scale.patience, asked).await?.instead_of("an answer")
    }

    /// The exec protocols of the column's transport that the server was found to offer.
    pub fn offered_here(&self) -> impl Iterator<Item = Protocol> {
        let transport = self.column.protocol.transport();
        let exec = self.offered.iter().copied().filter(|protocol| protocol.version().is_some());
        exec.filter(move |protocol| protocol.transport() == transport)
    }

    /// The newest of them, which kubectl would choose.
    pub fn newest(&self) -> Outcome<Protocol> {
        // The binary and the base64 form of a version compare equal, and the binary one comes first.
        let newest = self.offered_here().min_by_key(|protocol| Reverse(protocol.version()));
        newest.ok_or_else(|| Departure::NotOffered("the server offers no protocol".into()))
    }

    /// The method that kubectl uses: POST for SPDY, GET for WebSocket.
    pub fn method(&self) -> Method {
        if self.column.is_spdy() { Method::POST } else { Method::GET }
    }

    /// The headers of an upgrade that offers exactly these names, for a case that does not use the library's handshake.
    pub fn upgrade_headers(&self, names: &[&str]) -> Vec<(&'static str, String)> {
        let mut headers = vec![("Connection", "Upgrade".to_owned())];
        if self.column.is_spdy() {
            headers.push(("Upgrade", "SPDY/3.1".into()));
            headers.extend(names.iter().map(|name| ("X-Stream-Protocol-Version", (*name).to_owned())));
        } else {
            headers.push(("Upgrade", "websocket".into()));
            headers.push(("Sec-WebSocket-Version", "13".into()));
            headers.push(("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==".into()));
            if !names.is_empty() {
                // One line holds all names, because Go's servers do not read a second one.
                headers.push(("Sec-WebSocket-Protocol", names.join(", ")));
            }
        }
        headers
    }

    /// The URL at which a command is run.
    pub fn exec_url(&self, command: &[&str], streams: Streams) -> String {
        self.exec_url_in(self.target.pod.container.as_deref(), command, streams)
    }

    /// The same in another container.
    pub fn exec_url_in(&self, container: Option<&str>, command: &[&str], streams: Streams) -> String {
        self.url(Operation::Exec, container, ExecRequest::new(command.iter().copied(), streams))
    }

    fn url(&self, operation: Operation, container: Option<&str>, mut request: ExecRequest) -> String {
        if let Some(container) = container {
            request = request.container(container);
        }
        let query = match self.target.paths {
            Paths::ApiServer => request.to_query(),
            Paths::Kubelet => request.to_kubelet_query(),
        };
        self.target.url(operation, container, &query)
    }

    /// The URL at which ports are forwarded. Only legacy port-forward names the ports in the request.
    pub fn forward_url(&self, ports: &[u16]) -> String {
        let name = if self.target.paths == Paths::Kubelet { "port" } else { "ports" };
        let named = ports.iter().filter(|_| self.column.names_ports()).map(|port| format!("{name}={port}"));
        self.target.url(Operation::PortForward, None, &named.collect::<Vec<_>>().join("&"))
    }

    /// Starts a session that runs a command.
    pub async fn start(&self, command: &[&str], streams: Streams) -> Outcome<Session> {
        self.session(&self.exec_url(command, streams), streams).await
    }

    /// Attaches to the main process of a container.
    pub async fn attach(&self, container: &str, streams: Streams) -> Outcome<Session> {
        let request = ExecRequest::new(Vec::<String>::new(), streams);
        self.session(&self.url(Operation::Attach, Some(container), request), streams).await
    }

    async fn session(&self, url: &str, streams: Streams) -> Outcome<Session> {
        let protocol = self.column.protocol;
        let upgraded = self.offer(url, &[protocol]).await?.instead_of("an upgrade")?;
        if upgraded.protocol() != Some(protocol) {
            return Err(failed(protocol.name(), format_args!("{:?}", upgraded.protocol().map(Protocol::name))));
        }
        self.session_on(upgraded, streams).await
    }

    pub async fn session_on<IO>(&self, upgraded: Upgraded<IO>, streams: Streams) -> Outcome<Session>
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mut config = Config::exec();
        config.keepalive_interval = Some(self.scale.keepalive);
        let (mux, driver) = Multiplexer::client(upgraded, config);
        // The sessions report how their connection ends.
        let driver = tokio::spawn(async { drop(driver.await) });
        let exec = within("the streams", self.scale.patience, mux.exec(streams)).await?.instead_of("a session")?;
        Ok(Session { exec, mux, driver })
    }

    /// Runs a script, and returns its whole output and status.
    pub async fn sh(&self, script: &str) -> Outcome<Output> {
        self.output(&["sh", "-c", script], Streams::OUTPUT).await
    }

    pub async fn output(&self, command: &[&str], streams: Streams) -> Outcome<Output> {
        const LONGEST: usize = 16_000_000;
        let Session { mut exec, .. } = self.start(command, streams).await?;
        // Keeps stdin open until the command has ended. Some servers lose unsent output if a client writes while they
        // finish; other cases test for that.
        let _stdin = exec.stdin.take();
        match within("the end of the command", self.scale.patience, exec.wait_with_output(LONGEST)).await? {
            // The client's own time limit was shorter.
            Err(exec::Error::StatusTimeout(limit)) => Err(late("a status", limit)),
            output => output.instead_of("the output and its status"),
        }
    }

    /// For a command that must fail: in v1 over SPDY, success is an empty error stream, so a success here means that
    /// the error was lost.
    pub fn said_something(&self, status: &ExitStatus) -> Outcome {
        let is_v1 = self.column.is_spdy() && self.column.protocol.version() == Some(Version::V1);
        if is_v1 && status.success() { Err(late("an exit code", self.scale.patience)) } else { Ok(()) }
    }

    /// Does something many times, several at a time, until one fails.
    pub async fn many<F>(&self, times: usize, does: impl Fn(usize) -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        // Each runs on a task of its own. On one task, a session that always has something to read would starve the
        // others, and the server would see clients that send nothing for seconds.
        let mut running = JoinSet::new();
        for number in 0..times {
            if running.len() >= self.scale.parallel.max(1) {
                ended(running.join_next().await)?;
            }
            let done = does(number);
            running.spawn(async move { done.await.map_err(|departure| departure.at(format_args!("run {number}"))) });
        }
        while !running.is_empty() {
            ended(running.join_next().await)?;
        }
        Ok(())
    }

    /// The same, for servers that are known to leave about one request in a hundred unanswered. More than one in a
    /// hundred is a failure, and so is any other fault.
    pub async fn many_but_few<F>(&self, times: usize, known: &'static Known, does: impl Fn(usize) -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let silent = Arc::new(Mutex::new(Vec::new()));
        let forgiving = |number| {
            let (done, silent) = (does(number), Arc::clone(&silent));
            async move {
                match done.await {
                    Err(departure) if departure.is_late() => {
                        silent
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(departure.at(format_args!("run {number}")));
                        Ok(())
                    }
                    other => other,
                }
            }
        };
        self.many(times, forgiving).await?;
        let mut silent = silent.lock().unwrap_or_else(PoisonError::into_inner);
        let count = silent.len();
        let Some(first) = silent.pop() else { return Ok(()) };
        let first = first.at(format_args!("{times} times, {count} without an answer"));
        Err(if count * 100 <= times.max(100) { first.known(known) } else { first })
    }
}

/// The outcome of a task. Only its set aborts it.
fn ended(task: Option<Result<Outcome, JoinError>>) -> Outcome {
    match task {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(failed("a verdict", error)),
        None => Ok(()),
    }
}

/// An error with all its causes, because hyper's own message says little.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Fails if the future takes longer than the limit.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> Outcome<T> {
    timeout(limit, future).await.map_err(|_| late(what, limit))
}

/// Reads an output to its end.
pub async fn drain(output: Option<Reader>, mut with: impl FnMut(Bytes)) -> Outcome {
    let Some(mut output) = output else { return Err(failed("an output", "none")) };
    while let Some(data) = output.data().await {
        with(data.instead_of("more output, or its end")?);
    }
    Ok(())
}

/// Reads stdout to its end, and returns how the command ended.
pub async fn rest(
    limit: Duration,
    exec: &mut Exec,
    stdout: Option<Reader>,
    with: impl FnMut(Bytes),
) -> Outcome<ExitStatus> {
    let ended = async { tokio::join!(drain(stdout, with), exec.wait()) };
    let (read, status) = within("the end of the command", limit, ended).await?;
    read?;
    status.instead_of("a status")
}

/// Reads an output until it contains the text.
pub async fn until(output: &mut Option<Reader>, said: &mut Vec<u8>, text: &str) -> Outcome {
    let Some(output) = output else { return Err(failed("an output", "none")) };
    while !said.windows(text.len()).any(|window| window == text.as_bytes()) {
        match output.data().await {
            Some(data) => said.extend_from_slice(&data.instead_of(format_args!("{text:?}"))?),
            None => {
                return Err(failed(
                    format_args!("{text:?}"),
                    format_args!("{:?} and the end", String::from_utf8_lossy(said)),
                ));
            }
        }
    }
    Ok(())
}
