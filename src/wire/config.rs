//! The settings of each transport, with every default and its reason.
//!
//! This module owns the values. It must not act on them.

use std::time::Duration;

/// The settings of SPDY: how this end sends, and how much a peer may make it hold or do. If the peer goes over a limit,
/// the error names the limit, unless the field's docs say otherwise.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpdyConfig {
    /// Whether the connection has flow control. Default: [`FlowControl::Auto`].
    pub flow_control: FlowControl,
    /// The largest window of one stream, in bytes. With flow control a stream starts with a window of
    /// [`stream_receive_budget`](crate::mux::Config::stream_receive_budget) bytes. While its reader keeps up, the window
    /// grows to between two and six times the bytes that the reader takes in one round trip. A PING measures the round
    /// trip while bytes come; a peer without flow control gets none. Over a path of less than 500 µs windows grow by no
    /// more than half of [`receive_budget`](crate::mux::Config::receive_budget). Default: 28 MiB, which fills 1 Gbit/s
    /// at a round trip of 200 ms: that path holds 24 MiB, and a window is granted again in pieces of 1 MiB.
    pub max_stream_window: usize,
    /// By how much the windows of all streams together may be larger than they started, in bytes. This much may be
    /// unread besides [`receive_budget`](crate::mux::Config::receive_budget), if streams are no longer read after their
    /// windows have grown. A window that is hardly used, or was idle for 10 s, is given back by halves: so much of what
    /// the stream gets next is not granted again. A server with many clients may want less: a client chooses what its
    /// path holds, since it can delay its answers. 0 keeps all windows as they start, and sends no PINGs for them.
    /// Default: 32 MiB, so that one stream leaves something to others.
    pub max_window_growth: usize,
    /// Whether header blocks are compressed: zlib with the SPDY/3 dictionary, at level 1. Its state takes some 300 KiB.
    /// It is allocated while headers are sent, and freed when the connection is idle. Default: `true`.
    ///
    /// With `false` the blocks are stored. Every SPDY reader understands both forms. Stored blocks need no state, and
    /// their length does not depend on repetitions in the content, so an attack like CRIME (CVE-2012-4930) learns
    /// nothing from it.
    pub compress_headers: bool,
    /// Bytes of a SYN_STREAM, SYN_REPLY, HEADERS or SETTINGS frame, or of a control frame that is skipped. Every other
    /// control frame has a fixed size. Default: 64 KiB.
    pub max_control_frame: usize,
    /// Name/value pairs of a header block. Default: 128.
    pub max_header_pairs: usize,
    /// Bytes of a header's name. Default: 256.
    pub max_header_name: usize,
    /// Bytes of a header's value. Default: 16 KiB.
    pub max_header_value: usize,
    /// Bytes of a header block after inflating. Default: 64 KiB.
    pub max_header_block: usize,
    /// Entries of a SETTINGS frame. Default: 64.
    pub max_settings: usize,
    /// SETTINGS frames in each [`rate_window`](Self::rate_window). Default: 32.
    pub max_settings_frames: u32,
    /// Streams opened by the peer that may exist at the same time, answered or not. A stream counts until it has ended
    /// and its handles are dropped. The next stream is refused, and the connection goes on. Default:
    /// 1024.
    pub max_streams: usize,
    /// Streams that the peer may reset before [`Multiplexer::accept`](crate::mux::Multiplexer::accept) returns them, in
    /// each [`rate_window`](Self::rate_window). Streams that `accept` has returned count against
    /// [`max_streams`](Self::max_streams) instead, until their handles are dropped. Default: 200.
    pub max_unanswered_resets: u32,
    /// Bytes of all header blocks after inflating, in each [`rate_window`](Self::rate_window). Without this limit, a
    /// peer could send a few bytes that inflate to [`max_header_block`](Self::max_header_block), again and again. Default:
    /// 64 MiB. A forwarded connection has two header blocks of some 65 bytes, so this allows 17,000 new
    /// connections a second, and 5,000 at once use 1 % of it.
    pub max_header_bytes: usize,
    /// The period in which `max_settings_frames`, `max_unanswered_resets` and `max_header_bytes` count. Default:
    /// 30 s.
    pub rate_window: Duration,
    /// Answers (PING, RST_STREAM) that may be queued while the peer does not read. Default: 1024.
    pub max_queued_replies: usize,
    /// Bytes of DATA on streams that never existed. Each frame counts as at least 256 bytes. Default: 64 KiB.
    pub max_stray_data: usize,
}

impl Default for SpdyConfig {
    fn default() -> Self {
        Self {
            flow_control: FlowControl::Auto,
            max_stream_window: 28 * 1024 * 1024,
            max_window_growth: 32 * 1024 * 1024,
            compress_headers: true,
            max_control_frame: 64 * 1024,
            max_header_pairs: 128,
            max_header_name: 256,
            max_header_value: 16 * 1024,
            max_header_block: 64 * 1024,
            max_settings: 64,
            max_settings_frames: 32,
            max_streams: 1024,
            max_unanswered_resets: 200,
            max_header_bytes: 64 * 1024 * 1024,
            rate_window: Duration::from_secs(30),
            max_queued_replies: 1024,
            max_stray_data: 64 * 1024,
        }
    }
}

/// The settings of WebSocket: how much a peer may make this end hold or do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WebSocketConfig {
    /// Bytes of a WebSocket message, with all its fragments. Default: 32 MiB, the largest that Go's servers accept. A large message costs no memory: its bytes are passed on as they arrive.
    pub max_message: u64,
    /// Fragments of a WebSocket message. Default: 1024.
    pub max_fragments: u32,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self { max_message: 32 * 1024 * 1024, max_fragments: 1024 }
    }
}

/// Whether a SPDY connection has flow control: it obeys the peer's windows, and grants windows to the peer (SPDY/3.1
/// §2.6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowControl {
    /// Uses flow control only if the peer shows that it has flow control. Go peers do not have it, and with it a
    /// connection to them would hang after 64 KiB.
    ///
    /// The client sends INITIAL_WINDOW_SIZE in its first flight, and a server that uses this crate answers with its own
    /// before anything else. Until the server's first frame arrives, but for at most ten seconds, the client sends no
    /// more than one window. Both ends count bytes against the windows from the first byte. An end that has received
    /// INITIAL_WINDOW_SIZE or a WINDOW_UPDATE obeys and grants windows from then on.
    #[default]
    Auto,
    /// No flow control.
    Off,
    /// Flow control exactly as the draft says, from the first byte. Use it for a peer that expects WINDOW_UPDATEs but
    /// does not announce windows, such as netty. Do not use it if the peer uses [`Auto`](Self::Auto): such a peer may
    /// send more than 64 KiB before it learns that this end has windows.
    Strict,
}
