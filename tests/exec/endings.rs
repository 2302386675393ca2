//! What a client reports for each way in which a session can end, with servers played by the test.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kubestream::exec::{Error, Streams};
use kubestream::mux::RstStatus;
use kubestream::status::ExitStatus;
use kubestream::unstable::wire::spdy::Frame;
use kubestream::upgrade::Version;
use kubestream::{ConnectionError, StreamError};
use tokio::io::duplex;
use tokio::time::{Instant, sleep};

use crate::client::{EXIT_3, SUCCESS, answer, outputs, pipes_of};
use support::exec_client;
use support::io::EndsWith;
use support::peer::{Peer, data, fin, goaway, rst};

/// A process that a command leaves running writes at any time. The client waits for a server that answers PINGs.
#[tokio::test(start_paused = true)]
async fn output_behind_the_status_is_waited_for_as_long_as_the_server_answers() {
    let (exec, mut peer, _driver) = outputs(Version::V4).await;
    peer.say(data(1, SUCCESS)).await;
    peer.say(data(3, "early ")).await;
    let server = tokio::spawn(async move {
        for _ in 0..100 {
            let Some(Frame::Ping(id)) = peer.hear().await else { panic!("nothing but PINGs") };
            peer.say(Frame::Ping(id)).await;
        }
        peer.say(data(3, "late")).await;
        peer.say(fin(3)).await;
        peer.say(fin(5)).await;
        peer
    });
    let began = Instant::now();
    let output = exec.wait_with_output(100).await.unwrap();
    assert_eq!((&output.stdout[..], output.status), (&b"early late"[..], ExitStatus::Success));
    assert_eq!(began.elapsed().as_secs(), 995, "asked after five seconds, and every ten from then on");
    server.await.unwrap();
}

/// The connection breaks after the status. What had come is read, and the status does not count as success.
#[tokio::test(start_paused = true)]
async fn a_status_whose_output_was_cut_is_incomplete() {
    for ended in [&[][..], &[3], &[3, 5]] {
        let (mut exec, mut peer, _driver) = outputs(Version::V4).await;
        let mut stdout = exec.stdout.take().unwrap();
        let _stderr = exec.stderr.take().unwrap();
        peer.say(data(3, "half of")).await;
        peer.say(data(1, SUCCESS)).await;
        for id in ended {
            peer.say(fin(*id)).await;
        }
        drop(peer);
        let waited = exec.wait().await;
        assert_eq!(stdout.data().await.unwrap().unwrap(), "half of");
        match (waited, ended) {
            (Ok(status), [3, 5]) => assert!(status.success(), "all of it had come"),
            (Err(Error::Incomplete { status, missing, error }), _) => {
                assert!(status.success() && missing.len() == 2 - ended.len(), "{missing:?}");
                assert!(matches!(error, StreamError::Connection(ConnectionError::Lost)), "{error:?}");
            }
            (waited, _) => panic!("{ended:?}: {waited:?}"),
        }
        let end = stdout.data().await;
        assert_eq!(end.is_none(), ended.contains(&3), "{end:?}");
    }
}

/// The loss of an output that the caller did not want is not an error.
#[tokio::test(start_paused = true)]
async fn a_status_whose_output_was_let_go_is_whole_without_it() {
    let (mut exec, mut peer, _driver) = outputs(Version::V4).await;
    peer.say(data(3, "half of")).await;
    peer.say(data(1, EXIT_3)).await;
    sleep(Duration::from_secs(1)).await;
    drop((exec.stdout.take(), exec.stderr.take()));
    drop(peer);
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(3));
}

/// However it ends: before the status is awaited, or broken off by the server.
#[tokio::test(start_paused = true)]
async fn an_output_that_nobody_took_or_kept_is_missed_by_nobody_however_it_ends() {
    let (mut exec, mut peer, _driver) = outputs(Version::V4).await;
    peer.say(data(3, "half of")).await;
    peer.say(data(1, EXIT_3)).await;
    drop(peer);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(3), "nobody took them");

    let (mut exec, mut peer, _driver) = outputs(Version::V4).await;
    drop((exec.stdout.take(), exec.stderr.take()));
    for id in [3, 5] {
        peer.say(rst(id, RstStatus::INTERNAL_ERROR)).await;
    }
    peer.say(data(1, EXIT_3)).await;
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(3), "nobody kept them");

    // An output that was read up to such a break was wanted. It is still reported as missing after it was dropped.
    let (mut exec, mut peer, _driver) = outputs(Version::V4).await;
    let (mut stdout, _stderr) = (exec.stdout.take().unwrap(), exec.stderr.take());
    peer.say(rst(3, RstStatus::INTERNAL_ERROR)).await;
    peer.say(fin(5)).await;
    assert!(stdout.data().await.unwrap().is_err());
    drop(stdout);
    peer.say(data(1, EXIT_3)).await;
    let waited = exec.wait().await;
    assert!(matches!(&waited, Err(Error::Incomplete { missing, .. }) if missing[..] == ["stdout"]), "{waited:?}");
}

/// Our own shutdown cuts the output too, so it is not complete.
#[tokio::test(start_paused = true)]
async fn what_our_own_shutdown_cuts_is_no_more_whole_than_what_the_network_cuts() {
    let (mut exec, mut peer, mux, _driver) = pipes_of(Version::V4).await;
    let _wanted = exec.stdout.take();
    peer.say(data(5, "half of")).await;
    peer.say(data(1, SUCCESS)).await;
    sleep(Duration::from_secs(1)).await;
    mux.shutdown().now_or_never();
    let waited = exec.wait().await;
    assert!(matches!(waited, Err(Error::Incomplete { status: ExitStatus::Success, .. })), "{waited:?}");

    for version in [Version::V1, Version::V2, Version::V3] {
        let (mut exec, mut peer, mux, _driver) = pipes_of(version).await;
        peer.say(fin(5)).await;
        peer.say(data(1, "command terminated with non-zero exit code: exit status 12")).await;
        sleep(Duration::from_secs(1)).await;
        mux.shutdown().now_or_never();
        let waited = exec.wait().await;
        assert!(matches!(waited, Err(Error::Connection(ConnectionError::Closed))), "{version:?}: {waited:?}");
    }
}

/// RST_STREAM with CANCEL is how Go's servers end a stream. With another status it breaks off, and of `exit status 127`
/// the last digit may be missing.
#[tokio::test(start_paused = true)]
async fn a_text_whose_error_stream_was_reset_by_a_failure_is_no_status() {
    for version in [Version::V2, Version::V3] {
        for status in [RstStatus::INTERNAL_ERROR, RstStatus::PROTOCOL_ERROR] {
            let (exec, mut peer, _driver) = outputs(version).await;
            for frame in [fin(3), fin(5)] {
                peer.say(frame).await;
            }
            peer.say(data(1, "command terminated with non-zero exit code: exit status 12")).await;
            peer.say(rst(1, status)).await;
            let waited = exec.wait_with_output(100).await;
            match waited {
                Err(Error::Stream { stream: "error", error: StreamError::Reset(with) }) => assert_eq!(with, status),
                waited => panic!("{version:?}: {waited:?}"),
            }
        }
    }
}

/// Go's chain hangs if the process leaves a megabyte of its stdin unread: the outputs end, and no status ever comes.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_behind_unread_stdin_is_given_up_once_the_outputs_have_ended() {
    for version in [Version::V2, Version::V4] {
        let (mut exec, mut peer, mux, _driver) = pipes_of(version).await;
        exec.stdin.as_mut().unwrap().send(Bytes::from_static(b"unread")).await.unwrap();
        let reader = tokio::spawn(async move {
            sleep(Duration::from_secs(20)).await;
            peer.say(data(5, "output")).await;
            peer.say(fin(5)).await;
            peer
        });
        let error = exec.wait().await.unwrap_err();
        assert!(matches!(error, Error::StatusTimeout(after) if after.as_secs() == 10), "{error:?}");
        drop((reader.await.unwrap(), mux));
    }
}

/// `exec >log 2>&1; sleep 3600; exit 3`: for an hour only answers to PINGs come.
#[tokio::test(start_paused = true)]
async fn a_command_that_closes_its_outputs_and_works_on_is_waited_for() {
    for typed in [false, true] {
        let (mut exec, mut peer, _mux, _driver) = pipes_of(Version::V4).await;
        if typed {
            exec.stdin.as_mut().unwrap().send(Bytes::from_static(b"read")).await.unwrap();
        }
        peer.say(fin(5)).await;
        let server = tokio::spawn(async move {
            let (reads, began) = (Duration::from_secs(3600), Instant::now());
            while let Ok(frame) = tokio::time::timeout_at(began + reads, peer.hear()).await {
                if let Some(Frame::Ping(id)) = frame {
                    peer.say(Frame::Ping(id)).await;
                }
            }
            peer.say(data(1, EXIT_3)).await;
            peer
        });
        assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(3));
        server.await.unwrap();
    }
}

/// After the status the socket is reset, or TLS ends without its close_notify. Nothing that had come is lost.
#[tokio::test(start_paused = true)]
async fn a_reset_behind_the_status_takes_nothing_that_had_come() {
    for kind in [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::UnexpectedEof] {
        for (ends, whole) in [(vec![fin(3), fin(5)], true), (vec![goaway(5)], true), (vec![fin(5)], false)] {
            let (near, far) = duplex(1 << 20);
            let (mux, _driver) = exec_client(EndsWith(near, kind), Version::V4);
            let mut peer = Peer::new(far);
            let (exec, ()) = tokio::join!(mux.exec(Streams::OUTPUT), answer(&mut peer, &[1, 3, 5]));
            let mut exec = exec.unwrap();
            let mut stdout = exec.stdout.take().unwrap();
            peer.say(data(3, "output")).await;
            peer.say(data(1, EXIT_3)).await;
            for end in ends {
                peer.say(end).await;
            }
            drop(peer);
            let waited = exec.wait().await;
            assert_eq!(stdout.data().await.unwrap().unwrap(), "output", "{kind:?}");
            let end = stdout.data().await;
            assert_eq!((end.is_none(), waited.is_ok()), (whole, whole), "{kind:?}: {end:?} {waited:?}");
            match waited {
                Ok(status) => assert_eq!(status, ExitStatus::Code(3)),
                Err(error) => {
                    assert!(matches!(error, Error::Incomplete { status: ExitStatus::Code(3), .. }), "{error}")
                }
            }
        }
    }
}

/// A hop delays the server's end, as Envoy does for a second, or for ever. A client that has everything ends first.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_the_status_and_the_ends_of_its_outputs_ends() {
    for goodbye in [false, true] {
        let (exec, mut peer, driver) = outputs(Version::V4).await;
        for frame in [data(3, "output"), fin(3), fin(5), data(1, EXIT_3), fin(1)] {
            peer.say(frame).await;
        }
        if goodbye {
            peer.say(goaway(5)).await;
        }
        let began = Instant::now();
        assert_eq!(exec.wait_with_output(100).await.unwrap().status, ExitStatus::Code(3));
        assert_eq!(peer.hear_all().await, [goaway(0)], "its goodbye and its end");
        assert_eq!(began.elapsed().as_secs(), 0);
        drop(peer);
        driver.await.unwrap().unwrap();
    }
}
