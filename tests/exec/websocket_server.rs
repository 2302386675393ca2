//! The server over WebSocket, with clients played by the test: some behave as kubectl, Node's and Python's were
//! recorded, and others as none should.

use std::time::Duration;

use futures_util::FutureExt;
use kubestream::exec::{Error, ExecServer, Streams};
use kubestream::mux::{Config, Multiplexer};
use kubestream::protocol::Subprotocol;
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::unstable::wire::channel::ChannelError;
use kubestream::unstable::wire::websocket::{Fault, WebSocketError};
use kubestream::upgrade::{Protocol, Upgraded};
use kubestream::{ConnectionError, Initiator, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, timeout};

use support::websocket::{BINARY, CLOSE, PING, PONG, TEXT, WebSocketPeer, carried_on};
use support::{DriverTask, exec_server, pattern};

const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;
const NORMAL: [u8; 2] = 1000u16.to_be_bytes();

/// A session with a client played by the test that has read the server's greeting.
async fn session(subprotocol: Subprotocol, want: Streams) -> (ExecServer, WebSocketPeer, DriverTask) {
    let (near, far) = duplex(8 << 20);
    let (mux, driver) = exec_server(near, subprotocol);
    let mut peer = WebSocketPeer::client(far);
    let process = mux.accept_exec(want).await.unwrap();
    let (opcode, greeting) = peer.hear().await.unwrap();
    let first = if want.stdout {
        1
    } else if want.stderr {
        2
    } else {
        3
    };
    let expected = if subprotocol.is_base64() { (TEXT, vec![b'0' + first]) } else { (BINARY, vec![first]) };
    assert_eq!((opcode, greeting), expected, "an empty message on the lowest channel that is written");
    (process, peer, driver)
}

#[tokio::test(start_paused = true)]
async fn a_server_says_that_it_is_there_before_anything_else() {
    for subprotocol in [Subprotocol::V5, Subprotocol::V4Base64, Subprotocol::Unnamed] {
        for bits in 1..8 {
            let want = Streams { stdin: bits & 1 > 0, stdout: bits & 2 > 0, stderr: bits & 4 > 0, tty: false };
            let (mut process, mut peer, _driver) = session(subprotocol, want).await;
            if let Some(stdout) = &mut process.stdout {
                stdout.write_all(b"out").await.unwrap();
                let (_, out) = peer.hear().await.unwrap();
                assert_eq!(out, if subprotocol.is_base64() { b"1b3V0" } else { &b"\x01out"[..] });
            }
        }
    }
}

/// coder/websocket takes 32,768 bytes as a whole message, unless it is told otherwise.
#[tokio::test(start_paused = true)]
async fn no_message_is_longer_than_32_kib_with_its_channel_byte() {
    for subprotocol in [Subprotocol::V5, Subprotocol::V4, Subprotocol::V4Base64, Subprotocol::Unnamed] {
        let (mut process, mut peer, _driver) = session(subprotocol, Streams::OUTPUT).await;
        process.stdout.as_mut().unwrap().send(pattern(0, 200_000)).await.unwrap();
        process.exit(ExitStatus::Success).await.unwrap();
        let lengths: Vec<usize> = peer.hear_all().await.iter().map(|(_, payload)| payload.len()).collect();
        let longest = if subprotocol.is_base64() { 32 * 1024 - 3 } else { 32 * 1024 };
        assert_eq!(lengths.iter().max(), Some(&longest), "{subprotocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_is_one_message_behind_all_output_and_a_close_is_the_end() {
    let (mut process, mut peer, driver) = session(Subprotocol::V5, Streams::OUTPUT).await;
    let client = tokio::spawn(async move { (peer.hear_all().await, peer) });
    process.stdout.as_mut().unwrap().send(pattern(0, 3 << 20)).await.unwrap();
    process.stderr.as_mut().unwrap().send("err".into()).await.unwrap();
    process.exit(ExitStatus::Success).await.unwrap();
    let (frames, peer) = client.await.unwrap();
    assert!(carried_on(&frames, 1) == pattern(0, 3 << 20) && carried_on(&frames, 2) == b"err");
    let [.., status, close] = &frames[..] else { panic!("{} frames", frames.len()) };
    assert_eq!(*status, (BINARY, [b"\x03", SUCCESS.as_bytes()].concat()));
    assert_eq!(*close, (CLOSE, NORMAL.to_vec()));
    assert!(frames.iter().all(|(_, payload)| payload.first() != Some(&255) && !payload.is_empty()), "no CLOSE of v5's");
    drop(peer);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn stdin_comes_as_bytes_or_as_text_and_ends_with_v5s_close() {
    let (mut process, mut peer, _driver) = session(Subprotocol::V5, Streams::PIPES).await;
    let mut stdin = process.stdin.take().unwrap();
    peer.on(0, b"by").await;
    peer.say(BINARY, b"\x00").await;
    // Python's client sends strings as text.
    peer.say(TEXT, "\0te \u{20ac}".as_bytes()).await;
    // A client can neither end nor write the outputs.
    for channel in [1, 2, 3] {
        peer.say(BINARY, &[255, channel]).await;
        peer.on(channel, b"x").await;
    }
    peer.on(9, b"x").await;
    peer.say(BINARY, &[255, 0]).await;
    let mut all = String::new();
    stdin.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "byte \u{20ac}");
    // Once more, with further bytes: these are ignored (row 35).
    peer.say(BINARY, &[255, 0]).await;
    peer.on(0, b"late").await;
    peer.say(PING, b"still there").await;
    assert_eq!(peer.hear().await, Some((PONG, b"still there".to_vec())));
    assert!(process.client_gone().now_or_never().is_none());
}

/// client-go sends CLOSE in every version. Only v5 knows it.
#[tokio::test(start_paused = true)]
async fn before_v5_a_close_is_a_message_of_no_channel() {
    for subprotocol in [Subprotocol::V4, Subprotocol::V1, Subprotocol::Unnamed] {
        let (mut process, mut peer, _driver) = session(subprotocol, Streams::PIPES).await;
        let mut stdin = process.stdin.take().unwrap();
        peer.on(0, b"a").await;
        peer.say(BINARY, &[255, 0]).await;
        peer.on(0, b"b").await;
        let mut read = [0; 2];
        stdin.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ab");
    }
}

#[tokio::test(start_paused = true)]
async fn sizes_come_in_every_clients_spelling() {
    let (mut process, mut peer, _driver) = session(Subprotocol::V5, Streams::TTY).await;
    let mut sizes = process.resize.take().unwrap();
    for (opcode, json, width, height) in [
        (BINARY, "{\"Width\":80,\"Height\":24}\n", 80, 24),
        (BINARY, "{\"height\":50,\"width\":132}", 132, 50),
        (TEXT, "{\"Height\": 25, \"Width\": 81}", 81, 25),
    ] {
        peer.say(opcode, &[b"\x04", json.as_bytes()].concat()).await;
        assert_eq!(sizes.next().await, Some(TerminalSize { width, height }));
    }
}

/// Rows 26 to 30, 35 and 36: the server's answer, and what its handler sees.
#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_a_rule_is_told_which_and_given_up() {
    type Breaks = (Subprotocol, &'static [u8], fn(&ConnectionError) -> bool, u16);
    fn fault(error: &ConnectionError, fault: Fault) -> bool {
        matches!(error, ConnectionError::Malformed(seen) if *seen == WebSocketError::Fault(fault))
    }
    const V5: Subprotocol = Subprotocol::V5;
    let cases: [Breaks; 11] = [
        (V5, b"\x82\x02\x00x", |error| fault(error, Fault::Unmasked), 1002),
        (V5, b"\xb2\x82\0\0\0\0\x00x", |error| fault(error, Fault::ReservedBits), 1002),
        (V5, b"\x83\x80\0\0\0\0", |error| fault(error, Fault::ReservedOpcode), 1002),
        (V5, b"\x09\x80\0\0\0\0", |error| fault(error, Fault::FragmentedControl), 1002),
        (V5, b"\x82\xfe\x00\x02\0\0\0\0\x00x", |error| fault(error, Fault::LongLength), 1002),
        (V5, b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", |error| fault(error, Fault::HugeLength), 1002),
        (V5, b"\x81\x82\0\0\0\0\x00\xff", |error| fault(error, Fault::NotUtf8), 1007),
        (
            V5,
            b"\x82\xff\0\0\0\0\x02\0\0\x01\0\0\0\0",
            |error| matches!(error, ConnectionError::Malformed(seen) if *seen == WebSocketError::MessageTooLarge { limit: 32 << 20 }),
            1009,
        ),
        (
            V5,
            b"\x82\x83\0\0\0\0\xff\x00\x00",
            |error| matches!(error, ConnectionError::Malformed(seen) if *seen == ChannelError::CloseLength),
            1002,
        ),
        (
            V5,
            b"\x82\x82\0\0\0\0\xff\x09",
            |error| matches!(error, ConnectionError::Malformed(seen) if *seen == ChannelError::CloseUnknown(9)),
            1002,
        ),
        (
            Subprotocol::V4Base64,
            b"\x81\x83\0\0\0\0\x30b@",
            |error| matches!(error, ConnectionError::Malformed(seen) if *seen == ChannelError::NotBase64),
            1007,
        ),
    ];
    for (subprotocol, wire, expected, code) in cases {
        let (mut process, mut peer, driver) = session(subprotocol, Streams::PIPES).await;
        peer.raw(wire).await;
        timeout(Duration::from_secs(1), process.client_gone()).await.expect("told at once");
        let frames = peer.hear_all().await;
        let [(CLOSE, payload)] = &frames[..] else { panic!("{frames:02x?}") };
        assert_eq!(payload[..2], code.to_be_bytes(), "{wire:02x?}");
        let read = process.stdin.as_mut().unwrap().data().await;
        assert!(matches!(read, Some(Err(StreamError::Connection(error))) if expected(&error)), "{wire:02x?}");
        let exit = process.exit(ExitStatus::Success).await.unwrap_err();
        assert_eq!(exit.initiator(), Initiator::Remote);
        assert!(matches!(exit, Error::Connection(error) if expected(&error)), "{wire:02x?}");
        drop(peer);
        assert!(expected(&driver.await.unwrap().unwrap_err()));
    }
}

/// Row 29: a lower limit.
#[tokio::test(start_paused = true)]
async fn messages_have_the_limits_that_are_set() {
    let session = || async {
        let (near, far) = duplex(1 << 20);
        let upgraded = Upgraded::new(near, Default::default(), Some(Protocol::WebSocketExec(Subprotocol::V5)));
        let mut config = Config::exec();
        (config.websocket.max_message, config.websocket.max_fragments) = (1000, 3);
        let (mux, driver) = Multiplexer::server(upgraded, config);
        tokio::spawn(driver);
        let process = mux.accept_exec(Streams::PIPES).await.unwrap();
        let mut peer = WebSocketPeer::client(far);
        peer.hear().await.unwrap();
        (process, peer)
    };
    let (_process, mut peer) = session().await;
    peer.on(0, &[0; 999]).await;
    peer.on(0, &[0; 1000]).await;
    assert!(matches!(peer.hear().await, Some((CLOSE, payload)) if payload[..2] == 1009u16.to_be_bytes()));
    let (_process, mut peer) = session().await;
    peer.fragment(BINARY, false, b"\0").await;
    for _ in 0..3 {
        peer.fragment(0, false, b"").await;
    }
    assert!(matches!(peer.hear().await, Some((CLOSE, payload)) if payload[..2] == 1008u16.to_be_bytes()));
}

/// Row 31: with a code, without one, and with a code that does not mean an orderly end.
#[tokio::test(start_paused = true)]
async fn a_clients_close_is_answered_and_the_process_told_at_once() {
    for (said, answered) in
        [(&NORMAL[..], Some(1000u16)), (b"", Some(1000)), (b"\x03\xe9going", Some(1001)), (b"\x0f\xa0", Some(4000))]
    {
        let (mut process, mut peer, driver) = session(Subprotocol::V5, Streams::PIPES).await;
        peer.on(0, b"before").await;
        peer.say(CLOSE, said).await;
        timeout(Duration::from_secs(1), process.client_gone()).await.expect("it is told at once");
        let frames = peer.hear_all().await;
        let [(CLOSE, payload)] = &frames[..] else { panic!("{frames:02x?}") };
        assert_eq!(payload.first_chunk().map(|code| u16::from_be_bytes(*code)), answered);
        let mut stdin = process.stdin.take().unwrap();
        assert_eq!(stdin.data().await.unwrap().unwrap(), "before");
        let end = stdin.data().await;
        assert_eq!(end.is_none(), answered != Some(4000), "a goodbye ends stdin, a failure does not: {end:?}");
        drop(peer);
        // The client has only left, whatever the Close says. The session itself tells the difference.
        let _ = driver.await.unwrap();
    }
}

/// client-node closes as soon as it has the status, without a code.
#[tokio::test(start_paused = true)]
async fn a_close_that_crosses_ours_is_no_error() {
    let (process, mut peer, driver) = session(Subprotocol::V5, Streams::PIPES).await;
    let client = tokio::spawn(async move {
        loop {
            let (opcode, payload) = peer.hear().await.unwrap();
            if opcode == BINARY && payload[0] == 3 {
                peer.say(CLOSE, b"").await;
                return (peer.hear_all().await, peer);
            }
        }
    });
    process.exit(ExitStatus::Success).await.unwrap();
    let (frames, peer) = client.await.unwrap();
    assert_eq!(frames, [(CLOSE, NORMAL.to_vec())]);
    drop(peer);
    driver.await.unwrap().unwrap();
}

/// Row 31: a peer that does not answer our Close is waited for up to [`Config::linger`].
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_the_close_is_given_up() {
    let (process, mut peer, driver) = session(Subprotocol::V5, Streams::PIPES).await;
    process.exit(ExitStatus::Success).await.unwrap();
    let began = Instant::now();
    assert_eq!(peer.hear_all().await.last(), Some(&(CLOSE, NORMAL.to_vec())));
    driver.await.unwrap().unwrap();
    assert_eq!(began.elapsed().as_secs(), Config::default().linger.as_secs());
    drop(peer);
}

/// The tail: if a server closes with unread bytes, its socket is reset and its output is lost.
#[tokio::test(start_paused = true)]
async fn a_client_that_pings_and_types_without_pause_gets_all_of_the_output() {
    let (near, far) = duplex(64 * 1024);
    let (mux, driver) = exec_server(near, Subprotocol::V5);
    let (reads, writes) = tokio::io::split(far);
    let (heard_all, mut is_over) = tokio::sync::watch::channel(false);
    let noise = tokio::spawn(async move {
        let mut peer = WebSocketPeer::client(tokio::io::join(tokio::io::empty(), writes));
        let mut said = 0;
        while !*is_over.borrow_and_update() {
            peer.say(PING, b"ping").await;
            peer.say(BINARY, &[0; 4096]).await;
            said += 1;
            tokio::task::yield_now().await;
        }
        said
    });
    let listener = tokio::spawn(async move {
        let mut peer = WebSocketPeer::client(tokio::io::join(reads, tokio::io::sink()));
        let frames = peer.hear_to_close().await;
        heard_all.send(true).unwrap();
        frames
    });
    let mut process = mux.accept_exec(Streams::PIPES).await.unwrap();
    let output = pattern(0, 3 << 20);
    for part in 0..96 {
        process.stdout.as_mut().unwrap().send(output.slice(part << 15..(part + 1) << 15)).await.unwrap();
        tokio::task::yield_now().await;
    }
    // stdin stays unread.
    process.exit(ExitStatus::Code(7)).await.unwrap();
    drop(mux);
    let frames = listener.await.unwrap();
    assert!(carried_on(&frames, 1) == output);
    assert!(String::from_utf8(carried_on(&frames, 3)).unwrap().contains("exit status 7"));
    assert_eq!(frames.last(), Some(&(CLOSE, NORMAL.to_vec())));
    driver.await.unwrap().unwrap();
    assert!(noise.await.unwrap() > 10, "it did not stop before");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_holds_no_memory_and_ends_no_session() {
    let (mut process, mut peer, _driver) = session(Subprotocol::V5, Streams::PIPES).await;
    let flood = tokio::spawn(async move {
        for _ in 0..100_000 {
            peer.say(PING, &[7; 125]).await;
        }
        peer.on(0, b"after").await;
        peer
    });
    assert_eq!(process.stdin.as_mut().unwrap().data().await.unwrap().unwrap(), "after");
    flood.await.unwrap();
}

/// Row 28.
#[tokio::test(start_paused = true)]
async fn a_message_of_any_length_is_handed_on_as_it_comes() {
    let (near, far) = duplex(16 * 1024);
    let (mux, _driver) = exec_server(near, Subprotocol::V5);
    let process = mux.accept_exec(Streams::PIPES).await.unwrap();
    let mut peer = WebSocketPeer::client(far);
    peer.hear().await.unwrap();
    // Python sends all that it is given in one frame.
    let sent = pattern(0, 10 << 20);
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            peer.on(0, &sent).await;
            peer.say(BINARY, &[255, 0]).await;
            peer
        }
    });
    let mut stdin = process.stdin;
    let (mut read, mut most, mut largest) = (Vec::new(), 0, 0);
    while let Some(data) = stdin.as_mut().unwrap().data().await {
        let data = data.unwrap();
        largest = largest.max(data.len());
        read.extend_from_slice(&data);
        most = most.max(mux.stats().unread);
    }
    assert!(read == sent);
    assert!(largest < 1 << 20, "{largest} bytes of a message were buffered together");
    assert!(most < 1 << 20, "{most} bytes waited unread");
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_kept_until_it_is_idle() {
    // Some clients read, and so answer, only when their program wants something of the command.
    let (mut process, mut peer, _driver) = session(Subprotocol::V5, Streams::PIPES).await;
    let idle = Config::default().idle_timeout.unwrap();
    tokio::time::sleep(idle - Duration::from_secs(60)).await;
    peer.on(0, b"back").await;
    assert_eq!(process.stdin.as_mut().unwrap().data().await.unwrap().unwrap(), "back");
    let began = Instant::now();
    process.client_gone().await;
    assert_eq!(began.elapsed(), idle);
    let mut pings = 0;
    while let Some((opcode, _)) = peer.hear().await {
        pings += usize::from(opcode == PING);
    }
    assert!(pings > 2000, "{pings}: PINGs keep the middleboxes open all the same");
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_with_going_away() {
    let (near, far) = duplex(1 << 20);
    let upgraded = Upgraded::new(near, Default::default(), Some(Protocol::WebSocketExec(Subprotocol::V5)));
    let mut config = Config::exec();
    (config.keepalive_interval, config.idle_timeout) = (None, Some(Duration::from_secs(600)));
    let (mux, driver) = Multiplexer::server(upgraded, config);
    tokio::spawn(driver);
    let process = mux.accept_exec(Streams::OUTPUT).await.unwrap();
    let mut peer = WebSocketPeer::client(far);
    peer.hear().await.unwrap();
    let began = Instant::now();
    process.client_gone().await;
    assert_eq!(began.elapsed().as_secs(), 600);
    assert!(matches!(peer.hear().await, Some((CLOSE, payload)) if payload[..2] == 1001u16.to_be_bytes()));
}

/// Before v5 a client ends stdin by closing. What it has sent reaches the process before the process is hung up.
#[tokio::test(start_paused = true)]
async fn stdin_is_read_to_its_end_before_the_client_is_gone() {
    for subprotocol in [Subprotocol::Unnamed, Subprotocol::V4, Subprotocol::V5] {
        let (mut process, mut peer, _driver) = session(subprotocol, Streams::PIPES).await;
        let mut stdin = process.stdin.take().unwrap();
        let sent = pattern(4, 400_000);
        for part in sent.chunks(30_000) {
            peer.on(0, part).await;
        }
        peer.close(1000).await;
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Some(data) = stdin.data().await {
                read.extend_from_slice(&data.unwrap());
                // Slowly: in all for longer than the linger, but never silent for so long.
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            read
        });
        process.client_gone().await;
        tokio::task::yield_now().await;
        assert!(reading.await.unwrap() == sent, "{subprotocol}");

        // A process that takes nothing is waited for up to the linger.
        let (mut process, mut peer, _driver) = session(subprotocol, Streams::PIPES).await;
        let _stdin = process.stdin.take().unwrap();
        peer.on(0, b"unread").await;
        peer.close(1000).await;
        let closed = Instant::now();
        process.client_gone().await;
        assert_eq!(closed.elapsed(), Config::default().linger);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_leaves_the_end_to_its_client_and_ends_on_its_close() {
    let (process, mut peer, driver) = session(Subprotocol::V5, Streams::PIPES).await;
    process.exit(ExitStatus::Code(7)).await.unwrap();
    peer.hear_to_close().await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        peer.on(0, b"typed").await;
        assert!(peer.hear().now_or_never().is_none() && !driver.is_finished());
    }
    let left = Instant::now();
    peer.close(1000).await;
    assert_eq!(
        (peer.hear().await, left.elapsed().as_secs()),
        (None, 0),
        "an end that answers the Close waits for the other's end"
    );
    drop(peer);
    driver.await.unwrap().unwrap();
}
