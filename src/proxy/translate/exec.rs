//! Exec and attach, joined.
//!
//! Owns the order of the end: the status goes to the client behind all output that has come, and nothing more to the backend
//! once it is there.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use tokio::time::sleep;

use super::TranslateError;
use crate::ConnectionError;
use crate::exec::{Error, Options, ProcessOutput, ProcessStdin, RemoteOutput, RemoteStdin, Resizer, Resizes, Streams};
use crate::mux::Multiplexer;
use crate::status::{ExitStatus, Status};

pub(super) async fn join(
    client: Multiplexer,
    backend: Multiplexer,
    streams: Streams,
    options: &Options,
) -> Result<(), TranslateError> {
    // The client's first: over SPDY nothing runs for one that is not all there. A WebSocket has all its streams at once.
    let process = client.accept_exec_with(streams, options.clone()).await;
    let mut process = process.map_err(|error| TranslateError::Client(error.into()))?;
    let remote = tokio::select! {
        remote = backend.exec_with(streams, options.clone()) => remote,
        () = process.client_gone() => return Err(gone(&client)),
    };
    drop(backend);
    let mut remote = match remote {
        Ok(remote) => remote,
        Err(error) => {
            // The client may be gone too, and the first error says more.
            let _ = process.exit(internal(&error)).await;
            return Err(TranslateError::Backend(error.into()));
        }
    };

    let shown_so_far = Shown::default();
    let inputs =
        (type_on(process.stdin.take(), remote.stdin.take()), follow_size(process.resize.take(), remote.resize.take()));
    let outputs = (
        show(remote.stdout.take(), process.stdout.take(), &shown_so_far),
        show(remote.stderr.take(), process.stderr.take(), &shown_so_far),
    );
    let mut shown = pin!(async { tokio::join!(outputs.0, outputs.1) });
    let ended = async {
        let mut all = false;
        let status = loop {
            tokio::select! {
                _ = &mut shown, if !all => all = true,
                status = remote.wait() => break status,
            }
        };
        // A backend that does not end its outputs is waited for as long as they go on.
        while !all {
            let before = shown_so_far.pieces.load(Ordering::Relaxed);
            tokio::select! {
                _ = &mut shown => all = true,
                () = sleep(options.output_grace) => {
                    let silent = before == shown_so_far.pieces.load(Ordering::Relaxed);
                    shown_so_far.over.store(silent, Ordering::Relaxed);
                }
            }
        }
        status
    };
    let typed = async {
        tokio::join!(inputs.0, inputs.1);
        // The session goes on without.
        std::future::pending::<Infallible>().await
    };
    let status = tokio::select! {
        status = ended => status,
        () = process.client_gone() => return Err(gone(&client)),
        never = typed => match never {},
    };
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
async fn type_on(from: Option<ProcessStdin>, to: Option<RemoteStdin>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    loop {
        match from.data().await {
            Some(Ok(data)) => {
                if to.send(data).await.is_err() {
                    return;
                }
            }
            None => return to.finish(),
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

/// How far the outputs have come.
#[derive(Default)]
struct Shown {
    pieces: AtomicU64,
    /// Nothing more is waited for.
    over: AtomicBool,
}

/// An output, to its end, or, once it is over, as much of it as is there.
async fn show(from: Option<RemoteOutput>, to: Option<ProcessOutput>, shown: &Shown) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    loop {
        let data = poll_fn(|cx| match from.poll_data(cx) {
            Poll::Pending if shown.over.load(Ordering::Relaxed) => Poll::Ready(None),
            data => data,
        });
        match data.await {
            Some(Ok(data)) => {
                if to.send(data).await.is_err() {
                    return;
                }
                shown.pieces.fetch_add(1, Ordering::Relaxed);
            }
            // What was lost with the connection, the status says.
            None | Some(Err(_)) => return,
        }
    }
}
