//! The client's side: makes the pairs.

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

/// Connections to the ports of a pod, all over one.
#[derive(Debug)]
pub struct PortForward {
    mux: Multiplexer,
    options: Options,
    requests: Requests,
}

/// The ids of connections.
#[derive(Debug)]
enum Requests {
    /// The next one: client-go's count from 0 too.
    Next(AtomicU64),
    /// In the old form there is one for each port that the request named: these are not taken yet.
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
    /// On a connection that was upgraded to port-forward, with the default [`Options`].
    ///
    /// # Errors
    /// [`Error::NotPortForward`] on any other.
    pub fn new(mux: Multiplexer) -> Result<Self, Error> {
        Self::with_options(mux, Options::default())
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options(mux: Multiplexer, options: Options) -> Result<Self, Error> {
        check_protocol(&mux)?;
        mux.give_up_stalled(options.stall_timeout);
        Ok(Self { requests: Requests::new(&mux), mux, options })
    }

    /// Connects to a port: makes a pair of streams and waits until the server has answered both.
    ///
    /// A server of ours answers when it has reached the port, or says why it could not. Go's answer first and dial then:
    /// the first read tells.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::Refused`] and [`Error::Timeout`] concern this connection alone. [`Error::NoPort`], and in
    /// the old form [`Error::NotAsked`]. [`Error::Connection`] where all of them are lost.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the streams that were made are reset.
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
            // Nobody writes to the server there.
            error.finish();
            let mut error = Abandoned(Some(error));
            let mut data = self.mux.open(headers("data")).await?;
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

    /// The connection underneath.
    #[must_use]
    pub fn multiplexer(&self) -> &Multiplexer {
        &self.mux
    }
}

/// An error stream of no connection yet: it is finished, and so would not be reset by being dropped.
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
