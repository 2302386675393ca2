//! Runs the cases, each in each of its columns, one after another.
//!
//! Holds the deadlines, and which protocols the server offers. A case that panics or hangs does not stop the run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kubestream::exec::Streams;
use kubestream::status::Status;
use kubestream::upgrade::{Protocol, UpgradeError};
use tokio::task::JoinHandle;

use crate::bench::Bench;
use crate::cases::{ALL, Case};
use crate::column::{Column, Group};
use crate::scale::Scale;
use crate::target::Target;
use crate::verdict::{Departure, Outcome, failed};

/// The outcome of a run.
#[derive(Debug)]
pub struct Report {
    pub rows: Vec<Row>,
    /// The columns that the server does not offer, with its words.
    pub absent: Vec<(Group, Column, String)>,
    pub took: Duration,
}

/// The row of one case.
#[derive(Debug)]
pub struct Row {
    pub case: &'static Case,
    pub cells: Vec<Cell>,
}

/// One case in one column.
#[derive(Debug)]
pub struct Cell {
    pub column: Column,
    pub outcome: Outcome,
    pub took: Duration,
}

/// The progress of a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The server is asked whether it offers this column's version.
    Probing(Column),
    /// `done` of `of` cells are finished, and this cell is next.
    Begins {
        case: &'static Case,
        column: Column,
        done: usize,
        of: usize,
    },
    Ended {
        case: &'static Case,
        cell: &'a Cell,
    },
}

impl Report {
    /// The cells that count against the server.
    pub fn failures(&self) -> impl Iterator<Item = (&'static Case, &Cell)> {
        self.departures().filter(|(_, cell)| cell.outcome.as_ref().is_err_and(Departure::is_failure))
    }

    /// All cells that did not pass, known departures included.
    pub fn departures(&self) -> impl Iterator<Item = (&'static Case, &Cell)> {
        let cells = self.rows.iter().flat_map(|row| row.cells.iter().map(|cell| (row.case, cell)));
        cells.filter(|(_, cell)| cell.outcome.is_err())
    }

    pub fn passed(&self) -> usize {
        self.rows.iter().flat_map(|row| &row.cells).filter(|cell| cell.outcome.is_ok()).count()
    }
}

/// The server's answer to a version that is offered alone.
enum Found {
    There,
    /// The server does not offer it. The text is its answer.
    Absent(String),
    /// The answer is neither an upgrade nor a refusal of the version.
    Broken(Departure),
}

/// Runs the cases in the columns that `wanted` selects.
pub async fn run(
    target: Arc<Target>,
    scale: Arc<Scale>,
    wanted: impl Fn(&Case, Column) -> bool,
    mut observe: impl FnMut(Event<'_>),
) -> Report {
    let began = Instant::now();
    let columns_of = |case: &'static Case| {
        let columns = case.group.columns().iter().copied();
        columns.filter(|column| wanted(case, *column)).collect::<Vec<_>>()
    };
    let cases: Vec<_> =
        ALL.iter().map(|case| (case, columns_of(case))).filter(|(_, columns)| !columns.is_empty()).collect();
    let mut found = Vec::new();
    for group in [Group::Exec, Group::Forward] {
        // The cases of the handshake choose among all protocols of a transport, so all of them are asked for.
        let asked = |column: &&Column| {
            cases.iter().any(|(case, columns)| {
                case.group == group && columns.contains(column)
                    || group == Group::Exec && case.group == Group::Handshake
            })
        };
        for column in group.columns().iter().filter(asked) {
            observe(Event::Probing(*column));
            let bench = bench(&target, &scale, *column, &[]);
            found.push((group, *column, probe(&bench, group).await));
        }
    }
    let there = found.iter().filter(|(.., found)| matches!(found, Found::There));
    let offered: Vec<_> = there.map(|(_, column, _)| column.protocol).collect();

    let mut report = Report { rows: Vec::new(), absent: Vec::new(), took: Duration::ZERO };
    let of = cases.iter().map(|(_, columns)| columns.len()).sum();
    let mut done = 0;
    for (case, columns) in &cases {
        let try_in = |column: Column| {
            let bench = bench(&target, &scale, column, &offered);
            let first = cases.iter().find(|(other, columns)| other.group == case.group && columns.contains(&column));
            let is_first = first.is_some_and(|(other, _)| other.name == case.name);
            let missing = missing(case, column, &found, &offered, is_first);
            let strict = target.strict;
            async move {
                let began = Instant::now();
                let outcome = match missing {
                    Some(departure) => Err(departure),
                    None => one(case, bench).await,
                };
                let outcome = outcome.map_err(|departure| if strict { departure.strict() } else { departure });
                Cell { column, outcome, took: began.elapsed() }
            }
        };
        let at_a_time = if case.waits { columns.len() } else { 1 };
        let mut trying = stream::iter(columns.clone()).map(try_in).buffered(at_a_time);
        let mut cells = Vec::new();
        while let Some(column) = columns.get(cells.len()) {
            observe(Event::Begins { case, column: *column, done, of });
            let Some(cell) = trying.next().await else { break };
            observe(Event::Ended { case, cell: &cell });
            cells.push(cell);
            done += 1;
        }
        drop(trying);
        report.rows.push(Row { case, cells });
    }
    report.absent = found
        .into_iter()
        .filter_map(|(group, column, found)| match found {
            Found::Absent(why) => Some((group, column, why)),
            _ => None,
        })
        .collect();
    report.took = began.elapsed();
    report
}

fn bench(target: &Arc<Target>, scale: &Arc<Scale>, column: Column, offered: &[Protocol]) -> Bench {
    Bench { target: Arc::clone(target), scale: Arc::clone(scale), column, offered: offered.into() }
}

async fn probe(bench: &Bench, group: Group) -> Found {
    let url = match group {
        Group::Forward => bench.forward_url(&[bench.target.pod.echo.unwrap_or(bench.target.pod.refused)]),
        _ => bench.exec_url(&["true"], Streams::OUTPUT),
    };
    match bench.offer(&url, &[bench.column.protocol]).await {
        Ok(Ok(_)) => Found::There,
        Ok(Err(error)) if is_about_the_version(&error) => Found::Absent(error.to_string()),
        Ok(Err(error)) => Found::Broken(failed("an upgrade, or a refusal of the version", error)),
        Err(departure) => Found::Broken(departure),
    }
}

/// True if the server refuses the version, and not the client.
fn is_about_the_version(error: &UpgradeError) -> bool {
    let UpgradeError::Refused { response, .. } = error else { return false };
    let forbidden = Status::from_json(response.body()).is_ok_and(|status| status.reason == "Forbidden");
    [400, 403, 426, 501].contains(&response.status().as_u16()) && !forbidden
}

/// Returns why there is nothing to try. A fault of the whole column is reported once, by the first case in it.
fn missing(
    case: &Case,
    column: Column,
    found: &[(Group, Column, Found)],
    offered: &[Protocol],
    is_first: bool,
) -> Option<Departure> {
    let transport = column.protocol.transport();
    let broken = |departure: &Departure| {
        if is_first { departure.clone() } else { Departure::NotOffered("its handshake failed".into()) }
    };
    if case.group == Group::Handshake {
        if offered.iter().any(|protocol| protocol.version().is_some() && protocol.transport() == transport) {
            return None;
        }
        let of_transport =
            found.iter().filter(|(group, other, _)| *group == Group::Exec && other.protocol.transport() == transport);
        let mut faults =
            of_transport.filter_map(|(.., found)| if let Found::Broken(fault) = found { Some(fault) } else { None });
        let absent = || Departure::NotOffered(format!("the server has no exec over {transport}"));
        return Some(faults.next().map_or_else(absent, broken));
    }
    let (.., found) = found.iter().find(|(group, other, _)| *group == case.group && *other == column)?;
    match found {
        Found::There => None,
        Found::Absent(why) => Some(Departure::NotOffered(why.clone())),
        Found::Broken(departure) => Some(broken(departure)),
    }
}

/// Runs a case on a task of its own, so that a panic or a hang ends with it.
async fn one(case: &Case, bench: Bench) -> Outcome {
    let deadline = bench.scale.deadline;
    let mut task = Task(tokio::spawn((case.run)(bench)));
    match tokio::time::timeout(deadline, &mut task.0).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(failed("a case that ends", panic)),
        Err(_) => Err(failed("an end", format_args!("no end within {} s", deadline.as_secs()))),
    }
}

/// Aborts the task when it is dropped.
struct Task(JoinHandle<Outcome>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
