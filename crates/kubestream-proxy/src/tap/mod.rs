//! What passes between two ends, read without touching it.
//!
//! Owns the order of what is reported, and that reading never fails: what cannot be followed is said once, and no more of it is
//! reported. It must not keep what passes, answer it, or judge it: the bytes are the two ends', whatever is read in them.
//!
//! ```
//! use bytes::Bytes;
//! use kubestream::proxy::{Event, Name, Side, Tap};
//! use kubestream::spdy::Limits;
//! use kubestream::upgrade::{Protocol, Version};
//!
//! let mut tap = Tap::new(Protocol::Exec(Version::V4), &[], Limits::default());
//! # use kubestream::spdy::{Codec, Frame, Headers, StreamId};
//! # use tokio_util::codec::Encoder;
//! # let mut wire = bytes::BytesMut::new();
//! # let (id, associated, headers) = (StreamId::new(1), StreamId::SESSION, Headers::from_iter([("streamtype", "stdin")]));
//! # let (priority, slot, fin, unidirectional) = (0, 0, false, false);
//! # let mut codec = Codec::new(Limits::default());
//! # codec.encode(Frame::SynStream { id, associated, priority, slot, fin, unidirectional, headers }, &mut wire)?;
//! # codec.encode(Frame::Data { id, fin: true, data: Bytes::from_static(b"ls\n") }, &mut wire)?;
//! # let from_the_client = wire.freeze();
//! tap.feed(Side::Client, from_the_client);
//! let mut typed = Vec::new();
//! while let Some(event) = tap.poll_event() {
//!     match event {
//!         Event::Data { stream, data, .. } if stream.name == Name::Stdin => typed.extend_from_slice(&data),
//!         Event::Fault { side, error } => eprintln!("the {side}'s bytes cannot be followed: {error}"),
//!         _ => {}
//!     }
//! }
//! assert_eq!(typed, b"ls\n");
//! # Ok::<(), kubestream::spdy::CodecError>(())
//! ```

mod channels;
mod event;
mod ports;
mod session;
mod spdy;
mod tunnel;
mod wire;

use std::collections::VecDeque;

use bytes::Bytes;

pub use self::event::{Event, Farewell, Forwarded, MAX_NAME_LEN, Name, Stream, TapError};
use self::session::Session;
use self::wire::Both;
use super::Side;
use crate::config::Limits;
use crate::upgrade::Protocol;

use self::{channels::Channels, ports::Ports, tunnel::Tunnel};

/// An observer of a connection past its 101: it is fed what each side says, and tells what that is.
///
/// The bytes may be cut anywhere, and where they are makes no difference but to the pieces of DATA: what is read in them, a size or
/// a status, is told behind the piece that has its last byte. A piece of a stream is a
/// slice of the bytes it was fed, so that whoever keeps one keeps those, but for what a client of WebSocket has masked, and base64:
/// that is copied. It holds the bytes that were fed and not asked about yet; the frame that is cut, if it is one of
/// control; the streams that live; and a status until it is whole. [`Limits`] bounds each of these: control frames and headers, the
/// streams, the length and the fragments of a message. A tap knows no time: [`Limits::max_header_bytes`] counts what blocks inflate to
/// beyond 16 times the bytes that their side has said, and the other rates, and what has to do with answers, do nothing.
///
/// Bytes are read as the ends of this crate read them. A peer that reads something else in them is one that it cannot follow:
/// most of that is a [`Event::Fault`], and whoever must not miss anything ends the connection there.
#[derive(Debug)]
pub struct Tap {
    fed: VecDeque<Fed>,
    events: Events,
    followed: Followed,
    session: Option<Session>,
    /// Of whom nothing more is reported.
    blind: Both<bool>,
}

/// What one step told: a few at most.
type Events = VecDeque<Event>;

#[derive(Debug)]
enum Fed {
    Bytes(Side, Bytes),
    End(Side),
}

#[derive(Debug)]
enum Followed {
    Spdy(Box<spdy::Spdy>),
    Tunnel(Box<Tunnel>),
    Channels(Box<Channels>),
    Ports(Box<Ports>),
}

impl Tap {
    /// For a connection on which this was settled. `ports`: those that the request asked for, where that is
    /// `Protocol::PortChannels`; else none.
    #[must_use]
    pub fn new(protocol: Protocol, ports: &[u16], limits: Limits) -> Self {
        let session = protocol.version().map(|version| Session::new(version, protocol.carrier()));
        let followed = match protocol {
            Protocol::Exec(_) | Protocol::PortForward => Followed::Spdy(Box::new(spdy::Spdy::new(protocol, &limits))),
            Protocol::Tunnel => Followed::Tunnel(Box::new(Tunnel::new(&limits))),
            Protocol::Channel(subprotocol) => Followed::Channels(Box::new(Channels::new(subprotocol, &limits))),
            Protocol::PortChannels(subprotocol) => Followed::Ports(Box::new(Ports::new(subprotocol, ports, &limits))),
        };
        Self { fed: VecDeque::new(), events: Events::new(), followed, session, blind: Both::default() }
    }

    /// Takes the next bytes of a side. [`poll_event`](Self::poll_event) reads them: until it has, they are held.
    pub fn feed(&mut self, side: Side, bytes: Bytes) {
        if !bytes.is_empty() && !self.blind[side] {
            self.fed.push_back(Fed::Bytes(side, bytes));
        }
    }

    /// A side's bytes have ended.
    pub fn end(&mut self, side: Side) {
        self.fed.push_back(Fed::End(side));
    }

    /// What was said next. `None`: nothing more in what was fed.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            // The sizes behind the DATA that they came in, and before its end.
            if let None | Some(Event::End { .. }) = self.events.front()
                && let Some(event) = self.session.as_mut().and_then(Session::poll_size)
            {
                return Some(event);
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match self.fed.front_mut()? {
                Fed::Bytes(side, bytes) => {
                    let side = *side;
                    let went_on = !self.blind[side]
                        && match self.followed.step(side, bytes, self.session.as_mut(), &mut self.events) {
                            Ok(went_on) => went_on,
                            Err(error) => {
                                self.fail(side, error);
                                false
                            }
                        };
                    if !went_on {
                        self.fed.pop_front();
                    }
                }
                Fed::End(side) => {
                    let side = *side;
                    self.fed.pop_front();
                    self.over(side);
                }
            }
        }
    }

    /// Whether a side is followed no more.
    #[must_use]
    pub fn is_blind(&self, side: Side) -> bool {
        self.blind[side]
    }

    fn over(&mut self, side: Side) {
        if std::mem::replace(&mut self.blind[side], true) {
            return;
        }
        if side == Side::Server
            && let Some(session) = &mut self.session
        {
            session.finish(false, &mut self.events);
        }
        let cut = !self.followed.is_between_frames(side);
        self.events.push_back(Event::Over { side, cut });
    }

    fn fail(&mut self, side: Side, error: TapError) {
        self.blind[side] = true;
        if error.is_of_both() {
            self.blind = Both { client: true, server: true };
        }
        self.events.push_back(Event::Fault { side, error });
    }
}

impl Followed {
    /// Reads some of the bytes. `false`: they are used up.
    fn step(
        &mut self,
        side: Side,
        bytes: &mut Bytes,
        session: Option<&mut Session>,
        events: &mut Events,
    ) -> Result<bool, TapError> {
        match self {
            Self::Spdy(spdy) => spdy.step(side, bytes, session, events),
            Self::Tunnel(tunnel) => tunnel.step(side, bytes, events),
            Self::Channels(channels) => channels.step(side, bytes, session, events),
            Self::Ports(ports) => ports.step(side, bytes, events),
        }
    }

    fn is_between_frames(&self, side: Side) -> bool {
        match self {
            Self::Spdy(spdy) => spdy.is_between_frames(side),
            Self::Tunnel(tunnel) => tunnel.is_between_frames(side),
            Self::Channels(channels) => channels.is_between_messages(side),
            Self::Ports(ports) => ports.is_between_messages(side),
        }
    }
}
