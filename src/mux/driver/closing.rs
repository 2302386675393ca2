//! How the last bytes of a connection are written, and how long its peer is waited for.
//!
//! This module owns the stages of the ending and their time limits. It must not decide that a connection ends, which is
//! the [`Connection`](crate::session::Connection)'s job.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::stage::{Overheard, Rest, Stage};
use super::{Driver, ROUNDS, after};
use crate::session::{ConnectionError, Message, Role, SURELY_TAKEN};

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    /// Reads and drops bytes that no longer matter. The peer may also be writing its last bytes, and if this end did
    /// not read them, each end would wait for the other. Reading them does not extend the time limit: the peer has to
    /// accept bytes.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        for _ in 0..ROUNDS {
            if self.eof || self.overhear(cx).is_pending() {
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Reads once, and drops everything but the peer's end or goodbye.
    pub(super) fn overhear(&mut self, cx: &mut Context<'_>) -> Poll<Overheard> {
        while self.rest == Rest::Frames {
            match self.carrier.decode(self.input.bytes()) {
                Ok(Some(Message::Goodbye { .. }))
                | Err(ConnectionError::Closed | ConnectionError::PeerClosed { .. }) => {
                    // From here on the carrier reports the same end at each call, so it is not asked again.
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

    /// Whether this is a server that has sent everything, and whose client has not ended yet.
    pub(super) fn leaves_the_end_to_the_peer(&self) -> bool {
        let told = self.shared.look(|state| {
            let connection = &state.connection;
            let orderly = matches!(connection.error(), Some(ConnectionError::Closed));
            connection.role() == Role::Server && orderly && !connection.is_going_away()
        });
        told && self.rest != Rest::Goodbye && !self.eof
    }

    /// The next stage, if the connection is closed.
    pub(super) fn closed_stage(&self) -> Option<Stage> {
        if !self.seen.is_closed {
            return None;
        }
        let error = self.shared.look(|state| state.connection.error().cloned())?;
        Some(match error {
            _ if self.eof => Stage::Ended,
            ConnectionError::Io(_) | ConnectionError::KeepaliveTimeout(_) | ConnectionError::FlushTimeout(_) => {
                Stage::Ended
            }
            _ => Stage::Flushing,
        })
    }

    /// When this end stops waiting for the peer. `None` if there is no limit. There is one while the connection is
    /// closing, and after a failed write, unless reading is paused because of our own reader.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        match &self.write_error {
            Some(_) => (!self.paused).then(|| after(self.progress, self.linger)),
            None => self.closing.then(|| after(self.progress, self.flush_timeout)),
        }
    }

    /// How long the peer may accept none of the last bytes. The time is short after a failure and after the peer's last
    /// word, when they hardly matter.
    pub(super) fn patience(&self) -> Duration {
        let worth_it = self.shared.look(|state| {
            matches!(state.connection.error(), Some(ConnectionError::Closed)) && !state.connection.is_silent()
        });
        if worth_it { self.flush_timeout } else { self.linger }
    }

    /// The stage that shuts down the write side. `last`: the peer was waited for already, or has ended.
    pub(super) fn shutting(&self, last: bool, now: Instant) -> Stage {
        Stage::Shutting { until: after(now, self.linger), last }
    }

    /// How long the peer may be silent, and when it has to end at the latest.
    pub(super) fn silence_allowed(&self, now: Instant) -> (Instant, Instant) {
        let at_most = after(now, self.patience());
        // The peer may be silent because it is still reading, and a reset would destroy the rest.
        let until = if self.unconfirmed > SURELY_TAKEN { at_most } else { after(now, self.linger) };
        (until, at_most)
    }
}
