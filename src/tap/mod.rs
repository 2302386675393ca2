//! Reads the bytes that pass between a client and a server, and reports what they mean: streams, their bytes, terminal
//! sizes, and how the command ended.
//!
//! A [`Tap`] does no IO: give it copies of the bytes of each [`Side`], and take its [`TapEvent`]s. It changes and
//! answers nothing. Reading never fails: if the tap cannot read the bytes of a side, it reports [`TapEvent::Fault`]
//! once, and then nothing more about that side. An observer of a pipe of `kubestream-proxy` can feed a tap.
//!
//! A tap decodes the bytes with the same code as a client and a server of this crate.

mod event;
mod session;
mod side;
mod source;
mod streams;

use std::collections::VecDeque;

use crate::protocol::Protocol;
use crate::session::{Config, ConnectionError};
use bytes::Bytes;

use self::event::{Events, is_of_both};
pub use self::event::{MAX_NAME_LEN, StreamName, TapEvent, TapStream};
use self::session::Session;
use self::side::Both;
pub use self::side::Side;
use self::source::{Said, Source};
use self::streams::Streams;
use crate::wire::websocket::codes::NORMAL;

/// Reads a connection after its upgrade. Feed it the bytes of each side with [`feed`](Self::feed), and take what they
/// mean from [`poll_event`](Self::poll_event).
///
/// ```
/// use bytes::Bytes;
/// use kubestream::mux::Config;
/// use kubestream::upgrade::{Protocol, Version};
/// use kubestream::tap::{Side, StreamName, Tap, TapEvent};
///
/// let mut tap = Tap::new(Protocol::SpdyExec(Version::V4), &[], &Config::default());
/// # use kubestream::mux::SpdyConfig;
/// # use kubestream::mux::Headers;
/// # use kubestream::unstable::wire::spdy::StreamId;
/// # use kubestream::unstable::wire::spdy::{Codec, Frame};
/// # use tokio_util::codec::Encoder;
/// # let mut wire = bytes::BytesMut::new();
/// # let (id, associated, headers) = (StreamId::new(1), StreamId::SESSION, Headers::from_iter([("streamtype", "stdin")]));
/// # let (priority, slot, fin, unidirectional) = (0, 0, false, false);
/// # let mut codec = Codec::new(SpdyConfig::default());
/// # codec.encode(Frame::SynStream { id, associated, priority, slot, fin, unidirectional, headers }, &mut wire)?;
/// # codec.encode(Frame::Data { id, fin: true, data: Bytes::from_static(b"ls\n") }, &mut wire)?;
/// # let from_the_client = wire.freeze();
/// tap.feed(Side::Client, from_the_client);
/// let mut typed = Vec::new();
/// while let Some(event) = tap.poll_event() {
///     match event {
///         TapEvent::Data { stream, data, .. } if stream.name == StreamName::Stdin => typed.extend_from_slice(&data),
///         TapEvent::Fault { side, error } => eprintln!("the tap cannot read the {side}'s bytes: {error}"),
///         _ => {}
///     }
/// }
/// assert_eq!(typed, b"ls\n");
/// # Ok::<(), kubestream::unstable::wire::spdy::CodecError>(())
/// ```
///
/// You may cut the bytes anywhere. The cuts change only the pieces in which [`TapEvent::Data`] reports the bytes of a
/// stream. A size or a status is reported after the piece that has its last byte.
///
/// The data in an event shares the buffer that was fed, so keeping the event keeps that buffer in memory. Masked bytes
/// of a WebSocket client and base64 are copied.
///
/// A tap holds the bytes that were fed and not read yet, the beginning of a control frame that was cut, the open
/// streams, and a status until it is whole. [`Config::spdy`] and [`Config::websocket`] limit each of these, except the
/// fed bytes and the status: the length of control frames and headers, the number of streams, and the length and the
/// number of fragments of a WebSocket message. [`MAX_STATUS_LEN`](crate::status::MAX_STATUS_LEN) limits the status.
///
/// A tap has no clock. So the limits of [`SpdyConfig`](crate::mux::SpdyConfig) that count in a `rate_window` have no
/// effect, except [`max_header_bytes`](crate::mux::SpdyConfig::max_header_bytes), which a tap applies in another way:
/// it adds up the inflated bytes of a side's headers, and subtracts 16 for each byte that the side sends, but never
/// goes below 0. If this sum exceeds the limit, the tap reports a fault. The limits on answers have no effect either.
///
/// A tap reads bytes as the client and the server of `kubestream` do. If an end speaks the protocol differently, this
/// usually causes a [`TapEvent::Fault`]. So does what the server of Kubernetes, which is written in Go, would read as
/// something else: a message of a client in fragments, which Go takes for several messages; several values of a header
/// that names a stream, of which Go takes the first; and DATA before the SYN_STREAM, which Go may deliver. After a fault the bytes pass without being read: if that
/// must not happen, end the connection at the fault.
#[derive(Debug)]
pub struct Tap {
    fed: VecDeque<Fed>,
    events: Events,
    sources: Both<Box<Source>>,
    streams: Streams,
    session: Option<Session>,
    /// The sides about which the tap reports nothing more.
    blind: Both<bool>,
}

#[derive(Debug)]
enum Fed {
    Bytes(Side, Bytes),
    End(Side),
}

impl Tap {
    /// Creates a tap for a connection on which the two ends have agreed on `protocol`. `ports` are the ports that the
    /// request asked for, in the request's order: [`asked_ports`](crate::upgrade::asked_ports) or
    /// `kubestream_proxy::PodRequest::ports` returns them. Only [`Protocol::LegacyPortForward`] needs them. Of
    /// `config`, only [`spdy`](Config::spdy) and [`websocket`](Config::websocket) count.
    #[must_use]
    pub fn new(protocol: Protocol, ports: &[u16], config: &Config) -> Self {
        let session = protocol.version().map(|version| Session::new(version, protocol.transport()));
        let ports = match protocol {
            Protocol::LegacyPortForward(subprotocol) => ports.get(..subprotocol.max_ports()).unwrap_or(ports),
            _ => &[],
        };
        let source = |side| Box::new(Source::new(side, protocol, ports, config));
        let sources = Both { client: source(Side::Client), server: source(Side::Server) };
        let streams = Streams::new(protocol, ports, config.spdy.max_streams);
        Self { fed: VecDeque::new(), events: Events::new(), sources, streams, session, blind: Both::default() }
    }

    /// Takes the next bytes that a side has sent. The tap holds them until [`poll_event`](Self::poll_event) has read
    /// them, so call that until it returns `None`.
    pub fn feed(&mut self, side: Side, bytes: Bytes) {
        if !bytes.is_empty() && !self.blind[side] {
            self.fed.push_back(Fed::Bytes(side, bytes));
        }
    }

    /// Notes that a side sends no more bytes: [`TapEvent::Over`] follows once the bytes before are read.
    pub fn end(&mut self, side: Side) {
        self.fed.push_back(Fed::End(side));
    }

    /// Returns the next event. `None` means that the bytes that were fed hold no further event.
    pub fn poll_event(&mut self) -> Option<TapEvent> {
        loop {
            // Sizes are reported after the DATA that they came in, and before the end of its stream.
            if let None | Some(TapEvent::End { .. }) = self.events.front()
                && let Some(event) = self.session.as_mut().and_then(Session::poll_size)
            {
                return Some(event);
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match self.fed.front_mut()? {
                Fed::Bytes(side, _) if self.blind[*side] => {
                    self.fed.pop_front();
                }
                Fed::Bytes(side, bytes) => {
                    let side = *side;
                    let read = self.sources[side].next(bytes);
                    match read.and_then(|said| said.map(|said| self.take(side, said)).transpose()) {
                        Ok(Some(())) => {}
                        Ok(None) => {
                            self.fed.pop_front();
                        }
                        Err(error) => self.fail(side, error),
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

    /// Whether the tap reports nothing more about a side: after its [`TapEvent::Over`] or a [`TapEvent::Fault`].
    #[must_use]
    pub fn is_blind(&self, side: Side) -> bool {
        self.blind[side]
    }

    fn take(&mut self, side: Side, said: Said) -> Result<(), ConnectionError> {
        match said {
            Said::Message(message) => self.streams.take(side, message, self.session.as_mut(), &mut self.events)?,
            Said::Close(reason) => {
                if let Some(session) = &mut self.session
                    && side == Side::Server
                {
                    let normal = reason.as_ref().is_some_and(|reason| reason.code == NORMAL);
                    session.finish(normal && self.sources[side].is_between_frames(), &mut self.events);
                }
                let (code, reason) = reason.map(|reason| (reason.code, reason.reason)).unzip();
                self.events.push_back(TapEvent::Close { side, code, reason: reason.unwrap_or_default() });
            }
            Said::Nothing => {}
        }
        Ok(())
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
        let cut = !self.sources[side].is_between_frames();
        self.events.push_back(TapEvent::Over { side, cut });
    }

    fn fail(&mut self, side: Side, error: ConnectionError) {
        self.blind[side] = true;
        if is_of_both(&error) {
            self.blind = Both { client: true, server: true };
        }
        self.events.push_back(TapEvent::Fault { side, error });
    }
}
