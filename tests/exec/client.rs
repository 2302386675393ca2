//! The client, with servers played by the test that behave as Kubernetes' servers were seen to behave.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kubestream::exec::{Error, Exec, Options, Streams};
use kubestream::mux::Multiplexer;
use kubestream::mux::RstStatus;
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::unstable::wire::spdy::Frame;
use kubestream::upgrade::Version;
use kubestream::{ConnectionError, Initiator, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep};

use support::peer::{Peer, carried, data, fin, goaway, reply, resets, rst};
use support::{DriverTask, exec_client, pattern, until};

pub(crate) const EXIT_3: &str = r#"{"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
pub(crate) const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// Reads the SYN_STREAMs of a session.
async fn hear_types(peer: &mut Peer, count: usize) -> Vec<(u32, String)> {
    let mut types = Vec::new();
    for _ in 0..count {
        let (id, headers) = peer.hear_syn().await;
        assert_eq!(headers.len(), 1);
        types.push((id, headers.get("streamType").unwrap().to_owned()));
    }
    types
}

/// A session with error 1, stdout 3 and stderr 5, and a server played by the test.
pub(crate) async fn outputs(version: Version) -> (Exec, Peer, DriverTask) {
    let (near, far) = duplex(8 << 20);
    let (mux, driver) = exec_client(near, version);
    let mut peer = Peer::new(far);
    let (exec, ()) = tokio::join!(mux.exec(Streams::OUTPUT), answer(&mut peer, &[1, 3, 5]));
    (exec.unwrap(), peer, driver)
}

/// A session on a terminal: error 1, stdin 3, stdout 5, resize 7.
async fn terminal() -> (Exec, Peer, Multiplexer, DriverTask) {
    let (near, far) = duplex(8 << 20);
    let (mux, driver) = exec_client(near, Version::V4);
    let mut peer = Peer::new(far);
    let (exec, ()) = tokio::join!(mux.exec(Streams::TTY), answer(&mut peer, &[1, 3, 5, 7]));
    (exec.unwrap(), peer, mux, driver)
}

/// stdin and stdout.
pub(crate) async fn pipes_of(version: Version) -> (Exec, Peer, Multiplexer, DriverTask) {
    let (near, far) = duplex(8 << 20);
    let (mux, driver) = exec_client(near, version);
    let mut peer = Peer::new(far);
    let streams = Streams { stderr: false, ..Streams::PIPES };
    let (exec, ()) = tokio::join!(mux.exec(streams), answer(&mut peer, &[1, 3, 5]));
    (exec.unwrap(), peer, mux, driver)
}

pub(crate) async fn answer(peer: &mut Peer, ids: &[u32]) {
    hear_types(peer, ids.len()).await;
    for id in ids {
        peer.say(reply(*id)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn streams_are_made_in_client_gos_order_without_waiting_for_replies() {
    let tty = Streams { stderr: true, ..Streams::TTY };
    let cases: [(Version, Streams, &[&str]); 5] = [
        (Version::V1, Streams::PIPES, &["error", "stdin", "stdout", "stderr"]),
        (Version::V2, tty, &["error", "stdin", "stdout"]),
        (Version::V3, tty, &["error", "stdin", "stdout", "resize"]),
        (Version::V4, Streams::PIPES, &["error", "stdin", "stdout", "stderr"]),
        (Version::V4, Streams { stderr: false, ..Streams::OUTPUT }, &["error", "stdout"]),
    ];
    for (version, want, names) in cases {
        let (near, far) = duplex(1 << 20);
        let (mux, _driver) = exec_client(near, version);
        let mut peer = Peer::new(far);
        let exec = tokio::spawn(async move { mux.exec(want).await });
        let types = hear_types(&mut peer, names.len()).await;
        let expected: Vec<(u32, String)> = (1..).step_by(2).zip(names.iter().map(|name| (*name).to_owned())).collect();
        assert_eq!(types, expected);
        assert!(!exec.is_finished());

        // Go's server replies from five workers, in any order.
        for (id, _) in types.iter().rev() {
            peer.say(reply(*id)).await;
        }
        let _exec = exec.await.unwrap().unwrap();
        assert!(peer.hear().now_or_never().is_none(), "no FIN on streams that only the server writes");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_not_answered_are_named_and_given_up() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = exec_client(near, Version::V4);
    let mut peer = Peer::new(far);
    let began = Instant::now();
    let server = async {
        hear_types(&mut peer, 4).await;
        peer.say(reply(1)).await;
        peer.say(reply(5)).await;
    };
    let (refused, ()) = tokio::join!(mux.exec(Streams::PIPES), server);
    let error = refused.unwrap_err();
    assert!(matches!(&error, Error::CreationTimeout { missing, .. } if missing.contains(&"stdin")), "{error:?}");
    let Error::CreationTimeout { missing, after } = error else { return };
    assert_eq!((missing, after.as_secs()), (vec!["stdin", "stderr"], 30));
    assert_eq!(began.elapsed().as_secs(), 30);

    drop(mux);
    let mut reset = resets(&peer.hear_all().await);
    reset.sort_by_key(|(id, _)| *id);
    assert_eq!(reset, [1, 3, 5, 7].map(|id| (id, RstStatus::CANCEL)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_named_with_the_status() {
    for status in [RstStatus::CANCEL, RstStatus::REFUSED_STREAM] {
        let (near, far) = duplex(1 << 20);
        let (mux, _driver) = exec_client(near, Version::V4);
        let mut peer = Peer::new(far);
        let server = async {
            hear_types(&mut peer, 4).await;
            peer.say(reply(1)).await;
            peer.say(rst(5, status)).await;
        };
        let began = Instant::now();
        let (refused, ()) = tokio::join!(mux.exec(Streams::PIPES), server);
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Refused { stream: "stdout", status: why } if why == status), "{error:?}");
        assert_eq!(began.elapsed(), Duration::ZERO, "stdin has no reply yet and is not waited for");
        assert_eq!(error.initiator(), Initiator::Remote);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_while_the_streams_are_made_is_an_error() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = exec_client(near, Version::V4);
    let mut peer = Peer::new(far);
    let server = async move {
        hear_types(&mut peer, 3).await;
        drop(peer);
    };
    let (lost, ()) = tokio::join!(mux.exec(Streams::OUTPUT), server);
    assert!(matches!(lost, Err(Error::Connection(ConnectionError::Lost))), "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn containerds_end_is_known_from_the_status_without_a_fin() {
    let (exec, mut peer, driver) = outputs(Version::V4).await;
    peer.say(data(3, "to stdout")).await;
    peer.say(data(5, "to stderr")).await;
    peer.say(fin(3)).await;
    peer.say(fin(5)).await;
    let (half, rest) = EXIT_3.split_at(70);
    peer.say(data(1, half)).await;
    peer.say(data(1, rest)).await;
    let began = Instant::now();
    let output = exec.wait_with_output(100).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "neither a FIN nor an end is awaited");
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"to stdout"[..], &b"to stderr"[..]));
    assert_eq!(output.status, ExitStatus::Code(3));

    for id in [5, 1, 3] {
        peer.say(rst(id, RstStatus::CANCEL)).await;
    }
    peer.say(goaway(5)).await;
    peer.into_io().shutdown().await.unwrap();
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn cri_streamings_end_is_a_reset_of_every_stream_and_loses_no_byte() {
    let (exec, mut peer, _driver) = outputs(Version::V4).await;
    for part in 0..20 {
        peer.say(data(3, pattern(part, 32 * 1024))).await;
    }
    peer.say(data(1, SUCCESS)).await;
    for id in [3, 1, 5] {
        peer.say(rst(id, RstStatus::CANCEL)).await;
    }
    peer.say(goaway(5)).await;
    drop(peer);
    let output = exec.wait_with_output(1 << 20).await.unwrap();
    assert!(output.stdout == (0..20).flat_map(|part| pattern(part, 32 * 1024)).collect::<Vec<u8>>());
    assert!(output.status.success() && output.stderr.is_empty());
}

/// Row 44.
#[tokio::test(start_paused = true)]
async fn output_behind_the_status_is_waited_for_as_long_as_the_grace() {
    let (mut exec, mut peer, _driver) = outputs(Version::V4).await;
    let mut stdout = exec.stdout.take().unwrap();
    peer.say(data(1, SUCCESS)).await;
    let server = tokio::spawn(async move {
        sleep(Duration::from_secs(3)).await;
        peer.say(data(3, "late")).await;
        peer.say(fin(3)).await;
        peer.say(fin(5)).await;
        peer
    });
    let began = Instant::now();
    assert!(exec.wait().await.unwrap().success());
    assert_eq!(began.elapsed().as_secs(), 3);
    assert_eq!(stdout.data().await.unwrap().unwrap(), "late");
    assert!(stdout.data().await.is_none());
    server.await.unwrap();

    let (mut exec, mut peer, _driver) = outputs(Version::V4).await;
    let _wanted = (exec.stdout.take(), exec.stderr.take());
    peer.say(data(1, SUCCESS)).await;
    let began = Instant::now();
    let error = exec.wait().await.unwrap_err();
    assert!(error.to_string().starts_with("command succeeded, but the end of stdout and stderr was lost"), "{error}");
    assert!(matches!(error, Error::Incomplete { status: ExitStatus::Success, .. }));
    assert_eq!(began.elapsed().as_secs(), 10, "asked after five seconds, given up after ten");
    assert_eq!(peer.hear().await, Some(Frame::Ping(1)));
}

#[tokio::test(start_paused = true)]
async fn v1s_error_text_is_read_though_the_error_stream_was_reset_before_it() {
    let text = "command terminated with non-zero exit code: error executing command [sh], exit code 42";
    for (said, expected) in [(text, Some(42)), ("container not found", None), ("", Some(0))] {
        let (exec, mut peer, _driver) = outputs(Version::V1).await;
        peer.say(rst(1, RstStatus::CANCEL)).await;
        peer.say(data(3, "output")).await;
        if !said.is_empty() {
            peer.say(data(1, said)).await;
        }
        peer.say(fin(3)).await;
        peer.say(fin(5)).await;
        peer.say(goaway(5)).await;
        drop(peer);
        let output = exec.wait_with_output(100).await.unwrap();
        assert_eq!((&output.stdout[..], output.status.code()), (&b"output"[..], expected), "{said}");
        if expected.is_none() {
            assert_eq!(output.status.to_string(), said);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn v2_and_v3_end_with_their_error_stream() {
    for version in [Version::V2, Version::V3] {
        for (said, expected) in [("", Some(0)), ("command terminated with non-zero exit code: exit status 5", Some(5))]
        {
            for reset in [false, true] {
                let (exec, mut peer, _driver) = outputs(version).await;
                for id in [3, 5] {
                    peer.say(fin(id)).await;
                }
                if !said.is_empty() {
                    peer.say(data(1, said)).await;
                }
                peer.say(if reset { rst(1, RstStatus::CANCEL) } else { fin(1) }).await;
                assert_eq!(exec.wait_with_output(100).await.unwrap().status.code(), expected, "{version:?} {said}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn v4s_error_stream_without_a_status_is_never_success() {
    let ends = [
        ("FIN", vec![fin(3), fin(5), fin(1)]),
        ("RST", [3, 1, 5].map(|id| rst(id, RstStatus::CANCEL)).to_vec()),
        ("blanks", vec![fin(3), fin(5), data(1, " \n"), fin(1)]),
        ("GOAWAY and the end", vec![fin(3), fin(5), goaway(5)]),
        ("GOAWAY alone and the end", vec![goaway(5)]),
    ];
    for (name, frames) in ends {
        let (exec, mut peer, _driver) = outputs(Version::V4).await;
        peer.say(data(3, "all of it, as far as can be known")).await;
        for frame in frames {
            peer.say(frame).await;
        }
        drop(peer);
        let error = exec.wait_with_output(100).await.unwrap_err();
        assert!(matches!(error, Error::MissingStatus), "{name}: {error:?}");
        assert_eq!(error.initiator(), Initiator::Remote);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_never_success_in_any_version() {
    for version in [Version::V1, Version::V2, Version::V3, Version::V4] {
        let (mut exec, mut peer, _driver) = outputs(version).await;
        let mut stdout = exec.stdout.take().unwrap();
        peer.say(data(3, "half of")).await;
        drop(peer);
        let error = exec.wait().await.unwrap_err();
        assert!(matches!(error, Error::Connection(ConnectionError::Lost)), "{version:?}: {error:?}");
        assert_eq!(stdout.data().await.unwrap().unwrap(), "half of");
        let cut = stdout.data().await.unwrap().unwrap_err();
        assert!(matches!(cut, StreamError::Connection(ConnectionError::Lost)), "not an end");
    }
}

/// The end of a text is the end of its stream, so a cut text was taken for a whole one: exit code 12 for 127. (Cutting
/// the connection at every byte found this.)
#[tokio::test(start_paused = true)]
async fn the_text_of_an_error_stream_that_was_cut_off_is_no_status() {
    for version in [Version::V1, Version::V2, Version::V3] {
        let said = async |mut peer: Peer| {
            for id in [3, 5] {
                peer.say(fin(id)).await;
            }
            let text = b"command terminated with non-zero exit code: exit status 127";
            let mut io = peer.into_io();
            io.write_all(&[0, 0, 0, 1, 0, 0, 0, text.len() as u8]).await.unwrap();
            io.write_all(&text[..text.len() - 1]).await.unwrap();
            io
        };
        let (exec, peer, _driver) = outputs(version).await;
        drop(said(peer).await);
        let cut = exec.wait_with_output(100).await.unwrap_err();
        assert!(matches!(cut, Error::Connection(ConnectionError::Lost)), "{version:?}: {cut:?}");

        // Cut between two frames, it is no status either.
        let (exec, mut peer, _driver) = outputs(version).await;
        for id in [3, 5] {
            peer.say(fin(id)).await;
        }
        peer.say(data(1, "command terminated with non-zero exit code: exit status 12")).await;
        drop(peer);
        let cut = exec.wait_with_output(100).await.unwrap_err();
        assert!(matches!(cut, Error::Connection(ConnectionError::Lost)), "{version:?}: {cut:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeouts_are_the_callers_to_set() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = exec_client(near, Version::V4);
    let mut peer = Peer::new(far);
    let mut options = Options::default();
    options.creation_timeout = Duration::from_secs(1);
    options.status_timeout = Duration::from_secs(2);
    let began = Instant::now();
    mux.exec_with(Streams::OUTPUT, options.clone()).await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 1);
    while !matches!(peer.hear().await, Some(Frame::RstStream { id, .. }) if id.get() == 5) {}

    let server = async {
        answer(&mut peer, &[7, 9, 11, 13]).await;
        peer.say(fin(11)).await;
        peer.say(fin(13)).await;
    };
    let (exec, ()) = tokio::join!(mux.exec_with(Streams::PIPES, options), server);
    let mut exec = exec.unwrap();
    exec.stdin.as_mut().unwrap().send(Bytes::from_static(b"unread")).await.unwrap();
    let began = Instant::now();
    assert!(matches!(exec.wait().await, Err(Error::StatusTimeout(_))));
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_status_is_an_error_that_says_so() {
    let long = "x".repeat(70 * 1024);
    for bad in ["not JSON", "{\"status\":\"Maybe\"}", "{\"status\":", &long] {
        let (exec, mut peer, _driver) = outputs(Version::V4).await;
        peer.say(fin(3)).await;
        peer.say(fin(5)).await;
        for part in bad.as_bytes().chunks(32 * 1024) {
            peer.say(data(1, part.to_vec())).await;
        }
        peer.say(fin(1)).await;
        let error = exec.wait_with_output(100).await.unwrap_err();
        assert!(matches!(error, Error::BadStatus(_)), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_a_failure_cuts_off_is_no_bad_status() {
    for (said, is_cut) in [(&EXIT_3[..60], true), ("not JSON", false)] {
        let (mut exec, mut peer, driver) = outputs(Version::V4).await;
        peer.say(data(1, said)).await;
        sleep(Duration::from_secs(1)).await;
        driver.abort();
        match exec.wait().await.unwrap_err() {
            Error::Connection(ConnectionError::DriverGone) => assert!(is_cut, "{said}"),
            Error::BadStatus(error) => assert!(!is_cut && error.to_string().contains(said), "{error}"),
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn once_the_status_is_there_no_byte_leaves_any_more() {
    let (mut exec, mut peer, mux, driver) = terminal().await;
    let (mut stdin, mut stdout) = (exec.stdin.take().unwrap(), exec.stdout.take().unwrap());
    let mut resize = exec.resize.take().unwrap();
    stdin.send(Bytes::from_static(b"in time")).await.unwrap();
    assert_eq!(peer.hear().await, Some(data(3, "in time")));
    let sent = mux.stats().sent;

    peer.say(data(1, EXIT_3)).await;
    until(|| stdin.flush().now_or_never().is_some_and(|flushed| flushed.is_err()) || mux.stats().unread > 0).await;
    let late = stdin.send(Bytes::from_static(b"late")).await.unwrap_err();
    assert!(matches!(late, StreamError::SessionEnded), "{late:?}");
    let late = stdin.write_all(b"late").await.unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::BrokenPipe);
    let late = resize.resize(TerminalSize { width: 80, height: 24 }).await.unwrap_err();
    assert!(matches!(late, StreamError::SessionEnded));

    // Nothing that the server sends and nothing that is dropped causes a write: no echo, FIN, reset, WINDOW_UPDATE or
    // GOAWAY.
    for ping in [2, 4] {
        peer.say(Frame::Ping(ping)).await;
    }
    for part in 0..20 {
        peer.say(data(5, pattern(part, 32 * 1024))).await;
    }
    peer.say(fin(5)).await;
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(3));
    let mut all = Vec::new();
    stdout.read_to_end(&mut all).await.unwrap();
    assert!(all == (0..20).flat_map(|part| pattern(part, 32 * 1024)).collect::<Vec<u8>>());
    stdin.finish();
    drop((stdin, resize, exec, stdout));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(mux.stats().sent, sent);
    drop(mux);
    sleep(Duration::from_secs(5)).await;
    assert!(!driver.is_finished(), "the client reads to the server's end");

    peer.say(goaway(7)).await;
    let mut io = peer.into_io();
    io.shutdown().await.unwrap();
    driver.await.unwrap().unwrap();
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\x80\x03\0\x07\0\0\0\x08\0\0\0\0\0\0\0\0", "GOAWAY, when everything has come");
}

#[tokio::test(start_paused = true)]
async fn stdin_that_was_queued_when_the_status_came_is_dropped() {
    let (near, far) = duplex(64 * 1024);
    let (mux, driver) = exec_client(near, Version::V4);
    let mut peer = Peer::new(far);
    let (exec, ()) = tokio::join!(mux.exec(Streams::PIPES), answer(&mut peer, &[1, 3, 5, 7]));
    let mut exec = exec.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    let writer = tokio::spawn(async move {
        loop {
            if let Err(error) = stdin.send(pattern(0, 50_000)).await {
                return error;
            }
        }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!writer.is_finished());
    let before = mux.stats().sent;
    for frame in [data(5, "output"), fin(5), fin(7), data(1, EXIT_3)] {
        peer.say(frame).await;
    }
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(3));
    assert!(matches!(writer.await.unwrap(), StreamError::SessionEnded));

    // The server reads only what was on its way, and then the end.
    drop((exec, mux));
    let mut io = peer.into_io();
    let mut drained = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), io.read_to_end(&mut drained)).await.unwrap().unwrap();
    assert!((drained.len() as u64) < before, "no more than what was in the pipe");
    drop(io);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn stdin_ends_with_a_fin_and_resets_of_a_server_are_no_failure_of_the_session() {
    let (mut exec, mut peer, _mux, _driver) = terminal().await;
    let mut stdin = exec.stdin.take().unwrap();
    stdin.write_all(b"exit\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut frames = Vec::new();
    while !carried(&frames, 3).1 {
        frames.push(peer.hear().await.unwrap());
    }
    assert_eq!(carried(&frames, 3).0, b"exit\n");
    peer.say(rst(3, RstStatus::CANCEL)).await;
    peer.say(data(5, "bye")).await;
    peer.say(rst(5, RstStatus::CANCEL)).await;
    peer.say(data(1, SUCCESS)).await;
    assert!(exec.wait().await.unwrap().success());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_stdin_fails_the_writer_alone() {
    let (mut exec, mut peer, _mux, _driver) = terminal().await;
    let mut stdin = exec.stdin.take().unwrap();
    peer.say(rst(3, RstStatus::CANCEL)).await;
    let refused = loop {
        if let Err(error) = stdin.send(pattern(0, 1000)).await {
            break error;
        }
        sleep(Duration::from_millis(1)).await;
    };
    assert!(matches!(refused, StreamError::Reset(RstStatus::CANCEL)), "{refused:?}");
    let mut stdout = exec.stdout.take().unwrap();
    peer.say(data(5, "the process goes on")).await;
    assert_eq!(stdout.data().await.unwrap().unwrap(), "the process goes on");
}

#[tokio::test(start_paused = true)]
async fn exec_dropped_half_way_resets_the_streams_it_made() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = exec_client(near, Version::V4);
    let mut peer = Peer::new(far);
    assert!(mux.exec(Streams::OUTPUT).now_or_never().is_none());
    drop(mux);
    let frames = peer.hear_all().await;
    assert_eq!(resets(&frames), [1, 3, 5].map(|id| (id, RstStatus::CANCEL)));
}
