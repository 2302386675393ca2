//! Whole sessions of which one part is dropped: the other parts are told, and nothing is left.

use std::sync::Arc;

use kubestream::exec::Streams;
use kubestream::protocol::Subprotocol;
use kubestream::status::ExitStatus;
use kubestream::upgrade::Protocol;
use tokio::time::timeout;

use crate::dropping::{AN_HOUR, dropped_after, nothing_is_left, play};
use crate::{V4, V5};
use support::sessions::{Ended, Failure, Through, Untrue, What, parts};
use support::wire::wire;

/// The part that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Client,
    Server,
    Middle,
}

/// Runs a session of which one part is dropped at one of its polls. Returns whether it was dropped, because it may have
/// ended before.
async fn dropped(what: &What, protocol: Protocol, through: Through, who: Who, polls: usize) -> bool {
    let name = format!("{what:?} over {protocol:?} through {through:?}, {who:?} dropped after {polls} polls");
    let polls_of = |this: Who| if this == who { polls } else { usize::MAX };
    let (client, near, seen) = wire(None, Some(1));
    let behind = through.has_proxy().then(|| wire(None, Some(2)));
    let (behind, seen_behind) = behind.map(|(far, server, seen)| ((far, server), seen)).unzip();
    let (client, server, middle) = parts(what, protocol, through, (client, near), behind);
    let all = async {
        tokio::join!(
            dropped_after(polls_of(Who::Client), client),
            dropped_after(polls_of(Who::Server), server),
            dropped_after(polls_of(Who::Middle), middle)
        )
    };
    let (client, server, middle) = timeout(AN_HOUR, all).await.unwrap_or_else(|_| panic!("{name}: it hangs"));
    let cut = client.is_none() || server.is_none() || middle.is_none();
    if let Some(Err(failure)) = middle {
        assert!(cut, "{name}: the middle failed without a cause: {failure:?}");
    }
    for (end, this) in [(client, Who::Client), (server, Who::Server)] {
        let Some(Ended { session: Err(failure), .. }) = end else { continue };
        match failure {
            Failure::Typed(_, error) => assert!(cut, "{name}: the {this:?} failed without a cause: {error}"),
            // Dropping a client ends its stdin, as documented.
            Failure::Untrue(Untrue::Truncated { what: "stdin", .. }) if who == Who::Client && cut => {}
            // In legacy port-forward a connection ends only with the session, which ended in an orderly way.
            Failure::Untrue(Untrue::Truncated { what: "upload", .. })
                if who == Who::Client && cut && matches!(protocol, Protocol::LegacyPortForward(_)) => {}
            // The client left in an orderly way and asks for no more.
            Failure::Untrue(Untrue::Truncated { what: "requests", .. }) if who == Who::Client && cut => {}
            // A translator that has lost its backend reports that in a status of its own, and so does a server that was
            // dropped.
            Failure::Untrue(Untrue::Status(ExitStatus::Failed(status)))
                if cut && status.to_string().starts_with("Internal error occurred") => {}
            Failure::Untrue(untrue) => panic!("{name}: the {this:?} was told something false: {untrue:?}"),
        }
    }
    nothing_is_left(&name).await;
    for seen in [Some(seen), seen_behind].into_iter().flatten() {
        assert_eq!(Arc::strong_count(&seen), 1, "{name}: an IO is left");
    }
    cut
}

/// Drops the part at each poll from the first, until a session ends by itself.
async fn dropped_everywhere(what: &What, protocol: Protocol, through: Through, who: Who) {
    // Several hundred of the polls are in the middle of a transfer.
    let places = (0..60).chain((60..).step_by(13));
    for (cuts, polls) in places.enumerate() {
        if !dropped(what, protocol, through, who, polls).await {
            assert!(cuts > 10, "{who:?} was dropped only {cuts} times");
            return;
        }
    }
}

fn command() -> What {
    What::Exec(Streams::PIPES, ExitStatus::Code(127))
}

#[test]
fn an_end_of_a_command_is_dropped() {
    play(async {
        for protocol in [V4, V5] {
            for through in [Through::Nothing, Through::Streaming] {
                for who in [Who::Client, Who::Server] {
                    dropped_everywhere(&command(), protocol, through, who).await;
                }
            }
        }
        // Before v4 silence means success, so over WebSocket the Close must carry the failure.
        let v1 = Protocol::WebSocketExec(Subprotocol::V1);
        dropped_everywhere(&command(), v1, Through::Nothing, Who::Server).await;
    });
}

#[test]
fn an_end_of_port_forward_is_dropped() {
    play(async {
        for protocol in
            [Protocol::SpdyPortForward, Protocol::TunneledPortForward, Protocol::LegacyPortForward(Subprotocol::V4)]
        {
            for through in [Through::Handshake, Through::Streaming] {
                for who in [Who::Client, Who::Server] {
                    dropped_everywhere(&What::Forward, protocol, through, who).await;
                }
            }
        }
    });
}

#[test]
fn a_pipe_is_dropped() {
    play(async {
        for protocol in [V4, V5] {
            dropped_everywhere(&command(), protocol, Through::Pipe, Who::Middle).await;
        }
    });
}

#[test]
fn a_translator_is_dropped() {
    play(async {
        for (from, to) in [(V5, V4), (V4, V5)] {
            dropped_everywhere(&command(), from, Through::Translator(to), Who::Middle).await;
        }
        dropped_everywhere(
            &What::Forward,
            Protocol::TunneledPortForward,
            Through::Translator(Protocol::SpdyPortForward),
            Who::Middle,
        )
        .await;
    });
}
