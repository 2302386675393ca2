//! Joins two connections that speak different protocols: the same session on another transport or in another version.
//!
//! This module owns what the end of one side becomes on the other side. It must not frame anything itself: towards the
//! client it is a server of [`kubestream::exec`] or [`kubestream::portforward`], towards the backend it is a client of
//! the same module, and it joins the streams of both. It copies bytes only where the framing needs it: for WebSocket
//! masks and base64.

mod error;
mod forward;
mod sessions;

use std::pin::pin;

use kubestream::exec::Streams;
use kubestream::mux::{self, Multiplexer};
use kubestream::upgrade::{Protocol, Upgraded};
use kubestream::{exec, portforward};
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::error::TranslateError;

/// Translates a session of exec or attach between a client and a backend that have been upgraded, in any version and on
/// any transports. `streams` are those that the request asked for. `config` and `options` apply to both connections.
/// [`mux::Config::exec`] has the defaults for exec.
///
/// The end of a stream on one side becomes its end on the other side, and the status is written in the form of the
/// client's version. What the protocol of a side cannot express is lost. For example, the end of stdin does not reach a
/// backend over WebSocket before v5.
///
/// If the backend fails, the client's session ends with an InternalError, as behind a kube-apiserver. If the client
/// goes away, all stdin that it has sent is passed on first. Then the connection to the backend ends as the client's
/// connection did: in good order, or not.
///
/// This returns when both connections are closed.
///
/// # Errors
/// [`TranslateError::NotExec`] if a side speaks another protocol. [`TranslateError::Exec`] says which side failed, or
/// that the client went away; the other side was told.
///
/// # Cancel safety
/// Dropping the future closes both connections.
pub async fn translate_exec<C, B>(
    client: Upgraded<C>,
    backend: Upgraded<B>,
    streams: Streams,
    config: mux::Config,
    options: &exec::Options,
) -> Result<(), TranslateError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (from, to) = (client.protocol(), backend.protocol());
    if ![from, to].iter().all(|protocol| protocol.is_some_and(|protocol| protocol.version().is_some())) {
        return Err(TranslateError::NotExec { client: from, backend: to });
    }
    let linger = config.linger;
    run(client, backend, config, async |near, far| sessions::join(near, far, streams, options, linger).await).await
}

/// Translates port-forward between a client and a backend that have been upgraded, each to any of its protocols.
/// `config` and `options` apply to both connections.
///
/// A forwarded connection that ends or fails on one side ends or fails on the other side. In legacy port-forward a
/// client cannot half-close. So if the backend speaks legacy port-forward, the end of a client's direction does not
/// reach it.
///
/// If the client goes away, all bytes that it has sent are passed on first. Then the connection to the backend ends as
/// the client's connection did: in good order, or not.
///
/// This returns when both connections are closed.
///
/// # Errors
/// [`TranslateError::NotPortForward`] if a side speaks another protocol. [`TranslateError::PortForward`] says which
/// side failed; the other side was told.
///
/// # Cancel safety
/// Dropping the future closes both connections.
pub async fn translate_port_forward<C, B>(
    client: Upgraded<C>,
    backend: Upgraded<B>,
    config: mux::Config,
    options: &portforward::Options,
) -> Result<(), TranslateError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (from, to) = (client.protocol(), backend.protocol());
    if ![from, to].iter().all(|protocol| protocol.is_some_and(Protocol::is_port_forward)) {
        return Err(TranslateError::NotPortForward { client: from, backend: to });
    }
    let patience = config.flush_timeout;
    run(client, backend, config, async |near, far| forward::join(near, far, options, patience).await).await
}

/// Runs both connections until they are closed, and what joins them.
async fn run<C, B>(
    client: Upgraded<C>,
    backend: Upgraded<B>,
    config: mux::Config,
    join: impl AsyncFnOnce(Multiplexer, Multiplexer) -> Result<(), TranslateError>,
) -> Result<(), TranslateError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (near, near_driver) = Multiplexer::server(client, config.clone());
    let (far, far_driver) = Multiplexer::client(backend, config);
    let joined = join(near, far);
    let (mut joined, mut near_driver, mut far_driver) = (pin!(joined), pin!(near_driver), Box::pin(far_driver));
    let (mut near_ended, mut far_ended) = (false, false);
    let joined = loop {
        tokio::select! {
            // The drivers come last, because they must not write an end for a stream that was dropped without an end.
            biased;
            joined = &mut joined => break joined,
            _ = &mut near_driver, if !near_ended => near_ended = true,
            _ = &mut far_driver, if !far_ended => far_ended = true,
        }
    };
    if joined.as_ref().is_err_and(TranslateError::is_lost_client) {
        // If the client breaks off, the connection to the backend must break too, because the backend must not take
        // what it has for the whole input.
        drop(far_driver);
        if !near_ended {
            let _ = near_driver.await;
        }
        return joined;
    }
    // The drivers go on: they write what is left, and wait for the end of each connection.
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
