//! A played peer: it sends and reads frames, and keeps only to the rules of their encoding. Like Go's peers it has no
//! windows and answers nothing by itself.
//!
//! Encodes and decodes the frames.

use futures_util::{SinkExt, StreamExt};
use kubestream::mux::SpdyConfig;
use kubestream::mux::{GoAwayStatus, Headers, RstStatus};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio_util::codec::Framed;

pub use crate::frame::{data, fin, reply, rst, window_update};

pub struct Peer<IO = DuplexStream> {
    wire: Framed<IO, Codec>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Peer<IO> {
    pub fn new(io: IO) -> Self {
        Self { wire: Framed::new(io, Codec::new(SpdyConfig::default())) }
    }

    pub async fn say(&mut self, frame: Frame) {
        self.wire.send(frame).await.unwrap();
    }

    /// As [`say`](Self::say), if the other end may be gone. Returns whether it still exists.
    pub async fn try_say(&mut self, frame: Frame) -> bool {
        self.wire.send(frame).await.is_ok()
    }

    /// The next frame, except for the SETTINGS that every client begins with. `None` at the end.
    pub async fn hear(&mut self) -> Option<Frame> {
        loop {
            match self.wire.next().await.transpose().unwrap() {
                Some(Frame::Settings(_)) => {}
                frame => return frame,
            }
        }
    }

    /// All frames up to the end.
    pub async fn hear_all(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.hear().await {
            frames.push(frame);
        }
        frames
    }

    /// Reads a SYN_STREAM and returns its id and headers.
    pub async fn hear_syn(&mut self) -> (u32, Headers) {
        match self.hear().await {
            Some(Frame::SynStream { id, headers, .. }) => (id.get(), headers),
            other => panic!("{other:?} instead of SYN_STREAM"),
        }
    }

    /// Reads a PING and answers it, which shows each end that the other has taken everything before it.
    pub async fn echo(&mut self) {
        match self.hear().await {
            Some(Frame::Ping(id)) => self.say(Frame::Ping(id)).await,
            other => panic!("{other:?} instead of PING"),
        }
    }

    pub fn into_io(self) -> IO {
        self.wire.into_inner()
    }
}

pub fn syn(id: u32, headers: &[(&str, &str)]) -> Frame {
    Frame::SynStream {
        id: StreamId::new(id),
        associated: StreamId::SESSION,
        priority: 0,
        slot: 0,
        fin: false,
        unidirectional: false,
        headers: headers.iter().copied().collect(),
    }
}

pub fn goaway(last_good: u32) -> Frame {
    Frame::GoAway { last_good: StreamId::new(last_good), status: GoAwayStatus::OK }
}

/// Returns what the DATA frames carry on one stream, and whether the last has FIN.
pub fn carried(frames: &[Frame], id: u32) -> (Vec<u8>, bool) {
    let mut all = (Vec::new(), false);
    for frame in frames {
        if let Frame::Data { id: on, fin, data } = frame
            && on.get() == id
        {
            assert!(!all.1, "DATA after FIN");
            all.0.extend_from_slice(data);
            all.1 = *fin;
        }
    }
    all
}

pub fn resets(frames: &[Frame]) -> Vec<(u32, RstStatus)> {
    let reset = |frame: &Frame| match frame {
        Frame::RstStream { id, status } => Some((id.get(), *status)),
        _ => None,
    };
    frames.iter().filter_map(reset).collect()
}
