//! Joins two exec or attach sessions.
//!
//! This module owns the order in which a session ends: the status goes to the client after all output, and once the
//! backend's status has arrived, nothing more goes to the backend. If the caller ends the session, its status takes the
//! place of the backend's.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kubestream::exec::{Error, ExecServer, Options, Reader, Resizer, Resizes, Streams};
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
    (end, cut): (impl Future<Output = Status>, &AtomicBool),
) -> Result<(), TranslateError> {
    let mut end = pin!(end);
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
        status = &mut end => return stop(process, status, cut).await,
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
    let ended = {
        let mut typed = pin!(async {
            tokio::join!(inputs.0, inputs.1);
        });
        let mut shown = pin!(async {
            tokio::join!(outputs.0, outputs.1);
        });
        let (mut all_typed, mut all_shown) = (false, false);
        let ended = loop {
            tokio::select! {
                () = &mut typed, if !all_typed => all_typed = true,
                () = &mut shown, if !all_shown => all_shown = true,
                status = remote.wait() => break Ended::Remotely(status),
                status = &mut end => break Ended::ByCaller(status),
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
                            _ = &mut end => {
                                cut.store(true, Ordering::Relaxed);
                                return Err(gone(&client));
                            }
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
        if !all_shown && matches!(ended, Ended::Remotely(_)) {
            tokio::select! {
                () = &mut shown => {}
                () = process.client_gone() => return Err(gone(&client)),
            }
        }
        // The end of this block drops both futures, which ends the client's outputs.
        ended
    };
    let status = match ended {
        Ended::Remotely(status) => status,
        Ended::ByCaller(status) => return stop(process, status, cut).await,
    };
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

/// Whose status ends the session.
enum Ended {
    Remotely(Result<ExitStatus, Error>),
    ByCaller(Status),
}

/// Ends the session with the caller's status, and the connection to the backend at once.
async fn stop(process: ExecServer, status: Status, cut: &AtomicBool) -> Result<(), TranslateError> {
    cut.store(true, Ordering::Relaxed);
    process.exit(ExitStatus::Failed(Box::new(status))).await.map_err(client_failed)
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
