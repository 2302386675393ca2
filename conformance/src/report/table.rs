//! For a terminal: a table a group, and under them what there is to say.

use std::fmt::Write;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};

use crate::column::{Column, Group};
use crate::run::{Cell, Report};
use crate::verdict::{Departure, Outcome};

/// All of a report.
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

fn mark(outcome: &Outcome) -> &'static str {
    match outcome {
        Ok(()) => "pass",
        Err(Departure::Failed { .. } | Departure::Unreached(_)) => "FAIL",
        Err(Departure::Known { .. }) => "note",
        Err(Departure::NotOffered(_)) => "–",
    }
}

fn remarks(report: &Report, text: &mut String) {
    for (group, column, why) in &report.absent {
        let _ = writeln!(text, "not offered: {}, {}: {why}", group.name(), column.name);
    }
    let absent = |group, column| report.absent.iter().any(|(other, there, _)| (*other, *there) == (group, column));
    // Failures last, where they are seen.
    for kind in ["not offered", "note", "FAIL"] {
        for row in &report.rows {
            let cells = row.cells.iter().filter(|cell| kind != "not offered" || !absent(row.case.group, cell.column));
            for (said, columns) in alike(cells, kind) {
                let _ =
                    writeln!(text, "{kind}: {} ({}), {}: {said}", row.case.name, row.case.about, columns.join(", "));
            }
        }
    }
    let count = |wanted: &dyn Fn(&Departure) -> bool| {
        report.departures().filter(|(_, cell)| cell.outcome.as_ref().is_err_and(wanted)).count()
    };
    let notes = count(&|departure| matches!(departure, Departure::Known { .. }));
    let not_offered = count(&|departure| matches!(departure, Departure::NotOffered(_)));
    let _ = writeln!(
        text,
        "{} passed, {} failed, {notes} noted, {not_offered} not offered, in {} s",
        report.passed(),
        report.failures().count(),
        report.took.as_secs()
    );
}

/// What there is to say of a case, once for all columns of which it is the same.
fn alike<'a>(cells: impl Iterator<Item = &'a Cell>, kind: &str) -> Vec<(String, Vec<&'static str>)> {
    let mut said: Vec<(String, Vec<&'static str>)> = Vec::new();
    for cell in cells {
        let Err(departure) = &cell.outcome else { continue };
        let its = match departure {
            Departure::NotOffered(_) => "not offered",
            Departure::Known { .. } => "note",
            Departure::Failed { .. } | Departure::Unreached(_) => "FAIL",
        };
        if its != kind {
            continue;
        }
        let text = departure.to_string();
        match said.iter_mut().find(|(other, _)| *other == text) {
            Some((_, columns)) => columns.push(cell.column.name),
            None => said.push((text, vec![cell.column.name])),
        }
    }
    said
}
