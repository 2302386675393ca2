//! Two ends in one process with a delay between them, in tokio's time, which a test may pause.
//!
//! Holds the bytes on their way, and how fast a path lets a sender go. It does not know what the bytes mean.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What lies between two ends.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// How long a byte takes there, and its answer back.
    pub round_trip: Duration,
    /// How many bytes of one direction are under way or wait to leave before a write waits.
    pub room: usize,
    /// A sender begins with as little as a new TCP connection, and sends twice as much in each round trip. Otherwise
    /// all that there is room for leaves at once.
    pub slow_start: bool,
}

impl Path {
    pub fn new(round_trip: Duration) -> Self {
        Self { round_trip, room: 64 * 1024 * 1024, slow_start: false }
    }

    /// The two ends of the path.
    pub fn ends(self) -> (Far, Far) {
        let lane = || Arc::new(Mutex::new(Lane::new(self)));
        let (there, back) = (lane(), lane());
        (Far::new(Arc::clone(&there), Arc::clone(&back)), Far::new(back, there))
    }
}

/// What a new TCP connection sends before it has heard of its first byte: ten segments.
const FIRST_FLIGHT: usize = 10 * 1460;

/// The bytes of one direction.
#[derive(Debug)]
struct Lane {
    path: Path,
    /// Bytes that may not leave yet.
    waiting: VecDeque<Bytes>,
    /// Bytes under way, and when they arrive.
    flying: VecDeque<(Instant, Bytes)>,
    /// When the sender hears that bytes have arrived, and of how many.
    heard: VecDeque<(Instant, usize)>,
    /// How many bytes may leave before the sender hears of them, and how many have.
    most: usize,
    unheard: usize,
    held: usize,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn new(path: Path) -> Self {
        Self {
            path,
            waiting: VecDeque::new(),
            flying: VecDeque::new(),
            heard: VecDeque::new(),
            most: if path.slow_start { FIRST_FLIGHT } else { usize::MAX },
            unheard: 0,
            held: 0,
            ended: false,
            reader: None,
            writer: None,
        }
    }

    /// Lets bytes leave up to `now`.
    fn advance(&mut self, now: Instant) {
        self.depart(now);
        while let Some((at, count)) = self.heard.front().copied().filter(|(at, _)| *at <= now) {
            self.heard.pop_front();
            self.unheard -= count;
            self.most = self.most.saturating_add(count);
            self.depart(at);
        }
    }

    fn depart(&mut self, at: Instant) {
        while self.unheard < self.most
            && let Some(mut piece) = self.waiting.pop_front()
        {
            let left = self.most - self.unheard;
            if piece.len() > left {
                self.waiting.push_front(piece.split_off(left));
            }
            if self.path.slow_start {
                self.unheard += piece.len();
                self.heard.push_back((at + self.path.round_trip, piece.len()));
            }
            self.flying.push_back((at + self.path.round_trip / 2, piece));
        }
    }

    /// When the next bytes arrive, or may leave.
    fn next(&self) -> Option<Instant> {
        let leave = self.heard.front().filter(|_| !self.waiting.is_empty()).map(|(at, _)| *at);
        self.flying.front().map(|(at, _)| *at).into_iter().chain(leave).min()
    }
}

/// One end.
#[derive(Debug)]
pub struct Far {
    out: Arc<Mutex<Lane>>,
    input: Arc<Mutex<Lane>>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Far {
    fn new(out: Arc<Mutex<Lane>>, input: Arc<Mutex<Lane>>) -> Self {
        Self { out, input, timer: None }
    }
}

impl AsyncRead for Far {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut lane = this.input.lock().unwrap();
        loop {
            let now = Instant::now();
            lane.advance(now);
            let before = buf.filled().len();
            while let Some((_, piece)) = lane.flying.front_mut().filter(|(at, _)| *at <= now)
                && buf.remaining() > 0
            {
                let count = piece.len().min(buf.remaining());
                buf.put_slice(&piece[..count]);
                piece.advance(count);
                if piece.is_empty() {
                    lane.flying.pop_front();
                }
                lane.held -= count;
            }
            if buf.filled().len() > before {
                let writer = lane.writer.take();
                drop(lane);
                writer.into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(()));
            }
            lane.reader = Some(cx.waker().clone());
            let Some(next) = lane.next() else {
                return if lane.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            };
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            timer.as_mut().reset(next);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for Far {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut lane = self.out.lock().unwrap();
        let count = buf.len().min(lane.path.room.saturating_sub(lane.held));
        if count == 0 && !buf.is_empty() {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        lane.held += count;
        lane.waiting.push_back(Bytes::copy_from_slice(&buf[..count]));
        lane.advance(Instant::now());
        let reader = lane.reader.take();
        drop(lane);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lane = self.out.lock().unwrap();
        lane.ended = true;
        lane.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

/// A dropped end has ended.
impl Drop for Far {
    fn drop(&mut self) {
        let mut lane = self.out.lock().unwrap();
        lane.ended = true;
        lane.reader.take().into_iter().for_each(Waker::wake);
    }
}
