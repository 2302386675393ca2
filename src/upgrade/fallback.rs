//! WebSocket first, SPDY where it is refused: what kubectl does.
//!
//! Owns when a second connection is made, and that nobody has to guess why. It must not try again what was not refused.

use std::future::Future;
use std::io;

use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::connect;
use super::config::Config;
use super::error::{InvalidRequest, UpgradeError};
use super::upgraded::Upgraded;
use crate::initiator::Initiator;
use crate::protocol::{Carrier, Protocol};

/// A connection, and how it came about.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected<IO> {
    /// The connection.
    pub upgraded: Upgraded<IO>,
    /// Why the server would not have WebSocket, where it is SPDY for that reason.
    pub refused: Option<UpgradeError>,
}

/// Why neither carrier came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FallbackError {
    /// The server could not be reached, or not a second time.
    #[error("{carrier}: {error}{}", after(refused.as_deref()))]
    #[non_exhaustive]
    Dial {
        /// For what it was to be.
        carrier: Carrier,
        /// Why not.
        #[source]
        error: io::Error,
        /// Why WebSocket was refused before, where it was.
        refused: Option<Box<UpgradeError>>,
    },
    /// WebSocket failed, and not by a refusal: SPDY was not tried.
    #[error("WebSocket: {0}")]
    WebSocket(#[source] UpgradeError),
    /// WebSocket was refused, and then SPDY failed.
    #[error("{spdy}{}", after(Some(websocket)))]
    #[non_exhaustive]
    Spdy {
        /// Why WebSocket was refused.
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

/// Asks the server for one of the protocols `websocket`, by GET, and where it refuses for one of `spdy`, by POST, on a second
/// connection. `dial` makes a connection each time; the request's own method does not matter.
///
/// A refusal is any answer but a 101, 401 and 403 included: gateways that do not know WebSocket answer anything at all, and
/// kubectl falls back on all of them. What fails otherwise, before an answer or behind a 101, is not tried again.
///
/// # Errors
/// [`FallbackError`], which says which of the two failed, and how. [`InvalidRequest::NotOfCarrier`] where one of the lists is empty
/// or not of its carrier; nothing was sent then.
///
/// # Cancel safety
/// As [`connect`].
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
    for (carrier, offers) in [(Carrier::WebSocket, websocket), (Carrier::Spdy, spdy)] {
        if offers.is_empty() || offers.iter().any(|offer| offer.carrier() != carrier) {
            let error = UpgradeError::InvalidRequest(InvalidRequest::NotOfCarrier(carrier));
            return Err(FallbackError::WebSocket(error));
        }
    }
    *request.method_mut() = Method::GET;
    let unreachable =
        |carrier, error, refused: Option<Box<UpgradeError>>| FallbackError::Dial { carrier, error, refused };
    let io = dial().await.map_err(|error| unreachable(Carrier::WebSocket, error, None))?;
    let refused = match connect(io, request.clone(), websocket, config).await {
        Ok(upgraded) => return Ok(Connected { upgraded, refused: None }),
        Err(error @ (UpgradeError::Refused(_) | UpgradeError::Redirected { .. })) => error,
        Err(error) => return Err(FallbackError::WebSocket(error)),
    };
    *request.method_mut() = Method::POST;
    let io = match dial().await {
        Ok(io) => io,
        Err(error) => return Err(unreachable(Carrier::Spdy, error, Some(Box::new(refused)))),
    };
    match connect(io, request, spdy, config).await {
        Ok(upgraded) => Ok(Connected { upgraded, refused: Some(refused) }),
        Err(spdy) => Err(FallbackError::Spdy { websocket: refused, spdy }),
    }
}
