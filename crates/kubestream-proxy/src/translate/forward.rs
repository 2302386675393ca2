//! Joins two port-forward connections: each forwarded connection of the client becomes one to the backend.
//!
//! This module owns how the two directions of a forwarded connection end. A connection that fails must not affect the
//! others.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use kubestream::ConnectionError;
use kubestream::mux::Multiplexer;
use kubestream::portforward::{Connection, Error, Options, PortForward, PortForwardServer, Request};
use tokio::time::timeout;

use super::error::TranslateError;
use kubestream::tap::Side;

pub(super) async fn join(
    client: Multiplexer,
    backend: Multiplexer,
    options: &Options,
    patience: Duration,
) -> Result<(), TranslateError> {
    let mut server = PortForwardServer::with_options(client.clone(), options).map_err(client_failed)?;
    let forward = PortForward::with_options(backend.clone(), options.clone()).map_err(backend_failed)?;
    let moved = AtomicU64::new(0);
    let mut connections = FuturesUnordered::new();
    let ended = loop {
        tokio::select! {
            request = server.accept() => match request {
                Some(Ok(request)) => connections.push(connect(request, &forward, &moved)),
                None => break Ok(()),
                Some(Err(error)) => return Err(client_failed(error)),
            },
            Some(()) = connections.next() => {}
            () = backend.gone() => match backend.error() {
                // With legacy port-forward a backend ends once all its connections have ended.
                None | Some(ConnectionError::Closed) => break Ok(()),
                Some(error) => break Err(Error::Connection(error)),
            },
        }
    };
    // One side has ended, but what it sent may not have been passed on yet. Wait for that while bytes move.
    while !connections.is_empty() {
        let before = moved.load(Ordering::Relaxed);
        match timeout(patience, connections.next()).await {
            Ok(_) => {}
            Err(_) if moved.load(Ordering::Relaxed) != before => {}
            Err(_) => {
                let cut = Error::Connection(ConnectionError::FlushTimeout(patience));
                return Err(backend_failed(ended.err().unwrap_or(cut)));
            }
        }
    }
    ended.map_err(backend_failed)
}

fn client_failed(error: Error) -> TranslateError {
    TranslateError::PortForward { side: Side::Client, error }
}

fn backend_failed(error: Error) -> TranslateError {
    TranslateError::PortForward { side: Side::Server, error }
}

async fn connect(request: Request, forward: &PortForward, moved: &AtomicU64) {
    match forward.connect(request.port()).await {
        Ok(remote) => relay(request.accept(), remote, moved).await,
        Err(error) => request.fail(&reason(&error)),
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::Failed { reason, .. } => reason.clone(),
        error => error.to_string(),
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Way {
    held: Option<Bytes>,
    /// The sink takes no more. Bytes from the source are still read, and dropped, so that they do not block other
    /// connections.
    discards: bool,
    over: bool,
}

/// Moves bytes both ways, each piece as it came, until both directions have ended or one fails.
async fn relay(mut local: Connection, mut remote: Connection, moved: &AtomicU64) {
    // If the client breaks off, the backend must read an error instead of an end, even if the backend has already ended
    // its own direction.
    remote.fail_on_drop();
    let (mut up, mut down) = (Way::default(), Way::default());
    let failed = poll_fn(|cx| {
        // The backend's error takes precedence over the client's.
        if let Poll::Ready(Err(error)) = poll_way(&mut down, &mut remote, &mut local, moved, cx) {
            return Poll::Ready(Some(error));
        }
        if let Poll::Ready(Err(_)) = poll_way(&mut up, &mut local, &mut remote, moved, cx) {
            return Poll::Ready(None);
        }
        // While a sink takes nothing, its source is not read. So check whether the source was given up: by a client
        // that breaks off, or, on either side, by the reset of a connection that blocked others.
        let given_up = up.held.is_some() && local.poll_given_up(cx).is_ready()
            || down.held.is_some() && remote.poll_given_up(cx).is_ready();
        // The stream is asked and not the multiplexer, because the multiplexer keeps a list of wakers that would grow
        // with each forwarded connection.
        let client_gone = local.poll_gone(cx).is_ready();
        // What a client sent before it left is passed on. No answer is awaited.
        let all = up.over && (down.over || client_gone);
        // The backend has ended and takes nothing more. A client that still sends must be told.
        let all = all || up.discards && down.over;
        if given_up || down.discards || all { Poll::Ready(None) } else { Poll::Pending }
    })
    .await;
    match failed {
        Some(error) => local.fail(&reason(&error)).await,
        None => drop(local),
    }
}

/// Ready when the direction has ended, or with the error of its source.
fn poll_way(
    way: &mut Way,
    from: &mut Connection,
    to: &mut Connection,
    moved: &AtomicU64,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    /// Pieces in one poll, before other connections get their turn.
    const ROUNDS: usize = 32;
    for _ in 0..ROUNDS {
        if way.over {
            return Poll::Ready(Ok(()));
        }
        if let Some(data) = way.held.take() {
            match to.poll_send(&data, cx) {
                Poll::Pending => {
                    way.held = Some(data);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => drop(moved.fetch_add(1, Ordering::Relaxed)),
                // The other direction reports the error.
                Poll::Ready(Err(_)) => way.discards = true,
            }
        }
        match from.poll_data(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(_))) if way.discards => {}
            Poll::Ready(Some(Ok(data))) => way.held = Some(data),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => {
                to.finish();
                way.over = true;
            }
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
