//! One output of a container, sent to all attached clients.
//!
//! Each client gets every byte in order, or is detached. A slow client delays the container for a limited time and is
//! then detached.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long the container waits for a slow client.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many pieces a client may be behind before the container waits.
const BEHIND: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Fanout(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    viewers: Vec<mpsc::Sender<Bytes>>,
    ended: bool,
}

impl Fanout {
    /// Subscribes to all further output. If the receiver ends and [`has_ended`](Self::has_ended) is false, the client
    /// was too slow.
    pub(crate) fn view(&self) -> mpsc::Receiver<Bytes> {
        let (to, from) = mpsc::channel(BEHIND);
        let mut state = self.state();
        // An output that stays silent would never show that its viewers have left.
        state.viewers.retain(|viewer| !viewer.is_closed());
        if !state.ended {
            state.viewers.push(to);
        }
        from
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state().ended
    }

    pub(crate) async fn send(&self, data: &Bytes) {
        let viewers = self.state().viewers.clone();
        for viewer in viewers {
            // The client has left, or was too slow.
            if !matches!(timeout(PATIENCE, viewer.send(data.clone())).await, Ok(Ok(()))) {
                self.state().viewers.retain(|other| !other.same_channel(&viewer));
            }
        }
    }

    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.viewers.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_let_go_of_and_can_tell() {
        let output = Fanout::default();
        let (mut reads, mut sleeps) = (output.view(), output.view());
        let reading = async {
            let mut count = 0;
            while reads.recv().await.is_some() {
                count += 1;
            }
            count
        };
        let writing = async {
            for _ in 0..2 * BEHIND {
                output.send(&Bytes::from_static(b"x")).await;
            }
            assert!(!output.has_ended());
            let mut got = 0;
            while sleeps.recv().await.is_some() {
                got += 1;
            }
            assert_eq!(got, BEHIND, "the view ended before the output did");
            output.end();
        };
        let (count, ()) = tokio::join!(reading, writing);
        assert_eq!(count, 2 * BEHIND);
        assert!(output.has_ended());
        assert!(output.view().recv().await.is_none(), "a late viewer sees the end");
    }

    #[test]
    fn those_who_have_gone_are_not_kept_although_nothing_is_said() {
        let output = Fanout::default();
        let stays = output.view();
        for _ in 0..100 {
            drop(output.view());
        }
        assert!(output.state().viewers.len() <= 2 && !stays.is_closed());
    }
}
