//! The size of a terminal.

use std::time::Duration;

use futures_util::FutureExt;
use kubestream::exec::{Exec, ExecServer, Streams};
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::unstable::wire::spdy::Frame;
use kubestream::upgrade::Version;
use kubestream::{Initiator, StreamError};
use tokio::io::duplex;
use tokio::time::sleep;

use support::peer::{Peer, data, fin, reply, syn};
use support::{exec_client, exec_server};

fn size(width: u16, height: u16) -> TerminalSize {
    TerminalSize { width, height }
}

async fn session() -> (Exec, ExecServer) {
    let (near, far) = duplex(16 * 1024);
    let (client, _one) = exec_client(near, Version::V4);
    let (server, _two) = exec_server(far, Version::V4);
    let (exec, process) = tokio::join!(client.exec(Streams::TTY), server.accept_exec(Streams::TTY));
    (exec.unwrap(), process.unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_latest_size_wins_and_the_end_is_the_end() {
    let (mut exec, mut process) = session().await;
    let mut resize = exec.resize.take().unwrap();
    let mut sizes = process.resize.take().unwrap();
    resize.resize(size(80, 24)).await.unwrap();
    assert_eq!(sizes.next().await, Some(size(80, 24)));
    for width in 1..=100 {
        resize.resize(size(width, 50)).await.unwrap();
    }
    drop(resize);
    sleep(Duration::from_secs(1)).await;
    let mut last = None;
    while let Some(size) = sizes.next().await {
        last = Some(size);
    }
    assert_eq!(last, Some(size(100, 50)));
}

/// A window was resized several times while the program was busy. The program sees only the current size, and then
/// waits.
#[tokio::test(start_paused = true)]
async fn a_program_that_looks_late_sees_the_size_that_is() {
    let (mut process, mut peer, _mux) = with_peer(64 * 1024).await;
    let mut sizes = process.resize.take().unwrap();
    for width in 1..=1000 {
        peer.say(data(7, size(width, 50).encode())).await;
    }
    peer.say(data(7, "{\"Width\":81,\"Height\":24}\n{\"Wid")).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sizes.next().await, Some(size(81, 24)));
    assert_eq!(sizes.next().now_or_never(), None);
    for crumb in ["th\":82,\"Height\":24}", "{\"Width\":83,\"Height\":24}{\"Width\":", "84}"] {
        peer.say(data(7, crumb)).await;
    }
    peer.say(fin(7)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sizes.next().await, Some(size(84, 0)));
    assert_eq!(sizes.next().await, None);
}

/// Anything that is not a size ends resizing, however the bytes are cut. The last size before it counts.
#[tokio::test(start_paused = true)]
async fn the_last_size_counts_before_what_is_none() {
    for pieces in [&["{\"Width\":1}{\"Width\":2}", "x"][..], &["{\"Width\":1}{\"Width\":2}x{\"Width\":3}"]] {
        let (mut process, mut peer, _mux) = with_peer(64 * 1024).await;
        let mut sizes = process.resize.take().unwrap();
        for piece in pieces {
            peer.say(data(7, *piece)).await;
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(sizes.next().await, Some(size(2, 0)), "{pieces:?}");
        assert_eq!(sizes.next().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn next_may_be_dropped_and_called_again() {
    let (mut exec, mut process) = session().await;
    let mut resize = exec.resize.take().unwrap();
    let mut sizes = process.resize.take().unwrap();
    for width in 1..50 {
        assert!(sizes.next().now_or_never().is_none());
        resize.resize(size(width, 1)).await.unwrap();
        let came = loop {
            match sizes.next().now_or_never() {
                Some(came) => break came,
                None => sleep(Duration::from_millis(1)).await,
            }
        };
        assert_eq!(came, Some(size(width, 1)));
    }
}

/// Our server on a terminal with a client played by the test: streams 1, 3, 5 and 7 (resize).
async fn with_peer(pipe: usize) -> (ExecServer, Peer, kubestream::mux::Multiplexer) {
    let (near, far) = duplex(pipe);
    let (server, _driver) = exec_server(near, Version::V4);
    let mut peer = Peer::new(far);
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")] {
        peer.say(syn(id, &[("streamtype", kind)])).await;
    }
    let process = server.accept_exec(Streams::TTY).await.unwrap();
    for id in [1, 3, 5, 7] {
        assert_eq!(peer.hear().await, Some(reply(id)));
    }
    (process, peer, server)
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_sizes_that_nobody_reads_is_bounded() {
    let (mut process, mut peer, mux) = with_peer(64 * 1024).await;
    let flood = tokio::spawn(async move {
        for at in 0..100_000u32 {
            peer.say(data(7, size((at % 500) as u16, 7).encode())).await;
        }
        peer.say(data(7, size(132, 43).encode())).await;
        peer.say(fin(7)).await;
        peer
    });
    for _ in 0..100 {
        sleep(Duration::from_millis(10)).await;
        let unread = mux.stats().unread;
        assert!(unread <= 1024 * 1024 + 2 * 64 * 1024 + 128 * 1024, "{unread} unread");
    }
    assert!(!flood.is_finished(), "it is slowed down");
    let mut sizes = process.resize.take().unwrap();
    let mut last = None;
    while let Some(size) = sizes.next().await {
        last = Some(size);
    }
    assert_eq!(last, Some(size(132, 43)));
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropped_sizes_hold_nothing_up() {
    let (mut process, mut peer, mux) = with_peer(64 * 1024).await;
    drop(process.resize.take());
    for at in 0..100_000u32 {
        peer.say(data(7, size((at % 500) as u16, 7).encode())).await;
    }
    peer.say(data(3, "typed")).await;
    assert_eq!(process.stdin.as_mut().unwrap().data().await.unwrap().unwrap(), "typed");
    assert_eq!(mux.stats().unread, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_size_ends_resizing_and_not_the_session() {
    for bad in ["[80,24]", r#"{"Width":-1,"Height":24}"#, r#"{"Width":65536,"Height":24}"#, "\u{1b}[8;24;80t"] {
        let (mut process, mut peer, _mux) = with_peer(64 * 1024).await;
        let mut sizes = process.resize.take().unwrap();
        peer.say(data(7, size(80, 24).encode())).await;
        assert_eq!(sizes.next().await, Some(size(80, 24)));
        peer.say(data(7, bad)).await;
        assert_eq!(sizes.next().await, None, "{bad}");
        assert_eq!(sizes.next().await, None);
        for _ in 0..2000 {
            peer.say(data(7, vec![b'x'; 1000])).await;
        }
        peer.say(data(3, "still typing")).await;
        assert_eq!(process.stdin.as_mut().unwrap().data().await.unwrap().unwrap(), "still typing");
        process.exit(ExitStatus::Success).await.unwrap();
        let said = peer.hear_all().await;
        assert!(
            said.iter().any(|frame| matches!(frame, Frame::Data { id, data, .. } if id.get() == 1 && !data.is_empty()))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn sizes_may_run_together_or_come_in_crumbs() {
    let (mut process, mut peer, _mux) = with_peer(64 * 1024).await;
    let mut sizes = process.resize.take().unwrap();
    peer.say(data(7, "{\"Width\":1,\"Height\":2}\n{\"Width\":3,\"Height\":4}\n{\"Wid")).await;
    assert_eq!(sizes.next().await, Some(size(3, 4)));
    for crumb in ["th\"", ":5,\"Hei", "ght\":6", "}"] {
        peer.say(data(7, crumb)).await;
    }
    assert_eq!(sizes.next().await, Some(size(5, 6)));
}

#[tokio::test(start_paused = true)]
async fn a_size_after_the_end_of_the_command_goes_nowhere() {
    let (mut exec, process) = session().await;
    let mut resize = exec.resize.take().unwrap();
    process.exit(ExitStatus::Success).await.unwrap();
    exec.wait().await.unwrap();
    let late = resize.resize(size(1, 1)).await.unwrap_err();
    assert!(matches!(late, StreamError::SessionEnded), "{late:?}");
    assert_eq!(late.initiator(), Initiator::Remote);
}
