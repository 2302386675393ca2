//! The settings of the codecs, with every default and its reason.
//!
//! This module owns the values. It must not act on them.

use std::time::Duration;

/// How header blocks are written. Every SPDY reader understands both forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderCompression {
    /// zlib with the SPDY/3 dictionary, at level 1. Its state takes some 300 KiB. It is allocated while headers are sent, and
    /// freed when the connection is idle.
    #[default]
    Deflate,
    /// Stored blocks. They need no state. Their length does not depend on repetitions in the content, so an attack like CRIME
    /// (CVE-2012-4930) learns nothing from it.
    Stored,
}

/// How much a peer may make this end hold or do. Going over a limit is an error that names the limit, unless the
/// field says otherwise.
///
/// A limit that is marked *SPDY only* does nothing over WebSocket channels, which have no such frames. [`Config`](crate::mux::Config) says
/// which connections these are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a SYN_STREAM, SYN_REPLY, HEADERS or SETTINGS frame, or of a control frame that is skipped. Every other control frame has a
    /// fixed size. SPDY only. Default: 64 KiB.
    pub max_control_frame: usize,
    /// Name/value pairs of a header block. SPDY only. Default: 128.
    pub max_header_pairs: usize,
    /// Bytes of a header's name. SPDY only. Default: 256.
    pub max_header_name: usize,
    /// Bytes of a header's value. SPDY only. Default: 16 KiB.
    pub max_header_value: usize,
    /// Bytes of a header block after inflating. SPDY only. Default: 64 KiB.
    pub max_header_block: usize,
    /// Entries of a SETTINGS frame. SPDY only. Default: 64.
    pub max_settings: usize,
    /// SETTINGS frames in each [`rate_window`](Self::rate_window). SPDY only. Default: 32.
    pub max_settings_frames: u32,
    /// Streams opened by the peer that may exist at the same time, answered or not. A stream counts until it has ended and its
    /// handles are dropped. The next stream is refused, and the connection goes on. SPDY only: WebSocket channels are fixed.
    /// Default: 1024.
    pub max_streams: usize,
    /// Streams that the peer may reset before [`Multiplexer::accept`](crate::mux::Multiplexer::accept) returns them, in each
    /// [`rate_window`](Self::rate_window). Streams that `accept` has returned count against [`max_streams`](Self::max_streams) instead, until
    /// their handles are dropped. SPDY only. Default: 200.
    pub max_unanswered_resets: u32,
    /// Bytes of all header blocks after inflating, in each [`rate_window`](Self::rate_window). A few bytes can inflate to
    /// [`max_header_block`](Self::max_header_block), again and again. SPDY only. Default: 64 MiB. A forwarded connection has two header blocks
    /// of some 65 bytes, so this allows 17,000 new connections a second, and 5,000 at once use 1 % of it.
    pub max_header_bytes: usize,
    /// The period in which `max_settings_frames`, `max_unanswered_resets` and `max_header_bytes` count. SPDY only. Default: 30 s.
    pub rate_window: Duration,
    /// Answers (PING, RST_STREAM) that may be queued while the peer does not read. SPDY only: over WebSocket channels at most
    /// one answer is queued. Default: 1024.
    pub max_queued_replies: usize,
    /// Bytes of DATA on streams that never existed. Each frame counts as at least 256 bytes. SPDY only. Default: 64 KiB.
    pub max_stray_data: usize,
    /// Bytes of a WebSocket message, with all its fragments. WebSocket only, tunnel included. Default: 32 MiB, the largest that Go's
    /// servers accept. A large message costs no memory: its bytes are passed on as they arrive.
    pub max_message: u64,
    /// Fragments of a WebSocket message. WebSocket only, tunnel included. Default: 1024.
    pub max_fragments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
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
            max_message: 32 * 1024 * 1024,
            max_fragments: 1024,
        }
    }
}
