//! Checks what must hold after a session is over.
//!
//! Holds what a plain decoder reads in both directions.

use kubestream::ConnectionError;
use kubestream::protocol::Subprotocol;
use kubestream::status::{ExitStatus, Status};
use kubestream::unstable::session::Role;
use kubestream::unstable::wire::channel::{Channel, Event};
use kubestream::unstable::wire::websocket::{Fault, WebSocketError};
use kubestream::upgrade::Version;

use super::{Judged, Run};
use crate::channel::plain;
use crate::io;
use crate::rfc6455::{self, End, Said};

type Outcome = Result<(), ConnectionError>;

impl Run {
    pub(super) fn check(&self, outcome: &Outcome) {
        let wire = self.io.0.borrow();
        let heard = self.hear(&wire.said[..wire.read]);
        self.check_outcome(outcome, &heard, &wire);
        for at in 0..5 {
            assert!(heard.data[at].starts_with(&self.got[at]), "channel {at}: what was read was not sent");
            if self.finished[at] && self.role == Role::Server {
                let said = heard.closed[at] || heard.goodbye();
                assert!(said && heard.data[at] == self.got[at], "channel {at}: an end that was not sent");
            }
            if self.finished[at] && !self.ended {
                assert!(heard.data[at] == self.got[at], "channel {at}: not all was read");
            }
        }
        self.check_written(&wire.written, outcome, &heard);
        if let Some(Judged { status, read, wanted }) = &self.status {
            let heard = self.hear(&wire.said[..*read]);
            let said = &heard.data[3];
            let normal = matches!(&heard.close, Some(Some((1000, _))));
            if self.subprotocol.version() >= Version::V4 {
                assert!(!said.is_empty(), "{status:?} although none was sent");
            } else if wanted.contains(&true) {
                // Before v4 a text does not show that it is complete.
                assert!(heard.goodbye(), "{status:?} although the outputs were cut");
            }
            if status.success() {
                let says = said.windows(7).any(|word| word == b"Success") || said.contains(&b'\\');
                let success = if self.subprotocol.version() >= Version::V4 { says } else { normal && said.is_empty() };
                assert!(success, "a success that was not sent");
            }
        }
        if self.role == Role::Server && outcome.is_ok() {
            assert!(!self.shut_early, "a server that ended its side before its client did");
        }
        // A malformed message may have begun like a status. If the driver was dropped and no handle was left, the error
        // is not known.
        let malformed = match outcome {
            Err(ConnectionError::Malformed(_)) => true,
            Err(ConnectionError::DriverGone) => heard.bad || matches!(heard.end, End::Broken(_)),
            _ => false,
        };
        if !malformed {
            self.check_silence_after_status(&wire.said);
        }
    }

    fn check_outcome(&self, outcome: &Outcome, heard: &Heard, wire: &io::Wire) {
        match outcome {
            Ok(()) => {
                let orderly = match &heard.close {
                    Some(None) => self.role == Role::Server,
                    Some(Some((code, _))) => *code == 1000 || *code == 1001 && self.role == Role::Server,
                    None => false,
                };
                let has_status = self.role == Role::Client && !heard.data[3].is_empty();
                assert!(orderly || has_status || self.ended, "an orderly end that was not sent");
            }
            Err(ConnectionError::Malformed(error)) => {
                let frame = matches!(&heard.end, End::Broken(broken) if error == broken);
                let text = *error == WebSocketError::Fault(Fault::Text) && self.role == Role::Client;
                let message = error.to_string().starts_with("malformed channel message") && heard.bad;
                assert!(frame || text || message, "{error:?} for {:?}", heard.end);
            }
            Err(ConnectionError::PeerClosed { code, reason }) => {
                let close = code.map(|code| (code, reason.clone()));
                assert_eq!(heard.close, Some(close));
            }
            // A Close inside a message is not an end.
            Err(ConnectionError::Lost) if heard.close.is_some() && heard.inside => {}
            Err(ConnectionError::Lost) => assert!(wire.eof && wire.read == wire.said.len()),
            Err(ConnectionError::KeepaliveTimeout(_) | ConnectionError::IdleTimeout(_)) => {
                let last = self.marks.iter().rfind(|mark| mark.open);
                let last = last.filter(|last| !last.paused && !wire.write_fails);
                let close = last.and_then(|last| self.hear(&wire.said[..last.read]).close);
                assert!(close.is_none(), "a Close that was not noticed");
            }
            Err(ConnectionError::Io(_)) => assert!(wire.read_fails || wire.write_fails),
            Err(
                ConnectionError::DriverGone
                | ConnectionError::LimitExceeded { .. }
                | ConnectionError::FlushTimeout(_)
                | ConnectionError::Stalled { .. },
            ) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Checks that we wrote only what our role may write, and only what the user wrote.
    fn check_written(&self, written: &[u8], outcome: &Outcome, heard: &Heard) {
        let client = self.role == Role::Client;
        let base64 = self.subprotocol.is_base64();
        // Some peers do not join fragments.
        let reading = rfc6455::read(written, client, u64::MAX, 1);
        assert!(!matches!(reading.end, End::Broken(_)), "{:?}", reading.end);
        if reading.end == End::Closed {
            assert_eq!(reading.taken, written.len(), "written after a Close");
        }
        let (mut data, mut greeted, mut closed, mut pongs) = (<[Vec<u8>; 5]>::default(), false, false, 0);
        let mut normal = false;
        for said in &reading.said {
            match said {
                Said::Message { text, bytes } => {
                    assert_eq!(*text, base64);
                    let event = plain(self.subprotocol, client, bytes).unwrap();
                    match event {
                        Some(Event::Data { channel, data: more }) => {
                            assert!(!closed || channel != Channel::Stdin, "stdin after its end");
                            data[usize::from(channel.number())].extend_from_slice(&more);
                        }
                        Some(Event::Close(channel)) => {
                            assert!(!std::mem::replace(&mut closed, true) && channel == Channel::Stdin);
                        }
                        None => {
                            let again = std::mem::replace(&mut greeted, true);
                            assert!(!again && !client && bytes.len() == 1, "a message without content");
                            let stderr = self.want.stderr && !self.want.tty;
                            let lowest =
                                [(self.want.stdout, 1), (stderr, 2), (true, 3)].into_iter().find(|(is, _)| *is);
                            assert!(
                                !self.sessions || lowest == Some((true, bytes[0] & 0x0f)),
                                "a message on another channel"
                            );
                        }
                    }
                    assert!(client || greeted || !self.sessions, "a server sends its greeting first");
                }
                Said::Ping(payload) => assert_eq!(payload.len(), 4),
                Said::Pong(payload) => {
                    assert!(heard.pings.contains(payload), "a PONG without a PING");
                    pongs += 1;
                }
                Said::Close(reason) => normal = matches!(reason, Some((1000, _))),
            }
        }
        // Before v4 silence and an orderly end mean success, so merely leaving must not look like that.
        if !client && self.sessions && greeted && normal && data[3].is_empty() && heard.close.is_none() {
            assert!(self.succeeded, "a success that was not sent");
        }
        let exited = !client && self.exited && outcome.is_ok() && heard.close.is_none();
        assert!(greeted || !exited, "a server never sent its greeting");
        assert!(pongs <= heard.pings.len());
        // If the user drops a session, the session reports that the command failed.
        let failure = Status::internal_error("the server let the session go before the command had ended");
        let failure = ExitStatus::Failed(Box::new(failure)).encode(self.subprotocol.version());
        let let_go = !client && self.sessions && !self.exited;
        for (at, (data, sent)) in data.iter().zip(&self.sent).enumerate() {
            let failed = at == 3 && let_go && failure.starts_with(data);
            assert!(sent.starts_with(data) || failed, "channel {at}: what was written is not the user's");
            // A status comes after everything else.
            if exited {
                assert!(sent == data, "channel {at}: bytes are missing");
            }
        }
    }

    /// Checks that nothing is written after a status, because a Go server that is finishing would lose the tail of its
    /// output.
    fn check_silence_after_status(&self, said: &[u8]) {
        if self.role == Role::Server {
            return;
        }
        let Some(last) = self.marks.last() else { return };
        let has_status = |read: usize| !self.hear(&said[..read]).data[3].is_empty();
        if !has_status(last.read) {
            return;
        }
        let (mut low, mut high) = (0, last.read);
        while low < high {
            let middle = low + (high - low) / 2;
            if has_status(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let Some(first) = self.marks.iter().find(|mark| mark.read >= low && mark.made) else { return };
        if first.paused || !self.sessions {
            return;
        }
        // A PING may go to a silent server, and a Close is the goodbye of a server that leaves with its status.
        let written = &self.io.0.borrow().written;
        // A frame whose first bytes were out is written to its end.
        let written = written[rfc6455::frame_end(written, true, first.written)..].to_vec();
        let reading = rfc6455::read(&written, true, u64::MAX, 1);
        let allowed = reading.said.iter().all(|said| match said {
            Said::Ping(payload) => payload.len() == 4,
            Said::Close(reason) => matches!(reason, Some((1000, _))),
            Said::Message { .. } | Said::Pong(_) => false,
        });
        assert!(allowed && !matches!(reading.end, End::Broken(_)), "written after the status: {written:02x?}");
        assert!(reading.end != End::Closed || reading.taken == written.len(), "written after the goodbye");
    }

    pub(super) fn hear(&self, bytes: &[u8]) -> Heard {
        let (limits, server) = (&self.config.websocket, self.role == Role::Server);
        let reading = rfc6455::read(bytes, server, limits.max_message, limits.max_fragments);
        let mut heard = Heard {
            data: Default::default(),
            closed: Default::default(),
            bad: false,
            close: None,
            inside: reading.inside,
            pings: Vec::new(),
            end: reading.end,
        };
        for said in reading.said {
            match said {
                Said::Message { text: true, .. } if !server && !self.subprotocol.is_base64() => {
                    heard.end = End::Broken(Fault::Text.into());
                    return heard;
                }
                Said::Message { bytes, .. } => match plain(self.subprotocol, server, &bytes) {
                    Ok(Some(Event::Data { channel, data })) => heard.hear(channel, &data),
                    Ok(Some(Event::Close(channel))) if channel.is_clients() => {
                        heard.closed[usize::from(channel.number())] = true;
                    }
                    Ok(_) => {}
                    Err(_) => {
                        self.hear_part(&mut heard, &bytes);
                        heard.bad = true;
                        return heard;
                    }
                },
                Said::Ping(payload) => heard.pings.push(payload),
                Said::Pong(_) => {}
                Said::Close(reason) => heard.close = Some(reason),
            }
        }
        heard.bad = self.hear_part(&mut heard, &reading.begun);
        heard
    }

    /// Adds a message that is incomplete, or invalid from some point on. Returns whether that is allowed.
    fn hear_part(&self, heard: &mut Heard, bytes: &[u8]) -> bool {
        let server = self.role == Role::Server;
        if !self.subprotocol.is_base64() {
            let said = plain(self.subprotocol, server, bytes);
            if let Ok(Some(Event::Data { channel, data })) = &said {
                heard.hear(*channel, data);
            }
            return matches!(bytes, [255, _, ..]) && self.subprotocol == Subprotocol::V5;
        }
        let line: Vec<u8> = bytes.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
        let bytes = &line[..];
        let mut whole = bytes.len() - bytes.len().saturating_sub(1) % 4;
        let all = whole;
        loop {
            match plain(self.subprotocol, server, &bytes[..whole]) {
                Ok(Some(Event::Data { channel, data })) => {
                    heard.hear(channel, &data);
                    break;
                }
                Ok(_) => break,
                Err(_) => whole = whole.saturating_sub(4).max(1),
            }
        }
        whole < all || bytes[..all].ends_with(b"=") && bytes.len() > all
    }
}

/// What the peer has sent.
pub(super) struct Heard {
    data: [Vec<u8>; 5],
    closed: [bool; 5],
    /// A message is invalid in the subprotocol, or may turn out to be.
    bad: bool,
    pub(super) close: Option<Option<(u16, String)>>,
    /// The peer's bytes end inside a message.
    inside: bool,
    pings: Vec<Vec<u8>>,
    end: End,
}

impl Heard {
    /// True if the peer has said goodbye.
    fn goodbye(&self) -> bool {
        matches!(&self.close, Some(None | Some((1000 | 1001, _))))
    }

    fn hear(&mut self, channel: Channel, data: &[u8]) {
        let at = usize::from(channel.number());
        if !self.closed[at] {
            self.data[at].extend_from_slice(data);
        }
    }
}
