//! Medians and ranges.
//!
//! Computes with numbers, and knows nothing of what they measure.

/// The median of values, with the least and the greatest of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The value in the middle. Of an even number of values, the mean of the two in the middle.
    pub median: f64,
    /// The least value.
    pub least: f64,
    /// The greatest value.
    pub most: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), least, most })
    }

    /// The range as text: `0.98 to 1.2`.
    pub fn range(&self) -> String {
        format!("{} to {}", short(self.least), short(self.most))
    }
}

/// A number with about three digits.
pub fn short(value: f64) -> String {
    match value.abs() {
        1e5.. => format!("{:.0}k", value / 1e3),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.01.. => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle_of_its_range() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
        assert_eq!(Spread::of([5.0]), Some(Spread { median: 5.0, least: 5.0, most: 5.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_range_is_written_with_few_digits() {
        assert_eq!(Spread { median: 1.0, least: 0.977, most: 123_456.0 }.range(), "0.98 to 123k");
        assert_eq!(short(0.0), "0");
        assert_eq!(short(0.0012), "0.0012");
    }
}
