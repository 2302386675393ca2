//! Many streams over one connection: handles that can be cloned, and a driver that does the IO.
//!
//! [`Multiplexer`] is a handle of a connection: it opens and accepts [`Stream`]s. [`Driver`] is the future that does
//! all IO of the connection and keeps its timers. Without it nothing is sent or received: spawn it, or poll it
//! yourself. This module never spawns a task. [`Config`] has the settings.
//!
//! ```
//! use bytes::Bytes;
//! use kubestream::mux::{Config, Headers, Multiplexer};
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
//! | which side, and when | what it sends | what it waits for | for how long |
//! |---|---|---|---|
//! | A client calls [`Multiplexer::shutdown`] or drops its last handle. | Everything queued, then GOAWAY or Close. Then it shuts down its write side. | EOF from the server | until the server has been silent for [`Config::linger`], but at most [`Config::flush_timeout`] in total |
//! | An exec client has the status and the end of each output. | As above. After the status it sends no more data, but may send one PING to check that the server is alive. | EOF from the server | [`Config::linger`] in total. As in the first row if the error stream was empty: success in v1 to v3. |
//! | A client has received the server's GOAWAY, and all of the client's streams have finished. | As in the first row. | EOF from the server | as in the first row |
//! | A server calls `shutdown`, drops its last handle, or calls [`ExecServer::exit`](crate::exec::ExecServer::exit). | Everything queued, RST_STREAM for each unfinished stream, then GOAWAY or Close. Its write side stays open. | the client's GOAWAY or Close, or EOF | until the client has been silent for [`Config::linger`], but at most [`Config::flush_timeout`] in total. Then the server shuts down its write side. |
//! | Either side fails. | GOAWAY or Close with the reason. Then it shuts down its write side. | EOF from the peer | [`Config::linger`] |
//!
//! If this end has sent more than 64 KiB since it last knew that the peer had received everything, a silent peer may
//! still be reading. Then the limit on the silence is [`Config::flush_timeout`] instead of [`Config::linger`], except
//! after a failure, and where the table says [`Config::linger`] in total. If a peer accepts none of the queued bytes
//! for [`Config::flush_timeout`], the connection fails.
//!
//! In an orderly end a server shuts down its write side last: after its client's goodbye or EOF, or after the silence
//! that the table allows. Hops such as nginx, HAProxy and every kube-apiserver know no half-close. If the server ended
//! its direction first, they would close both directions at once. Then the client's next bytes would cause a reset, and
//! the reset would destroy the tail of the output.
//!
//! A *goodbye* is GOAWAY with status OK, or Close 1000. A server also accepts Close 1001 and Close without a code.
//!
//! The next table is about a stream that had not ended when the connection ended. It says which error a reader gets
//! after it has read everything that arrived.
//!
//! | what the peer did last | how the connection ended | what readers get |
//! |---|---|---|
//! | It sent GOAWAY with status OK, or, to a client, Close 1000. | It ended or failed after that. | [`ConnectionError::Closed`](crate::ConnectionError::Closed) |
//! | It sent GOAWAY with another status. | It ended after that. | [`ConnectionError::GoneAway`](crate::ConnectionError::GoneAway) |
//! | It sent a Close: to a client with any code except 1000, to a server with any code. | It ended or failed after that. | [`ConnectionError::PeerClosed`](crate::ConnectionError::PeerClosed) |
//! | It sent neither. | It ended, or TLS ended without close_notify. | [`ConnectionError::Lost`](crate::ConnectionError::Lost) |
//! | It sent neither. | It was reset, or the IO failed. | [`ConnectionError::Io`](crate::ConnectionError::Io) |
//! | It was silent and answered no PING. | This end gave the peer up. | [`ConnectionError::KeepaliveTimeout`](crate::ConnectionError::KeepaliveTimeout) |
//! | It sent nothing, and this end sent nothing either. | This end gave the peer up. | [`ConnectionError::IdleTimeout`](crate::ConnectionError::IdleTimeout) |
//! | It accepted nothing while this end was closing. | This end gave the peer up. | [`ConnectionError::FlushTimeout`](crate::ConnectionError::FlushTimeout) |
//!
//! What a session reports in these cases is in the docs of [`Exec::wait`](crate::exec::Exec::wait) for a client, and of
//! [`Reader::data`](crate::exec::Reader::data) for a server. For a server the client's goodbye ends stdin, and a lost
//! connection is an error.
//!
//! # How a dead peer is found
//!
//! Each end sends a PING after [`Config::keepalive_interval`] (10 s) of silence, and then one after each further
//! interval. The PINGs also keep hops from closing an idle connection. The connection fails after
//! [`Config::keepalive_timeout`] (60 s) of silence, if three PINGs in a row are unanswered as well. A PING counts as
//! unanswered only if a live peer would surely have answered it. So it depends on the peer:
//!
//! | peer | when a silent peer counts as dead | what finds a dead peer otherwise |
//! |---|---|---|
//! | SPDY or tunnel, with flow control: this crate, netty | after 60 s | – |
//! | SPDY or tunnel, without flow control: Go | after 60 s, if the peer is known to have read all our DATA: we have sent no DATA, or the peer has answered five PINGs in a row since the last DATA (which takes some 50 s) | the kernel |
//! | a WebSocket server | as for Go over SPDY | the kernel |
//! | a WebSocket client | never: many clients read, and answer PINGs, only when their program reads | the kernel |
//! | an exec server that has sent the status, after which the client sends no keepalive PINGs | after 10 s: [`Exec::wait`](crate::exec::Exec::wait) sends one PING after [`Options::output_grace`](crate::exec::Options::output_grace) (5 s) of silence, and gives up after 5 s more | the kernel |
//! | any peer, while this end does not read the socket because unread bytes exceed the budget | never | a write that fails; the kernel |
//!
//! PINGs that measure the path (see [`SpdyConfig::max_stream_window`]) count for nothing here.
//!
//! A Go peer that has a blocked reader reads nothing at all, not even our PING, so its silence after DATA proves
//! nothing. But the kernel detects a dead host: it retransmits our PINGs, and on Linux it fails the connection after
//! some 15 minutes. For example, if a user types a key and the Go server's host has just died, the connection fails
//! some 15 minutes later. With the feature `net`, `set_tcp_keepalive` sets the kernel's timers.
//! [`Config::idle_timeout`] (4 h) ends the connections that nothing else has ended.
//!
//! A client that reads nothing for hours, for example because its user has a pager open, stays connected while its
//! command runs. After the command has ended, the client has [`Config::flush_timeout`] (5 min) to read the tail.

mod buffer;
mod driver;
mod incoming;
mod multiplexer;
#[cfg(all(test, shuttle))]
mod schedules;
mod shared;
mod stream;
mod stream_ref;
#[cfg(feature = "net")]
mod tcp;
mod waiters;
mod watch;

pub use crate::session::Config;
pub use crate::wire::spdy::{GoAwayStatus, Headers, RstStatus};
pub use crate::wire::{FlowControl, Malformed, SpdyConfig, WebSocketConfig};
pub use driver::Driver;
pub use incoming::Incoming;
pub use multiplexer::{Multiplexer, Stats};
pub use stream::{RecvHalf, SendHalf, Stream};
#[cfg(feature = "net")]
pub use tcp::{TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_PROBES, set_tcp_keepalive};
pub(crate) use watch::Watch;
