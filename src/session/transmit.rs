//! What goes out next.
//!
//! Owns the order: answers, then the control frames of streams in the order they were asked for, then DATA by priority
//! and in turn, then GOAWAY; and what is known of what has gone. It must not decide what is owed to whom.

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
    /// The next message to write, if there is one.
    ///
    /// Poll after every other call; messages that are not polled are not lost. Once the connection is closed this gives the
    /// last GOAWAY and then nothing.
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        let message = if self.is_silent() { self.last_message.take() } else { self.next_message() };
        if let Some(message) = &message {
            let asks = matches!(message, Message::Ping(id) if self.role.sends_ping(*id));
            self.clock.sent(now, message, asks);
        }
        message
    }

    /// The next message, as the frame that it is over SPDY.
    pub fn poll_frame(&mut self, now: Instant) -> Option<Frame> {
        self.poll_message(now).map(Frame::from)
    }

    /// Whether [`poll_message`](Self::poll_message) would first give answers the peer asked for.
    #[must_use]
    pub fn has_replies(&self) -> bool {
        !self.replies.is_empty() && !self.is_silent()
    }

    /// Whether [`poll_message`](Self::poll_message) may have something to give.
    #[must_use]
    pub fn has_output(&self) -> bool {
        if self.is_silent() {
            return self.last_message.is_some();
        }
        let queued = !self.controls.is_empty() || self.ready.iter().any(|queue| !queue.is_empty());
        let due = self.grants_session();
        !self.replies.is_empty() || !self.is_closed() && (queued || due || matches!(self.phase, Phase::Closing))
    }

    /// Changes whenever something to send was added.
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
        // A stream that was to break off behind its DATA, of which nothing could go.
        if let Some(message) = self.next_control() {
            return Some(message);
        }
        if matches!(self.phase, Phase::Closing) && !self.has_unsent() {
            if self.break_off_the_rest()
                && let Some(message) = self.next_control()
            {
                return Some(message);
            }
            // Go reads nothing after a GOAWAY: it is the last message there is.
            let goaway = Message::Goodbye { last_good: self.last_taken, status: self.farewell };
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
                // Its own window is closed: WINDOW_UPDATE schedules it again. The session's is everybody's.
                if session == 0 {
                    self.schedule(id);
                }
            }
        }
        None
    }

    /// Whether a stream waits for others that are not over yet.
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

    /// Whether the FIN of a stream, and so all before it, has been given to the transport; also where it never will be,
    /// because the stream was reset.
    #[must_use]
    pub fn is_sent(&self, id: StreamId) -> bool {
        let stream = self.streams.get(&id);
        stream.is_none_or(|stream| matches!(stream.sending, Sending::Finished | Sending::Dead)) || self.is_closed()
    }

    /// Whether the FIN of a stream, and so all before it, has been given to the transport.
    pub(crate) fn was_sent(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.sending == Sending::Finished)
    }

    /// Whether all that was written on a stream has been given to the transport, if not its FIN.
    ///
    /// # Errors
    /// Why it never will be, or has not been so far.
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

    /// Never before our SETTINGS: a server's come no sooner than the client's first frame.
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
