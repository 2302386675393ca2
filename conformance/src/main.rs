//! What a server of `kubectl exec`, `attach` and `port-forward` speaks, and where it departs.
//!
//! Owns the command line, and what there is before and after a run.

#[path = "../../examples/support/api.rs"]
mod api;
mod arguments;
#[path = "../../examples/support/attach.rs"]
mod attach;
#[path = "../../examples/support/forward.rs"]
mod forward;
mod local;
#[path = "../../examples/support/node.rs"]
mod node;
#[path = "../../examples/support/process.rs"]
mod process;
mod progress;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use conformance::cases::{ALL, Case};
use conformance::column::{Column, Group};
use conformance::created::Created;
use conformance::report::{json, junit, table};
use conformance::run::run;
use conformance::target::Target;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Arguments, Judged};

type Failure = Box<dyn Error + Send + Sync>;

/// As a shell has it for SIGINT.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for case in ALL {
            println!("{:24} {}", case.name, case.about);
        }
        return ExitCode::SUCCESS;
    }
    match judge(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn judge(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let unknown = |name: &&String| !ALL.iter().any(|case| names(name, case));
    if let Some(name) = arguments.only.iter().find(unknown) {
        return Err(format!("there is no case {name:?}: --list says which there are").into());
    }
    let columns = || Group::ALL.iter().flat_map(|group| group.columns());
    if let Some(name) = arguments.column.iter().find(|name| columns().all(|column| column.name != **name)) {
        return Err(format!("there is no column {name:?}: the table has their names").into());
    }
    match arguments.judged().await? {
        Judged::There(target, _tasks) => report(arguments, target).await,
        Judged::Create { config, namespace } => {
            let client = kube::Client::try_from((*config).clone())?;
            let node = arguments.node.as_deref();
            let created = Created::new(client, &namespace, &arguments.image, node).await?;
            eprintln!("created the pod {}", created.name());
            let judging = async {
                let pod = created.started(&namespace).await?;
                report(arguments, Target::new(&config, pod)?).await
            };
            // Whatever comes of it, and whoever interrupts it.
            let judged = tokio::select! {
                judged = judging => judged,
                interrupted = interrupted() => interrupted.map(|()| ExitCode::from(INTERRUPTED)),
            };
            created.remove().await?;
            eprintln!("removed the pod {}", created.name());
            judged
        }
    }
}

async fn interrupted() -> Result<(), Failure> {
    let (mut terminated, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
        _ = hung_up.recv() => {}
    }
    Ok(())
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
    print!("{}", table(&report));
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", json(&report)))?;
    }
    if let Some(file) = &arguments.junit {
        std::fs::write(file, junit(&report)?)?;
    }
    if report.passed() == 0 {
        return Err("nothing passed: whatever is there, it is no server of these".into());
    }
    Ok(if report.failures().next().is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
