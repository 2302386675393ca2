//! What the integration tests and the fuzz targets share: played peers, IOs that misbehave, ends of this library with a
//! running driver, the recordings, the shared sessions and the model.
//!
//! Expects only what the sessions and the model must fulfil. The tests say what else is right.

mod any_frame;
pub mod breaks;
pub mod connection;
pub mod distance;
pub mod fragment;
mod frame;
pub mod io;
pub mod memory;
pub mod model;
pub mod mutation;
pub mod peer;
pub mod recording;
pub mod sessions;
pub mod websocket;
pub mod wire;

use std::time::Duration;

use bytes::Bytes;
use kubestream::exec::{self, Streams};
use kubestream::mux::{Config, Headers, Multiplexer, RecvHalf, Stream};
use kubestream::upgrade::{Protocol, Upgraded, Version};
use kubestream::{ConnectionError, portforward};
use kubestream_proxy::{TranslateError, translate_exec, translate_port_forward};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub use any_frame::any_frame;

pub type DriverTask = JoinHandle<Result<(), ConnectionError>>;

/// The default configuration, changed.
pub fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

pub fn client<IO>(io: IO, config: Config) -> (Multiplexer, DriverTask)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mux, driver) = Multiplexer::client(Upgraded::from_io(io), config);
    (mux, tokio::spawn(driver))
}

pub fn server<IO>(io: IO, config: Config) -> (Multiplexer, DriverTask)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mux, driver) = Multiplexer::server(Upgraded::from_io(io), config);
    (mux, tokio::spawn(driver))
}

/// A protocol that a handshake may have chosen.
pub trait Settled {
    fn protocol(self) -> Protocol;
}

impl Settled for Protocol {
    fn protocol(self) -> Protocol {
        self
    }
}

impl Settled for Version {
    fn protocol(self) -> Protocol {
        Protocol::SpdyExec(self)
    }
}

impl Settled for kubestream::protocol::Subprotocol {
    fn protocol(self) -> Protocol {
        Protocol::WebSocketExec(self)
    }
}

/// A client after a handshake.
pub fn exec_client<IO>(io: IO, settled: impl Settled) -> (Multiplexer, DriverTask)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgraded = Upgraded::new(io, Bytes::new(), Some(settled.protocol()));
    let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
    (mux, tokio::spawn(driver))
}

/// A server after a handshake.
pub fn exec_server<IO>(io: IO, settled: impl Settled) -> (Multiplexer, DriverTask)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgraded = Upgraded::new(io, Bytes::new(), Some(settled.protocol()));
    let (mux, driver) = Multiplexer::server(upgraded, Config::exec());
    (mux, tokio::spawn(driver))
}

/// Joins a client and a backend of exec or of port-forward, with the default configuration.
pub async fn translate<C, B>(client: Upgraded<C>, backend: Upgraded<B>, streams: Streams) -> Result<(), TranslateError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    if client.protocol().is_some_and(Protocol::is_port_forward) {
        translate_port_forward(client, backend, Config::default(), &portforward::Options::default()).await
    } else {
        translate_exec(client, backend, streams, Config::exec(), &exec::Options::default()).await
    }
}

/// Accepts the next stream that the peer opens.
pub async fn accept(mux: &Multiplexer) -> Stream {
    mux.accept().await.unwrap().unwrap().reply()
}

pub fn named(name: &str) -> Headers {
    Headers::from_iter([("name", name)])
}

/// Bytes that depend on their position, so that a lost, doubled or moved byte is noticed.
pub fn pattern(seed: usize, len: usize) -> Bytes {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(97)) as u8).collect::<Vec<u8>>().into()
}

/// Reads a stream up to the peer's FIN.
pub async fn read_to_fin(stream: &mut RecvHalf) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = stream.data().await {
        all.extend_from_slice(&data.unwrap());
    }
    all
}

/// Reads a head up to its empty line and no further. Returns `None` if the connection ended before.
pub async fn try_read_head(io: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// The same for a connection that does not end.
pub async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> String {
    try_read_head(io).await.unwrap()
}

/// Waits for something that other tasks bring about. Meanwhile the test's clock advances by milliseconds.
pub async fn until(mut what: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain");
}

/// Two ends of a TCP connection on loopback.
pub async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    for end in [&near, &far] {
        end.set_nodelay(true).unwrap();
    }
    (near, far)
}
