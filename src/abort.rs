//! Sockets whose close says that it is no end.
//!
//! Owns what becomes of a socket that is let go of half-way. When that is, whoever drops it decides, or whoever kills the process.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket that can break its connection off: what its peer reads is a failure then, and no end.
///
/// With the feature `net` tokio's `TcpStream` is one: it is closed with a reset. What else can say it implements this.
pub trait Abort {
    /// Whether a close breaks the connection off from here on. What the socket has taken and its peer's has not may be lost with it.
    fn abort_on_close(&mut self, abort: bool);
}

#[cfg(feature = "net")]
impl Abort for tokio::net::TcpStream {
    /// A linger of zero: RST in place of FIN. A socket that takes no options is gone.
    fn abort_on_close(&mut self, abort: bool) {
        // What is deprecated of it is to wait, and nothing is waited for. tokio has a setter of its own for that since 1.50.
        #[allow(deprecated)]
        let _ = self.set_linger(abort.then_some(std::time::Duration::ZERO));
    }
}

/// A socket that is broken off when it is dropped before it was shut down, so that nobody takes half of something for all of it. So it is when
/// the process is killed.
///
/// Whatever in this crate owns an IO shuts it down for an end, and drops it for a break: an `Upgraded` that nobody wanted, a
/// pipe of `kubestream-proxy` one side of which was reset, a [`Driver`](crate::mux::Driver) that is not polled any more. Any IO will do for that. What the
/// peer sees of a break depends on which it is:
///
/// | IO | dropped half-way, the peer reads |
/// |---|---|
/// | `AbortOnDrop<TcpStream>` | a reset |
/// | TLS over `AbortOnDrop<TcpStream>` | a reset, and no close_notify |
/// | `TcpStream` | an end |
/// | TLS over `TcpStream` | an end without close_notify, which is an error where somebody looks |
/// | `UnixStream`, `DuplexStream` | an end: there is nothing else that they could say |
///
/// An end of the bytes alone is no good end in SPDY and WebSocket, which say goodbye before: ends of this crate take it for a loss. Not so
/// all peers, and not so whoever reads a forwarded connection.
///
/// ```
/// # #[cfg(feature = "net")]
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// use kubestream::AbortOnDrop;
/// use kubestream::upgrade::{self, Protocol};
/// use tokio::net::TcpListener;
///
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let (tcp, _) = listener.accept().await?;
/// let pending = upgrade::accept(AbortOnDrop::new(tcp), &upgrade::Config::default()).await?;
/// let upgraded = pending.accept(Protocol::EXEC).await?;
/// # drop(upgraded);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AbortOnDrop<S> {
    socket: S,
}

impl<S: Abort> AbortOnDrop<S> {
    /// A socket that was not shut down yet.
    pub fn new(mut socket: S) -> Self {
        socket.abort_on_close(true);
        Self { socket }
    }

    /// The socket.
    pub fn get_ref(&self) -> &S {
        &self.socket
    }

    /// The socket. Who shuts it down by this has it broken off all the same.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// The socket as it was before.
    pub fn into_inner(mut self) -> S {
        self.socket.abort_on_close(false);
        self.socket
    }
}

impl<S: Abort> From<S> for AbortOnDrop<S> {
    fn from(socket: S) -> Self {
        Self::new(socket)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AbortOnDrop<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: Abort + AsyncWrite + Unpin> AsyncWrite for AbortOnDrop<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Once it is done, the end is said, and a drop takes nothing of it back.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
        self.socket.abort_on_close(false);
        Poll::Ready(Ok(()))
    }
}
