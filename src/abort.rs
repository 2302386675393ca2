//! Sockets that are reset when they are dropped before a shutdown.
//!
//! A reset tells the peer that the bytes are not whole. This file only makes the reset; the owner of the socket decides
//! when to drop it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket that can reset its connection when it is closed, so that its peer reads an error and not an end.
///
/// With the feature `net`, tokio's `TcpStream` implements this. You can implement it for other sockets.
pub trait Abort {
    /// Sets whether closing the socket resets the connection. A reset may destroy bytes that the peer's kernel has not
    /// received.
    fn abort_on_close(&mut self, abort: bool);
}

#[cfg(feature = "net")]
impl Abort for tokio::net::TcpStream {
    /// Sets a linger of zero, so that a close sends RST in place of FIN. Setting the option fails only if the
    /// connection no longer exists.
    fn abort_on_close(&mut self, abort: bool) {
        // `set_linger` is deprecated because a linger can block, but a linger of zero does not. tokio has its own
        // setter for zero since 1.50.
        #[allow(deprecated)]
        let _ = self.set_linger(abort.then_some(std::time::Duration::ZERO));
    }
}

/// A socket that is reset if it is dropped before it was shut down, or if the process is killed. So its peer reads an
/// error, and does not believe that it has got all bytes.
///
/// Everything in this crate that owns an IO shuts the IO down at an orderly end, and drops it without a shutdown after
/// a failure. An IO is also dropped without a shutdown if, for example, its `Upgraded` is never used, its
/// [`Driver`](crate::mux::Driver) is dropped, or the other side of a pipe of `kubestream-proxy` was reset. What the
/// peer reads then depends on the type of the IO:
///
/// | type of the dropped IO | what its peer reads |
/// |---|---|
/// | `AbortOnDrop<TcpStream>` | a reset |
/// | TLS over `AbortOnDrop<TcpStream>` | a reset, without close_notify |
/// | `TcpStream` | an end |
/// | TLS over `TcpStream` | an end without close_notify, which is an error if the peer checks it |
/// | `UnixStream`, `DuplexStream` | an end: these types cannot signal a reset |
///
/// SPDY and WebSocket send a goodbye before an orderly end (GOAWAY, or a Close). So for this crate an end without a
/// goodbye is a lost connection, but not all peers check that. A plain socket to which a forwarded connection is copied
/// has no goodbye at all.
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
/// let upgraded = pending.accept(Protocol::SPDY_EXEC).await?;
/// # drop(upgraded);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AbortOnDrop<S> {
    socket: S,
}

impl<S: Abort> AbortOnDrop<S> {
    /// Wraps a socket that was not shut down yet.
    pub fn new(mut socket: S) -> Self {
        socket.abort_on_close(true);
        Self { socket }
    }

    /// The socket inside.
    pub fn get_ref(&self) -> &S {
        &self.socket
    }

    /// The socket inside. If you shut it down through this reference, it is still reset when dropped.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// The socket, which is no longer reset when dropped.
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

    /// Shuts the socket down. After that, dropping it is no longer a reset.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
        self.socket.abort_on_close(false);
        Poll::Ready(Ok(()))
    }
}
