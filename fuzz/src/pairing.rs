//! Tests the pairing of port-forward's streams against a plain list.
//!
//! Holds the list, and the two kinds of input for both. The headers of a stream also come from the input.

use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use kubestream::mux::Headers;
use kubestream::unstable::pairing::{Half, Kind, Offered, Pairing};

const TIMEOUT: Duration = Duration::from_secs(30);
const MOST: usize = 8;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A stream with arbitrary headers.
    Opens { kind: Value, port: Value, request: Value, id: u8 },
    /// A stream as a client makes it, with few request ids, so that halves meet.
    Half { data: bool, port: u8, request: u8 },
    /// Time passes, in seconds.
    Wait(u8),
}

/// A header's value: missing, valid, or arbitrary.
#[derive(Arbitrary, Debug)]
enum Value {
    None,
    Known(u8),
    Any(String),
}

impl Value {
    fn text(self, known: &[&str]) -> Option<String> {
        match self {
            Self::None => None,
            Self::Known(number) => known.get(usize::from(number) % known.len()).map(|&text| text.to_owned()),
            Self::Any(text) => Some(text),
        }
    }
}

/// Every stream gets the result that a plain list gives. It waits no longer than the timeout and with no more streams
/// than the limit, and comes out exactly once: with its other half, refused, or expired.
pub fn pairing(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let mut now = Instant::now();
    let mut pairing = Pairing::new(TIMEOUT, MOST);
    let mut list: Vec<(Instant, Half, usize)> = Vec::new();
    let (mut stream, mut out) = (0, 0);
    while !input.is_empty() {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        let half = match step {
            Step::Wait(seconds) => {
                now += Duration::from_secs(u64::from(seconds));
                out += expire(&mut pairing, &mut list, now);
                continue;
            }
            Step::Half { data, port, request } => Half {
                kind: if data { Kind::Data } else { Kind::Error },
                port: u16::from(port).max(1),
                request: (request % 16).to_string(),
            },
            Step::Opens { kind, port, request, id } => {
                let kind = kind.text(&["data", "error", "stdin"]);
                let port = port.text(&["80", "65535", "0", "65536", "-1", "+1", "080"]);
                let request = request.text(&["0", "7", ""]);
                let Some(half) = read(kind, port, request, id) else { continue };
                half
            }
        };
        let found = list.iter().position(|(_, other, _)| other.request == half.request);
        let expected = match found {
            Some(at) if list[at].1.kind == half.kind => Offered::Twice(stream),
            Some(at) => {
                let (_, other, waited) = list.remove(at);
                match half.kind {
                    Kind::Data => Offered::Paired(half.port, half.request.clone(), stream, waited),
                    Kind::Error => Offered::Paired(other.port, half.request.clone(), waited, stream),
                }
            }
            None if list.len() == MOST => Offered::TooMany(stream),
            None => {
                list.push((now, half.clone(), stream));
                Offered::Waits
            }
        };
        out += match expected {
            Offered::Waits => 0,
            Offered::Twice(_) | Offered::TooMany(_) => 1,
            Offered::Paired(..) => 2,
        };
        assert_eq!(pairing.offer(half, stream, now), expected);
        assert_eq!(pairing.len(), list.len());
        // It may wake for a half that has been paired since, but never too late.
        let next = list.first().map(|(since, ..)| *since + TIMEOUT);
        assert!(next.is_none_or(|next| pairing.deadline().is_some_and(|deadline| deadline <= next)));
        stream += 1;
    }
    now += TIMEOUT;
    out += expire(&mut pairing, &mut list, now);
    assert!(pairing.is_empty() && pairing.deadline().is_none());
    assert_eq!(out, stream, "every stream came out once");
}

/// Checks that everything that is due comes out, the oldest first, and nothing else.
fn expire(pairing: &mut Pairing<usize>, list: &mut Vec<(Instant, Half, usize)>, now: Instant) -> usize {
    let mut expired = 0;
    while let Some(out) = pairing.expire(now) {
        let (since, half, stream) = list.remove(0);
        assert!(since + TIMEOUT <= now);
        assert_eq!(out, (half, stream));
        expired += 1;
    }
    assert!(list.iter().all(|(since, ..)| *since + TIMEOUT > now));
    expired
}

/// The result of the headers: their values or an error.
fn read(kind: Option<String>, port: Option<String>, request: Option<String>, id: u8) -> Option<Half> {
    let pairs = [("streamtype", &kind), ("port", &port), ("requestid", &request)];
    let headers: Headers =
        pairs.iter().filter_map(|(name, value)| value.as_deref().map(|value| (*name, value))).collect();
    let half = Half::of(&headers, u32::from(id)).ok()?;
    let said = match half.kind {
        Kind::Data => "data",
        Kind::Error => "error",
    };
    assert_eq!(kind.as_deref(), Some(said));
    let port = port.expect("a port was read although there was none");
    assert!(half.port > 0 && port.trim_start_matches('0') == half.port.to_string());
    match request.filter(|request| !request.is_empty()) {
        Some(request) => assert!(half.request == request && request.len() <= 64),
        None => {
            assert!(half.request.parse().is_ok_and(|of: u32| of == u32::from(id) || of + 2 == u32::from(id) || id < 2))
        }
    }
    Some(half)
}
