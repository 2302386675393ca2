//! Requests that there is no session for.

use http::Method;
use kubestream::exec::{ExecRequest, Streams};
use kubestream::status::ExitStatus;
use kubestream::upgrade::{Protocol, UpgradeError};

use super::terminal::shown;
use crate::bench::{Answer, Bench, within};
use crate::known;
use crate::target::{Operation, Paths};
use crate::verdict::{Departure, Outcome, expect, failed};

/// The protocols that kubectl would offer over the column's carrier.
fn offers(bench: &Bench) -> Vec<Protocol> {
    let carrier = bench.column.protocol.carrier();
    let exec = bench.offered.iter().copied().filter(|protocol| protocol.version().is_some());
    let mut all: Vec<_> = exec.filter(|protocol| protocol.carrier() == carrier).collect();
    all.sort_by_key(|protocol| std::cmp::Reverse(protocol.version()));
    all.truncate(1);
    all
}

/// It is refused, one way or another, and never a session that goes well.
async fn refused(bench: &Bench, url: &str, streams: Streams) -> Outcome {
    const EXPECTED: &str = "a refusal, 4xx";
    let upgraded = match bench.offer(url, &offers(bench)).await? {
        Ok(upgraded) => upgraded,
        Err(UpgradeError::Refused(refusal)) if refusal.status.is_client_error() => return Ok(()),
        Err(UpgradeError::Refused(refusal)) if refusal.status.is_server_error() => {
            return Err(failed(EXPECTED, refusal).known(&known::REFUSED_AS_500));
        }
        Err(error) => return Err(failed(EXPECTED, error)),
    };
    let ended = match bench.session_on(upgraded, streams).await {
        Ok(mut session) => match within("an end", bench.scale.patience, session.exec.wait()).await? {
            Ok(ExitStatus::Failed(status)) => status.message,
            Ok(status) => return Err(failed(EXPECTED, format_args!("a session that ended with {status:?}"))),
            // It broke, and nobody said why.
            Err(error) => return Err(failed(EXPECTED, format_args!("a session that was lost: {error}"))),
        },
        Err(Departure::Failed { came, late: false, .. }) => came,
        Err(other) => return Err(other),
    };
    Err(failed(EXPECTED, format_args!("a session that failed: {ended}")).known(&known::REFUSED_AFTER_101))
}

pub(super) async fn no_command(bench: Bench) -> Outcome {
    refused(&bench, &bench.exec_url(&[], Streams::OUTPUT), Streams::OUTPUT).await
}

pub(super) async fn no_streams(bench: Bench) -> Outcome {
    const NONE: Streams = Streams { stdin: false, stdout: false, stderr: false, tty: false };
    refused(&bench, &bench.exec_url(&["true"], NONE), NONE).await
}

pub(super) async fn unknown_container(bench: Bench) -> Outcome {
    if !bench.target.has_containers {
        return Err(Departure::NotOffered("a bare streaming server has one container, whatever it is called".into()));
    }
    const NAME: &str = "no-such-container";
    let request = ExecRequest::new(["true"], Streams::OUTPUT).container(NAME);
    let query = match bench.target.paths {
        Paths::ApiServer => request.to_query(),
        Paths::Kubelet => request.to_kubelet_query(),
    };
    refused(&bench, &bench.target.url(Operation::Exec, Some(NAME), &query), Streams::OUTPUT).await
}

pub(super) async fn tty_with_stderr(bench: Bench) -> Outcome {
    const SCRIPT: [&str; 3] = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    let url = bench.exec_url(&SCRIPT, Streams::TTY);
    let url = match bench.target.paths {
        Paths::ApiServer => url + "&stderr=true",
        Paths::Kubelet => url + "&error=1",
    };
    let upgraded = match bench.offer(&url, &offers(&bench)).await? {
        Ok(upgraded) => upgraded,
        Err(UpgradeError::Refused(refusal)) if refusal.status.is_client_error() => return Ok(()),
        Err(error) => return Err(failed("4xx, or a session", error)),
    };
    let session = bench.session_on(upgraded, Streams::TTY).await?;
    let (stdout, status) = shown(&bench, session).await?;
    expect((stdout.as_str(), status), ("out\r\nerr\r\n", ExitStatus::Code(3)))
}

pub(super) async fn wrong_method(bench: Bench) -> Outcome {
    let url = bench.exec_url(&["true"], Streams::OUTPUT);
    let spdy = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "v4.channel.k8s.io")];
    let websocket = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "v4.channel.k8s.io"),
    ];
    let headers: &[_] = if bench.column.is_spdy() { &spdy } else { &websocket };
    turned_down(&bench.ask(Method::PUT, &url, headers).await?, "405, or another 4xx")
}

pub(super) async fn no_upgrade(bench: Bench) -> Outcome {
    let method = if bench.column.is_spdy() { Method::POST } else { Method::GET };
    let answer = bench.ask(method, &bench.exec_url(&["true"], Streams::OUTPUT), &[]).await?;
    turned_down(&answer, "400, or another 4xx")
}

fn turned_down(answer: &Answer, expected: &str) -> Outcome {
    if answer.status.is_client_error() {
        return Ok(());
    }
    let departure = failed(expected, format_args!("{}: {}", answer.status, answer.body));
    Err(if answer.status.is_server_error() { departure.known(&known::REFUSED_AS_500) } else { departure })
}
