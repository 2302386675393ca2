//! Endings that one side does not expect: a server that finishes while the client writes, and a client that goes away.

use std::time::Duration;

use bytes::Bytes;
use kubestream::exec::Streams;
use kubestream::status::ExitStatus;

use super::grants;
use crate::bench::{Bench, Session, until, within};
use crate::known;
use crate::verdict::{Instead, Outcome, expect, failed};

const TAIL: usize = 3_000_000;
const SCRIPT: [&str; 3] = ["sh", "-c", "head -c 3000000 /dev/zero; exit 7"];

/// Reads the output of a command, and calls a function at each piece of it.
async fn tail<F: Future<Output = ()>>(bench: &Bench, mut session: Session, mut at_each: impl FnMut() -> F) -> Outcome {
    let Some(mut stdout) = session.exec.stdout.take() else { return Err(failed("stdout", "none")) };
    let mut came = 0;
    let reading = async {
        while let Some(data) = stdout.data().await {
            came += data.instead_of("more output, or its end")?.len();
            at_each().await;
        }
        Ok(())
    };
    let ended = async { tokio::join!(reading, session.exec.wait()) };
    let ended = within("the end of the command", bench.scale.patience, ended).await;
    let status = ended.and_then(|(read, status)| read.and_then(|()| status.instead_of("a status")));
    judged(came, status)
}

/// Such a session is known to lose its tail or its status. Any other fault is a failure.
fn judged(came: usize, status: Outcome<ExitStatus>) -> Outcome {
    match status {
        Ok(status) if came >= TAIL => expect((came, status), (TAIL, ExitStatus::Code(7))),
        Ok(status) => {
            let short = failed(format_args!("{TAIL} bytes"), format_args!("{came} bytes, and {status:?}"));
            Err(short.known(&known::WRITING_CLIENT))
        }
        Err(departure) => Err(departure.at(format_args!("after {came} bytes")).known(&known::WRITING_CLIENT)),
    }
}

pub(super) async fn client_pings(bench: Bench) -> Outcome {
    let once = |_| {
        let bench = bench.clone();
        async move {
            let session = bench.start(&SCRIPT, Streams::OUTPUT).await?;
            let mux = session.mux.clone();
            // The PING is sent; its answer is not awaited.
            let ping = || {
                let mux = mux.clone();
                async move { drop(tokio::time::timeout(Duration::from_micros(1), mux.ping()).await) }
            };
            tail(&bench, session, ping).await
        }
    };
    bench.many(bench.scale.tails, once).await
}

pub(super) async fn client_grants(bench: Bench) -> Outcome {
    let once = |_| {
        let bench = bench.clone();
        async move {
            let (came, status) = grants::run(&bench, &SCRIPT).await?;
            judged(came, status)
        }
    };
    bench.many(bench.scale.tails, once).await
}

pub(super) async fn client_types(bench: Bench) -> Outcome {
    let once = |_| {
        let bench = bench.clone();
        async move {
            let mut session = bench.start(&SCRIPT, Streams::PIPES).await?;
            let Some(mut stdin) = session.exec.stdin.take() else { return Err(failed("stdin", "none")) };
            // Types one key at a time, which the command does not read. They are few enough to fit every buffer.
            let typing = tokio::spawn(async move {
                for _ in 0..1000 {
                    if stdin.send(Bytes::from_static(b"y\n")).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                std::future::pending().await
            });
            let seen = tail(&bench, session, || async {}).await;
            typing.abort();
            seen
        }
    };
    bench.many(bench.scale.tails, once).await
}

/// Starts a command that prints its process id, breaks the connection off, and waits until the process is gone.
async fn abandoned(bench: &Bench, command: &str, streams: Streams) -> Outcome {
    let script = format!("echo $$; exec {command}");
    let mut session = bench.start(&["sh", "-c", &script], streams).await?;
    let (mut stdout, mut said) = (session.exec.stdout.take(), Vec::new());
    within("the id of the process", bench.scale.patience, until(&mut stdout, &mut said, "\n")).await??;
    let said = String::from_utf8_lossy(&said);
    let id: u32 = said.trim().parse().instead_of(format_args!("the id of a process in {said:?}"))?;
    session.driver.abort();
    drop((session, stdout));
    let gone = async {
        loop {
            let output = bench.sh(&format!("kill -0 {id} 2>/dev/null || echo gone")).await?;
            if output.stdout.starts_with(b"gone") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let ended = within("the end of the command after its client left", bench.scale.patience, gone).await;
    if ended.is_err() {
        // Kills the process in any case, so that the test leaves nothing behind.
        let _ = bench.sh(&format!("kill -9 {id}")).await;
    }
    ended?
}

pub(super) async fn client_leaves(bench: Bench) -> Outcome {
    abandoned(&bench, "cat", Streams::PIPES)
        .await
        .map_err(|departure| departure.known_silence(&known::OUTLIVES_ITS_CLIENT))
}

pub(super) async fn orphan(bench: Bench) -> Outcome {
    abandoned(&bench, "sleep 600", Streams::OUTPUT)
        .await
        .map_err(|departure| departure.known_silence(&known::OUTLIVES_ITS_CLIENT))
}
