//! Compares the table of docs/limits.md with the code: every default must be the documented one.
//!
//! Holds the list of settings in the order of the table. The tests of each part show what a limit does.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use kubestream::exec::Options;
use kubestream::mux::Config;
use kubestream::{portforward, status, upgrade};
use kubestream_proxy as proxy;
use kubestream_runtime::RuntimeConfig;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Every setting of the table, in its order, with the default in the code.
fn defaults() -> Vec<(&'static str, String)> {
    let (config, exec, handshake, session) =
        (Config::default(), Config::exec(), upgrade::Config::default(), Options::default());
    let limits = &config.spdy;
    let (forward, streaming) = (portforward::Options::default(), RuntimeConfig::default());
    assert_eq!(limits.rate_window, Duration::from_secs(30), "rows of counted things are marked in their first column");
    let streams = format!("{}; {} with `Config::exec()`", count(limits.max_streams), exec.spdy.max_streams);
    vec![
        ("mux::SpdyConfig::max_control_frame", bytes(limits.max_control_frame)),
        ("mux::SpdyConfig::max_header_pairs", count(limits.max_header_pairs)),
        ("mux::SpdyConfig::max_header_name", bytes(limits.max_header_name)),
        ("max_header_value", bytes(limits.max_header_value)),
        ("mux::SpdyConfig::max_header_block", bytes(limits.max_header_block)),
        ("mux::SpdyConfig::max_header_bytes", bytes(limits.max_header_bytes)),
        ("mux::SpdyConfig::max_settings", count(limits.max_settings)),
        ("mux::SpdyConfig::max_settings_frames", limits.max_settings_frames.to_string()),
        ("mux::SpdyConfig::max_streams", streams),
        ("mux::SpdyConfig::max_unanswered_resets", limits.max_unanswered_resets.to_string()),
        ("mux::SpdyConfig::max_queued_replies", count(limits.max_queued_replies)),
        ("mux::SpdyConfig::max_stray_data", bytes(limits.max_stray_data)),
        ("mux::WebSocketConfig::max_message", bytes(usize::try_from(config.websocket.max_message).unwrap())),
        ("mux::WebSocketConfig::max_fragments", count(config.websocket.max_fragments as usize)),
        ("mux::Config::stream_receive_budget", bytes(config.stream_receive_budget)),
        ("mux::SpdyConfig::max_stream_window", bytes(config.spdy.max_stream_window)),
        ("mux::SpdyConfig::max_window_growth", bytes(config.spdy.max_window_growth)),
        ("mux::Config::receive_budget", bytes(config.receive_budget)),
        ("mux::Config::stream_stall_timeout", config.stream_stall_timeout.map_or_else(|| "for ever".to_owned(), time)),
        ("portforward::Options::stall_timeout", time(forward.stall_timeout.unwrap())),
        ("mux::Config::stall_timeout", config.stall_timeout.map_or_else(|| "for ever".to_owned(), time)),
        ("mux::Config::send_buffer", bytes(config.send_buffer)),
        ("mux::Config::keepalive_interval", time(config.keepalive_interval.unwrap())),
        ("keepalive_timeout", time(config.keepalive_timeout.unwrap())),
        ("mux::Config::pause_probe_interval", time(config.pause_probe_interval)),
        ("mux::Config::idle_timeout", time(config.idle_timeout.unwrap())),
        ("mux::Config::flush_timeout", time(config.flush_timeout)),
        ("mux::Config::linger", time(config.linger)),
        ("upgrade::Config::max_head", bytes(handshake.max_head)),
        ("max_headers", count(handshake.max_headers)),
        ("upgrade::Config::long_queries", target(&handshake)),
        ("upgrade::Config::head_timeout", time(handshake.head_timeout)),
        ("upgrade::Config::answer_timeout", time(handshake.answer_timeout)),
        ("upgrade::Config::max_refusal_body", bytes(handshake.max_refusal_body)),
        ("refusal_body_timeout", time(handshake.refusal_body_timeout)),
        ("upgrade::Config::allowed_origins", allowed_origins(&handshake)),
        ("kubestream_proxy::LINGER", time(proxy::LINGER)),
        ("kubestream_proxy::TAIL_TIMEOUT", time(proxy::TAIL_TIMEOUT)),
        ("kubestream_proxy::IDLE_TIMEOUT", time(proxy::IDLE_TIMEOUT)),
        ("tap::MAX_NAME_LEN", bytes(kubestream::tap::MAX_NAME_LEN)),
        ("portforward::Options::creation_timeout", time(forward.creation_timeout)),
        ("portforward::Options::linger", time(forward.linger)),
        ("portforward::Options::max_half_pairs", count(forward.max_half_pairs)),
        ("portforward::Options::reason_grace", time(forward.reason_grace)),
        ("portforward::MAX_REASON_LEN", bytes(portforward::MAX_REASON_LEN)),
        ("kubestream_runtime::RuntimeConfig::token_ttl", time(streaming.token_ttl)),
        ("kubestream_runtime::RuntimeConfig::max_tokens", count(streaming.max_tokens)),
        ("exec::Options::creation_timeout", time(session.creation_timeout)),
        ("exec::Options::status_timeout", time(session.status_timeout)),
        ("exec::Options::output_grace", time(session.output_grace)),
        ("status::MAX_STATUS_LEN", bytes(status::MAX_STATUS_LEN)),
        ("MAX_CAUSES", count(status::MAX_CAUSES)),
        ("status::MAX_RESIZE_LEN", bytes(status::MAX_RESIZE_LEN)),
    ]
}

fn allowed_origins(config: &upgrade::Config) -> String {
    assert!(config.allowed_origins.is_empty(), "the host's own is always allowed");
    "the `Host`'s own".to_owned()
}

fn target(config: &upgrade::Config) -> String {
    assert!(!config.long_queries, "an `http::Uri` holds path and query");
    "65,534 B".to_owned()
}

fn bytes(bytes: usize) -> String {
    match bytes {
        MIB.. if bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        KIB.. if bytes.is_multiple_of(KIB) => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} B"),
    }
}

fn count(count: usize) -> String {
    if count < 1000 { count.to_string() } else { format!("{},{:03}", count / 1000, count % 1000) }
}

fn time(time: Duration) -> String {
    match time.as_secs() {
        hours if hours >= 3600 => format!("{} h", hours / 3600),
        minutes if minutes > 60 && minutes.is_multiple_of(60) => format!("{} min", minutes / 60),
        seconds => format!("{seconds} s"),
    }
}

#[test]
fn every_default_is_the_documented_one() {
    let mut documented = Vec::new();
    for line in include_str!("../docs/limits.md").lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{line}");
        let settings = cells[1].split(", ").filter_map(|name| name.strip_prefix('`')?.strip_suffix('`'));
        documented.extend(settings.zip(cells[2].split(", ").map(str::to_owned)));
    }
    assert_eq!(documented, defaults());
}
