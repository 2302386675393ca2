//! Observes how a stream ends, while others read and write it.
//!
//! This module must not take bytes of a stream, or end it.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::shared::park;
use super::stream_ref::StreamRef;
use crate::session::StreamError;

/// Observes a stream whose halves are used elsewhere. For each direction, one task at a time may wait for the end.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(super) stream: Arc<StreamRef>,
}

impl Watch {
    /// Ready when no more bytes will arrive, whether or not all are read.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        let id = self.stream.id;
        self.stream.shared.with(|state| {
            if state.connection.has_ended(id) {
                return Poll::Ready(());
            }
            park(&mut state.waiting(id).end, cx);
            Poll::Pending
        })
    }

    /// Whether the peer ended its direction itself, by FIN or RST_STREAM.
    pub(crate) fn was_finished(&self) -> bool {
        self.stream.shared.look(|state| state.connection.was_finished(self.stream.id))
    }

    /// How the peer's direction has ended. `None` if it has not ended, or if this end gave the rest up.
    pub(crate) fn outcome(&self) -> Option<Result<(), StreamError>> {
        self.stream.shared.look(|state| state.connection.outcome(self.stream.id))
    }

    /// Whether the stream has not ended and its reader still wants bytes.
    pub(crate) fn is_wanted(&self) -> bool {
        self.stream.shared.look(|state| state.connection.is_wanted(self.stream.id))
    }

    /// Whether the peer may have unread bytes of ours.
    pub(crate) fn may_be_unread(&self) -> bool {
        self.stream.shared.look(|state| state.connection.may_be_unread(self.stream.id))
    }

    /// Unread bytes. Each piece counts as at least 256.
    pub(crate) fn unread(&self) -> usize {
        self.stream.shared.look(|state| state.connection.unread_on(self.stream.id))
    }

    /// Ready when the connection has ended and all bytes of the stream were read or discarded.
    pub(crate) fn poll_read_out(&self, cx: &mut Context<'_>) -> Poll<()> {
        let id = self.stream.id;
        self.stream.shared.with(|state| {
            if state.connection.is_closed() && state.connection.is_read_out(id) {
                return Poll::Ready(());
            }
            park(&mut state.waiting(id).end, cx);
            Poll::Pending
        })
    }

    /// Whether the driver has taken all bytes and the FIN, to write them to the IO.
    pub(crate) fn was_sent(&self) -> bool {
        self.stream.shared.look(|state| state.connection.was_sent(self.stream.id))
    }

    /// Whether the driver has taken all bytes, to write them to the IO. The FIN may still be queued.
    ///
    /// # Errors
    /// The reason why bytes were not sent.
    pub(crate) fn was_taken(&self) -> Result<(), StreamError> {
        self.stream.shared.look(|state| state.connection.was_taken(self.stream.id))
    }

    /// Ready when the driver has taken all bytes and the FIN, to write them to the IO, or when it never will take them.
    pub(crate) fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        let id = self.stream.id;
        self.stream.shared.with(|state| {
            if state.connection.is_sent(id) {
                return Poll::Ready(());
            }
            park(&mut state.waiting(id).sent, cx);
            Poll::Pending
        })
    }
}
