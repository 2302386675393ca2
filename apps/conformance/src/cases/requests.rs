//! Requests that must not become a session.

use http::Method;
use kubestream::exec::Streams;
use kubestream::status::ExitStatus;
use kubestream::upgrade::UpgradeError;

use super::terminal::shown;
use crate::bench::{Answer, Bench, within};
use crate::known;
use crate::target::Paths;
use crate::verdict::{Departure, Outcome, expect, failed};

/// The request is refused with a status, or its session fails.
async fn refused(bench: &Bench, url: &str, streams: Streams) -> Outcome {
    const EXPECTED: &str = "a refusal, 4xx";
    let upgraded = match bench.offer(url, &[bench.newest()?]).await? {
        Ok(upgraded) => upgraded,
        Err(UpgradeError::Refused { response, .. }) if response.status().is_client_error() => return Ok(()),
        Err(error) => {
            let as_500 =
                matches!(&error, UpgradeError::Refused { response, .. } if response.status().is_server_error());
            let departure = failed(EXPECTED, error);
            return Err(if as_500 { departure.known(&known::REFUSED_AS_500) } else { departure });
        }
    };
    let ended = match bench.session_on(upgraded, streams).await {
        Ok(mut session) => match within("an end", bench.scale.patience, session.exec.wait()).await? {
            Ok(ExitStatus::Failed(status)) => status.message,
            Ok(status) => return Err(failed(EXPECTED, format_args!("a session that ended with {status:?}"))),
            // The session broke without a reason.
            Err(error) => return Err(failed(EXPECTED, format_args!("a session that broke off: {error}"))),
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
        return Err(Departure::NotOffered("a server outside a cluster has one container, by any name".into()));
    }
    const NAME: &str = "no-such-container";
    let url = bench.exec_url_in(Some(NAME), &["true"], Streams::OUTPUT);
    refused(&bench, &url, Streams::OUTPUT).await
}

pub(super) async fn tty_with_stderr(bench: Bench) -> Outcome {
    const SCRIPT: [&str; 3] = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    let url = bench.exec_url(&SCRIPT, Streams::TTY);
    let url = match bench.target.paths {
        Paths::ApiServer => url + "&stderr=true",
        Paths::Kubelet => url + "&error=1",
    };
    let upgraded = match bench.offer(&url, &[bench.newest()?]).await? {
        Ok(upgraded) => upgraded,
        Err(UpgradeError::Refused { response, .. }) if response.status().is_client_error() => return Ok(()),
        Err(error) => return Err(failed("4xx, or a session", error)),
    };
    let session = bench.session_on(upgraded, Streams::TTY).await?;
    let (stdout, status) = shown(&bench, session).await?;
    expect((stdout.as_str(), status), ("out\r\nerr\r\n", ExitStatus::Code(3)))
}

pub(super) async fn wrong_method(bench: Bench) -> Outcome {
    let url = bench.exec_url(&["true"], Streams::OUTPUT);
    let headers = bench.upgrade_headers(&["v4.channel.k8s.io"]);
    turned_down(&bench.ask(Method::PUT, &url, &headers).await?, "405, or another 4xx")
}

pub(super) async fn no_upgrade(bench: Bench) -> Outcome {
    let answer = bench.ask(bench.method(), &bench.exec_url(&["true"], Streams::OUTPUT), &[]).await?;
    turned_down(&answer, "400, or another 4xx")
}

fn turned_down(answer: &Answer, expected: &str) -> Outcome {
    if answer.status.is_client_error() {
        return Ok(());
    }
    let departure = failed(expected, format_args!("{}: {}", answer.status, answer.body));
    Err(if answer.status.is_server_error() { departure.known(&known::REFUSED_AS_500) } else { departure })
}
