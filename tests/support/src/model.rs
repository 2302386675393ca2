//! A model of two SPDY connections, their users, the bytes between them, and time: what must hold whatever happens.
//!
//! Checks that bytes come in order, each once and all of them; that an end comes only after the last byte; that budgets
//! are kept, and windows grow only for what was read; that no waiting task is forgotten; and that at the end nothing is
//! left. The operations are chosen elsewhere: by quickcheck in `tests/spdy_model.rs`, and by the fuzz target `pair`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kubestream::mux::FlowControl;
use kubestream::mux::{Headers, RstStatus};
use kubestream::unstable::session::{Config, Connection, Event, ReadOutcome, Role, WriteOutcome};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame, Setting, SettingId, Settings};
use kubestream::{ConnectionError, StreamError};
use tokio_util::codec::{Decoder, Encoder};

#[derive(Clone, Debug)]
pub struct Setup {
    pub client: Config,
    pub server: Config,
    pub operations: Vec<Operation>,
}

impl Setup {
    /// An end that requires windows from the first byte only works with an end that keeps to them from the first byte.
    pub fn new(mut client: Config, mut server: Config, operations: Vec<Operation>) -> Self {
        if [client.spdy.flow_control, server.spdy.flow_control].contains(&FlowControl::Strict) {
            (client.spdy.flow_control, server.spdy.flow_control) = (FlowControl::Strict, FlowControl::Strict);
        }
        Self { client, server, operations }
    }

    /// Runs all of it to an end, at which nothing may be left.
    pub fn run(&self) {
        let mut world = World::new(self);
        for operation in &self.operations {
            world.act(operation);
        }
        world.end();
    }
}

/// An action of the user, the network or time at one end. A stream is named by its position among those that are held.
#[derive(Clone, Debug)]
pub enum Operation {
    Open { server: bool },
    Accept { server: bool },
    Refuse { server: bool },
    Write { server: bool, stream: u8, len: u32 },
    WriteSlice { server: bool, stream: u8, len: u32 },
    Read { server: bool, stream: u8, pieces: u8 },
    Finish { server: bool, stream: u8 },
    Reset { server: bool, stream: u8 },
    Discard { server: bool, stream: u8 },
    Release { server: bool, stream: u8 },
    Prioritise { server: bool, stream: u8, priority: u8 },
    Ping { server: bool },
    AllowStreams { server: bool, max: u8 },
    GoAway { server: bool },
    Send { server: bool, frames: u8 },
    Deliver { server: bool, bytes: u16 },
    Pass { milliseconds: u16 },
    Trim { server: bool },
}

/// The byte at a position of what one side writes on a stream.
fn byte(stream: StreamId, server: bool, at: usize) -> u8 {
    let seed = stream.get().wrapping_mul(0x9e37_79b9) ^ u32::from(server);
    let mixed = (u32::try_from(at).unwrap() ^ seed).wrapping_mul(0x85eb_ca6b);
    u8::try_from(mixed >> 24).unwrap()
}

/// One direction of a stream, as its two users saw it.
#[derive(Debug, Default)]
struct Course {
    written: usize,
    finished: bool,
    read: usize,
    end_seen: bool,
    /// A side gave the direction up, so not all bytes need arrive.
    void: bool,
    /// A server that went away broke it off after all that was written.
    broken_off: bool,
}

struct Side {
    server: bool,
    connection: Connection,
    codec: Codec,
    config: Config,
    /// Bytes on their way to the other side.
    wire: BytesMut,
    /// Bytes that have arrived and are not decoded yet.
    input: BytesMut,
    incoming: VecDeque<StreamId>,
    held: Vec<StreamId>,
    readers: HashSet<StreamId>,
    writers: HashSet<StreamId>,
    opener: bool,
    pings: HashSet<u32>,
    /// How many bytes it has granted on each stream, beyond the window that the stream started with.
    granted: HashMap<StreamId, usize>,
}

impl Side {
    fn new(role: Role, config: Config, now: Instant) -> Self {
        Self {
            server: role == Role::Server,
            connection: Connection::new(role, config.clone(), now),
            codec: Codec::new(config.spdy.clone()),
            config,
            wire: BytesMut::new(),
            input: BytesMut::new(),
            incoming: VecDeque::new(),
            held: Vec::new(),
            readers: HashSet::new(),
            writers: HashSet::new(),
            opener: false,
            pings: HashSet::new(),
            granted: HashMap::new(),
        }
    }

    fn pick(&self, stream: u8) -> Option<StreamId> {
        let place = usize::from(stream).checked_rem(self.held.len())?;
        self.held.get(place).copied()
    }

    fn hear(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Incoming(id) => self.incoming.push_back(id),
                Event::Readable(id) => drop(self.readers.remove(&id)),
                Event::Writable(id) => drop(self.writers.remove(&id)),
                Event::CanOpen => self.opener = false,
                Event::Pong(id) => assert!(self.pings.remove(&id), "an echo of no PING"),
                Event::Closed => {
                    self.readers.clear();
                    self.writers.clear();
                    self.opener = false;
                }
                Event::Answered(_) | Event::Ended(_) | Event::Sent(_) => {}
                other => panic!("an event the model does not know: {other:?}"),
            }
        }
    }

    fn send(&mut self, frames: usize, now: Instant) -> bool {
        for sent in 0..frames {
            let promised = self.connection.has_output();
            let polled = self.connection.poll_frame(now);
            self.hear();
            let Some(frame) = polled else { return sent > 0 };
            assert!(promised, "has_output returned false before {frame:?}");
            if let Frame::WindowUpdate { id, delta } = &frame {
                assert!(*delta > 0, "a WINDOW_UPDATE of 0 is an error");
                *self.granted.entry(*id).or_default() += usize::try_from(*delta).unwrap();
            }
            self.codec.encode(frame, &mut self.wire).unwrap();
        }
        frames > 0
    }

    /// Reads and decodes as a driver does: nothing while the budget is used up, otherwise all that has come.
    fn receive(&mut self, bytes: BytesMut, now: Instant) {
        assert!(self.connection.wants_read());
        self.input.extend_from_slice(&bytes);
        let mut batch = 0;
        while let Some(frame) = self.codec.decode(&mut self.input).unwrap() {
            if let Frame::Data { data, .. } = &frame
                && !data.is_empty()
            {
                batch += data.len().max(256);
            }
            self.connection.receive(frame, now);
        }
        let shares = self.connection.stream_count() * self.config.stream_receive_budget;
        let unread = self.connection.unread();
        // Small pieces count as larger than they are.
        let windows = self.config.spdy.max_window_growth * 2;
        assert!(unread <= self.config.receive_budget + shares + windows + batch, "{unread} unread bytes");
        self.hear();
    }
}

struct World {
    client: Side,
    server: Side,
    courses: HashMap<(StreamId, bool), Course>,
    now: Instant,
    /// A side went away before the end, or a timeout ended the connection.
    cut_short: bool,
    /// The server goes away.
    server_goes: bool,
}

impl World {
    fn new(setup: &Setup) -> Self {
        let now = Instant::now();
        Self {
            client: Side::new(Role::Client, setup.client.clone(), now),
            server: Side::new(Role::Server, setup.server.clone(), now),
            courses: HashMap::new(),
            now,
            cut_short: false,
            server_goes: false,
        }
    }

    fn side(&mut self, server: bool) -> &mut Side {
        if server { &mut self.server } else { &mut self.client }
    }

    /// What a side writes on a stream.
    fn course(&mut self, stream: StreamId, writer: bool) -> &mut Course {
        self.courses.entry((stream, writer)).or_default()
    }

    fn act(&mut self, operation: &Operation) {
        match *operation {
            Operation::Open { server } => self.open(server),
            Operation::Accept { server } => self.accept(server, false),
            Operation::Refuse { server } => self.accept(server, true),
            Operation::Write { server, stream, len } => self.write(server, stream, len, false),
            Operation::WriteSlice { server, stream, len } => self.write(server, stream, len, true),
            Operation::Read { server, stream, pieces } => {
                if let Some(id) = self.side(server).pick(stream) {
                    self.read(server, id, usize::from(pieces));
                }
            }
            Operation::Finish { server, stream } => {
                if let Some(id) = self.side(server).pick(stream) {
                    self.finish(server, id);
                }
            }
            Operation::Reset { server, stream } => {
                if let Some(id) = self.side(server).pick(stream) {
                    self.side(server).connection.reset(id, RstStatus::CANCEL);
                    self.course(id, true).void = true;
                    self.course(id, false).void = true;
                }
            }
            Operation::Discard { server, stream } => {
                if let Some(id) = self.side(server).pick(stream) {
                    self.side(server).connection.discard(id);
                    self.course(id, !server).void = true;
                }
            }
            Operation::Release { server, stream } => {
                if let Some(id) = self.side(server).pick(stream) {
                    self.finish(server, id);
                    self.side(server).connection.release(id);
                    self.side(server).held.retain(|held| *held != id);
                    self.course(id, !server).void = true;
                }
            }
            Operation::Prioritise { server, stream, priority } => {
                if let Some(id) = self.side(server).pick(stream) {
                    self.side(server).connection.set_priority(id, priority);
                }
            }
            Operation::Ping { server } => {
                let side = self.side(server);
                if let Ok(id) = side.connection.ping() {
                    side.pings.insert(id);
                }
            }
            Operation::AllowStreams { server, max } => {
                let setting = Setting::new(0, SettingId::MAX_CONCURRENT_STREAMS, max.into());
                let side = self.side(server);
                if !side.connection.is_closed() {
                    let frame = Frame::Settings(Settings::new(false, vec![setting]));
                    side.codec.encode(frame, &mut side.wire).unwrap();
                }
            }
            Operation::GoAway { server } => {
                self.side(server).connection.go_away();
                self.cut_short = true;
                self.server_goes |= server;
            }
            Operation::Send { server, frames } => {
                let now = self.now;
                self.side(server).send(frames.into(), now);
            }
            Operation::Deliver { server, bytes } => {
                self.deliver(server, bytes.into());
            }
            Operation::Pass { milliseconds } => {
                self.now += Duration::from_millis(milliseconds.into());
                for server in [false, true] {
                    let now = self.now;
                    let side = self.side(server);
                    side.connection.handle_timeout(now);
                    let next = side.connection.poll_timeout();
                    assert!(next.is_none_or(|next| next > now), "a timer that stays due");
                    // Keepalive's PINGs are not the user's. Their ids are 2 apart too.
                    side.pings.extend((1..1000).filter(|id| (id % 2 == 0) == server));
                }
            }
            Operation::Trim { server } => self.side(server).connection.trim(),
        }
        for server in [false, true] {
            self.judge_windows(server);
            let side = self.side(server);
            side.hear();
            match side.connection.error() {
                None => {}
                Some(ConnectionError::Closed | ConnectionError::KeepaliveTimeout(_)) => self.cut_short = true,
                Some(error) => panic!("{} failed: {error}", if server { "server" } else { "client" }),
            }
        }
    }

    /// Checks that a side has granted no more than what was read on each stream, and what the windows may grow by.
    fn judge_windows(&mut self, server: bool) {
        let side = if server { &self.server } else { &self.client };
        let (config, at_once) = (&side.config, side.config.receive_budget / 2);
        let courses =
            side.granted.iter().filter_map(|(id, granted)| Some((id, granted, self.courses.get(&(*id, !server))?)));
        for (id, granted, course) in courses.filter(|(.., course)| !course.void) {
            let grown = granted.saturating_sub(course.read);
            // What other streams have shown of the path counts for this one, too.
            let known = 2 * self
                .courses
                .iter()
                .filter(|((_, by), _)| *by != server)
                .map(|(_, course)| course.read)
                .max()
                .unwrap_or(0);
            let most = config.spdy.max_window_growth.min(at_once + 64 * course.read + known);
            assert!(grown <= most, "{grown} more granted than read on stream {id}");
            let start = config.stream_receive_budget.max(1);
            assert!(grown <= config.spdy.max_stream_window.saturating_sub(start), "{grown} on stream {id}");
        }
    }

    fn open(&mut self, server: bool) {
        let side = self.side(server);
        match side.connection.open(Headers::from_iter([("streamtype", "data")])) {
            Ok(Some(id)) => {
                assert!(!std::mem::take(&mut side.opener), "an opener was not told that it can open");
                side.held.push(id);
            }
            Ok(None) => side.opener = true,
            Err(error) => assert!(
                matches!(error, ConnectionError::Closed | ConnectionError::GoneAway { .. })
                    || side.connection.is_closed(),
                "{error}"
            ),
        }
    }

    fn accept(&mut self, server: bool, refuse: bool) {
        let side = self.side(server);
        let Some(id) = side.incoming.pop_front() else { return };
        let Some(headers) = side.connection.take_headers(id) else { return };
        assert_eq!(headers.get("streamtype"), Some("data"));
        if refuse {
            side.connection.reset(id, RstStatus::REFUSED_STREAM);
            side.connection.release(id);
            self.course(id, true).void = true;
            self.course(id, false).void = true;
        } else {
            side.connection.reply(id, Headers::new()).unwrap();
            side.held.push(id);
        }
    }

    fn write(&mut self, server: bool, stream: u8, len: u32, slice: bool) {
        let Some(id) = self.side(server).pick(stream) else { return };
        // A hundred thousand frames of one byte would prove no more than a hundred.
        let (own, other) = (self.side(server).config.clone(), self.side(!server).config.clone());
        let step = own.max_data_frame.min(other.stream_receive_budget).max(1);
        let len = usize::try_from(len).unwrap().min(step * 100);
        let from = self.course(id, server).written;
        let bytes: Vec<u8> = (from..from + len).map(|at| byte(id, server, at)).collect();
        let side = self.side(server);
        let taken = if slice {
            side.connection.write_slice(id, &bytes)
        } else {
            side.connection.write(id, bytes.into()).map(|outcome| (outcome == WriteOutcome::Queued).then_some(len))
        };
        match taken {
            Ok(Some(taken)) => {
                assert!(!side.writers.remove(&id), "a writer was not told that there is room");
                assert!(!self.course(id, server).finished);
                self.course(id, server).written += taken;
            }
            Ok(None) => drop(side.writers.insert(id)),
            Err(StreamError::Finished) => {
                // A server that goes away breaks off what it has not finished.
                let goes = server && self.server_goes;
                let course = self.course(id, server);
                assert!(course.finished || course.void || goes);
            }
            Err(StreamError::Reset(_)) => self.course(id, server).void = true,
            Err(error) => assert!(side.connection.is_closed(), "{error}"),
        }
    }

    fn read(&mut self, server: bool, id: StreamId, pieces: usize) -> bool {
        let mut progress = false;
        let goes = self.server_goes;
        for _ in 0..pieces {
            let side = self.side(server);
            let outcome = side.connection.read(id);
            let waited = side.readers.remove(&id);
            assert!(!waited || matches!(outcome, Ok(ReadOutcome::Blocked)), "a reader was not told of {outcome:?}");
            let course = self.courses.entry((id, !server)).or_default();
            match outcome {
                Ok(ReadOutcome::Data(piece)) => {
                    assert!(!piece.is_empty() && !course.end_seen);
                    for got in &piece {
                        assert_eq!(*got, byte(id, !server, course.read), "stream {id} at {}", course.read);
                        course.read += 1;
                    }
                    assert!(course.read <= course.written, "bytes that were not written");
                    progress = true;
                    continue;
                }
                Ok(ReadOutcome::Blocked) => {
                    assert!(!course.end_seen);
                    self.side(server).readers.insert(id);
                }
                Ok(ReadOutcome::Finished) => {
                    assert!(course.finished, "an end that was not set");
                    assert!(course.void || course.read == course.written, "an end before the last byte");
                    progress |= !std::mem::replace(&mut course.end_seen, true);
                }
                Ok(ReadOutcome::Reset(status)) => {
                    let refused = status == RstStatus::REFUSED_STREAM;
                    course.broken_off |= !course.void && !server && goes && status == RstStatus::INTERNAL_ERROR;
                    let by_somebody = course.void || refused || course.broken_off;
                    assert!(by_somebody, "stream {id} was reset by neither side: {status}");
                    assert!(!course.broken_off || course.read == course.written, "broken off before the last byte");
                    progress |= !std::mem::replace(&mut course.end_seen, true);
                    course.void = true;
                    self.course(id, server).void = true;
                }
                Err(error) => {
                    let closed = self.side(server).connection.is_closed();
                    assert!(closed || self.course(id, !server).void, "{error}");
                }
            }
            break;
        }
        progress
    }

    fn finish(&mut self, server: bool, id: StreamId) {
        if self.side(server).connection.is_writable(id) {
            self.side(server).connection.finish(id);
            self.course(id, server).finished = true;
        }
    }

    /// Delivers bytes from the wire to a side, if that side reads. What it does not read yet stays on the wire: an end that
    /// is closed may read again once its user has read.
    fn deliver(&mut self, server: bool, most: usize) -> bool {
        if !self.side(server).connection.wants_read() {
            return false;
        }
        let wire = &mut self.side(!server).wire;
        let bytes = wire.split_to(most.min(wire.len()));
        let taken = !bytes.is_empty();
        if taken {
            let now = self.now;
            self.side(server).receive(bytes, now);
        }
        taken
    }

    /// Both sides accept, finish, read and send until nothing moves.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let mut progress = false;
            for server in [false, true] {
                while !self.side(server).incoming.is_empty() {
                    self.accept(server, false);
                    progress = true;
                }
                for id in self.side(server).held.clone() {
                    self.finish(server, id);
                    progress |= self.read(server, id, usize::MAX);
                }
                let now = self.now;
                progress |= self.side(server).send(usize::MAX, now);
                progress |= self.deliver(!server, 64 * 1024);
            }
            self.act(&Operation::Pass { milliseconds: 0 });
            quiet = if progress { 0 } else { quiet + 1 };
        }
    }

    fn end(mut self) {
        self.settle();
        if !self.cut_short {
            for ((id, writer), course) in &self.courses {
                let refused = self.courses.get(&(*id, !writer)).is_some_and(|other| other.void);
                let complete = course.end_seen && course.read == course.written;
                assert!(course.void || refused || complete, "stream {id}, written by server: {writer}: {course:?}");
            }
            for side in [&self.client, &self.server] {
                assert!(side.writers.is_empty() && !side.opener, "a task waits for ever");
            }
        }
        for server in [false, true] {
            for id in std::mem::take(&mut self.side(server).held) {
                self.side(server).connection.release(id);
            }
        }
        self.settle();
        for server in [false, true] {
            self.side(server).connection.go_away();
        }
        self.settle();
        for side in [&self.client, &self.server] {
            // After its peer went away, an end may wait for a window until the IO ends, which this model does not have.
            if side.connection.is_closed() || !self.cut_short {
                let left = (side.connection.stream_count(), side.connection.unread());
                assert_eq!(left, (0, 0), "server: {}", side.server);
                assert!(side.connection.is_closed() && !side.connection.has_output());
            }
        }
    }
}
