//! Interleaved rounds, and the tables of their results.
//!
//! Computes medians and ratios, and prints them. A ratio compares a case with its base in the same round. Targets are
//! none of its business.

use std::fmt::Write;

use super::Outcome;
use super::load::{self, Conditions, beside};
use super::spread::{Spread, short};

const ROUNDS: usize = 5;

/// How many cores other processes may take from a measurement that is to be believed.
pub const QUIET: f64 = 0.2;

/// How many rounds to run: `ROUNDS` in the environment.
pub fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// The figures of one case in one round, by name, and the work of others meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    figures: Vec<(&'static str, f64)>,
    others: Option<f64>,
}

impl Sample {
    /// A sample without figures.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a figure. The first one is the most important.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.figures.push((name, value));
        self
    }

    /// Says how many cores other processes took meanwhile.
    #[must_use]
    pub fn beside(mut self, others: Option<f64>) -> Self {
        self.others = others;
        self
    }

    /// Removes figures that cannot be compared.
    #[must_use]
    pub fn only(mut self, names: &[&str]) -> Self {
        self.figures.retain(|(name, _)| names.contains(name));
        self
    }

    /// The figure of this name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A case to measure, compared with the case named `base` of the same part.
pub struct Case {
    name: String,
    base: Option<String>,
    point: Option<(String, f64)>,
    measure: Box<dyn Fn() -> Outcome<Sample>>,
}

impl Case {
    /// A case that `measure` measures once.
    pub fn new(name: impl Into<String>, base: Option<&str>, measure: impl Fn() -> Outcome<Sample> + 'static) -> Self {
        Self { name: name.into(), base: base.map(str::to_owned), point: None, measure: Box::new(measure) }
    }

    /// Says where the case stands in a chart of lines: on which line, and how far to the right.
    #[must_use]
    pub fn at(mut self, line: impl Into<String>, x: f64) -> Self {
        self.point = Some((line.into(), x));
        self
    }
}

/// Cases that have one table.
pub struct Part {
    title: String,
    cases: Vec<Case>,
}

impl Part {
    /// The cases, under a title.
    pub fn new(title: impl Into<String>, cases: impl Into<Vec<Case>>) -> Self {
        Self { title: title.into(), cases: cases.into() }
    }
}

/// The results of a part.
#[derive(Clone, Debug)]
pub struct Table {
    /// What was measured.
    pub title: String,
    /// On which machine, when, and beside what.
    pub conditions: Conditions,
    /// One for each case.
    pub rows: Vec<Row>,
}

/// The results of a case.
#[derive(Clone, Debug)]
pub struct Row {
    /// The case.
    pub name: String,
    /// The case that it is compared with.
    pub base: Option<String>,
    /// On which line of a chart it stands, and how far to the right.
    pub point: Option<(String, f64)>,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// The cores that other processes took while this case was measured, or its base if they took more then: the median
    /// of all rounds.
    pub others: Option<f64>,
}

/// A figure of a case over all rounds.
#[derive(Clone, Debug)]
pub struct Figure {
    /// With its unit.
    pub name: &'static str,
    /// The figure itself.
    pub value: Spread,
    /// Its ratio to that of the base.
    pub ratio: Option<Spread>,
}

/// The samples of a case, in the order of the rounds.
pub struct Measured {
    /// The case.
    pub name: String,
    /// The case that it is compared with.
    pub base: Option<String>,
    /// On which line of a chart it stands, and how far to the right.
    pub point: Option<(String, f64)>,
    /// One for each round.
    pub samples: Vec<Sample>,
}

/// Measures cases that have one table, as [`run_parts`] does.
pub fn run(title: &str, cases: impl Into<Vec<Case>>) -> Outcome<Vec<Table>> {
    run_parts(vec![Part::new(title, cases)])
}

/// Measures all cases of all parts in turn, round after round.
pub fn run_parts(parts: Vec<Part>) -> Outcome<Vec<Table>> {
    let mut measured: Vec<(String, Vec<Measured>)> = Vec::new();
    let mut measures = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        let mut cases = Vec::new();
        for (row, Case { name, base, point, measure }) in part.cases.into_iter().enumerate() {
            measures.push((at, row, measure));
            cases.push(Measured { name, base, point, samples: Vec::new() });
        }
        measured.push((part.title, cases));
    }
    let before = load::average();
    for _ in 0..rounds() {
        for (part, row, measure) in &measures {
            let case = &mut measured[*part].1[*row];
            let (sample, others) = beside(measure).map_err(|error| format!("{}: {error}", case.name))?;
            case.samples.push(sample.beside(others));
        }
    }
    Ok(tables(before, measured))
}

/// The tables of what was measured in the same rounds. `before` is the load average when they began.
pub fn tables(before: Option<f64>, parts: Vec<(String, Vec<Measured>)>) -> Vec<Table> {
    let all = parts.iter().flat_map(|(_, cases)| cases).flat_map(|case| &case.samples);
    let conditions = Conditions {
        date: load::today(),
        rounds: parts.iter().flat_map(|(_, cases)| cases).map(|case| case.samples.len()).max().unwrap_or(0),
        load: before.zip(load::average()),
        others: median(all.map(|sample| sample.others)),
    };
    let table = |(title, cases): (String, Vec<Measured>)| {
        let rows = cases.iter().map(|case| row(case, &cases)).collect();
        Table { title, conditions: conditions.clone(), rows }
    };
    parts.into_iter().map(table).collect()
}

/// The median of what others took: unknown if it is for any of the samples.
fn median(each: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let each: Option<Vec<f64>> = each.collect();
    Some(Spread::of(each?)?.median)
}

fn row(case: &Measured, cases: &[Measured]) -> Row {
    let base = cases.iter().find(|other| Some(&other.name) == case.base.as_ref());
    let mut names: Vec<&'static str> = Vec::new();
    for (name, _) in case.samples.iter().flat_map(|sample| &sample.figures) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let figure = |name: &'static str| {
        let value = Spread::of(case.samples.iter().filter_map(|sample| sample.figure(name)))?;
        let pairs = base.into_iter().flat_map(|base| base.samples.iter().zip(&case.samples));
        let ratios =
            pairs.filter_map(|(base, own)| Some(own.figure(name)? / base.figure(name).filter(|value| *value > 0.0)?));
        Some(Figure { name, value, ratio: Spread::of(ratios) })
    };
    // A ratio is disturbed by what disturbs either of its two samples.
    let disturbed = case.samples.iter().enumerate().map(|(round, own)| {
        let base = base.map(|base| base.samples.get(round).and_then(|sample| sample.others));
        base.map_or(own.others, |base| Some(own.others?.max(base?)))
    });
    let others = median(disturbed);
    Row {
        name: case.name.clone(),
        base: case.base.clone(),
        point: case.point.clone(),
        figures: names.into_iter().filter_map(figure).collect(),
        others,
    }
}

impl Row {
    /// The figure of this name.
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// Whether others are known to have left the machine to this case and its base.
    pub fn is_quiet(&self) -> bool {
        self.others.is_some_and(|others| others <= QUIET)
    }

    /// What a reader must know about the load, or nothing.
    pub fn remark(&self) -> String {
        match self.others {
            None => "load unknown".to_owned(),
            Some(others) if others > QUIET => format!("measured beside {others:.1} cores of other work"),
            Some(_) => String::new(),
        }
    }
}

impl Table {
    /// The table as text: of each figure its median, after `×` that of its ratios to the base, and their range.
    pub fn text(&self) -> String {
        let mut names: Vec<&'static str> = Vec::new();
        for figure in self.rows.iter().flat_map(|row| &row.figures) {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        let mut text = format!("\n## {}; medians\n{}\n{:<44}", self.title, self.conditions, "");
        for name in &names {
            // Writing to a string does not fail.
            let _ = write!(text, "{name:>30}");
        }
        for row in &self.rows {
            let _ = write!(text, "\n{:<44}", row.name);
            for name in &names {
                let _ = write!(text, "{:>30}", row.figure(name).map_or_else(|| "-".to_owned(), cell));
            }
            if !row.remark().is_empty() {
                let _ = write!(text, "   {}", row.remark());
            }
        }
        text
    }
}

fn cell(figure: &Figure) -> String {
    let value = short(figure.value.median);
    match figure.ratio {
        // Ratios of numbers near zero say nothing.
        Some(ratio) if !figure.name.starts_with("allocs") => {
            format!("{value} ×{} ({})", short(ratio.median), ratio.range())
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &str, base: Option<&str>, samples: &[(f64, Option<f64>)]) -> Measured {
        let sample = |(value, others): &(f64, Option<f64>)| Sample::new().with("GB/s", *value).beside(*others);
        let samples = samples.iter().map(sample).collect();
        Measured { name: name.into(), base: base.map(str::to_owned), point: None, samples }
    }

    fn table(cases: Vec<Measured>) -> Table {
        tables(Some(1.0), vec![("a title".into(), cases)]).remove(0)
    }

    #[test]
    fn ratios_are_between_samples_of_one_round() {
        let raw = measured("raw", None, &[(1.0, Some(0.0)), (2.0, Some(0.0)), (4.0, Some(0.0))]);
        let ours = measured("ours", Some("raw"), &[(2.0, Some(0.0)), (2.0, Some(0.0)), (2.0, Some(0.0))]);
        let table = table(vec![raw, ours]);
        let ratio = table.rows[1].figures[0].ratio;
        assert_eq!(ratio, Some(Spread { median: 1.0, least: 0.5, most: 2.0 }));
        assert_eq!(table.rows[0].figures[0].ratio, None);
    }

    #[test]
    fn a_row_has_the_load_of_its_base_if_that_is_higher() {
        let raw = measured("raw", None, &[(1.0, Some(1.3)); 3]);
        let ours = measured("ours", Some("raw"), &[(1.0, Some(0.0)); 3]);
        let table = table(vec![raw, ours]);
        assert_eq!(table.rows[1].others, Some(1.3));
        assert_eq!(table.rows[1].remark(), "measured beside 1.3 cores of other work");
        assert!(table.text().lines().last().is_some_and(|row| row.ends_with("1.3 cores of other work")));
    }

    #[test]
    fn a_round_is_disturbed_if_either_of_its_samples_is() {
        let raw = measured("raw", None, &[(1.0, Some(1.5)), (1.0, Some(0.0)), (1.0, Some(0.0))]);
        let ours = measured("ours", Some("raw"), &[(1.0, Some(0.0)), (1.0, Some(0.9)), (1.0, Some(0.0))]);
        let table = table(vec![raw, ours]);
        assert!(table.rows[0].is_quiet());
        assert_eq!(table.rows[1].others, Some(0.9));
    }

    #[test]
    fn a_load_that_was_not_read_once_is_unknown() {
        let ours = measured("ours", None, &[(1.0, Some(0.0)), (1.0, None), (1.0, Some(0.0))]);
        let table = table(vec![ours]);
        assert_eq!(table.rows[0].others, None);
        assert_eq!(table.rows[0].remark(), "load unknown");
        assert!(!table.rows[0].is_quiet());
        assert!(table.text().contains("load unknown"));
    }

    #[test]
    fn one_disturbed_round_of_three_is_not_remarked() {
        let ours = measured("ours", None, &[(1.0, Some(0.0)), (1.0, Some(1.9)), (1.0, Some(0.2))]);
        let row = &table(vec![ours]).rows[0];
        assert!(row.is_quiet());
        assert_eq!(row.remark(), "");
    }

    #[test]
    fn rounds_go_through_all_parts() -> Outcome<()> {
        use std::cell::RefCell;
        use std::rc::Rc;
        let order: Rc<RefCell<Vec<&str>>> = Rc::default();
        let case = |name: &'static str| {
            let order = Rc::clone(&order);
            Case::new(name, None, move || {
                order.borrow_mut().push(name);
                Ok(Sample::new().with("ops/s", 1.0))
            })
        };
        let tables = run_parts(vec![Part::new("first", [case("a"), case("b")]), Part::new("second", [case("c")])])?;
        assert_eq!(tables.iter().map(|table| table.rows.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(order.borrow().chunks(3).all(|round| round == ["a", "b", "c"]));
        assert_eq!(order.borrow().len(), 3 * rounds());
        Ok(())
    }
}
