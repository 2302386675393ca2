//! The server, with clients played by the test.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use kubestream::StreamError;
use kubestream::exec::{Error, ExecServer, Streams};
use kubestream::mux::Multiplexer;
use kubestream::mux::RstStatus;
use kubestream::mux::SpdyConfig;
use kubestream::status::{ExitStatus, Status};
use kubestream::unstable::wire::spdy::{Codec, Frame, Setting, SettingId, Settings};
use kubestream::upgrade::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep};
use tokio_util::codec::{FramedRead, FramedWrite};

use support::peer::{Peer, carried, data, fin, goaway, reply, resets, rst, syn};
use support::{DriverTask, exec_server, pattern};

fn stream(id: u32, kind: &str) -> Frame {
    // Spelled as in Go, whose writer converts the name to lower case.
    syn(id, &[("streamtype", kind)])
}

/// Our server with a client played by the test, and their session: error 1, stdin 3, stdout 5, stderr 7.
async fn session(version: Version, pipe: usize) -> (ExecServer, Peer, Multiplexer, DriverTask) {
    let (near, far) = duplex(pipe);
    let (mux, driver) = exec_server(near, version);
    let mut peer = Peer::new(far);
    let client = async {
        // client-go waits for each reply.
        for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
            peer.say(stream(id, kind)).await;
            assert_eq!(peer.hear().await, Some(reply(id)));
        }
    };
    let (process, ()) = tokio::join!(mux.accept_exec(Streams::PIPES), client);
    (process.unwrap(), peer, mux, driver)
}

#[tokio::test(start_paused = true)]
async fn streams_are_taken_in_any_order() {
    let kinds = ["error", "stdin", "stdout", "resize"];
    for first in 0..4 {
        for step in [1, 3] {
            let (near, far) = duplex(1 << 20);
            let (mux, _driver) = exec_server(near, Version::V4);
            let mut peer = Peer::new(far);
            let order: Vec<&str> = (0..4).map(|at| kinds[(first + at * step) % 4]).collect();
            for (id, kind) in (1..).step_by(2).zip(&order) {
                peer.say(stream(id, kind)).await;
            }
            let mut process = mux.accept_exec(Streams::TTY).await.unwrap();
            let stdin = 1 + 2 * order.iter().position(|kind| *kind == "stdin").unwrap() as u32;
            peer.say(data(stdin, "typed")).await;
            assert_eq!(process.stdin.as_mut().unwrap().data().await.unwrap().unwrap(), "typed", "{order:?}");
            assert!(process.stdout.is_some() && process.resize.is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_doubled_unknown_or_not_wanted_is_refused_and_the_session_lives() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = exec_server(near, Version::V4);
    let mut peer = Peer::new(far);
    peer.say(stream(1, "error")).await;
    peer.say(stream(3, "error")).await;
    peer.say(stream(5, "Stdout")).await;
    peer.say(syn(7, &[("name", "of no type")])).await;
    peer.say(stream(9, "stdin")).await;
    peer.say(stream(11, "resize")).await;
    peer.say(stream(13, "stdout")).await;
    peer.say(stream(15, "stderr")).await;
    let mut process = mux.accept_exec(Streams::OUTPUT).await.unwrap();
    peer.say(stream(17, "stdout")).await;

    let mut refused = Vec::new();
    let mut taken = Vec::new();
    for _ in 0..9 {
        match peer.hear().await.unwrap() {
            Frame::RstStream { id, status } => refused.push((id.get(), status)),
            Frame::SynReply { id, .. } => taken.push(id.get()),
            other => panic!("{other:?}"),
        }
    }
    refused.sort_by_key(|(id, _)| *id);
    assert_eq!(taken, [1, 13, 15]);
    assert_eq!(refused, [3, 5, 7, 9, 11, 17].map(|id| (id, RstStatus::REFUSED_STREAM)));

    process.stdout.as_mut().unwrap().write_all(b"alive").await.unwrap();
    process.exit(ExitStatus::Success).await.unwrap();
    let frames = peer.hear_all().await;
    assert_eq!(carried(&frames, 13), (b"alive".to_vec(), true));
    assert!(ExitStatus::decode(Version::V4, &carried(&frames, 1).0).unwrap().unwrap().success());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_comes_is_named_and_ends_the_connection() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = exec_server(near, Version::V4);
    let mut peer = Peer::new(far);
    peer.say(stream(1, "error")).await;
    peer.say(stream(3, "stdout")).await;
    let began = Instant::now();
    let error = mux.accept_exec(Streams::PIPES).await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 30);
    let Error::CreationTimeout { mut missing, after } = error else { panic!("{error:?}") };
    missing.sort_unstable();
    assert_eq!((missing, after.as_secs()), (vec!["stderr", "stdin"], 30));

    // client-go takes silence for success, so it must be told.
    let frames = peer.hear_all().await;
    assert_eq!(resets(&frames), []);
    let (said, ended) = carried(&frames, 1);
    let said = ExitStatus::decode(Version::V4, &said).unwrap().unwrap();
    assert!(said.code().is_none() && ended, "{said}");
    assert!(carried(&frames, 3).1);
    assert_eq!(frames.last(), Some(&goaway(3)));
    drop(peer);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_before_its_streams_are_there_is_an_error() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = exec_server(near, Version::V4);
    let mut peer = Peer::new(far);
    peer.say(stream(1, "error")).await;
    drop(peer);
    let gone = mux.accept_exec(Streams::OUTPUT).await;
    assert!(matches!(gone, Err(Error::Connection(_))), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn the_status_comes_behind_the_last_byte_of_both_outputs_and_goaway_behind_all() {
    let (mut process, mut peer, _mux, driver) = session(Version::V4, 64 * 1024).await;
    let (mut stdout, mut stderr) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
    let command = tokio::spawn(async move {
        stdout.send(pattern(0, 3 << 20)).await.unwrap();
        stderr.send(pattern(1, 200_000)).await.unwrap();
        drop((stdout, stderr));
        process.exit(ExitStatus::Code(7)).await.unwrap();
    });
    let mut frames = Vec::new();
    loop {
        // A slow reader.
        sleep(Duration::from_millis(300)).await;
        match peer.hear().await {
            Some(frame) => frames.push(frame),
            None => break,
        }
    }
    command.await.unwrap();
    assert!(carried(&frames, 5) == (pattern(0, 3 << 20).to_vec(), true));
    assert!(carried(&frames, 7) == (pattern(1, 200_000).to_vec(), true));
    let (status, ended) = carried(&frames, 1);
    assert_eq!(ExitStatus::decode(Version::V4, &status).unwrap(), Some(ExitStatus::Code(7)));
    assert!(ended);
    assert_eq!(carried(&frames, 3), (Vec::new(), true), "clients from v2 on wait for the end of stdin");

    let data_of = |wanted: u32| move |frame: &Frame| matches!(frame, Frame::Data { id, .. } if id.get() == wanted);
    let status_at = frames.iter().position(data_of(1)).unwrap();
    for output in [5, 7] {
        assert!(frames.iter().rposition(data_of(output)).unwrap() < status_at);
    }
    assert!(frames.iter().rposition(data_of(1)).unwrap() < frames.iter().position(data_of(3)).unwrap());
    assert_eq!(frames.last(), Some(&goaway(7)));
    assert_eq!(resets(&frames), []);
    drop(peer);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn text_versions_say_nothing_of_success_and_never_nothing_of_failure() {
    let failed = ExitStatus::Failed(Box::new(Status::internal_error("no such container")));
    for version in [Version::V1, Version::V2, Version::V3] {
        for (end, expected) in [
            (ExitStatus::Success, ""),
            (ExitStatus::Code(0), ""),
            (ExitStatus::Code(5), "command terminated with non-zero exit code: exit status 5"),
            (failed.clone(), "Internal error occurred: no such container"),
        ] {
            let (process, mut peer, _mux, _driver) = session(version, 64 * 1024).await;
            process.exit(end).await.unwrap();
            let frames = peer.hear_all().await;
            assert_eq!(carried(&frames, 1), (expected.as_bytes().to_vec(), true));
            assert!(carried(&frames, 5).1 && carried(&frames, 7).1, "outputs that the caller did not take are ended");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unread_stdin_holds_up_neither_output_nor_status() {
    let (mut process, peer, mux, driver) = session(Version::V4, 64 * 1024).await;
    let (read, write) = tokio::io::split(peer.into_io());
    let mut write = FramedWrite::new(write, Codec::new(SpdyConfig::default()));
    let typing = tokio::spawn(async move {
        for part in 0..500 {
            write.send(data(3, pattern(part, 32 * 1024))).await.unwrap();
        }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(mux.stats().stalled_by == Some(3) && !typing.is_finished());
    let client = tokio::spawn(async move {
        let frames = FramedRead::new(read, Codec::new(SpdyConfig::default()));
        frames.map(Result::unwrap).collect::<Vec<Frame>>().await
    });
    process.stdout.as_mut().unwrap().send(pattern(0, 3 << 20)).await.unwrap();
    process.exit(ExitStatus::Code(7)).await.unwrap();
    let frames = client.await.unwrap();
    assert!(carried(&frames, 5) == (pattern(0, 3 << 20).to_vec(), true));
    assert_eq!(ExitStatus::decode(Version::V4, &carried(&frames, 1).0).unwrap(), Some(ExitStatus::Code(7)));
    typing.await.unwrap();
    drop(mux);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_resets_an_output_fails_its_writer_and_gets_the_status() {
    let (mut process, mut peer, _mux, _driver) = session(Version::V4, 64 * 1024).await;
    peer.say(rst(5, RstStatus::CANCEL)).await;
    let mut stdout = process.stdout.take().unwrap();
    let refused = loop {
        if let Err(error) = stdout.send(Bytes::from_static(b"unwanted")).await {
            break error;
        }
        sleep(Duration::from_millis(1)).await;
    };
    assert!(matches!(refused, StreamError::Reset(RstStatus::CANCEL)), "{refused:?}");
    drop(stdout);
    process.exit(ExitStatus::Success).await.unwrap();
    let frames = peer.hear_all().await;
    assert!(ExitStatus::decode(Version::V4, &carried(&frames, 1).0).unwrap().unwrap().success());
}

#[tokio::test(start_paused = true)]
async fn stdin_ends_for_the_process_by_a_fin_and_by_a_reset() {
    for end in [fin(3), rst(3, RstStatus::CANCEL)] {
        let (mut process, mut peer, _mux, _driver) = session(Version::V4, 64 * 1024).await;
        peer.say(data(3, "all of it")).await;
        peer.say(end).await;
        let mut all = String::new();
        process.stdin.as_mut().unwrap().read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "all of it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_shows_at_once_and_exit_says_so() {
    for orderly in [false, true] {
        let (mut process, mut peer, _mux, _driver) = session(Version::V4, 64 * 1024).await;
        if orderly {
            peer.say(goaway(0)).await;
        }
        drop(peer);
        process.client_gone().await;
        let mut stdin = process.stdin.take().unwrap();
        assert!(stdin.data().await.is_none_or(|data| data.is_err()));
        let exit = process.exit(ExitStatus::Success).await;
        assert!(matches!(exit, Err(Error::Connection(_))), "{exit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_in_the_middle_of_the_output_is_an_error_of_exit() {
    let (mut process, mut peer, _mux, _driver) = session(Version::V4, 64 * 1024).await;
    process.stdout.as_mut().unwrap().send(pattern(0, 3 << 20)).await.unwrap();
    let leaving = tokio::spawn(async move {
        for _ in 0..10 {
            peer.hear().await;
        }
        drop(peer);
    });
    let exit = process.exit(ExitStatus::Success).await;
    assert!(matches!(exit, Err(Error::Connection(_))), "{exit:?}");
    leaving.await.unwrap();
}

/// With windows of eight bytes, the status waits for a client that does not want it any more.
#[tokio::test(start_paused = true)]
async fn an_error_stream_that_is_reset_before_all_of_the_status_has_gone_is_an_error_of_exit() {
    let (process, mut peer, _mux, _driver) = session(Version::V4, 64 * 1024).await;
    let eight = Setting::new(0, SettingId::INITIAL_WINDOW_SIZE, 8);
    peer.say(Frame::Settings(Settings::new(false, vec![eight]))).await;
    sleep(Duration::from_secs(1)).await;
    let resetting = async {
        while carried(&[peer.hear().await.unwrap()], 1).0 != br#"{"metada"# {}
        peer.say(rst(1, RstStatus::CANCEL)).await;
    };
    let (exit, ()) = tokio::join!(process.exit(ExitStatus::Success), resetting);
    let reset = |error: &StreamError| matches!(error, StreamError::Reset(RstStatus::CANCEL));
    assert!(matches!(&exit, Err(Error::Stream { stream: "error", error }) if reset(error)), "{exit:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_pauses_for_a_minute_after_the_command_has_ended_gets_all_of_it() {
    for left in [300_000, 200_000, 100_000] {
        let (mut process, mut peer, _mux, _driver) = session(Version::V4, 64 * 1024).await;
        let command = tokio::spawn(async move {
            process.stdout.as_mut().unwrap().send(pattern(0, 3 << 20)).await.unwrap();
            process.exit(ExitStatus::Code(7)).await
        });
        let mut frames = Vec::new();
        let mut came = 0;
        while came < (3 << 20) - left {
            let frame = peer.hear().await.unwrap();
            came += if let Frame::Data { data, .. } = &frame { data.len() } else { 0 };
            frames.push(frame);
        }
        // The client reads it with a pager.
        sleep(Duration::from_secs(60)).await;
        frames.extend(peer.hear_all().await);
        assert_eq!(carried(&frames, 5).0.len(), 3 << 20, "paused with {left} bytes to come");
        assert_eq!(ExitStatus::decode(Version::V4, &carried(&frames, 1).0).unwrap(), Some(ExitStatus::Code(7)));
        command.await.unwrap().unwrap();
    }
}

/// Hops without half-close end both sides at the server's end. Whatever the client still sends then causes a reset,
/// which destroys the tail.
#[tokio::test(start_paused = true)]
async fn a_server_leaves_the_end_to_its_client() {
    for ends in ["goodbye", "end", "silence"] {
        let (process, mut peer, mux, driver) = session(Version::V4, 1 << 20).await;
        drop(mux);
        process.exit(ExitStatus::Code(7)).await.unwrap();
        while peer.hear().await != Some(goaway(7)) {}
        // The client may still type, and read what the hop has not passed on yet.
        for _ in 0..5 {
            sleep(Duration::from_secs(5)).await;
            peer.say(data(3, "typed")).await;
            assert!(peer.hear().now_or_never().is_none() && !driver.is_finished());
        }
        let left = Instant::now();
        match ends {
            "goodbye" => {
                peer.say(goaway(0)).await;
                assert_eq!((peer.hear().await, left.elapsed().as_secs()), (None, 0));
                drop(peer);
            }
            "end" => drop(peer),
            _ => assert_eq!((peer.hear().await, left.elapsed().as_secs()), (None, 10)),
        }
        driver.await.unwrap().unwrap();
        assert!(left.elapsed().as_secs() <= 10);
    }
}

/// An early return or a panic. client-go takes an end without a status for success, over SPDY in every version.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_let_go_has_failed_in_the_words_of_its_version() {
    for version in [Version::V1, Version::V2, Version::V3, Version::V4] {
        for panics in [false, true] {
            let (mut process, mut peer, mux, driver) = session(version, 1 << 20).await;
            drop(mux);
            process.stdout.as_mut().unwrap().send("half".into()).await.unwrap();
            let running = tokio::spawn(async move {
                let _process = process;
                assert!(!panics, "as runtimes do");
            });
            assert_eq!(running.await.is_err(), panics);
            let mut frames = Vec::new();
            while frames.last() != Some(&goaway(7)) {
                frames.push(peer.hear().await.unwrap());
            }
            let (said, ended) = carried(&frames, 1);
            let status = ExitStatus::decode(version, &said).unwrap().unwrap();
            assert!(ended && status.to_string().starts_with("Internal error occurred: the server let"), "{status}");
            assert_eq!(carried(&frames, 5).0, b"half");
            drop(peer);
            driver.await.unwrap().unwrap();
        }
    }
}
