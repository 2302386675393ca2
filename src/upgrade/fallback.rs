//! Tries WebSocket first, and SPDY if the server refuses WebSocket, as kubectl does.
//!
//! Decides when a second connection is made, and keeps the reason for it. The only reason is an answer that is no
//! WebSocket with an offered protocol, and no other failure.

use std::future::Future;
use std::io;

use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{connect, invalid};
use super::config::Config;
use super::error::UpgradeError;
use super::upgraded::Upgraded;
use crate::protocol::{Protocol, Transport};

/// Tries WebSocket first, and SPDY if the server refuses WebSocket, as kubectl does: offers the protocols of
/// `websocket` in a GET. If the server refuses, offers those of `spdy` in a POST on a second connection. `dial` makes
/// each connection. The method of `request` does not matter.
///
/// The rule is kubectl's, which falls back on every answer that is no WebSocket with an offered protocol:
///
/// - a status other than 101, even 401 and 403: gateways that do not know WebSocket answer with any status. Some refuse
///   the tunnel of port-forward with a 400, because its name is not a valid token;
/// - a 101 that is not one to WebSocket ([`UpgradeError::NotSwitched`]);
/// - a 101 that names none of the offered protocols ([`UpgradeError::ProtocolNotOffered`]): a gateway has dropped the
///   name, or has chosen another.
///
/// Other failures are not tried again: if the connection fails, if the answer is late or is not HTTP.
///
/// Legacy port-forward is no third way here. Its request must name the ports, and its connection forwards one local
/// connection to each of them. If that is enough, call [`connect`] with it after [`UpgradeError::Fallback`].
///
/// [`Upgraded::websocket_refused`] says whether and why the connection is SPDY.
///
/// # Errors
/// [`UpgradeError::Fallback`] if the server refused WebSocket and then SPDY failed. It has both reasons.
///
/// After every other error WebSocket failed without a refusal, and SPDY was not tried. If `dial` failed, the error is
/// [`UpgradeError::Io`]. If a list is empty or has a protocol of the other transport, it is
/// [`UpgradeError::InvalidRequest`], and nothing was sent.
///
/// # Cancel safety
/// The same as [`connect`].
pub async fn connect_with_fallback<IO, Dial, Dialled>(
    mut dial: Dial,
    mut request: Request<()>,
    websocket: &[Protocol],
    spdy: &[Protocol],
    config: &Config,
) -> Result<Upgraded<IO>, UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    Dial: FnMut() -> Dialled,
    Dialled: Future<Output = io::Result<IO>>,
{
    for (transport, offers) in [(Transport::WebSocket, websocket), (Transport::Spdy, spdy)] {
        if offers.is_empty() || offers.iter().any(|offer| offer.transport() != transport) {
            return Err(invalid(format!(
                "the list of protocols over {transport} is empty or has a protocol of another transport"
            )));
        }
    }
    *request.method_mut() = Method::GET;
    let refused = match connect(dial().await?, request.clone(), websocket, config).await {
        Err(
            error @ (UpgradeError::Refused { .. }
            | UpgradeError::Redirected { .. }
            | UpgradeError::NotSwitched(_)
            | UpgradeError::ProtocolNotOffered { .. }),
        ) => Box::new(error),
        settled => return settled,
    };
    *request.method_mut() = Method::POST;
    let connected = match dial().await {
        Ok(io) => connect(io, request, spdy, config).await,
        Err(error) => Err(error.into()),
    };
    match connected {
        Ok(upgraded) => Ok(Upgraded { websocket_refused: Some(refused), ..upgraded }),
        Err(spdy) => Err(UpgradeError::Fallback { websocket: refused, spdy: Box::new(spdy) }),
    }
}
