//! Tries WebSocket first, and SPDY if the server refuses WebSocket, as kubectl does.
//!
//! Decides when a second connection is made, and keeps the reason. Only a refusal is a reason, no other failure.

use std::future::Future;
use std::io;

use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::connect;
use super::config::Config;
use super::error::{InvalidRequest, UpgradeError};
use super::upgraded::Upgraded;
use crate::initiator::Initiator;
use crate::protocol::{Protocol, Transport};

/// A connection, and why it is not WebSocket.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected<IO> {
    /// The connection.
    pub upgraded: Upgraded<IO>,
    /// Why the server refused WebSocket, if the connection is SPDY.
    pub refused: Option<UpgradeError>,
}

/// Why neither WebSocket nor SPDY could be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FallbackError {
    /// `dial` failed, for the first or the second connection.
    #[error("{transport}: {error}{}", after(refused.as_deref()))]
    #[non_exhaustive]
    Dial {
        /// The transport that the connection was meant for.
        transport: Transport,
        /// The error of `dial`.
        #[source]
        error: io::Error,
        /// Why the server refused WebSocket, if the connection was meant for SPDY.
        refused: Option<Box<UpgradeError>>,
    },
    /// WebSocket failed without a refusal, so SPDY was not tried.
    #[error("WebSocket: {0}")]
    WebSocket(#[source] UpgradeError),
    /// The server refused WebSocket, and then SPDY failed.
    #[error("{spdy}{}", after(Some(websocket)))]
    #[non_exhaustive]
    Spdy {
        /// Why the server refused WebSocket.
        websocket: UpgradeError,
        /// Why SPDY failed.
        #[source]
        spdy: UpgradeError,
    },
}

fn after(refused: Option<&UpgradeError>) -> String {
    refused.map(|refused| format!(" (WebSocket was refused before: {refused})")).unwrap_or_default()
}

impl FallbackError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Dial { .. } => Initiator::Remote,
            Self::WebSocket(error) | Self::Spdy { spdy: error, .. } => error.initiator(),
        }
    }
}

impl From<FallbackError> for io::Error {
    fn from(error: FallbackError) -> Self {
        let kind = match &error {
            FallbackError::Dial { error, .. } => error.kind(),
            FallbackError::WebSocket(error) | FallbackError::Spdy { spdy: error, .. } => error.kind(),
        };
        Self::new(kind, error)
    }
}

/// Offers the protocols of `websocket` in a GET. If the server refuses, offers those of `spdy` in a POST on a second
/// connection. `dial` makes each connection. The request's own method does not matter.
///
/// Every answer except a 101 is a refusal, even 401 and 403: gateways that do not know WebSocket answer with any
/// status, and kubectl falls back on all of them. Other failures, before an answer or after a 101, are not tried again.
///
/// # Errors
/// [`FallbackError`], which says which of the two failed and why. It is [`InvalidRequest::NotOfTransport`], and nothing
/// was sent, if a list is empty or has a protocol of the other transport.
///
/// # Cancel safety
/// The same as [`connect`].
pub async fn connect_with_fallback<IO, Dial, Dialled>(
    mut dial: Dial,
    mut request: Request<()>,
    websocket: &[Protocol],
    spdy: &[Protocol],
    config: &Config,
) -> Result<Connected<IO>, FallbackError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    Dial: FnMut() -> Dialled,
    Dialled: Future<Output = io::Result<IO>>,
{
    for (transport, offers) in [(Transport::WebSocket, websocket), (Transport::Spdy, spdy)] {
        if offers.is_empty() || offers.iter().any(|offer| offer.transport() != transport) {
            let error = UpgradeError::InvalidRequest(InvalidRequest::NotOfTransport(transport));
            return Err(FallbackError::WebSocket(error));
        }
    }
    *request.method_mut() = Method::GET;
    let unreachable =
        |transport, error, refused: Option<Box<UpgradeError>>| FallbackError::Dial { transport, error, refused };
    let io = dial().await.map_err(|error| unreachable(Transport::WebSocket, error, None))?;
    let refused = match connect(io, request.clone(), websocket, config).await {
        Ok(upgraded) => return Ok(Connected { upgraded, refused: None }),
        Err(error @ (UpgradeError::Refused(_) | UpgradeError::Redirected { .. })) => error,
        Err(error) => return Err(FallbackError::WebSocket(error)),
    };
    *request.method_mut() = Method::POST;
    let io = match dial().await {
        Ok(io) => io,
        Err(error) => return Err(unreachable(Transport::Spdy, error, Some(Box::new(refused)))),
    };
    match connect(io, request, spdy, config).await {
        Ok(upgraded) => Ok(Connected { upgraded, refused: Some(refused) }),
        Err(spdy) => Err(FallbackError::Spdy { websocket: refused, spdy }),
    }
}
