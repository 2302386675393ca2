//! Faults over WebSocket that a review found and that are fixed. Each test is named after the cause.

use std::time::Duration;

use futures_util::FutureExt;
use kubestream::exec::{Error, Streams};
use kubestream::mux::Headers;
use kubestream::mux::Multiplexer;
use kubestream::protocol::Subprotocol;
use kubestream::status::ExitStatus;
use kubestream::{ConnectionError, Initiator, StreamError};
use tokio::io::duplex;
use tokio::time::{sleep, timeout};

use support::io::EndsWith;
use support::websocket::{BINARY, CLOSE, PING, PONG, WebSocketPeer, frame};
use support::{DriverTask, exec_client, exec_server};

const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

fn connect(subprotocol: Subprotocol) -> (Multiplexer, WebSocketPeer, DriverTask) {
    let (near, far) = duplex(8 << 20);
    let (mux, driver) = exec_client(near, subprotocol);
    (mux, WebSocketPeer::server(far), driver)
}

/// A Close stands for several ends. With a batch of frames only the first was taken, and the others waited for a byte
/// that never came.
#[tokio::test(start_paused = true)]
async fn a_close_at_the_end_of_a_batch_of_frames_is_heard_whole() {
    for open in [false, true] {
        for count in (0..=4).chain(58..=70).chain(122..=134) {
            for (subprotocol, status) in [(Subprotocol::V1, ""), (Subprotocol::V5, SUCCESS)] {
                let (mux, mut peer, _driver) = connect(subprotocol);
                let exec = mux.exec(Streams::OUTPUT).await.unwrap();
                let mut flight = frame(0x80 | BINARY, b"\x01x", false).repeat(count);
                flight.extend(frame(0x80 | BINARY, &[b"\x03", status.as_bytes()].concat(), false));
                flight.extend(frame(0x80 | CLOSE, &1000u16.to_be_bytes(), false));
                peer.raw(&flight).await;
                let peer = open.then_some(peer);
                let output = timeout(Duration::from_secs(1), exec.wait_with_output(1000)).await;
                let output = output.unwrap_or_else(|_| panic!("{subprotocol}, {count}: it hangs"));
                let output = output.unwrap_or_else(|error| panic!("{subprotocol}, {count}: {error}"));
                assert!(output.status.success() && output.stdout.len() == count);
                drop(peer);
            }
        }
    }
}

/// Over WebSocket the streams exist before they are asked for, and the status may have come before too.
#[tokio::test(start_paused = true)]
async fn a_status_that_came_before_its_stream_was_asked_for_is_the_last_word_too() {
    let (mux, mut peer, _driver) = connect(Subprotocol::V5);
    peer.on(1, b"out").await;
    peer.on(3, SUCCESS.as_bytes()).await;
    sleep(Duration::from_millis(10)).await;
    let mut exec = mux.exec(Streams::PIPES).await.unwrap();
    let typed = exec.stdin.as_mut().unwrap().send("x".into()).await;
    assert!(matches!(typed, Err(StreamError::SessionEnded)), "{typed:?}");
    peer.say(PING, b"").await;
    sleep(Duration::from_secs(100)).await;
    assert!(peer.hear().now_or_never().is_none(), "nothing is written");
    drop(peer);
    let output = exec.wait_with_output(100).await.unwrap();
    assert_eq!((&output.stdout[..], output.status), (&b"out"[..], ExitStatus::Success));
}

#[tokio::test(start_paused = true)]
async fn a_close_of_another_code_behind_the_status_is_an_end() {
    for code in [&b""[..], b"\x03\xe9", b"\x03\xf3oh"] {
        let (mux, mut peer, _driver) = connect(Subprotocol::V5);
        let exec = mux.exec(Streams::OUTPUT).await.unwrap();
        peer.on(1, b"out").await;
        peer.on(3, SUCCESS.as_bytes()).await;
        peer.say(CLOSE, code).await;
        let output = exec.wait_with_output(100).await.unwrap();
        assert_eq!((&output.stdout[..], output.status), (&b"out"[..], ExitStatus::Success), "{code:02x?}");
    }
}

/// The status comes last. Whether an end or a reset follows makes no difference.
#[tokio::test(start_paused = true)]
async fn a_reset_behind_the_status_takes_nothing_that_had_come() {
    for kind in [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::UnexpectedEof] {
        let (near, far) = duplex(1 << 20);
        let (mux, _driver) = exec_client(EndsWith(near, kind), Subprotocol::V5);
        let mut peer = WebSocketPeer::server(far);
        let exec = mux.exec(Streams::OUTPUT).await.unwrap();
        peer.on(1, b"out").await;
        peer.on(3, SUCCESS.as_bytes()).await;
        drop(peer);
        let output = exec.wait_with_output(100).await.unwrap();
        assert_eq!((&output.stdout[..], output.status), (&b"out"[..], ExitStatus::Success), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_inside_a_message_is_no_end() {
    for subprotocol in [Subprotocol::V1, Subprotocol::V5] {
        let (mux, mut peer, _driver) = connect(subprotocol);
        let exec = mux.exec(Streams::OUTPUT).await.unwrap();
        peer.fragment(BINARY, false, b"\x01half of the out").await;
        peer.close(1000).await;
        let cut = exec.wait_with_output(100).await.unwrap_err();
        let lost = matches!(&cut, Error::Connection(ConnectionError::Lost))
            || matches!(&cut, Error::Stream { error: StreamError::Connection(ConnectionError::Lost), .. });
        assert!(lost, "{subprotocol}: {cut:?}");
    }
}

/// Before v4 silence means success.
#[tokio::test(start_paused = true)]
async fn a_handler_that_is_gone_without_a_word_is_no_success_in_any_version() {
    for subprotocol in [Subprotocol::Unnamed, Subprotocol::V1Base64, Subprotocol::V4, Subprotocol::V5] {
        let (near, far) = duplex(64 * 1024);
        let (client, _one) = exec_client(near, subprotocol);
        let (server, _two) = exec_server(far, subprotocol);
        let handler = tokio::spawn(async move {
            let mut process = server.accept_exec(Streams::OUTPUT).await.unwrap();
            drop(server);
            process.stdout.as_mut().unwrap().send("half".into()).await.unwrap();
            panic!("as handlers do");
        });
        let exec = client.exec(Streams::OUTPUT).await.unwrap();
        assert!(handler.await.unwrap_err().is_panic());
        let output = exec.wait_with_output(100).await.unwrap();
        assert!(output.status.code().is_none(), "{subprotocol}: {output:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_socket_on_the_status_has_had_it() {
    for orderly in [false, true] {
        let (near, far) = duplex(64 * 1024);
        let (mux, driver) = exec_server(near, Subprotocol::V5);
        let process = mux.accept_exec(Streams::OUTPUT).await.unwrap();
        let mut peer = WebSocketPeer::client(far);
        let client = tokio::spawn(async move {
            while let Some((opcode, payload)) = peer.hear().await {
                if opcode == BINARY && payload[0] == 3 {
                    break;
                }
            }
            if orderly {
                peer.close(1000).await;
            }
        });
        process.exit(ExitStatus::Success).await.unwrap();
        client.await.unwrap();
        let ended = driver.await.unwrap();
        assert!(ended.is_ok() || !orderly, "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_not_the_callers_fault() {
    let (near, far) = duplex(64 * 1024);
    let (mux, driver) = exec_server(near, Subprotocol::V5);
    let mut process = mux.accept_exec(Streams::OUTPUT).await.unwrap();
    let mut peer = WebSocketPeer::client(far);
    peer.close(1000).await;
    process.client_gone().await;
    let error = process.stdout.as_mut().unwrap().send("x".into()).await.unwrap_err();
    assert_eq!(error.initiator(), Initiator::Remote, "{error:?}");
    drop(peer);
    driver.await.unwrap().unwrap();
}

/// A session without outputs counted as one whose outputs had all ended, so a v1 session that the client itself had
/// closed was a success. (Fuzzing found this.)
#[tokio::test(start_paused = true)]
async fn a_session_without_outputs_that_was_closed_here_is_no_success() {
    let (mux, _peer, _driver) = connect(Subprotocol::V1);
    let want = Streams { stdin: true, ..Streams::default() };
    let mut exec = mux.exec(want).await.unwrap();
    assert!(mux.shutdown().now_or_never().is_none());
    let closed = exec.wait().await.unwrap_err();
    assert!(matches!(closed, Error::MissingStatus), "{closed:?}");
}

/// Streams were counted without telling them apart: one that was accepted and then reset counted twice.
#[tokio::test(start_paused = true)]
async fn the_greeting_waits_until_every_stream_is_settled() {
    let (near, far) = duplex(64 * 1024);
    let (mux, _driver) = exec_server(near, Subprotocol::V5);
    let mut peer = WebSocketPeer::client(far);
    let mut held = Vec::new();
    for number in 0..4 {
        let stream = mux.accept().await.unwrap().unwrap().reply();
        sleep(Duration::from_millis(1)).await;
        // The first two are accepted and then reset.
        if number > 1 {
            held.push(stream);
        }
        sleep(Duration::from_millis(1)).await;
        assert!(peer.hear().now_or_never().is_none());
    }
    held.push(mux.accept().await.unwrap().unwrap().reply());
    assert_eq!(peer.hear().await, Some((BINARY, vec![1])));
}

#[tokio::test(start_paused = true)]
async fn a_server_over_websocket_opens_no_streams() {
    let (near, _far) = duplex(64 * 1024);
    let (mux, _driver) = exec_server(near, Subprotocol::V5);
    let refused = mux.open(Headers::from_iter([("streamtype", "stdin")])).await;
    assert!(matches!(refused, Err(ConnectionError::NoChannel)));
}

/// A peer may answer only the last of several PINGs (RFC 6455 §5.5.3), as our own end does. A caller with an earlier
/// PING then waited for ever, for example because of a keepalive's PING.
#[tokio::test(start_paused = true)]
async fn a_pong_to_a_later_ping_answers_those_before_it() {
    let (mux, mut peer, _driver) = connect(Subprotocol::V5);
    let asked = [mux.clone(), mux.clone()].map(|mux| tokio::spawn(async move { mux.ping().await }));
    let (first, second) = (peer.hear().await.unwrap(), peer.hear().await.unwrap());
    assert_eq!((first.0, second.0), (PING, PING));
    assert_ne!(first.1, second.1);
    peer.say(PONG, &second.1).await;
    for asked in asked {
        timeout(Duration::from_secs(1), asked).await.expect("an answer").unwrap().unwrap();
    }
    // An answer to an earlier PING does not count for a later one.
    let asked = tokio::spawn(async move { mux.ping().await });
    peer.hear().await.unwrap();
    peer.say(PONG, &second.1).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!asked.is_finished());
}
