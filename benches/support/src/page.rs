//! The measured part of docs/benchmarks.md.
//!
//! Writes between two markers, and leaves what people wrote around them as it is.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::Outcome;
use super::judge::{Bound, Target, Verdict, bound_of, split_name};
use super::spread::short;
use super::table::{Figure, Row, Table};

/// A drawing beside the page.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The name of its file.
    pub file: &'static str,
    /// What it shows.
    pub about: String,
    /// The drawing, or `None` if there is nothing to draw: then the file goes.
    pub svg: Option<String>,
}

/// The folder of the pages.
fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// Fails if the page has no section of this program. To be asked before minutes of measuring.
pub fn check(section: &str) -> Outcome<()> {
    replaced(&std::fs::read_to_string(docs().join("benchmarks.md"))?, section, "").map(drop)
}

/// Writes the section of a program into docs/benchmarks.md, and its charts beside it.
pub fn write(section: &str, groups: &[(&str, Vec<Table>)], targets: &[Target], charts: &[Chart]) -> Outcome<()> {
    write_to(&docs(), section, groups, targets, charts)
}

fn write_to(
    folder: &Path,
    section: &str,
    groups: &[(&str, Vec<Table>)],
    targets: &[Target],
    charts: &[Chart],
) -> Outcome<()> {
    let page = folder.join("benchmarks.md");
    let text = replaced(&std::fs::read_to_string(&page)?, section, &markdown(groups, targets, charts))?;
    for chart in charts {
        let file = folder.join(chart.file);
        match &chart.svg {
            Some(svg) => std::fs::write(file, svg)?,
            None if file.exists() => std::fs::remove_file(file)?,
            None => {}
        }
    }
    Ok(std::fs::write(page, text)?)
}

/// The page with other text between the markers of the section.
fn replaced(page: &str, section: &str, text: &str) -> Outcome<String> {
    let (begin, end) = (format!("<!-- measured by {section} -->\n"), format!("<!-- end of {section} -->\n"));
    let parts = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("the page has no section {section}"))?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

fn markdown(groups: &[(&str, Vec<Table>)], targets: &[Target], charts: &[Chart]) -> String {
    let mut text = String::new();
    for chart in charts.iter().filter(|chart| chart.svg.is_some()) {
        push(&mut text, &format!("![{}]({})\n", chart.about, chart.file));
    }
    for (name, tables) in groups {
        let Some(first) = tables.first() else { continue };
        push(&mut text, &format!("### `{name}`\n\n{}.\n", first.conditions));
        push(&mut text, "| case | figure | median | compared with | target | ratio | range | load | |");
        push(&mut text, "|---|---|---|---|---|---|---|---|---|");
        for table in tables {
            push(&mut text, &format!("| **{}** | | | | | | | | |", escaped(&table.title)));
            for row in &table.rows {
                rows(&mut text, table, row, targets);
            }
        }
        text.push('\n');
    }
    text
}

/// The first figure of the case, and those in the list.
fn rows(text: &mut String, table: &Table, row: &Row, targets: &[Target]) {
    for (at, figure) in row.figures.iter().enumerate() {
        match bound_of(targets, table, row, figure.name) {
            Some(bound) => push(text, &line(row, figure, bound)),
            None if at == 0 => push(text, &line(row, figure, Bound::Shown)),
            None => {}
        }
    }
}

fn line(row: &Row, figure: &Figure, bound: Bound) -> String {
    let (runtime, case) = split_name(&row.name);
    let case = runtime.map_or_else(|| case.to_owned(), |runtime| format!("{}: {case}", short_runtime(runtime)));
    // What is written as a ratio is judged as one. Else the range is that of the figure itself.
    let of_itself = matches!(bound, Bound::AtLeast(_) | Bound::AtMost(_));
    let ratio = figure.ratio.filter(|_| !of_itself);
    let base = row.base.as_deref().filter(|_| ratio.is_some()).map_or("", |base| split_name(base).1);
    let cells = [
        case,
        figure.name.to_owned(),
        short(figure.value.median),
        base.to_owned(),
        bound.text(),
        ratio.map_or_else(String::new, |ratio| short(ratio.median)),
        ratio.unwrap_or(figure.value).range(),
        row.others.map_or_else(|| "unknown".to_owned(), |others| format!("{:.1}", others.max(0.0))),
        match bound.judge(row, figure) {
            Verdict::None => String::new(),
            verdict => verdict.word().to_owned(),
        },
    ];
    format!("| {} |", cells.map(|cell| escaped(&cell)).join(" | "))
}

fn short_runtime(runtime: &str) -> &'static str {
    if runtime == "multi_thread" { "mt" } else { "ct" }
}

fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|")
}

fn push(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::tests::row;
    use crate::load::Conditions;

    const PAGE: &str = "# Title\n\nBy hand.\n<!-- measured by mux -->\nold\n<!-- end of mux -->\n\nAlso by hand.\n\
        <!-- measured by peers -->\ntheirs\n<!-- end of peers -->\n";
    const TARGET: Target = Target { table: "bulk", case: "send", figure: "GB/s", bound: Bound::RatioAtLeast(0.9) };

    fn group(others: Option<f64>) -> (&'static str, Vec<Table>) {
        let conditions = Conditions { date: "2026-11-30".into(), rounds: 3, load: Some((1.0, 2.0)), others };
        ("bulk", vec![Table { title: "bulk: a | b".into(), conditions, rows: vec![row(1.0, others)] }])
    }

    #[test]
    fn what_is_outside_the_markers_stays() -> Outcome<()> {
        let page = replaced(PAGE, "mux", "new\n\n")?;
        assert_eq!(page, PAGE.replace("old", "\nnew\n"));
        // And again, without growing.
        assert_eq!(replaced(&page, "mux", "new")?, page);
        assert!(replaced(PAGE, "another", "new").is_err());
        assert!(replaced("<!-- end of mux -->\n<!-- measured by mux -->\n", "mux", "new").is_err());
        Ok(())
    }

    #[test]
    fn the_page_has_a_section_for_each_program() -> Outcome<()> {
        check("mux")?;
        check("peers")
    }

    #[test]
    fn a_quiet_row_is_met_and_one_under_load_is_not() {
        let quiet = markdown(&[group(Some(0.1))], &[TARGET], &[]);
        assert!(
            quiet.contains("| ct: send | GB/s | 2.00 | raw TCP | ≥ 0.9 | 1.00 | 0.90 to 1.10 | 0.1 | met |"),
            "{quiet}"
        );
        for others in [Some(1.3), None] {
            let loaded = markdown(&[group(others)], &[TARGET], &[]);
            assert!(!loaded.contains("met") && loaded.contains("| unproven |"), "{loaded}");
        }
    }

    #[test]
    fn each_group_has_a_head_and_one_table() {
        let text = markdown(&[group(Some(0.5))], &[], &[]);
        assert!(text.contains("3 rounds, 2026-11-30, ") && text.contains("load 1.0 before and 2.0 after"), "{text}");
        assert_eq!(text.matches("\n|---|").count(), 1, "{text}");
        assert!(text.contains("**bulk: a \\| b**"), "{text}");
        assert!(text.contains("| – | 1.00 |"), "{text}");
    }

    #[test]
    fn a_target_for_the_figure_itself_shows_no_ratio() {
        let target = Target { bound: Bound::AtMost(1.5), ..TARGET };
        let text = markdown(&[group(Some(0.0))], &[target], &[]);
        assert!(
            text.contains("| ct: send | GB/s | 2.00 |  | median ≤ 1.50 |  | 1.00 to 3.00 | 0.0 | **short** |"),
            "{text}"
        );
    }

    #[test]
    fn charts_are_written_and_go_with_what_they_showed() -> Outcome<()> {
        let folder = std::env::temp_dir().join(format!("kubestream-page-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("benchmarks.md"), PAGE)?;
        let chart = |svg: Option<&str>| [Chart { file: "a.svg", about: "speeds".into(), svg: svg.map(str::to_owned) }];
        write_to(&folder, "mux", &[group(None)], &[], &chart(Some("<svg/>")))?;
        let page = std::fs::read_to_string(folder.join("benchmarks.md"))?;
        assert!(page.contains("![speeds](a.svg)") && folder.join("a.svg").exists());
        write_to(&folder, "mux", &[group(None)], &[], &chart(None))?;
        let page = std::fs::read_to_string(folder.join("benchmarks.md"))?;
        assert!(!page.contains("a.svg") && !folder.join("a.svg").exists());
        assert!(page.starts_with("# Title\n\nBy hand.\n") && page.contains("\nAlso by hand.\n"));
        Ok(std::fs::remove_dir_all(folder)?)
    }
}
