//! Which message is sent next.
//!
//! This module owns the order: first answers, then the control frames of streams in the order in which they were
//! queued, then DATA by priority, in turn within each priority, and GOAWAY last. It also owns what is known about sent
//! bytes. It must not decide which answers or grants a peer gets.

use std::time::Instant;

use bytes::Bytes;

use super::connection::Connection;
use super::error::{ConnectionError, StreamError};
use super::event::Event;
use super::message::Message;
use super::phase::Phase;
use super::stream::{End, Sending};
use crate::wire::spdy::{Frame, RstStatus, StreamId};

impl Connection {
    /// Takes the next message to write, if there is one.
    ///
    /// Poll after every other call. Messages stay queued until they are polled. On a closed connection this returns the
    /// last GOAWAY, and then `None`.
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        let message = if self.is_silent() { self.last_message.take() } else { self.next_message() };
        if let Some(message) = &message {
            let asks = matches!(message, Message::Ping(id) if self.role.sends_ping(*id));
            self.clock.sent(now, message, asks);
            if let Message::Ping(id) = message
                && asks
            {
                self.path.sent(*id, now);
            }
        }
        message
    }

    /// As [`poll_message`](Self::poll_message), as a SPDY frame.
    pub fn poll_frame(&mut self, now: Instant) -> Option<Frame> {
        self.poll_message(now).map(Frame::from)
    }

    /// Whether [`poll_message`](Self::poll_message) would return an answer to the peer next.
    #[must_use]
    pub fn has_replies(&self) -> bool {
        !self.replies.is_empty() && !self.is_silent()
    }

    /// Whether [`poll_message`](Self::poll_message) may return a message.
    #[must_use]
    pub fn has_output(&self) -> bool {
        if self.is_silent() {
            return self.last_message.is_some();
        }
        let queued = !self.controls.is_empty() || self.ready.iter().any(|queue| !queue.is_empty());
        let due = self.grants_session();
        !self.replies.is_empty() || !self.is_closed() && (queued || due || matches!(self.phase, Phase::Closing))
    }

    /// A number that changes whenever something to send is added.
    pub(crate) fn output_added(&self) -> u64 {
        self.output_added
    }

    fn next_message(&mut self) -> Option<Message> {
        if let Some(message) = self.replies.pop_front() {
            return Some(message);
        }
        if self.is_closed() {
            return None;
        }
        if self.grants_session() {
            let delta = self.receive_window.grant();
            return Some(Message::Window { id: StreamId::SESSION, delta });
        }
        if let Some(message) = self.next_control() {
            return Some(message);
        }
        if let Some(message) = self.next_data() {
            return Some(message);
        }
        // `next_data` may have reset a stream whose remaining DATA the window does not allow.
        if let Some(message) = self.next_control() {
            return Some(message);
        }
        if matches!(self.phase, Phase::Closing) && !self.has_unsent() {
            if self.break_off_the_rest()
                && let Some(message) = self.next_control()
            {
                return Some(message);
            }
            // GOAWAY is the last message, because Go's peers read nothing after it.
            let goaway = Message::Goodbye { last_good: self.last_taken, status: self.goodbye };
            self.close(ConnectionError::Closed);
            return Some(goaway);
        }
        None
    }

    fn next_control(&mut self) -> Option<Message> {
        while let Some(&id) = self.controls.front() {
            if let Some(message) = self.stream_control(id) {
                return Some(message);
            }
            self.controls.pop_front();
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.control.scheduled = false;
            }
            self.forget_if_over(id);
        }
        None
    }

    fn stream_control(&mut self, id: StreamId) -> Option<Message> {
        let stream = self.streams.get_mut(&id)?;
        let control = &mut stream.control;
        if let Some(headers) = control.syn.take() {
            let priority = stream.priority;
            return Some(Message::Open { id, priority, fin: false, unidirectional: false, headers });
        }
        if let Some(headers) = control.reply.take() {
            return Some(Message::Answer { id, fin: false, headers });
        }
        if let Some(status) = control.reset.take() {
            return Some(Message::Reset { id, status });
        }
        if std::mem::take(&mut control.window_update) && stream.end.is_none() {
            let delta = stream.receive_window.grant();
            stream.control.window_update = delta > 0 && stream.receive_window.is_due();
            return (delta > 0).then_some(Message::Window { id, delta });
        }
        None
    }

    fn next_data(&mut self) -> Option<Message> {
        let session = if self.obeys_windows() { self.send_window.available() } else { usize::MAX };
        for priority in 0..self.ready.len() {
            let mut turns = self.ready.get(priority).map_or(0, std::collections::VecDeque::len);
            while turns > 0 {
                turns = turns.saturating_sub(1);
                let Some(id) = self.ready.get_mut(priority).and_then(|queue| queue.pop_front()) else { break };
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.scheduled = false;
                }
                if self.is_held_back(id) {
                    self.schedule(id);
                    continue;
                }
                if let Some(message) = self.stream_data(id, session) {
                    self.schedule(id);
                    return Some(message);
                }
                // If the stream's own window is closed, a WINDOW_UPDATE schedules the stream again. If the session's
                // window is closed, all streams stay scheduled.
                if session == 0 {
                    self.schedule(id);
                }
            }
        }
        None
    }

    /// Whether a stream has to wait for others that are not sent to their end yet.
    fn is_held_back(&self, id: StreamId) -> bool {
        let Some((held, others)) = &self.held_behind else { return false };
        *held == id && others.iter().any(|other| !self.is_sent(*other))
    }

    fn stream_data(&mut self, id: StreamId, session: usize) -> Option<Message> {
        let obeys_windows = self.obeys_windows();
        let stream = self.streams.get_mut(&id)?;
        if !stream.has_output() {
            return None;
        }
        if stream.unheard && !stream.unsent.is_empty() {
            self.reset_by_peer(id, RstStatus::INVALID_STREAM);
            return None;
        }
        let window = if obeys_windows { stream.send_window.available().min(session) } else { usize::MAX };
        let data = if stream.unsent.is_empty() {
            Bytes::new()
        } else if window == 0 {
            if let Sending::Breaking(status) = stream.sending
                && session > 0
            {
                self.reset(id, status);
            }
            return None;
        } else {
            stream.unsent.take(window.min(self.config.max_data_frame.clamp(1, 0xff_ffff)))
        };
        stream.has_sent |= !data.is_empty();
        stream.send_window.sent(data.len());
        self.send_window.sent(data.len());
        let fin = stream.sending == Sending::Finishing && stream.unsent.is_empty();
        if fin {
            stream.sending = Sending::Finished;
        }
        if let Sending::Breaking(status) = stream.sending
            && stream.unsent.is_empty()
        {
            self.reset(id, status);
            return Some(Message::Data { id, fin, data });
        }
        if stream.unsent.len() < self.config.send_buffer && std::mem::take(&mut stream.writer_waits) {
            self.events.push_back(Event::Writable(id));
        }
        if fin {
            self.events.push_back(Event::Sent(id));
            if self.streams.get(&id).is_some_and(|stream| stream.cancel_behind) {
                self.reset(id, RstStatus::CANCEL);
            }
            if self.streams.get(&id).is_some_and(|stream| stream.ends_with_ours) {
                self.on_fin(id);
            }
            self.forget_if_over(id);
        }
        Some(Message::Data { id, fin, data })
    }

    /// Whether the FIN of a stream, and so everything before it, has been taken for sending. Also true if this will
    /// never happen, because the stream was reset.
    #[must_use]
    pub fn is_sent(&self, id: StreamId) -> bool {
        let stream = self.streams.get(&id);
        stream.is_none_or(|stream| matches!(stream.sending, Sending::Finished | Sending::Dead)) || self.is_closed()
    }

    /// Whether the FIN of a stream, and so everything before it, has been taken for sending.
    pub(crate) fn was_sent(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.sending == Sending::Finished)
    }

    /// Whether all bytes of a stream have been taken for sending. Its FIN may still be queued.
    ///
    /// # Errors
    /// The reason why bytes were not taken for sending.
    pub(crate) fn was_taken(&self, id: StreamId) -> Result<(), StreamError> {
        let stream = self.streams.get(&id);
        if stream.is_some_and(|stream| stream.unsent.is_empty() && !stream.cut_short) {
            return Ok(());
        }
        Err(match (stream.and_then(|stream| stream.end), self.closed(), &self.silence) {
            (Some(End::Reset(status)), ..) => StreamError::Reset(status),
            (_, Some(error), _) => error,
            (.., Some(reason)) => reason.clone(),
            _ => StreamError::Finished,
        })
    }

    /// Whether a WINDOW_UPDATE for the session is due. It never precedes our SETTINGS, which a server sends only after
    /// the client's first frame.
    fn grants_session(&self) -> bool {
        self.windows && self.settings_sent && self.receive_window.is_due()
    }

    fn obeys_windows(&self) -> bool {
        self.windows || self.on_trial
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.streams.values().any(|stream| stream.has_output())
    }
}
