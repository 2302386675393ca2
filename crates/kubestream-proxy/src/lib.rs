//! The middle of the chain: a connection passed on between a client and a backend.
//!
//! Owns what happens between the two once the caller has chosen and dialled the backend. Which that is, whether the client may, and
//! what is rewritten, is the caller's.
//!
//! ```no_run
//! use kubestream::{proxy, upgrade};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("127.0.0.1:8001").await?;
//! let (client, _) = listener.accept().await?;
//! let pending = upgrade::accept(client, &upgrade::Config::default()).await?;
//! // Here the caller asks who it is, and whether they may: as `create`, whatever the method.
//! let mut request = pending.to_pass_on();
//! request.headers_mut().insert("authorization", "Bearer t0ken".parse()?);
//! let backend = TcpStream::connect("127.0.0.1:10250").await?;
//! let pipe = proxy::forward(pending, backend, request).await?;
//! let moved = pipe.run().await;
//! println!("{} bytes to the client", moved.to_client);
//! # Ok(())
//! # }
//! ```
//!
//! Who has to know what passes shows it to a [`Tap`]:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use bytes::Bytes;
//! use kubestream::proxy::{Event, Operation, Pipe, Side, Tap};
//! use kubestream::spdy::Limits;
//! use tokio::net::TcpStream;
//!
//! # async fn watched(pipe: Pipe<TcpStream, TcpStream>) -> Result<(), Box<dyn std::error::Error>> {
//! // `Operation` is what was asked for: `PodRequest` has it.
//! let protocol = pipe.settled(Operation::Exec).ok_or("no protocol of ours")?;
//! let mut tap = Tap::new(protocol, &[], Limits::default());
//! let mut audit = |side: Side, bytes: &Bytes| {
//!     tap.feed(side, bytes.clone());
//!     while let Some(event) = tap.poll_event() {
//!         match event {
//!             Event::Status(status) => println!("the command has ended: {status:?}"),
//!             // Nobody could say what passes from here on.
//!             Event::Fault { .. } => return ControlFlow::Break(()),
//!             _ => {}
//!         }
//!     }
//!     ControlFlow::Continue(())
//! };
//! let moved = pipe.run_with(&mut audit).await;
//! println!("{} bytes to the client", moved.to_client);
//! # Ok(())
//! # }
//! ```

mod copy;
mod location;
mod pipe;
#[cfg(all(target_os = "linux", feature = "net"))]
mod splice;
mod tap;
mod translate;
mod watch;

#[cfg(all(target_os = "linux", feature = "net"))]
use std::future::poll_fn;

use std::time::Duration;

use http::Request;
pub use location::{LocationError, Operation, PodRequest};
pub use pipe::{Moved, Pipe};
pub use tap::{Event, Farewell, Forwarded, MAX_NAME_LEN, Name, Stream, Tap, TapError};
use tokio::io::{AsyncRead, AsyncWrite};
#[cfg(all(target_os = "linux", feature = "net"))]
use tokio::net::TcpStream;
pub use translate::{SessionError, TranslateConfig, TranslateError, translate};
pub use watch::{Observer, Side};

pub use crate::upgrade::{PassError, answer_for_backend};
use crate::upgrade::{Passed, Pending};
#[cfg(all(target_os = "linux", feature = "net"))]
use {crate::AbortOnDrop, pipe::Run, splice::Splicing};

/// How long a pipe waits for a client that is silent and has little left to read, once its backend has ended: 10 s.
/// [`Pipe::linger`] sets another.
pub const LINGER: Duration = Duration::from_secs(10);

/// How long a pipe waits for a client that may still be reading, once its backend has ended: 5 min.
/// [`Pipe::tail_timeout`] sets another.
pub const TAIL_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How long nothing may move through a pipe: 4 h. [`Pipe::idle_timeout`] sets another.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

/// Passes a client's upgrade on to a backend: `request` is [`Pending::to_pass_on`]'s, rewritten.
///
/// Only a 101 makes a [`Pipe`] that says that the backend has switched to the carrier that the client asks for, with one of its
/// protocols and, over WebSocket, the answer to its key; and only once the client has got it. Any other answer is passed
/// back, as much of it as [`Config::max_refusal_body`](crate::upgrade::Config::max_refusal_body), and both are closed. A
/// redirect is neither followed nor shown. What either has said behind its head is kept.
///
/// # Errors
/// [`PassError`]: which side it is of. The client was answered.
///
/// # Cancel safety
/// Dropping the future drops both connections.
pub async fn forward<C, B>(client: Pending<C>, backend: B, request: Request<()>) -> Result<Pipe<C, B>, PassError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let Passed { client, from_client, backend, from_backend, carrier, protocol } =
        client.pass_on(backend, request).await?;
    Ok(Pipe::new((client, from_client), (backend, from_backend), carrier, protocol))
}

#[cfg(all(target_os = "linux", feature = "net"))]
impl<C, B> Pipe<C, B>
where
    C: Into<AbortOnDrop<TcpStream>>,
    B: Into<AbortOnDrop<TcpStream>>,
{
    /// As [`run`](Self::run), by `splice(2)`: the bytes go from socket to socket and never enter user space. For TCP without TLS
    /// on Linux. Each direction has a pipe of the kernel's while bytes move, two descriptors; where there are none left it
    /// copies. A connection that breaks off is a reset for the other side.
    ///
    /// # Cancel safety
    /// Dropped, both connections are reset.
    pub async fn splice(self) -> Moved {
        let (mut client, mut backend) = (self.client.into(), self.backend.into());
        let (up, down) = (Splicing::new(self.from_client), Splicing::new(self.from_backend));
        let mut run = Run::new(up, down, self.patience);
        poll_fn(|cx| run.poll(&mut client, &mut backend, cx)).await;
        run.moved
    }
}
