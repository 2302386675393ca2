//! How streams and the connection end, and what is left of them then.
//!
//! Owns the phases of a connection, resets, and the forgetting. It must not choose what is sent: endings are queued like
//! anything else.

use std::collections::VecDeque;

use super::connection::Connection;
use super::error::{ConnectionError, StreamError};
use super::event::Event;
use super::message::Message;
use super::phase::{LastWord, Phase};
use super::role::Role;
use super::stream::{End, Sending};
use crate::wire::spdy::{GoAwayStatus, RstStatus, StreamId};

impl Connection {
    /// Ends a stream in both directions at once; what is queued or unread is dropped. Nothing is sent for a stream that
    /// is over already.
    pub fn reset(&mut self, id: StreamId, status: RstStatus) {
        self.reset_as(id, status, End::Cancelled);
    }

    pub(super) fn reset_as(&mut self, id: StreamId, status: RstStatus, end: End) {
        self.discard(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.end.is_some() && matches!(stream.sending, Sending::Finished | Sending::Dead) {
            return;
        }
        // An answer that waits goes first: taken and ended is not refused.
        stream.control.window_update = false;
        stream.control.reset = Some(status);
        self.schedule_control(id);
        self.end(id, end);
        self.kill(id);
        self.forget_if_over(id);
    }

    /// Ends a stream that was finished, once its FIN is out: what is queued before it still goes, and the peer hears that
    /// nobody reads on.
    pub(crate) fn cancel_behind(&mut self, id: StreamId) {
        self.discard(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.sending {
            Sending::Finishing => stream.cancel_behind = true,
            Sending::Finished => self.reset(id, RstStatus::CANCEL),
            Sending::Open | Sending::Breaking(_) | Sending::Dead => {}
        }
    }

    /// Reads no more of a stream: what is unread is dropped and what comes is discarded, while its budget and window are
    /// given back. The peer is not told: Go's servers do not listen.
    pub fn discard(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.discard = true;
            self.drop_unread(id);
            if self.is_closed() {
                self.events.push_back(Event::Ended(id));
            }
        }
    }

    /// Nobody will call for this stream again: what comes is discarded, and it is forgotten once it is over on the wire.
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

    /// DATA on this stream is the peer's last word, as the status of a command is: from then on nothing is sent any
    /// more, because a Go server that closes its socket with bytes of ours unread takes the end of its own output with
    /// it. What waits to be sent is dropped. A peer that has windows, which is none of Go's, is granted more of them until its word
    /// has ended.
    ///
    /// `despite_reset`: a reset of the stream does not end it. Servers of the first exec protocol reset their error
    /// stream as soon as it is made, and send the error on it all the same.
    pub fn hush_after(&mut self, id: StreamId, despite_reset: bool) {
        let known = self.last_word.filter(|word| word.id == id);
        let fresh = LastWord { id, despite_reset, is_last: false, begun: false };
        self.last_word = Some(LastWord { despite_reset, ..known.unwrap_or(fresh) });
    }

    /// The last word on this stream comes behind all else that the peer says, because the carrier keeps the order: once it is
    /// there, nothing is missing however the connection ends.
    pub(crate) fn hush_after_all(&mut self, id: StreamId) {
        self.last_word = Some(LastWord { id, despite_reset: false, is_last: true, begun: false });
    }

    /// Sends nothing more, for `reason`, which writers get; what the peer still sends is read to its end. For a last word
    /// that only the session above can tell, and for an IO that takes no more bytes.
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

    /// Whether nothing is sent any more.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silence.is_some()
    }

    /// Whether that is because the peer has said its last word: however it ends, nothing that matters is missing.
    pub(crate) fn is_hushed(&self) -> bool {
        matches!(self.silence, Some(StreamError::Hushed))
    }

    /// The orderly end that comes is none to who waits for a result: GOAWAY will say INTERNAL_ERROR.
    pub(crate) fn abandon(&mut self) {
        self.farewell = GoAwayStatus::INTERNAL_ERROR;
    }

    /// The end that comes is one after all: GOAWAY will say OK.
    pub(crate) fn keep_promise(&mut self) {
        self.farewell = GoAwayStatus::OK;
    }

    /// Closes in good order: no new streams, all that is queued goes out, GOAWAY last.
    pub fn go_away(&mut self) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing;
            self.events.push_back(Event::CanOpen);
            if self.is_silent() {
                self.close(ConnectionError::Closed);
            }
        }
    }

    /// Resets the streams that a server leaves unfinished: its client hears that nothing more comes, ends them too, and then the
    /// connection. What came on them may still be read. Whether there were any.
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
            // CANCEL is how Go's servers end what is whole.
            stream.control.reset = Some(if taken { RstStatus::INTERNAL_ERROR } else { RstStatus::REFUSED_STREAM });
            self.kill(*id);
            self.schedule_control(*id);
        }
        !ids.is_empty()
    }

    /// What the connection ended with: [`ConnectionError::Closed`] after an orderly end.
    #[must_use]
    pub fn error(&self) -> Option<&ConnectionError> {
        match &self.phase {
            Phase::Closed(error) => Some(error),
            Phase::Open | Phase::Closing => None,
        }
    }

    /// Whether the connection takes and gives nothing more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.error().is_some()
    }

    /// Whether [`go_away`](Self::go_away) was called and what was queued is not all out yet.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing)
    }

    /// Whether the peer has said GOAWAY.
    #[must_use]
    pub fn is_going_away(&self) -> bool {
        self.gone_away.is_some()
    }

    /// The connection is over. An error that the peer caused is told to it by GOAWAY, and nothing else is sent.
    pub(crate) fn close(&mut self, error: ConnectionError) {
        if self.is_closed() {
            return;
        }
        let failed = !matches!(error, ConnectionError::Closed);
        if failed {
            self.replies.clear();
            let tell = match error {
                ConnectionError::Codec(_) | ConnectionError::Protocol(_) | ConnectionError::LimitExceeded { .. } => {
                    Some(GoAwayStatus::PROTOCOL_ERROR)
                }
                ConnectionError::WebSocket(_) | ConnectionError::Channel(_) => Some(GoAwayStatus::PROTOCOL_ERROR),
                // A Close wants one in answer (RFC 6455 §5.5.1).
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
        // One that has fallen silent, and leaves with all that mattered, still says goodbye.
        let leaves = self.is_hushed() && !failed && self.role == Role::Client;
        self.last_message = leaves.then_some(Message::Goodbye { last_good: self.last_taken, status: GoAwayStatus::OK });
        self.events.push_back(Event::Closed);
    }

    /// The peer has said its last in good order, and waits for our last word: it gets it at once, since it reads no more.
    pub(crate) fn answer_farewell(&mut self) {
        if self.is_closed() {
            return;
        }
        self.gone_away.get_or_insert((self.last_taken, GoAwayStatus::OK));
        self.end_here();
    }

    /// All is said: GOAWAY goes next, whatever is queued.
    pub(crate) fn end_here(&mut self) {
        if self.is_closed() {
            return;
        }
        self.close(ConnectionError::Closed);
        self.replies.clear();
        self.replies.push_back(Message::Goodbye { last_good: self.last_taken, status: GoAwayStatus::OK });
    }

    /// The IO has no more bytes. `between_frames`: they did not end in the middle of one.
    pub(crate) fn end_of_input(&mut self, between_frames: bool) {
        self.close(match self.gone_away {
            _ if !between_frames => ConnectionError::Lost,
            _ if self.lacks_nothing() => ConnectionError::Closed,
            Some((last_good, status)) => ConnectionError::GoneAway { last_good: last_good.get(), status },
            None => ConnectionError::Lost,
        });
    }

    /// The IO failed. A peer that had said goodbye before, or all that mattered, has lost nothing on the way.
    pub(crate) fn lost(&mut self, error: ConnectionError) {
        self.close(if self.lacks_nothing() { ConnectionError::Closed } else { error });
    }

    /// Whether the peer has said goodbye, or all that mattered: an end that comes now takes nothing.
    fn lacks_nothing(&self) -> bool {
        match self.gone_away {
            Some((_, status)) => status == GoAwayStatus::OK,
            None => self.is_hushed() && !self.is_owed(),
        }
    }

    /// Whether all that the peer has to say came before what it has said.
    pub(super) fn has_last_word(&self) -> bool {
        self.last_word.is_some_and(|word| word.is_last && word.begun)
    }

    /// Whether a goodbye that is none, as `error` may be, changes nothing: all that mattered was said before.
    pub(crate) fn has_all_but(&self, error: &ConnectionError) -> bool {
        let is_close = matches!(error, ConnectionError::PeerClosed { .. });
        is_close && self.is_hushed() && (error.is_farewell() || !self.is_owed())
    }

    /// Whether somebody waits for the end of a stream that has not come.
    fn is_owed(&self) -> bool {
        if self.has_last_word() {
            return false;
        }
        self.streams.values().any(|stream| stream.held && !stream.discard && stream.end.is_none())
    }

    /// A client whose server has said goodbye, and which has nothing left to say or to hear, ends the connection: the server waits for
    /// that.
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

    /// Nothing more comes on the stream. The first end counts.
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
        }
    }

    /// Our direction is over, by a reset: what is queued is dropped and the writer told.
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
            let before = stream.charged;
            while let Some(data) = stream.pop_unread() {
                stream.receive_window.consumed(data.len());
            }
            self.budget.moved(before, 0);
            self.grant(id);
        }
    }

    /// Stops counting a stream that is over on the wire, and forgets it if nobody holds it.
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
            let grown = stream.receive_window.target().saturating_sub(self.initial_window()) as usize;
            self.window_growth = self.window_growth.saturating_sub(grown);
        }
    }

    pub(super) fn survives_reset(&self, id: StreamId) -> bool {
        self.last_word.is_some_and(|word| word.id == id && word.despite_reset)
    }

    /// DATA came on a stream.
    pub(super) fn heard_on(&mut self, id: StreamId) {
        let Some(word) = self.last_word.as_mut().filter(|word| word.id == id) else { return };
        word.begun = true;
        if !self.windows {
            self.silence(StreamError::Hushed);
        }
    }

    /// The peer has ended a stream. Its last word may have overtaken others, which a peer that has windows is still granted.
    pub(super) fn heard_all_of(&mut self) {
        let ended = |word: LastWord| self.streams.get(&word.id).is_none_or(|stream| stream.end.is_some());
        if self.last_word.is_some_and(|word| word.begun && ended(word)) && !(self.windows && self.is_owed()) {
            self.silence(StreamError::Hushed);
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
        client.hush_after(id, false);
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
        assert_eq!(client.poll_frame(now), None, "it is the last");
    }
}
