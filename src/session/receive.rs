//! How a connection handles the peer's messages.
//!
//! This module owns the rules for each received message, and the answers to messages that break a rule. It must not
//! choose when something is sent: it queues answers.

use std::time::Instant;

use bytes::Bytes;

use super::connection::Connection;
use super::error::ConnectionError;
use super::event::Event;
use super::flow::{DEFAULT_WINDOW, MIN_CHARGE};
use super::message::Message;
use super::phase::Phase;
use super::role::Role;
use super::stream::{End, Sending, Stream};
use crate::wire::FlowControl;
use crate::wire::spdy::Headers;
use crate::wire::spdy::{GoAwayStatus, RstStatus, SettingId, Settings, StreamId};

impl Connection {
    /// Handles a message from the peer. If the message breaks a rule of the connection, [`error`](Self::error) has the
    /// error, and the peer is told by GOAWAY.
    pub fn receive(&mut self, message: impl Into<Message>, now: Instant) {
        if self.is_closed() {
            return;
        }
        let message = message.into();
        self.clock.received(now);
        if let Err(error) = self.count_headers(&message, now) {
            return self.close(error);
        }
        self.note_pause(now);
        let first = self.on_trial;
        if self.config.spdy.flow_control == FlowControl::Strict {
            self.announce_window();
        }
        if let Err(error) = self.dispatch(message, now) {
            self.close(error);
        }
        if first {
            self.end_trial();
        }
        self.note_pause(now);
    }

    /// Counts the header bytes of all streams. A few bytes from the peer may have cost us much work, because they are
    /// inflated by now.
    fn count_headers(&mut self, message: &Message, now: Instant) -> Result<(), ConnectionError> {
        let Some(headers) = message.headers() else { return Ok(()) };
        let limits = &self.config.spdy;
        let more = u32::try_from(headers.block_len()).unwrap_or(u32::MAX);
        let counted = self.clock.header_bytes.add(more, now, limits.rate_window);
        if counted as usize > limits.max_header_bytes {
            let value = limits.max_header_bytes as u64;
            return Err(ConnectionError::LimitExceeded { limit: "max_header_bytes", value });
        }
        Ok(())
    }

    /// Notes that bytes came from the peer, which is alive. They need not be a whole frame.
    pub(crate) fn heard(&mut self, now: Instant) {
        if !self.is_closed() {
            self.clock.received(now);
        }
    }

    /// Ends the client's wait for the server's first frame: it has come, or the server has been silent too long to have
    /// flow control.
    pub(super) fn end_trial(&mut self) {
        self.on_trial = false;
        self.output_added = self.output_added.wrapping_add(1);
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            self.schedule(id);
        }
    }

    fn dispatch(&mut self, message: Message, now: Instant) -> Result<(), ConnectionError> {
        match message {
            Message::Data { id, fin, data } => self.on_data(id, fin, data, now),
            Message::Open { id, priority, fin, unidirectional, headers } => {
                self.on_open(id, priority, fin, unidirectional, headers)
            }
            Message::Answer { id, fin, headers } => self.on_answer(id, fin, headers),
            Message::Reset { id, status } => self.on_reset(id, status, now),
            Message::Headers { id, fin, headers } => self.on_headers(id, fin, &headers),
            Message::Window { id, delta } => self.on_window(id, delta),
            Message::Settings(settings) => self.on_settings(&settings, now),
            Message::Ping(id) => self.on_ping(id, now),
            Message::Goodbye { last_good, status } => {
                self.on_goodbye(last_good, status);
                Ok(())
            }
        }
    }

    fn on_open(
        &mut self,
        id: StreamId,
        priority: u8,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<(), ConnectionError> {
        if id == StreamId::SESSION || id.is_client() == (self.role == Role::Client) {
            return Err(ConnectionError::Protocol("SYN_STREAM with a stream id of the wrong side"));
        }
        if id <= self.last_taken {
            return Err(ConnectionError::Protocol("SYN_STREAM with a stream id that is not above all ids before it"));
        }
        self.last_taken = id;
        if headers.defect().is_some() {
            return self.answer_reset(id, RstStatus::PROTOCOL_ERROR);
        }
        // A stream that arrives after our GOAWAY was opened before the peer knew of it, so it is refused, not an error.
        if self.refuses || self.theirs_live >= self.config.spdy.max_streams || !matches!(self.phase, Phase::Open) {
            return self.answer_reset(id, RstStatus::REFUSED_STREAM);
        }
        self.theirs_live = self.theirs_live.saturating_add(1);
        let mut stream = Stream::new(id, false, self.peer_initial_window, self.initial_window());
        stream.priority = priority;
        stream.headers = Some(headers);
        if unidirectional {
            stream.sending = Sending::Finished;
        }
        self.streams.insert(id, Box::new(stream));
        self.events.push_back(Event::Incoming(id));
        if fin {
            self.end(id, End::Fin);
        }
        Ok(())
    }

    fn on_answer(&mut self, id: StreamId, fin: bool, headers: Headers) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return if self.existed(id) { Ok(()) } else { self.answer_reset(id, RstStatus::INVALID_STREAM) };
        };
        let broken = match (stream.ours, stream.answered, headers.defect()) {
            (false, ..) => Some(RstStatus::PROTOCOL_ERROR),
            (true, true, _) => Some(RstStatus::STREAM_IN_USE),
            (true, false, Some(_)) => Some(RstStatus::PROTOCOL_ERROR),
            (true, false, None) => None,
        };
        if let Some(status) = broken {
            self.fail_stream(id, status);
            return Ok(());
        }
        stream.answered = true;
        stream.headers = Some(headers);
        self.events.push_back(Event::Answered(id));
        if fin {
            self.on_fin(id);
        }
        Ok(())
    }

    fn on_headers(&mut self, id: StreamId, fin: bool, headers: &Headers) -> Result<(), ConnectionError> {
        // No program of Kubernetes sends or reads HEADERS. The codec has inflated the block, which keeps the
        // compression in step, and the content is ignored.
        if !self.streams.contains_key(&id) {
            return if self.existed(id) { Ok(()) } else { self.answer_reset(id, RstStatus::INVALID_STREAM) };
        }
        if headers.defect().is_some() {
            self.fail_stream(id, RstStatus::PROTOCOL_ERROR);
        } else if fin {
            self.on_fin(id);
        }
        Ok(())
    }

    fn on_data(&mut self, id: StreamId, fin: bool, data: Bytes, now: Instant) -> Result<(), ConnectionError> {
        let strict = self.config.spdy.flow_control == FlowControl::Strict;
        if !self.receive_window.received(data.len()) && strict {
            return Err(ConnectionError::Protocol("DATA beyond the session's window"));
        }
        self.receive_window.consumed(data.len());
        let (existed, initial) = (self.existed(id), self.initial_window());
        let Some(stream) = self.streams.get_mut(&id) else {
            return if existed { Ok(()) } else { self.on_stray(id, data.len()) };
        };
        // Before the peer knows our SETTINGS it may use the initial window of the draft.
        stream.receive_window.received(data.len());
        let over = stream.receive_window.overdrawn() > DEFAULT_WINDOW.saturating_sub(initial);
        if stream.end.is_some() || data.is_empty() || stream.discard {
            // Go's peers regularly send DATA after a reset. It is discarded without an answer.
            stream.receive_window.consumed(data.len());
            if stream.end.is_none() && !data.is_empty() {
                self.note_received(id, data.len(), now);
                self.note_read(id, data.len());
            }
            self.grant(id);
        } else if over && strict {
            self.fail_stream(id, RstStatus::FLOW_CONTROL_ERROR);
            return Ok(());
        } else {
            let (before, len) = (stream.holding(), data.len());
            stream.push_unread(data);
            let unsettled = !std::mem::replace(&mut stream.unsettled, true);
            let after = stream.holding();
            if std::mem::take(&mut stream.reader_waits) {
                self.events.push_back(Event::Readable(id));
            }
            self.budget.moved(before, after);
            if unsettled {
                // Before the list grows, streams that are gone are removed.
                if self.unsettled.len() == self.unsettled.capacity() {
                    self.unsettled.retain(|id| self.streams.contains_key(id));
                }
                self.unsettled.push(id);
            }
            self.note_received(id, len, now);
            self.heard_on(id);
        }
        if fin {
            self.on_fin(id);
        }
        Ok(())
    }

    /// Copies what is unread out of buffers of which it is a small part. The driver calls this after it has filled some
    /// buffers, so that a reader that keeps up gets most of its bytes without a copy.
    pub(crate) fn settle_unread(&mut self) {
        for id in self.unsettled.drain(..) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.settle_unread();
            }
        }
    }

    fn on_stray(&mut self, id: StreamId, len: usize) -> Result<(), ConnectionError> {
        if id == StreamId::SESSION {
            return Err(ConnectionError::Protocol("DATA on stream 0"));
        }
        self.stray_data = self.stray_data.saturating_add(len.max(MIN_CHARGE));
        let limit = self.config.spdy.max_stray_data;
        if self.stray_data > limit {
            return Err(ConnectionError::LimitExceeded { limit: "max_stray_data", value: limit as u64 });
        }
        Ok(())
    }

    pub(super) fn on_fin(&mut self, id: StreamId) {
        self.end(id, End::Fin);
        self.forget_if_over(id);
        self.heard_all_of();
    }

    fn on_reset(&mut self, id: StreamId, status: RstStatus, now: Instant) -> Result<(), ConnectionError> {
        let untaken = self.reset_by_peer(id, status);
        let limits = &self.config.spdy;
        if untaken && self.clock.unanswered_resets.count(now, limits.rate_window) > limits.max_unanswered_resets {
            let value = u64::from(limits.max_unanswered_resets);
            return Err(ConnectionError::LimitExceeded { limit: "max_unanswered_resets", value });
        }
        Ok(())
    }

    /// Ends a stream that the peer has reset. Returns whether the peer had opened it and `accept` had not returned it
    /// yet.
    pub(super) fn reset_by_peer(&mut self, id: StreamId, status: RstStatus) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        stream.control.reply = None;
        stream.control.window_update = false;
        stream.control.reset = None;
        let ours_unanswered = stream.ours && !stream.answered;
        // A stream that was not accepted yet leaves the backlog. These resets are limited by a rate, because nothing
        // else limits how often a peer opens and resets streams. An accepted stream counts against `max_streams` until
        // its handles are dropped, whether or not it is answered, so resets give the peer no more streams. They have no
        // rate: a client may often give up a connection while its port is still being dialled.
        let untaken = !stream.ours && !stream.answered && stream.headers.take().is_some();
        if untaken {
            stream.held = false;
        }
        if !self.survives_reset(id) {
            self.end(id, End::Reset(status));
        }
        self.kill(id);
        if ours_unanswered {
            self.events.push_back(Event::Answered(id));
        }
        if !self.streams.get(&id).is_some_and(|stream| stream.held) {
            self.drop_unread(id);
        }
        self.forget_if_over(id);
        self.heard_all_of();
        untaken
    }

    fn on_window(&mut self, id: StreamId, delta: u32) -> Result<(), ConnectionError> {
        self.peer_has_windows();
        if id == StreamId::SESSION {
            if delta == 0 || !self.send_window.update(delta) {
                return Err(ConnectionError::Protocol("a WINDOW_UPDATE of the session by 0, or beyond 2^31 - 1"));
            }
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if delta == 0 || !stream.send_window.update(delta) {
            self.fail_stream(id, RstStatus::FLOW_CONTROL_ERROR);
        } else {
            self.schedule(id);
        }
        Ok(())
    }

    fn on_settings(&mut self, settings: &Settings, now: Instant) -> Result<(), ConnectionError> {
        let limits = &self.config.spdy;
        if self.clock.settings_frames.count(now, limits.rate_window) > limits.max_settings_frames {
            let value = u64::from(limits.max_settings_frames);
            return Err(ConnectionError::LimitExceeded { limit: "max_settings_frames", value });
        }
        if let Some(max) = settings.get(SettingId::MAX_CONCURRENT_STREAMS) {
            self.peer_max_streams = max as usize;
            self.events.push_back(Event::CanOpen);
        }
        if let Some(window) = settings.get(SettingId::INITIAL_WINDOW_SIZE) {
            if window > StreamId::MAX.get() {
                return Err(ConnectionError::Protocol("an initial window of more than 2^31 - 1"));
            }
            let difference = i64::from(window).saturating_sub(i64::from(self.peer_initial_window));
            self.peer_initial_window = window;
            let mut valid = true;
            let ids: Vec<StreamId> = self.streams.keys().copied().collect();
            for id in ids {
                if let Some(stream) = self.streams.get_mut(&id) {
                    valid &= stream.send_window.shift(difference);
                    self.schedule(id);
                }
            }
            if !valid {
                return Err(ConnectionError::Protocol(
                    "an initial window that raises a stream's window beyond 2^31 - 1",
                ));
            }
            self.peer_has_windows();
        }
        Ok(())
    }

    /// Turns on flow control, since the peer has it: from here on its windows are obeyed, and it is granted the bytes
    /// that were read so far.
    fn peer_has_windows(&mut self) {
        if self.config.spdy.flow_control == FlowControl::Off || std::mem::replace(&mut self.windows, true) {
            return;
        }
        self.announce_window();
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            self.grant(id);
        }
    }

    fn on_ping(&mut self, id: u32, now: Instant) -> Result<(), ConnectionError> {
        if self.role.sends_ping(id) {
            self.clock.answered(id);
            if !self.note_answer(id, now) {
                self.events.push_back(Event::Pong(id));
            }
            return Ok(());
        }
        // If the answer to the same id is still queued, another one is not needed.
        if self.replies.iter().any(|queued| *queued == Message::Ping(id)) {
            return Ok(());
        }
        self.queue_answer(Message::Ping(id))
    }

    fn on_goodbye(&mut self, last_good: StreamId, status: GoAwayStatus) {
        self.gone_away = Some((last_good, status));
        self.events.push_back(Event::CanOpen);
        let untaken = |stream: &Stream| stream.ours && stream.id > last_good && !stream.answered;
        let streams = self.streams.values().filter(|stream| untaken(stream));
        let ids: Vec<StreamId> = streams.map(|stream| stream.id).collect();
        for id in ids {
            // Go's peers always send 0 here. But they have taken the streams that they answered, so only unanswered
            // streams are lost.
            self.end(id, End::Reset(RstStatus::REFUSED_STREAM));
            self.kill(id);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.control.syn = None;
            }
            self.events.push_back(Event::Answered(id));
            self.forget_if_over(id);
        }
        self.end_if_left();
    }

    /// Resets a stream on which the peer broke a rule.
    fn fail_stream(&mut self, id: StreamId, status: RstStatus) {
        let unanswered = self.streams.get(&id).is_some_and(|stream| stream.ours && !stream.answered);
        self.reset_as(id, status, End::Broken(status));
        if unanswered {
            self.events.push_back(Event::Answered(id));
        }
    }

    fn answer_reset(&mut self, id: StreamId, status: RstStatus) -> Result<(), ConnectionError> {
        self.queue_answer(Message::Reset { id, status })
    }

    /// Queues an answer. The connection fails if too many are queued: a peer that reads no answers may never read
    /// again.
    fn queue_answer(&mut self, answer: Message) -> Result<(), ConnectionError> {
        if self.is_silent() {
            return Ok(());
        }
        let limit = self.config.spdy.max_queued_replies;
        if self.replies.len() >= limit {
            return Err(ConnectionError::LimitExceeded { limit: "max_queued_replies", value: limit as u64 });
        }
        self.replies.push_back(answer);
        Ok(())
    }

    /// Whether a stream with this id has existed. Late frames for such a stream are no error.
    fn existed(&self, id: StreamId) -> bool {
        let ours = id.is_client() == (self.role == Role::Client);
        id != StreamId::SESSION && if ours { id.get() < self.next_id() } else { id <= self.last_taken }
    }
}
