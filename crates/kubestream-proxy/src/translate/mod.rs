//! A session on one carrier as the same session on another.
//!
//! Owns which end of one side becomes what on the other. The protocols are those of [`exec`](crate::exec) and
//! [`portforward`](crate::portforward): it is a server of ours towards the client, and a client of ours towards the
//! backend, with their streams joined. Nothing of what passes is copied but where the carrier's own framing asks for it: masks
//! and base64.

mod exec;
mod forward;

use std::pin::pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::Initiator;
use crate::exec::Streams;
use crate::mux::{self, Multiplexer};
use crate::upgrade::{Protocol, Upgraded};
use crate::{exec as sessions, portforward};

/// How the two sides are driven.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TranslateConfig {
    /// Towards the client, and towards the backend. Default, `None`: [`mux::Config::default`] for port-forward,
    /// [`mux::Config::exec`] for sessions.
    pub mux: Option<mux::Config>,
    /// How long a session waits for what, on either side.
    pub exec: sessions::Options,
    /// The same for port-forward.
    pub port_forward: portforward::Options,
}

/// Joins two connections past their handshakes, whatever carries them: exec and attach in any version, with the `streams` that
/// the request asked for, or port-forward in any form.
///
/// Ends are ends and statuses statuses on either side, each in the words of its version; what one side cannot say the other
/// does not hear: before v5 a WebSocket has no end of stdin, nor has the old form of port-forward one half-close. A session whose
/// backend fails ends with an InternalError, as behind a kube-apiserver. A client that goes away takes its session with it: once
/// all of its stdin is passed on the connection to the backend ends as its own did, in good order or broken off.
///
/// It returns when both connections are closed.
///
/// # Errors
/// [`TranslateError`]: which side failed. The other was told.
///
/// # Cancel safety
/// Dropped, both connections are closed.
pub async fn translate<C, B>(
    client: Upgraded<C>,
    backend: Upgraded<B>,
    streams: Streams,
    config: &TranslateConfig,
) -> Result<(), TranslateError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (from, to) = (client.protocol(), backend.protocol());
    let forwards = |protocol: Option<Protocol>| protocol.is_some_and(Protocol::is_port_forward);
    let executes = |protocol: Option<Protocol>| protocol.is_some_and(|protocol| protocol.version().is_some());
    let is_forward = forwards(from) && forwards(to);
    if !(is_forward || executes(from) && executes(to)) {
        return Err(TranslateError::Mismatch { client: from, backend: to });
    }
    let mux = match &config.mux {
        Some(config) => config.clone(),
        None if is_forward => mux::Config::default(),
        None => mux::Config::exec(),
    };
    let patience = mux.flush_timeout;
    let (near, near_driver) = Multiplexer::server(client, mux.clone());
    let (far, far_driver) = Multiplexer::client(backend, mux);
    let joined = async {
        if is_forward {
            forward::join(near, far, &config.port_forward, patience).await
        } else {
            exec::join(near, far, streams, &config.exec).await
        }
    };
    let (mut joined, mut near_driver, mut far_driver) = (pin!(joined), pin!(near_driver), Box::pin(far_driver));
    let (mut near_ended, mut far_ended) = (false, false);
    let joined = loop {
        tokio::select! {
            // First: what it has dropped must not be written as an end, if it was none.
            biased;
            joined = &mut joined => break joined,
            _ = &mut near_driver, if !near_ended => near_ended = true,
            _ = &mut far_driver, if !far_ended => far_ended = true,
        }
    };
    if let Err(TranslateError::Client(error)) = &joined
        && !error.is_goodbye()
    {
        // What broke off there breaks off here: what the client had not sent must not look like the end of what it had.
        drop(far_driver);
        if !near_ended {
            let _ = near_driver.await;
        }
        return joined;
    }
    // The drivers outlive what was joined: they write what is left of it, and wait for each end.
    tokio::join!(
        async {
            if !near_ended {
                let _ = near_driver.await;
            }
        },
        async {
            if !far_ended {
                let _ = far_driver.await;
            }
        }
    );
    joined
}

/// Why two sides could not be joined to a good end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranslateError {
    /// They speak of different things, or one of them of nothing known.
    #[error("{client:?} and {backend:?} have no session in common")]
    Mismatch {
        /// What the client speaks.
        client: Option<Protocol>,
        /// What the backend speaks.
        backend: Option<Protocol>,
    },
    /// The client's side failed, or the client has gone away.
    #[error("the client: {0}")]
    Client(#[source] SessionError),
    /// The backend's side failed. The client was told.
    #[error("the backend: {0}")]
    Backend(#[source] SessionError),
}

/// What a side failed with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Exec or attach.
    #[error(transparent)]
    Exec(#[from] sessions::Error),
    /// Port-forward.
    #[error(transparent)]
    PortForward(#[from] portforward::Error),
}

impl SessionError {
    /// Whether the client ended its session itself, in good order.
    fn is_goodbye(&self) -> bool {
        matches!(self, Self::Exec(sessions::Error::Connection(error)) if error.is_farewell())
    }
}

impl TranslateError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Mismatch { .. } => Initiator::User,
            Self::Client(SessionError::Exec(error)) | Self::Backend(SessionError::Exec(error)) => error.initiator(),
            Self::Client(SessionError::PortForward(error)) | Self::Backend(SessionError::PortForward(error)) => {
                error.initiator()
            }
        }
    }
}
