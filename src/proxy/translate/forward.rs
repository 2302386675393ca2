//! Port-forward, joined: each connection of the client's is one to the backend.
//!
//! Owns that a connection which fails takes no other with it.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use super::TranslateError;
use crate::ConnectionError;
use crate::mux::Multiplexer;
use crate::portforward::{Connection, Error, Options, PortForward, PortForwardServer, Request};
use crate::proxy::LINGER;

pub(super) async fn join(client: Multiplexer, backend: Multiplexer, options: &Options) -> Result<(), TranslateError> {
    let mut server =
        PortForwardServer::with_options(client, options).map_err(|error| TranslateError::Client(error.into()))?;
    let forward = PortForward::with_options(backend.clone(), options.clone())
        .map_err(|error| TranslateError::Backend(error.into()))?;
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            request = server.accept() => match request {
                Some(Ok(request)) => connections.push(connect(request, &forward)),
                // It has ended in good order, and what it has sent may not be through yet.
                None => break,
                Some(Err(error)) => return Err(TranslateError::Client(error.into())),
            },
            Some(()) = connections.next() => {}
            () = backend.gone() => {
                let error = Error::Connection(backend.error().unwrap_or(ConnectionError::Closed));
                // A backend of the old form ends once all its connections have, and a client in order.
                let rest = async { while connections.next().await.is_some() {} };
                let _ = timeout(LINGER, rest).await;
                return match error {
                    Error::Connection(ConnectionError::Closed) => Ok(()),
                    error => Err(TranslateError::Backend(error.into())),
                };
            }
        }
    }
    let rest = async { while connections.next().await.is_some() {} };
    let _ = timeout(LINGER, rest).await;
    Ok(())
}

async fn connect(request: Request, forward: &PortForward) {
    match forward.connect(request.port()).await {
        Ok(remote) => relay(request.accept(), remote).await,
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
async fn relay(mut local: Connection, mut remote: Connection) {
    let (mut up, mut down) = (Way::default(), Way::default());
    let failed = poll_fn(|cx| {
        // The backend's word on what is wrong goes before the client's.
        if let Poll::Ready(Err(error)) = poll_way(&mut down, &mut remote, &mut local, cx) {
            return Poll::Ready(Some(error));
        }
        if let Poll::Ready(Err(_)) = poll_way(&mut up, &mut local, &mut remote, cx) {
            return Poll::Ready(None);
        }
        if down.deaf || up.over && down.over { Poll::Ready(None) } else { Poll::Pending }
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
                Poll::Ready(Ok(())) => {}
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
