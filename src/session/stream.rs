//! The state of one stream (SPDY/3.1 §2.3).
//!
//! This module owns the states and queues of both directions. It must not change the session's window, the budget or
//! the ids, which belong to the [`Connection`](super::Connection).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::error::StreamError;
use super::flow::{Holding, MIN_CHARGE, ReceiveWindow, SendWindow, charge};
use super::path::Usage;
use crate::wire::spdy::Headers;
use crate::wire::spdy::{RstStatus, StreamId};

/// A piece of this size may stay a slice of the buffer that the IO was read into, however long it is unread: such a buffer
/// has 128 KiB, so it holds less than five times the bytes that are counted. DATA frames of Go's programs and of this
/// crate have up to 32 KiB.
const MAY_BE_SLICE: usize = 28 * 1024;

/// How the peer's direction of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer sent FIN, after all of its bytes.
    Fin,
    /// The peer sent RST_STREAM. Bytes that arrived before may still be read.
    Reset(RstStatus),
    /// This end sent RST_STREAM because the peer broke a rule on this stream.
    Broken(RstStatus),
    /// This end sent RST_STREAM because the stream was unread for this long while readers of others waited.
    Stalled(Duration),
    /// This end sent RST_STREAM because it no longer wants the stream. Further bytes are discarded.
    Cancelled,
    /// The connection ended before the stream did, and the reader wanted more.
    WithConnection,
}

impl End {
    /// The error for a reader or a writer. `None` if the stream ended without one.
    pub(super) fn fault(self) -> Option<StreamError> {
        match self {
            Self::Reset(status) => Some(StreamError::Reset(status)),
            Self::Broken(status) => Some(StreamError::Broken(status)),
            Self::Stalled(after) => Some(StreamError::Stalled { after }),
            Self::Fin | Self::Cancelled | Self::WithConnection => None,
        }
    }
}

/// The state of our direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    /// FIN will be sent after the queued bytes.
    Finishing,
    /// RST_STREAM will be sent after as many of the queued bytes as the window allows.
    Breaking(RstStatus),
    Finished,
    /// Ended by RST_STREAM, ours or the peer's.
    Dead,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) priority: u8,
    pub(super) ours: bool,
    /// SYN_REPLY was sent (for a stream of the peer) or received (for a stream of ours).
    pub(super) answered: bool,
    /// The headers of the peer's SYN_STREAM or SYN_REPLY, until they are taken.
    pub(super) headers: Option<Headers>,
    /// The stream still has a handle.
    pub(super) held: bool,
    /// The stream is ours, and counts against the streams that the peer allows.
    pub(super) counted: bool,
    pub(super) control: Control,

    pub(super) end: Option<End>,
    pub(super) unread: VecDeque<Bytes>,
    /// Small pieces that arrived behind unread ones, joined. Each by itself would count as many times its
    /// length, and a window full of them would spend the budget of all streams.
    gathered: BytesMut,
    /// How many pieces at the front of `unread` hold no more memory than they need.
    settled: usize,
    /// The stream is in the connection's list of those with pieces that may hold more.
    pub(super) unsettled: bool,
    /// How many bytes are unread.
    unread_len: usize,
    /// How much the unread bytes count against the budget.
    pub(super) charged: usize,
    pub(super) discard: bool,
    /// The stream was idle while others needed what its window has grown by. What it holds then counts as that of a
    /// window that has not grown, until it has given the growth back.
    pub(super) lent: bool,
    /// When the stream ended, its reader no longer wanted the rest.
    pub(super) unmissed: bool,
    pub(super) receive_window: ReceiveWindow,
    pub(super) usage: Usage,
    /// The reader waits for bytes.
    pub(super) reader_waits: bool,

    /// This end may not send on the stream: the peer would ignore it.
    pub(super) unheard: bool,
    /// When our direction ends, the peer's direction ends too.
    pub(super) ends_with_ours: bool,
    pub(super) sending: Sending,
    pub(super) unsent: SendQueue,
    /// DATA was sent on the stream.
    pub(super) has_sent: bool,
    pub(super) send_window: SendWindow,
    /// RST_STREAM is sent after our FIN, because further bytes from the peer are not wanted.
    pub(super) cancel_behind: bool,
    /// Queued bytes were dropped unsent.
    pub(super) cut_short: bool,
    /// The stream is in the queue of streams that have DATA to send.
    pub(super) scheduled: bool,
    pub(super) writer_waits: bool,
}

/// The queued control frames of a stream, in the order in which they are sent.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// The stream is in the connection's queue of streams with control frames.
    pub(super) scheduled: bool,
    pub(super) syn: Option<Headers>,
    pub(super) reply: Option<Headers>,
    pub(super) window_update: bool,
    pub(super) reset: Option<RstStatus>,
}

impl Control {
    fn is_empty(&self) -> bool {
        self.syn.is_none() && self.reply.is_none() && !self.window_update && self.reset.is_none()
    }
}

impl Stream {
    pub(super) fn new(id: StreamId, ours: bool, send_window: u32, receive_window: u32) -> Self {
        Self {
            id,
            priority: 0,
            ours,
            answered: false,
            headers: None,
            held: true,
            counted: true,
            control: Control::default(),
            end: None,
            unread: VecDeque::new(),
            gathered: BytesMut::new(),
            settled: 0,
            unsettled: false,
            unread_len: 0,
            charged: 0,
            discard: false,
            lent: false,
            unmissed: false,
            receive_window: ReceiveWindow::new(receive_window, receive_window),
            usage: Usage::default(),
            reader_waits: false,
            unheard: false,
            ends_with_ours: false,
            sending: Sending::Open,
            unsent: SendQueue::default(),
            has_sent: false,
            send_window: SendWindow::new(send_window),
            cancel_behind: false,
            cut_short: false,
            scheduled: false,
            writer_waits: false,
        }
    }

    /// What the stream holds of the connection's budgets.
    pub(super) fn holding(&self) -> Holding {
        let grown = if self.discard || self.lent { 0 } else { self.receive_window.grown() as usize };
        Holding { unread: self.unread_len, charged: self.charged, grown }
    }

    /// Adds a piece of received DATA. The caller must update the budget.
    pub(super) fn push_unread(&mut self, data: Bytes) {
        self.unread_len = self.unread_len.saturating_add(data.len());
        let waits = !self.unread.is_empty() || !self.gathered.is_empty();
        if waits && data.len() < MIN_CHARGE {
            let before = charge(self.gathered.len());
            self.gathered.extend_from_slice(&data);
            self.charged = self.charged.saturating_sub(before).saturating_add(charge(self.gathered.len()));
            return;
        }
        if !self.gathered.is_empty() {
            self.unread.push_back(self.gathered.split().freeze());
        }
        self.charged = self.charged.saturating_add(charge(data.len()));
        self.unread.push_back(data);
    }

    pub(super) fn pop_unread(&mut self) -> Option<Bytes> {
        let gathered = || (!self.gathered.is_empty()).then(|| std::mem::take(&mut self.gathered).freeze());
        let data = self.unread.pop_front().or_else(gathered)?;
        self.settled = self.settled.saturating_sub(1);
        self.unread_len = self.unread_len.saturating_sub(data.len());
        self.charged = self.charged.saturating_sub(charge(data.len()));
        Some(data)
    }

    /// Copies the unread pieces that are small beside the buffers that they are slices of.
    pub(super) fn settle_unread(&mut self) {
        for piece in self.unread.iter_mut().skip(self.settled).filter(|piece| piece.len() < MAY_BE_SLICE) {
            *piece = Bytes::copy_from_slice(piece);
        }
        self.settled = self.unread.len();
        self.unsettled = false;
    }

    /// Whether both directions have ended on the wire, and no control frame is queued.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() && matches!(self.sending, Sending::Finished | Sending::Dead) && self.control.is_empty()
    }

    /// Whether DATA or a FIN is waiting to be sent, windows aside.
    pub(super) fn has_output(&self) -> bool {
        match self.sending {
            Sending::Open => !self.unsent.is_empty(),
            Sending::Finishing | Sending::Breaking(_) => true,
            Sending::Finished | Sending::Dead => false,
        }
    }
}

/// Pieces up to this size, in bytes, are copied behind queued bytes: one frame costs less than many small ones.
const GATHER_UP_TO: usize = 1024;

/// The bytes queued on a stream: large pieces as they were given, and small writes joined in a buffer behind them.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    pieces: VecDeque<Bytes>,
    gathered: BytesMut,
    len: usize,
}

impl SendQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= GATHER_UP_TO && self.len > 0 {
            return self.extend_from_slice(&data);
        }
        if !self.gathered.is_empty() {
            self.pieces.push_back(self.gathered.split().freeze());
        }
        self.len = self.len.saturating_add(data.len());
        self.pieces.push_back(data);
    }

    pub(super) fn extend_from_slice(&mut self, data: &[u8]) {
        self.len = self.len.saturating_add(data.len());
        self.gathered.extend_from_slice(data);
    }

    /// Takes up to `most` bytes off the front, at most one piece. A piece that is hardly longer than that is cut in the
    /// middle: a frame for the few bytes that were left would cost as much as a whole one.
    pub(super) fn take(&mut self, most: usize) -> Bytes {
        let piece = match self.pieces.front_mut() {
            Some(front) if front.len() > most => {
                let few = front.len().saturating_sub(most) <= GATHER_UP_TO;
                front.split_to(if few { front.len().div_ceil(2).min(most) } else { most })
            }
            Some(_) => self.pieces.pop_front().unwrap_or_default(),
            None => self.gathered.split_to(most.min(self.gathered.len())).freeze(),
        };
        self.len = self.len.saturating_sub(piece.len());
        piece
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Frees the buffers of an empty queue.
    pub(super) fn release(&mut self) {
        if self.len == 0 {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_is_hardly_longer_than_a_frame_is_cut_in_the_middle() {
        let cuts = |len: usize, most: usize| {
            let mut queue = SendQueue::default();
            queue.push(Bytes::from(vec![0; len]));
            std::iter::from_fn(|| Some(queue.take(most).len()).filter(|len| *len > 0)).collect::<Vec<_>>()
        };
        assert_eq!(cuts(32_768, 32_767), [16_384, 16_384]);
        assert_eq!(cuts(32_767, 32_767), [32_767]);
        assert_eq!(cuts(65_536, 32_767), [32_767, 16_385, 16_384]);
        assert_eq!(cuts(40_000, 32_767), [32_767, 7_233]);
        assert_eq!(cuts(5, 2), [2, 2, 1]);
    }
}
