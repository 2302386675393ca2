//! What a command reads from stdin.

use bytes::Bytes;
use kubestream::exec::Streams;
use kubestream::mux::SendHalf;
use kubestream::status::ExitStatus;
use kubestream::upgrade::Version;
use sha2::{Digest, Sha256};

use super::output::{hex, sum_of_lines};
use crate::bench::{Bench, Session, drain, within};
use crate::known;
use crate::verdict::{Departure, Instead, Outcome, expect, failed};

const LINE: &[u8] = b"what goes to kubestream\n";
const STDIN: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: false };

/// Sends lines of this total length, or fewer if the command stops reading.
async fn feed(mut stdin: SendHalf, len: usize) {
    let many = Bytes::from(LINE.repeat(1300));
    let mut left = len;
    while left > 0 {
        let piece = many.slice(..many.len().min(left));
        left -= piece.len();
        if stdin.send(piece).await.is_err() {
            return;
        }
    }
    stdin.finish();
}

pub(super) async fn large(bench: Bench) -> Outcome {
    let len = bench.scale.megabytes * 1_000_000;
    // Some versions cannot end stdin, so the command reads a fixed length.
    let script = format!("head -c {len} | sha256sum; exit 5");
    let Session { mut exec, .. } = bench.start(&["sh", "-c", &script], STDIN).await?;
    let Some(stdin) = exec.stdin.take() else { return Err(failed("stdin", "none")) };
    let mut said = Vec::new();
    let stdout = exec.stdout.take();
    let read = drain(stdout, |data| said.extend_from_slice(&data));
    let all = async { tokio::join!(feed(stdin, len), read, exec.wait()) };
    let ((), read, status) = within("the sum", bench.scale.deadline, all).await?;
    read?;
    let sum = String::from_utf8_lossy(&said).split_whitespace().next().unwrap_or_default().to_owned();
    expect((sum, status.instead_of("a status")?), (sum_of_lines(LINE, len).1, ExitStatus::Code(5)))
}

pub(super) async fn both_ways(bench: Bench) -> Outcome {
    let len = (bench.scale.megabytes * 100_000).max(1_000_000);
    let Session { mut exec, .. } = bench.start(&["head", "-c", &len.to_string()], STDIN).await?;
    let Some(stdin) = exec.stdin.take() else { return Err(failed("stdin", "none")) };
    let (mut sum, mut came) = (Sha256::new(), 0);
    let stdout = exec.stdout.take();
    let read = drain(stdout, |data| {
        sum.update(&data);
        came += data.len();
    });
    let all = async { tokio::join!(feed(stdin, len), read, exec.wait()) };
    let ((), read, status) = within("all of it", bench.scale.deadline, all).await?;
    read?;
    let (expected, sum_expected) = sum_of_lines(LINE, len);
    let came = (came, hex(&sum.finalize()), status.instead_of("a status")?);
    expect(came, (expected, sum_expected, ExitStatus::Success))
}

pub(super) async fn end(bench: Bench) -> Outcome {
    if !bench.column.protocol.can_end_stdin() {
        return Err(Departure::NotOffered("this version cannot end stdin".into()));
    }
    let Session { mut exec, .. } = bench.start(&["sh", "-c", "cat; echo over; exit 6"], STDIN).await?;
    let Some(mut stdin) = exec.stdin.take() else { return Err(failed("stdin", "none")) };
    stdin.send(Bytes::from_static(b"hello\n")).await.instead_of("stdin")?;
    stdin.finish();
    let output = exec.wait_with_output(1000);
    let output = within("the end of the command", bench.scale.patience, output).await?.instead_of("an output")?;
    expect((&output.stdout[..], output.status), (&b"hello\nover\n"[..], ExitStatus::Code(6)))
}

pub(super) async fn unread(bench: Bench) -> Outcome {
    const WRITTEN: usize = 3_000_000;
    let script = format!("head -c {WRITTEN} /dev/zero; exit 7");
    let Session { mut exec, .. } = bench.start(&["sh", "-c", &script], STDIN).await?;
    let Some(stdin) = exec.stdin.take() else { return Err(failed("stdin", "none")) };
    let feeding = tokio::spawn(feed(stdin, 8_000_000));
    let mut came = 0;
    let stdout = exec.stdout.take();
    let read = async { drain(stdout, |data| came += data.len()).await };
    let all = async { tokio::join!(read, exec.wait()) };
    let ended = within("a status", bench.scale.patience, all).await;
    feeding.abort();
    let status = match ended {
        Ok((read, status)) => read.and_then(|()| status.instead_of("a status")),
        Err(late) => Err(late),
    };
    let whole = came == WRITTEN;
    match status {
        Ok(ExitStatus::Code(7)) if whole => Ok(()),
        // In v1 a missing status reads as success.
        Ok(ExitStatus::Success) if whole && bench.column.protocol.version() == Some(Version::V1) => {
            Err(failed("exit code 7", "no status").known(&known::UNREAD_STDIN))
        }
        Ok(status) => {
            let seen = expect((came, status), (WRITTEN, ExitStatus::Code(7)));
            if whole { seen } else { seen.map_err(|departure| departure.known(&known::WRITING_CLIENT)) }
        }
        // Two departures are known: all output without a status, and a broken connection after part of the output.
        Err(departure) if whole => Err(departure.known(&known::UNREAD_STDIN)),
        Err(departure) => {
            Err(departure.at(format_args!("after {came} of {WRITTEN} bytes")).known(&known::WRITING_CLIENT))
        }
    }
}
