//! The settings of each transport, with every default and its reason.
//!
//! This module owns the values. It must not act on them.

use std::time::Duration;

/// The settings of SPDY: how this end sends, and the limits on what a peer may make it hold or do. If the peer exceeds
/// a limit, the connection fails, unless the field's docs say otherwise: with
/// [`ConnectionError::Malformed`](crate::ConnectionError::Malformed) for a limit on one frame or header block, and with
/// [`ConnectionError::LimitExceeded`](crate::ConnectionError::LimitExceeded), which names the field, for every other
/// limit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpdyConfig {
    /// Whether the connection has flow control. Default: [`FlowControl::Auto`]. Over WebSocket channels there is none.
    pub flow_control: FlowControl,
    /// The largest window of one stream, in bytes. With flow control a stream starts with a window of
    /// [`stream_receive_budget`](crate::mux::Config::stream_receive_budget) bytes. While its reader keeps up, the
    /// window grows to at least twice the bytes that the reader takes in one round trip. A PING measures the
    /// round trip while bytes come; a peer without flow control gets none. Over a path of less than 500 µs windows grow
    /// by no more than half of [`receive_budget`](crate::mux::Config::receive_budget). Default: 28 MiB, which fills 1
    /// Gbit/s at a round trip of 200 ms. That path holds 24 MiB. The window has to be larger, because this end sends a
    /// WINDOW_UPDATE only after each further MiB that was read.
    pub max_stream_window: usize,
    /// The maximum sum, in bytes, by which the windows of all streams together may grow. If streams are no longer read
    /// after their windows have grown, so many unread bytes may be held in addition to
    /// [`receive_budget`](crate::mux::Config::receive_budget). If a stream uses less than a sixth of its window in
    /// a round trip, all but four times what it uses is taken back, and half of the growth if it has received nothing
    /// for 10 s: this end leaves so many of the bytes that are read next out of its WINDOW_UPDATEs. When less than an
    /// eighth of this limit is left, the growth of streams that have received nothing for 10 s no longer counts: what they hold after that counts against the `receive_budget`, until they
    /// have given their growth back. A server with many clients may want a lower limit: a client that answers PINGs late makes
    /// the measured round trip longer, and so can make its windows grow. 0 keeps all windows as they start, and sends
    /// no PINGs to measure round trips. Default: 32 MiB. One window cannot grow so far, so it leaves something to the
    /// other streams.
    pub max_window_growth: usize,
    /// Whether header blocks are compressed: zlib with the SPDY/3 dictionary, at level 1. The state of the compression
    /// takes some 300 KiB. It is allocated while headers are sent, and freed when the connection is idle. Default:
    /// `true`.
    ///
    /// With `false` the blocks are zlib blocks without compression, which every SPDY reader understands, too. They need
    /// no state. Their length does not depend on repetitions in the headers, so an attack like CRIME (CVE-2012-4930)
    /// learns nothing from it.
    pub compress_headers: bool,
    /// The maximum length of a SYN_STREAM, SYN_REPLY, HEADERS or SETTINGS frame, or of a control frame of another type
    /// that this end skips, in bytes. Every other control frame has a fixed length. Default: 64 KiB.
    pub max_control_frame: usize,
    /// The maximum number of name/value pairs of a header block. Default: 128.
    pub max_header_pairs: usize,
    /// The maximum length of a header's name, in bytes. Default: 256.
    pub max_header_name: usize,
    /// The maximum length of a header's value, in bytes. Default: 16 KiB.
    pub max_header_value: usize,
    /// The maximum length of a header block after inflating, in bytes. Default: 64 KiB.
    pub max_header_block: usize,
    /// The maximum number of entries of a SETTINGS frame. Default: 64.
    pub max_settings: usize,
    /// The maximum number of SETTINGS frames in each [`rate_window`](Self::rate_window). Default: 32.
    pub max_settings_frames: u32,
    /// The maximum number of streams that the peer has opened and that exist at the same time, answered or not. A
    /// stream exists until it has ended and its handles are dropped. If the peer opens one more, that stream is
    /// refused, and the connection goes on. Default: 1024.
    pub max_streams: usize,
    /// The maximum number of streams, in each [`rate_window`](Self::rate_window), that the peer resets before
    /// [`Multiplexer::accept`](crate::mux::Multiplexer::accept) has returned them. Streams that `accept` has returned
    /// count against [`max_streams`](Self::max_streams) instead, until their handles are dropped. Default: 200.
    pub max_unanswered_resets: u32,
    /// The maximum length of all header blocks together after inflating, in bytes, in each
    /// [`rate_window`](Self::rate_window). Without this limit, a peer could send a few bytes that inflate to
    /// [`max_header_block`](Self::max_header_block), again and again. Default: 64 MiB. A forwarded connection has two
    /// header blocks of some 65 bytes. So this allows 17,000 new connections a second, and 5,000 new connections at
    /// once use 1 % of it.
    pub max_header_bytes: usize,
    /// The period of the limits `max_settings_frames`, `max_unanswered_resets` and `max_header_bytes`. Default: 30 s.
    pub rate_window: Duration,
    /// The maximum number of answers (PING and RST_STREAM) that are queued because the peer does not read.
    /// Default: 1024.
    pub max_queued_replies: usize,
    /// The maximum number of bytes of DATA on streams that never existed, for the whole life of the connection. Each
    /// frame counts as at least 256 bytes. Default: 64 KiB.
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

/// The settings of WebSocket: the limits on what a peer may make this end hold or do. If the peer exceeds one, the
/// connection fails with [`ConnectionError::Malformed`](crate::ConnectionError::Malformed).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WebSocketConfig {
    /// The maximum length of a WebSocket message with all its fragments, in bytes. Default: 32 MiB, the largest that
    /// Go's servers accept. A large message costs no memory: its bytes are passed on as they arrive.
    pub max_message: u64,
    /// The maximum number of fragments of a WebSocket message. Default: 1024.
    pub max_fragments: u32,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self { max_message: 32 * 1024 * 1024, max_fragments: 1024 }
    }
}

/// Whether this end of a SPDY connection uses flow control: whether it obeys the peer's windows, and grants windows to
/// the peer (SPDY/3.1 §2.6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowControl {
    /// Uses flow control once the peer shows that it has flow control. Go peers never do: with flow control, a
    /// connection to them would hang after 64 KiB.
    ///
    /// An end shows it by a SETTINGS frame with INITIAL_WINDOW_SIZE, or by a WINDOW_UPDATE. The client sends its
    /// SETTINGS before everything else, and a server that uses this crate answers with its own before everything else.
    /// Until the server's first frame arrives, but for at most 10 s, the client sends no more than one window of DATA.
    /// Both ends count bytes against the windows from the first byte.
    #[default]
    Auto,
    /// No flow control.
    Off,
    /// Flow control exactly as the draft says, from the first byte. Use it for a peer that expects WINDOW_UPDATEs but
    /// does not announce windows, such as netty. Do not use it if the peer uses [`Auto`](Self::Auto): such a peer may
    /// send more than 64 KiB before it knows that this end has windows, and this end would then reset the stream or
    /// fail the connection.
    Strict,
}
