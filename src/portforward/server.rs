//! The server's side of port-forward: puts the two streams of each connection together.
//!
//! The caller dials the ports.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep_until;

use super::connection::Connection;
use super::error::{Error, check_protocol};
use super::options::Options;
use super::pairing::{Half, Kind, Offered, Pairing};
use crate::mux::{Incoming, Multiplexer, Stream};
use crate::protocol::ERROR;
use crate::session::ConnectionError;
use crate::wire::spdy::{Headers, RstStatus};

/// The server's side of port-forward: accepts the connections of a client.
#[derive(Debug)]
pub struct PortForwardServer {
    mux: Multiplexer,
    pairing: Pairing<Arrived>,
    /// Whether a server may write to an error stream without harm to other connections. This is so only in legacy
    /// port-forward.
    says_why: bool,
    linger: Duration,
}

/// A stream of a pair. An error stream is answered at once, because clients wait for the answer before they make the
/// data stream. A data stream is answered once the caller knows whether the port can be reached.
#[derive(Debug)]
enum Arrived {
    Data(Incoming),
    Error(Stream),
}

impl PortForwardServer {
    /// Serves a connection that was upgraded to port-forward, with the default [`Options`].
    ///
    /// # Errors
    /// [`Error::NotPortForward`] if the connection negotiated another protocol.
    pub fn new(mux: Multiplexer) -> Result<Self, Error> {
        Self::with_options(mux, &Options::default())
    }

    /// The same as [`new`](Self::new), with other options.
    ///
    /// # Errors
    /// The same as [`new`](Self::new).
    pub fn with_options(mux: Multiplexer, options: &Options) -> Result<Self, Error> {
        check_protocol(&mux)?;
        mux.give_up_stalled(options.stall_timeout);
        let pairing = Pairing::new(options.creation_timeout, options.max_half_pairs);
        // Only legacy port-forward names its ports in the request.
        let says_why = !mux.ports().is_empty();
        Ok(Self { mux, pairing, says_why, linger: options.linger })
    }

    /// Waits for the next connection that the client asks for. `None` means that the client has ended the multiplexed
    /// connection in good order, or in legacy port-forward that all requested connections have ended.
    ///
    /// A stream that is neither the data stream nor the error stream of a connection is reset. A stream of a connection
    /// whose other stream does not come within [`Options::creation_timeout`] is reset too, but only while this is
    /// polled. Other connections are not affected, and go on whether or not this is called.
    ///
    /// # Errors
    /// The error that the multiplexed connection ended with. It is [`ConnectionError::Lost`] if the client goes away
    /// without a goodbye.
    ///
    /// # Cancel safety
    /// If dropped before completion, no connection is lost.
    pub async fn accept(&mut self) -> Option<Result<Request, Error>> {
        loop {
            let due = self.pairing.deadline();
            let expired = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let incoming = tokio::select! {
                biased;
                incoming = self.mux.accept() => incoming,
                () = expired => {
                    self.expire();
                    continue;
                }
            };
            match incoming {
                None => return None,
                Some(Err(error)) => return Some(Err(error.into())),
                Some(Ok(incoming)) => {
                    if let Some(request) = self.offer(incoming) {
                        return Some(Ok(request));
                    }
                }
            }
        }
    }

    fn offer(&mut self, mut incoming: Incoming) -> Option<Request> {
        let Ok(half) = Half::of(incoming.headers(), incoming.id()) else {
            incoming.reject(RstStatus::CANCEL);
            return None;
        };
        incoming.forget_headers();
        let arrived = match half.kind {
            Kind::Data => Arrived::Data(incoming),
            Kind::Error => Arrived::Error(incoming.reply()),
        };
        let now = tokio::time::Instant::now().into_std();
        match self.pairing.offer(half, arrived, now) {
            Offered::Paired(port, id, Arrived::Data(data), Arrived::Error(error)) => {
                let (says_why, linger) = (self.says_why, self.linger);
                Some(Request { port, id, data, error, says_why, linger })
            }
            Offered::TooMany(Arrived::Data(data)) => {
                data.refuse();
                None
            }
            Offered::TooMany(Arrived::Error(error)) => {
                error.reset(RstStatus::REFUSED_STREAM);
                None
            }
            Offered::Twice(Arrived::Data(data)) => {
                data.reject(RstStatus::CANCEL);
                None
            }
            Offered::Twice(Arrived::Error(error)) => {
                error.reset(RstStatus::CANCEL);
                None
            }
            Offered::Waits | Offered::Paired(..) => None,
        }
    }

    fn expire(&mut self) {
        let now = tokio::time::Instant::now().into_std();
        while let Some((_, arrived)) = self.pairing.expire(now) {
            match arrived {
                Arrived::Data(data) => data.reject(RstStatus::CANCEL),
                Arrived::Error(error) => error.reset(RstStatus::CANCEL),
            }
        }
    }

    /// Waits until the multiplexed connection has ended, and with it all forwarded connections.
    ///
    /// # Cancel safety
    /// Can be dropped and called again.
    pub async fn client_gone(&self) {
        self.mux.gone().await;
    }

    /// Ends the multiplexed connection in good order, and waits for its end.
    ///
    /// # Errors
    /// The error that the connection ended with.
    ///
    /// # Cancel safety
    /// If dropped before completion, the connection ends all the same.
    pub async fn shutdown(self) -> Result<(), ConnectionError> {
        self.mux.shutdown().await
    }
}

/// A client's request for a connection to a port. If it is dropped, the connection is refused.
#[derive(Debug)]
pub struct Request {
    port: u16,
    id: String,
    data: Incoming,
    error: Stream,
    says_why: bool,
    linger: Duration,
}

impl Request {
    /// The port of the pod.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The client's request id, for logs.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Accepts the connection. Call this once you have reached the port.
    #[must_use]
    pub fn accept(self) -> Connection {
        let (_, error) = self.error.split();
        let data = self.data.reply();
        data.expect_bulk();
        Connection::server(data, error, self.port, self.says_why, self.linger)
    }

    /// Refuses the connection because the port could not be reached. A client of this crate is told the reason: at most
    /// its first 1024 characters, without control characters. A Go client sees a connection that ends at once. In
    /// legacy port-forward every client is told the reason. The client's other connections go on.
    pub fn fail(self, reason: &str) {
        // Control characters cannot be sent in a header.
        let reason: String = reason.chars().filter(|char| !char.is_control()).take(1024).collect();
        let headers = Headers::from_iter([(ERROR, &reason[..])]);
        if let Ok(mut data) = self.data.reply_with(headers) {
            data.finish();
            data.split().0.cancel_behind();
        }
        end(self.error, self.says_why);
    }

    /// Refuses the connection as Go's servers do: sends the reason on the error stream. client-go prints the reason,
    /// and then gives up all its connections with "lost connection to pod". Prefer [`fail`](Self::fail).
    ///
    /// # Errors
    /// The error that the stream or the connection ended with.
    ///
    /// # Cancel safety
    /// If dropped before completion, the client may not be told the reason.
    pub async fn fail_on_error_stream(mut self, reason: &str) -> Result<(), Error> {
        let said = self.error.send(Bytes::copy_from_slice(reason.as_bytes())).await;
        end(self.error, self.says_why);
        end(self.data.reply(), self.says_why);
        said.map_err(|error| Error::stream(self.port, error))
    }
}

/// Ends a stream, and then resets it, because a client that never ends its half must not fill the table of streams. In
/// legacy port-forward a client cannot end its half, and a reset would be an error.
fn end(mut stream: Stream, is_legacy: bool) {
    stream.finish();
    if !is_legacy {
        stream.split().0.cancel_behind();
    }
}
