//! What a user may set on a connection, with every default and its reason.
//!
//! Owns the values. It must not act on them.

use std::time::Duration;

use crate::wire::{HeaderCompression, Limits};

/// What a peer's kernel has surely taken: the least that a receive buffer begins with anywhere. Of more than that a peer that is
/// silent may still have the rest to read, and a connection that is closed meanwhile is reset when it speaks again: the kernel on
/// this side then takes back what it had not delivered.
pub(crate) const SURELY_TAKEN: u64 = 64 * 1024;

/// How a connection behaves.
///
/// The subprotocols of WebSocket have five streams and no windows: there `flow_control`, `header_compression` and the limits on frames,
/// headers and streams do nothing.
///
/// `Config::default()` is right for a client and for a server of many streams; [`Config::exec`] is for one
/// exec or attach session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Whether windows are obeyed and granted. Default: [`FlowControl::Auto`].
    pub flow_control: FlowControl,
    /// How header blocks are written. Default: [`HeaderCompression::Deflate`].
    pub header_compression: HeaderCompression,
    /// What the peer may make us hold or do.
    pub limits: Limits,
    /// Bytes that one DATA frame of ours carries at most. Default: 32 KiB, the largest that Go's peers send.
    pub max_data_frame: usize,
    /// Bytes that may wait to be sent on one stream before its writer has to wait. 0 counts as 1. Default: 256 KiB.
    pub send_buffer: usize,
    /// Bytes that each stream may hold unread for itself; also the window it is opened with. Default: 64 KiB.
    pub stream_receive_budget: usize,
    /// Bytes that all streams together may hold unread beyond their own share. Past it the socket is no longer
    /// read, because nothing else slows a Go peer down. Below 64 KiB two ends of ours, each of which waits for the other to
    /// read, can spend it before they know of each other's windows. Default: 1 MiB.
    pub receive_budget: usize,
    /// A PING is sent when nothing was received for so long, and again after each such time; `None` sends none. A connection that is not
    /// read because unread bytes are over the budget is pinged too. It keeps open what stands in between: some kubelets end what is
    /// idle for 30 s, gateways what is idle for 50 s. Default: 10 s.
    pub keepalive_interval: Option<Duration>,
    /// The connection is dead when nothing was received for so long and three PINGs in a row were left unanswered that a live peer
    /// would have answered. Silence while we ourselves do not read is not counted, nor are PINGs behind DATA that a peer without windows
    /// may not have read: a Go server whose process does not read its stdin reads nothing else either. A server judges no WebSocket
    /// client by its silence: many answer PINGs only while their program reads. Where silence proves nothing the kernel finds out
    /// whether the peer's host is dead, and `idle_timeout` ends what is left. `None` judges nobody. Only with `keepalive_interval`.
    /// Default: 60 s.
    pub keepalive_timeout: Option<Duration>,
    /// While a server does not read because unread bytes are over the budget, it sends a PING so often, where that is more often than
    /// `keepalive_interval`: it cannot see that its client is gone but by a write that fails. Only with `keepalive_interval`.
    /// Default: 5 s.
    pub pause_probe_interval: Duration,
    /// Ends a connection on which no byte came and no frame went for so long. PINGs of ours that nobody answers do not count; with
    /// keepalive on, a peer that answers them is never idle. Default: 4 h, as cri-streaming's.
    pub idle_timeout: Option<Duration>,
    /// Resets the stream with the most unread bytes, when for their sake nothing was read of the connection for so long while somebody waits for bytes of
    /// another stream, or for the answer to one. What it holds is dropped, its reader gets [`StreamError::Stalled`](crate::StreamError::Stalled), and the
    /// others go on. Where nobody else waits, it is left alone for as long as it likes.
    ///
    /// The streams of an exec or attach session are parts of one whole, of which none is given up whatever is set here. Port-forward has a time of its
    /// own for where there is none here: [`portforward::Options::stall_timeout`](crate::portforward::Options::stall_timeout). Default: never.
    pub stream_stall_timeout: Option<Duration>,
    /// Fails the connection when a stream nobody reads has held it up for so long. Default: never.
    pub stall_timeout: Option<Duration>,
    /// While the connection closes in good order: it fails once the peer has taken none of what is queued for so long. That may be
    /// the tail of an output, with a pager at the other end. Also the longest that a peer's end is waited for. Default: 5 min.
    pub flush_timeout: Duration,
    /// Once all of ours is written: how long a silent peer's end is waited for. A peer that may have more than 64 KiB of it still to
    /// take has `flush_timeout` instead. After a failure: how long anything is waited for. Default: 10 s.
    pub linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            flow_control: FlowControl::Auto,
            header_compression: HeaderCompression::Deflate,
            limits: Limits::default(),
            max_data_frame: 32 * 1024,
            send_buffer: 256 * 1024,
            stream_receive_budget: 64 * 1024,
            receive_budget: 1024 * 1024,
            keepalive_interval: Some(Duration::from_secs(10)),
            keepalive_timeout: Some(Duration::from_secs(60)),
            pause_probe_interval: Duration::from_secs(5),
            idle_timeout: Some(Duration::from_secs(4 * 60 * 60)),
            stream_stall_timeout: None,
            stall_timeout: None,
            flush_timeout: Duration::from_secs(300),
            linger: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// For one exec or attach session, which needs five streams: 16 are allowed.
    #[must_use]
    pub fn exec() -> Self {
        Self { limits: Limits { max_streams: 16, ..Limits::default() }, stream_stall_timeout: None, ..Self::default() }
    }
}

/// Whether a connection obeys and grants windows (SPDY/3.1 §2.6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowControl {
    /// Windows with a peer that shows that it has them, none with a peer that does not (Go's have none, and
    /// would hang after 64 KiB).
    ///
    /// The client says INITIAL_WINDOW_SIZE in its first flight and a server of ours answers with its own, ahead of anything
    /// else: until the server's first frame, or for ten seconds, the client sends no more than a window. Both count
    /// from the first byte; whoever has received INITIAL_WINDOW_SIZE or a WINDOW_UPDATE obeys and grants from then on.
    #[default]
    Auto,
    /// No windows at all.
    Off,
    /// The draft to the letter, from the first byte: for peers that expect updates and announce nothing, as netty does. Not opposite
    /// [`Auto`](Self::Auto), which may have sent more than 64 KiB before it hears of windows.
    Strict,
}
