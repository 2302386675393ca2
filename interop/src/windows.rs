//! An IO that also parses what passes, and counts the windows that the peer grants (SPDY/3.1 §2.6.8).
//!
//! Counts what the library may send from the frames alone. It must not use the library's own count.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use kubestream::mux::SpdyConfig;
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame, SettingId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::codec::Decoder;

/// The initial size of every window, unless a SETTINGS frame changes it.
const INITIAL: i64 = 64 * 1024;

/// What has passed, and what is left of our windows.
#[derive(Debug)]
pub struct Windows {
    session: i64,
    streams: HashMap<StreamId, i64>,
    initial: i64,
    /// The smallest value of any window after a DATA frame of ours.
    pub lowest: i64,
    /// Whether the peer has sent INITIAL_WINDOW_SIZE.
    pub announced: bool,
    /// Bytes of DATA that we have sent.
    pub sent: usize,
    /// Bytes of DATA that we have received.
    pub received: usize,
    /// What the peer's WINDOW_UPDATEs have added to our session window.
    pub granted_to_us: u64,
    /// What our WINDOW_UPDATEs have added to the peer's session window.
    pub granted_by_us: u64,
}

impl Windows {
    fn sent(&mut self, frame: &Frame) {
        match frame {
            Frame::SynStream { id, .. } => self.open(*id),
            Frame::Data { id, data, .. } => {
                let length = i64::try_from(data.len()).expect("a frame's length");
                self.session -= length;
                let stream = self.streams.get_mut(id).expect("DATA on a stream that is open");
                *stream -= length;
                self.lowest = self.lowest.min(*stream).min(self.session);
                self.sent += data.len();
            }
            Frame::WindowUpdate { id: StreamId::SESSION, delta } => self.granted_by_us += u64::from(*delta),
            _ => {}
        }
    }

    fn received(&mut self, frame: &Frame) {
        match frame {
            Frame::SynStream { id, .. } => self.open(*id),
            Frame::Settings(settings) => {
                for entry in settings.entries() {
                    if entry.id == SettingId::INITIAL_WINDOW_SIZE {
                        // INITIAL_WINDOW_SIZE changes the windows of open streams, and not that of the session.
                        let moved = i64::from(entry.value) - self.initial;
                        self.initial += moved;
                        self.streams.values_mut().for_each(|window| *window += moved);
                        self.announced = true;
                    }
                }
            }
            Frame::WindowUpdate { id: StreamId::SESSION, delta } => {
                self.session += i64::from(*delta);
                self.granted_to_us += u64::from(*delta);
            }
            Frame::WindowUpdate { id, delta } => {
                if let Some(window) = self.streams.get_mut(id) {
                    *window += i64::from(*delta);
                }
            }
            Frame::Data { data, .. } => self.received += data.len(),
            _ => {}
        }
    }

    fn open(&mut self, id: StreamId) {
        self.streams.insert(id, self.initial);
    }
}

/// Parses the bytes of one direction into frames.
#[derive(Debug)]
struct Reader {
    codec: Codec,
    buffer: BytesMut,
}

impl Reader {
    fn new() -> Self {
        Self { codec: Codec::new(SpdyConfig::default()), buffer: BytesMut::new() }
    }

    fn read(&mut self, bytes: &[u8], mut each: impl FnMut(&Frame)) {
        self.buffer.extend_from_slice(bytes);
        while let Some(frame) = self.codec.decode(&mut self.buffer).expect("frames") {
            each(&frame);
        }
    }
}

/// An IO whose windows are counted.
#[derive(Debug)]
pub struct Watched<IO> {
    io: IO,
    sent: Reader,
    received: Reader,
    windows: Arc<Mutex<Windows>>,
}

impl<IO> Watched<IO> {
    /// Watches an IO that has carried no bytes yet.
    pub fn new(io: IO) -> (Self, Arc<Mutex<Windows>>) {
        let windows = Arc::new(Mutex::new(Windows {
            session: INITIAL,
            streams: HashMap::new(),
            initial: INITIAL,
            lowest: INITIAL,
            announced: false,
            sent: 0,
            received: 0,
            granted_to_us: 0,
            granted_by_us: 0,
        }));
        (Self { io, sent: Reader::new(), received: Reader::new(), windows: Arc::clone(&windows) }, windows)
    }
}

fn lock(windows: &Mutex<Windows>) -> MutexGuard<'_, Windows> {
    windows.lock().expect("the account")
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let mut windows = lock(&this.windows);
        this.received.read(&buf.filled()[before..], |frame| windows.received(frame));
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        let mut windows = lock(&this.windows);
        this.sent.read(&buf[..count], |frame| windows.sent(frame));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
