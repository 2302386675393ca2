//! One stream: what is known of it, held for it and owed to it (SPDY/3.1 §2.3).
//!
//! Owns the two directions' states and queues. Windows of the session, budgets and ids are the connection's.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::error::StreamError;
use super::flow::{MIN_CHARGE, ReceiveWindow, SendWindow, charge};
use crate::wire::spdy::Headers;
use crate::wire::spdy::{RstStatus, StreamId};

/// How a stream stopped giving us bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// FIN: all of it was sent.
    Fin,
    /// RST_STREAM: what had come before it is still there to be read.
    Reset(RstStatus),
    /// Our RST_STREAM in answer to a rule that the peer broke on this stream.
    Broken(RstStatus),
    /// Our RST_STREAM because it was unread for so long, and others waited.
    Stalled(Duration),
    /// Our own RST_STREAM: what the peer may still send reaches nobody.
    Cancelled,
    /// The connection ended before the stream did, and somebody waited for more.
    WithConnection,
}

impl End {
    /// What a reader or a writer gets of it, where it is none that both agreed on.
    pub(super) fn fault(self) -> Option<StreamError> {
        match self {
            Self::Reset(status) => Some(StreamError::Reset(status)),
            Self::Broken(status) => Some(StreamError::Broken(status)),
            Self::Stalled(after) => Some(StreamError::Stalled { after }),
            Self::Fin | Self::Cancelled | Self::WithConnection => None,
        }
    }
}

/// Our direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    /// FIN goes out behind what is queued.
    Finishing,
    /// RST_STREAM goes out behind as much of what is queued as the stream's window lets go.
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
    /// SYN_REPLY went out (theirs) or came in (ours).
    pub(super) answered: bool,
    /// The headers that the opener, or the answer, came with; taken by who handles the stream.
    pub(super) headers: Option<Headers>,
    /// Whether somebody may still call for this stream.
    pub(super) held: bool,
    /// It is ours, and counts as live with the peer.
    pub(super) counted: bool,
    pub(super) control: Control,

    pub(super) end: Option<End>,
    pub(super) unread: VecDeque<Bytes>,
    /// Small pieces that came behind unread ones, run together: one by one they would be charged for many times their
    /// length, and a window full of them would spend the budget of all streams.
    gathered: BytesMut,
    /// What `unread` counts against the budget.
    pub(super) charged: usize,
    pub(super) discard: bool,
    /// When it ended, nobody wanted what was still to come.
    pub(super) unmissed: bool,
    pub(super) receive_window: ReceiveWindow,
    /// The reader was told to wait.
    pub(super) reader_waits: bool,

    /// The peer does not listen to what is sent on it.
    pub(super) unheard: bool,
    /// The peer's direction ends with ours.
    pub(super) ends_with_ours: bool,
    pub(super) sending: Sending,
    pub(super) unsent: SendQueue,
    /// DATA of ours has gone out on it.
    pub(super) has_sent: bool,
    pub(super) send_window: SendWindow,
    /// Once our FIN is out, RST_STREAM follows: nobody reads what the peer would still send.
    pub(super) cancel_behind: bool,
    /// Bytes that were queued were dropped: they will never have been sent.
    pub(super) cut_short: bool,
    /// It is in the queue of streams that have something to send.
    pub(super) scheduled: bool,
    pub(super) writer_waits: bool,
}

/// Control frames of this stream that wait to be sent, in their order on the wire.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// It is in the connection's queue of such streams.
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
            charged: 0,
            discard: false,
            unmissed: false,
            receive_window: ReceiveWindow::new(receive_window, receive_window),
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

    /// Takes a piece of DATA; the caller moves the budget.
    pub(super) fn push_unread(&mut self, data: Bytes) {
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
        self.charged = self.charged.saturating_sub(charge(data.len()));
        Some(data)
    }

    /// Neither direction has anything more to come on the wire.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() && matches!(self.sending, Sending::Finished | Sending::Dead) && self.control.is_empty()
    }

    /// Whether DATA, or the FIN, could go out but for the windows.
    pub(super) fn has_output(&self) -> bool {
        match self.sending {
            Sending::Open => !self.unsent.is_empty(),
            Sending::Finishing | Sending::Breaking(_) => true,
            Sending::Finished | Sending::Dead => false,
        }
    }
}

/// Pieces up to this are copied behind those that wait already: one frame costs less than many.
const GATHER_UP_TO: usize = 1024;

/// Bytes that wait to be sent: owned pieces as they were given, and small writes gathered in a buffer behind them.
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

    /// Takes up to `most` bytes off the front, one piece at a time.
    pub(super) fn take(&mut self, most: usize) -> Bytes {
        let piece = match self.pieces.front_mut() {
            Some(front) if front.len() > most => front.split_to(most),
            Some(_) => self.pieces.pop_front().unwrap_or_default(),
            None => self.gathered.split_to(most.min(self.gathered.len())).freeze(),
        };
        self.len = self.len.saturating_sub(piece.len());
        piece
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives back what an emptied queue keeps for the next write.
    pub(super) fn release(&mut self) {
        if self.len == 0 {
            self.clear();
        }
    }
}
