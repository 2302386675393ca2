//! The progress of a copy: a bar, only on a terminal.
//!
//! Keeps warnings from tearing the bar, and text from the pod from controlling the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use kubestream_apps::printable::printable;
use kubestream_apps::stdio::complain;

/// Starts a bar that has no total yet.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    // If stderr is not a terminal, nothing is drawn and no timer runs.
    if !bar.is_hidden() {
        bar.set_style(style("{spinner} {bytes} {bytes_per_sec} {msg}"));
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}

pub(crate) fn set_total(bar: &ProgressBar, total: u64) {
    bar.set_length(total);
    bar.set_style(style("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"));
}

pub(crate) fn warn(bar: &ProgressBar, what: &str) {
    bar.suspend(|| complain(format_args!("warning: {}", printable(what))));
}

fn style(template: &str) -> ProgressStyle {
    // If the template did not parse, the bar would look different. That is no reason to fail.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
