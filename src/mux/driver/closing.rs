//! How a connection's last bytes go out, and how long its peer is waited for.
//!
//! Owns the stages of the ending and their patience. It must not decide that there is one: that is the connection's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::stage::{Overheard, Rest, Stage};
use super::{Driver, ROUNDS, after};
use crate::session::{ConnectionError, Message, Role, SURELY_TAKEN};

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    /// Reads what nobody wants any more. The peer may be writing its last bytes too, and were they not read, each end
    /// would wait for the other. That it talks does not keep it from being given up: it has to take something.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        for _ in 0..ROUNDS {
            if self.eof || self.overhear(cx).is_pending() {
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Reads once what nobody wants any more, but for the word that nothing more is to come.
    pub(super) fn overhear(&mut self, cx: &mut Context<'_>) -> Poll<Overheard> {
        while self.rest == Rest::Frames {
            match self.carrier.decode(self.input.bytes()) {
                Ok(Some(Message::Goodbye { .. }))
                | Err(ConnectionError::Closed | ConnectionError::PeerClosed { .. }) => {
                    // A carrier says its end again each time it is asked.
                    self.rest = Rest::Goodbye;
                    return Poll::Ready(Overheard::End);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => self.rest = Rest::Unreadable,
            }
        }
        if self.rest != Rest::Frames {
            self.input.bytes().clear();
        }
        Poll::Ready(match ready!(poll_read_buf(Pin::new(&mut self.io), cx, self.input.with_room())) {
            Ok(1..) => Overheard::Talk,
            Ok(0) | Err(_) => {
                self.eof = true;
                Overheard::End
            }
        })
    }

    /// Whether a client is there that has not ended yet, and is told all.
    pub(super) fn leaves_the_end_to_the_peer(&self) -> bool {
        let told = self.shared.look(|state| {
            let connection = &state.connection;
            let orderly = matches!(connection.error(), Some(ConnectionError::Closed));
            connection.role() == Role::Server && orderly && !connection.is_going_away()
        });
        told && self.rest != Rest::Goodbye && !self.eof
    }

    /// Where to go on once the connection is closed.
    pub(super) fn closed_stage(&self) -> Option<Stage> {
        let error = self.shared.look(|state| state.connection.error().cloned())?;
        Some(match error {
            _ if self.eof => Stage::Ended,
            ConnectionError::Io(_) | ConnectionError::KeepaliveTimeout(_) | ConnectionError::FlushTimeout(_) => {
                Stage::Ended
            }
            _ => Stage::Flushing,
        })
    }

    /// When the peer is no longer waited for, where it is at all: after a failed write, unless our reader is the slow one,
    /// and while closing.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        match &self.write_error {
            Some(_) => (!self.paused).then(|| after(self.progress, self.linger)),
            None => self.closing.then(|| after(self.progress, self.flush_timeout)),
        }
    }

    /// How long the peer may take none of the last bytes. After a failure, or its last word, they are not worth much.
    pub(super) fn patience(&self) -> Duration {
        let worth_it = self.shared.look(|state| {
            matches!(state.connection.error(), Some(ConnectionError::Closed)) && !state.connection.is_silent()
        });
        if worth_it { self.flush_timeout } else { self.linger }
    }

    /// `last`: the peer was waited for already, or has ended.
    pub(super) fn shutting(&self, last: bool, now: Instant) -> Stage {
        Stage::Shutting { until: after(now, self.linger), last }
    }

    /// Until when the peer may be silent, and until when it has to end at the latest.
    pub(super) fn silence_allowed(&self, now: Instant) -> (Instant, Instant) {
        let at_most = after(now, self.patience());
        // It may be silent because it has yet to read, and a reset would take the rest of it back.
        let until = if self.unconfirmed > SURELY_TAKEN { at_most } else { after(now, self.linger) };
        (until, at_most)
    }
}
