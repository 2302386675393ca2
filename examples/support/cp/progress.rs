//! What is shown while a copy runs: a bar, on a terminal only.
//!
//! Owns its looks, and that a warning does not tear it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Without a total until there is one.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    // Nothing is drawn, nor ticked, where stderr is no terminal.
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
    bar.suspend(|| eprintln!("warning: {what}"));
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse would be a bar that looks otherwise: no reason to fail.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
