//! The settings of a connection, with every default and its reason.
//!
//! This module owns the values. It must not act on them: the rest of [`session`](super) and [`mux`](crate::mux) do.

use std::time::Duration;

use crate::wire::{SpdyConfig, WebSocketConfig};

/// How many bytes a peer's kernel takes even if the peer's program reads nothing: a kernel's receive buffer is at least
/// this large everywhere.
///
/// A silent peer that was sent more than this may still be reading. If we closed the connection then, the peer's next
/// bytes would cause a reset, and our kernel would drop the bytes that it has not delivered yet.
pub(crate) const SURELY_TAKEN: u64 = 64 * 1024;

/// How a connection behaves.
///
/// `Config::default()` suits a client, and a server with many streams. [`Config::exec`] suits one exec or attach
/// session.
///
/// [`spdy`](Self::spdy) and [`websocket`](Self::websocket) are the settings of one transport. All other settings work
/// the same over every transport. WebSocket channels (exec and attach over WebSocket, and legacy port-forward) have no
/// SPDY settings. The tunnel of port-forward (`SPDY/3.1+portforward.k8s.io`) is SPDY inside WebSocket, and has both.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The settings that only SPDY has. They apply to plain SPDY, and to the SPDY in the tunnel.
    pub spdy: SpdyConfig,
    /// The settings that only WebSocket has. They apply to WebSocket channels, and to the WebSocket of the tunnel.
    pub websocket: WebSocketConfig,
    /// The largest payload that this end sends in one DATA frame, in bytes. A value outside of 1 to 2^24 - 1 counts as
    /// the nearest of these. Default: 32 KiB, the largest that Go's peers send.
    ///
    /// Over WebSocket channels this is the largest message, with its channel byte and in base64, because peers limit
    /// whole messages: coder/websocket accepts 32 KiB by default. A message then has at most 32,767 bytes of data, or
    /// 24,573 in base64, but always at least one.
    pub max_data_frame: usize,
    /// How many bytes may be queued to be sent on one stream. A writer waits while this many or more are queued. 0
    /// counts as 1. Default: 256 KiB.
    pub send_buffer: usize,
    /// How many unread bytes each stream may hold before further bytes count against
    /// [`receive_budget`](Self::receive_budget). With SPDY's flow control this is also the receive window that a stream
    /// starts with. Once the window has grown, the stream may also hold as many unread bytes as it has grown by
    /// ([`SpdyConfig::max_window_growth`]). Default: 64 KiB.
    pub stream_receive_budget: usize,
    /// How many unread bytes all streams together may hold, in addition to the
    /// [`stream_receive_budget`](Self::stream_receive_budget) of each. While they hold more, this end does not read the
    /// socket: nothing else slows down a Go peer, because it has no flow control. Default: 1 MiB.
    ///
    /// With a budget of less than 64 KiB, two ends that use this crate can deadlock. Each end may use up the other's
    /// budget before it knows the other's windows. Then neither reads its socket, and each waits for the other.
    ///
    /// With SPDY's flow control this is also how far a window grows without a measured round trip: when the first
    /// WINDOW_UPDATE of a stream is due, its window grows by up to half of this budget. Streams that receive bytes at
    /// the same time share this half.
    pub receive_budget: usize,
    /// How long the peer may be silent before this end sends a PING. Another PING follows after each further interval.
    /// `None` sends no PINGs. PINGs are also sent while this end does not read the socket because unread bytes exceed
    /// the budget. PINGs keep hops open: some kubelets close a connection that is idle for 30 s, and some gateways one
    /// that is idle for 50 s. Default: 10 s.
    pub keepalive_interval: Option<Duration>,
    /// After this much silence the peer counts as dead and the connection fails, if three PINGs in a row are unanswered
    /// as well. `None` turns the check off. Needs [`keepalive_interval`](Self::keepalive_interval). Default: 60 s.
    ///
    /// Silence counts only if a live peer would have broken it:
    /// - Silence does not count while this end itself does not read.
    /// - An unanswered PING does not count if a peer without flow control may not have read the DATA before it. For
    ///   example, a Go server whose process does not read its stdin does not read anything else from the connection
    ///   either.
    /// - A server ignores the setting over WebSocket channels, because many WebSocket clients answer PINGs only while
    ///   their program reads.
    ///
    /// Where silence does not count, the kernel detects a dead host, and [`idle_timeout`](Self::idle_timeout) ends the
    /// connections that are left.
    pub keepalive_timeout: Option<Duration>,
    /// For a server: how often it sends a PING while it does not read the socket because unread bytes exceed the
    /// budget. In that state only a failed write shows that the client is gone. The setting has an effect only if it is
    /// shorter than [`keepalive_interval`](Self::keepalive_interval). If that is `None`, no PINGs are sent. Default: 5
    /// s.
    pub pause_probe_interval: Duration,
    /// The connection fails when no byte was received and no frame was sent for this long. A PING that the peer does
    /// not answer does not count as a sent frame. With keepalive, a peer that answers PINGs is never idle. `None` waits
    /// for ever. Default: 4 h, as in cri-streaming.
    pub idle_timeout: Option<Duration>,
    /// How long an unread stream may block the others. After this time this end resets the stream with the most unread
    /// bytes, if two things are true: for all this time unread bytes have kept the socket from being read, and a task
    /// waits for bytes of another stream or for the answer to another stream. The unread bytes of the reset stream are
    /// dropped, its reader gets [`StreamError::Stalled`](crate::StreamError::Stalled), and the other streams go on.
    /// `None` never resets a stream. Default: `None`.
    ///
    /// Exec and attach sessions ignore the setting, because a session without one of its streams would look complete.
    /// If this is `None`, port-forward uses
    /// [`portforward::Options::stall_timeout`](crate::portforward::Options::stall_timeout).
    pub stream_stall_timeout: Option<Duration>,
    /// The connection fails when an unread stream has kept the socket from being read for this long. `None` waits for
    /// ever. Default: `None`.
    pub stall_timeout: Option<Duration>,
    /// While the connection closes in good order: how long the peer may accept none of the queued bytes before the
    /// connection fails. The queued bytes may be the tail of an output that a user reads in a pager. Once everything is
    /// written, this is also how long this end waits at most for the peer to end the connection. Default: 5 min.
    pub flush_timeout: Duration,
    /// While the connection closes in good order: how long the peer may be silent after everything is written, before
    /// this end stops waiting for the peer to end the connection. If the peer may have more than 64 KiB left to read,
    /// [`flush_timeout`](Self::flush_timeout) applies instead. After a failure, `linger` limits each step of the
    /// ending: to write the reason, to shut down the write side, and to wait for EOF from the peer. Default: 10 s.
    pub linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            spdy: SpdyConfig::default(),
            websocket: WebSocketConfig::default(),
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
    /// The settings for one exec or attach session. A session has five streams, so `max_streams` is 16 instead of 1024.
    #[must_use]
    pub fn exec() -> Self {
        Self { spdy: SpdyConfig { max_streams: 16, ..SpdyConfig::default() }, ..Self::default() }
    }
}
