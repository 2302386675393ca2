//! Drops futures at chosen polls, and checks what is left then.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use kubestream::mux::{Config, Multiplexer};
use kubestream::upgrade::Protocol;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use support::sessions::upgraded;
use support::wire::wire;

pub(crate) const AN_HOUR: Duration = Duration::from_secs(3600);

/// Runs a transcript in virtual time, which passes only while no task can run. It yields to its tasks one at a time, so
/// that none of its polls sees the effects of several polls of theirs. If nothing can ever go on, that counts as a hang
/// after a year.
pub(crate) fn play(transcript: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let transcript = async { timeout(AN_HOUR * 24 * 365, transcript).await.expect("it hangs") };
    runtime.enable_all().start_paused(true).event_interval(1).build().unwrap().block_on(transcript);
}

/// The same for tests with sockets, in real time, because paused time would not wait for sockets.
#[cfg(feature = "net")]
pub(crate) fn play_with_sockets(transcript: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let transcript = async { timeout(AN_HOUR / 12, transcript).await.expect("it hangs") };
    runtime.enable_all().event_interval(1).build().unwrap().block_on(transcript);
}

/// Polls a call up to that many times, each time when it is woken, and drops it.
pub(crate) async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match call.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Repeats a call each time it was dropped, until it is ready. (A function that takes an async closure could not be
/// spawned.)
macro_rules! pestered {
    ($polls:expr, $call:expr) => {{
        let mut calls = 0;
        loop {
            if let Some(result) = $crate::dropping::dropped_after($polls, $call).await {
                break result;
            }
            calls += 1;
            $crate::dropping::between_calls(calls).await;
        }
    }};
}

/// Lets other tasks run, and from time to time lets time pass.
pub(crate) async fn between_calls(calls: usize) {
    assert!(calls < 100_000, "never ready");
    if calls % 100 == 99 {
        sleep(Duration::from_millis(1)).await;
    }
    yield_now().await;
}

/// Checks that at the end no task is left. A connection may take its time until it gives up.
pub(crate) async fn nothing_is_left(name: &str) {
    for _ in 0..3600 {
        if Handle::current().metrics().num_alive_tasks() == 0 {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("{name}: tasks are left");
}

/// Counts how many of some futures exist.
#[derive(Clone, Default)]
pub(crate) struct Alive(Arc<()>);

impl Alive {
    pub(crate) fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// Both ends of a connection that carries single bytes.
pub(crate) fn ends(protocol: Protocol, seed: u64) -> (Multiplexer, Multiplexer) {
    let (near, far, _) = wire(None, Some(seed));
    let (client, driver) = Multiplexer::client(upgraded(near, protocol), Config::default());
    tokio::spawn(driver);
    let (server, driver) = Multiplexer::server(upgraded(far, protocol), Config::default());
    tokio::spawn(driver);
    (client, server)
}
