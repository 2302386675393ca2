//! One end of a SPDY connection without IO, for tests that read as transcripts of the frames that it gets and sends.
//!
//! Holds virtual time and builds frames. The tests say what is right.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kubestream::mux::{GoAwayStatus, Headers};
use kubestream::unstable::session::{Config, Connection, Event, ReadOutcome, Role, WriteOutcome};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Frame, SettingId, Settings};

pub use crate::frame::{data, fin, reply, rst, window_update};

pub fn config(set: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    set(&mut config);
    config
}

pub fn id(id: u32) -> StreamId {
    StreamId::new(id)
}

pub fn syn(stream: u32) -> Frame {
    opening(stream, false, false)
}

pub fn opening(stream: u32, fin: bool, unidirectional: bool) -> Frame {
    let headers = Headers::from_iter([("streamtype", "data")]);
    Frame::SynStream { id: id(stream), associated: id(0), priority: 0, slot: 0, fin, unidirectional, headers }
}

pub fn headers(stream: u32, fin: bool) -> Frame {
    Frame::Headers { id: id(stream), fin, headers: Headers::from_iter([("a", "b")]) }
}

pub fn initial_window(bytes: u32) -> Frame {
    Frame::Settings(Settings::single(SettingId::INITIAL_WINDOW_SIZE, bytes))
}

pub fn goaway(last_good: u32, status: GoAwayStatus) -> Frame {
    Frame::GoAway { last_good: id(last_good), status }
}

/// One end.
#[derive(Debug)]
pub struct End {
    pub connection: Connection,
    pub now: Instant,
}

impl End {
    pub fn new(role: Role, config: Config) -> Self {
        let now = Instant::now();
        Self { connection: Connection::new(role, config, now), now }
    }

    /// A client that has sent its first frames.
    pub fn client(config: Config) -> Self {
        let mut end = Self::new(Role::Client, config);
        end.says();
        end
    }

    pub fn server(config: Config) -> Self {
        Self::new(Role::Server, config)
    }

    pub fn gets(&mut self, frame: Frame) {
        self.connection.receive(frame, self.now);
    }

    pub fn gets_all(&mut self, frames: impl IntoIterator<Item = Frame>) {
        frames.into_iter().for_each(|frame| self.gets(frame));
    }

    /// Everything that it sends now.
    pub fn says(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.connection.poll_frame(self.now) {
            frames.push(frame);
        }
        frames
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.connection.poll_event()).collect()
    }

    /// Lets time pass, timer by timer. A timer that fires must not be due again at once, or a driver would spin.
    pub fn passes(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(timer) = self.connection.poll_timeout().filter(|timer| *timer <= until) {
            self.now = self.now.max(timer);
            self.connection.handle_timeout(self.now);
            assert!(self.connection.poll_timeout().is_none_or(|next| next > self.now), "a timer that stays due");
        }
        self.now = until;
        self.connection.handle_timeout(until);
    }

    /// Accepts a stream of the peer's with an empty reply.
    pub fn accepts(&mut self, stream: u32) {
        self.connection.take_headers(id(stream)).unwrap();
        self.connection.reply(id(stream), Headers::new()).unwrap();
    }

    pub fn opens(&mut self) -> u32 {
        self.connection.open(Headers::new()).unwrap().unwrap().get()
    }

    pub fn writes(&mut self, stream: u32, bytes: impl Into<Bytes>) {
        assert_eq!(self.connection.write(id(stream), bytes.into()).unwrap(), WriteOutcome::Queued);
    }

    pub fn finishes(&mut self, stream: u32) {
        self.connection.finish(id(stream));
    }

    /// All readable bytes, and what comes after them.
    pub fn reads(&mut self, stream: u32) -> (Vec<u8>, ReadOutcome) {
        let mut bytes = Vec::new();
        loop {
            match self.connection.read(id(stream)).unwrap() {
                ReadOutcome::Data(piece) => bytes.extend(piece),
                outcome => return (bytes, outcome),
            }
        }
    }

    /// The error with which it ended, as text.
    pub fn error(&self) -> Option<String> {
        self.connection.error().map(ToString::to_string)
    }

    /// Checks that it ended with this error, sent a GOAWAY, and sends nothing else.
    #[track_caller]
    pub fn ended_by(&mut self, error: &str, last_good: u32) {
        assert_eq!(self.error().as_deref(), Some(error));
        assert_eq!(self.says(), [goaway(last_good, GoAwayStatus::PROTOCOL_ERROR)]);
        self.gets(Frame::Ping(if self.connection.wants_read() { 1 } else { 2 }));
        assert_eq!(self.says(), []);
    }
}

/// Counts the bytes of DATA in the frames, over all streams.
pub fn carried(frames: &[Frame]) -> usize {
    frames.iter().map(|frame| if let Frame::Data { data, .. } = frame { data.len() } else { 0 }).sum()
}

/// Carries frames both ways until neither end has any. Returns the frames of each.
pub fn converse(a: &mut End, b: &mut End) -> (Vec<Frame>, Vec<Frame>) {
    let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
    loop {
        let (said_a, said_b) = (a.says(), b.says());
        if said_a.is_empty() && said_b.is_empty() {
            return (from_a, from_b);
        }
        b.gets_all(said_a.clone());
        a.gets_all(said_b.clone());
        from_a.extend(said_a);
        from_b.extend(said_b);
    }
}
