//! What the peer sees when handles are dropped.

use bytes::Bytes;
use kubestream::mux::RstStatus;
use kubestream::mux::{Config, Multiplexer, Stream};
use kubestream::unstable::wire::spdy::Frame;
use tokio::io::duplex;

use support::peer::{Peer, carried, data, fin, goaway, reply, resets, rst};
use support::{DriverTask, client, named, pattern, until};

/// A client with one stream that the peer has accepted.
async fn opened() -> (Multiplexer, DriverTask, Stream, Peer) {
    let (near, far) = duplex(8 << 20);
    let (mux, driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut stream = mux.open(named("stream")).await.unwrap();
    peer.hear_syn().await;
    peer.say(reply(1)).await;
    stream.answered().await.unwrap();
    (mux, driver, stream, peer)
}

#[tokio::test(start_paused = true)]
async fn a_stream_dropped_early_is_reset_once() {
    let (mux, _driver, mut stream, mut peer) = opened().await;
    stream.send(Bytes::from_static(b"some")).await.unwrap();
    peer.say(data(1, "unread")).await;
    until(|| mux.stats().unread > 0).await;
    drop(stream);
    drop(mux);

    let frames = peer.hear_all().await;
    assert_eq!(resets(&frames), [(1, RstStatus::CANCEL)]);
    assert_eq!(frames.last(), Some(&goaway(0)));
    assert!(!carried(&frames, 1).1, "no FIN with it");
}

#[tokio::test(start_paused = true)]
async fn a_stream_dropped_after_the_peers_fin_is_reset_too() {
    let (mux, _driver, mut stream, mut peer) = opened().await;
    peer.say(fin(1)).await;
    assert!(stream.data().await.is_none());
    drop(stream);
    drop(mux);
    assert_eq!(peer.hear_all().await, [rst(1, RstStatus::CANCEL), goaway(0)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_the_peer_has_reset_is_not_reset_back() {
    let (mux, _driver, mut stream, mut peer) = opened().await;
    peer.say(rst(1, RstStatus::CANCEL)).await;
    stream.data().await.unwrap().unwrap_err();
    drop(stream);
    drop(mux);
    assert_eq!(peer.hear_all().await, [goaway(0)]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_goes_out_once_with_its_status() {
    let (mux, _driver, stream, mut peer) = opened().await;
    let (recv, send) = stream.split();
    send.reset(RstStatus::INTERNAL_ERROR);
    drop(recv);
    drop(mux);
    assert_eq!(peer.hear_all().await, [rst(1, RstStatus::INTERNAL_ERROR), goaway(0)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_before_finish_arrives_though_the_stream_is_dropped() {
    let (mux, _driver, mut stream, mut peer) = opened().await;
    let sent = pattern(1, 1 << 20);
    stream.send(sent.clone()).await.unwrap();
    stream.finish();
    drop(stream);
    drop(mux);

    let frames = peer.hear_all().await;
    assert_eq!(resets(&frames), []);
    let (arrived, ended) = carried(&frames, 1);
    assert!(arrived == sent && ended);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_send_half_is_a_fin_behind_what_is_queued() {
    let (mux, _driver, stream, mut peer) = opened().await;
    let (mut recv, mut send) = stream.split();
    let sent = pattern(2, 300_000);
    send.send(sent.clone()).await.unwrap();
    drop(send);
    let mut frames = Vec::new();
    while !carried(&frames, 1).1 {
        frames.push(peer.hear().await.unwrap());
    }
    assert!(carried(&frames, 1).0 == sent);

    peer.say(data(1, "the other half lives")).await;
    assert_eq!(recv.data().await.unwrap().unwrap(), "the other half lives");
    peer.say(fin(1)).await;
    assert!(recv.data().await.is_none());
    drop((recv, mux));
    assert_eq!(peer.hear_all().await, [goaway(0)]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_receive_half_discards_and_gives_its_budget_back() {
    let (mux, _driver, stream, mut peer) = opened().await;
    let (recv, mut send) = stream.split();
    for _ in 0..30 {
        peer.say(data(1, pattern(3, 30_000))).await;
    }
    // Pieces are cut where reads end, and a small piece is charged 256 bytes.
    until(|| mux.stats().unread >= 900_000).await;
    drop(recv);
    assert_eq!(mux.stats().unread, 0);

    for _ in 0..200 {
        peer.say(data(1, pattern(3, 30_000))).await;
    }
    let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
    rtt.unwrap();
    assert_eq!((mux.stats().unread, mux.stats().stalled_by), (0, None));
    send.send(Bytes::from_static(b"still writing")).await.unwrap();
    assert_eq!(peer.hear().await, Some(data(1, "still writing")), "and the peer is not told");
}

#[tokio::test(start_paused = true)]
async fn what_a_panic_cuts_short_does_not_look_like_an_end() {
    let (mux, _driver, stream, mut peer) = opened().await;
    let (recv, mut send) = stream.split();
    let task = tokio::spawn(async move {
        send.send(Bytes::from_static(b"half of")).await.unwrap();
        std::panic::resume_unwind(Box::new("the writer fails"));
    });
    assert!(task.await.unwrap_err().is_panic());
    drop((recv, mux));
    let frames = peer.hear_all().await;
    assert_eq!(resets(&frames), [(1, RstStatus::INTERNAL_ERROR)]);
    assert!(!carried(&frames, 1).1);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_connection_with_it_and_streams_are_handles() {
    let (mux, driver, mut stream, mut peer) = opened().await;
    drop(mux.clone());
    drop(mux);
    stream.send(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(peer.hear().await, Some(data(1, "still here")));

    let (recv, mut send) = stream.split();
    drop(recv);
    let tail = pattern(4, 700_000);
    send.send(tail.clone()).await.unwrap();
    drop(send);
    let frames = peer.hear_all().await;
    assert!(carried(&frames, 1) == (tail.to_vec(), true));
    assert_eq!(frames.last(), Some(&goaway(0)));
    drop(peer);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn closed_streams_leave_nothing_behind() {
    let (mux, _driver, stream, mut peer) = opened().await;
    drop(stream);
    assert_eq!(peer.hear().await, Some(rst(1, RstStatus::CANCEL)));
    for round in 0..2000 {
        let mut stream = mux.open(named("short")).await.unwrap();
        let (id, _) = peer.hear_syn().await;
        peer.say(reply(id)).await;
        if round % 2 == 0 {
            peer.say(fin(id)).await;
            stream.finish();
            assert_eq!(peer.hear().await, Some(fin(id)));
            assert!(stream.data().await.is_none());
        } else {
            peer.say(rst(id, RstStatus::CANCEL)).await;
            stream.data().await.unwrap().unwrap_err();
        }
    }
    let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
    rtt.unwrap();
    let stats = mux.stats();
    assert_eq!((stats.streams, stats.unread), (0, 0));
    peer.say(data(7, "late, for a stream that has ended")).await;
    peer.say(Frame::Ping(2)).await;
    assert_eq!(peer.hear().await, Some(Frame::Ping(2)), "what comes late is no error");
}
