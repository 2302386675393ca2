//! The report for a terminal: a table for each group, with its remarks below it.

use std::fmt::Write;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};
use kubestream_apps::printable::printable;

use super::{FAIL, NOT_OFFERED, NOTE, word};
use crate::column::{Column, Group};
use crate::run::{Cell, Report};
use crate::verdict::Outcome;

/// Turns a report into text.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let rows: Vec<_> = report.rows.iter().filter(|row| row.case.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([group.name()].into_iter().chain(group.columns().iter().map(|column| column.name)));
        for row in rows {
            let mark_of = |column: &Column| {
                let cell = row.cells.iter().find(|cell| cell.column == *column);
                cell.map_or("", |cell| mark(&cell.outcome))
            };
            table.add_row([row.case.name].into_iter().chain(group.columns().iter().map(mark_of)));
        }
        let _ = writeln!(text, "{table}");
    }
    remarks(report, &mut text);
    text
}

/// The word in a cell of the table.
fn mark(outcome: &Outcome) -> &'static str {
    match word(outcome) {
        FAIL => "FAIL",
        NOT_OFFERED => "–",
        word => word,
    }
}

fn remarks(report: &Report, text: &mut String) {
    for (group, column, why) in &report.absent {
        let _ = writeln!(text, "not offered: {}, {}: {}", group.name(), column.name, printable(why));
    }
    let absent = |group, column| report.absent.iter().any(|(other, there, _)| (*other, *there) == (group, column));
    // Failures come last, where they are seen.
    for kind in [NOT_OFFERED, NOTE, FAIL] {
        let title = if kind == FAIL { "FAIL" } else { kind };
        for row in &report.rows {
            let cells = row.cells.iter().filter(|cell| kind != NOT_OFFERED || !absent(row.case.group, cell.column));
            for (said, columns) in alike(cells.filter(|cell| word(&cell.outcome) == kind)) {
                let _ =
                    writeln!(text, "{title}: {} ({}), {}: {said}", row.case.name, row.case.about, columns.join(", "));
            }
        }
    }
    let count = |kind: &str| report.departures().filter(|(_, cell)| word(&cell.outcome) == kind).count();
    let (notes, not_offered) = (count(NOTE), count(NOT_OFFERED));
    let _ = writeln!(
        text,
        "{} passed, {} failed, {notes} noted, {not_offered} not offered, in {} s",
        report.passed(),
        report.failures().count(),
        report.took.as_secs()
    );
}

/// Groups the columns in which the remark on a case is the same.
fn alike<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<(String, Vec<&'static str>)> {
    let mut said: Vec<(String, Vec<&'static str>)> = Vec::new();
    for cell in cells {
        let Err(departure) = &cell.outcome else { continue };
        let text = printable(departure).to_string();
        match said.iter_mut().find(|(other, _)| *other == text) {
            Some((_, columns)) => columns.push(cell.column.name),
            None => said.push((text, vec![cell.column.name])),
        }
    }
    said
}
