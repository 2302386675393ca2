//! The futures of the upgrade. None of them may be called again, and the connection is dropped with its future.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use kubestream::upgrade::{self, Config, Protocol, UpgradeError, Upgraded, Version, connect_with_fallback};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::dropping::{AN_HOUR, Alive, dropped_after, play};
use crate::{V4, V5};
use support::try_read_head;
use support::wire::{Io, wire};

/// The result of a handshake, unless it was dropped.
type Settled = Option<Result<Upgraded<Io>, UpgradeError>>;

/// Reads the other end of a connection that was dropped or has ended, and returns what it had sent.
async fn to_the_end(io: &mut Io) -> Vec<u8> {
    let mut rest = Vec::new();
    timeout(AN_HOUR, io.read_to_end(&mut rest)).await.expect("it is closed").unwrap();
    rest
}

#[test]
fn a_handshake_that_was_dropped_closes_its_connection() {
    play(async {
        for protocol in [V4, V5] {
            for client_is_dropped in [true, false] {
                let mut dropped = 0;
                for polls in 0.. {
                    let (near, far, seen) = wire(None, Some(7));
                    let request = Request::get("http://node/exec").body(()).unwrap();
                    let config = Config::default();
                    let offers = [protocol];
                    let of = |this: bool| if this == client_is_dropped { polls } else { usize::MAX };
                    let client = dropped_after(of(true), upgrade::connect(near, request, &offers, &config));
                    let server = dropped_after(of(false), async {
                        upgrade::accept(far, &Config::default()).await?.accept(&[protocol]).await
                    });
                    let (client, server): (Settled, Settled) = tokio::join!(client, server);
                    let cut = client.is_none() || server.is_none();
                    // If the other side's whole head arrived, the handshake succeeded.
                    for end in [client, server].into_iter().flatten() {
                        match end {
                            Ok(upgraded) if cut => {
                                let (mut io, ahead, _) = upgraded.into_parts();
                                assert_eq!((ahead, to_the_end(&mut io).await), (Bytes::new(), Vec::new()));
                            }
                            Ok(_) => {}
                            Err(error) => assert!(cut, "{protocol:?} {polls}: {error:?}"),
                        }
                    }
                    assert_eq!(Arc::strong_count(&seen), 1, "an IO is left");
                    if !cut {
                        break;
                    }
                    dropped += 1;
                }
                assert!(dropped > 50, "{dropped}");
            }
        }
    });
}

/// The request of a v4 client.
pub(crate) fn request() -> String {
    let offered = V4.name();
    format!(
        "POST /exec HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
        X-Stream-Protocol-Version: {offered}\r\n\r\n"
    )
}

/// The ways to answer a request other than by an upgrade.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// By `respond`.
    Caller,
    /// By `Pending::accept` without a common protocol.
    Refusal,
    /// By `accept`, because the bytes are not a request.
    Malformed,
}

impl Answer {
    fn request(self) -> String {
        match self {
            Self::Malformed => "GET\r\n\r\n".to_owned(),
            Self::Caller | Self::Refusal => request(),
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::Caller => "no such pod",
            Self::Refusal => "",
            Self::Malformed => "",
        }
    }

    async fn give(self, io: Io) -> Result<(), UpgradeError> {
        let pending = upgrade::accept(io, &Config::default()).await?;
        match self {
            Self::Caller => pending.respond(Response::builder().status(404).body("no such pod".into()).unwrap()).await,
            Self::Refusal => pending.accept(&[Protocol::SpdyExec(Version::V2)]).await.map(drop),
            Self::Malformed => Ok(()),
        }
    }
}

/// Checks that clients heard nothing, a part, or all of an answer, and nothing else. The last one was not dropped.
pub(crate) fn assert_every_part(heard: &[Vec<u8>], said: &str) {
    let whole = heard.last().unwrap();
    assert!(whole.starts_with(b"HTTP/1.1 4") && whole.ends_with(said.as_bytes()), "{whole:?}");
    assert!(heard.iter().all(|had| whole.starts_with(had)));
    let (none, all) = (heard.iter().filter(|had| had.is_empty()), heard.iter().filter(|had| *had == whole));
    let (none, all) = (none.count(), all.count());
    let some = heard.len() - none - all;
    assert!(none > 1 && some > 20 && all > 1, "{none} {some} {all}");
}

#[test]
fn an_answer_that_was_dropped_closes_its_connection() {
    play(async {
        for answer in [Answer::Caller, Answer::Refusal, Answer::Malformed] {
            let mut heard = Vec::<Vec<u8>>::new();
            for polls in 0.. {
                let (mut near, far, seen) = wire(None, Some(9));
                let client = async {
                    let _ = near.write_all(answer.request().as_bytes()).await;
                    // Bytes after the refusal are discarded, and their end is awaited.
                    sleep(Config::default().refusal_body_timeout / 2).await;
                    let _ = near.write_all(b"what is not read any more").await;
                    let had = to_the_end(&mut near).await;
                    drop(near);
                    had
                };
                let (had, answered) = tokio::join!(client, dropped_after(polls, answer.give(far)));
                assert_eq!(Arc::strong_count(&seen), 1, "{answer:?} {polls}: an IO is left");
                heard.push(had);
                if answered.is_some() {
                    break;
                }
            }
            assert_every_part(&heard, answer.says());
        }
    });
}

pub(crate) const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";

#[test]
fn a_fallback_that_was_dropped_leaves_neither_of_its_connections() {
    play(async {
        let answers = ["HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno WS :(", SWITCHED];
        let mut dropped_with = [0; 3];
        for polls in 0.. {
            let (mut wires, mut servers) = (Vec::new(), Vec::new());
            let dialling = Alive::default();
            let dial = || {
                let (near, mut far, seen) = wire(None, Some(10));
                let answer = answers[wires.len()];
                wires.push(seen);
                servers.push(tokio::spawn(async move {
                    let asked = try_read_head(&mut far).await;
                    // The client may leave in the middle of this.
                    let _ = far.write_all(answer.as_bytes()).await;
                    (asked, to_the_end(&mut far).await)
                }));
                let alive = dialling.clone();
                async move {
                    sleep(Duration::from_millis(1)).await;
                    drop(alive);
                    Ok::<Io, io::Error>(near)
                }
            };
            let request = Request::get("http://node/exec").body(()).unwrap();
            let config = Config::default();
            let connected = dropped_after(polls, connect_with_fallback(dial, request, &[V5], &[V4], &config)).await;
            assert_eq!(dialling.count(), 0, "{polls}: an attempt goes on");
            let whole = connected.map(|connected| {
                let upgraded = connected.unwrap();
                assert!(matches!(upgraded.websocket_refused(), Some(UpgradeError::Refused { .. })));
                assert_eq!(upgraded.protocol(), Some(V4));
            });
            dropped_with[servers.len()] += 1;
            for (server, method) in servers.into_iter().zip(["GET", "POST"]) {
                let (asked, rest) = server.await.unwrap();
                assert!(asked.is_none_or(|asked| asked.starts_with(method)) && rest.is_empty(), "{polls}: {method}");
            }
            assert!(wires.iter().all(|seen| Arc::strong_count(seen) == 1), "{polls}: an IO is left");
            if whole.is_some() {
                break;
            }
        }
        assert!(dropped_with[0] > 0 && dropped_with[1] > 50 && dropped_with[2] > 50, "{dropped_with:?}");
    });
}
