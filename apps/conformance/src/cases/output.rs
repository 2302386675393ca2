//! What a command writes to its outputs.

use std::iter;

use kubestream::exec::Streams;
use kubestream::status::ExitStatus;
use sha2::{Digest, Sha256};

use crate::bench::{Bench, Session, drain, within};
use crate::known;
use crate::verdict::{Instead, Outcome, expect};

pub(super) async fn apart(bench: Bench) -> Outcome {
    let output = bench.sh("echo out; echo err >&2; exit 7").await?;
    expect((&output.stdout[..], &output.stderr[..], output.status), (b"out\n", b"err\n", ExitStatus::Code(7)))
}

pub(super) async fn streams(bench: Bench) -> Outcome {
    const SCRIPT: [&str; 3] = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    for (stdin, stdout, stderr) in
        [(false, true, true), (false, true, false), (false, false, true), (true, true, false), (true, true, true)]
    {
        let streams = Streams { stdin, stdout, stderr, tty: false };
        let output =
            bench.output(&SCRIPT, streams).await.map_err(|departure| departure.at(format_args!("{streams:?}")))?;
        let text = |there: bool, text: &'static [u8]| if there { text } else { &[] };
        let expected = (text(stdout, b"out\n"), text(stderr, b"err\n"), ExitStatus::Code(3));
        expect((&output.stdout[..], &output.stderr[..], output.status), expected)
            .map_err(|departure| departure.at(format_args!("{streams:?}")))?;
    }
    Ok(())
}

pub(super) async fn fast_exits(bench: Bench) -> Outcome {
    let once = |number| {
        let bench = bench.clone();
        async move {
            let said = format!("the last line of session {number}");
            let output = bench.sh(&format!("echo '{said}'; echo 'and of its stderr' >&2; exit 3")).await?;
            let expected = (format!("{said}\n"), b"and of its stderr\n".to_vec(), ExitStatus::Code(3));
            bench.said_something(&output.status)?;
            expect((String::from_utf8_lossy(&output.stdout).into(), output.stderr.to_vec(), output.status), expected)
        }
    };
    bench.many_but_few(bench.scale.fast_exits, &known::SILENT_END, once).await
}

/// The length and the checksum of a line that is repeated up to a length.
pub(super) fn sum_of_lines(line: &[u8], len: usize) -> (usize, String) {
    let mut sum = Sha256::new();
    let many = line.repeat(4096);
    for start in iter::successors(Some(0), |start| Some(start + many.len())).take_while(|start| *start < len) {
        sum.update(&many[..many.len().min(len - start)]);
    }
    (len, hex(&sum.finalize()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) async fn large(bench: Bench) -> Outcome {
    let len = bench.scale.megabytes * 1_000_000;
    let script = format!("yes 'kubestream of old' | head -c {len}; exit 5");
    let Session { mut exec, .. } = bench.start(&["sh", "-c", &script], Streams::OUTPUT).await?;
    let (mut sum, mut came) = (Sha256::new(), 0);
    let stdout = exec.stdout.take();
    let read = drain(stdout, |data| {
        sum.update(&data);
        came += data.len();
    });
    let (read, status) = within("all of it", bench.scale.deadline, async { tokio::join!(read, exec.wait()) }).await?;
    read?;
    let (expected, sum_expected) = sum_of_lines(b"kubestream of old\n", len);
    let came = (came, hex(&sum.finalize()), status.instead_of("a status")?);
    expect(came, (expected, sum_expected, ExitStatus::Code(5)))
}
