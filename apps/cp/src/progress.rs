//! What is shown while a copy runs: a bar, on a terminal only.
//!
//! Owns its looks, that a warning does not tear it, and that nothing from the pod gets at the terminal.

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
    bar.suspend(|| eprintln!("warning: {}", harmless(what)));
}

/// What a pod says, and the names it gives, as text that does nothing to a terminal.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            character if character.is_control() => shown.extend(character.escape_default()),
            character => shown.push(character),
        }
    }
    shown
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse would be a bar that looks otherwise: no reason to fail.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
