//! The command line of a program of benchmarks, and what it does with the tables.
//!
//! Knows no case. No figure fails a run.

use super::Outcome;
use super::judge::Target;
use super::page::{self, Chart};
use super::table::Table;

/// Measures a group of cases.
pub type Group = fn() -> Outcome<Vec<Table>>;

/// What has been measured: each group with its tables.
pub type Groups<'a> = [(&'a str, Vec<Table>)];

/// What a program can measure, and how its results are shown.
pub struct Program<'a> {
    /// Its section in docs/benchmarks.md.
    pub section: &'a str,
    /// The groups, by name.
    pub groups: &'a [(&'a str, Group)],
    /// What should be reached.
    pub targets: &'a [Target],
    /// Draws what has been measured.
    pub charts: fn(&Groups<'_>) -> Vec<Chart>,
}

impl Program<'_> {
    /// Runs the named groups, or all, and prints their tables. `--write` writes them into docs/benchmarks.md, too, in
    /// place of all that the program wrote there before.
    pub fn run(&self, words: &[String]) -> Outcome<()> {
        let (write, wanted) = self.chosen(words)?;
        if write {
            page::check(self.section)?;
        }
        let mut measured = Vec::new();
        for (name, group) in self.groups.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
            let tables = group()?;
            for table in &tables {
                println!("{}", table.text());
            }
            self.note_unused(name, &tables);
            measured.push((*name, tables));
        }
        if write {
            page::write(self.section, &measured, self.targets, &(self.charts)(&measured))?;
        }
        Ok(())
    }

    /// Whether to write the page, and the names of groups.
    fn chosen<'w>(&self, words: &'w [String]) -> Outcome<(bool, Vec<&'w str>)> {
        let (flags, wanted): (Vec<&str>, Vec<&str>) =
            words.iter().map(String::as_str).partition(|word| word.starts_with("--"));
        if let Some(unknown) = flags.iter().find(|flag| **flag != "--write") {
            return Err(format!("no option {unknown}: there is --write").into());
        }
        if let Some(unknown) = wanted.iter().find(|word| !self.groups.iter().any(|(name, _)| name == *word)) {
            let names: Vec<&str> = self.groups.iter().map(|(name, _)| *name).collect();
            return Err(format!("no group {unknown}: there are {names:?}").into());
        }
        Ok((!flags.is_empty(), wanted))
    }

    /// Says which targets of measured tables have no row: a case that was renamed would lose its target in silence.
    fn note_unused(&self, group: &str, tables: &[Table]) {
        for target in self.targets {
            let mut of_this = tables.iter().filter(|table| table.title.contains(target.table)).peekable();
            let has_row = |table: &Table| {
                let mut rows = table.rows.iter().filter(|row| target.is_for(row));
                rows.any(|row| row.figure(target.figure).is_some())
            };
            if of_this.peek().is_some() && !of_this.any(has_row) {
                println!("\nnot measured in {group}: {} of {}, in {}", target.figure, target.case, target.table);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_groups_and_one_flag() -> Outcome<()> {
        let groups: [(&str, Group); 2] = [("bulk", || Ok(Vec::new())), ("echo", || Ok(Vec::new()))];
        let program = Program { section: "mux", groups: &groups, targets: &[], charts: |_| Vec::new() };
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(program.chosen(&words(""))?, (false, vec![]));
        assert_eq!(program.chosen(&words("echo --write bulk"))?, (true, vec!["echo", "bulk"]));
        assert!(program.chosen(&words("ehco")).is_err());
        assert!(program.chosen(&words("--wirte")).is_err());
        Ok(())
    }
}
