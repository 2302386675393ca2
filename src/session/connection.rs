//! The state of a connection, for both roles (SPDY/3.1 §2.1–2.3, §2.6).
//!
//! This module owns the streams, their ids, and the operations on them. Other modules extend it:
//! [`receive`](super::receive) handles received messages, [`transmit`](super::transmit) chooses what is sent next,
//! [`timers`](super::timers) runs the timers, and [`ending`](super::ending) ends streams and the connection. No module
//! of these may contain IO, a clock or a waker: the caller supplies these.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::clock::Clock;
use super::config::Config;
use super::error::{ConnectionError, StreamError};
use super::event::{Event, ReadOutcome, WriteOutcome};
use super::flow::{Budget, DEFAULT_WINDOW, ReceiveWindow, SendWindow, session_window};
use super::given::Given;
use super::message::Message;
use super::path::Path;
use super::phase::{LastWord, Phase};
use super::role::Role;
use super::stream::{Control, End, Sending, Stream};
use super::table::ById;
use crate::wire::FlowControl;
use crate::wire::spdy::Headers;
use crate::wire::spdy::{GoAwayStatus, RstStatus, SettingId, Settings, StreamId};

/// A SPDY/3.1 connection without IO.
///
/// To drive it:
/// - Pass the peer's frames to [`receive`](Self::receive), while [`wants_read`](Self::wants_read) is true.
/// - Write the frames that [`poll_frame`](Self::poll_frame) returns.
/// - Act on the events that [`poll_event`](Self::poll_event) returns.
/// - Call [`handle_timeout`](Self::handle_timeout) when the time of [`poll_timeout`](Self::poll_timeout) has come.
///
/// Every other call can cause new frames, new events and a new timeout.
///
/// ```
/// use std::time::Instant;
/// use bytes::Bytes;
/// use kubestream::unstable::session::{Config, Connection, ReadOutcome, Role};
/// use kubestream::mux::Headers;
///
/// let now = Instant::now();
/// let mut client = Connection::new(Role::Client, Config::default(), now);
/// let mut server = Connection::new(Role::Server, Config::default(), now);
///
/// let id = client.open(Headers::from_iter([("streamtype", "stdin")])).unwrap().unwrap();
/// client.write(id, Bytes::from_static(b"hello")).unwrap();
/// while let Some(frame) = client.poll_frame(now) {
///     server.receive(frame, now);
/// }
/// assert_eq!(server.read(id).unwrap(), ReadOutcome::Data(Bytes::from_static(b"hello")));
/// ```
#[derive(Debug)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) config: Config,
    pub(super) phase: Phase,
    /// Each stream is boxed, so that an empty slot of the table takes little memory: a table for 10,000 streams can be
    /// half empty.
    pub(super) streams: ById<StreamId, Box<Stream>>,
    pub(super) events: VecDeque<Event>,
    /// The streams that got DATA since pieces were settled.
    pub(super) unsettled: Vec<StreamId>,

    next_id: u32,
    /// The highest stream id that the peer has opened.
    pub(super) last_taken: StreamId,
    /// How many streams of the peer are in the table. A stream that has ended on the wire counts until its handles are
    /// dropped: otherwise a peer could open and end streams faster than they are handled, without limit
    /// (CVE-2025-8671).
    pub(super) theirs_live: usize,
    /// How many streams of ours have not ended on the wire.
    pub(super) ours_live: usize,
    /// How many open streams the peer allows us.
    pub(super) peer_max_streams: usize,
    pub(super) open_waits: bool,
    /// Whether every further stream of the peer is refused.
    pub(super) refuses: bool,
    /// The peer's GOAWAY, if it has come: the last stream taken, and the status.
    pub(super) gone_away: Option<(StreamId, GoAwayStatus)>,

    /// Flow control is on: the peer has shown that it has windows, or the configuration demands it.
    pub(super) windows: bool,
    /// This client does not know yet whether the server has flow control, since the server has sent no frame. Until
    /// then the client sends no more than one window. A server with flow control could not hold more, and the
    /// WINDOW_UPDATEs that it needs from the client would be stuck behind the client's DATA.
    pub(super) on_trial: bool,
    pub(super) settings_sent: bool,
    pub(super) peer_initial_window: u32,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ReceiveWindow,
    pub(super) budget: Budget,
    pub(super) path: Path,
    pub(super) stray_data: usize,
    /// After which time an unread stream that holds up others is reset.
    pub(super) give_up_after: Option<Duration>,
    /// When the windows of idle streams were last lent to others.
    pub(super) lent_at: Option<Instant>,
    /// When a stream was last reset because it was unread.
    pub(super) given_up: Option<Instant>,

    /// Messages that belong to no stream in the table. They are sent before all others, and their number is limited.
    pub(super) replies: VecDeque<Message>,
    /// How often something to send was added. A driver that sleeps because its IO is blocked is woken only if this
    /// changes.
    pub(super) output_added: u64,
    /// Streams with control frames to send, in the order in which the frames were queued.
    pub(super) controls: VecDeque<StreamId>,
    /// Streams with DATA to send, by priority.
    pub(super) ready: [VecDeque<StreamId>; 8],
    /// The stream with the peer's last word. Once DATA has arrived on it, this end sends nothing more.
    pub(super) last_word: Option<LastWord>,
    /// The status of the GOAWAY at an orderly end.
    pub(super) goodbye: GoAwayStatus,
    /// Why this end sends nothing more, although it still reads from the peer. `None` while it sends messages.
    pub(super) silence: Option<StreamError>,
    /// A stream whose DATA is held back until the other streams have been sent to their end, and those streams.
    pub(super) held_behind: Option<(StreamId, Vec<StreamId>)>,
    /// A PING or GOAWAY that is still sent after this end has stopped sending everything else.
    pub(super) last_message: Option<Message>,

    pub(super) clock: Clock,
    next_ping: u32,
}

impl Connection {
    /// Creates a connection whose IO is ready for its first frame.
    #[must_use]
    pub fn new(role: Role, config: Config, now: Instant) -> Self {
        let config = Config { send_buffer: config.send_buffer.max(1), ..config };
        let mut connection = Self {
            role,
            phase: Phase::Open,
            streams: ById::default(),
            events: VecDeque::new(),
            unsettled: Vec::new(),
            next_id: if role == Role::Client { 1 } else { 2 },
            last_taken: StreamId::SESSION,
            theirs_live: 0,
            ours_live: 0,
            peer_max_streams: usize::MAX,
            open_waits: false,
            refuses: false,
            gone_away: None,
            windows: config.spdy.flow_control == FlowControl::Strict,
            on_trial: config.spdy.flow_control == FlowControl::Auto && role == Role::Client,
            settings_sent: false,
            peer_initial_window: DEFAULT_WINDOW,
            send_window: SendWindow::new(DEFAULT_WINDOW),
            receive_window: ReceiveWindow::new(DEFAULT_WINDOW, session_window(config.spdy.max_window_growth)),
            budget: Budget::new(config.stream_receive_budget, config.receive_budget),
            path: Path::default(),
            stray_data: 0,
            give_up_after: config.stream_stall_timeout,
            lent_at: None,
            given_up: None,
            replies: VecDeque::new(),
            output_added: 0,
            controls: VecDeque::new(),
            ready: Default::default(),
            last_word: None,
            goodbye: GoAwayStatus::OK,
            silence: None,
            held_behind: None,
            last_message: None,
            clock: Clock::new(now),
            next_ping: if role == Role::Client { 1 } else { 2 },
            config,
        };
        // A server sends nothing yet: Go's client loses bytes that arrive in one piece with the 101.
        if role == Role::Client {
            connection.announce_window();
        }
        connection
    }

    /// The role of this end.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Opens a stream. Its SYN_STREAM is queued, and DATA may be written at once.
    ///
    /// Returns `None` if the peer allows no more streams for now. [`Event::CanOpen`] tells when to try again.
    ///
    /// # Errors
    /// [`ConnectionError::InvalidHeader`], [`ConnectionError::IdsExhausted`], [`ConnectionError::GoneAway`], or the
    /// error that the connection ended with.
    pub fn open(&mut self, mut headers: Headers) -> Result<Option<StreamId>, ConnectionError> {
        self.open_with(&mut headers)
    }

    /// As [`open`](Self::open), but takes the headers only if it opens the stream.
    pub(crate) fn open_with(&mut self, headers: &mut Headers) -> Result<Option<StreamId>, ConnectionError> {
        self.check_open()?;
        if let Some(reason) = headers.unfit(&self.config.spdy) {
            return Err(ConnectionError::InvalidHeader(reason));
        }
        if self.next_id > StreamId::MAX.get() {
            return Err(ConnectionError::IdsExhausted);
        }
        if self.ours_live >= self.peer_max_streams {
            self.open_waits = true;
            return Ok(None);
        }
        let id = StreamId::new(self.next_id);
        self.next_id = self.next_id.saturating_add(2);
        self.ours_live = self.ours_live.saturating_add(1);
        let mut stream = Stream::new(id, true, self.peer_initial_window, self.initial_window());
        stream.control.syn = Some(std::mem::take(headers));
        self.streams.insert(id, Box::new(stream));
        self.schedule_control(id);
        Ok(Some(id))
    }

    /// Creates a stream that both ends have from the start, because the transport has a fixed set of streams. On a
    /// client it counts as opened by the client. On a server it is reported by [`Event::Incoming`].
    pub(crate) fn give(&mut self, given: Given) -> StreamId {
        let ours = self.role == Role::Client;
        let id = StreamId::new(if ours { self.next_id } else { self.last_taken.get().saturating_add(1) | 1 });
        let mut stream = Stream::new(id, ours, self.peer_initial_window, self.initial_window());
        stream.unheard = !given.heard;
        stream.ends_with_ours = given.ends_with_ours;
        if ours {
            self.next_id = self.next_id.saturating_add(2);
            self.ours_live = self.ours_live.saturating_add(1);
            stream.answered = given.answered;
        } else {
            self.last_taken = id;
            self.theirs_live = self.theirs_live.saturating_add(1);
            stream.headers = Some(given.headers);
            self.events.push_back(Event::Incoming(id));
        }
        self.streams.insert(id, Box::new(stream));
        id
    }

    /// Answers a stream that the peer opened. Do not write DATA before the answer: Go's peers drop it.
    ///
    /// # Errors
    /// [`ConnectionError::InvalidHeader`]. A stream that has ended in the meantime is no error.
    pub fn reply(&mut self, id: StreamId, headers: Headers) -> Result<(), ConnectionError> {
        if let Some(reason) = headers.unfit(&self.config.spdy) {
            return Err(ConnectionError::InvalidHeader(reason));
        }
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.ours && !stream.answered) {
            stream.answered = true;
            if stream.sending != Sending::Dead {
                stream.control.reply = Some(headers);
                self.schedule_control(id);
            }
        }
        Ok(())
    }

    /// Takes the headers of the peer's SYN_STREAM, or of its SYN_REPLY. A second call returns `None`.
    pub fn take_headers(&mut self, id: StreamId) -> Option<Headers> {
        self.streams.get_mut(&id)?.headers.take()
    }

    /// Whether the peer has answered a stream of ours. `None` while it has not.
    ///
    /// # Errors
    /// [`StreamError::Reset`] if the peer reset the stream without an answer, or the error that the connection ended
    /// with.
    pub fn answer(&self, id: StreamId) -> Option<Result<(), StreamError>> {
        let error = match self.streams.get(&id).map(Box::as_ref) {
            Some(stream) if stream.answered => return Some(Ok(())),
            Some(Stream { end: Some(End::Cancelled), .. }) => Some(StreamError::Finished),
            Some(stream) => stream.end.and_then(End::fault).or_else(|| self.closed()),
            None => self.closed().or(Some(StreamError::Finished)),
        };
        error.map(Err)
    }

    /// Takes the next bytes of a stream, in the pieces in which they arrived.
    ///
    /// # Errors
    /// The error that the stream or the connection ended with, after all bytes that arrived are read.
    pub fn read(&mut self, id: StreamId) -> Result<ReadOutcome, StreamError> {
        let closed = self.closed();
        let Some(stream) = self.streams.get_mut(&id) else {
            return closed.map_or(Ok(ReadOutcome::Finished), Err);
        };
        let before = stream.holding();
        if let Some(data) = stream.pop_unread() {
            stream.receive_window.consumed(data.len());
            let after = stream.holding();
            self.budget.moved(before, after);
            self.note_read(id, data.len());
            self.grant(id);
            if closed.is_some() && self.is_read_out(id) {
                self.events.push_back(Event::Ended(id));
            }
            return Ok(ReadOutcome::Data(data));
        }
        match (stream.end, closed) {
            (Some(End::Fin), _) => Ok(ReadOutcome::Finished),
            (Some(End::Reset(status)), _) => Ok(ReadOutcome::Reset(status)),
            (None | Some(End::WithConnection), Some(error)) => Err(error),
            (Some(end), _) => Err(end.fault().unwrap_or(StreamError::Finished)),
            (None, None) => {
                self.begins_to_wait(id);
                Ok(ReadOutcome::Blocked)
            }
        }
    }

    /// Whether bytes may still be written on the stream, either now or once there is room.
    #[must_use]
    pub fn is_writable(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.sending == Sending::Open) && !self.is_closed()
    }

    /// Queues bytes to be sent: all of them, or none if the send buffer is full.
    ///
    /// # Errors
    /// [`StreamError::Finished`] after [`finish`](Self::finish) or [`reset`](Self::reset), [`StreamError::Reset`] after
    /// a reset by the peer, [`StreamError::SessionEnded`] after the peer's last word (in a session, its status), or the
    /// error that the connection ended with.
    pub fn write(&mut self, id: StreamId, data: Bytes) -> Result<WriteOutcome, StreamError> {
        self.write_within(self.config.send_buffer, id, data)
    }

    fn write_within(&mut self, room: usize, id: StreamId, data: Bytes) -> Result<WriteOutcome, StreamError> {
        let Some(stream) = self.writable(id, room)? else { return Ok(WriteOutcome::Blocked) };
        if !data.is_empty() {
            stream.unsent.push(data);
            self.schedule(id);
        }
        Ok(WriteOutcome::Queued)
    }

    /// As [`write`](Self::write), but takes the bytes even if the send buffer is full. It is for a caller that has
    /// already been told that there is room.
    pub(crate) fn write_over(&mut self, id: StreamId, data: Bytes) -> Result<(), StreamError> {
        self.write_within(usize::MAX, id, data).map(|_| ())
    }

    /// Queues a copy of as many bytes as there is room for. Small writes are joined. Returns `None` if there is no
    /// room, and [`Event::Writable`] tells when to try again.
    ///
    /// # Errors
    /// The same as [`write`](Self::write).
    pub fn write_slice(&mut self, id: StreamId, data: &[u8]) -> Result<Option<usize>, StreamError> {
        let room = self.config.send_buffer;
        let Some(stream) = self.writable(id, room)? else { return Ok(None) };
        let room = room.saturating_sub(stream.unsent.len());
        let taken = data.get(..room).unwrap_or(data);
        stream.unsent.extend_from_slice(taken);
        let taken = taken.len();
        if taken > 0 {
            self.schedule(id);
        }
        Ok(Some(taken))
    }

    /// Whether all bytes that were written on the stream have been taken for sending. If not, [`Event::Writable`] tells
    /// when to ask again.
    ///
    /// # Errors
    /// The same as [`write`](Self::write), but a finished stream is no error.
    pub fn is_flushed(&mut self, id: StreamId) -> Result<bool, StreamError> {
        let closed = self.closed();
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(true) };
        if stream.cut_short {
            return Err(stream.end.and_then(End::fault).or(closed).unwrap_or(StreamError::Finished));
        }
        if stream.unsent.is_empty() {
            return Ok(true);
        }
        match closed {
            Some(error) => Err(error),
            None => {
                stream.writer_waits = true;
                Ok(false)
            }
        }
    }

    /// Holds back the DATA of a stream until the `others` have been sent to their end. This works for one stream at a
    /// time.
    pub(crate) fn hold_behind(&mut self, id: StreamId, others: Vec<StreamId>) {
        self.held_behind = Some((id, others));
    }

    /// Half-closes: FIN is sent after all queued bytes. A second call does nothing.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.sending == Sending::Open
        {
            stream.sending = Sending::Finishing;
            self.schedule(id);
        }
    }

    /// Ends a stream in both directions, like [`reset`](Self::reset), but sends the queued bytes first, as many as the
    /// peer's window allows. The rest is dropped, since the peer does not read.
    pub(crate) fn reset_behind(&mut self, id: StreamId, status: RstStatus) {
        self.discard(id);
        match self.streams.get_mut(&id) {
            Some(stream) if stream.sending == Sending::Open && !stream.unsent.is_empty() => {
                stream.sending = Sending::Breaking(status);
                self.schedule(id);
            }
            _ => self.reset(id, status),
        }
    }

    /// Sets a stream's priority among those that have DATA to send, from 0 (first) to 7 (last). The default is 0, as in
    /// Kubernetes.
    pub fn set_priority(&mut self, id: StreamId, priority: u8) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.priority = priority.min(7);
        }
    }

    /// Queues a PING and returns its id. [`Event::Pong`] has the same id.
    ///
    /// # Errors
    /// The error that the connection ended with.
    pub fn ping(&mut self) -> Result<u32, ConnectionError> {
        self.check_open()?;
        Ok(self.queue_ping())
    }

    /// Refuses every further stream that the peer opens.
    pub fn refuse_streams(&mut self) {
        self.refuses = true;
    }

    /// Whether [`poll_event`](Self::poll_event) would return an event.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Takes the oldest event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether the peer's bytes should be read. `false` while unread bytes exceed the budget, and after a failure.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        !self.budget.is_spent()
            && !matches!(&self.phase, Phase::Closed(error) if !matches!(error, ConnectionError::Closed))
    }

    /// Whether a stream is in the table.
    #[must_use]
    pub fn knows(&self, id: StreamId) -> bool {
        self.streams.contains_key(&id)
    }

    /// How many streams are in the table.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Unread bytes of all streams. Each piece counts as at least 256.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.budget.held()
    }

    /// The stream with the most unread bytes, while reading is paused because unread bytes exceed the budget. `None`
    /// otherwise.
    #[must_use]
    pub fn stalled_by(&self) -> Option<StreamId> {
        self.budget.is_spent().then(|| self.fullest()).flatten()
    }

    /// Frees the buffers of idle streams.
    pub fn trim(&mut self) {
        for stream in self.streams.values_mut() {
            stream.unsent.release();
            if stream.unread.is_empty() {
                stream.unread = VecDeque::new();
            }
        }
        self.streams.shrink_to_fit();
        self.events.shrink_to_fit();
        self.settle_unread();
        self.unsettled = Vec::new();
        self.replies.shrink_to_fit();
        self.controls.shrink_to_fit();
        self.ready.iter_mut().for_each(VecDeque::shrink_to_fit);
    }

    pub(super) fn fullest(&self) -> Option<StreamId> {
        let fullness = |stream: &Stream| (self.budget.beyond_share(stream.holding()), stream.charged);
        self.streams.values().max_by_key(|stream| fullness(stream)).map(|stream| stream.id)
    }

    /// The stream, if it may be written to and has room.
    fn writable(&mut self, id: StreamId, room: usize) -> Result<Option<&mut Stream>, StreamError> {
        if let Some(error) = self.closed() {
            return Err(error);
        }
        if let Some(reason) = &self.silence {
            return Err(reason.clone());
        }
        let stream = self.streams.get_mut(&id).ok_or(StreamError::Finished)?;
        match (stream.sending, stream.end) {
            (Sending::Open, _) => {}
            (Sending::Dead, end) => return Err(end.and_then(End::fault).unwrap_or(StreamError::Finished)),
            _ => return Err(StreamError::Finished),
        }
        if stream.unsent.len() >= room {
            stream.writer_waits = true;
            return Ok(None);
        }
        Ok(Some(stream))
    }

    /// Puts a stream into the queue of those that have DATA to send.
    pub(super) fn schedule(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.scheduled
            && stream.has_output()
        {
            stream.scheduled = true;
            self.output_added = self.output_added.wrapping_add(1);
            if let Some(queue) = self.ready.get_mut(usize::from(stream.priority)) {
                queue.push_back(id);
            }
        }
    }

    pub(super) fn schedule_control(&mut self, id: StreamId) {
        let silent = self.is_silent();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if silent {
            // Frames that are never sent would keep the stream from ever being over.
            stream.control = Control::default();
        } else if !std::mem::replace(&mut stream.control.scheduled, true) {
            self.output_added = self.output_added.wrapping_add(1);
            self.controls.push_back(id);
        }
    }

    pub(super) fn queue_ping(&mut self) -> u32 {
        let id = self.take_ping_id();
        self.replies.push_back(Message::Ping(id));
        id
    }

    /// Takes the id for a PING that will be sent.
    pub(super) fn take_ping_id(&mut self) -> u32 {
        let id = self.next_ping;
        // After 2^32 the ids start again, with the same parity.
        self.next_ping = self.next_ping.wrapping_add(2);
        self.output_added = self.output_added.wrapping_add(1);
        id
    }

    pub(super) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// The receive window that streams start with.
    pub(super) fn initial_window(&self) -> u32 {
        // With a window of 0 no stream would ever receive a byte.
        u32::try_from(self.config.stream_receive_budget).unwrap_or(u32::MAX).clamp(1, StreamId::MAX.get())
    }

    pub(super) fn announce_window(&mut self) {
        if self.config.spdy.flow_control != FlowControl::Off && !std::mem::replace(&mut self.settings_sent, true) {
            let settings = Settings::single(SettingId::INITIAL_WINDOW_SIZE, self.initial_window());
            self.replies.push_back(Message::Settings(settings));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 17 of docs/security.md.
    #[test]
    fn ids_that_are_used_up_open_no_more_streams_and_begin_at_none_again() {
        for (role, last) in [(Role::Client, StreamId::MAX.get()), (Role::Server, StreamId::MAX.get() - 1)] {
            let now = Instant::now();
            let mut end = Connection::new(role, Config::default(), now);
            end.next_id = last;
            assert_eq!(end.open(Headers::new()).unwrap().unwrap().get(), last);
            for _ in 0..3 {
                assert!(matches!(end.open(Headers::new()), Err(ConnectionError::IdsExhausted)));
            }
            assert_eq!((end.stream_count(), end.error().is_none()), (1, true), "existing streams go on");
        }
    }
}
