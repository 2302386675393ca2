//! One connection, many streams: handles that clone and a driver that does the IO.
//!
//! Owns what users hold. The rules of the protocol are [`spdy`](crate::spdy)'s; nothing here spawns a task.
//!
//! ```
//! use bytes::Bytes;
//! use kubestream::mux::{Config, Multiplexer};
//! use kubestream::spdy::Headers;
//! use kubestream::upgrade::Upgraded;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = tokio::io::duplex(64 * 1024);
//! let (client, driver) = Multiplexer::client(Upgraded::from_io(near), Config::default());
//! tokio::spawn(driver);
//! let (server, driver) = Multiplexer::server(Upgraded::from_io(far), Config::default());
//! tokio::spawn(driver);
//!
//! let mut stream = client.open(Headers::from_iter([("streamtype", "data")])).await?;
//! stream.send(Bytes::from_static(b"ping")).await?;
//!
//! let incoming = server.accept().await.ok_or("the client went away")??;
//! assert_eq!(incoming.headers().get("streamtype"), Some("data"));
//! let mut accepted = incoming.reply();
//! assert_eq!(accepted.data().await.transpose()?, Some(Bytes::from_static(b"ping")));
//! # Ok(())
//! # }
//! ```
//!
//! # How a connection ends
//!
//! | who ends first | what it does | what it waits for | how long |
//! |---|---|---|---|
//! | a client: [`Multiplexer::shutdown`], or its last handle is dropped | all that is queued, GOAWAY or Close, then its write side ends | the server's end | silence for [`Config::linger`], at most [`Config::flush_timeout`] |
//! | an exec client, once it has the status and the end of each output; behind the status it writes nothing but a PING that asks | as above | as above | as above |
//! | a client whose server has said GOAWAY, once no stream of its own is unfinished | as above | as above | as above |
//! | a server: as above, or [`ExecServer::exit`](crate::exec::ExecServer::exit) | all that is queued, a RST_STREAM for each stream left unfinished, GOAWAY or Close; its write side stays open | the client's GOAWAY, Close or end | silence for [`Config::linger`], at most [`Config::flush_timeout`]; then its write side ends |
//! | either, after a failure | GOAWAY or Close with the reason, then its write side ends | the peer's end | [`Config::linger`] |
//!
//! A peer that was sent more than 64 KiB since it was last heard of may still be reading: silence is waited out for
//! [`Config::flush_timeout`] then. Whoever takes none of what is queued for that long is given up too. At an orderly end a server
//! half-closes only once its client has ended, said goodbye, or was silent for so long: hops that know no half-close (nginx, HAProxy, every
//! kube-apiserver) would close both directions, and the reset that the client's next bytes meet would take the tail of the output.
//!
//! A *goodbye* is GOAWAY with status OK, or Close 1000; to a server also Close without a code, and 1001.
//!
//! What a reader gets once all that had come is read, of a stream that did not end itself:
//!
//! | the peer | its connection | readers get |
//! |---|---|---|
//! | said GOAWAY with status OK, or, to a client, Close 1000 | ended, or failed, behind that | [`ConnectionError::Closed`](crate::ConnectionError::Closed) |
//! | said GOAWAY with another status | ended behind that | [`ConnectionError::GoneAway`](crate::ConnectionError::GoneAway) |
//! | said Close otherwise | in any way | [`ConnectionError::PeerClosed`](crate::ConnectionError::PeerClosed) |
//! | said nothing | ended, also TLS without its close_notify | [`ConnectionError::Lost`](crate::ConnectionError::Lost) |
//! | said nothing | was reset, or failed | [`ConnectionError::Io`](crate::ConnectionError::Io) |
//! | answered no PING | was given up | [`ConnectionError::KeepaliveTimeout`](crate::ConnectionError::KeepaliveTimeout) |
//! | exchanged nothing with us | was given up | [`ConnectionError::IdleTimeout`](crate::ConnectionError::IdleTimeout) |
//! | took nothing while we closed | was given up | [`ConnectionError::FlushTimeout`](crate::ConnectionError::FlushTimeout) |
//!
//! What a session makes of them: [`Exec::wait`](crate::exec::Exec::wait) for a client, and for a server
//! [`ProcessStdin::data`](crate::exec::ProcessStdin::data), where the client's goodbye is the end of stdin and a loss is an error.
//!
//! # How a dead peer is found
//!
//! Either end sends a PING after [`Config::keepalive_interval`] of silence, 10 s, and goes on so: hops in between stay open. The connection
//! fails after [`Config::keepalive_timeout`] of silence, 60 s, and three PINGs unanswered in a row, but only where a live peer would have
//! answered them:
//!
//! | peer | found dead by silence | otherwise |
//! |---|---|---|
//! | over SPDY or in the tunnel, with windows: this crate, netty | after 60 s | – |
//! | over SPDY or in the tunnel, without: Go | after 60 s, if it has read all our DATA: we have sent none, or it has answered five PINGs in a row since the last (some 50 s) | the kernel |
//! | a WebSocket server | the same | the kernel |
//! | a WebSocket client | never: many read, and answer, only when their program asks | the kernel |
//! | a server that has sent the status of a command, and gets no more PINGs | after 10 s by [`Exec::wait`](crate::exec::Exec::wait), which asks it once after 5 s: twice [`Options::output_grace`](crate::exec::Options::output_grace) | the kernel |
//! | one that we do not read, since unread bytes are over the budget | never | a write that fails; the kernel |
//!
//! A Go peer whose reader is blocked reads nothing at all, our PING included, so that behind DATA its silence proves nothing. The kernel
//! knows: it retransmits our PINGs to a dead host, for some 15 minutes on Linux, and then fails the connection. So a key that is typed to
//! a Go server whose host has just died fails after a quarter of an hour. With the feature `net`, `TcpLiveness` sets the kernel's timers.
//! [`Config::idle_timeout`], 4 h, ends what is left.
//!
//! A client that reads nothing for hours, behind a pager, is kept while its command runs. Once that has ended, it has
//! [`Config::flush_timeout`], 5 min, for the tail.

mod buffer;
mod driver;
mod incoming;
mod multiplexer;
#[cfg(all(test, shuttle))]
mod schedules;
mod shared;
mod stream;
#[cfg(feature = "net")]
mod tcp;
mod waiters;

pub use crate::session::{Config, FlowControl};
pub use crate::wire::{HeaderCompression, Limits};
pub use driver::Driver;
pub use incoming::Incoming;
pub use multiplexer::{Multiplexer, Stats};
pub(crate) use stream::Watch;
pub use stream::{RecvHalf, SendHalf, Stream};
#[cfg(feature = "net")]
pub use tcp::TcpLiveness;
