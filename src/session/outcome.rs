//! How the peer's direction of a stream, and the connection, have ended.
//!
//! This module owns the queries by which a session judges its result. It must not change the connection.

use std::time::Duration;

use super::connection::Connection;
use super::error::{ConnectionError, StreamError};
use super::stream::End;
use crate::wire::spdy::{GoAwayStatus, RstStatus, StreamId};

impl Connection {
    /// Whether the peer has ended its direction by FIN or RST_STREAM.
    #[must_use]
    pub fn was_finished(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| matches!(stream.end, Some(End::Fin | End::Reset(_))))
    }

    /// The error with which the stream broke off: it was reset, or the connection ended. Bytes before that may still be
    /// unread. `None` if the stream has not ended, or ended with FIN.
    pub(crate) fn broken(&self, id: StreamId) -> Option<StreamError> {
        match self.streams.get(&id)?.end {
            Some(End::Fin | End::Cancelled) => None,
            Some(end @ (End::Reset(_) | End::Broken(_) | End::Stalled(_))) => end.fault(),
            None | Some(End::WithConnection) => self.closed(),
        }
    }

    /// How the peer's direction of a stream ended. `Ok` means FIN, RST_STREAM with CANCEL (which Go's servers use as an
    /// end), or an orderly end of the connection by the peer. `None` if it has not ended, or the reader did not want
    /// the rest.
    pub(crate) fn outcome(&self, id: StreamId) -> Option<Result<(), StreamError>> {
        let stream = self.streams.get(&id)?;
        match (stream.end?, self.closed()) {
            (End::Fin | End::Reset(RstStatus::CANCEL), _) => Some(Ok(())),
            (End::Reset(status), _) => (!stream.unmissed).then_some(Err(StreamError::Reset(status))),
            (End::Broken(status), _) => Some(Err(StreamError::Broken(status))),
            (End::WithConnection, Some(_)) if self.peer_has_said_all() => Some(Ok(())),
            (End::WithConnection, Some(error)) => Some(Err(error)),
            (End::Stalled(after), _) => Some(Err(StreamError::Stalled { after })),
            (End::Cancelled | End::WithConnection, _) => None,
        }
    }

    /// Unread bytes of a stream. Each piece counts as at least 256.
    pub(crate) fn unread_on(&self, id: StreamId) -> usize {
        self.streams.get(&id).map_or(0, |stream| stream.charged)
    }

    /// Whether all bytes that arrived on a stream are read.
    pub(crate) fn is_read_out(&self, id: StreamId) -> bool {
        self.unread_on(id) == 0
    }

    /// [`Config::linger`](super::Config::linger).
    pub(crate) fn linger(&self) -> Duration {
        self.config.linger
    }

    /// Whether a stream has not ended and its reader still wants bytes.
    pub(crate) fn is_wanted(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.end.is_none() && !stream.discard)
    }

    /// Whether unread bytes of this stream may keep the peer from reading anything else. This never happens with flow
    /// control.
    pub(crate) fn may_be_unread(&self, id: StreamId) -> bool {
        !self.windows && self.streams.get(&id).is_some_and(|stream| stream.has_sent && stream.end.is_none())
    }

    /// Whether no more bytes will arrive on the stream, because it or the connection has ended.
    #[must_use]
    pub fn has_ended(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_none_or(|stream| stream.end.is_some()) || self.is_closed()
    }

    /// Whether the peer has ended the connection in good order.
    pub(crate) fn peer_said_goodbye(&self) -> bool {
        match self.error() {
            Some(ConnectionError::Closed) => matches!(self.gone_away, Some((_, GoAwayStatus::OK))),
            Some(error) => error.is_orderly_end(),
            None => false,
        }
    }

    /// Whether the peer has sent everything before an orderly end of the connection. If this end began the ending, it
    /// may have cut something off.
    pub(super) fn peer_has_said_all(&self) -> bool {
        let goodbye = matches!(self.gone_away, Some((_, GoAwayStatus::OK)));
        matches!(self.error(), Some(ConnectionError::Closed)) && (goodbye || self.has_last_word())
    }
}
