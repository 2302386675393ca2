//! The steps of a session's run: reads each from the input, and performs it.
//!
//! It does not judge the outcome.

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use kubestream::ConnectionError;
use kubestream::mux::{Headers, RstStatus};
use kubestream::status::TerminalSize;
use kubestream::unstable::session::Role;
use kubestream::unstable::wire::channel::Channel;

use super::Run;
use super::peer::Saying;
use super::user::Made;
use crate::io::{self, Task, once};

/// The next action of the peer, the user, the network or time.
#[derive(Debug)]
pub(super) enum Step<'a> {
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
    /// One byte for the step. Frequent steps have several values, so that a mutation changes only one thing.
    pub(super) fn next(input: &mut Unstructured<'a>) -> Result<Self> {
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

impl Run {
    pub(super) async fn step(&mut self, step: Step<'_>) {
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
                if let Some(Made::Client(exec)) = &mut self.made {
                    // Even a call that is dropped drops the outputs that the session still has.
                    self.leave = false;
                    if let Some(Ok(status)) = once(exec.wait()) {
                        self.judge(status);
                    }
                }
            }
            Step::PingPeer => {
                if let (Some(mux), true) = (self.mux.clone(), self.pings.len() < 4) {
                    self.pings.push(Task::new(async move { mux.ping().await }));
                }
            }
            Step::GoAway => {
                self.ended = true;
                // It waits for the driver, but makes its request in the first poll.
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
                // The result that it had ended with before, if any.
                let closed = self.mux.as_ref().map(|mux| once(mux.closed()).unwrap());
                self.outcome = Some(closed.unwrap_or(Err(ConnectionError::DriverGone)));
            }
            Step::Open(kind) => {
                let kind = Channel::ALL[usize::from(kind % 5)];
                let headers = Headers::from_iter([("streamtype", name(kind))]);
                if let (Some(mux), false) = (&self.mux, self.sessions)
                    && let Some(Ok(stream)) = once(mux.open(headers))
                {
                    // Streams that a server asks for are refused at once.
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
