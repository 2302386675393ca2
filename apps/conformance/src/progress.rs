//! Shows the progress of a run on stderr: a line that changes on a terminal, and otherwise one line for each failure.

use std::io::IsTerminal;
use std::time::Duration;

use conformance::run::{Cell, Event};
use indicatif::{ProgressBar, ProgressStyle};
use kubestream_apps::printable::printable;
use kubestream_apps::stdio::complain;

pub(crate) struct Progress {
    bar: ProgressBar,
    moves: bool,
    /// The name of the last case reported, where lines are not overwritten.
    told: &'static str,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let moves = std::io::stderr().is_terminal();
        let bar = if moves { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, moves, told: "" }
    }

    pub(crate) fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Probing(column) => {
                self.bar.set_message(format!("which protocols the server offers: {}", column.name))
            }
            Event::Begins { case, column, done, of } => {
                self.bar.set_length(*of as u64);
                self.bar.set_position(*done as u64);
                self.bar.set_message(format!("{}, {}", case.name, column.name));
                if !self.moves && self.told != case.name {
                    complain(format_args!("{done}/{of} {}", case.name));
                    self.told = case.name;
                }
            }
            Event::Ended { case, cell: Cell { column, outcome: Err(departure), .. } } if departure.is_failure() => {
                let line = format!("FAIL: {}, {}: {}", case.name, column.name, printable(departure));
                if self.moves { self.bar.println(line) } else { complain(line) }
            }
            Event::Ended { .. } => {}
        }
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
