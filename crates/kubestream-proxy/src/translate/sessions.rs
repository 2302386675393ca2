//! Joins two exec or attach sessions.
//!
//! This module owns the order in which a session ends: the status goes to the client after all output, and once the
//! backend's status has arrived, nothing more goes to the backend.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kubestream::exec::{Error, Options, Reader, Resizer, Resizes, Streams};
use kubestream::mux::{Multiplexer, RstStatus, SendHalf};
use kubestream::status::{ExitStatus, Status};
use kubestream::{ConnectionError, StreamError};
use tokio::time::sleep;

use super::error::TranslateError;
use kubestream::tap::Side;

pub(super) async fn join(
    client: Multiplexer,
    backend: Multiplexer,
    streams: Streams,
    options: &Options,
    linger: Duration,
) -> Result<(), TranslateError> {
    // The client's streams come first: over SPDY nothing may run before the client has opened all of them. Over
    // WebSocket all streams exist at once.
    let process = client.accept_exec_with(streams, options.clone()).await;
    let mut process = process.map_err(client_failed)?;
    let mut asked = Box::pin(async move { backend.exec_with(streams, options.clone()).await });
    let remote = tokio::select! {
        remote = &mut asked => remote,
        () = process.client_gone() => {
            // The client may have sent everything before it left.
            if !client.peer_said_goodbye() || process.stdin.is_none() {
                return Err(gone(&client));
            }
            asked.await
        }
    };
    let mut remote = match remote {
        Ok(remote) => remote,
        Err(error) => {
            // If the client has gone too, the first error says more.
            let _ = process.exit(internal(&error)).await;
            return Err(backend_failed(error));
        }
    };

    // Counts the pieces of stdin that the backend has taken.
    let taken = AtomicU64::new(0);
    let typed = type_on(process.stdin.take(), remote.stdin.take(), &taken);
    let inputs = (typed, follow_size(process.resize.take(), remote.resize.take()));
    let outputs =
        (show(remote.stdout.take(), process.stdout.take()), show(remote.stderr.take(), process.stderr.take()));
    let mut typed = pin!(async {
        tokio::join!(inputs.0, inputs.1);
    });
    let mut shown = pin!(async {
        tokio::join!(outputs.0, outputs.1);
    });
    let (mut all_typed, mut all_shown) = (false, false);
    let status = loop {
        tokio::select! {
            () = &mut typed, if !all_typed => all_typed = true,
            () = &mut shown, if !all_shown => all_shown = true,
            status = remote.wait() => break status,
            () = process.client_gone() => {
                if !client.peer_said_goodbye() || all_typed {
                    return Err(gone(&client));
                }
                // Passes on all of the client's stdin and its end, while the backend takes any of it.
                loop {
                    let before = taken.load(Ordering::Relaxed);
                    tokio::select! {
                        () = &mut typed => return Err(gone(&client)),
                        // The command may have to write before it reads on, although no client reads its output.
                        () = &mut shown, if !all_shown => all_shown = true,
                        _ = remote.wait() => return Err(gone(&client)),
                        () = sleep(linger) => {}
                    }
                    if before == taken.load(Ordering::Relaxed) {
                        let cut = Error::Connection(ConnectionError::FlushTimeout(linger));
                        return Err(client_failed(cut));
                    }
                }
            }
        }
    };
    // The status waits for all output to reach the client, however slow the client is.
    if !all_shown {
        tokio::select! {
            () = &mut shown => {}
            () = process.client_gone() => return Err(gone(&client)),
        }
    }
    drop(remote);
    drop(client);
    match status {
        Ok(status) => process.exit(status).await.map_err(client_failed),
        Err(error) => {
            let _ = process.exit(internal(&error)).await;
            Err(backend_failed(error))
        }
    }
}

fn client_failed(error: Error) -> TranslateError {
    TranslateError::Exec { side: Side::Client, error }
}

fn backend_failed(error: Error) -> TranslateError {
    TranslateError::Exec { side: Side::Server, error }
}

fn gone(client: &Multiplexer) -> TranslateError {
    client_failed(Error::Connection(client.error().unwrap_or(ConnectionError::Closed)))
}

/// The status that kube-apiserver's translator sends if the backend fails.
fn internal(error: &Error) -> ExitStatus {
    ExitStatus::Failed(Box::new(Status::internal_error(error.to_string())))
}

/// Passes on stdin and its end. If the process takes no more, the rest is dropped.
async fn type_on(from: Option<Reader>, to: Option<SendHalf>, taken: &AtomicU64) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    loop {
        match from.data().await {
            Some(Ok(data)) => {
                if to.send(data).await.is_err() {
                    return;
                }
                taken.fetch_add(1, Ordering::Relaxed);
            }
            None => return to.finish(),
            // The client broke stdin off, and the session goes on.
            Some(Err(StreamError::Reset(_))) => return to.reset(RstStatus::INTERNAL_ERROR),
            // The client is lost, so its stdin did not end.
            Some(Err(_)) => return std::future::pending().await,
        }
    }
}

/// Passes on the sizes of the terminal.
async fn follow_size(from: Option<Resizes>, to: Option<Resizer>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(size) = from.next().await {
        if to.resize(size).await.is_err() {
            return;
        }
    }
}

/// Passes on an output to its end. If some of it was lost, [`Exec::wait`](kubestream::exec::Exec::wait) fails and tells
/// the client.
async fn show(from: Option<Reader>, to: Option<SendHalf>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(Ok(data)) = from.data().await {
        if to.send(data).await.is_err() {
            return;
        }
    }
}
