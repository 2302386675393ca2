//! Tests a server of `kubectl exec`, `attach` and `port-forward`, and reports where it departs from the protocols.
//!
//! Holds the command line, and what happens before and after a run.

mod arguments;
mod local;
mod progress;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use conformance::cases::{ALL, Case};
use conformance::column::{Column, Group};
use conformance::created::Created;
use conformance::report::{json, junit, table};
use conformance::run::{Cell, run};
use conformance::target::Target;
use conformance::verdict::Departure;
use kubestream_apps::Failure;
use kubestream_apps::printable::printable;
use kubestream_apps::stdio::{complain, say};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arguments::{Arguments, Judged};

/// The time limit of an API server's answer.
const ANSWERED: Duration = Duration::from_secs(30);
/// The exit status of a shell for SIGINT.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for case in ALL {
            let _ = say(format_args!("{:24} {}", case.name, case.about));
        }
        return ExitCode::SUCCESS;
    }
    match judge(Arc::new(arguments)).await {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("error: {}", printable(error)));
            ExitCode::from(2)
        }
    }
}

async fn judge(arguments: Arc<Arguments>) -> Result<ExitCode, Failure> {
    let unknown = |name: &&String| !ALL.iter().any(|case| names(name, case));
    if let Some(name) = arguments.only.iter().find(unknown) {
        return Err(format!("there is no case {name:?}: --list shows all cases").into());
    }
    let columns = || Group::ALL.iter().flat_map(|group| group.columns());
    if let Some(name) = arguments.column.iter().find(|name| columns().all(|column| column.name != **name)) {
        return Err(format!("there is no column {name:?}: the head of the table shows all columns").into());
    }
    match arguments.judged().await? {
        Judged::There(target, _tasks) => report(&arguments, target).await,
        Judged::Create { mut config, namespace } => {
            config.read_timeout = Some(ANSWERED);
            let client = kube::Client::try_from((*config).clone())?;
            let node = arguments.node.as_deref();
            let created = Arc::new(Created::named(client, &namespace, &arguments.image, node)?);
            let mut interrupted = Interrupted::new()?;
            // On a task of its own, so that even a panic does not keep the pod from being deleted.
            let judging = tokio::spawn({
                let (arguments, created) = (Arc::clone(&arguments), Arc::clone(&created));
                async move {
                    created.make().await?;
                    complain(format_args!("created the pod {}", created.name()));
                    let pod = created.started(&namespace).await?;
                    report(&arguments, Target::new(&config, pod)?).await
                }
            });
            let stop = judging.abort_handle();
            let judged = tokio::select! {
                judged = judging => judged.unwrap_or_else(|panic| Err(panic.into())),
                () = interrupted.next() => Ok(ExitCode::from(INTERRUPTED)),
            };
            stop.abort();
            // A second interrupt skips the deletion.
            tokio::select! {
                removed = created.remove() => match removed {
                    Ok(()) => complain(format_args!("deleted the pod {}", created.name())),
                    Err(error) => complain(format_args!("error: {}", printable(error))),
                },
                () = interrupted.next() => complain(format_args!("error: the pod {} was not deleted", created.name())),
            }
            judged
        }
    }
}

/// The signals that ask a program to end.
struct Interrupted([Signal; 3]);

impl Interrupted {
    /// From now on the signals only do this.
    fn new() -> std::io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn names(name: &str, case: &Case) -> bool {
    case.name == name || case.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
}

async fn report(arguments: &Arguments, mut target: Target) -> Result<ExitCode, Failure> {
    target.strict |= arguments.strict;
    let wanted = |case: &Case, column: Column| {
        (arguments.only.is_empty() || arguments.only.iter().any(|name| names(name, case)))
            && (arguments.column.is_empty() || arguments.column.iter().any(|name| name == column.name))
    };
    let mut progress = progress::Progress::new();
    let report = run(Arc::new(target), Arc::new(arguments.scale()), wanted, |event| progress.show(&event)).await;
    progress.end();
    let files = [
        arguments.json.as_ref().map(|file| std::fs::write(file, format!("{:#}\n", json(&report)))),
        arguments
            .junit
            .as_ref()
            .map(|file| junit(&report).map_err(std::io::Error::other).and_then(|text| std::fs::write(file, text))),
    ];
    // If stdout is closed, the user has seen enough.
    let _ = say(table(&report).trim_end_matches('\n'));
    for written in files.into_iter().flatten() {
        written?;
    }
    if report.failures().next().is_some() {
        return Ok(ExitCode::FAILURE);
    }
    let tried = |cell: &Cell| !matches!(cell.outcome, Err(Departure::NotOffered(_)));
    if !report.rows.iter().flat_map(|row| &row.cells).any(tried) {
        return Err(
            "nothing was tested: the server offers none of the protocols, or these columns have no such case".into()
        );
    }
    Ok(ExitCode::SUCCESS)
}
