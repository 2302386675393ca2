//! The report as JSON, for programs.

use serde_json::{Value, json};

use super::word;
use crate::run::{Cell, Report};
use crate::verdict::Departure;

/// Turns a report into JSON.
#[must_use]
pub fn json(report: &Report) -> Value {
    let cases: Vec<_> = report
        .rows
        .iter()
        .map(|row| {
            json!({
                "name": row.case.name,
                "about": row.case.about,
                "group": row.case.group.name(),
                "results": row.cells.iter().map(result).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "passed": report.passed(),
        "failed": report.failures().count(),
        "seconds": report.took.as_secs_f64(),
        "cases": cases,
    })
}

fn result(cell: &Cell) -> Value {
    let mut result = json!({
        "column": cell.column.name,
        "transport": cell.column.protocol.transport().to_string(),
        "protocol": cell.column.protocol.name(),
        "result": word(&cell.outcome),
        "seconds": cell.took.as_secs_f64(),
    });
    match &cell.outcome {
        Ok(()) => {}
        Err(Departure::Failed { expected, came, .. }) => {
            result["expected"] = json!(expected);
            result["came"] = json!(came);
        }
        Err(Departure::Known { known, expected, came }) => {
            result["expected"] = json!(expected);
            result["came"] = json!(came);
            result["known"] = json!({"text": known.text, "of": known.of});
        }
        Err(Departure::NotOffered(why) | Departure::Unreached(why)) => result["why"] = json!(why),
    }
    result
}
