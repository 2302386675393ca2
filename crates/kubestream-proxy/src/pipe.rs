//! Two connections past their handshakes, and moving bytes between them untouched.
//!
//! This module owns what a caller can set on a pipe and which way of moving bytes it uses. It must not read the bytes.
//! [`Run`] knows how the two directions end.

use std::fmt;
use std::future::poll_fn;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use kubestream::upgrade::{Pending, Protocol, Transport, UpgradeError, Upgraded, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::copy::Copying;
use crate::observe::{Observer, Watched};
use crate::pod_request::Operation;
use crate::run::{Patience, PipeOutcome, Run};
use kubestream::tap::Side;

/// How long a pipe waits for a silent client that has little left to read, once the backend has ended: 10 s.
/// [`Pipe::linger`] sets another time.
pub const LINGER: Duration = Duration::from_secs(10);

/// How long a pipe waits for a client that may still be reading, once the backend has ended: 5 min.
/// [`Pipe::tail_timeout`] sets another time.
pub const TAIL_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How long a pipe lives while no byte moves: 4 h. [`Pipe::idle_timeout`] sets another time.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

/// Passes a client's upgrade on to a backend and returns a [`Pipe`] between the two. `request` is the result of
/// [`Pending::to_pass_on`], with your changes.
///
/// It returns a pipe only once a valid 101 of the backend was written to the client, as [`Pending::pass_on`] says.
/// Bytes that either side has already sent after its head are kept, and the pipe moves them first.
///
/// # Errors
/// [`UpgradeError::Backend`] if the backend failed or refused. Every other error is about the client.
/// [`Pending::pass_on`] says more. The client has been answered, unless the answer could not be written to it.
///
/// # Cancel safety
/// Dropping the future drops both connections.
pub async fn forward<C, B>(client: Pending<C>, backend: B, request: Request<()>) -> Result<Pipe<C, B>, UpgradeError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    Ok(client.pass_on(backend, request).await?.into())
}

/// A client and a backend whose handshake is over, and the bytes that each side has already sent after its head.
///
/// [`forward`] returns one. You can also make one with `Pipe::from((client, backend))`: from the pair that
/// [`Pending::pass_on`] returns, or from two sides that you have upgraded one after the other. Both sides must speak
/// the same protocol.
#[must_use]
pub struct Pipe<C, B> {
    client: C,
    from_client: Bytes,
    backend: B,
    from_backend: Bytes,
    transport: Transport,
    protocol: String,
    patience: Patience,
}

impl<C, B> From<(Upgraded<C>, Upgraded<B>)> for Pipe<C, B> {
    fn from((client, backend): (Upgraded<C>, Upgraded<B>)) -> Self {
        let (transport, protocol) = (backend.transport(), backend.protocol_name().to_owned());
        let ((client, from_client, _), (backend, from_backend, _)) = (client.into_parts(), backend.into_parts());
        let patience = Patience { linger: LINGER, tail: TAIL_TIMEOUT, idle: IDLE_TIMEOUT };
        Self { client, from_client, backend, from_backend, transport, protocol, patience }
    }
}

impl<C, B> Pipe<C, B> {
    /// The transport that both sides have switched to.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The name on the wire of the protocol that the backend has chosen. It is empty if the backend named no protocol.
    #[must_use]
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The protocol that both sides have agreed on. `operation` is what the request asked for: it is needed because
    /// exec and legacy port-forward use the same names over WebSocket. `None` if this crate does not know the protocol,
    /// or if the protocol does not fit the operation.
    #[must_use]
    pub fn settled(&self, operation: Operation) -> Option<Protocol> {
        let known = match (self.transport(), self.protocol(), operation) {
            // A backend that names no protocol over SPDY means the oldest one.
            (Transport::Spdy, "", Operation::Exec | Operation::Attach) => Some(Protocol::SpdyExec(Version::V1)),
            (Transport::Spdy, "", Operation::PortForward) => Some(Protocol::SpdyPortForward),
            (transport, name, _) => Protocol::from_name(transport, name),
        };
        match (known?, operation) {
            (Protocol::WebSocketExec(subprotocol), Operation::PortForward) => {
                Some(Protocol::LegacyPortForward(subprotocol))
            }
            (protocol, operation) => {
                (protocol.is_port_forward() == (operation == Operation::PortForward)).then_some(protocol)
            }
        }
    }

    /// Sets the time limit for two waits:
    /// - Once the backend has ended and all bytes were written to the client's socket: how long the client may be
    ///   silent before both connections are closed.
    /// - Once one connection has failed: how long the other side has to receive the bytes that were sent before.
    ///
    /// A client that was sent more than 64 KiB since bytes last came from it may still be reading. For such a client
    /// the first limit is the [`tail_timeout`](Self::tail_timeout) instead. Default: [`LINGER`], 10 s.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.patience.linger = linger;
        self
    }

    /// Sets how long a client may take to read the remaining bytes once the backend has ended. After that both
    /// connections are closed. Bytes that the client sends do not extend this time, because kubectl's PINGs do not show
    /// that it has read anything. Default: [`TAIL_TIMEOUT`], 5 min.
    pub fn tail_timeout(mut self, timeout: Duration) -> Self {
        self.patience.tail = timeout;
        self
    }

    /// Sets how long the pipe lives while no byte moves in either direction. Then both connections are closed. Default:
    /// [`IDLE_TIMEOUT`], 4 h, as in Go's streaming servers.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.patience.idle = timeout;
        self
    }
}

impl<C, B> Pipe<C, B>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    /// Moves bytes until both directions have ended. Each direction copies them through a buffer of up to 64 KiB, which
    /// is freed while no byte moves.
    ///
    /// If one connection was reset or lost, the other side must not read an orderly end. So the other connection is
    /// dropped without a shutdown. [`AbortOnDrop`](kubestream::AbortOnDrop) turns the drop into a reset, and its docs
    /// say what the peers of other IOs read. A reset destroys the bytes that the other side has not received yet. So if
    /// that side was sent more than 64 KiB recently, the pipe first waits for the [`linger`](Self::linger).
    ///
    /// The result says how many bytes were moved, and what failed.
    ///
    /// # Cancel safety
    /// Dropping the future drops both connections without shutting them down, as after a failure.
    pub async fn run(mut self) -> PipeOutcome {
        let (up, down) = (Copying::new(self.from_client), Copying::new(self.from_backend));
        let mut run = Run::new(up, down, self.patience);
        poll_fn(|cx| run.poll(&mut self.client, &mut self.backend, cx)).await;
        run.outcome
    }

    /// As [`run`](Self::run), and shows each piece of bytes to an [`Observer`] before it is passed on. The bytes that
    /// came together with the heads are shown first. The pieces are not copied for the observer.
    ///
    /// # Cancel safety
    /// Dropping the future drops both connections without shutting them down, as after a failure. The observer may have
    /// been shown bytes that were not passed on.
    pub async fn run_with<O: Observer>(mut self, observer: &mut O) -> PipeOutcome {
        let observer = Mutex::new(observer);
        let up = Watched::new(Side::Client, self.from_client, &observer);
        let down = Watched::new(Side::Server, self.from_backend, &observer);
        let mut run = Run::new(up, down, self.patience);
        poll_fn(|cx| run.poll(&mut self.client, &mut self.backend, cx)).await;
        let (up, down) = run.hops();
        up.end();
        down.end();
        run.outcome
    }
}

#[cfg(all(target_os = "linux", feature = "net"))]
impl<C, B> Pipe<C, B>
where
    C: Into<kubestream::AbortOnDrop<tokio::net::TcpStream>>,
    B: Into<kubestream::AbortOnDrop<tokio::net::TcpStream>>,
{
    /// As [`run`](Self::run), but the Linux kernel moves the bytes from socket to socket by `splice(2)`, without a copy
    /// to user space. Both sides must be TCP without TLS. While bytes move in a direction, it uses a kernel pipe, which
    /// takes two file descriptors. If no file descriptors are left, it copies the bytes instead. If one connection
    /// fails, the other is reset.
    ///
    /// # Cancel safety
    /// Dropping the future resets both connections.
    pub async fn splice(self) -> PipeOutcome {
        use crate::splice::Splicing;

        let (mut client, mut backend) = (self.client.into(), self.backend.into());
        let (up, down) = (Splicing::new(self.from_client), Splicing::new(self.from_backend));
        let mut run = Run::new(up, down, self.patience);
        poll_fn(|cx| run.poll(&mut client, &mut backend, cx)).await;
        run.outcome
    }
}

impl<C, B> fmt::Debug for Pipe<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe")
            .field("transport", &self.transport())
            .field("protocol", &self.protocol())
            .field("from_client", &self.from_client.len())
            .field("from_backend", &self.from_backend.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_that_were_upgraded_apart_make_a_pipe() {
        let side =
            |ahead: &'static [u8]| Upgraded::new((), Bytes::from_static(ahead), Some(Protocol::TunneledPortForward));
        let pipe = Pipe::from((side(b"up"), side(b"down")));
        assert_eq!((pipe.transport(), pipe.protocol()), (Transport::WebSocket, "SPDY/3.1+portforward.k8s.io"));
        assert_eq!((&pipe.from_client[..], &pipe.from_backend[..]), (&b"up"[..], &b"down"[..]));
        assert_eq!(pipe.settled(Operation::PortForward), Some(Protocol::TunneledPortForward));
        assert_eq!(pipe.settled(Operation::Exec), None);
    }
}
