//! Port-forward, joined: each connection of the client's is one to the backend.
//!
//! Owns that a connection which fails takes no other with it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use super::TranslateError;
use crate::ConnectionError;
use crate::mux::Multiplexer;
use crate::portforward::{Connection, Error, Options, PortForward, PortForwardServer, Request};

pub(super) async fn join(
    client: Multiplexer,
    backend: Multiplexer,
    options: &Options,
    patience: Duration,
) -> Result<(), TranslateError> {
    let mut server = PortForwardServer::with_options(client.clone(), options)
        .map_err(|error| TranslateError::Client(error.into()))?;
    let forward = PortForward::with_options(backend.clone(), options.clone())
        .map_err(|error| TranslateError::Backend(error.into()))?;
    let moved = AtomicU64::new(0);
    let mut connections = FuturesUnordered::new();
    let ended = loop {
        tokio::select! {
            request = server.accept() => match request {
                Some(Ok(request)) => connections.push(connect(request, &forward, &moved)),
                None => break Ok(()),
                Some(Err(error)) => return Err(TranslateError::Client(error.into())),
            },
            Some(()) = connections.next() => {}
            () = backend.gone() => match backend.error() {
                // A backend of the old form ends once all its connections have.
                None | Some(ConnectionError::Closed) => break Ok(()),
                Some(error) => break Err(Error::Connection(error)),
            },
        }
    };
    // One side has ended, and what it has said may not be through yet: as long as that moves, it is waited for.
    while !connections.is_empty() {
        let before = moved.load(Ordering::Relaxed);
        match timeout(patience, connections.next()).await {
            Ok(_) => {}
            Err(_) if moved.load(Ordering::Relaxed) != before => {}
            Err(_) => {
                let cut = Error::Connection(ConnectionError::FlushTimeout(patience));
                return Err(TranslateError::Backend(ended.err().unwrap_or(cut).into()));
            }
        }
    }
    ended.map_err(|error| TranslateError::Backend(error.into()))
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
    /// Nobody takes what comes: it is read all the same, so that it does not hold up the others.
    deaf: bool,
    over: bool,
}

/// Moves bytes both ways, each piece as it came, until both have ended or either fails.
async fn relay(mut local: Connection, mut remote: Connection, moved: &AtomicU64) {
    // What the client breaks off is no end, though the backend's has come before.
    remote.breaks_off = true;
    let (mut up, mut down) = (Way::default(), Way::default());
    let failed = poll_fn(|cx| {
        // The backend's word on what is wrong goes before the client's.
        if let Poll::Ready(Err(error)) = poll_way(&mut down, &mut remote, &mut local, moved, cx) {
            return Poll::Ready(Some(error));
        }
        if let Poll::Ready(Err(_)) = poll_way(&mut up, &mut local, &mut remote, moved, cx) {
            return Poll::Ready(None);
        }
        // A client that gives up is heard though a backend that takes nothing holds up what it has sent; and either side may be given up for
        // the others, because the other does not take what it has sent.
        let given_up = up.held.is_some() && local.poll_given_up(cx).is_ready()
            || down.held.is_some() && remote.poll_given_up(cx).is_ready();
        // Asked of the stream, which has a place for one who waits: all that wait for the connection are a list, and it would grow by one a
        // connection.
        let client_gone = local.poll_gone(cx).is_ready();
        // Of a client that has gone what it had sent is passed on, and nobody takes an answer.
        let all = up.over && (down.over || client_gone);
        // The backend has ended and takes nothing more: whoever sends hears of it.
        let all = all || up.deaf && down.over;
        if given_up || down.deaf || all { Poll::Ready(None) } else { Poll::Pending }
    })
    .await;
    match failed {
        Some(error) => local.fail(&reason(&error)).await,
        None => drop(local),
    }
}

/// Ready once the direction has ended, or with what its source failed with.
fn poll_way(
    way: &mut Way,
    from: &mut Connection,
    to: &mut Connection,
    moved: &AtomicU64,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    /// Pieces in one poll before other connections get their turn.
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
                // Why, the other direction tells.
                Poll::Ready(Err(_)) => way.deaf = true,
            }
        }
        match from.poll_data(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(_))) if way.deaf => {}
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
