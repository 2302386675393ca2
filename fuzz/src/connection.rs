//! Tests a connection against any frames and any use of it.
//!
//! Holds a peer's view of the frames that it gets, and the rules that these frames must follow.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::{Bytes, BytesMut};
use kubestream::ConnectionError;
use kubestream::mux::FlowControl;
use kubestream::mux::SpdyConfig;
use kubestream::mux::{GoAwayStatus, Headers, RstStatus};
use kubestream::unstable::session::{Config, Connection, Event, ReadOutcome, Role};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame, Setting, SettingId, Settings};
use tokio_util::codec::{Decoder, Encoder};

/// The next action of the peer, the user or time. Ids are small, so that they often coincide.
#[derive(Arbitrary, Debug)]
enum Step {
    SynStream { id: u8, priority: u8, fin: bool, unidirectional: bool, defect: bool },
    SynReply { id: u8, fin: bool, defect: bool },
    Headers { id: u8, fin: bool },
    RstStream { id: u8, status: u8 },
    Data { id: u8, fin: bool, len: u16 },
    WindowUpdate { id: u8, delta: u32 },
    InitialWindow(u32),
    MaxStreams(u8),
    PeerPing(u8),
    PeerGoAway { last_good: u8 },
    Open,
    Accept,
    Refuse,
    Write { stream: u8, len: u16 },
    WriteSlice { stream: u8, len: u16 },
    Finish { stream: u8 },
    Reset { stream: u8 },
    Discard { stream: u8 },
    Release { stream: u8 },
    Read { stream: u8, pieces: u8 },
    Prioritise { stream: u8, priority: u8 },
    StopSendingAfter { stream: u8, despite_reset: bool },
    Ping,
    GoAway,
    RefuseStreams,
    Speak { frames: u8 },
    Pass { seconds: u8 },
    Trim,
}

/// Whatever frames come and whatever the user does, a connection does not panic, keeps its budgets, and sends nothing
/// that breaks the protocol. At its end it holds nothing.
pub fn connection(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let _ = run(&mut input);
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let role = if bool::arbitrary(input)? { Role::Client } else { Role::Server };
    let config = any_config(input)?;
    let mut run = Run::new(role, config);
    while !input.is_empty() {
        let step = Step::arbitrary(input)?;
        run.step(step);
    }
    run.end();
    Ok(())
}

fn any_config(input: &mut Unstructured<'_>) -> Result<Config> {
    let mut config = Config::default();
    config.spdy.flow_control = *input.choose(&[FlowControl::Auto, FlowControl::Strict, FlowControl::Off])?;
    config.spdy.compress_headers = *input.choose(&[false, true])?;
    config.max_data_frame = *input.choose(&[0, 1000, 32 * 1024])?;
    config.send_buffer = *input.choose(&[1, 1000, 256 * 1024])?;
    config.stream_receive_budget = *input.choose(&[0, 1000, 64 * 1024])?;
    config.spdy.max_window_growth = *input.choose(&[32 * 1024 * 1024, 0, 5000])?;
    config.spdy.max_stream_window = *input.choose(&[28 * 1024 * 1024, 0, 100_000])?;
    config.receive_budget = *input.choose(&[0, 1000, 1024 * 1024])?;
    config.spdy.max_streams = *input.choose(&[0, 2, 1024])?;
    config.spdy.max_queued_replies = *input.choose(&[4, 1024])?;
    config.spdy.max_unanswered_resets = *input.choose(&[2, 200])?;
    config.stream_stall_timeout = *input.choose(&[None, Some(Duration::from_secs(20))])?;
    config.stall_timeout = *input.choose(&[None, Some(Duration::from_secs(60))])?;
    Ok(config)
}

/// A stream, as the peer sees it from the frames that it got.
#[derive(Debug, Default)]
struct Seen {
    /// How many bytes may still be sent on it.
    window: i64,
    ended: bool,
    reset: bool,
    /// Nothing of ours may come on it, because it has ended or never existed.
    over: bool,
    /// How many bytes our user has read, and how many more we have let the peer send.
    read: usize,
    granted: usize,
    /// Our user drops its bytes.
    dropped: bool,
}

struct Run {
    connection: Connection,
    config: Config,
    role: Role,
    now: Instant,
    writer: Codec,
    reader: Codec,
    wire: BytesMut,
    incoming: VecDeque<StreamId>,
    held: Vec<StreamId>,
    opened: usize,
    seen: HashMap<StreamId, Seen>,
    last_syn: u32,
    session_window: i64,
    initial_window: i64,
    gone: bool,
    went_silent: bool,
}

impl Run {
    fn new(role: Role, config: Config) -> Self {
        let now = Instant::now();
        Self {
            connection: Connection::new(role, config.clone(), now),
            writer: Codec::new(config.spdy.clone()),
            reader: Codec::new(SpdyConfig::default()),
            config,
            role,
            now,
            wire: BytesMut::new(),
            incoming: VecDeque::new(),
            held: Vec::new(),
            opened: 0,
            seen: HashMap::new(),
            last_syn: 0,
            session_window: 64 * 1024,
            initial_window: 64 * 1024,
            gone: false,
            went_silent: false,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::SynStream { id, priority, fin, unidirectional, defect } => {
                let (id, associated) = (id.into(), StreamId::SESSION);
                let (priority, headers) = (priority % 8, headers(defect));
                let id = StreamId::new(id);
                self.hears(Frame::SynStream { id, associated, priority, slot: 0, fin, unidirectional, headers });
            }
            Step::SynReply { id, fin, defect } => {
                self.hears(Frame::SynReply { id: StreamId::new(id.into()), fin, headers: headers(defect) });
            }
            Step::Headers { id, fin } => {
                self.hears(Frame::Headers { id: StreamId::new(id.into()), fin, headers: headers(false) });
            }
            Step::RstStream { id, status } => {
                self.hears(Frame::RstStream { id: StreamId::new(id.into()), status: RstStatus::new(status.into()) });
            }
            Step::Data { id, fin, len } => {
                let data = Bytes::from(vec![0; len.into()]);
                self.hears(Frame::Data { id: StreamId::new(id.into()), fin, data });
            }
            Step::WindowUpdate { id, delta } => {
                self.hears(Frame::WindowUpdate { id: StreamId::new(id.into()), delta: delta >> 1 });
            }
            Step::InitialWindow(window) => {
                self.hears(Frame::Settings(Settings::single(SettingId::INITIAL_WINDOW_SIZE, window)));
            }
            Step::MaxStreams(max) => {
                let setting = Setting::new(0, SettingId::MAX_CONCURRENT_STREAMS, max.into());
                self.hears(Frame::Settings(Settings::new(false, vec![setting])));
            }
            Step::PeerPing(id) => self.hears(Frame::Ping(id.into())),
            Step::PeerGoAway { last_good } => {
                let status = if last_good < 0xc0 { GoAwayStatus::OK } else { GoAwayStatus::INTERNAL_ERROR };
                self.hears(Frame::GoAway { last_good: StreamId::new(last_good.into()), status });
            }
            Step::Open => {
                if let Ok(Some(id)) = self.connection.open(headers(false)) {
                    self.opened += 1;
                    self.held.push(id);
                }
            }
            Step::Accept => self.accept(false),
            Step::Refuse => self.accept(true),
            Step::Write { stream, len } => {
                if let Some(id) = self.pick(stream) {
                    let _ = self.connection.write(id, vec![0; len.into()].into());
                }
            }
            Step::WriteSlice { stream, len } => {
                if let Some(id) = self.pick(stream) {
                    let taken = self.connection.write_slice(id, &vec![0; len.into()]);
                    assert!(!matches!(taken, Ok(Some(taken)) if taken > usize::from(len)));
                }
            }
            Step::Finish { stream } => self.pick(stream).into_iter().for_each(|id| self.connection.finish(id)),
            Step::Reset { stream } => {
                self.drops(stream);
                self.pick(stream).into_iter().for_each(|id| self.connection.reset(id, RstStatus::CANCEL));
            }
            Step::Discard { stream } => {
                self.drops(stream);
                self.pick(stream).into_iter().for_each(|id| self.connection.discard(id));
            }
            Step::Release { stream } => {
                self.drops(stream);
                if let Some(id) = self.pick(stream) {
                    self.connection.release(id);
                    self.held.retain(|held| *held != id);
                }
            }
            Step::Read { stream, pieces } => {
                if let Some(id) = self.pick(stream) {
                    for _ in 0..pieces {
                        let before = self.connection.unread();
                        let Ok(ReadOutcome::Data(data)) = self.connection.read(id) else { break };
                        assert_eq!(before - self.connection.unread(), data.len().max(256));
                        self.seen.entry(id).or_default().read += data.len();
                    }
                }
            }
            Step::Prioritise { stream, priority } => {
                self.pick(stream).into_iter().for_each(|id| self.connection.set_priority(id, priority));
            }
            Step::StopSendingAfter { stream, despite_reset } => {
                self.pick(stream).into_iter().for_each(|id| self.connection.stop_sending_after(id, despite_reset));
            }
            Step::Ping => drop(self.connection.ping()),
            Step::GoAway => self.connection.go_away(),
            Step::RefuseStreams => self.connection.refuse_streams(),
            Step::Speak { frames } => self.speak(frames.into()),
            Step::Pass { seconds } => {
                self.now += Duration::from_secs(seconds.into());
                self.connection.handle_timeout(self.now);
                assert!(self.connection.poll_timeout().is_none_or(|next| next > self.now), "a timer that stays due");
            }
            Step::Trim => self.connection.trim(),
        }
        self.listen();
        let theirs = self.config.spdy.max_streams;
        assert!(self.connection.stream_count() <= theirs + self.opened, "more streams than may be open");
        assert!(self.connection.stalled_by().is_none() || !self.connection.wants_read());
    }

    fn drops(&mut self, stream: u8) {
        if let Some(id) = self.pick(stream) {
            self.seen.entry(id).or_default().dropped = true;
        }
    }

    fn pick(&self, stream: u8) -> Option<StreamId> {
        self.held.get(usize::from(stream).checked_rem(self.held.len())?).copied()
    }

    /// Like a driver, this reads nothing while the budget is used up.
    fn hears(&mut self, frame: Frame) {
        if !self.connection.wants_read() {
            return;
        }
        self.note(&frame);
        let came = if let Frame::Data { data, .. } = &frame { data.len().max(256) } else { 0 };
        self.connection.receive(frame, self.now);
        let shares = self.connection.stream_count() * self.config.stream_receive_budget;
        let windows = self.config.spdy.max_window_growth * 2;
        let most = self.config.receive_budget + shares + windows + came;
        assert!(self.connection.unread() <= most, "over the budget");
    }

    /// Updates the peer's view with its own frames.
    fn note(&mut self, frame: &Frame) {
        match frame {
            Frame::WindowUpdate { id, delta } if *id == StreamId::SESSION => self.session_window += i64::from(*delta),
            Frame::WindowUpdate { id, delta } => {
                if let Some(seen) = self.seen.get_mut(id) {
                    seen.window += i64::from(*delta);
                }
            }
            Frame::SynStream { id, unidirectional, .. } => {
                let seen = Seen { window: self.initial_window, over: *unidirectional, ..Seen::default() };
                self.seen.entry(*id).or_insert(seen);
            }
            Frame::RstStream { id, .. } => {
                // A stream of ours may be reset before its SYN_STREAM was sent.
                let ours = id.is_client() == (self.role == Role::Client);
                if let Some(seen) = self.seen.get_mut(id) {
                    seen.over = true;
                } else if ours {
                    self.seen.insert(*id, Seen { over: true, ..Seen::default() });
                }
            }
            Frame::Settings(settings) => {
                if let Some(window) = settings.get(SettingId::INITIAL_WINDOW_SIZE) {
                    let by = i64::from(window) - self.initial_window;
                    self.initial_window += by;
                    self.seen.values_mut().for_each(|seen| seen.window += by);
                }
            }
            _ => {}
        }
    }

    fn accept(&mut self, refuse: bool) {
        let Some(id) = self.incoming.pop_front() else { return };
        if self.connection.take_headers(id).is_none() {
            return;
        }
        if refuse {
            self.connection.reset(id, RstStatus::REFUSED_STREAM);
            self.connection.release(id);
        } else {
            self.connection.reply(id, Headers::new()).unwrap();
            self.held.push(id);
        }
    }

    fn listen(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            if let Event::Incoming(id) = event {
                self.incoming.push_back(id);
            }
        }
    }

    fn speak(&mut self, frames: usize) {
        for _ in 0..frames {
            let promised = self.connection.has_output();
            let Some(frame) = self.connection.poll_frame(self.now) else { return };
            assert!(promised, "has_output returned false before {frame:?}");
            assert!(!self.gone, "{frame:?} after GOAWAY");
            // A client that leaves with everything that mattered says goodbye.
            let goodbye = matches!(frame, Frame::GoAway { status: GoAwayStatus::OK, .. });
            let leaves = self.role == Role::Client && matches!(self.connection.error(), Some(ConnectionError::Closed));
            let was_silent = std::mem::replace(&mut self.went_silent, self.connection.is_silent());
            assert!(!was_silent || leaves && goodbye, "{frame:?} in silence");
            self.writer.encode(frame.clone(), &mut self.wire).unwrap();
            let read = self.reader.decode(&mut self.wire).unwrap();
            assert_eq!(read.as_ref(), Some(&frame), "the peer can decode what is sent");
            self.judge(frame);
        }
    }

    /// Checks that a peer that knows the draft would accept the frame.
    fn judge(&mut self, frame: Frame) {
        let strict = self.config.spdy.flow_control == FlowControl::Strict;
        match frame {
            Frame::SynStream { id, .. } => {
                assert_eq!(id.is_client(), self.role == Role::Client);
                assert!(id.get() > std::mem::replace(&mut self.last_syn, id.get()), "ids go up");
                // An update for a stream that is not open yet is ignored.
                let seen = self.seen.entry(id).or_default();
                *seen = Seen { window: self.initial_window, ended: false, reset: false, ..std::mem::take(seen) };
            }
            Frame::SynReply { id, .. } => {
                assert_eq!(id.is_client(), self.role == Role::Server);
                assert!(!self.seen[&id].reset, "a reply after a reset");
            }
            Frame::Data { id, fin, data } => {
                let seen = self.seen.get_mut(&id).unwrap();
                assert!(!seen.ended && !seen.reset, "DATA after the end");
                assert!(data.len() <= self.config.max_data_frame.max(1));
                seen.window -= i64::try_from(data.len()).unwrap();
                self.session_window -= i64::try_from(data.len()).unwrap();
                seen.ended = fin;
                if strict && !data.is_empty() {
                    assert!(self.session_window >= 0 && seen.window >= 0, "DATA beyond the window");
                }
            }
            // It answers frames that came before the stream existed.
            Frame::RstStream { status: RstStatus::INVALID_STREAM, .. } => {}
            Frame::RstStream { id, .. } => {
                if let Some(seen) = self.seen.get_mut(&id) {
                    seen.reset = true;
                }
            }
            Frame::WindowUpdate { id, delta } => {
                assert!(delta > 0 && self.config.spdy.flow_control != FlowControl::Off);
                if id != StreamId::SESSION {
                    let (growth, at_once) = (self.config.spdy.max_window_growth, self.config.receive_budget / 2);
                    let seen = self.seen.get_mut(&id).unwrap();
                    assert!(!seen.reset, "a window for a stream that was reset");
                    seen.granted += usize::try_from(delta).unwrap();
                    let grown = seen.granted.saturating_sub(seen.read);
                    assert!(
                        seen.dropped || grown <= growth.min(at_once + 2 * seen.read),
                        "a window that grew by {grown}"
                    );
                }
            }
            Frame::Settings(_) => assert!(self.config.spdy.flow_control != FlowControl::Off),
            Frame::GoAway { status, .. } => {
                self.gone = true;
                let orderly = matches!(self.connection.error(), Some(ConnectionError::Closed));
                // Streams that a leaving peer has not accepted end without a frame.
                let tells = !self.connection.is_silent() && !self.connection.is_going_away();
                if self.role == Role::Server && status == GoAwayStatus::OK && orderly && tells {
                    let unfinished = self.seen.iter().find(|(_, seen)| !seen.ended && !seen.reset && !seen.over);
                    assert!(unfinished.is_none(), "ended without a frame on {unfinished:?}");
                }
            }
            Frame::Ping(_) => {}
            Frame::Headers { .. } => panic!("HEADERS are never sent"),
        }
    }

    /// Drops every handle, and the connection with them.
    fn end(mut self) {
        while !self.incoming.is_empty() {
            self.accept(true);
        }
        for id in std::mem::take(&mut self.held) {
            self.connection.reset(id, RstStatus::CANCEL);
            self.connection.release(id);
        }
        self.connection.go_away();
        self.speak(usize::MAX);
        // What the windows hold back goes out before GOAWAY. If one update is too many, that ends the connection as
        // well.
        for _ in 0..8 {
            let streams: Vec<StreamId> = self.seen.keys().copied().collect();
            for id in [StreamId::SESSION].into_iter().chain(streams) {
                self.hears(Frame::WindowUpdate { id, delta: 1 << 29 });
            }
            self.speak(usize::MAX);
        }
        assert!(self.connection.is_closed());
        assert_eq!((self.connection.stream_count(), self.connection.unread()), (0, 0));
        assert!(!self.connection.has_output());
    }
}

fn headers(defect: bool) -> Headers {
    if defect { Headers::from_iter([("", "x")]) } else { Headers::from_iter([("streamtype", "data")]) }
}
