//! Tests legacy port-forward, all of it but the handshake, against any peer and any use of it.
//!
//! Holds what may happen to it and a plain decoder of both directions, and checks that it always ends.

use std::rc::Rc;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use kubestream::ConnectionError;
use kubestream::mux::{Config, Multiplexer};
use kubestream::portforward::{Connection, Error, PortForward, PortForwardServer, Request};
use kubestream::protocol::Subprotocol;
use kubestream::unstable::session::Role;
use kubestream::upgrade::{Protocol, Upgraded};

use crate::channel::decode_base64;
use crate::io::{self, Io, Task, once};
use crate::rfc6455::{self, Said};
use crate::session::peer::{Peer, Saying};

/// All different, so that a port shows its position.
const PORTS: [u16; 3] = [80, 0x1f90, 81];
const SUBPROTOCOLS: [Subprotocol; 3] = [Subprotocol::V4, Subprotocol::V4Base64, Subprotocol::Unnamed];

#[derive(Debug)]
enum Step<'a> {
    Peer(Saying<'a>),
    /// Sends the port, with which a channel begins.
    Greet {
        channel: u8,
        cut: u8,
    },
    Eof,
    ReadFails,
    WriteFails,
    Room(u16),
    /// Asks for a connection, or accepts one.
    Connect(u8),
    Answer {
        which: u8,
        how: u8,
    },
    Read {
        which: u8,
        pieces: u8,
    },
    Write {
        which: u8,
        len: u16,
    },
    Finish(u8),
    Drop(u8),
    DropForward,
    Pass(u8),
}

impl<'a> Step<'a> {
    fn next(input: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u8::arbitrary(input)? % 40 {
            kind @ ..14 => Self::Peer(Saying::next(kind, input)?),
            14..=18 => Self::Greet { channel: input.arbitrary()?, cut: input.arbitrary()? },
            19 => Self::Eof,
            20 => Self::ReadFails,
            21 => Self::WriteFails,
            22 => Self::Room(input.arbitrary()?),
            23..=26 => Self::Connect(input.arbitrary()?),
            27 | 28 => Self::Answer { which: input.arbitrary()?, how: input.arbitrary()? },
            29..=31 => Self::Read { which: input.arbitrary()?, pieces: input.arbitrary()? },
            32..=34 => Self::Write { which: input.arbitrary()?, len: input.arbitrary()? },
            35 => Self::Finish(input.arbitrary()?),
            36 => Self::Drop(input.arbitrary()?),
            37 => Self::DropForward,
            _ => Self::Pass(input.arbitrary()?),
        })
    }
}

enum Forward {
    Client(Rc<PortForward>),
    Server(PortForwardServer),
    Gone,
}

type Connecting = Task<std::result::Result<Connection, Error>>;

/// A connection with its position, and what was read of it.
#[derive(Default)]
struct Seen {
    connection: Option<Connection>,
    got: Vec<u8>,
    sent: Vec<u8>,
    finished: bool,
    /// How it ended, if it was read that far.
    end: Option<std::result::Result<(), Error>>,
}

struct Run {
    io: Io,
    role: Role,
    subprotocol: Subprotocol,
    forward: Forward,
    driver: Option<Task<std::result::Result<(), ConnectionError>>>,
    outcome: Option<std::result::Result<(), ConnectionError>>,
    connecting: Vec<Connecting>,
    requests: Vec<Request>,
    seen: [Seen; 3],
    peer: Peer,
}

/// Whatever a peer sends and whatever the user does, nothing panics, spins or hangs. What is written is WebSocket: each
/// channel of a server begins with its port, and then comes what the user wrote. What was read is what the peer sent,
/// and no connection ends in an orderly way unless the peer ended it so.
pub fn port_channels(input: &[u8]) {
    io::run(async {
        let mut input = Unstructured::new(input);
        let _ = run(&mut input).await;
    });
}

async fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let mut run = Run::new(input)?;
    while !input.is_empty() {
        let step = Step::next(input)?;
        run.step(step).await;
        run.turn();
    }
    run.end().await;
    Ok(())
}

impl Run {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let choice = u8::arbitrary(input)?;
        let role = if choice & 1 == 0 { Role::Client } else { Role::Server };
        let subprotocol = SUBPROTOCOLS[usize::from(choice >> 1) % 3];
        let io = Io::new(if choice & 0x80 == 0 { usize::MAX } else { 1 + usize::from(choice >> 3 & 7) });
        let mut config = Config::default();
        if choice & 0x40 != 0 {
            (config.receive_budget, config.stream_receive_budget, config.send_buffer) = (1000, 1000, 1000);
        }
        let settled = Some(Protocol::LegacyPortForward(subprotocol));
        let upgraded = Upgraded::new(io.clone(), Bytes::new(), settled).with_ports(&PORTS);
        let (forward, driver) = match role {
            Role::Client => {
                let (mux, driver) = Multiplexer::client(upgraded, config);
                (Forward::Client(Rc::new(PortForward::new(mux).unwrap())), driver)
            }
            Role::Server => {
                let (mux, driver) = Multiplexer::server(upgraded, config);
                (Forward::Server(PortForwardServer::new(mux).unwrap()), driver)
            }
        };
        Ok(Self {
            io,
            role,
            subprotocol,
            forward,
            driver: Some(Task::new(driver)),
            outcome: None,
            connecting: Vec::new(),
            requests: Vec::new(),
            seen: Default::default(),
            peer: Peer::new(role == Role::Server, subprotocol),
        })
    }

    async fn step(&mut self, step: Step<'_>) {
        let place = |which: u8| usize::from(which) % PORTS.len();
        match step {
            Step::Peer(saying) => self.peer.says(saying, &mut self.io.0.borrow_mut().said),
            Step::Greet { channel, cut } => {
                let channel = channel % 6;
                let port = PORTS[usize::from(channel / 2)].to_le_bytes();
                self.peer.message(channel, &port, cut, &mut self.io.0.borrow_mut().said);
            }
            Step::Eof => self.io.0.borrow_mut().eof = true,
            Step::ReadFails => self.io.0.borrow_mut().read_fails = true,
            Step::WriteFails => self.io.0.borrow_mut().write_fails = true,
            Step::Room(room) => self.io.0.borrow_mut().room = room.into(),
            Step::Connect(which) => self.connect(place(which)),
            Step::Answer { which, how } => self.answer(which, how),
            Step::Read { which, pieces } => self.read(place(which), pieces.into()),
            Step::Write { which, len } => {
                let data = self.peer.bytes(len);
                let seen = &mut self.seen[place(which)];
                if let Some(connection) = &mut seen.connection
                    && let Some(Ok(())) = once(connection.send(data.clone().into()))
                {
                    seen.sent.extend(data);
                }
            }
            Step::Finish(which) => {
                let seen = &mut self.seen[place(which)];
                if let Some(connection) = &mut seen.connection {
                    connection.finish();
                    seen.finished = true;
                }
            }
            Step::Drop(which) => self.seen[place(which)].connection = None,
            Step::DropForward => self.forward = Forward::Gone,
            Step::Pass(seconds) => io::pass(Duration::from_secs(seconds.into())).await,
        }
        self.io.0.borrow_mut().wake();
    }

    fn connect(&mut self, place: usize) {
        match &mut self.forward {
            Forward::Client(forward) if self.connecting.len() < 8 => {
                let forward = Rc::clone(forward);
                self.connecting.push(Task::new(async move { forward.connect(PORTS[place]).await }));
            }
            Forward::Server(server) => {
                if let Some(Some(Ok(request))) = once(server.accept()) {
                    assert!(PORTS.contains(&request.port()));
                    self.requests.push(request);
                }
            }
            Forward::Client(_) | Forward::Gone => {}
        }
    }

    fn answer(&mut self, which: u8, how: u8) {
        if self.requests.is_empty() {
            return;
        }
        let request = self.requests.swap_remove(usize::from(which) % self.requests.len());
        match how % 4 {
            0 => request.fail("nobody\nlistens"),
            1 => drop(once(request.fail_on_error_stream("nobody listens"))),
            2 => drop(request),
            _ => self.take(request.accept()),
        }
    }

    fn take(&mut self, connection: Connection) {
        let place = PORTS.iter().position(|port| *port == connection.port()).expect("the port was requested");
        let seen = &mut self.seen[place];
        let twice = seen.connection.replace(connection);
        assert!(twice.is_none(), "each port has one connection");
    }

    fn read(&mut self, place: usize, pieces: usize) {
        let seen = &mut self.seen[place];
        let Some(connection) = &mut seen.connection else { return };
        for _ in 0..pieces {
            match once(connection.data()) {
                Some(Some(Ok(data))) => {
                    assert!(seen.end.is_none(), "data after an end");
                    seen.got.extend_from_slice(&data);
                }
                Some(Some(Err(error))) => {
                    seen.end = Some(Err(error));
                    return;
                }
                Some(None) => {
                    seen.end = Some(Ok(()));
                    return;
                }
                None => return,
            }
        }
    }

    fn turn(&mut self) {
        let io = self.io.clone();
        let progress = || {
            let wire = io.0.borrow();
            (wire.read, wire.written.len(), wire.shut)
        };
        let woken =
            |run: &Self| run.driver.as_ref().is_some_and(Task::is_woken) || run.connecting.iter().any(Task::is_woken);
        let mut rounds = 0;
        while woken(self) {
            rounds += 1;
            assert!(rounds < 100_000, "the tasks wake each other for ever");
            if let Some(outcome) = self.driver.as_mut().and_then(|driver| driver.poll(progress)) {
                self.outcome = Some(outcome);
                self.driver = None;
            }
            let mut connected = Vec::new();
            self.connecting.retain_mut(|connecting| {
                let outcome = connecting.poll(|| ());
                let ready = outcome.is_some();
                connected.extend(outcome.and_then(std::result::Result::ok));
                !ready
            });
            connected.into_iter().for_each(|connection| self.take(connection));
        }
    }

    /// The peer ends, or is silent from now on. The user reads to the end and leaves.
    async fn end(mut self) {
        let silent = self.peer.bytes(1usize)[0] & 1 == 0;
        {
            let mut wire = self.io.0.borrow_mut();
            wire.eof |= !silent;
            wire.room = usize::MAX;
            wire.wake();
        }
        for seconds in [0, 1, 31, 31, 31, 31, 20_000, 20_000, 400, 400] {
            io::pass(Duration::from_secs(seconds)).await;
            self.turn();
            for place in 0..PORTS.len() {
                self.read(place, usize::MAX);
            }
            self.turn();
            if seconds == 20_000 {
                self.forward = Forward::Gone;
                self.requests.clear();
                self.seen.iter_mut().for_each(|seen| seen.connection = None);
                self.turn();
            }
        }
        assert!(self.outcome.is_some(), "the connection goes on for ever");
        assert!(self.connecting.is_empty(), "a task waits for ever");
        self.check();
    }

    fn check(&self) {
        let wire = self.io.0.borrow();
        let limits = Config::default().websocket;
        let server = self.role == Role::Server;
        let said = rfc6455::read(&wire.said[..wire.read], server, limits.max_message, limits.max_fragments);
        let close = said.said.iter().find_map(|said| if let Said::Close(reason) = said { Some(reason) } else { None });
        let code = close.map(|reason| reason.as_ref().map(|(code, _)| *code));
        let heard = self.messages(&said, !server);
        for (place, seen) in self.seen.iter().enumerate() {
            let on = |channel: usize| heard.iter().filter(move |message| usize::from(message.channel) == channel);
            let mut data: Vec<u8> = on(2 * place).flat_map(|message| &message.data).copied().collect();
            if !server {
                data.drain(..data.len().min(2));
            }
            assert!(data.starts_with(&seen.got), "{place}: what was read was not sent");
            match &seen.end {
                Some(Ok(())) if server => {
                    let farewell = matches!(code, Some(None | Some(1000 | 1001)));
                    assert!(seen.finished || farewell && data == seen.got, "{place}: an end that was not sent");
                }
                Some(Ok(())) => {
                    assert!(code == Some(Some(1000)) && data == seen.got, "{place}: an end that was not sent");
                    let is_error = |message: &Message| !message.greeting && !message.data.is_empty();
                    assert!(!on(2 * place + 1).any(is_error), "{place}: an end that was an error");
                }
                Some(Err(Error::Failed { reason, .. })) => {
                    let mut errors = on(2 * place + 1).filter(|message| !message.greeting && !message.data.is_empty());
                    let first = errors.next().expect("an error that was not sent");
                    let text = String::from_utf8_lossy(&first.data);
                    assert!(!first.whole || text.trim() == reason, "{place}: {reason:?} for {text:?}");
                }
                Some(Err(_)) | None => {}
            }
        }
        self.check_written(&wire.written);
    }

    fn check_written(&self, written: &[u8]) {
        let client = self.role == Role::Client;
        let reading = rfc6455::read(written, client, u64::MAX, 1);
        assert!(!matches!(reading.end, rfc6455::End::Broken(_)), "{:?}", reading.end);
        let mut data = <[Vec<u8>; 3]>::default();
        for message in self.messages(&reading, !client) {
            let (place, error) = (usize::from(message.channel / 2), message.channel & 1 == 1);
            assert!(place < PORTS.len() && !(client && error), "nobody's channel");
            if message.greeting {
                let port = PORTS[place].to_le_bytes();
                let whole = message.data == port || !message.whole && port.starts_with(&message.data);
                assert!(whole, "a channel begins with its port, alone");
            } else if !error {
                data[place].extend(message.data);
            }
        }
        for (data, seen) in data.iter().zip(&self.seen) {
            assert!(seen.sent.starts_with(data), "what was written is not the user's");
        }
    }

    /// The messages of a plain decoder. The last of them may be incomplete. `greeted` means that each channel begins
    /// with its port.
    fn messages(&self, reading: &rfc6455::Reading, greeted: bool) -> Vec<Message> {
        let whole = reading.said.iter().filter_map(|said| match said {
            Said::Message { bytes, .. } => Some((bytes, true)),
            _ => None,
        });
        let mut messages: Vec<Message> = Vec::new();
        for (bytes, whole) in whole.chain([(&reading.begun, false)]) {
            let Some((&first, data)) = bytes.split_first() else { continue };
            let base64 = self.subprotocol.is_base64();
            let channel = if base64 { first.wrapping_sub(b'0') } else { first };
            let data = if base64 { decoded(data) } else { data.to_vec() };
            let before: usize =
                messages.iter().filter(|other| other.channel == channel).map(|other| other.data.len()).sum();
            messages.push(Message { channel, greeting: greeted && before < 2, data, whole });
        }
        messages
    }
}

struct Message {
    channel: u8,
    /// The message contains part of the port, or all of it if it is ours.
    greeting: bool,
    data: Vec<u8>,
    whole: bool,
}

/// Decodes as much as is valid base64.
fn decoded(characters: &[u8]) -> Vec<u8> {
    let line: Vec<u8> = characters.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
    let mut whole = line.len() - line.len() % 4;
    loop {
        match decode_base64(&line[..whole]) {
            Ok(data) => return data,
            Err(_) => whole = whole.saturating_sub(4),
        }
    }
}
