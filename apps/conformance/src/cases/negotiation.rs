//! Negotiation: which protocol the two ends choose.

use http::StatusCode;
use kubestream::exec::Streams;
use kubestream::upgrade::{Protocol, UpgradeError};

use crate::bench::Bench;
use crate::known;
use crate::verdict::{Departure, Instead, Outcome, failed};

const UNKNOWN: &str = "v99.channel.k8s.io";

pub(super) async fn alone(bench: Bench) -> Outcome {
    let protocol = bench.column.protocol;
    let url = bench.exec_url(&["true"], Streams::OUTPUT);
    let upgraded = bench.offer(&url, &[protocol]).await?.instead_of("an upgrade")?;
    match upgraded.protocol() {
        Some(settled) if settled == protocol => Ok(()),
        settled => Err(failed(protocol.name(), format_args!("{:?}", settled.map(Protocol::name)))),
    }
}

/// The named protocols of the column's transport that the server offers.
fn named(bench: &Bench) -> Vec<Protocol> {
    bench.offered_here().filter(|protocol| !protocol.name().is_empty()).collect()
}

pub(super) async fn preference(bench: Bench) -> Outcome {
    let mut offers = named(&bench);
    // If v5 is among the offers, an API server chooses by itself and does not ask the runtime behind it.
    offers.retain(|protocol| protocol.name() != "v5.channel.k8s.io");
    if offers.len() < 2 {
        return Err(Departure::NotOffered("the server has fewer than two protocols to choose from".into()));
    }
    for _ in 0..offers.len() {
        let url = bench.exec_url(&["true"], Streams::OUTPUT);
        let upgraded = bench.offer(&url, &offers).await?.instead_of("an upgrade")?;
        if upgraded.protocol() != Some(offers[0]) {
            let names: Vec<_> = offers.iter().map(|offer| offer.name()).collect();
            let settled = upgraded.protocol().map(Protocol::name);
            return Err(failed(format_args!("the first of {names:?}"), format_args!("{settled:?}")));
        }
        offers.rotate_left(1);
    }
    Ok(())
}

pub(super) async fn unknown_first(bench: Bench) -> Outcome {
    let Some(known) = named(&bench).pop() else {
        return Err(Departure::NotOffered("the server offers no protocol".into()));
    };
    let url = bench.exec_url(&["true"], Streams::OUTPUT);
    let headers = bench.upgrade_headers(&[UNKNOWN, known.name()]);
    let answer = bench.ask(bench.method(), &url, &headers).await?;
    let header = if bench.column.is_spdy() { "X-Stream-Protocol-Version" } else { "Sec-WebSocket-Protocol" };
    let settled = answer.headers.get(header).and_then(|name| name.to_str().ok());
    if answer.status == StatusCode::SWITCHING_PROTOCOLS && settled == Some(known.name()) {
        return Ok(());
    }
    Err(failed(
        format_args!("101 with {}", known.name()),
        format_args!("{} with {settled:?}: {}", answer.status, answer.body),
    ))
}

pub(super) async fn unknown(bench: Bench) -> Outcome {
    let url = bench.exec_url(&["true"], Streams::OUTPUT);
    let answer = bench.ask(bench.method(), &url, &bench.upgrade_headers(&[UNKNOWN])).await?;
    if !answer.status.is_client_error() {
        return Err(failed("a refusal, 403 or another 4xx", answer.status));
    }
    let accepted: Vec<_> = answer.headers.get_all("X-Accepted-Stream-Protocol-Versions").iter().collect();
    if bench.column.is_spdy() && accepted.is_empty() {
        return Err(failed(
            "X-Accepted-Stream-Protocol-Versions, with the protocols of the server",
            format_args!("{answer:?}"),
        ));
    }
    Ok(())
}

pub(super) async fn none(bench: Bench) -> Outcome {
    let url = bench.exec_url(&["true"], Streams::OUTPUT);
    if !bench.column.is_spdy() {
        // The server must never choose a name that the client did not offer.
        let unnamed = Protocol::WebSocketExec(kubestream::protocol::Subprotocol::Unnamed);
        return match bench.offer(&url, &[unnamed]).await? {
            Ok(upgraded) if upgraded.protocol() == Some(unnamed) => Ok(()),
            Ok(upgraded) => Err(failed("no name", format_args!("{:?}", upgraded.protocol()))),
            Err(UpgradeError::Refused { response, .. }) if response.status().is_client_error() => Ok(()),
            Err(error) => Err(failed("a session without a name, or 4xx", error)),
        };
    }
    let answer = bench.ask(bench.method(), &url, &bench.upgrade_headers(&[])).await?;
    match answer.status {
        status if status.is_client_error() => Ok(()),
        StatusCode::OK if answer.body.is_empty() => {
            Err(failed("a refusal, 400 or another 4xx", "200 and no body").known(&known::UNANSWERED))
        }
        status => Err(failed("a refusal, 400 or another 4xx", format_args!("{status}: {}", answer.body))),
    }
}
