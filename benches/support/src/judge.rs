//! Targets, and whether a row reached one.
//!
//! Owns the rule that nothing is called met that was measured beside other work.

use super::spread::short;
use super::table::{Figure, Row, Table};

/// What a figure should reach.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// The ratio to the base is at least this.
    RatioAtLeast(f64),
    /// The ratio to the base is at most this.
    RatioAtMost(f64),
    /// The figure itself is at least this.
    AtLeast(f64),
    /// The figure itself is at most this.
    AtMost(f64),
    /// Nothing: the figure is shown without a target.
    Shown,
}

/// A figure for the page that is not the first one of its case, or that has a target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What the table's title contains.
    pub table: &'static str,
    /// The case. Without a runtime, it is the case on each of them.
    pub case: &'static str,
    /// The figure.
    pub figure: &'static str,
    /// What it should reach.
    pub bound: Bound,
}

impl Target {
    /// Whether it is a target of this row.
    pub fn is_for(&self, row: &Row) -> bool {
        self.case == row.name || self.case == split_name(&row.name).1
    }
}

/// What became of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Reached, on a machine that did nothing else.
    Met,
    /// Not reached.
    Short,
    /// Reached beside other work, or beside who knows what: that proves nothing.
    Unproven,
    /// There is no target.
    None,
}

impl Verdict {
    /// The word for the page.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Short => "**short**",
            Self::Unproven => "unproven",
            Self::None => "",
        }
    }
}

impl Bound {
    /// The target as text.
    pub fn text(self) -> String {
        match self {
            Self::RatioAtLeast(bound) => format!("≥ {bound}"),
            Self::RatioAtMost(bound) => format!("≤ {bound}"),
            Self::AtLeast(bound) => format!("median ≥ {}", short(bound)),
            Self::AtMost(bound) => format!("median ≤ {}", short(bound)),
            Self::Shown => "–".to_owned(),
        }
    }

    /// Judges a figure by its medians. What cannot be compared has not reached its target.
    pub fn judge(self, row: &Row, figure: &Figure) -> Verdict {
        let ratio = figure.ratio.map(|ratio| ratio.median);
        let reached = match self {
            Self::RatioAtLeast(bound) => ratio.is_some_and(|ratio| ratio >= bound),
            Self::RatioAtMost(bound) => ratio.is_some_and(|ratio| ratio <= bound),
            Self::AtLeast(bound) => figure.value.median >= bound,
            Self::AtMost(bound) => figure.value.median <= bound,
            Self::Shown => return Verdict::None,
        };
        match (reached, row.is_quiet()) {
            (false, _) => Verdict::Short,
            (true, true) => Verdict::Met,
            (true, false) => Verdict::Unproven,
        }
    }
}

/// The runtime of a case and the rest of its name: `current_thread: send` has both.
pub fn split_name(name: &str) -> (Option<&str>, &str) {
    match name.split_once(": ") {
        Some((runtime @ ("current_thread" | "multi_thread"), case)) => (Some(runtime), case),
        _ => (None, name),
    }
}

/// The bound of a figure, if it is in the list.
pub fn bound_of(targets: &[Target], table: &Table, row: &Row, figure: &str) -> Option<Bound> {
    let is_it = |target: &&Target| target.is_for(row) && target.figure == figure && table.title.contains(target.table);
    targets.iter().find(is_it).map(|target| target.bound)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::spread::Spread;

    pub(crate) fn row(ratio: f64, others: Option<f64>) -> Row {
        let value = Spread { median: 2.0, least: 1.0, most: 3.0 };
        let ratio = Some(Spread { median: ratio, least: ratio - 0.1, most: ratio + 0.1 });
        let figures = vec![Figure { name: "GB/s", value, ratio }];
        let base = Some("current_thread: raw TCP".to_owned());
        Row { name: "current_thread: send".to_owned(), base, point: None, figures, others }
    }

    fn verdict(bound: Bound, row: &Row) -> Verdict {
        bound.judge(row, &row.figures[0])
    }

    #[test]
    fn nothing_is_met_under_load() {
        for bound in [Bound::RatioAtLeast(0.9), Bound::RatioAtMost(1.1), Bound::AtLeast(1.9), Bound::AtMost(2.1)] {
            assert_eq!(verdict(bound, &row(1.0, Some(0.2))), Verdict::Met, "{bound:?}");
            for others in [Some(0.21), Some(1.3), None] {
                assert_eq!(verdict(bound, &row(1.0, others)), Verdict::Unproven, "{bound:?} beside {others:?}");
            }
        }
    }

    #[test]
    fn what_is_short_is_short_under_any_load() {
        for bound in [Bound::RatioAtLeast(1.1), Bound::RatioAtMost(0.9), Bound::AtLeast(2.1), Bound::AtMost(1.9)] {
            for others in [Some(0.0), Some(1.3), None] {
                assert_eq!(verdict(bound, &row(1.0, others)), Verdict::Short, "{bound:?} beside {others:?}");
            }
        }
    }

    #[test]
    fn a_ratio_that_was_not_measured_is_short() {
        let mut row = row(1.0, Some(0.0));
        row.figures[0].ratio = None;
        assert_eq!(verdict(Bound::RatioAtLeast(0.9), &row), Verdict::Short);
        assert_eq!(verdict(Bound::Shown, &row), Verdict::None);
    }

    #[test]
    fn names_have_a_runtime_or_none() {
        assert_eq!(split_name("multi_thread: send, data"), (Some("multi_thread"), "send, data"));
        assert_eq!(split_name("SPDY: ours"), (None, "SPDY: ours"));
    }
}
