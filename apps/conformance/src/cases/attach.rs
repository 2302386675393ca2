//! The main process of a container.

use bytes::Bytes;
use kubestream::exec::Streams;

use crate::bench::{Bench, until, within};
use crate::verdict::{Departure, Instead, Outcome, failed};

/// Types a line, and expects it on both outputs.
async fn say(bench: &Bench, line: &str) -> Outcome {
    let Some(container) = bench.target.pod.attach.as_deref() else {
        return Err(Departure::NotOffered(
            "no --attach-container was given, whose main process would repeat a line".into(),
        ));
    };
    let mut session = bench.attach(container, Streams::PIPES).await?;
    let Some(mut stdin) = session.exec.stdin.take() else { return Err(failed("stdin", "none")) };
    let (mut stdout, mut stderr) = (session.exec.stdout.take(), session.exec.stderr.take());
    stdin.send(Bytes::from(format!("{line}\n"))).await.instead_of("stdin")?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let heard = async { tokio::try_join!(until(&mut stdout, &mut out, line), until(&mut stderr, &mut err, line)) };
    within("the line, on both outputs", bench.scale.patience, heard).await??;
    Ok(())
}

pub(super) async fn lines(bench: Bench) -> Outcome {
    say(&bench, "who is there").await
}

pub(super) async fn again(bench: Bench) -> Outcome {
    for number in 0..3 {
        say(&bench, &format!("client {number} here"))
            .await
            .map_err(|departure| departure.at(format_args!("client {number}")))?;
    }
    Ok(())
}
