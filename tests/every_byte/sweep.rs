//! Runs one session after the other, each with a fault at another place, and checks what must hold for all.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kubestream::Initiator;
use kubestream::status::ExitStatus;
use kubestream::upgrade::{Protocol, Transport};
use stats_alloc::Region;
use tokio::runtime::Handle;
use tokio::time::timeout;

use support::memory::{ALLOCATOR, grown, play, turn};
use support::sessions::{Ended, Failure, Through, Untrue, What, parts};
use support::until;
use support::wire::{Fault, Seen, Trouble, WAYS, Way, wire};

/// Longer than all timeouts of the crate, except the four hours of an idle session, which count as a hang here.
const AN_HOUR: Duration = Duration::from_secs(3600);
/// Shorter than all timeouts of the crate: no side may give up.
const A_WHILE: Duration = Duration::from_secs(4);
/// Longer than all timeouts of the crate, except the hours of an idle session.
const LONG: Duration = Duration::from_secs(30 * 60);

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) what: What,
    pub(crate) protocol: Protocol,
    pub(crate) through: Through,
    /// Its number among the similar cases. Each of them has another fault at the same place.
    pub(crate) place: usize,
}

/// The connection with the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Client,
    Backend,
}

/// The result of a session.
struct Outcome {
    client: Ended,
    server: Ended,
    middle: Result<(), Failure>,
    /// What was seen of the connection with the fault.
    seen: Arc<Seen>,
}

async fn session(case: &Case, leg: Leg, trouble: Option<Trouble>, crumbs: Option<u64>) -> Outcome {
    let on = |this: Leg| trouble.filter(|_| leg == this);
    let (client, near, seen) = wire(on(Leg::Client), crumbs);
    let behind = case.through.has_proxy().then(|| wire(on(Leg::Backend), crumbs.map(|seed| !seed)));
    let (behind, seen_behind) = behind.map(|(far, server, seen)| ((far, server), seen)).unzip();
    let (client, server, middle) = parts(&case.what, case.protocol, case.through, (client, near), behind);
    let (client, server, middle) =
        tokio::join!(bounded("client", client), bounded("server", server), bounded("middle", middle));
    let seen = seen_behind.filter(|_| leg == Leg::Backend).unwrap_or(seen);
    Outcome { client, server, middle, seen }
}

async fn bounded<T>(who: &'static str, end: impl Future<Output = T>) -> T {
    timeout(AN_HOUR, end).await.unwrap_or_else(|_| panic!("the {who} hangs"))
}

/// The findings by kind: how often each occurred, and where first.
type Findings = BTreeMap<String, (usize, String)>;

/// If anything panics, prints which session it was.
struct Named<'a>(&'a str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {}", self.0);
        }
    }
}

/// What an end may report although it is not true, because the protocol cannot tell it.
fn is_documented(case: &Case, trouble: Trouble, untrue: &Untrue) -> bool {
    // The client gives up before it has its streams, because no answer came in time.
    let unanswered =
        trouble.way == Way::Down && matches!(trouble.fault, Fault::Silence | Fault::Delay(LONG) | Fault::BrokenPipe);
    let server = match case.through {
        Through::Translator(to) => to,
        _ => case.protocol,
    };
    match untrue {
        // Then the client resets them, as Go's clients do with every stream at the end of a session. A server cannot
        // tell this from the end of stdin (`Reader::data`). The client has sent no stdin.
        Untrue::Truncated { what: "stdin", had: 0, .. } => {
            unanswered && [server, case.protocol].iter().any(|protocol| protocol.transport() == Transport::Spdy)
        }
        // In legacy port-forward a connection ends only with the session, which ended in an orderly way. The client has
        // sent nothing.
        Untrue::Truncated { what: "upload", had: 0, .. } => {
            unanswered && matches!(server, Protocol::LegacyPortForward(_))
        }
        // A translator that has lost its backend reports that in a status of its own.
        Untrue::Status(ExitStatus::Failed(status)) if status.reason == "InternalError" => {
            matches!(case.through, Through::Translator(_))
        }
        _ => false,
    }
}

/// Runs a session and checks what must hold for it.
async fn judged(
    case: &Case,
    leg: Leg,
    trouble: Option<Trouble>,
    crumbs: Option<u64>,
    found: &mut Findings,
) -> [usize; 2] {
    let name = format!("{case:?}, {leg:?}: {trouble:?}, crumbs {crumbs:?}");
    let _named = Named(&name);
    let Outcome { client, server, middle, seen } = session(case, leg, trouble, crumbs).await;
    let mut find = |what: String| found.entry(what).or_insert_with(|| (0, name.clone())).0 += 1;
    let trouble = trouble.filter(|trouble| seen.struck() && trouble.fault != Fault::Delay(A_WHILE));
    for (who, session) in [("client", client.session), ("server", server.session), ("middle", middle)] {
        match (session, trouble) {
            (Ok(()), _) => {}
            (Err(Failure::Typed(_, error)), None) => find(format!("the {who} failed without a cause: {error}")),
            // `Closed` does not say which of the two ends closed.
            (Err(Failure::Typed(Initiator::User, error)), _) if !error.contains("Connection(Closed)") => {
                find(format!("the {who} blames its caller: {error}"));
            }
            (Err(Failure::Typed(..)), _) => {}
            (Err(Failure::Untrue(untrue)), Some(trouble)) if is_documented(case, trouble, &untrue) => {}
            (Err(Failure::Untrue(untrue)), _) => find(format!("the {who} was told something false: {untrue:?}")),
        }
    }
    for (who, driver) in [("client", client.driver), ("server", server.driver)] {
        if let (Err(error), None) = (driver, trouble) {
            find(format!("the {who}'s driver failed without a cause: {error:?}"));
        }
    }
    until(|| Handle::current().metrics().num_alive_tasks() == 0).await;
    if Arc::strong_count(&seen) > 1 {
        find("an IO is left".into());
    }
    WAYS.map(|way| seen.passed(way))
}

/// Tries every fault at every place of a connection; or only one fault at each place, in turn, and with a proxy only
/// some of the places.
async fn swept(case: &Case, leg: Leg, found: &mut Findings) {
    const FAULTS: [Fault; 7] = [
        Fault::End,
        Fault::Cut,
        Fault::Reset,
        Fault::BrokenPipe,
        Fault::Silence,
        Fault::Delay(A_WHILE),
        Fault::Delay(LONG),
    ];
    let every = std::env::var_os("KUBESTREAM_EVERY").is_some();
    let stride = if every || !case.through.has_proxy() { 1 } else { 11 };
    let passed = judged(case, leg, None, None, found).await;
    assert!(passed.iter().sum::<usize>() > 100, "{case:?}: {passed:?}");
    let before = Region::new(ALLOCATOR);
    let mut sessions = 0;
    for way in WAYS {
        for at in (0..=passed[way as usize]).step_by(stride) {
            for (place, fault) in FAULTS.into_iter().enumerate() {
                if every || (at / stride + case.place) % FAULTS.len() == place {
                    judged(case, leg, Some(Trouble { way, at, fault }), None, found).await;
                    sessions += 1;
                }
            }
        }
    }
    for seed in 0..10 {
        judged(case, leg, None, Some(seed), found).await;
    }
    // If each session left a task, a stream or a buffer, it would be far more. libtest itself allocates some 10 KiB for
    // the thread of the next test.
    let grown = grown(&before);
    if grown > 16 * 1024 + sessions * 16 {
        found.insert(format!("{grown} bytes are left of {sessions} sessions"), (1, format!("{case:?}, {leg:?}")));
    }
}

/// Runs everything for one case.
pub(crate) fn sweep(case: &Case) {
    let _turn = turn();
    let mut found = Findings::new();
    play(async {
        swept(case, Leg::Client, &mut found).await;
        if case.through.has_proxy() {
            swept(case, Leg::Backend, &mut found).await;
        }
    });
    let found: Vec<String> = found
        .into_iter()
        .map(|(what, (times, first))| format!("{what}\n    {times} times, first in {first}"))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
