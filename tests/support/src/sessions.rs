//! Small sessions with both their ends. Each end checks whether everything was as it should be.
//!
//! Decides what the sessions carry, and what each end must have received before it succeeds.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use kubestream::exec::{self, ExecServer, Streams};
use kubestream::mux::{Config, Driver, Multiplexer};
use kubestream::portforward::{self, Connection, PortForward, PortForwardServer};
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::upgrade::{self, Protocol, UpgradeError, Upgraded};
use kubestream::{ConnectionError, Initiator, StreamError};
use kubestream_proxy::{self as proxy, TranslateError, translate_exec, translate_port_forward};
use kubestream_runtime::{Error, Runtime, RuntimeConfig, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::pattern;
use crate::wire::Io;

pub const PORTS: [u16; 3] = [7, 8, 9];
pub const IDLE: Duration = Duration::from_secs(20 * 60);
const REASON: &str = "nobody listens";
const SIZES: [TerminalSize; 2] = [TerminalSize { width: 80, height: 24 }, TerminalSize { width: 132, height: 50 }];

/// The kind of session.
#[derive(Clone, Debug)]
pub enum What {
    /// A command that writes to stdout what it reads, and bytes of its own to stderr.
    Exec(Streams, ExitStatus),
    /// Three connections: one that sends back everything, one that only sends, and one that fails.
    Forward,
}

/// Why an end did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// An error of the crate.
    Typed(Initiator, String),
    /// The end was told of success, but something is missing. This is only right where it is documented.
    Untrue(Untrue),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untrue {
    /// Bytes are missing.
    Truncated { what: &'static str, had: usize, all: usize },
    /// Bytes are not the ones that were sent.
    Wrong(&'static str),
    /// The command ended in another way.
    Status(ExitStatus),
    /// An error that is not of the crate.
    Untyped(String),
}

impl Failure {
    fn typed(initiator: Initiator, error: impl fmt::Debug) -> Self {
        Self::Typed(initiator, format!("{error:?}"))
    }
}

macro_rules! typed {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::typed(error.initiator(), error)
            }
        })*
    };
}

typed!(exec::Error, portforward::Error, ConnectionError, StreamError, UpgradeError, TranslateError);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Upgrade(error) => error.into(),
            Error::Session(error) => error.into(),
            Error::PortForward(error) => error.into(),
            error => Self::Untrue(Untrue::Untyped(format!("{error:?}"))),
        }
    }
}

/// Errors of reading and writing through the IO traits are errors of the crate too.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.downcast::<StreamError>() {
            Ok(error) => error.into(),
            Err(error) => match error.downcast::<portforward::Error>() {
                Ok(error) => error.into(),
                Err(error) => Self::Untrue(Untrue::Untyped(format!("{error:?}"))),
            },
        }
    }
}

/// Checks that everything that was sent has come.
fn whole(what: &'static str, had: &[u8], all: &[u8]) -> Result<(), Failure> {
    genuine(what, had, all)?;
    if had.len() < all.len() {
        return Err(Failure::Untrue(Untrue::Truncated { what, had: had.len(), all: all.len() }));
    }
    Ok(())
}

/// Checks that what came is a beginning of what was sent.
fn genuine(what: &'static str, had: &[u8], all: &[u8]) -> Result<(), Failure> {
    if all.starts_with(had) { Ok(()) } else { Err(Failure::Untrue(Untrue::Wrong(what))) }
}

fn typed_in() -> Vec<u8> {
    [pattern(1, 70), pattern(2, 30)].concat()
}

/// The stdout of a session: the input, if there is any, and then this.
fn shown(streams: Streams) -> Vec<u8> {
    let echoed = if streams.stdin { typed_in() } else { Vec::new() };
    [&echoed[..], &pattern(3, 60)].concat()
}

fn complained() -> Bytes {
    pattern(4, 40)
}

/// The client of a command.
async fn command(mux: Multiplexer, streams: Streams, status: ExitStatus) -> Result<(), Failure> {
    let mut exec = mux.exec(streams).await?;
    drop(mux);
    let ends = exec.can_end_stdin();
    let (stdin, resize) = (exec.stdin.take(), exec.resize.take());
    let (stdout, stderr) = (exec.stdout.take(), exec.stderr.take());
    let typing = async {
        if let Some(mut resize) = resize {
            for size in SIZES {
                resize.resize(size).await?;
            }
        }
        if let Some(mut stdin) = stdin {
            stdin.send(pattern(1, 70)).await?;
            stdin.write_all(&pattern(2, 30)).await?;
            if ends {
                stdin.finish();
            }
        }
        Ok::<_, Failure>(())
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let reading_out = async {
        let Some(mut stdout) = stdout else { return Ok::<_, Failure>(()) };
        while let Some(data) = stdout.data().await {
            out.extend_from_slice(&data?);
        }
        Ok(())
    };
    let reading_err = async {
        let Some(mut stderr) = stderr else { return Ok::<_, Failure>(()) };
        stderr.read_to_end(&mut err).await?;
        Ok(())
    };
    let (typed, read_out, read_err, ended) = tokio::join!(typing, reading_out, reading_err, exec.wait());
    let all = (shown(streams), complained());
    genuine("stdout", &out, &all.0)?;
    genuine("stderr", &err, &all.1)?;
    let ended = ended?;
    if ended.code() != status.code() {
        return Err(Failure::Untrue(Untrue::Status(ended)));
    }
    read_out?;
    read_err?;
    whole("stdout", &out, &all.0)?;
    if streams.stderr {
        whole("stderr", &err, &all.1)?;
    }
    typed
}

/// The same for outputs only, collected.
async fn collected(mux: Multiplexer, streams: Streams, status: ExitStatus) -> Result<(), Failure> {
    let exec = mux.exec(streams).await?;
    drop(mux);
    let output = exec.wait_with_output(1000).await?;
    whole("stdout", &output.stdout, &shown(streams))?;
    whole("stderr", &output.stderr, &complained())?;
    if output.status.code() != status.code() {
        return Err(Failure::Untrue(Untrue::Status(output.status)));
    }
    Ok(())
}

/// The command.
async fn process(mut process: ExecServer, ends: bool, status: ExitStatus) -> Result<(), Failure> {
    if let Some(mut resizes) = process.resize.take() {
        // The end and a failure look the same here, and the session goes on.
        while let Some(size) = resizes.next().await {
            if !SIZES.contains(&size) {
                return Err(Failure::Untrue(Untrue::Wrong("size")));
            }
            if size == SIZES[1] {
                break;
            }
        }
    }
    let mut stdout = process.stdout.take();
    if let Some(mut stdin) = process.stdin.take() {
        let all = typed_in();
        let mut had = Vec::new();
        while ends || had.len() < all.len() {
            let Some(data) = stdin.data().await else { break };
            let data = data?;
            had.extend_from_slice(&data);
            if let Some(stdout) = &mut stdout {
                stdout.send(data).await?;
            }
        }
        whole("stdin", &had, &all)?;
    }
    if let Some(mut stdout) = stdout {
        stdout.send(pattern(3, 60)).await?;
        stdout.shutdown().await?;
    }
    if let Some(stderr) = &mut process.stderr {
        stderr.write_all(&complained()).await?;
    }
    Ok(process.exit(status).await?)
}

/// The client of three connections.
async fn forwarding(mux: Multiplexer) -> Result<(), Failure> {
    let half_closes = mux.ports().is_empty();
    let forward = PortForward::new(mux)?;
    let echo = async {
        let mut connection = forward.connect(PORTS[0]).await?;
        connection.send(pattern(1, 70)).await?;
        connection.write_all(&pattern(2, 30)).await?;
        if half_closes {
            connection.finish();
        }
        let mut had = Vec::new();
        while let Some(data) = connection.data().await {
            had.extend_from_slice(&data?);
        }
        whole("echo", &had, &[&typed_in()[..], &pattern(3, 60)].concat())
    };
    let sends = async {
        let mut connection = forward.connect(PORTS[1]).await?;
        let mut had = Vec::new();
        let read = connection.read_to_end(&mut had).await;
        genuine("download", &had, &pattern(5, 80))?;
        read?;
        whole("download", &had, &pattern(5, 80))
    };
    let (echoed, sent) = tokio::join!(echo, sends);
    let failed = match forward.connect(PORTS[2]).await {
        Ok(mut connection) => match connection.data().await {
            Some(failed) => failed.map(drop),
            None => Ok(()),
        },
        Err(error) => Err(error),
    };
    echoed?;
    sent?;
    match failed {
        Err(portforward::Error::Failed { reason, .. }) if reason == REASON => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err(Failure::Untrue(Untrue::Truncated { what: "reason", had: 0, all: REASON.len() })),
    }
}

/// A connection at the server.
async fn forwarded(mut connection: Connection, half_closes: bool) -> Result<(), Failure> {
    if connection.port() == PORTS[0] {
        let all = typed_in();
        let mut had = Vec::new();
        while half_closes || had.len() < all.len() {
            let Some(data) = connection.data().await else { break };
            had.extend_from_slice(&data?);
        }
        whole("upload", &had, &all)?;
        connection.send(had.into()).await?;
        connection.write_all(&pattern(3, 60)).await?;
    } else {
        connection.send(pattern(5, 80)).await?;
    }
    connection.finish();
    // A client that has everything resets the stream or ends its own direction. Before that the server cannot know.
    while let Some(data) = connection.data().await {
        data?;
    }
    Ok(())
}

/// The server of three connections.
async fn ports(mux: Multiplexer) -> Result<(), Failure> {
    let half_closes = mux.ports().is_empty();
    let mut server = PortForwardServer::new(mux)?;
    let mut connections = JoinSet::new();
    let mut asked = 0;
    let ended = loop {
        match server.accept().await {
            Some(Ok(request)) => {
                asked += 1;
                if request.port() == PORTS[2] {
                    request.fail(REASON);
                } else {
                    connections.spawn(forwarded(request.accept(), half_closes));
                }
            }
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    drop(server);
    let mut results = Vec::new();
    while let Some(result) = connections.join_next().await {
        results.push(result.unwrap());
    }
    results.into_iter().collect::<Result<(), _>>()?;
    ended?;
    if asked < PORTS.len() {
        return Err(Failure::Untrue(Untrue::Truncated { what: "requests", had: asked, all: PORTS.len() }));
    }
    Ok(())
}

/// The results of an end: of the session, and of its connection's driver.
pub struct Ended {
    pub session: Result<(), Failure>,
    pub driver: Result<(), ConnectionError>,
}

impl Ended {
    fn early(error: impl Into<Failure>) -> Self {
        Self { session: Err(error.into()), driver: Ok(()) }
    }
}

/// Runs an end together with its driver, and the driver to its end.
async fn driven(
    (mux, driver): (Multiplexer, Driver<Io>),
    run: impl AsyncFnOnce(Multiplexer) -> Result<(), Failure>,
) -> Ended {
    let driver = tokio::spawn(driver);
    let session = run(mux).await;
    Ended { session, driver: driver.await.expect("a driver panicked") }
}

pub fn upgraded(io: Io, protocol: Protocol) -> Upgraded<Io> {
    Upgraded::new(io, Bytes::new(), Some(protocol)).with_ports(&PORTS)
}

impl What {
    /// A peer without windows that was sent data may be silent for as long as a connection may be idle.
    fn config(&self) -> Config {
        let mut config = if matches!(self, Self::Forward) { Config::default() } else { Config::exec() };
        config.idle_timeout = Some(IDLE);
        config
    }

    fn streams(&self) -> Streams {
        if let Self::Exec(streams, _) = self { *streams } else { Streams::default() }
    }

    async fn client(&self, upgraded: Upgraded<Io>) -> Ended {
        driven(Multiplexer::client(upgraded, self.config()), async |mux| match self {
            Self::Exec(streams, status) if *streams == Streams::OUTPUT => {
                collected(mux, *streams, status.clone()).await
            }
            Self::Exec(streams, status) => command(mux, *streams, status.clone()).await,
            Self::Forward => forwarding(mux).await,
        })
        .await
    }

    /// `asked` is the client's protocol, which may not be able to end stdin.
    async fn server(&self, upgraded: Upgraded<Io>, asked: Protocol) -> Ended {
        driven(Multiplexer::server(upgraded, self.config()), async |mux| match self {
            Self::Exec(streams, status) => {
                let ends = asked.can_end_stdin() && mux.protocol().is_some_and(Protocol::can_end_stdin);
                let session = mux.accept_exec(*streams).await?;
                drop(mux);
                process(session, ends, status.clone()).await
            }
            Self::Forward => ports(mux).await,
        })
        .await
    }

    /// The client, beginning with its request.
    async fn asking(&self, io: Io, url: &str, protocol: Protocol) -> Ended {
        let request = Request::get(url).body(()).unwrap();
        match upgrade::connect(io, request, &[protocol], &upgrade::Config::default()).await {
            Ok(upgraded) => self.client(upgraded).await,
            Err(error) => Ended::early(error),
        }
    }

    /// The server, beginning with the client's request.
    async fn answering(&self, io: Io, protocol: Protocol) -> Ended {
        let accepting = async {
            let pending = upgrade::accept(io, &upgrade::Config::default()).await?;
            pending.accept(&[protocol]).await
        };
        match accepting.await {
            Ok(upgraded) => self.server(upgraded, protocol).await,
            Err(error) => Ended::early(error),
        }
    }
}

/// What stands between the ends.
#[derive(Clone, Copy, Debug)]
pub enum Through {
    /// Nothing, and both begin after the handshake.
    Nothing,
    /// Nothing, and both begin with the request.
    Handshake,
    /// The same, with a container runtime's server.
    Streaming,
    /// A proxy that passes bytes on, beginning with the request.
    Pipe,
    /// A translator to another protocol.
    Translator(Protocol),
}

impl Through {
    pub fn has_proxy(self) -> bool {
        matches!(self, Self::Pipe | Self::Translator(_))
    }
}

/// The client, the server and what stands between them. `behind` is the connection on the proxy's other side, if there
/// is one.
pub fn parts(
    what: &What,
    protocol: Protocol,
    through: Through,
    (client, near): (Io, Io),
    behind: Option<(Io, Io)>,
) -> (impl Future<Output = Ended>, impl Future<Output = Ended>, impl Future<Output = Result<(), Failure>>) {
    let (server, between) = match behind {
        Some((far, server)) => (server, Some((near, far))),
        None => (near, None),
    };
    let streaming = matches!(through, Through::Streaming).then(|| Streaming::new(what, protocol));
    // A legacy port-forward takes its ports from it.
    let url =
        streaming.as_ref().map_or("http://proxy/exec", |streaming| &streaming.url).to_owned() + "?port=7&port=8&port=9";
    let client = async move {
        match through {
            Through::Nothing | Through::Translator(_) => what.client(upgraded(client, protocol)).await,
            Through::Handshake | Through::Streaming | Through::Pipe => what.asking(client, &url, protocol).await,
        }
    };
    let server = async move {
        match (through, streaming) {
            (_, Some(streaming)) => streaming.serve(server).await,
            (Through::Nothing, _) => what.server(upgraded(server, protocol), protocol).await,
            (Through::Translator(to), _) => what.server(upgraded(server, to), protocol).await,
            _ => what.answering(server, protocol).await,
        }
    };
    let middle = async move {
        let Some((near, far)) = between else { return Ok(()) };
        if let Through::Translator(to) = through {
            let (near, far, config) = (upgraded(near, protocol), upgraded(far, to), what.config());
            let translated = if to.is_port_forward() {
                translate_port_forward(near, far, config, &portforward::Options::default()).await
            } else {
                translate_exec(near, far, what.streams(), config, &exec::Options::default()).await
            };
            return Ok(translated?);
        }
        let pending = upgrade::accept(near, &upgrade::Config::default()).await?;
        let request = pending.to_pass_on();
        proxy::forward(pending, far, request).await?.idle_timeout(IDLE).run().await;
        Ok(())
    };
    (client, server, middle)
}

/// A container runtime's streaming server for one session, and its URL.
struct Streaming {
    server: Server<Once>,
    said: Arc<Mutex<Option<Result<(), Failure>>>>,
    url: String,
}

struct Once {
    what: What,
    /// True if the client can end stdin.
    ends: bool,
    said: Arc<Mutex<Option<Result<(), Failure>>>>,
}

impl Once {
    async fn run(&self, session: ExecServer) -> Result<(), exec::Error> {
        let What::Exec(_, status) = &self.what else { unreachable!() };
        let said = process(session, self.ends, status.clone()).await;
        *self.said.lock().unwrap() = Some(said);
        Ok(())
    }
}

impl Runtime for Once {
    async fn exec(&self, _: String, _: Vec<String>, _: Streams, session: ExecServer) -> Result<(), exec::Error> {
        self.run(session).await
    }

    async fn attach(&self, _: String, _: Streams, session: ExecServer) -> Result<(), exec::Error> {
        self.run(session).await
    }

    async fn port_forward(&self, _: &str, request: portforward::Request) {
        if request.port() == PORTS[2] {
            return request.fail(REASON);
        }
        if let Err(failure) = forwarded(request.accept(), self.ends).await {
            self.said.lock().unwrap().get_or_insert(Err(failure));
        }
    }
}

impl Streaming {
    /// For a client that attaches, or forwards ports.
    fn new(what: &What, protocol: Protocol) -> Self {
        let said = Arc::default();
        let forwards = matches!(what, What::Forward);
        let ends =
            if forwards { !matches!(protocol, Protocol::LegacyPortForward(_)) } else { protocol.can_end_stdin() };
        let once = Once { what: what.clone(), ends, said: Arc::clone(&said) };
        let mut config = RuntimeConfig::default();
        (config.session, config.forward) = (what.config(), what.config());
        let server = Server::new(once, "http://node:10250", config).unwrap();
        let url =
            if forwards { server.port_forward_url("5a4db0", &[]) } else { server.attach_url("c0ffee", what.streams()) };
        Self { server, said, url: url.unwrap() }
    }

    async fn serve(&self, io: Io) -> Ended {
        let served = self.server.serve(io).await;
        let said = self.said.lock().unwrap().take();
        match said {
            Some(session) => Ended { session, driver: Ok(()) },
            None => Ended { session: served.map_err(Into::into), driver: Ok(()) },
        }
    }
}
