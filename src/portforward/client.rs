//! The client's side of port-forward: opens the two streams of each connection.
//!
//! Reading and writing a connection is for [`Connection`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::timeout;

use super::connection::Connection;
use super::error::{Error, check_protocol};
use super::options::Options;
use crate::mux::{Multiplexer, Stream};
use crate::protocol::{ERROR, PORT, REQUEST_ID, STREAM_TYPE};
use crate::session::{ConnectionError, StreamError};
use crate::wire::spdy::{Headers, RstStatus};

/// The client's side of port-forward: opens connections to the ports of a pod, all over one multiplexed connection. Any
/// number of tasks can use it at the same time.
#[derive(Debug)]
pub struct PortForward {
    mux: Multiplexer,
    options: Options,
    requests: Requests,
}

/// The request ids of the connections.
#[derive(Debug)]
enum Requests {
    /// The next id. The ids count from 0, as in client-go.
    Next(AtomicU64),
    /// Legacy port-forward: the ids and ports of the connections that are not taken yet.
    Asked(Mutex<Vec<(usize, u16)>>),
}

impl Requests {
    fn new(mux: &Multiplexer) -> Self {
        match mux.ports() {
            [] => Self::Next(AtomicU64::new(0)),
            ports => Self::Asked(Mutex::new(ports.iter().copied().enumerate().collect())),
        }
    }

    fn next(&self, port: u16) -> Result<String, Error> {
        match self {
            Self::Next(next) => Ok(next.fetch_add(1, Ordering::Relaxed).to_string()),
            Self::Asked(asked) => {
                let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                let at = asked.iter().position(|(_, asked)| *asked == port).ok_or(Error::NotAsked { port })?;
                Ok(asked.remove(at).0.to_string())
            }
        }
    }
}

impl PortForward {
    /// Forwards over a connection that was upgraded to port-forward, with the default [`Options`].
    ///
    /// # Errors
    /// [`Error::NotPortForward`] if the connection negotiated another protocol.
    pub fn new(mux: Multiplexer) -> Result<Self, Error> {
        Self::with_options(mux, Options::default())
    }

    /// The same as [`new`](Self::new), with other options.
    ///
    /// # Errors
    /// The same as [`new`](Self::new).
    pub fn with_options(mux: Multiplexer, options: Options) -> Result<Self, Error> {
        check_protocol(&mux)?;
        mux.give_up_stalled(options.stall_timeout);
        // Nobody accepts what a server opens, and each such stream would be kept.
        mux.refuse_streams();
        Ok(Self { requests: Requests::new(&mux), mux, options })
    }

    /// Connects to a port of the pod: opens two streams, and waits until the server has answered both.
    ///
    /// A server of this crate answers once it has reached the port, or says why it could not. Go's servers answer first
    /// and dial then, so with them the first read tells whether the port was reached.
    ///
    /// # Errors
    /// [`Error::Failed`] if the server could not reach the port and says why, [`Error::Refused`] if it refused a
    /// stream, [`Error::Timeout`] after [`Options::creation_timeout`], and [`Error::Stream`] if a stream failed. These
    /// concern this connection alone. [`Error::NoPort`] for port 0. [`Error::NotAsked`] in legacy port-forward, if the
    /// request did not name the port or its connection is taken. [`Error::Connection`] if the multiplexed connection
    /// failed.
    ///
    /// # Cancel safety
    /// If dropped before completion, the streams that were opened are reset. In legacy port-forward the connection of
    /// this port is then used up.
    pub async fn connect(&self, port: u16) -> Result<Connection, Error> {
        if port == 0 {
            return Err(Error::NoPort);
        }
        let request = self.requests.next(port)?;
        let port_text = port.to_string();
        let headers =
            |kind| Headers::from_iter([(STREAM_TYPE, kind), (PORT, &port_text[..]), (REQUEST_ID, &request[..])]);
        let answered = async {
            let mut error = self.mux.open(headers("error")).await?;
            // A client writes nothing on the error stream.
            error.finish();
            let mut error = Abandoned(Some(error));
            let mut data = self.mux.open(headers("data")).await?;
            data.expect_bulk();
            let refused = |error| match error {
                StreamError::Reset(status) => Error::Refused { port, status },
                error => Error::stream(port, error),
            };
            let (answer, _) = tokio::try_join!(data.answered(), error.answered()).map_err(refused)?;
            if let Some(reason) = answer.get(ERROR) {
                return Err(Error::Failed { port, reason: reason.to_owned() });
            }
            let (error, _) = error.keep().ok_or(Error::Connection(ConnectionError::Closed))?.split();
            Ok(Connection::client(data, error, port, &self.options))
        };
        let after = self.options.creation_timeout;
        timeout(after, answered).await.unwrap_or(Err(Error::Timeout { port, after }))
    }

    /// The multiplexed connection.
    #[must_use]
    pub fn multiplexer(&self) -> &Multiplexer {
        &self.mux
    }
}

/// An error stream whose connection is not complete yet. It resets the stream when dropped: the stream is finished, so
/// dropping the stream itself would not reset it.
struct Abandoned(Option<Stream>);

impl Abandoned {
    async fn answered(&mut self) -> Result<Headers, StreamError> {
        match &mut self.0 {
            Some(stream) => stream.answered().await,
            None => Err(StreamError::Finished),
        }
    }

    fn keep(mut self) -> Option<Stream> {
        self.0.take()
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset(RstStatus::CANCEL);
        }
    }
}
