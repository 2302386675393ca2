//! Tests a session over WebSocket, all of it but the handshake, against any peer and any use of it.
//!
//! Holds the state of a run and the order of turns, and checks that a run always ends.

mod check;
pub(crate) mod peer;
mod step;
mod user;

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use kubestream::ConnectionError;
use kubestream::exec::{Error, Reader, Resizer, Resizes, Streams};
use kubestream::mux::{Config, Driver, Multiplexer, SendHalf, Stream};
use kubestream::protocol::Subprotocol;
use kubestream::status::ExitStatus;
use kubestream::unstable::session::Role;
use kubestream::unstable::wire::channel::Channel;
use kubestream::upgrade::{Protocol, Upgraded};
use tokio::time::Instant;

use self::peer::Peer;
use self::step::Step;
use self::user::Made;
use crate::channel::SUBPROTOCOLS;
use crate::io::{self, Io, Task, once};

/// Whatever a peer sends and whatever the user does, nothing panics, spins or hangs, and the budget is kept. What is
/// written follows WebSocket and the subprotocol, and what was read is what the peer sent. No session ends in an
/// orderly way unless the peer ended it so.
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

/// The state at a point in time.
#[derive(Clone, Copy)]
struct Mark {
    read: usize,
    written: usize,
    paused: bool,
    made: bool,
    /// Nothing has ended the session, and neither end has announced that it will.
    open: bool,
}

/// How the command ended for a client.
struct Judged {
    status: ExitStatus,
    /// How many of the peer's bytes had been read by then.
    read: usize,
    /// The outputs for which the user waited.
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
    writers: [Option<SendHalf>; 5],
    resizes: Option<Resizes>,
    resizer: Option<Resizer>,
    raw: Vec<(Channel, Stream)>,
    opened: usize,
    exiting: Option<Task<std::result::Result<(), Error>>>,
    exited: bool,
    /// The user reported that the command succeeded.
    succeeded: bool,
    waiting: Option<Task<std::result::Result<ExitStatus, Error>>>,
    pings: Vec<Task<std::result::Result<Duration, ConnectionError>>>,
    status: Option<Judged>,
    /// The session collects the outputs that the user did not take.
    collects: bool,
    /// When our last byte went out, and whether our write side ended, and without a reason.
    spoke: Instant,
    shut: bool,
    shut_early: bool,
    /// The run uses sessions instead of single streams. Both in one run are not tried.
    sessions: bool,
    /// The outputs stay with the session.
    leave: bool,
    /// The user's turn comes before the driver's.
    users_first: bool,
    /// The user or one of our timers may have ended the connection.
    ended: bool,
    /// For each channel: what was read, whether to its end, and what was written.
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
        config.websocket.max_message = pick(limits, 0, [32 * 1024 * 1024, 300, 10]) as u64;
        config.websocket.max_fragments = u32::try_from(pick(limits, 2, [1024, 4, 1])).unwrap();
        config.spdy.max_queued_replies = pick(limits, 4, [1024, 4, 1]);
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
        let upgraded =
            Upgraded::new(io.clone(), Bytes::copy_from_slice(ahead), Some(Protocol::WebSocketExec(subprotocol)));
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

    /// Gives a turn to every task that was woken, until none is.
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
            assert!(rounds < 100_000, "the tasks wake each other for ever");
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
                assert!(!late || self.role == Role::Server || self.io.0.borrow().write_fails, "channels exist at once");
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

    /// Checks what must hold at any time.
    fn look(&mut self) {
        let wire = self.io.0.borrow();
        // What is read after an end does not count.
        let (mut read, mut paused, mut open) = (self.marks.last().map_or(0, |mark| mark.read), false, false);
        if let Some(mux) = &self.mux {
            let stats = mux.stats();
            read = self.read_ahead + usize::try_from(stats.received).unwrap();
            paused = stats.stalled_by.is_some();
            open = mux.takes_streams();
            assert!(read <= wire.read);
            // One batch of frames is taken as a whole.
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

    /// The peer ends or is silent, and the user leaves or waits for the end. In each case the session ends.
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
            // Streams live as long as their connection, and the connection lives while streams exist.
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
                // A client that knows how the command ended leaves.
                self.drop_session();
                self.mux = None;
            }
        }
        let outcome = self.outcome.take().expect("the connection goes on for ever");
        assert!(self.making.is_none() && self.exiting.is_none() && self.waiting.is_none(), "a task waits for ever");
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
