//! Interleaved rounds, and the table of their results.
//!
//! Computes medians and ratios. A ratio compares a case with its base in the same round, and the median of the ratios
//! is shown.

use super::Outcome;

const ROUNDS: usize = 5;

/// The figures of one case in one round, by name.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<(&'static str, f64)>);

impl Sample {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.0.push((name, value));
        self
    }

    /// Removes figures that cannot be compared.
    #[must_use]
    pub fn only(mut self, names: &[&str]) -> Self {
        self.0.retain(|(name, _)| names.contains(name));
        self
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A case to measure, compared with the case named `base`.
pub struct Case {
    name: String,
    base: Option<String>,
    measure: Box<dyn Fn() -> Outcome<Sample>>,
}

impl Case {
    pub fn new(name: impl Into<String>, base: Option<&str>, measure: impl Fn() -> Outcome<Sample> + 'static) -> Self {
        Self { name: name.into(), base: base.map(str::to_owned), measure: Box::new(measure) }
    }
}

/// Runs all cases in turn, round after round, and prints medians: of the figure, and after `×` of its ratio to the
/// base.
pub fn run(title: &str, cases: &[Case]) -> Outcome<()> {
    let rounds = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (case, taken) in cases.iter().zip(&mut samples) {
            taken.push((case.measure)().map_err(|error| format!("{}: {error}", case.name))?);
        }
    }
    println!("\n## {title}; medians of {rounds} rounds");
    let mut names: Vec<&'static str> = Vec::new();
    for (name, _) in samples.iter().flatten().flat_map(|sample| &sample.0) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    println!("{:<38}{}", "", names.iter().map(|name| format!("{name:>22}")).collect::<String>());
    for (case, taken) in cases.iter().zip(&samples) {
        let base =
            cases.iter().position(|other| Some(&other.name) == case.base.as_ref()).and_then(|at| samples.get(at));
        let cells: String = names.iter().map(|name| format!("{:>22}", cell(name, taken, base))).collect();
        println!("{:<38}{cells}", case.name);
    }
    Ok(())
}

fn cell(name: &str, taken: &[Sample], base: Option<&Vec<Sample>>) -> String {
    let Some(value) = median(taken.iter().filter_map(|sample| sample.get(name)).collect()) else {
        return "-".to_owned();
    };
    let pairs = base.into_iter().flatten().zip(taken);
    let ratios = pairs.filter_map(|(base, own)| Some(own.get(name)? / base.get(name).filter(|value| *value > 0.0)?));
    match median(ratios.collect()) {
        Some(ratio) if name != "allocs/write" => format!("{} ×{}", short(value), short(ratio)),
        _ => short(value),
    }
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn short(value: f64) -> String {
    match value.abs() {
        1e5.. => format!("{:.0}k", value / 1e3),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.01.. => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
