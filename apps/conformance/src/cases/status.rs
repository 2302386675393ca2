//! How a command ends.

use kubestream::exec::Streams;
use kubestream::status::ExitStatus;

use crate::bench::Bench;
use crate::known;
use crate::verdict::{Outcome, expect, failed};

pub(super) async fn codes(bench: Bench) -> Outcome {
    let once = |number: usize| {
        let bench = bench.clone();
        async move {
            let output = bench.sh(&format!("exit {number}")).await?;
            if number != 0 {
                bench.said_something(&output.status)?;
            }
            let expected = i32::try_from(number).ok().filter(|code| *code != 0).map(ExitStatus::Code);
            expect(output.status, expected.unwrap_or(ExitStatus::Success))
        }
    };
    // A shorter run takes codes from both ends, so that some above 127 are tested.
    let last = bench.scale.exit_codes.min(256);
    bench
        .many_but_few(last, &known::SILENT_END, |number| {
            once(if number % 2 == 0 { number / 2 } else { 255 - number / 2 })
        })
        .await
}

pub(super) async fn signals(bench: Bench) -> Outcome {
    for (name, number) in [("HUP", 1), ("INT", 2), ("KILL", 9), ("TERM", 15)] {
        let output = bench.sh(&format!("kill -{name} $$; sleep 5")).await.map_err(|departure| departure.at(name))?;
        expect(output.status, ExitStatus::Code(128 + number)).map_err(|departure| departure.at(name))?;
    }
    Ok(())
}

pub(super) async fn not_found(bench: Bench) -> Outcome {
    let output = bench.output(&["/no/such/command"], Streams::OUTPUT).await?;
    match output.status {
        // A shell reports 126 and 127 for this, and so do some runtimes.
        ExitStatus::Code(126 | 127) => Ok(()),
        ExitStatus::Failed(status) if !status.message.is_empty() => Ok(()),
        status => Err(failed("a failure that gives a reason", format_args!("{status:?}"))),
    }
}
