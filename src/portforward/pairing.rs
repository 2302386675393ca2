//! Finds the two streams of each forwarded connection, without IO.
//!
//! Holds each half until the other half comes, and limits how many wait and how long. The streams can be of any type.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::port;
use crate::protocol::{PORT, REQUEST_ID, STREAM_TYPE};
use crate::wire::spdy::Headers;

/// The maximum length of a request id, in bytes. Clients use a counter, which has at most 20 digits.
const MAX_REQUEST_ID: usize = 64;

/// Which half of a pair a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // a pair has two
pub enum Kind {
    /// The data stream: the bytes of the connection.
    Data,
    /// The error stream: why the connection failed.
    Error,
}

/// One half of a pair, as the headers of its stream describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // the protocol has these headers
pub struct Half {
    /// Which half it is.
    pub kind: Kind,
    /// The port of the connection.
    pub port: u16,
    /// The request id of the connection.
    pub request: String,
}

impl Half {
    /// Reads the headers of a stream, as Go's servers do.
    ///
    /// # Errors
    /// What is wrong with the headers.
    pub fn of(headers: &Headers, id: u32) -> Result<Self, &'static str> {
        let kind = match headers.get(STREAM_TYPE) {
            Some("data") => Kind::Data,
            Some("error") => Kind::Error,
            Some(_) => return Err("the stream is neither data nor error"),
            None => return Err("the stream has no type"),
        };
        let port = headers.get(PORT).ok_or("the stream has no port")?;
        let port = port::parse(port).filter(|port| *port > 0).ok_or("the port is not a number from 1 to 65535")?;
        // Old clients send no request id. They make the error stream first, and the data stream directly after it.
        let request = match (headers.get(REQUEST_ID).filter(|request| !request.is_empty()), kind) {
            (Some(request), _) if request.len() > MAX_REQUEST_ID => return Err("the request id is too long"),
            (Some(request), _) => request.to_owned(),
            (None, Kind::Error) => id.to_string(),
            (None, Kind::Data) => id.saturating_sub(2).to_string(),
        };
        Ok(Self { kind, port, request })
    }
}

/// The halves that wait for their other half.
#[derive(Debug)]
pub struct Pairing<T> {
    waiting: HashMap<String, Waiting<T>>,
    /// When each half came, the oldest first. Some of them may be paired already.
    order: VecDeque<(Instant, u64, String)>,
    /// How many halves have waited. It numbers them: two halves of the same request id may have come at the same time.
    put: u64,
    timeout: Duration,
    most: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    half: Half,
    stream: T,
}

/// The result of `Pairing::offer`.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // complete: there is nothing else to become
pub enum Offered<T> {
    /// Both halves are there: the port, the request id, the data stream and the error stream.
    Paired(u16, String, T, T),
    /// The stream waits for its other half.
    Waits,
    /// The same half of this connection is waiting already.
    Twice(T),
    /// Too many halves wait.
    TooMany(T),
}

impl<T> Pairing<T> {
    /// Each half waits for up to `timeout`, and at most `most` halves wait.
    #[must_use]
    pub fn new(timeout: Duration, most: usize) -> Self {
        Self { waiting: HashMap::new(), order: VecDeque::new(), put: 0, timeout, most }
    }

    /// How many halves wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no half waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Joins a stream to its other half, or lets it wait.
    pub fn offer(&mut self, half: Half, stream: T, now: Instant) -> Offered<T> {
        match self.waiting.get(&half.request) {
            Some(other) if other.half.kind == half.kind => return Offered::Twice(stream),
            Some(_) => {}
            None if self.waiting.len() >= self.most => return Offered::TooMany(stream),
            None => {
                let request = half.request.clone();
                let number = self.put;
                self.put = number.wrapping_add(1);
                self.order.push_back((now, number, request.clone()));
                self.waiting.insert(request, Waiting { number, half, stream });
                return Offered::Waits;
            }
        }
        let Some(other) = self.waiting.remove(&half.request) else { return Offered::Twice(stream) };
        self.forget_found();
        match half.kind {
            // If the two ports differ, the data stream's port counts.
            Kind::Data => Offered::Paired(half.port, half.request, stream, other.stream),
            Kind::Error => Offered::Paired(other.half.port, half.request, other.stream, stream),
        }
    }

    /// When [`expire`](Self::expire) has to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.order.front()?.0.checked_add(self.timeout)
    }

    /// Takes a half that has waited for longer than the timeout.
    pub fn expire(&mut self, now: Instant) -> Option<(Half, T)> {
        while self.deadline()? <= now {
            let (_, number, request) = self.order.pop_front()?;
            if self.waiting.get(&request).is_some_and(|waiting| waiting.number == number) {
                return self.waiting.remove(&request).map(|waiting| (waiting.half, waiting.stream));
            }
        }
        None
    }

    /// Removes paired halves from the order once they outnumber the waiting ones. Otherwise the order would grow with
    /// each pair.
    fn forget_found(&mut self) {
        if self.order.len() > self.waiting.len().saturating_mul(2).saturating_add(16) {
            let waiting = &self.waiting;
            self.order
                .retain(|(_, number, request)| waiting.get(request).is_some_and(|waiting| waiting.number == *number));
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn half(kind: Kind, request: &str) -> Half {
        Half { kind, port: 80, request: request.to_owned() }
    }

    #[test]
    fn headers_say_which_half_a_stream_is() {
        let of = |headers: &[(&str, &str)], id| Half::of(&headers.iter().copied().collect(), id);
        let full = [("streamtype", "data"), ("port", "8080"), ("requestid", "7")];
        assert_eq!(of(&full, 9), Ok(Half { kind: Kind::Data, port: 8080, request: "7".to_owned() }));
        // Old clients: the error stream 5 and the data stream 7 are a pair.
        let old = |kind, id| of(&[("streamtype", kind), ("port", "80")], id).unwrap().request;
        assert_eq!((old("error", 5), old("data", 7)), ("5".to_owned(), "5".to_owned()));
        for bad in [
            &[("port", "80")][..],
            &[("streamtype", "stdin"), ("port", "80")],
            &[("streamtype", "data")],
            &[("streamtype", "data"), ("port", "0")],
            &[("streamtype", "data"), ("port", "65536")],
            &[("streamtype", "data"), ("port", "-1")],
            &[("streamtype", "data"), ("port", "+80")],
            &[("streamtype", "data"), ("port", "80"), ("requestid", &"7".repeat(65))],
            &[("streamtype", "data"), ("port", "http")],
        ] {
            assert!(of(bad, 1).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn two_halves_make_a_pair_in_either_order() {
        let now = Instant::now();
        let mut pairing = Pairing::new(Duration::from_secs(30), 10);
        assert_eq!(pairing.offer(half(Kind::Error, "0"), 1, now), Offered::Waits);
        assert_eq!(pairing.offer(half(Kind::Data, "1"), 2, now), Offered::Waits);
        assert_eq!(pairing.offer(half(Kind::Error, "0"), 3, now), Offered::Twice(3));
        assert_eq!(pairing.offer(half(Kind::Data, "0"), 4, now), Offered::Paired(80, "0".to_owned(), 4, 1));
        assert_eq!(pairing.offer(half(Kind::Error, "1"), 5, now), Offered::Paired(80, "1".to_owned(), 2, 5));
        assert!(pairing.is_empty());
    }

    #[test]
    fn a_half_waits_for_so_long_and_so_many_do() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut pairing = Pairing::new(Duration::from_secs(30), 2);
        pairing.offer(half(Kind::Error, "0"), 0, now);
        pairing.offer(half(Kind::Error, "1"), 1, later);
        assert_eq!(pairing.offer(half(Kind::Error, "2"), 2, later), Offered::TooMany(2));
        assert_eq!(pairing.deadline(), Some(now + Duration::from_secs(30)));
        assert_eq!(pairing.expire(now + Duration::from_secs(29)), None);
        assert_eq!(pairing.expire(now + Duration::from_secs(30)), Some((half(Kind::Error, "0"), 0)));
        assert_eq!(pairing.expire(now + Duration::from_secs(30)), None);
        assert_eq!(pairing.deadline(), Some(later + Duration::from_secs(30)));
        // An id that is used again does not expire with the time of the first.
        pairing.offer(half(Kind::Data, "1"), 3, later);
        pairing.offer(half(Kind::Error, "1"), 4, now + Duration::from_secs(35));
        assert_eq!(pairing.expire(now + Duration::from_secs(41)), None);
    }

    #[test]
    fn an_id_used_again_within_one_tick_of_the_clock_leaves_nothing_behind() {
        let now = Instant::now();
        let mut pairing = Pairing::new(Duration::from_secs(30), 10);
        for stream in 0..1000 {
            pairing.offer(half(Kind::Data, "0"), stream, now);
            pairing.offer(half(Kind::Error, "0"), stream, now);
            assert!(pairing.order.len() <= 17);
        }
        for (kind, request, stream) in
            [(Kind::Data, "0", 1000), (Kind::Data, "1", 1001), (Kind::Error, "0", 1002), (Kind::Data, "0", 1003)]
        {
            pairing.offer(half(kind, request), stream, now);
        }
        let end = now + Duration::from_secs(30);
        assert_eq!(pairing.expire(end), Some((half(Kind::Data, "1"), 1001)));
        assert_eq!(pairing.expire(end), Some((half(Kind::Data, "0"), 1003)));
        assert_eq!(pairing.expire(end), None);
    }

    quickcheck! {
        fn every_stream_is_somewhere_and_nothing_is_left_behind(steps: Vec<(bool, u8)>) -> bool {
            let now = Instant::now();
            let mut pairing = Pairing::new(Duration::from_secs(1), 50);
            let mut given = 0;
            for (number, (kind, request)) in steps.iter().enumerate() {
                let kind = if *kind { Kind::Data } else { Kind::Error };
                match pairing.offer(half(kind, &request.to_string()), number, now) {
                    Offered::Waits => {}
                    Offered::Twice(_) | Offered::TooMany(_) => given += 1,
                    Offered::Paired(_, _, one, other) => {
                        assert_ne!(one, other);
                        given += 2;
                    }
                }
                assert!(pairing.order.len() <= 2 * pairing.len() + 17);
            }
            let end = now + Duration::from_secs(1);
            while pairing.expire(end).is_some() {
                given += 1;
            }
            given == steps.len() && pairing.is_empty() && pairing.deadline().is_none()
        }
    }
}
