//! What a user may set on the codecs, with every default and its reason.
//!
//! Owns the values. It must not act on them.

use std::time::Duration;

/// How header blocks are written. Every reader takes both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderCompression {
    /// zlib with the SPDY/3 dictionary at level 1: some 300 KiB of state while headers are being sent, given back
    /// when none are.
    #[default]
    Deflate,
    /// Stored blocks: no state, and nothing a CRIME-like attack (CVE-2012-4930) could measure.
    Stored,
}

/// What a peer may make us hold or do. Going over one is an error that names it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a SYN_STREAM, SYN_REPLY, HEADERS, SETTINGS or skipped frame. Default: 64 KiB. The other control
    /// frames have one size each.
    pub max_control_frame: usize,
    /// Name/value pairs of a header block. Default: 128.
    pub max_header_pairs: usize,
    /// Bytes of a header's name. Default: 256.
    pub max_header_name: usize,
    /// Bytes of a header's value. Default: 16 KiB.
    pub max_header_value: usize,
    /// Bytes of an inflated header block. Default: 64 KiB.
    pub max_header_block: usize,
    /// Entries of a SETTINGS frame. Default: 64.
    pub max_settings: usize,
    /// SETTINGS frames in [`Limits::rate_window`]. Default: 32.
    pub max_settings_frames: u32,
    /// Streams of the peer that may live at a time, answered or not. The next is refused. Default: 1024.
    pub max_streams: usize,
    /// Streams that the peer may reset before anybody has taken them, by [`Multiplexer::accept`](crate::mux::Multiplexer::accept), in
    /// [`Limits::rate_window`]. Those that were taken count against `max_streams` until they are let go of. Default: 200.
    pub max_unanswered_resets: u32,
    /// Bytes of all header blocks, inflated, in [`Limits::rate_window`]: one of few bytes may inflate to
    /// [`Limits::max_header_block`], over and over. Default: 64 MiB. A connection of a port-forward is two blocks of some 65 bytes, so
    /// that is 17,000 of them a second; 5,000 at once are 1 % of it.
    pub max_header_bytes: usize,
    /// The window the three rates above are counted in. Default: 30 s.
    pub rate_window: Duration,
    /// Answers (PING, RST_STREAM) that may wait for a peer that does not read. Default: 1024.
    pub max_queued_replies: usize,
    /// Bytes of DATA, with 256 at least a frame, on streams that never were. Default: 64 KiB.
    pub max_stray_data: usize,
    /// Bytes of a WebSocket message, its fragments together. Default: 32 MiB, the largest that Go's servers take. Messages
    /// are handed on as they come and never held whole, so that a large one costs no memory.
    pub max_message: u64,
    /// Fragments of a WebSocket message. Default: 1024.
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
