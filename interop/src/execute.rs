//! client-go's executors at a complete URL, such as a runtime gives out.
//!
//! Starts them and reads their outcome.

use serde_json::Value;
use tokio::process::Command;

use crate::{Ended, Input, Scratch, binary, run};

/// Runs the executor at a URL. The executor takes its streams from the query, which a runtime's server ignores.
///
/// # Panics
/// Panics if there is no outcome.
pub async fn execute(url: &str, arguments: &[&str], streams: &str, input: Input) -> (Ended, Value) {
    let scratch = Scratch::new();
    let mut command = Command::new(binary("exec-client"));
    command.args(arguments).arg("-result").arg(scratch.file("result")).arg("-url").arg(format!("{url}?{streams}"));
    if !matches!(input, Input::Null) {
        command.args(["-stdin", "-"]);
    }
    let ended = run(command, input).await;
    let outcome = std::fs::read(scratch.file("result")).expect("a result");
    (ended, serde_json::from_slice(&outcome).expect("a result in JSON"))
}
