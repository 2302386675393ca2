//! How streams and the connection end, and what is kept of them after that.
//!
//! This module owns the phases of a connection, resets, and the removal of streams. It must not choose when something
//! is sent: it queues RST_STREAM and GOAWAY like other messages.

use std::collections::VecDeque;

use super::connection::Connection;
use super::error::{ConnectionError, StreamError};
use super::event::Event;
use super::flow::Holding;
use super::message::Message;
use super::phase::{LastWord, Phase};
use super::role::Role;
use super::stream::{End, Sending};
use crate::wire::spdy::{GoAwayStatus, RstStatus, StreamId};

impl Connection {
    /// Ends a stream in both directions at once. Its queued and unread bytes are dropped. If the stream has already
    /// ended in both directions, nothing is sent.
    pub fn reset(&mut self, id: StreamId, status: RstStatus) {
        self.reset_as(id, status, End::Cancelled);
    }

    pub(super) fn reset_as(&mut self, id: StreamId, status: RstStatus, end: End) {
        self.discard(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.end.is_some() && matches!(stream.sending, Sending::Finished | Sending::Dead) {
            return;
        }
        // A queued SYN_REPLY is still sent first, since a stream that was taken and then ended was not refused.
        stream.control.window_update = false;
        stream.control.reset = Some(status);
        self.schedule_control(id);
        self.end(id, end);
        self.kill(id);
        self.forget_if_over(id);
    }

    /// Resets a finished stream after its FIN is sent. The queued bytes are still sent, and the reset tells the peer
    /// that its bytes are no longer read.
    pub(crate) fn cancel_behind(&mut self, id: StreamId) {
        self.discard(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.sending {
            Sending::Finishing => stream.cancel_behind = true,
            Sending::Finished => self.reset(id, RstStatus::CANCEL),
            Sending::Open | Sending::Breaking(_) | Sending::Dead => {}
        }
    }

    /// Stops reading a stream. Its unread bytes and all further bytes are dropped, and count neither against the budget
    /// nor the window. The peer is not told, since Go's servers would ignore it.
    pub fn discard(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let before = stream.holding();
            stream.discard = true;
            let after = stream.holding();
            self.budget.moved(before, after);
            self.drop_unread(id);
            if self.is_closed() {
                self.events.push_back(Event::Ended(id));
            }
        }
    }

    /// Releases a stream that has no more handles. Further bytes are discarded, and the stream is removed when it has
    /// ended on the wire.
    pub fn release(&mut self, id: StreamId) {
        self.discard(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.held = false;
            if self.is_closed() {
                self.remove(id);
            } else {
                self.forget_if_over(id);
            }
        }
    }

    /// Makes DATA on this stream the peer's last word, such as the status of a command: after it nothing more is sent,
    /// and queued bytes are dropped. The reason is that a Go server that closes its socket while it has unread bytes of
    /// ours loses the tail of its own output. A peer with flow control, which is never a Go peer, still gets
    /// WINDOW_UPDATEs until the stream has ended.
    ///
    /// `despite_reset`: a reset of the stream does not end it. Servers of exec v1 reset their error
    /// stream as soon as it is opened, and still send the error on it.
    pub fn stop_sending_after(&mut self, id: StreamId, despite_reset: bool) {
        let known = self.last_word.filter(|word| word.id == id);
        let fresh = LastWord { id, despite_reset, is_last: false, begun: false };
        self.last_word = Some(LastWord { despite_reset, ..known.unwrap_or(fresh) });
    }

    /// Makes DATA on this stream the peer's last word, on a transport that keeps the order of all streams. After it
    /// nothing is missing, however the connection ends.
    pub(crate) fn stop_sending_after_all(&mut self, id: StreamId) {
        self.last_word = Some(LastWord { id, despite_reset: false, is_last: true, begun: false });
    }

    /// Stops sending. Writers get `reason`. The peer's bytes are still read to their end. Used for a last word that
    /// only the session above can recognise, and for IO that cannot be written any more.
    pub fn silence(&mut self, reason: StreamError) {
        if self.silence.is_some() {
            return;
        }
        self.silence = Some(reason);
        self.replies.clear();
        self.controls.clear();
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            self.kill(id);
            self.schedule_control(id);
            self.forget_if_over(id);
        }
        if matches!(self.phase, Phase::Closing) {
            self.close(ConnectionError::Closed);
        }
    }

    /// Whether this end has stopped sending.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silence.is_some()
    }

    /// Whether this end has stopped sending because the peer's last word has arrived. Then nothing that matters is
    /// missing, however the connection ends.
    pub(crate) fn session_has_ended(&self) -> bool {
        matches!(self.silence, Some(StreamError::SessionEnded))
    }

    /// Marks the coming end as a failure for a peer that waits for a result: GOAWAY will say INTERNAL_ERROR.
    pub(crate) fn abandon(&mut self) {
        self.goodbye = GoAwayStatus::INTERNAL_ERROR;
    }

    /// Takes back [`abandon`](Self::abandon): GOAWAY will say OK.
    pub(crate) fn keep_promise(&mut self) {
        self.goodbye = GoAwayStatus::OK;
    }

    /// Closes in good order: no new streams are opened, everything queued is sent, and GOAWAY is sent last.
    pub fn go_away(&mut self) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing;
            self.events.push_back(Event::CanOpen);
            if self.is_silent() {
                self.close(ConnectionError::Closed);
            }
        }
    }

    /// Resets the streams that a server has not finished, so that its client ends them too, and then the connection.
    /// Bytes that arrived on them may still be read. Returns whether there were such streams.
    pub(super) fn break_off_the_rest(&mut self) -> bool {
        if self.role == Role::Client {
            return false;
        }
        let unfinished = self.streams.values().filter(|stream| stream.sending == Sending::Open);
        let ids: Vec<StreamId> = unfinished.map(|stream| stream.id).collect();
        for id in &ids {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            let taken = stream.ours || stream.answered;
            stream.control.reply = None;
            stream.control.window_update = false;
            // Not CANCEL, with which Go's servers end complete streams.
            stream.control.reset = Some(if taken { RstStatus::INTERNAL_ERROR } else { RstStatus::REFUSED_STREAM });
            self.kill(*id);
            self.schedule_control(*id);
        }
        !ids.is_empty()
    }

    /// The error that the connection ended with, which is [`ConnectionError::Closed`] after an orderly end. `None`
    /// while it has not ended.
    #[must_use]
    pub fn error(&self) -> Option<&ConnectionError> {
        match &self.phase {
            Phase::Closed(error) => Some(error),
            Phase::Open | Phase::Closing => None,
        }
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.error().is_some()
    }

    /// Whether [`go_away`](Self::go_away) was called and messages are still queued.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing)
    }

    /// Whether the peer has sent GOAWAY.
    #[must_use]
    pub fn is_going_away(&self) -> bool {
        self.gone_away.is_some()
    }

    /// Ends the connection with `error`. If the peer caused the error, it is told by GOAWAY. Nothing else is sent.
    pub(crate) fn close(&mut self, error: ConnectionError) {
        if self.is_closed() {
            return;
        }
        let failed = !matches!(error, ConnectionError::Closed);
        if failed {
            self.replies.clear();
            let tell = match error {
                ConnectionError::Malformed(_)
                | ConnectionError::Protocol(_)
                | ConnectionError::LimitExceeded { .. } => Some(GoAwayStatus::PROTOCOL_ERROR),
                // A Close has to be answered by a Close (RFC 6455 §5.5.1).
                ConnectionError::PeerClosed { .. } | ConnectionError::GoneAway { .. } => Some(GoAwayStatus::OK),
                ConnectionError::IdleTimeout(_) | ConnectionError::Stalled { .. } => Some(GoAwayStatus::OK),
                _ => None,
            };
            if let Some(status) = tell {
                self.replies.push_back(Message::Goodbye { last_good: self.last_taken, status });
            }
        }
        self.phase = Phase::Closed(error);
        self.controls.clear();
        self.ready.iter_mut().for_each(VecDeque::clear);
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            self.kill(id);
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if !stream.held {
                self.remove(id);
            } else if !stream.discard {
                stream.end.get_or_insert(End::WithConnection);
            }
        }
        // A client that has stopped sending because it has the peer's last word still sends a goodbye.
        let leaves = self.session_has_ended() && !failed && self.role == Role::Client;
        self.last_message = leaves.then_some(Message::Goodbye { last_good: self.last_taken, status: GoAwayStatus::OK });
        self.events.push_back(Event::Closed);
    }

    /// Answers the peer's goodbye. The answer is sent at once, without queued messages, since the peer reads nothing
    /// else.
    pub(crate) fn answer_goodbye(&mut self) {
        if self.is_closed() {
            return;
        }
        self.gone_away.get_or_insert((self.last_taken, GoAwayStatus::OK));
        self.end_here();
    }

    /// Ends the connection in good order at once: GOAWAY is sent next, and queued messages are dropped.
    pub(crate) fn end_here(&mut self) {
        if self.is_closed() {
            return;
        }
        self.close(ConnectionError::Closed);
        self.replies.clear();
        self.replies.push_back(Message::Goodbye { last_good: self.last_taken, status: GoAwayStatus::OK });
    }

    /// Notes that the peer's bytes have ended. `between_frames`: they did not end in the middle of a frame.
    pub(crate) fn end_of_input(&mut self, between_frames: bool) {
        self.close(match self.gone_away {
            _ if !between_frames => ConnectionError::Lost,
            _ if self.lacks_nothing() => ConnectionError::Closed,
            Some((last_good, status)) => ConnectionError::GoneAway { last_good: last_good.get(), status },
            None => ConnectionError::Lost,
        });
    }

    /// Notes that the IO failed. If the peer had said goodbye or its last word before, nothing is missing, and this is
    /// an orderly end.
    pub(crate) fn lost(&mut self, error: ConnectionError) {
        self.close(if self.lacks_nothing() { ConnectionError::Closed } else { error });
    }

    /// Whether the peer has said goodbye or its last word, so that an end of the connection loses nothing.
    fn lacks_nothing(&self) -> bool {
        match self.gone_away {
            Some((_, status)) => status == GoAwayStatus::OK,
            None => self.session_has_ended() && !self.is_owed(),
        }
    }

    /// Whether the peer's last word has arrived on a transport where nothing else can follow it.
    pub(super) fn has_last_word(&self) -> bool {
        self.last_word.is_some_and(|word| word.is_last && word.begun)
    }

    /// Whether `error` is a Close after which nothing that matters is missing, although it need not be a goodbye.
    pub(crate) fn has_all_but(&self, error: &ConnectionError) -> bool {
        let is_close = matches!(error, ConnectionError::PeerClosed { .. });
        is_close && self.session_has_ended() && (error.is_orderly_end() || !self.is_owed())
    }

    /// Whether a reader waits for the end of a stream, and the end has not arrived.
    fn is_owed(&self) -> bool {
        if self.has_last_word() {
            return false;
        }
        self.streams.values().any(|stream| stream.held && !stream.discard && stream.end.is_none())
    }

    /// Ends a client's connection if its server has sent GOAWAY and all streams are over. The server waits for this
    /// end.
    pub(super) fn end_if_left(&mut self) {
        let Some((last_good, status)) = self.gone_away else { return };
        let left = self.streams.values().any(|stream| !stream.ours && !stream.is_over());
        if self.role == Role::Server || self.ours_live > 0 || left {
            return;
        }
        if status == GoAwayStatus::OK {
            self.go_away();
        } else {
            self.close(ConnectionError::GoneAway { last_good: last_good.get(), status });
        }
    }

    pub(super) fn check_open(&self) -> Result<(), ConnectionError> {
        if let (Some(reason), false) = (&self.silence, self.is_closed()) {
            return Err(match reason {
                StreamError::Connection(error) => error.clone(),
                _ => ConnectionError::Closed,
            });
        }
        match (&self.phase, self.gone_away) {
            (Phase::Closed(error), _) => Err(error.clone()),
            (Phase::Closing, _) => Err(ConnectionError::Closed),
            (Phase::Open, Some((last_good, status))) => {
                Err(ConnectionError::GoneAway { last_good: last_good.get(), status })
            }
            (Phase::Open, None) => Ok(()),
        }
    }

    pub(super) fn closed(&self) -> Option<StreamError> {
        self.error().cloned().map(StreamError::Connection)
    }

    /// Ends the peer's direction of a stream. Only the first end counts.
    pub(super) fn end(&mut self, id: StreamId, end: End) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.end.is_none()
        {
            stream.end = Some(end);
            stream.unmissed = stream.discard;
            if std::mem::take(&mut stream.reader_waits) {
                self.events.push_back(Event::Readable(id));
            }
            self.events.push_back(Event::Ended(id));
            self.grant(id);
        }
    }

    /// Ends our direction of a stream because of a reset. The queued bytes are dropped, and the writer is woken.
    pub(super) fn kill(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if stream.sending != Sending::Finished {
                stream.sending = Sending::Dead;
                self.events.push_back(Event::Sent(id));
            }
            stream.cut_short |= !stream.unsent.is_empty();
            stream.unsent.clear();
            if std::mem::take(&mut stream.writer_waits) {
                self.events.push_back(Event::Writable(id));
            }
        }
    }

    pub(super) fn drop_unread(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let before = stream.holding();
            while let Some(data) = stream.pop_unread() {
                stream.receive_window.consumed(data.len());
            }
            let after = stream.holding();
            self.budget.moved(before, after);
            self.grant(id);
        }
    }

    /// If a stream has ended on the wire, it no longer counts as open, and is removed if it has no handles.
    pub(super) fn forget_if_over(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_over()) else { return };
        let held = stream.held;
        if stream.ours && std::mem::replace(&mut stream.counted, false) {
            self.ours_live = self.ours_live.saturating_sub(1);
            if std::mem::take(&mut self.open_waits) {
                self.events.push_back(Event::CanOpen);
            }
        }
        if !held {
            self.remove(id);
        }
        self.end_if_left();
    }

    fn remove(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id) {
            if !stream.ours {
                self.theirs_live = self.theirs_live.saturating_sub(1);
            }
            self.budget.moved(stream.holding(), Holding::default());
        }
    }

    pub(super) fn survives_reset(&self, id: StreamId) -> bool {
        self.last_word.is_some_and(|word| word.id == id && word.despite_reset)
    }

    /// Notes that DATA arrived on a stream. It may be the peer's last word.
    pub(super) fn heard_on(&mut self, id: StreamId) {
        let Some(word) = self.last_word.as_mut().filter(|word| word.id == id) else { return };
        word.begun = true;
        if !self.windows {
            self.silence(StreamError::SessionEnded);
        }
    }

    /// Notes that the peer has ended a stream. With flow control the last word may arrive before the end of other
    /// streams, and these are still granted window.
    pub(super) fn heard_all_of(&mut self) {
        let ended = |word: LastWord| self.streams.get(&word.id).is_none_or(|stream| stream.end.is_some());
        if self.last_word.is_some_and(|word| word.begun && ended(word)) && !(self.windows && self.is_owed()) {
            self.silence(StreamError::SessionEnded);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::session::Config;
    use crate::wire::spdy::{Frame, Headers};

    #[test]
    fn a_goodbye_that_waits_is_not_given_up_for_a_question() {
        let now = Instant::now();
        let mut client = Connection::new(Role::Client, Config::default(), now);
        let id = client.open(Headers::new()).unwrap().unwrap();
        client.stop_sending_after(id, false);
        while client.poll_frame(now).is_some() {}
        client.receive(Frame::SynReply { id, fin: false, headers: Headers::new() }, now);
        client.receive(Frame::Data { id, fin: true, data: Bytes::from_static(b"{}") }, now);
        client.ask();
        assert_eq!(client.poll_frame(now), Some(Frame::Ping(1)));
        client.go_away();
        client.ask();
        let goodbye = Frame::GoAway { last_good: StreamId::SESSION, status: GoAwayStatus::OK };
        assert_eq!(client.poll_frame(now), Some(goodbye));
        client.ask();
        assert_eq!(client.poll_frame(now), None, "GOAWAY is the last frame");
    }
}
