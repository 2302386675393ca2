//! Limits that no test of a single part can show: memory stays flat under a flood, and a session ends whatever its peer
//! does.
//!
//! Time is virtual and passes only while no task can run. Memory is what the allocator counts, so the tests take turns.

#![allow(clippy::unwrap_used)]

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use futures_util::FutureExt;
use http::{Request, Response};
use kubestream::ConnectionError;
use kubestream::exec::{Error, ExecRequest, Streams};
use kubestream::mux::Config;
use kubestream::mux::SpdyConfig;
use kubestream::mux::{GoAwayStatus, Headers, RstStatus};
use kubestream::status::{ExitStatus, StatusError};
use kubestream::unstable::session::{Connection, Role};
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use kubestream::upgrade::{self, Protocol, UpgradeError, Version};
use quickcheck::{Arbitrary, Gen};
use stats_alloc::Region;
use support::memory::{ALLOCATOR, Counting, grown, play, turn};
use support::peer::{Peer, carried, data, fin, reply, resets, rst, syn, window_update};
use support::{config, exec_client, exec_server, pattern, server, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{sleep, timeout};
use tokio_util::codec::{Decoder, Encoder};

#[global_allocator]
static GLOBAL: &Counting = ALLOCATOR;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Longer than any timer of a session.
const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);
/// An upgrade that succeeds, and one that offers none of our protocols.
const ACCEPTED: &[u8] = b"POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
const REFUSED: &[u8] = b"POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v9.channel.k8s.io\r\n\r\n";

/// Row 1: memory for a frame is allocated as its bytes arrive, and not by its length field.
#[test]
fn a_frame_that_never_comes_whole_costs_what_has_come_of_it() {
    let _turn = turn();
    const CONNECTIONS: usize = 100;
    // A SYN_STREAM of 64 KiB, a skipped frame of 64 KiB, and DATA of 16 MiB less a byte.
    for head in [[0x80, 3, 0, 1, 0, 1, 0, 0], [0x80, 3, 0, 10, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0xff, 0xff, 0xff]] {
        play(async {
            let (mut peers, mut muxes) = (Vec::new(), Vec::new());
            for _ in 0..CONNECTIONS {
                let (near, mut far) = duplex(4 * KIB);
                let (mux, driver) = server(near, Config::default());
                // A SYN_STREAM comes first, because the inflater is allocated once for each connection.
                let mut opening = BytesMut::new();
                Codec::new(SpdyConfig::default()).encode(syn(1, &[("name", "x")]), &mut opening).unwrap();
                far.write_all(&opening).await.unwrap();
                let stream = support::accept(&mux).await;
                peers.push(far);
                muxes.push((mux, driver, stream));
            }
            let before = Region::new(ALLOCATOR);
            for peer in &mut peers {
                peer.write_all(&head).await.unwrap();
                for _ in 0..100 {
                    peer.write_all(b"x").await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            sleep(Duration::from_millis(1)).await;
            let each = grown(&before) / CONNECTIONS;
            assert!(each < 16 * KIB, "{each} bytes for 108 of them, {head:?}");
        });
    }
}

/// Row 4: counts all that is allocated on the way to the error, including memory that was freed at once.
#[test]
fn a_zlib_bomb_allocates_no_more_than_a_block_may_have() {
    let _turn = turn();
    let mut block = Vec::with_capacity(64 * KIB);
    Compress::new(Compression::best(), true).compress_vec(&vec![0; 12 * MIB], &mut block, FlushCompress::Sync).unwrap();
    let length = u32::try_from(block.len() + 4).unwrap().to_be_bytes();
    let bomb = [&[0x80, 3, 0, 2][..], &length, &[0, 0, 0, 1], &block].concat();
    let mut wire = BytesMut::from(&bomb[..]);
    play(async {
        let before = Region::new(ALLOCATOR);
        Codec::new(SpdyConfig::default()).decode(&mut wire).unwrap_err();
        let allocated = before.change().bytes_allocated;
        assert!(allocated < 512 * KIB, "{allocated} bytes for {} of the wire", bomb.len());
    });
}

/// Rows 8, 9, 11 and 14.
#[test]
fn floods_leave_no_memory_behind() {
    let _turn = turn();
    type Flood = (&'static str, fn(u32) -> Vec<Frame>);
    let floods: [Flood; 4] = [
        ("streams beyond the limit", |turn| vec![syn(2 * turn + 1, &[])]),
        ("PING", |turn| vec![Frame::Ping(2 * turn + 1)]),
        ("streams that are reset", |turn| vec![syn(2 * turn + 1, &[]), rst(2 * turn + 1, RstStatus::CANCEL)]),
        ("DATA on a stream that was", |_| vec![data(1, vec![0; 1000])]),
    ];
    for (flood, frames) in floods {
        play(async {
            let now = std::time::Instant::now();
            let config = config(|config| {
                config.spdy.max_streams = 16;
                config.spdy.max_unanswered_resets = u32::MAX;
            });
            let mut server = Connection::new(Role::Server, config, now);
            let mut turns = |range: std::ops::Range<u32>| {
                for turn in range {
                    for frame in frames(turn) {
                        server.receive(frame, now);
                    }
                    if flood == "DATA on a stream that was" && turn == 0 {
                        server.receive(syn(1, &[]), now);
                        server.reset(StreamId::new(1), RstStatus::CANCEL);
                        server.release(StreamId::new(1));
                    }
                    while server.poll_frame(now).is_some() {}
                    while server.poll_event().is_some() {}
                }
            };
            turns(0..1000);
            let before = Region::new(ALLOCATOR);
            turns(1000..100_000);
            let left = grown(&before);
            assert!(left < 16 * KIB, "{flood}: {left} bytes");
            assert!(server.error().is_none(), "{flood}: {:?}", server.error());
        });
    }
}

/// Row 10.
#[test]
fn a_peer_that_asks_and_does_not_read_costs_little_until_it_is_ended() {
    let _turn = turn();
    play(async {
        let (near, far) = duplex(KIB);
        let (mux, _driver) = server(near, Config::default());
        let mut peer = Peer::new(far);
        let before = Region::new(ALLOCATOR);
        let (mut most, mut turn) = (0, 1);
        while peer.try_say(Frame::Ping(turn)).now_or_never().is_none_or(|said| said) && turn < 20_000 {
            tokio::task::yield_now().await;
            most = most.max(grown(&before));
            turn += 2;
        }
        assert!(most < MIB, "{most} bytes");
        let Some(Err(error)) = mux.accept().await else { panic!("the server still takes frames") };
        assert!(matches!(error, ConnectionError::LimitExceeded { limit: "max_queued_replies", .. }), "{error:?}");
    });
}

/// Row 16: frames of 32 KiB, as Go's peers send.
#[test]
fn a_stream_nobody_reads_costs_no_more_than_its_budget_and_a_few_buffers() {
    let _turn = turn();
    play(async {
        let (near, far) = duplex(256 * KIB);
        let (mux, _driver) = server(near, Config::default());
        let mut peer = Peer::new(far);
        peer.say(syn(1, &[("name", "unread")])).await;
        let stream = support::accept(&mux).await;
        let piece = pattern(0, 32 * KIB);
        let before = Region::new(ALLOCATOR);
        let flood = tokio::spawn(async move {
            for _ in 0..100 * MIB / piece.len() {
                peer.say(data(1, piece.clone())).await;
            }
        });
        until(|| mux.stats().stalled_by == Some(1)).await;
        sleep(Duration::from_secs(5)).await;
        assert!(!flood.is_finished());
        let held = grown(&before);
        assert!(held < 3 * MIB, "{held} bytes");
        drop(stream);
        flood.await.unwrap();
    });
}

/// Row 21: a head may be long, but only its bytes take memory.
#[test]
fn a_head_that_never_comes_whole_costs_what_has_come_of_it() {
    let _turn = turn();
    const CONNECTIONS: usize = 20;
    for len in [100, 10 * KIB, 100 * KIB] {
        play(async {
            let mut clients = Vec::new();
            for _ in 0..CONNECTIONS {
                let (near, far) = duplex(KIB);
                tokio::spawn(async move { upgrade::accept(far, &upgrade::Config::default()).await.map(drop) });
                clients.push(near);
            }
            tokio::task::yield_now().await;
            let before = Region::new(ALLOCATOR);
            for client in &mut clients {
                client.write_all(b"GET /?command=").await.unwrap();
                client.write_all(&vec![b'x'; len]).await.unwrap();
            }
            tokio::task::yield_now().await;
            let each = grown(&before) / CONNECTIONS;
            assert!(each < 2 * len + 8 * KIB, "{each} bytes for {len} of them");
        });
    }
}

/// Row 21: the deadline also applies to our answer.
#[test]
fn an_answer_that_nobody_takes_is_given_up() {
    let _turn = turn();
    for switch in [true, false] {
        play(async {
            let (mut near, far) = duplex(16);
            let config = upgrade::Config::default();
            let (asked, pending) = tokio::join!(near.write_all(ACCEPTED), upgrade::accept(far, &config));
            asked.unwrap();
            let pending = pending.unwrap();
            let answer = async {
                if switch {
                    pending.accept(Protocol::SPDY_EXEC).await.map(|_| ())
                } else {
                    pending.respond(Response::new(Bytes::from(vec![b'x'; MIB]))).await
                }
            };
            let outcome = timeout(FOR_EVER, answer).await.unwrap();
            assert!(matches!(outcome, Err(UpgradeError::Timeout)), "{outcome:?}");
        });
    }
}

/// Row 23: for any command the request is one line with no extra header, and the server reads the same command.
#[test]
fn no_command_adds_a_line_to_the_request() {
    let _turn = turn();
    fn property(command: Vec<String>, container: String, kubelet: bool) -> bool {
        play(async {
            let wanted = ExecRequest::new(command.clone(), Streams::PIPES).container(container.clone());
            let query = if kubelet { wanted.to_kubelet_query() } else { wanted.to_query() };
            let request = Request::post(format!("http://node/exec?{query}")).body(()).unwrap();
            let (near, far) = duplex(64 * KIB);
            let handshake = upgrade::Config::default();
            let client = upgrade::connect(near, request, Protocol::SPDY_EXEC, &handshake);
            let serve = async {
                let pending = upgrade::accept(far, &handshake).await.unwrap();
                let read = ExecRequest::from_query(pending.request().uri().query().unwrap()).unwrap();
                // Host, Connection, Upgrade, four offers, Content-Length.
                assert_eq!(pending.request().headers().len(), 8);
                assert_eq!(pending.offers().count(), 4);
                pending.accept(Protocol::SPDY_EXEC).await.unwrap();
                read
            };
            let (upgraded, read) = tokio::join!(client, serve);
            upgraded.unwrap();
            read.command == command && read.streams == Streams::PIPES
        })
    }
    quickcheck::quickcheck(property as fn(Vec<String>, String, bool) -> bool);
    assert!(property(vec!["a b".into(), "\r\nHost: evil".into(), "&stdin=0#?%0d%0a".into()], "\0\n".into(), false));
}

/// Row 24, CVE-2018-1002105: bytes after a refused request are not read as another request.
#[test]
fn what_follows_a_refused_upgrade_is_never_answered() {
    let _turn = turn();
    let plain = b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n";
    let body = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 36\r\n\r\n";
    for (first, status) in [(REFUSED, "403"), (&body[..], "400"), (&b"BAD\r\n\r\n"[..], "400"), (&plain[..], "404")] {
        play(async {
            let (mut near, far) = duplex(16 * KIB);
            near.write_all(&[first, plain].concat()).await.unwrap();
            let server = tokio::spawn(async move {
                let pending = upgrade::accept(far, &upgrade::Config::default()).await?;
                if !pending.is_upgrade() {
                    return pending.respond(Response::builder().status(404).body(Bytes::new()).unwrap()).await;
                }
                pending.accept(Protocol::SPDY_EXEC).await.map(|_| ())
            });
            let mut answer = String::new();
            near.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            drop(near);
            let _ = server.await.unwrap();
        });
    }
}

/// Row 37: an endless error stream.
#[test]
fn a_status_without_end_is_an_error_and_costs_its_limit() {
    let _turn = turn();
    for begin in ["{\"message\":\"", "not JSON "] {
        for version in [Version::V1, Version::V4] {
            play(async {
                let (near, far) = duplex(64 * KIB);
                let (mux, _driver) = exec_client(near, version);
                let mut peer = Peer::new(far);
                let (mut exec, ()) = tokio::join!(mux.exec(Streams::OUTPUT).map(Result::unwrap), answer(&mut peer, 3));
                let before = Region::new(ALLOCATOR);
                let flood = tokio::spawn(async move {
                    peer.say(data(1, begin)).await;
                    for _ in 0..1000 {
                        peer.try_say(data(1, vec![b'x'; 10_000])).await;
                    }
                    sleep(FOR_EVER * 2).await;
                });
                let error = timeout(FOR_EVER, exec.wait()).await.unwrap().unwrap_err();
                assert!(matches!(error, Error::BadStatus(StatusError::TooLong { .. })), "{error:?}");
                assert!(grown(&before) < 3 * MIB);
                flood.abort();
            });
        }
    }
}

/// Row 42.
#[test]
fn a_session_whose_peer_falls_silent_ends_at_either_end() {
    let _turn = turn();
    play(async {
        let (near, far) = duplex(64 * KIB);
        let (mux, _driver) = exec_client(near, Version::V4);
        let mut silent = Peer::new(far);
        let (exec, ()) = tokio::join!(mux.exec(Streams::OUTPUT), answer(&mut silent, 3));
        let mut exec = exec.unwrap();
        let mut stdout = exec.stdout.take().unwrap();
        let error = timeout(FOR_EVER, exec.wait()).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Connection(ConnectionError::KeepaliveTimeout(_))), "{error:?}");
        assert!(stdout.data().await.unwrap().is_err(), "not an end");
        drop(silent);
    });
    play(async {
        let (near, far) = duplex(64 * KIB);
        let (mux, _driver) = exec_server(near, Version::V4);
        let mut silent = Peer::new(far);
        open(&mut silent, &["error", "stdout", "stderr"]).await;
        let process = mux.accept_exec(Streams::OUTPUT).await.unwrap();
        timeout(FOR_EVER, process.client_gone()).await.unwrap();
        let exit = process.exit(ExitStatus::Code(7)).await;
        assert!(matches!(exit, Err(Error::Connection(ConnectionError::KeepaliveTimeout(_)))), "{exit:?}");
        drop(silent);
    });
}

/// Row 43.
#[test]
fn accept_exec_dropped_at_any_poll_resets_what_it_took_and_leaves_the_rest() {
    let _turn = turn();
    let kinds = ["error", "stdin", "stdout", "stderr"];
    let mut taken = std::collections::BTreeSet::new();
    for polls in 1.. {
        let done = play(async {
            let (near, far) = duplex(32);
            let (mux, _driver) = exec_server(near, Version::V4);
            let mut peer = Peer::new(far);
            let client = tokio::spawn(async move {
                open(&mut peer, &kinds).await;
                peer.hear_all().await
            });
            let taking = tokio::spawn(async move {
                let done = polled(mux.accept_exec(Streams::PIPES), polls).await.is_some();
                (mux, done)
            });
            let (mux, done) = taking.await.unwrap();
            // Streams that were not accepted can still be accepted.
            while let Ok(incoming) = timeout(Duration::from_secs(1), mux.accept()).await {
                incoming.unwrap().unwrap().refuse();
            }
            drop(mux);
            let frames = client.await.unwrap();
            if !done {
                let refused = resets(&frames);
                let finished: Vec<u32> = [1, 3, 5, 7].into_iter().filter(|id| carried(&frames, *id).1).collect();
                taken.insert(finished.len());
                let mut ids: Vec<u32> = refused.iter().map(|(id, _)| *id).chain(finished).collect();
                ids.sort_unstable();
                assert_eq!(ids, [1, 3, 5, 7], "{polls} polls: each stream exactly once");
                // client-go takes silence for success.
                let (said, is_taken) = carried(&frames, 1);
                let said = ExitStatus::decode(Version::V4, &said).unwrap();
                assert!(said.is_none_or(|status| is_taken && status.code().is_none()));
            }
            done
        });
        if done {
            assert!(taken.into_iter().eq(0..4), "it was dropped with any number of accepted streams");
            return;
        }
    }
}

/// Row 43: no status is better than a wrong one.
#[test]
fn exit_dropped_at_any_poll_gives_the_client_the_status_or_none() {
    let _turn = turn();
    let mut without = 0;
    for polls in 1.. {
        let done = play(async {
            let (near, far) = duplex(64);
            let (client, _one) = exec_client(near, Version::V4);
            let (server, _two) = exec_server(far, Version::V4);
            let (exec, process) = tokio::join!(client.exec(Streams::OUTPUT), server.accept_exec(Streams::OUTPUT));
            let (exec, mut process) = (exec.unwrap(), process.unwrap());
            drop((client, server));
            process.stdout.as_mut().unwrap().send(pattern(0, 5000)).await.unwrap();
            let reading = tokio::spawn(exec.wait_with_output(5000));
            let exiting = tokio::spawn(async move { polled(process.exit(ExitStatus::Code(7)), polls).await.is_some() });
            let done = exiting.await.unwrap();
            match timeout(FOR_EVER, reading).await.unwrap().unwrap() {
                Ok(output) if !done && output.status.code().is_none() => without += 1,
                Ok(output) => assert!(output.status == ExitStatus::Code(7) && output.stdout == pattern(0, 5000)),
                Err(Error::MissingStatus | Error::Connection(_)) if !done => without += 1,
                Err(error) => panic!("{polls} polls: {error:?}"),
            }
            done
        });
        if done {
            assert!(without > 0, "it never had to wait");
            return;
        }
    }
}

/// A frame that a misbehaving peer might send in a session.
#[derive(Clone, Debug)]
struct Rude(Frame);

impl Arbitrary for Rude {
    fn arbitrary(g: &mut Gen) -> Self {
        let stream = u32::from(u8::arbitrary(g) % 12);
        let id = StreamId::new(stream);
        let kinds = ["error", "stdin", "stdout", "stderr", "resize", "Error", ""];
        let kind = *g.choose(&kinds).unwrap();
        Self(match u8::arbitrary(g) % 12 {
            0 => syn(stream, &[("streamtype", kind)]),
            1 | 2 => reply(stream),
            3 => rst(stream, RstStatus::new(u32::from(u8::arbitrary(g) % 13))),
            4 => Frame::Headers { id, fin: bool::arbitrary(g), headers: Headers::new() },
            5 => window_update(stream, u32::arbitrary(g) >> 1),
            6 => Frame::Ping(u32::arbitrary(g)),
            7 => Frame::GoAway { last_good: id, status: GoAwayStatus::new(u32::arbitrary(g) % 4) },
            8 => fin(stream),
            9 => data(stream, *g.choose(&["{\"Width\":1}", "{\"status\":\"Success\"}", "{", "}", "text"]).unwrap()),
            _ => Frame::Data { id, fin: bool::arbitrary(g), data: Vec::arbitrary(g).into() },
        })
    }
}

/// Sends everything and leaves, unless the other end has left before.
async fn rant(mut peer: Peer, frames: Vec<Rude>, pause: bool) {
    for Rude(frame) in frames {
        if !peer.try_say(frame).await {
            return;
        }
        if pause {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let (mut read, mut write) = tokio::io::split(peer.into_io());
    let _ = write.shutdown().await;
    let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
}

/// Row 45.
#[test]
fn whatever_a_peer_says_a_session_ends_without_a_panic() {
    async fn client(version: Version, opened: bool, pause: bool, frames: Vec<Rude>) {
        let (near, far) = duplex(64 * KIB);
        let (mux, driver) = exec_client(near, version);
        let mut peer = Peer::new(far);
        for id in [1, 3, 5, 7].into_iter().filter(|_| opened) {
            peer.say(reply(id)).await;
        }
        let rude = tokio::spawn(rant(peer, frames, pause));
        let session = async { mux.exec(Streams::TTY).await?.wait().await };
        assert!(timeout(FOR_EVER, session).await.is_ok(), "the server has gone");
        drop(mux);
        let _ = driver.await.unwrap();
        rude.await.unwrap();
    }
    async fn process(version: Version, opened: bool, pause: bool, frames: Vec<Rude>) {
        let (near, far) = duplex(64 * KIB);
        let (mux, driver) = exec_server(near, version);
        let mut peer = Peer::new(far);
        if opened {
            open(&mut peer, &["error", "stdin", "stdout", "resize"]).await;
        }
        let rude = tokio::spawn(rant(peer, frames, pause));
        let session = async {
            let mut process = mux.accept_exec(Streams::TTY).await?;
            while let Some(Ok(_)) = process.stdin.as_mut().unwrap().data().await {}
            if let Some(sizes) = &mut process.resize {
                while sizes.next().await.is_some() {}
            }
            let _ = process.stdout.as_mut().unwrap().send(pattern(0, 100_000)).await;
            process.exit(ExitStatus::Code(7)).await
        };
        assert!(timeout(FOR_EVER, session).await.is_ok(), "the client has gone");
        drop(mux);
        let _ = driver.await.unwrap();
        rude.await.unwrap();
    }
    fn property(frames: Vec<Rude>, version: u8, opened: bool, pause: bool) {
        let version = [Version::V1, Version::V2, Version::V3, Version::V4][usize::from(version % 4)];
        play(client(version, opened, pause, frames.clone()));
        play(process(version, opened, pause, frames));
    }
    let _turn = turn();
    quickcheck::quickcheck(property as fn(Vec<Rude>, u8, bool, bool));
}

/// Accepts the streams of a session as they come.
async fn answer(peer: &mut Peer<DuplexStream>, count: u32) {
    for _ in 0..count {
        let (id, _) = peer.hear_syn().await;
        peer.say(reply(id)).await;
    }
}

async fn open(peer: &mut Peer<DuplexStream>, kinds: &[&str]) {
    for (id, kind) in (1..).step_by(2).zip(kinds) {
        peer.say(syn(id, &[("streamtype", kind)])).await;
    }
}

/// Polls a future up to `polls` times, with one turn for each other task between, then drops it. It runs in a task of
/// its own, because a task that yields as tokio does is not polled again before all others have come to rest, and
/// neither is the test itself.
async fn polled<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let ready = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = ready {
            return Some(output);
        }
        let mut waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
    None
}
