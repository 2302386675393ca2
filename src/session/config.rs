//! The settings of a connection, with every default and its reason.
//!
//! This module owns the values. It must not act on them: the rest of [`session`](super) and [`mux`](crate::mux) do.

use std::time::Duration;

use crate::wire::{HeaderCompression, Limits};

/// How many bytes a peer's kernel has taken for certain: a receive buffer is at least this large everywhere.
///
/// If more was sent and the peer is silent, it may still be reading. A connection that we close then is reset when the peer's
/// next bytes arrive, and our kernel drops what it has not delivered yet.
pub(crate) const SURELY_TAKEN: u64 = 64 * 1024;

/// How a connection behaves.
///
/// `Config::default()` suits a client, and a server with many streams. [`Config::exec`] suits one exec or attach session.
///
/// A setting that is marked *SPDY only* does nothing over WebSocket channels: the WebSocket subprotocols of exec and attach, and
/// legacy port-forward. Port-forward through the tunnel (`SPDY/3.1+portforward.k8s.io`) is SPDY inside WebSocket, and uses every setting.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Whether the connection has flow control. SPDY only. Default: [`FlowControl::Auto`].
    pub flow_control: FlowControl,
    /// How header blocks are written. SPDY only. Default: [`HeaderCompression::Deflate`].
    pub header_compression: HeaderCompression,
    /// How much a peer may make this end hold or do. Each limit says whether it is SPDY only.
    pub limits: Limits,
    /// The largest payload that is sent in one DATA frame, or in one WebSocket message, in bytes. Default: 32 KiB, the largest that Go's
    /// peers send.
    pub max_data_frame: usize,
    /// How many bytes may wait to be sent on one stream. A writer waits while the buffer is full. 0 counts as 1. Default: 256 KiB.
    pub send_buffer: usize,
    /// How many unread bytes each stream may hold before they count against [`receive_budget`](Self::receive_budget). With SPDY's flow
    /// control this is also the window that a stream starts with. Default: 64 KiB.
    pub stream_receive_budget: usize,
    /// How many unread bytes all streams together may hold beyond their [`stream_receive_budget`](Self::stream_receive_budget)s. While
    /// they hold more, the socket is not read: nothing else slows down a Go peer. With less than 64 KiB, two ends that use this
    /// crate can deadlock: both may spend the budget before they know each other's windows, and then each waits for the other to read.
    /// Default: 1 MiB.
    pub receive_budget: usize,
    /// After this much silence of the peer a PING is sent, and then another one after each further interval. `None` sends no PINGs. PINGs are
    /// also sent while this end does not read because unread bytes exceed the budget. They keep hops open: some kubelets close a
    /// connection that is idle for 30 s, and some gateways one that is idle for 50 s. Default: 10 s.
    pub keepalive_interval: Option<Duration>,
    /// After this much silence the peer counts as dead and the connection fails, if three PINGs in a row are unanswered as well. `None`
    /// turns the check off. Needs [`keepalive_interval`](Self::keepalive_interval). Default: 60 s.
    ///
    /// Only silence that proves something counts:
    /// - Silence does not count while this end itself does not read.
    /// - A PING does not count if it follows DATA that a peer without flow control may not have read. A Go server whose process does not
    ///   read its stdin reads nothing else either.
    /// - A server ignores the setting over WebSocket channels: many WebSocket clients answer PINGs only while their program reads.
    ///
    /// In these cases the kernel detects a dead host, and [`idle_timeout`](Self::idle_timeout) ends the connections that are left.
    pub keepalive_timeout: Option<Duration>,
    /// How often a server sends a PING while it does not read because unread bytes exceed the budget. In that state only a failed write
    /// shows that the client is gone. Used only if it is shorter than [`keepalive_interval`](Self::keepalive_interval), and not at all
    /// without that. Default: 5 s.
    pub pause_probe_interval: Duration,
    /// The connection fails when no byte was received and no frame was sent for this long. A PING of ours does not count if the peer
    /// leaves it unanswered. With keepalive, a peer that answers PINGs is never idle. `None` waits for ever. Default: 4 h, as in cri-streaming.
    pub idle_timeout: Option<Duration>,
    /// Resets the stream with the most unread bytes when it has kept the socket from being read for this long, and a reader waits for
    /// bytes of another stream or for the answer to one. The unread bytes of the reset stream are dropped, its reader gets
    /// [`StreamError::Stalled`](crate::StreamError::Stalled), and the other streams go on. If no other reader waits, the stream may stay
    /// unread for ever. `None` never resets a stream. Default: `None`.
    ///
    /// Exec and attach sessions ignore the setting, because a session without one of its streams would look complete. Port-forward uses
    /// [`portforward::Options::stall_timeout`](crate::portforward::Options::stall_timeout) if this is `None`.
    pub stream_stall_timeout: Option<Duration>,
    /// The connection fails when an unread stream has kept the socket from being read for this long. `None` waits for ever. Default: `None`.
    pub stall_timeout: Option<Duration>,
    /// While the connection closes in good order: the connection fails when the peer has accepted none of the queued bytes for this long.
    /// These may be the tail of an output that somebody reads in a pager. It is also the longest time to wait for the peer's
    /// end. Default: 5 min.
    pub flush_timeout: Duration,
    /// After this end has written everything: how long a silent peer's end is waited for. If the peer may have more than 64 KiB
    /// left to read, `flush_timeout` is used instead. After a failure: the longest time for each step of the ending. Default: 10 s.
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
    /// For one exec or attach session. It has five streams, and `max_streams` is 16 instead of 1024.
    #[must_use]
    pub fn exec() -> Self {
        Self { limits: Limits { max_streams: 16, ..Limits::default() }, stream_stall_timeout: None, ..Self::default() }
    }
}

/// Whether a SPDY connection has flow control: obeys the peer's windows, and grants windows to the peer (SPDY/3.1 §2.6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowControl {
    /// Flow control if the peer shows that it has flow control, and none otherwise. Go's peers have none, and would
    /// hang after 64 KiB.
    ///
    /// The client sends INITIAL_WINDOW_SIZE in its first flight, and a server that uses this crate answers with its own before
    /// anything else. Until the server's first frame, or for ten seconds, the client sends no more than one window. Both ends count
    /// from the first byte. An end that has received INITIAL_WINDOW_SIZE or a WINDOW_UPDATE obeys and grants windows from
    /// then on.
    #[default]
    Auto,
    /// No flow control.
    Off,
    /// Flow control exactly as the draft says, from the first byte. Use it for a peer that expects WINDOW_UPDATEs without announcing
    /// windows, as netty does. Do not use it if the peer uses [`Auto`](Self::Auto): that end may send more than 64 KiB
    /// before it learns of windows.
    Strict,
}
