//! A session over WebSocket, all of it but the handshake, against any peer and any use of it.
//!
//! Owns what may happen to it, and that it always comes to an end.

mod check;
pub(crate) mod peer;

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use kubestream::channel::{Channel, Subprotocol};
use kubestream::exec::{
    Error, Exec, ExecServer, ProcessOutput, ProcessStdin, RemoteOutput, RemoteStdin, Resizer, Resizes, Streams,
};
use kubestream::mux::{Config, Driver, Multiplexer, Stream};
use kubestream::spdy::{Headers, Role, RstStatus};
use kubestream::status::{ExitStatus, Status, TerminalSize};
use kubestream::upgrade::{Protocol, Upgraded};
use kubestream::{ConnectionError, StreamError};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use self::peer::{Peer, Saying};
use crate::channel::SUBPROTOCOLS;
use crate::io::{self, Io, Task, once};

/// What the peer, the user, the network or time does next.
#[derive(Debug)]
enum Step<'a> {
    Peer(Saying<'a>),
    Eof,
    ReadFails,
    WriteFails,
    Room(u16),
    Start,
    Read { channel: u8, pieces: u8 },
    Write { channel: u8, len: u16 },
    WriteSlice { channel: u8, len: u16 },
    Finish(u8),
    Drop(u8),
    Resize { width: u8 },
    Exit { code: u8 },
    Wait,
    PingPeer,
    GoAway,
    DropHandle,
    DropSession,
    DropDriver,
    Open(u8),
    Accept { refuse: bool },
    Reset(u8),
    Pass { seconds: u8 },
}

impl<'a> Step<'a> {
    /// One byte for what it is, the more frequent ones by several, so that a mutation changes one thing.
    fn next(input: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u8::arbitrary(input)? % 40 {
            kind @ ..14 => Self::Peer(Saying::next(kind, input)?),
            14 => Self::Eof,
            15 => Self::ReadFails,
            16 => Self::WriteFails,
            17 => Self::Room(input.arbitrary()?),
            18 => Self::Start,
            19..=21 => Self::Read { channel: input.arbitrary()?, pieces: input.arbitrary()? },
            22..=24 => Self::Write { channel: input.arbitrary()?, len: input.arbitrary()? },
            25 => Self::WriteSlice { channel: input.arbitrary()?, len: input.arbitrary()? },
            26 => Self::Finish(input.arbitrary()?),
            27 => Self::Drop(input.arbitrary()?),
            28 => Self::Resize { width: input.arbitrary()? },
            29 => Self::Exit { code: input.arbitrary()? },
            30 => Self::Wait,
            31 => Self::PingPeer,
            32 => Self::GoAway,
            33 => Self::DropHandle,
            34 => Self::DropSession,
            35 => Self::DropDriver,
            36 => Self::Open(input.arbitrary()?),
            37 => Self::Accept { refuse: input.arbitrary()? },
            38 => Self::Reset(input.arbitrary()?),
            _ => Self::Pass { seconds: input.arbitrary()? },
        })
    }
}

/// Whatever a peer says and whatever is asked of a session, nothing panics, spins or hangs, the budget is kept, what is
/// written is WebSocket and the subprotocol's, what was read is what was said, and no session ends well that the peer
/// did not end well.
pub fn websocket_session(input: &[u8]) {
    io::run(async {
        let mut input = Unstructured::new(input);
        let _ = run(&mut input).await;
    });
}

async fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let mut run = Run::new(input)?;
    while !input.is_empty() {
        let step = Step::next(input)?;
        if run.driver.is_none() {
            break;
        }
        run.step(step).await;
        run.turn();
    }
    run.end().await;
    Ok(())
}

enum Made {
    Client(Box<Exec>),
    Server(Box<ExecServer>),
}

enum Reader {
    Process(ProcessStdin),
    Remote(RemoteOutput),
}

enum Writer {
    Process(ProcessOutput),
    Remote(RemoteStdin),
}

/// What has happened at a point in time.
#[derive(Clone, Copy)]
struct Mark {
    read: usize,
    written: usize,
    paused: bool,
    made: bool,
    /// Nothing has ended it, and neither end has said that it will.
    open: bool,
}

/// How the command ended, to a client.
struct Judged {
    status: ExitStatus,
    /// How much of the peer's bytes was read by then.
    read: usize,
    /// The outputs that somebody waited for.
    wanted: [bool; 5],
}

struct Run {
    io: Io,
    role: Role,
    subprotocol: Subprotocol,
    want: Streams,
    config: Config,
    read_ahead: usize,
    driver: Option<Task<std::result::Result<(), ConnectionError>>>,
    outcome: Option<std::result::Result<(), ConnectionError>>,
    mux: Option<Multiplexer>,
    making: Option<Task<std::result::Result<Made, Error>>>,
    made: Option<Made>,
    readers: [Option<Reader>; 5],
    writers: [Option<Writer>; 5],
    resizes: Option<Resizes>,
    resizer: Option<Resizer>,
    raw: Vec<(Channel, Stream)>,
    opened: usize,
    exiting: Option<Task<std::result::Result<(), Error>>>,
    exited: bool,
    /// The user said that the command succeeded.
    succeeded: bool,
    waiting: Option<Task<std::result::Result<ExitStatus, Error>>>,
    pings: Vec<Task<std::result::Result<Duration, ConnectionError>>>,
    status: Option<Judged>,
    /// What was not taken of the outputs is collected.
    collects: bool,
    /// When a byte of ours last went out, and whether our write side ended, and without a reason.
    spoke: Instant,
    shut: bool,
    shut_early: bool,
    /// A session was asked for, or a stream: not both in one run.
    sessions: bool,
    /// Outputs stay with the session.
    leave: bool,
    /// The user gets its turn before the driver.
    users_first: bool,
    /// The user, or a timer of ours, may have ended the connection.
    ended: bool,
    /// What was read on each channel, whether to its end, and what was written.
    got: [Vec<u8>; 5],
    finished: [bool; 5],
    sent: [Vec<u8>; 5],
    marks: Vec<Mark>,
    peer: Peer,
    ending: u8,
}

impl Run {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let role = if bool::arbitrary(input)? { Role::Client } else { Role::Server };
        let subprotocol = SUBPROTOCOLS[usize::from(u8::arbitrary(input)? % 8)];
        let wants = u8::arbitrary(input)?;
        let want =
            Streams { stdin: wants & 1 == 0, stdout: wants & 2 == 0, stderr: wants & 4 == 0, tty: wants & 8 != 0 };
        let (sizes, limits) = (u8::arbitrary(input)?, u8::arbitrary(input)?);
        let pick = |from: u8, by: u8, values: [usize; 3]| values[usize::from(from >> by & 3) % 3];
        let mut config = Config::exec();
        config.receive_budget = pick(sizes, 0, [1024 * 1024, 1000, 0]);
        config.stream_receive_budget = pick(sizes, 2, [64 * 1024, 1000, 0]);
        config.send_buffer = pick(sizes, 4, [256 * 1024, 1000, 1]);
        config.max_data_frame = pick(sizes, 6, [32 * 1024, 1000, 0]);
        config.limits.max_message = pick(limits, 0, [32 * 1024 * 1024, 300, 10]) as u64;
        config.limits.max_fragments = u32::try_from(pick(limits, 2, [1024, 4, 1])).unwrap();
        config.limits.max_queued_replies = pick(limits, 4, [1024, 4, 1]);
        if limits & 0x40 != 0 {
            config.keepalive_interval = None;
        }
        if limits & 0x80 != 0 {
            config.stall_timeout = Some(Duration::from_secs(60));
        }
        let ending = u8::arbitrary(input)?;
        let piece = usize::from(u8::arbitrary(input)?);
        let piece = if piece == 0 { usize::MAX } else { piece * piece };
        let read_ahead = usize::from(u8::arbitrary(input)?);
        let ahead = input.bytes(read_ahead.min(input.len()))?;

        let io = Io::new(piece);
        {
            let mut wire = io.0.borrow_mut();
            wire.said.extend_from_slice(ahead);
            wire.read = ahead.len();
        }
        let upgraded = Upgraded::new(io.clone(), Bytes::copy_from_slice(ahead), Some(Protocol::Channel(subprotocol)));
        let (mux, driver): (_, Driver<Io>) = match role {
            Role::Client => Multiplexer::client(upgraded, config.clone()),
            Role::Server => Multiplexer::server(upgraded, config.clone()),
        };
        let mut run = Self {
            io,
            role,
            subprotocol,
            want,
            config,
            read_ahead: ahead.len(),
            driver: Some(Task::new(driver)),
            outcome: None,
            mux: Some(mux),
            making: None,
            made: None,
            readers: Default::default(),
            writers: Default::default(),
            resizes: None,
            resizer: None,
            raw: Vec::new(),
            opened: 0,
            exiting: None,
            exited: false,
            succeeded: false,
            waiting: None,
            pings: Vec::new(),
            status: None,
            collects: false,
            spoke: Instant::now(),
            shut: false,
            shut_early: false,
            sessions: true,
            leave: wants & 0x10 != 0,
            users_first: wants & 0x20 != 0,
            ended: false,
            got: Default::default(),
            finished: Default::default(),
            sent: Default::default(),
            marks: Vec::new(),
            peer: Peer::new(role == Role::Server, subprotocol),
            ending,
        };
        match wants >> 6 {
            0 | 1 => run.start(),
            2 => {}
            _ => run.sessions = false,
        }
        Ok(run)
    }

    async fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Peer(saying) => self.peer.says(saying, &mut self.io.0.borrow_mut().said),
            Step::Eof => self.io.0.borrow_mut().eof = true,
            Step::ReadFails => self.io.0.borrow_mut().read_fails = true,
            Step::WriteFails => self.io.0.borrow_mut().write_fails = true,
            Step::Room(room) => self.io.0.borrow_mut().room = room.into(),
            Step::Start => self.start(),
            Step::Read { channel, pieces } => self.read(channel, pieces.into()),
            Step::Write { channel, len } => {
                let data = self.peer.bytes(len);
                self.write(channel, &data);
            }
            Step::WriteSlice { channel, len } => {
                let data = self.peer.bytes(len);
                self.write_slice(usize::from(channel % 3), &data);
            }
            Step::Finish(channel) => match self.pick(channel) {
                Some(at) => self.raw[at].1.finish(),
                None => self.finish(usize::from(channel % 3)),
            },
            Step::Drop(channel) => match self.pick(channel) {
                Some(at) => drop(self.raw.swap_remove(at)),
                None if channel & 0x80 == 0 => self.writers[usize::from(channel % 3)] = None,
                None => self.readers[usize::from(channel % 3)] = None,
            },
            Step::Resize { width } => {
                if let Some(resizer) = &mut self.resizer {
                    let size = TerminalSize { width: width.into(), height: 24 };
                    if let Some(Ok(())) = once(resizer.resize(size)) {
                        self.sent[4].extend_from_slice(&size.encode());
                    }
                }
                if let Some(resizes) = &mut self.resizes {
                    once(resizes.next());
                }
            }
            Step::Exit { code } => self.exit(code),
            Step::Wait => {
                if let Some(Made::Client(exec)) = &mut self.made
                    && let Some(Ok(status)) = once(exec.wait())
                {
                    self.judge(status);
                }
            }
            Step::PingPeer => {
                if let (Some(mux), true) = (self.mux.clone(), self.pings.len() < 4) {
                    self.pings.push(Task::new(async move { mux.ping().await }));
                }
            }
            Step::GoAway => {
                self.ended = true;
                // It waits for the driver; what it asks for is asked for at its first poll.
                self.mux.as_ref().map(|mux| once(mux.shutdown()));
            }
            Step::DropHandle => {
                self.ended = true;
                self.mux = None;
            }
            Step::DropSession => self.drop_session(),
            Step::DropDriver => {
                self.ended = true;
                self.driver = None;
                // What it had ended with before, if it had.
                let closed = self.mux.as_ref().map(|mux| once(mux.closed()).unwrap());
                self.outcome = Some(closed.unwrap_or(Err(ConnectionError::DriverGone)));
            }
            Step::Open(kind) => {
                let kind = Channel::ALL[usize::from(kind % 5)];
                let headers = Headers::from_iter([("streamtype", name(kind))]);
                if let (Some(mux), false) = (&self.mux, self.sessions)
                    && let Some(Ok(stream)) = once(mux.open(headers))
                {
                    // A server's are refused, each as soon as it is asked for.
                    self.opened += usize::from(self.role == Role::Server);
                    assert!(self.role == Role::Server || self.raw.iter().all(|(other, _)| *other != kind));
                    self.raw.push((kind, stream));
                }
            }
            Step::Accept { refuse } => {
                if let (Some(mux), false) = (&self.mux, self.sessions)
                    && let Some(Some(Ok(incoming))) = once(mux.accept())
                {
                    let kind =
                        Channel::ALL.into_iter().find(|kind| incoming.headers().get("streamtype") == Some(name(*kind)));
                    if refuse {
                        incoming.refuse();
                    } else {
                        self.raw.push((kind.unwrap(), incoming.reply()));
                    }
                }
            }
            Step::Reset(which) => {
                if let Some(at) = self.pick(which) {
                    self.raw.swap_remove(at).1.reset(RstStatus::CANCEL);
                }
            }
            Step::Pass { seconds } => io::pass(Duration::from_secs(seconds.into())).await,
        }
        self.io.0.borrow_mut().wake();
    }

    /// A status that counts: all of what was wanted of the outputs has come to its end.
    fn judge(&mut self, status: ExitStatus) {
        let mut wanted = [false; 5];
        for at in [1, 2] {
            wanted[at] = self.readers[at].is_some();
            self.read(u8::try_from(at).unwrap(), usize::MAX);
            assert!(!wanted[at] || self.finished[at], "channel {at}: a status that is ahead of the output");
        }
        if self.collects {
            wanted = [false, self.want.stdout, self.want.stderr && !self.want.tty, false, false];
        }
        self.status = Some(Judged { status, read: self.io.0.borrow().read, wanted });
    }

    fn pick(&self, which: u8) -> Option<usize> {
        usize::from(which).checked_rem(self.raw.len())
    }

    fn start(&mut self) {
        let (Some(mux), true) = (self.mux.clone(), self.sessions) else { return };
        if self.making.is_some()
            || self.made.is_some()
            || self.exiting.is_some()
            || self.waiting.is_some()
            || self.exited
        {
            return;
        }
        let (role, want) = (self.role, self.want);
        self.making = Some(Task::new(async move {
            Ok(match role {
                Role::Client => Made::Client(Box::new(mux.exec(want).await?)),
                Role::Server => Made::Server(Box::new(mux.accept_exec(want).await?)),
            })
        }));
    }

    fn take(&mut self, mut made: Made) {
        match &mut made {
            Made::Client(exec) => {
                assert_eq!(exec.stdin.is_some(), self.want.stdin);
                assert_eq!(exec.stdout.is_some(), self.want.stdout);
                assert_eq!(exec.stderr.is_some(), self.want.stderr && !self.want.tty);
                assert_eq!(exec.resize.is_some(), self.want.tty);
                self.resizer = exec.resize.take();
                self.writers[0] = exec.stdin.take().map(Writer::Remote);
                if !self.leave {
                    self.readers[1] = exec.stdout.take().map(Reader::Remote);
                    self.readers[2] = exec.stderr.take().map(Reader::Remote);
                }
            }
            Made::Server(process) => {
                self.resizes = process.resize.take();
                self.readers[0] = process.stdin.take().map(Reader::Process);
                if !self.leave {
                    self.writers[1] = process.stdout.take().map(Writer::Process);
                    self.writers[2] = process.stderr.take().map(Writer::Process);
                }
            }
        }
        self.made = Some(made);
    }

    fn exit(&mut self, code: u8) {
        match self.made.take() {
            Some(Made::Server(process)) => {
                let status = match code {
                    0 => ExitStatus::Success,
                    1 => ExitStatus::Failed(Box::new(Status::internal_error("no"))),
                    code => ExitStatus::Code(code.into()),
                };
                self.succeeded = status.success();
                self.sent[3].extend_from_slice(&status.encode(self.subprotocol.version()));
                self.exiting = Some(Task::new(process.exit(status)));
            }
            made => self.made = made,
        }
    }

    fn read(&mut self, channel: u8, pieces: usize) {
        if let Some(at) = self.pick(channel) {
            let (channel, stream) = &mut self.raw[at];
            let at = usize::from(channel.number());
            for _ in 0..pieces {
                match once(stream.data()) {
                    Some(Some(Ok(data))) => self.got[at].extend_from_slice(&data),
                    Some(None) => {
                        self.finished[at] = true;
                        break;
                    }
                    _ => break,
                }
            }
            return;
        }
        let at = usize::from(channel % 3);
        let Some(reader) = &mut self.readers[at] else { return };
        for _ in 0..pieces {
            let data = match reader {
                Reader::Process(stdin) => once(stdin.data()),
                Reader::Remote(output) => once(output.data()),
            };
            match data {
                Some(Some(Ok(data))) => {
                    assert!(!data.is_empty());
                    self.got[at].extend_from_slice(&data);
                }
                Some(None) => {
                    self.finished[at] = true;
                    break;
                }
                Some(Some(Err(error))) => {
                    assert!(matches!(error, StreamError::Connection(_)), "{error:?}");
                    break;
                }
                None => break,
            }
        }
    }

    fn write(&mut self, channel: u8, data: &[u8]) {
        let bytes = Bytes::copy_from_slice(data);
        if let Some(at) = self.pick(channel) {
            let (channel, stream) = &mut self.raw[at];
            if let Some(Ok(())) = once(stream.send(bytes))
                && channel.is_clients() == (self.role == Role::Client)
                && stream.id().is_client()
            {
                self.sent[usize::from(channel.number())].extend_from_slice(data);
            }
            return;
        }
        let at = usize::from(channel % 3);
        let sent = match &mut self.writers[at] {
            Some(Writer::Process(output)) => once(output.send(bytes)),
            Some(Writer::Remote(stdin)) => once(stdin.send(bytes)),
            None => None,
        };
        if let Some(Ok(())) = sent {
            self.sent[at].extend_from_slice(data);
        }
    }

    fn write_slice(&mut self, at: usize, data: &[u8]) {
        use std::pin::Pin;
        let taken = match &mut self.writers[at] {
            Some(Writer::Process(output)) => {
                once(std::future::poll_fn(|cx| Pin::new(&mut *output).poll_write(cx, data)))
            }
            Some(Writer::Remote(stdin)) => once(std::future::poll_fn(|cx| Pin::new(&mut *stdin).poll_write(cx, data))),
            None => None,
        };
        if let Some(Ok(taken)) = taken {
            assert!(taken > 0 || data.is_empty());
            self.sent[at].extend_from_slice(&data[..taken]);
        }
    }

    fn finish(&mut self, at: usize) {
        match &mut self.writers[at] {
            Some(Writer::Process(output)) => {
                let shut = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *output).poll_shutdown(cx));
                assert!(once(shut).is_some());
            }
            Some(Writer::Remote(stdin)) => stdin.finish(),
            None => {}
        }
    }

    fn drop_session(&mut self) {
        self.ended = true;
        self.making = None;
        self.made = None;
        self.readers = Default::default();
        self.writers = Default::default();
        self.resizes = None;
        self.resizer = None;
        self.raw = Vec::new();
        self.exiting = None;
        self.waiting = None;
        self.pings = Vec::new();
    }

    /// Everybody who was woken gets a turn, until nobody is.
    fn turn(&mut self) {
        let io = self.io.clone();
        let progress = || {
            let wire = io.0.borrow();
            (wire.read, wire.written.len(), wire.shut)
        };
        if self.users_first {
            self.turn_of_users();
        }
        let mut rounds = 0;
        while self.is_anybody_woken() {
            rounds += 1;
            assert!(rounds < 100_000, "they wake each other for ever");
            if let Some(outcome) = self.driver.as_mut().and_then(|driver| driver.poll(progress)) {
                self.outcome = Some(outcome);
                self.driver = None;
            }
            self.turn_of_users();
        }
        self.look();
    }

    fn is_anybody_woken(&self) -> bool {
        self.driver.as_ref().is_some_and(Task::is_woken)
            || self.making.as_ref().is_some_and(Task::is_woken)
            || self.exiting.as_ref().is_some_and(Task::is_woken)
            || self.waiting.as_ref().is_some_and(Task::is_woken)
            || self.pings.iter().any(Task::is_woken)
    }

    fn turn_of_users(&mut self) {
        match self.making.as_mut().and_then(|making| making.poll(|| ())) {
            Some(Ok(made)) => {
                self.making = None;
                self.take(made);
            }
            Some(Err(error)) => {
                let late = matches!(error, Error::CreationTimeout { .. });
                assert!(
                    !late || self.role == Role::Server || self.io.0.borrow().write_fails,
                    "channels are there at once"
                );
                self.ended |= late;
                self.making = None;
            }
            None => {}
        }
        if let Some(exit) = self.exiting.as_mut().and_then(|exiting| exiting.poll(|| ())) {
            self.exiting = None;
            self.ended = true;
            self.exited = exit.is_ok();
        }
        if let Some(status) = self.waiting.as_mut().and_then(|waiting| waiting.poll(|| ())) {
            self.waiting = None;
            status.into_iter().for_each(|status| self.judge(status));
        }
        self.pings.retain_mut(|ping| ping.poll(|| ()).is_none());
    }

    /// What must be true at any time.
    fn look(&mut self) {
        let wire = self.io.0.borrow();
        // What is read behind an end is not heard.
        let (mut read, mut paused, mut open) = (self.marks.last().map_or(0, |mark| mark.read), false, false);
        if let Some(mux) = &self.mux {
            let stats = mux.stats();
            read = self.read_ahead + usize::try_from(stats.received).unwrap();
            paused = stats.stalled_by.is_some();
            open = mux.takes_streams();
            assert!(read <= wire.read);
            // One batch of frames is taken whole.
            let came = wire.piece.min(wire.said.len()).max(self.read_ahead).max(4096) + 64 * 256;
            let shares = 5 * self.config.stream_receive_budget;
            assert!(stats.unread <= self.config.receive_budget + shares + came, "over the budget: {stats:?}");
            assert_eq!(stats.sent, wire.written.len() as u64);
            assert!(stats.streams <= 5 + self.opened, "{stats:?}");
        }
        if self.marks.last().is_some_and(|last| last.written != wire.written.len()) {
            self.spoke = Instant::now();
        }
        if wire.shut && !std::mem::replace(&mut self.shut, true) {
            let ended = wire.eof || wire.read_fails || wire.write_fails;
            let silent = self.spoke.elapsed() >= self.config.linger;
            let told = self.hear(&wire.said[..wire.read]).close.is_some();
            self.shut_early = !ended && !silent && !told;
        }
        let mark = Mark { read, written: wire.written.len(), paused, made: self.made.is_some(), open };
        self.marks.push(mark);
    }

    /// The peer ends or is silent, the user goes or waits for the end: either way there is one.
    async fn end(mut self) {
        let (silent, deaf, gone) = (self.ending & 1 != 0, self.ending & 2 != 0, self.ending & 4 != 0);
        {
            let mut wire = self.io.0.borrow_mut();
            wire.eof |= !silent;
            wire.room = if deaf { wire.room.min(1 << 16) } else { usize::MAX };
            wire.wake();
        }
        if gone {
            self.drop_session();
            self.mux = None;
        }
        if !self.sessions {
            // Streams of a connection live as long as it does, and the connection as long as they.
            self.ended = true;
            self.mux = None;
        }
        for seconds in [0, 0, 1, 6, 11, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 20_000, 20_000, 20_000, 60, 60]
        {
            io::pass(Duration::from_secs(seconds)).await;
            self.turn();
            for at in 0..3 {
                self.read(at, usize::MAX);
            }
            if let Some(resizes) = &mut self.resizes {
                while let Some(Some(_)) = once(resizes.next()) {}
            }
            match self.made.take() {
                Some(Made::Client(mut exec)) => {
                    self.writers = Default::default();
                    self.resizer = None;
                    self.waiting = Some(if self.ending & 8 == 0 {
                        Task::new(async move { exec.wait().await })
                    } else {
                        self.collects = self.leave;
                        Task::new(async move { Ok(exec.wait_with_output(1 << 20).await?.status) })
                    });
                }
                Some(made @ Made::Server(_)) => {
                    self.made = Some(made);
                    self.writers = Default::default();
                    self.exit(self.ending >> 4);
                }
                None => {}
            }
            if self.exiting.is_some() {
                self.writers = Default::default();
            }
            self.turn();
            if self.outcome.is_some() {
                if self.making.is_none() && self.made.is_none() && self.exiting.is_none() && self.waiting.is_none() {
                    break;
                }
            } else if self.waiting.is_none()
                && self.made.is_none()
                && self.making.is_none()
                && self.role == Role::Client
                && self.status.is_some()
            {
                // A client that knows how the command ended goes.
                self.drop_session();
                self.mux = None;
            }
        }
        let outcome = self.outcome.take().expect("the connection goes on for ever");
        assert!(self.making.is_none() && self.exiting.is_none() && self.waiting.is_none(), "somebody waits for ever");
        assert!(self.pings.is_empty(), "a PING waits for ever");
        for at in 0..3 {
            self.read(at, usize::MAX);
        }
        if let Some(mux) = &self.mux {
            let closed = once(mux.closed()).expect("a connection that has ended is closed");
            assert_eq!(format!("{closed:?}"), format!("{outcome:?}"));
        }
        self.check(&outcome);
    }
}

fn name(channel: Channel) -> &'static str {
    match channel {
        Channel::Stdin => "stdin",
        Channel::Stdout => "stdout",
        Channel::Stderr => "stderr",
        Channel::Error => "error",
        Channel::Resize => "resize",
    }
}
