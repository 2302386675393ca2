//! Concurrent sessions, streams beside each other, and idle sessions.

use bytes::Bytes;
use futures_util::future::try_join_all;
use kubestream::exec::{Output, Streams};
use kubestream::status::ExitStatus;

use crate::bench::{Bench, Session, drain, rest, until, within};
use crate::known;
use crate::verdict::{Instead, Outcome, expect, failed};

pub(super) async fn concurrent(bench: Bench) -> Outcome {
    const SCRIPT: [&str; 3] = ["sh", "-c", "echo ready; read line; echo \"$line\"; echo \"$line\" >&2; exit \"$line\""];
    let began = (0..bench.scale.sessions).map(|_| async {
        let mut session = bench.start(&SCRIPT, Streams::PIPES).await?;
        let (mut stdout, mut said) = (session.exec.stdout.take(), Vec::new());
        within("a command that is ready", bench.scale.patience, until(&mut stdout, &mut said, "ready\n")).await??;
        session.exec.stdout = stdout;
        Ok(session)
    });
    // All sessions run before the first is told to end.
    let sessions = try_join_all(began).await?;
    let ended = sessions.into_iter().enumerate().map(|(number, Session { mut exec, mux, driver })| {
        let patience = bench.scale.patience;
        async move {
            let code = number as i32 % 200 + 1;
            let Some(mut stdin) = exec.stdin.take() else { return Err(failed("stdin", "none")) };
            stdin.send(Bytes::from(format!("{code}\n"))).await.instead_of("stdin")?;
            let output = within("the end of the command", patience, exec.wait_with_output(1000)).await?;
            let Output { stdout, stderr, status, .. } = output.instead_of("an output")?;
            drop((mux, driver));
            let line = format!("{code}\n");
            let seen = (String::from_utf8_lossy(&stdout).into(), String::from_utf8_lossy(&stderr).into(), status);
            expect(seen, (line.clone(), line, ExitStatus::Code(code)))
                .map_err(|departure| departure.at(format_args!("session {number}")))
        }
    });
    try_join_all(ended).await.map(drop)
}

pub(super) async fn unread_stream(bench: Bench) -> Outcome {
    const UNREAD: usize = 8_000_000;
    let script = format!(
        "head -c {UNREAD} /dev/zero & while read line && [ \"$line\" != end ]; do echo \"$line\" >&2; done; wait; exit 4"
    );
    let mut session = bench.start(&["sh", "-c", &script], Streams::PIPES).await?;
    let Some(mut stdin) = session.exec.stdin.take() else { return Err(failed("stdin", "none")) };
    let (stdout, mut stderr, mut said) = (session.exec.stdout.take(), session.exec.stderr.take(), Vec::new());
    // Gives the unread stream time to fill every buffer on the way.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let mut held_up = None;
    for number in 0..10 {
        let line = format!("line {number}\n");
        stdin.send(Bytes::from(line.clone())).await.instead_of("stdin")?;
        let answered = until(&mut stderr, &mut said, &line);
        let limit = std::time::Duration::from_secs(3).min(bench.scale.patience);
        if let Err(late) = within("stderr, beside an unread stdout", limit, answered).await {
            held_up = Some(late);
            break;
        }
    }
    stdin.send(Bytes::from_static(b"end\n")).await.instead_of("stdin")?;
    let mut came = 0;
    let rest = async {
        let read = drain(stdout, |data| came += data.len());
        tokio::join!(read, drain(stderr, drop), session.exec.wait())
    };
    let (out, err, status) = within("the rest, once it is read", bench.scale.patience, rest).await?;
    out.and(err)?;
    expect((came, status.instead_of("a status")?), (UNREAD, ExitStatus::Code(4)))?;
    match held_up {
        // WebSocket has no flow control, so no server can do better.
        Some(late) if bench.column.is_spdy() => Err(late.known_silence(&known::NO_WINDOWS)),
        _ => Ok(()),
    }
}

pub(super) async fn idle(bench: Bench) -> Outcome {
    let script = "echo first; read line; echo \"$line\"; exit 5";
    let mut session = bench.start(&["sh", "-c", script], Streams::PIPES).await?;
    let Some(mut stdin) = session.exec.stdin.take() else { return Err(failed("stdin", "none")) };
    let (mut stdout, mut said) = (session.exec.stdout.take(), Vec::new());
    within("the first line", bench.scale.patience, until(&mut stdout, &mut said, "first\n")).await??;
    tokio::time::sleep(bench.scale.idle).await;
    within("an answer to a PING", bench.scale.patience, session.mux.ping()).await?.instead_of("an answer to a PING")?;
    stdin.send(Bytes::from_static(b"late\n")).await.instead_of("stdin")?;
    let heard = |data: Bytes| said.extend_from_slice(&data);
    let status = rest(bench.scale.patience, &mut session.exec, stdout, heard).await?;
    expect((String::from_utf8_lossy(&said).as_ref(), status), ("first\nlate\n", ExitStatus::Code(5)))
}
