//! Joins two connections that speak different protocols: the same session on another transport or in another version.
//!
//! This module owns what the end of one side becomes on the other side. It must not frame anything itself: towards the client it is a
//! server of [`kubestream::exec`] or [`kubestream::portforward`], towards the backend a client of theirs, and it joins their streams.
//! It copies bytes only where the framing needs it: for WebSocket masks and base64.

mod error;
mod exec;
mod forward;

use std::pin::pin;

use kubestream::exec::Streams;
use kubestream::mux::{self, Multiplexer};
use kubestream::upgrade::{Protocol, Upgraded};
use kubestream::{exec as sessions, portforward};
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::error::TranslateError;

/// What a caller can set on a translation.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TranslateConfig {
    /// For both connections. Default: `None`, which is [`mux::Config::default`] for port-forward and [`mux::Config::exec`] for
    /// exec and attach.
    pub mux: Option<mux::Config>,
    /// The timeouts of exec and attach, for both sides.
    pub exec: sessions::Options,
    /// The timeouts and limits of port-forward, for both sides.
    pub port_forward: portforward::Options,
}

/// Joins two connections whose handshakes are over, on any transports: exec and attach in any version, with the
/// `streams` that the request asked for, or port-forward by any of its protocols.
///
/// An end on one side becomes an end on the other side, and a status becomes a status, each in the form of that side's version. What
/// one side's protocol cannot express does not reach the other side: over WebSocket stdin can end from v5 only, and legacy
/// port-forward has no half-close.
///
/// If the backend fails, the client's session ends with an InternalError, as behind a kube-apiserver. If the client
/// goes away, its session ends: after all of its stdin has been passed on, the connection to the backend ends as the
/// client's did, in an orderly way or by a break.
///
/// It returns when both connections are closed.
///
/// # Errors
/// [`TranslateError`] says which side failed. The other side was told.
///
/// # Cancel safety
/// Dropping the future closes both connections.
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
    let (patience, linger) = (mux.flush_timeout, mux.linger);
    let (near, near_driver) = Multiplexer::server(client, mux.clone());
    let (far, far_driver) = Multiplexer::client(backend, mux);
    let joined = async {
        if is_forward {
            forward::join(near, far, &config.port_forward, patience).await
        } else {
            exec::join(near, far, streams, &config.exec, linger).await
        }
    };
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
