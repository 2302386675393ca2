//! What a WebSocket peer may cost, counted by the allocator: rows 28 and 29 of the threats, and the budget of what nobody
//! reads.

#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used)]

#[path = "support/memory.rs"]
mod memory;
mod support;

use std::time::Duration;

use futures_util::FutureExt;
use kubestream::channel::Subprotocol;
use kubestream::exec::Streams;
use memory::{ALLOCATOR, grown, play, turn};
use stats_alloc::Region;
use support::websocket::{BINARY, PING, WebSocketPeer, frame};
use support::{exec_client, exec_server, until};
use tokio::io::duplex;
use tokio::time::sleep;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Row 28: a length is not believed before its bytes are there, and they are not kept together.
#[test]
fn a_message_that_never_comes_whole_costs_what_has_come_of_it() {
    let _turn = turn();
    const CONNECTIONS: usize = 100;
    // The longest there may be, on stdin and on a channel that nobody has.
    for channel in [0u8, 77] {
        let head = [0x82, 0xff, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0, channel];
        play(async {
            let mut ends = Vec::new();
            for _ in 0..CONNECTIONS {
                let (near, far) = duplex(4 * KIB);
                let (mux, driver) = exec_server(near, Subprotocol::V5);
                let process = mux.accept_exec(Streams::PIPES).await.unwrap();
                let mut peer = WebSocketPeer::client(far);
                peer.hear().await.unwrap();
                ends.push((peer, process, mux, driver));
            }
            let before = Region::new(ALLOCATOR);
            for (peer, ..) in &mut ends {
                peer.raw(&head).await;
                for _ in 0..100 {
                    peer.raw(b"x").await;
                    tokio::task::yield_now().await;
                }
            }
            sleep(Duration::from_millis(1)).await;
            let each = grown(&before) / CONNECTIONS;
            assert!(each < 16 * KIB, "{each} bytes for 115 of them on channel {channel}");
        });
    }
}

/// Row 29: one answer waits, however often it is asked for.
#[test]
fn a_peer_that_pings_and_does_not_read_costs_next_to_nothing() {
    let _turn = turn();
    play(async {
        let (near, far) = duplex(KIB);
        let (mux, _driver) = exec_server(near, Subprotocol::V5);
        let process = mux.accept_exec(Streams::PIPES).await.unwrap();
        let mut peer = WebSocketPeer::client(far);
        let before = Region::new(ALLOCATOR);
        let ping = frame(0x80 | PING, &[7; 125], true);
        let mut most = 0;
        for _ in 0..100_000 {
            // It is read as long as there is room for answers, and all the same when there is none.
            assert!(peer.try_raw(&ping).await);
            most = most.max(grown(&before));
        }
        assert!(most < 64 * KIB, "{most} bytes");
        assert!(process.client_gone().now_or_never().is_none());
    });
}

/// Messages of a byte, each of which is charged for what its bookkeeping costs.
#[test]
fn an_output_nobody_reads_costs_no_more_than_the_budget_and_a_few_buffers() {
    let _turn = turn();
    for size in [1, 100, 32 * KIB] {
        play(async {
            let (near, far) = duplex(256 * KIB);
            let (mux, _driver) = exec_client(near, Subprotocol::V5);
            let mut exec = mux.exec(Streams::OUTPUT).await.unwrap();
            let _unread = exec.stdout.take().unwrap();
            let mut peer = WebSocketPeer::server(far);
            let message = frame(0x80 | BINARY, &vec![1; size + 1], false);
            let flight: Vec<u8> = message.repeat(64 * KIB / message.len() + 1);
            let before = Region::new(ALLOCATOR);
            let flood = tokio::spawn(async move {
                for _ in 0..100 * MIB / flight.len() {
                    peer.raw(&flight).await;
                }
            });
            until(|| mux.stats().stalled_by == Some(5)).await;
            sleep(Duration::from_secs(5)).await;
            assert!(!flood.is_finished());
            let held = grown(&before);
            assert!(held < 3 * MIB, "{held} bytes for messages of {size}");
            flood.abort();
        });
    }
}
