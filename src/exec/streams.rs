//! Which streams a session has, in which order a client makes them, and which protocol they need.
//!
//! Does no IO.

use super::error::Error;
use crate::mux::Multiplexer;
use crate::protocol::{Protocol, STREAM_TYPE, Transport, Version};
use crate::wire::spdy::Headers;

/// The streams of a session, apart from the error stream, which every session has. Client and server must name the same
/// streams. The query of the client's request says which streams these are ([`ExecRequest`](super::ExecRequest)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // the protocol has these streams and will have no others
pub struct Streams {
    /// The process reads what the client sends.
    pub stdin: bool,
    /// The client gets what the process writes to stdout.
    pub stdout: bool,
    /// The client gets what the process writes to stderr. With `tty` this is ignored, because stdout carries both.
    pub stderr: bool,
    /// The process runs on a terminal. The client sends the terminal's size: over SPDY from v3 on, over WebSocket in
    /// every version.
    pub tty: bool,
}

impl Streams {
    /// stdout and stderr: `kubectl exec` without flags.
    pub const OUTPUT: Self = Self { stdin: false, stdout: true, stderr: true, tty: false };
    /// stdin, stdout and stderr: `kubectl exec -i`.
    pub const PIPES: Self = Self { stdin: true, stdout: true, stderr: true, tty: false };
    /// stdin and stdout on a terminal: `kubectl exec -it`.
    pub const TTY: Self = Self { stdin: true, stdout: true, stderr: false, tty: true };

    /// The types of the streams, in the order in which client-go makes them.
    pub(super) fn types(self, protocol: Protocol, version: Version) -> impl Iterator<Item = StreamType> {
        // Over WebSocket every version has a channel for resize.
        let resizes = protocol.transport() != Transport::Spdy || version >= Version::V3;
        let wanted = move |kind: &StreamType| match kind {
            StreamType::Error => true,
            StreamType::Stdin => self.stdin,
            StreamType::Stdout => self.stdout,
            StreamType::Stderr => self.stderr && !self.tty,
            StreamType::Resize => self.tty && resizes,
        };
        StreamType::ALL.into_iter().filter(wanted)
    }
}

/// What a stream of a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamType {
    Error,
    Stdin,
    Stdout,
    Stderr,
    Resize,
}

impl StreamType {
    const ALL: [Self; 5] = [Self::Error, Self::Stdin, Self::Stdout, Self::Stderr, Self::Resize];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Resize => "resize",
        }
    }

    pub(super) fn of(headers: &Headers) -> Option<Self> {
        let name = headers.get(STREAM_TYPE)?;
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn headers(self) -> Headers {
        Headers::from_iter([(STREAM_TYPE, self.name())])
    }
}

pub(super) fn exec_protocol(mux: &Multiplexer) -> Result<(Protocol, Version), Error> {
    let protocol = mux.protocol();
    protocol.and_then(|protocol| Some((protocol, protocol.version()?))).ok_or(Error::NotExec(protocol))
}
