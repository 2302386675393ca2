//! A command on a terminal.

use bytes::Bytes;
use kubestream::exec::Streams;
use kubestream::status::{ExitStatus, TerminalSize};

use crate::bench::{Bench, Session, rest, until, within};
use crate::verdict::{Departure, Instead, Outcome, expect, failed};

pub(super) async fn is_one(bench: Bench) -> Outcome {
    const SCRIPT: &str = "test -t 0 && test -t 1 && test -t 2 && echo terminal; echo err >&2; exit 3";
    let session = bench.start(&["sh", "-c", SCRIPT], Streams::TTY).await?;
    let (stdout, status) = shown(&bench, session).await?;
    expect((stdout.as_str(), status), ("terminal\r\nerr\r\n", ExitStatus::Code(3)))
}

/// Returns what the terminal shows up to the end of its command. The client does not type and does not end stdin,
/// because some runtimes close the terminal at that end and lose what it has still to show.
pub(super) async fn shown(bench: &Bench, mut session: Session) -> Outcome<(String, ExitStatus)> {
    let _stdin = session.exec.stdin.take();
    let (stdout, mut shown) = (session.exec.stdout.take(), Vec::new());
    let heard = |data: Bytes| shown.extend_from_slice(&data);
    let status = rest(bench.scale.patience, &mut session.exec, stdout, heard).await?;
    Ok((String::from_utf8_lossy(&shown).into_owned(), status))
}

pub(super) async fn keys(bench: Bench) -> Outcome {
    const CTRL_C: &[u8] = b"\x03";
    const CTRL_D: &[u8] = b"\x04";
    // The terminal turns ctrl-C into a signal, and the command catches it.
    const SCRIPT: &str = "trap 'echo caught' INT; echo ready; cat; echo over; exit 9";
    let mut session = bench.start(&["sh", "-c", SCRIPT], Streams::TTY).await?;
    let Some(mut stdin) = session.exec.stdin.take() else { return Err(failed("stdin", "none")) };
    let (mut stdout, mut said) = (session.exec.stdout.take(), Vec::new());
    let typed = async {
        until(&mut stdout, &mut said, "ready").await?;
        // The line comes twice: as the terminal's echo, and from cat.
        stdin.send(Bytes::from_static(b"hello\n")).await.instead_of("stdin")?;
        until(&mut stdout, &mut said, "hello\r\nhello").await?;
        stdin.send(Bytes::from_static(CTRL_C)).await.instead_of("stdin")?;
        until(&mut stdout, &mut said, "over").await
    };
    within("an answer to each key", bench.scale.patience, typed).await??;
    expect(rest(bench.scale.patience, &mut session.exec, stdout, drop).await?, ExitStatus::Code(9))?;

    let mut session = bench.start(&["sh", "-c", "cat; exit 4"], Streams::TTY).await?;
    let Some(mut stdin) = session.exec.stdin.take() else { return Err(failed("stdin", "none")) };
    stdin.send(Bytes::from_static(CTRL_D)).await.instead_of("stdin")?;
    let status = within("the end at ctrl-D", bench.scale.patience, session.exec.wait()).await?;
    expect(status.instead_of("a status")?, ExitStatus::Code(4))
}

pub(super) async fn resize(bench: Bench) -> Outcome {
    if !bench.column.resizes() {
        return Err(Departure::NotOffered("this version has no resize stream".into()));
    }
    // The loop is bounded, because a command that outlives its client would otherwise run for ever.
    const SCRIPT: &str = "until_it_is() { n=300; until [ \"$(stty size)\" = \"$1\" ]; do n=$((n-1)); [ $n -gt 0 ] || exit 9; sleep 0.1; done; }
        until_it_is '24 80'; echo first; until_it_is '50 132'; echo second; exit 3";
    let mut session = bench.start(&["sh", "-c", SCRIPT], Streams::TTY).await?;
    // Dropping stdin would end the terminal's input.
    let _stdin = session.exec.stdin.take();
    let Some(mut resize) = session.exec.resize.take() else { return Err(failed("a resize stream", "none")) };
    let (mut stdout, mut said) = (session.exec.stdout.take(), Vec::new());
    for (width, height, text) in [(80, 24, "first"), (132, 50, "second")] {
        resize.resize(TerminalSize { width, height }).await.instead_of("a size")?;
        let seen = until(&mut stdout, &mut said, text);
        within(&format!("{height} rows of {width} columns"), bench.scale.patience, seen).await??;
    }
    expect(rest(bench.scale.patience, &mut session.exec, stdout, drop).await?, ExitStatus::Code(3))
}
