//! Whole sessions of which one part is dropped: the other parts hear of it, and nothing is left.

use std::sync::Arc;

use kubestream::channel::Subprotocol;
use kubestream::exec::Streams;
use kubestream::status::ExitStatus;
use kubestream::upgrade::Protocol;
use tokio::time::timeout;

use crate::dropping::{AN_HOUR, dropped_after, nothing_is_left, play};
use crate::{V4, V5};
use support::sessions::{Ended, Failure, Through, Untrue, What, parts};
use support::wire::wire;

/// Who is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Client,
    Server,
    Middle,
}

/// A session of which one part is dropped at one of its polls. Whether it was: it may have ended before.
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
        assert!(cut, "{name}: the middle failed for nothing: {failure:?}");
    }
    for (end, this) in [(client, Who::Client), (server, Who::Server)] {
        let Some(Ended { session: Err(failure), .. }) = end else { continue };
        match failure {
            Failure::Typed(_, error) => assert!(cut, "{name}: the {this:?} failed for nothing: {error}"),
            // A client's stdin ends when it is dropped: so it is documented.
            Failure::Untrue(Untrue::Truncated { what: "stdin", .. }) if who == Who::Client && cut => {}
            // In the old form nothing ends a connection but the end of all, and that was in good order.
            Failure::Untrue(Untrue::Truncated { what: "upload", .. })
                if who == Who::Client && cut && matches!(protocol, Protocol::PortChannels(_)) => {}
            // It has gone in good order, and asks for no more.
            Failure::Untrue(Untrue::Truncated { what: "requests", .. }) if who == Who::Client && cut => {}
            // A translator whose backend is lost says so in a status of its own, and so does a server that lets go.
            Failure::Untrue(Untrue::Status(ExitStatus::Failed(status)))
                if cut && status.to_string().starts_with("Internal error occurred") => {}
            Failure::Untrue(untrue) => panic!("{name}: the {this:?} was told what is not so: {untrue:?}"),
        }
    }
    nothing_is_left(&name).await;
    for seen in [Some(seen), seen_behind].into_iter().flatten() {
        assert_eq!(Arc::strong_count(&seen), 1, "{name}: an IO is left");
    }
    cut
}

/// From the first poll on, until it ends by itself.
async fn dropped_everywhere(what: &What, protocol: Protocol, through: Through, who: Who) {
    // Some hundreds of polls are of the middle of a transfer.
    let places = (0..60).chain((60..).step_by(13));
    for (cuts, polls) in places.enumerate() {
        if !dropped(what, protocol, through, who, polls).await {
            assert!(cuts > 10, "{who:?} was hardly dropped: {cuts}");
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
        // Before v4 silence is success, and over WebSocket the Close must say that it is none.
        let v1 = Protocol::Channel(Subprotocol::V1);
        dropped_everywhere(&command(), v1, Through::Nothing, Who::Server).await;
    });
}

#[test]
fn an_end_of_port_forward_is_dropped() {
    play(async {
        for protocol in [Protocol::PortForward, Protocol::Tunnel, Protocol::PortChannels(Subprotocol::V4)] {
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
        dropped_everywhere(&What::Forward, Protocol::Tunnel, Through::Translator(Protocol::PortForward), Who::Middle)
            .await;
    });
}
