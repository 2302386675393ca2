//! How the peer's side of a stream, and of the connection, has ended.
//!
//! Owns the answers, for whoever judges a session by them. It must not change anything.

use std::time::Duration;

use super::connection::Connection;
use super::error::{ConnectionError, StreamError};
use super::stream::End;
use crate::wire::spdy::{GoAwayStatus, RstStatus, StreamId};

impl Connection {
    /// Whether the peer has ended its direction, by FIN or RST.
    #[must_use]
    pub fn was_finished(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| matches!(stream.end, Some(End::Fin | End::Reset(_))))
    }

    /// Why nothing more will come on a stream that the peer has not finished, whatever of it is unread: it was reset, or the connection
    /// has ended.
    pub(crate) fn broken(&self, id: StreamId) -> Option<StreamError> {
        match self.streams.get(&id)?.end {
            Some(End::Fin | End::Cancelled) => None,
            Some(end @ (End::Reset(_) | End::Broken(_) | End::Stalled(_))) => end.fault(),
            None | Some(End::WithConnection) => self.closed(),
        }
    }

    /// How the peer's direction of a stream ended: well by FIN, by the CANCEL that Go's servers end with, or with the whole connection
    /// where the peer ended that in good order. `None`: it has not ended, or nobody wanted what was still to come.
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

    /// Bytes that came on a stream and are still to be read, each piece counted as 256 at least.
    pub(crate) fn unread_on(&self, id: StreamId) -> usize {
        self.streams.get(&id).map_or(0, |stream| stream.charged)
    }

    /// Whether nothing that came on a stream is still to be read.
    pub(crate) fn is_read_out(&self, id: StreamId) -> bool {
        self.unread_on(id) == 0
    }

    /// How long a peer may be silent at the end.
    pub(crate) fn linger(&self) -> Duration {
        self.config.linger
    }

    /// Whether somebody still waits for what comes on a stream.
    pub(crate) fn is_wanted(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.end.is_none() && !stream.discard)
    }

    /// Whether the peer may have bytes of this stream unread, and so be unable to read anything else. One that has windows never is.
    pub(crate) fn may_be_unread(&self, id: StreamId) -> bool {
        !self.windows && self.streams.get(&id).is_some_and(|stream| stream.has_sent && stream.end.is_none())
    }

    /// Whether nothing more will come on the stream: it ended, or the connection did.
    #[must_use]
    pub fn has_ended(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_none_or(|stream| stream.end.is_some()) || self.is_closed()
    }

    /// Whether the peer has ended the connection itself, in good order.
    pub(crate) fn peer_said_goodbye(&self) -> bool {
        match self.error() {
            Some(ConnectionError::Closed) => matches!(self.gone_away, Some((_, GoAwayStatus::OK))),
            Some(error) => error.is_farewell(),
            None => false,
        }
    }

    /// Whether an orderly end of the connection has cut nothing off that the peer would have said. An end of our own making may have.
    pub(super) fn peer_has_said_all(&self) -> bool {
        let goodbye = matches!(self.gone_away, Some((_, GoAwayStatus::OK)));
        matches!(self.error(), Some(ConnectionError::Closed)) && (goodbye || self.has_last_word())
    }
}
