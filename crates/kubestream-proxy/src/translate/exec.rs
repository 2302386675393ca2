//! Exec and attach, joined.
//!
//! Owns the order of the end: the status goes to the client behind all output that has come, and nothing more to the backend
//! once it is there.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::sleep;

use super::TranslateError;
use crate::exec::{Error, Options, ProcessOutput, ProcessStdin, RemoteOutput, RemoteStdin, Resizer, Resizes, Streams};
use crate::mux::Multiplexer;
use crate::status::{ExitStatus, Status};
use crate::{ConnectionError, StreamError};

pub(super) async fn join(
    client: Multiplexer,
    backend: Multiplexer,
    streams: Streams,
    options: &Options,
) -> Result<(), TranslateError> {
    // The client's first: over SPDY nothing runs for one that is not all there. A WebSocket has all its streams at once.
    let process = client.accept_exec_with(streams, options.clone()).await;
    let mut process = process.map_err(|error| TranslateError::Client(error.into()))?;
    let mut asked = Box::pin(async move { backend.exec_with(streams, options.clone()).await });
    let remote = tokio::select! {
        remote = &mut asked => remote,
        () = process.client_gone() => {
            // It may have said all that it had to say.
            if !client.peer_said_goodbye() || process.stdin.is_none() {
                return Err(gone(&client));
            }
            asked.await
        }
    };
    let mut remote = match remote {
        Ok(remote) => remote,
        Err(error) => {
            // The client may be gone too, and the first error says more.
            let _ = process.exit(internal(&error)).await;
            return Err(TranslateError::Backend(error.into()));
        }
    };

    // Pieces of stdin that the backend has taken.
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
                // Its stdin is passed on to the last byte, and its end, as long as the backend takes any of it.
                let linger = client.linger();
                loop {
                    let before = taken.load(Ordering::Relaxed);
                    tokio::select! {
                        () = &mut typed => return Err(gone(&client)),
                        // A command that nobody hears may have to write before it reads on.
                        () = &mut shown, if !all_shown => all_shown = true,
                        _ = remote.wait() => return Err(gone(&client)),
                        () = sleep(linger) => {}
                    }
                    if before == taken.load(Ordering::Relaxed) {
                        let cut = Error::Connection(ConnectionError::FlushTimeout(linger));
                        return Err(TranslateError::Client(cut.into()));
                    }
                }
            }
        }
    };
    // The status waits for the outputs, however slow the client is.
    if !all_shown {
        tokio::select! {
            () = &mut shown => {}
            () = process.client_gone() => return Err(gone(&client)),
        }
    }
    drop(remote);
    drop(client);
    match status {
        Ok(status) => process.exit(status).await.map_err(|error| TranslateError::Client(error.into())),
        Err(error) => {
            let _ = process.exit(internal(&error)).await;
            Err(TranslateError::Backend(error.into()))
        }
    }
}

fn gone(client: &Multiplexer) -> TranslateError {
    TranslateError::Client(Error::Connection(client.error().unwrap_or(ConnectionError::Closed)).into())
}

/// What kube-apiserver's translator says of a backend that fails.
fn internal(error: &Error) -> ExitStatus {
    ExitStatus::Failed(Box::new(Status::internal_error(error.to_string())))
}

/// stdin, and its end. Once the process takes no more, what still comes is nobody's.
async fn type_on(from: Option<ProcessStdin>, to: Option<RemoteStdin>, taken: &AtomicU64) {
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
            // It was broken off, and the session goes on.
            Some(Err(StreamError::Reset(_))) => return to.break_off(),
            // The client is lost: its stdin did not end.
            Some(Err(_)) => return std::future::pending().await,
        }
    }
}

async fn follow_size(from: Option<Resizes>, to: Option<Resizer>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(size) = from.next().await {
        if to.resize(size).await.is_err() {
            return;
        }
    }
}

/// An output, to its end. What was lost of it, the status says.
async fn show(from: Option<RemoteOutput>, to: Option<ProcessOutput>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(Ok(data)) = from.data().await {
        if to.send(data).await.is_err() {
            return;
        }
    }
}
