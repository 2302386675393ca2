//! Joins two connections that speak different protocols: the same session on another transport or in another version.
//!
//! This module owns what the end of one side becomes on the other side. It must not frame anything itself: towards the
//! client it is a server of [`kubestream::exec`] or [`kubestream::portforward`], towards the backend it is a client of
//! the same module, and it joins the streams of both. It copies bytes only where the framing needs it: for WebSocket
//! masks and base64.

mod error;
mod forward;
mod sessions;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use kubestream::exec::Streams;
use kubestream::mux::{self, Multiplexer};
use kubestream::status::Status;
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
    translate_exec_until(client, backend, streams, config, options, std::future::pending()).await
}

/// As [`translate_exec`], and ends the session when `end` is ready: for a time limit, or for a decision that was taken
/// back. Both sides may speak the same protocol.
///
/// The client gets the output that was passed on before, the ends of its outputs, and then the [`Status`] that `end`
/// returned, in the form of the client's version. So its user reads the reason. The connection to the backend is dropped
/// at once, without an end of stdin, because the command has not got all of its input. `Ok` is returned when the
/// connection to the client is closed.
///
/// `end` has no effect before the client has opened its streams, nor after the backend's status has arrived.
///
/// # Errors
/// The same as [`translate_exec`].
///
/// # Cancel safety
/// Dropping the future closes both connections.
pub async fn translate_exec_until<C, B>(
    client: Upgraded<C>,
    backend: Upgraded<B>,
    streams: Streams,
    config: mux::Config,
    options: &exec::Options,
    end: impl Future<Output = Status>,
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
    let join =
        async |near, far, cut: &AtomicBool| sessions::join(near, far, streams, options, linger, (end, cut)).await;
    run(client, backend, config, join).await
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
    run(client, backend, config, async |near, far, _: &AtomicBool| forward::join(near, far, options, patience).await)
        .await
}

/// Runs both connections until they are closed, and what joins them. If that sets the flag, the connection to the
/// backend is dropped before anything more is written to it.
async fn run<C, B>(
    client: Upgraded<C>,
    backend: Upgraded<B>,
    config: mux::Config,
    join: impl AsyncFnOnce(Multiplexer, Multiplexer, &AtomicBool) -> Result<(), TranslateError>,
) -> Result<(), TranslateError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (near, near_driver) = Multiplexer::server(client, config.clone());
    let (far, far_driver) = Multiplexer::client(backend, config);
    let cut = AtomicBool::new(false);
    let joined = join(near, far, &cut);
    let (mut joined, mut near_driver, mut far_driver) = (pin!(joined), pin!(near_driver), Some(Box::pin(far_driver)));
    let (mut near_ended, mut far_ended) = (false, false);
    let joined = loop {
        let far = poll_fn(|cx| {
            if cut.load(Ordering::Relaxed) {
                far_driver = None;
            }
            far_driver.as_mut().map_or(Poll::Ready(()), |driver| driver.as_mut().poll(cx).map(drop))
        });
        tokio::select! {
            // The drivers come last, because they must not write an end for a stream that was dropped without an end.
            biased;
            joined = &mut joined => break joined,
            _ = &mut near_driver, if !near_ended => near_ended = true,
            () = far, if !far_ended => far_ended = true,
        }
    };
    if cut.load(Ordering::Relaxed) || joined.as_ref().is_err_and(TranslateError::is_lost_client) {
        // If the client breaks off or is cut off, the connection to the backend must break too, because the backend
        // must not take what it has for the whole input.
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
            if let Some(driver) = far_driver.filter(|_| !far_ended) {
                let _ = driver.await;
            }
        }
    );
    joined
}
