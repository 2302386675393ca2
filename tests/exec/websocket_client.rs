//! The client over WebSocket, with servers played by the test that behave as Go's servers were recorded.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt};
use kubestream::exec::{Error, Exec, Streams};
use kubestream::mux::Headers;
use kubestream::mux::{Config, Multiplexer};
use kubestream::protocol::Subprotocol;
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::unstable::wire::channel::ChannelError;
use kubestream::unstable::wire::websocket::{Fault, WebSocketError};
use kubestream::upgrade::{Protocol, Upgraded};
use kubestream::{ConnectionError, Initiator, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex};
use tokio::time::{Instant, sleep};

use support::io::WriteBroken;
use support::websocket::{BINARY, CLOSE, PING, PONG, TEXT, WebSocketPeer, carried_on, frame};
use support::{DriverTask, exec_client, exec_server, pattern, until};

const EXIT_3: &str = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;
const NORMAL: u16 = 1000;

/// A session with a server played by the test that has sent its greeting.
async fn session(subprotocol: Subprotocol, want: Streams) -> (Exec, WebSocketPeer, Multiplexer, DriverTask) {
    let (near, far) = duplex(8 << 20);
    let (mux, driver) = exec_client(near, subprotocol);
    let mut peer = WebSocketPeer::server(far);
    peer.on(1, b"").await;
    let exec = mux.exec(want).await.unwrap();
    (exec, peer, mux, driver)
}

#[tokio::test(start_paused = true)]
async fn outputs_the_status_and_a_close_are_a_session() {
    for subprotocol in [Subprotocol::V4, Subprotocol::V5] {
        let (exec, mut peer, mux, driver) = session(subprotocol, Streams::OUTPUT).await;
        peer.on(1, b"out").await;
        peer.on(2, b"err").await;
        peer.on(1, b"put").await;
        peer.on(3, EXIT_3.as_bytes()).await;
        peer.close(NORMAL).await;
        let output = exec.wait_with_output(100).await.unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"output"[..], &b"err"[..]));
        assert_eq!(output.status, ExitStatus::Code(3));
        drop(mux);
        peer.into_io().shutdown().await.unwrap();
        driver.await.unwrap().unwrap();
    }
}

/// A server need not wait for the client to ask for streams, because over WebSocket no client asks (kubernetes#131189).
#[tokio::test(start_paused = true)]
async fn what_comes_in_one_piece_with_the_101_is_not_lost() {
    let (near, _far) = duplex(1024);
    let mut flight = frame(0x80 | BINARY, b"\x01early", false);
    flight.extend(frame(0x80 | BINARY, &[b"\x03", SUCCESS.as_bytes()].concat(), false));
    flight.extend(frame(0x80 | CLOSE, &NORMAL.to_be_bytes(), false));
    let upgraded = Upgraded::new(near, flight.into(), Some(Protocol::WebSocketExec(Subprotocol::V5)));
    let (mux, driver) = Multiplexer::client(upgraded, Config::exec());
    tokio::spawn(driver);
    sleep(Duration::from_secs(1)).await;
    let mut exec = mux.exec(Streams::OUTPUT).await.unwrap();
    let mut stdout = exec.stdout.take().unwrap();
    assert_eq!(stdout.data().await.unwrap().unwrap(), "early");
    assert!(stdout.data().await.is_none());
    assert!(exec.wait().await.unwrap().success());
}

#[tokio::test(start_paused = true)]
async fn only_v5_says_that_stdin_ends() {
    for (subprotocol, close) in [(Subprotocol::V5, true), (Subprotocol::V4, false), (Subprotocol::Unnamed, false)] {
        let (mut exec, mut peer, _mux, _driver) = session(subprotocol, Streams::PIPES).await;
        assert_eq!(exec.can_end_stdin(), close);
        let mut stdin = exec.stdin.take().unwrap();
        stdin.write_all(b"ls\n").await.unwrap();
        let ended = stdin.shutdown().await;
        assert_eq!(peer.hear().await, Some((BINARY, b"\x00ls\n".to_vec())));
        if close {
            ended.unwrap();
            assert_eq!(peer.hear().await, Some((BINARY, vec![255, 0])));
        } else {
            let error = ended.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let error = error.downcast::<StreamError>().unwrap();
            assert!(matches!(error, StreamError::NoHalfClose) && error.initiator() == Initiator::User);
            // Nothing has ended. The command can be told in other ways.
            stdin.write_all(b"exit\n").await.unwrap();
            assert_eq!(peer.hear().await, Some((BINARY, b"\x00exit\n".to_vec())));
        }
        sleep(Duration::from_secs(1)).await;
        assert!(peer.hear().now_or_never().is_none(), "and nothing else, and not twice");
        if subprotocol != Subprotocol::Unnamed {
            peer.on(3, SUCCESS.as_bytes()).await;
        }
        peer.close(NORMAL).await;
        assert!(exec.wait().await.unwrap().success());
        stdin.shutdown().await.expect("no peer is left to be told");
    }
}

/// A user who drops or finishes stdin does not ask whether the process is told.
#[tokio::test(start_paused = true)]
async fn a_stdin_that_is_finished_or_dropped_may_end_unheard() {
    for finish in [true, false] {
        let (mut exec, mut peer, _mux, _driver) = session(Subprotocol::V4, Streams::PIPES).await;
        let mut stdin = exec.stdin.take().unwrap();
        stdin.write_all(b"ls\n").await.unwrap();
        if finish {
            stdin.finish();
            stdin.shutdown().await.expect("the streams are those that were asked for");
            assert_eq!(stdin.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        drop(stdin);
        assert_eq!(peer.hear().await, Some((BINARY, b"\x00ls\n".to_vec())));
        peer.on(3, SUCCESS.as_bytes()).await;
        peer.close(NORMAL).await;
        assert!(exec.wait().await.unwrap().success());
    }
}

/// A copy in both directions shuts a side down when it has read the other's end. A user who can do without that says
/// so.
#[tokio::test(start_paused = true)]
async fn both_ways_are_copied_though_the_end_of_stdin_cannot_be_said() {
    for pretends in [true, false] {
        let (mut exec, mut peer, _mux, _driver) = session(Subprotocol::V4, Streams::PIPES).await;
        let (mut user, mut local) = duplex(100);
        let mut stdin = exec.stdin.take().unwrap();
        if pretends {
            stdin.pretend_half_close();
        }
        let mut remote = tokio::io::join(exec.stdout.take().unwrap(), stdin);
        let copying = tokio::spawn(async move { copy_bidirectional(&mut local, &mut remote).await });
        user.write_all(b"ls\n").await.unwrap();
        user.shutdown().await.unwrap();
        assert_eq!(peer.hear().await, Some((BINARY, b"\x00ls\n".to_vec())));
        if pretends {
            peer.on(1, b"web-0\n").await;
            peer.on(3, SUCCESS.as_bytes()).await;
            peer.close(NORMAL).await;
            assert_eq!(copying.await.unwrap().unwrap(), (3, 6));
            let mut shown = String::new();
            user.read_to_string(&mut shown).await.unwrap();
            assert_eq!(shown, "web-0\n");
            assert!(exec.wait().await.unwrap().success());
        } else {
            assert_eq!(copying.await.unwrap().unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}

/// The multiplexer's own streams do not report more than the protocol can express either.
#[tokio::test(start_paused = true)]
async fn a_stream_of_a_websocket_ends_only_where_that_can_be_said() {
    for (subprotocol, said) in [(Subprotocol::V5, true), (Subprotocol::V4, false)] {
        let (near, far) = duplex(1024);
        let ((client, _one), (server, _two)) = (exec_client(near, subprotocol), exec_server(far, subprotocol));
        let mut stdin = client.open(Headers::from_iter([("streamtype", "stdin")])).await.unwrap();
        assert_eq!(stdin.shutdown().await.is_ok(), said);
        let (_, mut stdin) = stdin.split();
        assert_eq!(SinkExt::<Bytes>::close(&mut stdin).await.is_ok(), said);
        // A server's outputs end with their session, which can be expressed.
        loop {
            let mut stream = server.accept().await.unwrap().unwrap().reply();
            stream.shutdown().await.unwrap();
            if stream.id() == 9 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn base64_goes_as_text_both_ways() {
    for subprotocol in [Subprotocol::V1Base64, Subprotocol::V4Base64] {
        let (mut exec, mut peer, _mux, _driver) = session(subprotocol, Streams::PIPES).await;
        exec.stdin.as_mut().unwrap().send("ls\n".into()).await.unwrap();
        assert_eq!(peer.hear().await, Some((TEXT, b"0bHMK".to_vec())));
        peer.say(TEXT, b"1").await;
        peer.say(TEXT, b"1aGVsbG8K").await;
        peer.say(TEXT, b"2b3V0").await;
        let status = if subprotocol == Subprotocol::V4Base64 { "3eyJzdGF0dXMiOiJTdWNjZXNzIn0=" } else { "3" };
        peer.say(TEXT, status.as_bytes()).await;
        peer.close(NORMAL).await;
        let output = exec.wait_with_output(100).await.unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"hello\n"[..], &b"out"[..]));
        assert!(output.status.success());
    }
}

#[tokio::test(start_paused = true)]
async fn the_older_subprotocols_carry_a_failure_as_text_and_success_as_nothing() {
    const FAILED: &str = "command terminated with non-zero exit code: exit status 7";
    for subprotocol in [Subprotocol::Unnamed, Subprotocol::V1, Subprotocol::V2, Subprotocol::V3] {
        let (mut exec, mut peer, ..) = session(subprotocol, Streams::OUTPUT).await;
        peer.on(3, FAILED.as_bytes()).await;
        peer.close(NORMAL).await;
        assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(7), "{subprotocol}");

        let (exec, mut peer, ..) = session(subprotocol, Streams::OUTPUT).await;
        peer.on(1, b"out").await;
        peer.close(NORMAL).await;
        let output = exec.wait_with_output(100).await.unwrap();
        assert_eq!((&output.stdout[..], output.status), (&b"out"[..], ExitStatus::Success), "{subprotocol}");

        // A lost connection does not mean success (kubernetes#124571).
        let (mut exec, peer, ..) = session(subprotocol, Streams::OUTPUT).await;
        drop(peer);
        let lost = exec.wait().await.unwrap_err();
        assert!(matches!(lost, Error::Connection(ConnectionError::Lost)), "{subprotocol}: {lost:?}");
    }
}

/// A client whose writes fail is silent too, but it does not know how the command ended.
#[tokio::test(start_paused = true)]
async fn a_close_with_an_error_is_one_though_nothing_can_be_written_any_more() {
    let (near, far) = duplex(64 * 1024);
    let (near, broken) = WriteBroken::new(near);
    let (mux, driver) = exec_client(near, Subprotocol::V1);
    let mut peer = WebSocketPeer::server(far);
    peer.on(1, b"").await;
    let mut exec = mux.exec(Streams::OUTPUT).await.unwrap();
    broken.store(true, Ordering::Relaxed);
    peer.say(PING, b"are you there?").await;
    sleep(Duration::from_secs(1)).await;
    peer.on(1, b"out").await;
    peer.say(CLOSE, b"\x03\xf3too bad").await;
    let closed = exec.wait().await.unwrap_err();
    assert_eq!(closed.to_string(), "the peer closed the connection with code 1011: \"too bad\"");
    assert!(matches!(driver.await.unwrap(), Err(ConnectionError::PeerClosed { code: Some(1011), .. })));
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_status_is_never_a_success() {
    for subprotocol in [Subprotocol::V4, Subprotocol::V4Base64, Subprotocol::V5] {
        let (mut exec, mut peer, ..) = session(subprotocol, Streams::OUTPUT).await;
        peer.close(NORMAL).await;
        let missing = exec.wait().await.unwrap_err();
        assert!(matches!(missing, Error::MissingStatus), "{subprotocol}: {missing:?}");

        let (mut exec, mut peer, ..) = session(subprotocol, Streams::OUTPUT).await;
        peer.say(CLOSE, b"\x03\xf3too bad").await;
        let closed = exec.wait().await.unwrap_err();
        assert_eq!(closed.to_string(), "the peer closed the connection with code 1011: \"too bad\"", "{subprotocol}");
        assert_eq!(closed.initiator(), Initiator::Remote);
        assert_eq!(peer.hear().await, Some((CLOSE, 1011u16.to_be_bytes().to_vec())), "a Close is answered");

        let (mut exec, mut peer, ..) = session(subprotocol, Streams::OUTPUT).await;
        peer.say(CLOSE, b"").await;
        let closed = exec.wait().await.unwrap_err();
        assert_eq!(closed.to_string(), "the peer closed the connection", "{subprotocol}");

        let (mut exec, peer, ..) = session(subprotocol, Streams::OUTPUT).await;
        drop(peer);
        let lost = exec.wait().await.unwrap_err();
        assert!(matches!(lost, Error::Connection(ConnectionError::Lost)), "{subprotocol}: {lost:?}");
    }
}

/// A PING, a reply or a key that reaches a Go server while it finishes can cost the tail of its output.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_once_the_status_has_come() {
    let (mut exec, mut peer, mux, driver) = session(Subprotocol::V5, Streams::TTY).await;
    let (mut stdin, mut resize) = (exec.stdin.take().unwrap(), exec.resize.take().unwrap());
    resize.resize(TerminalSize { width: 80, height: 24 }).await.unwrap();
    assert_eq!(peer.hear().await, Some((BINARY, b"\x04{\"Width\":80,\"Height\":24}\n".to_vec())));
    peer.on(3, SUCCESS.as_bytes()).await;
    until(|| stdin.send(Bytes::from_static(b"x")).now_or_never().is_some_and(|sent| sent.is_err())).await;
    assert!(matches!(stdin.send(Bytes::from_static(b"x")).await, Err(StreamError::SessionEnded)));
    let size = TerminalSize { width: 81, height: 24 };
    assert!(matches!(resize.resize(size).await, Err(StreamError::SessionEnded)));
    peer.say(PING, b"are you there?").await;
    sleep(Duration::from_secs(300)).await;
    // Only what was typed while the status was on its way.
    while let Some(Some((opcode, _))) = peer.hear().now_or_never() {
        assert_eq!(opcode, BINARY);
    }
    peer.on(1, b"the tail").await;
    peer.close(NORMAL).await;
    let mut tail = String::new();
    exec.stdout.take().unwrap().read_to_string(&mut tail).await.unwrap();
    assert_eq!(tail, "the tail");
    assert!(exec.wait().await.unwrap().success());
    drop((exec, stdin, resize, mux));
    assert_eq!(
        peer.hear_all().await,
        [(CLOSE, NORMAL.to_be_bytes().to_vec())],
        "the answer to the Close, when everything has come"
    );
    drop(peer);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_with_its_payload_and_of_many_the_last() {
    let (_exec, mut peer, ..) = session(Subprotocol::V5, Streams::OUTPUT).await;
    peer.say(PING, b"1").await;
    assert_eq!(peer.hear().await, Some((PONG, b"1".to_vec())));
    let flood: Vec<u8> = (0..10_000u32).flat_map(|at| frame(0x80 | PING, &at.to_be_bytes(), false)).collect();
    peer.raw(&flood).await;
    let mut answers = Vec::new();
    while answers.last() != Some(&9_999u32.to_be_bytes().to_vec()) {
        let (opcode, payload) = peer.hear().await.unwrap();
        assert_eq!(opcode, PONG);
        answers.push(payload);
    }
    assert!(answers.len() < 1_000, "{} answers to 10,000 that came at once", answers.len());
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_pinged_and_given_up_and_data_counts_as_a_sign_of_life() {
    let (mut exec, mut peer, ..) = session(Subprotocol::V5, Streams::OUTPUT).await;
    let began = Instant::now();
    for _ in 0..10 {
        sleep(Duration::from_secs(9)).await;
        peer.on(1, b"x").await;
    }
    assert!(peer.hear().now_or_never().is_none(), "no PING while data comes");
    sleep(Duration::from_secs(11)).await;
    let (opcode, payload) = peer.hear().await.unwrap();
    assert_eq!(opcode, PING);
    peer.say(PONG, &payload).await;
    // An unsolicited PONG is a sign of life too.
    for _ in 0..4 {
        sleep(Duration::from_secs(9)).await;
        peer.say(PONG, b"unasked").await;
    }
    assert!(peer.hear().now_or_never().is_none());
    let heard = Instant::now();
    let dead = exec.wait().await.unwrap_err();
    assert!(matches!(dead, Error::Connection(ConnectionError::KeepaliveTimeout(_))), "{dead:?}");
    assert_eq!(heard.elapsed().as_secs(), 60);
    assert!(began.elapsed().as_secs() > 180);
}

#[tokio::test(start_paused = true)]
async fn ping_measures_the_round_trip() {
    let (_exec, mut peer, mux, _driver) = session(Subprotocol::V4, Streams::OUTPUT).await;
    let pinged = tokio::spawn({
        let mux = mux.clone();
        async move { mux.ping().await }
    });
    let (opcode, payload) = peer.hear().await.unwrap();
    assert_eq!(opcode, PING);
    peer.say(PONG, b"no").await;
    peer.say(PONG, &payload).await;
    pinged.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fragmenting_server_is_understood() {
    let (exec, mut peer, ..) = session(Subprotocol::V5, Streams::OUTPUT).await;
    let (head, tail) = EXIT_3.as_bytes().split_at(20);
    peer.fragment(BINARY, false, b"").await;
    peer.fragment(0, false, b"\x01out").await;
    peer.say(PING, b"").await;
    peer.fragment(0, false, b"").await;
    peer.fragment(0, true, b"put").await;
    peer.fragment(BINARY, false, b"\x03").await;
    peer.fragment(0, false, head).await;
    peer.fragment(0, true, tail).await;
    peer.close(NORMAL).await;
    let output = exec.wait_with_output(100).await.unwrap();
    assert_eq!((&output.stdout[..], output.status), (&b"output"[..], ExitStatus::Code(3)));
}

#[tokio::test(start_paused = true)]
async fn channels_that_are_unknown_or_not_asked_for_are_passed_over() {
    let want = Streams { stderr: false, ..Streams::OUTPUT };
    let (exec, mut peer, mux, _driver) = session(Subprotocol::V5, want).await;
    peer.on(2, b"not asked for").await;
    peer.on(7, b"unknown").await;
    peer.on(0, b"not the server's").await;
    peer.on(255, b"\x01").await;
    peer.say(BINARY, b"").await;
    peer.on(1, b"out").await;
    peer.on(3, SUCCESS.as_bytes()).await;
    peer.close(NORMAL).await;
    assert_eq!(exec.wait_with_output(100).await.unwrap().stdout, "out");
    assert_eq!(mux.stats().unread, 0);
}

#[tokio::test(start_paused = true)]
async fn one_unread_output_stops_nothing_else_of_the_session_within_the_budget() {
    let (mut exec, mut peer, mux, _driver) = session(Subprotocol::V5, Streams::PIPES).await;
    let mut stdout = exec.stdout.take().unwrap();
    let mut stderr = exec.stderr.take().unwrap();
    // Exactly what fits into the stream's own share and the pool.
    for part in 0..34 {
        peer.on(1, &pattern(part, 32 * 1024)).await;
    }
    peer.on(2, b"err").await;
    assert_eq!(stderr.data().await.unwrap().unwrap(), "err");
    exec.stdin.as_mut().unwrap().send("in".into()).await.unwrap();
    assert_eq!(peer.hear().await, Some((BINARY, b"\x00in".to_vec())));
    peer.say(PING, b"x").await;
    assert_eq!(peer.hear().await, Some((PONG, b"x".to_vec())));
    assert_eq!(mux.stats().stalled_by, None);

    // One more message, and the socket waits for the reader.
    peer.on(1, &pattern(34, 32 * 1024)).await;
    until(|| mux.stats().stalled_by.is_some()).await;
    assert_eq!(mux.stats().stalled_by, Some(5), "stdout");
    peer.on(3, EXIT_3.as_bytes()).await;
    peer.close(NORMAL).await;
    let mut read = 0;
    let (status, ()) = tokio::join!(exec.wait(), async {
        while let Some(data) = stdout.data().await {
            read += data.unwrap().len();
        }
    });
    assert_eq!((status.unwrap(), read), (ExitStatus::Code(3), 35 * 32 * 1024));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_a_rule_is_told_which_and_given_up() {
    type Breaks = (&'static [u8], fn(&ConnectionError) -> bool, u16);
    fn fault(error: &ConnectionError, fault: Fault) -> bool {
        matches!(error, ConnectionError::Malformed(seen) if *seen == WebSocketError::Fault(fault))
    }
    let cases: [Breaks; 6] = [
        (b"\xc2\x01\x01", |error| fault(error, Fault::ReservedBits), 1002),
        (b"\x82\x81\0\0\0\0\x01", |error| fault(error, Fault::Masked), 1002),
        (b"\x80\x00", |error| fault(error, Fault::LoneContinuation), 1002),
        (b"\x81\x02\x01x", |error| fault(error, Fault::Text), 1003),
        (b"\x81\x02\x01\xff", |error| fault(error, Fault::NotUtf8), 1007),
        (
            b"\x82\x7f\0\0\0\0\x02\0\0\x01",
            |error| matches!(error, ConnectionError::Malformed(seen) if *seen == WebSocketError::MessageTooLarge { limit: 32 << 20 }),
            1009,
        ),
    ];
    for (wire, expected, code) in cases {
        let (mut exec, mut peer, ..) = session(Subprotocol::V5, Streams::OUTPUT).await;
        peer.on(1, b"before").await;
        peer.raw(wire).await;
        let (opcode, payload) = peer.hear().await.unwrap();
        assert_eq!((opcode, &payload[..2]), (CLOSE, &code.to_be_bytes()[..]), "{wire:02x?}");
        let mut stdout = exec.stdout.take().unwrap();
        assert_eq!(stdout.data().await.unwrap().unwrap(), "before", "what came before is still readable");
        let Some(Err(StreamError::Connection(error))) = stdout.data().await else { panic!("{wire:02x?}") };
        assert!(expected(&error) && error.initiator() == Initiator::Remote, "{error:?}");
        assert!(matches!(exec.wait().await, Err(Error::Connection(error)) if expected(&error)));
    }

    let (mut exec, mut peer, ..) = session(Subprotocol::V4Base64, Streams::OUTPUT).await;
    peer.say(TEXT, b"1no!").await;
    let not_base64 = exec.wait().await.unwrap_err();
    assert!(
        matches!(&not_base64, Error::Connection(ConnectionError::Malformed(seen)) if *seen == ChannelError::NotBase64),
        "{not_base64:?}"
    );
    assert!(matches!(peer.hear().await, Some((CLOSE, payload)) if payload[..2] == 1007u16.to_be_bytes()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_says_so_and_waits_for_the_answer() {
    let (exec, mut peer, mux, driver) = session(Subprotocol::V5, Streams::PIPES).await;
    drop((exec, mux));
    let frames = peer.hear_all().await;
    assert_eq!(frames.last(), Some(&(CLOSE, NORMAL.to_be_bytes().to_vec())));
    assert_eq!(carried_on(&frames, 255), [0], "a dropped stdin ends");
    drop(peer);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_the_channels_of_one_session() {
    let (_exec, _peer, mux, _driver) = session(Subprotocol::V5, Streams::OUTPUT).await;
    let again = mux.exec(Streams::OUTPUT).await.unwrap_err();
    assert!(matches!(again, Error::Connection(ConnectionError::NoChannel)), "{again:?}");
    assert_eq!(again.initiator(), Initiator::User);
}

#[tokio::test(start_paused = true)]
async fn ten_megabytes_of_stdin_are_in_messages_that_every_server_takes() {
    let (near, far) = duplex(64 * 1024);
    let (mux, _driver) = exec_client(near, Subprotocol::V5);
    let mut peer = WebSocketPeer::server(far);
    let mut exec = mux.exec(Streams { stdin: true, ..Streams::OUTPUT }).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    let sent = pattern(0, 10 << 20);
    let typing = tokio::spawn({
        let sent = sent.clone();
        async move { stdin.send(sent).await }
    });
    let mut heard = Vec::new();
    loop {
        let (opcode, payload) = peer.hear().await.unwrap();
        assert_eq!(opcode, BINARY);
        assert!(payload.len() <= 32 * 1024, "coder/websocket takes no more");
        match payload.split_first() {
            Some((0, data)) => heard.extend_from_slice(data),
            Some((255, [0])) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(heard == sent);
    typing.await.unwrap().unwrap();
}
