//! The server's side: puts the pairs together.

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

/// Takes the connections that a client forwards.
#[derive(Debug)]
pub struct PortForwardServer {
    mux: Multiplexer,
    pairing: Pairing<Arrived>,
    /// A word on an error stream concerns its connection alone.
    says_why: bool,
    linger: Duration,
}

/// A stream of a pair. An error stream is answered at once, since clients wait for that before they make the other; a data
/// stream when it is known whether there is anything behind it.
#[derive(Debug)]
enum Arrived {
    Data(Incoming),
    Error(Stream),
}

impl PortForwardServer {
    /// On a connection that was upgraded to port-forward, with the default [`Options`].
    ///
    /// # Errors
    /// [`Error::NotPortForward`] on any other.
    pub fn new(mux: Multiplexer) -> Result<Self, Error> {
        Self::with_options(mux, &Options::default())
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options(mux: Multiplexer, options: &Options) -> Result<Self, Error> {
        check_protocol(&mux)?;
        mux.give_up_stalled(options.stall_timeout);
        let pairing = Pairing::new(options.creation_timeout, options.max_half_pairs);
        // Only the old form names its ports ahead.
        let says_why = !mux.ports().is_empty();
        Ok(Self { mux, pairing, says_why, linger: options.linger })
    }

    /// Waits for the next connection that the client makes. `None`: the client has ended in good order, or, in the old form,
    /// all connections have that it asked for.
    ///
    /// Streams that are no half of a pair are reset, and so is, while this is waited for, a half whose other does not come;
    /// the rest is not concerned. The client's older connections live on whether or not this is called.
    ///
    /// # Errors
    /// What the connection failed with: a client that simply goes away is [`ConnectionError::Lost`].
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has lost nothing.
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

    fn offer(&mut self, incoming: Incoming) -> Option<Request> {
        let Ok(half) = Half::of(incoming.headers(), incoming.id()) else {
            incoming.reject(RstStatus::CANCEL);
            return None;
        };
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

    /// Waits until the client has gone away: with it goes whatever was forwarded.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits.
    pub async fn client_gone(&self) {
        self.mux.gone().await;
    }

    /// Ends the connection in good order, and waits for that.
    ///
    /// # Errors
    /// What the connection failed with.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits; the connection ends all the same.
    pub async fn shutdown(self) -> Result<(), ConnectionError> {
        self.mux.shutdown().await
    }
}

/// A connection that a client wants. Dropped, it is refused.
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

    /// What the client calls it, for logs.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The port was reached: the connection stands.
    #[must_use]
    pub fn accept(self) -> Connection {
        let (_, error) = self.error.split();
        Connection::server(self.data.reply(), error, self.port, self.says_why, self.linger)
    }

    /// The port could not be reached. A client of ours is told why; one of Go's sees a connection that ends at once, and its
    /// other connections live on.
    pub fn fail(self, reason: &str) {
        // A reason that is no header is not worth failing for.
        let reason: String = reason.chars().filter(|char| !char.is_control()).take(1024).collect();
        let headers = Headers::from_iter([(ERROR, &reason[..])]);
        if let Ok(mut data) = self.data.reply_with(headers) {
            data.finish();
            data.split().0.cancel_behind();
        }
        end(self.error, self.says_why);
    }

    /// The port could not be reached, said as Go's servers do, in the words of the error stream. client-go prints them, and
    /// then gives up all its connections with "lost connection to pod".
    ///
    /// # Errors
    /// What the connection ended with.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the client may not have heard why.
    pub async fn fail_on_error_stream(mut self, reason: &str) -> Result<(), Error> {
        let said = self.error.send(Bytes::copy_from_slice(reason.as_bytes())).await;
        end(self.error, self.says_why);
        end(self.data.reply(), self.says_why);
        said.map_err(|error| Error::stream(self.port, error))
    }
}

/// Ends a stream, and behind that what a client may still send on it: one that does not end its half must not fill the table with them. In the
/// old form none can, and a reset is an error.
fn end(mut stream: Stream, is_old: bool) {
    stream.finish();
    if !is_old {
        stream.split().0.cancel_behind();
    }
}
