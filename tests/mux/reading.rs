//! Streams and their halves through the traits of tokio and futures.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use kubestream::mux::{Config, Multiplexer, Stream};
use kubestream::{Initiator, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use support::peer::{Peer, data, fin, reply, rst};
use support::{accept, client, named, pattern, read_to_fin, server};

/// One stream between two ends of this library: the opener's end, the acceptor's end, and the handles that keep them
/// alive.
async fn stream_pair() -> (Stream, Stream, [Multiplexer; 2]) {
    let (near, far) = duplex(16 * 1024);
    let (client, _one) = client(near, Config::default());
    let (server, _two) = server(far, Config::default());
    let mut ours = client.open(named("pair")).await.unwrap();
    let theirs = accept(&server).await;
    ours.answered().await.unwrap();
    (ours, theirs, [client, server])
}

#[tokio::test(start_paused = true)]
async fn each_direction_ends_by_itself() {
    let (mut ours, mut theirs, _held) = stream_pair().await;
    ours.write_all(b"question").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut question = String::new();
    theirs.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");

    let late = ours.write_all(b"more").await.unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(matches!(ours.send(Bytes::from_static(b"more")).await, Err(StreamError::Finished)));
    theirs.write_all(b"answer").await.unwrap();
    theirs.shutdown().await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut answer = String::new();
    ours.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_an_io_that_can_be_copied_both_ways() {
    let (mut ours, mut theirs, _held) = stream_pair().await;
    let (mut local, mut user) = duplex(3000);
    let (mut backend, mut service) = duplex(5000);
    let forward = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut local, &mut ours).await });
    let serve = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut theirs, &mut backend).await });
    let echo = tokio::spawn(async move {
        let mut all = Vec::new();
        service.read_to_end(&mut all).await.unwrap();
        service.write_all(&all).await.unwrap();
        service.shutdown().await.unwrap();
    });

    let sent = pattern(0, 1 << 20);
    user.write_all(&sent).await.unwrap();
    user.shutdown().await.unwrap();
    let mut back = Vec::new();
    user.read_to_end(&mut back).await.unwrap();
    assert!(back == sent);
    echo.await.unwrap();
    let counted = (1 << 20, 1 << 20);
    assert_eq!(forward.await.unwrap().unwrap(), counted);
    assert_eq!(serve.await.unwrap().unwrap(), counted);
}

#[tokio::test(start_paused = true)]
async fn bytes_read_one_at_a_time_and_in_pieces_between_are_all_there() {
    let (mut ours, mut theirs, _held) = stream_pair().await;
    let sent = pattern(0, 10_000);
    ours.send(sent.clone()).await.unwrap();
    ours.finish();
    let mut all = Vec::new();
    for _ in 0..700 {
        all.push(theirs.read_u8().await.unwrap());
    }
    // What a short read left comes first.
    all.extend_from_slice(&theirs.data().await.unwrap().unwrap());
    assert_eq!(theirs.read(&mut []).await.unwrap(), 0, "an empty buffer, and not the end");
    theirs.read_to_end(&mut all).await.unwrap();
    assert!(all == sent);
    assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0, "the end again");
}

#[tokio::test(start_paused = true)]
async fn halves_are_a_stream_and_a_sink_of_bytes() {
    let (ours, theirs, _held) = stream_pair().await;
    let (_, mut sink) = ours.split();
    let (stream, _send) = theirs.split();
    let pieces: Vec<Bytes> = (0..40).map(|seed| pattern(seed, 20_000)).collect();
    let sent: Vec<u8> = pieces.iter().flatten().copied().collect();
    let writer = tokio::spawn(async move {
        sink.send_all(&mut futures_util::stream::iter(pieces).map(Ok)).await.unwrap();
        SinkExt::<Bytes>::close(&mut sink).await.unwrap();
        sink
    });
    let all = stream.try_fold(Vec::new(), |mut all, data| async move {
        all.extend_from_slice(&data);
        Ok(all)
    });
    assert!(all.await.unwrap() == sent);
    let mut sink = writer.await.unwrap();
    assert!(matches!(sink.send(Bytes::from_static(b"late")).await, Err(StreamError::Finished)));
}

#[tokio::test(start_paused = true)]
async fn flush_waits_until_all_that_was_written_is_with_the_transport() {
    let (near, far) = duplex(4096);
    let (mux, _driver) = client(near, Config::default());
    let mut stream = mux.open(named("flushed")).await.unwrap();
    stream.send(pattern(0, 1 << 20)).await.unwrap();
    let flushing = tokio::spawn(async move {
        stream.flush().await.unwrap();
        stream
    });
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(!flushing.is_finished());
    let mut peer = Peer::new(far);
    let reader = tokio::spawn(async move { while peer.hear().await.is_some() {} });
    drop(flushing.await.unwrap());
    drop(mux);
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_told_apart_from_a_fin_after_all_bytes_before_it() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut finished = mux.open(named("finished")).await.unwrap();
    let mut reset = mux.open(named("reset")).await.unwrap();
    for id in [1, 3] {
        peer.hear_syn().await;
        peer.say(reply(id)).await;
        peer.say(data(id, pattern(0, 100_000))).await;
    }
    peer.say(fin(1)).await;
    peer.say(rst(3, kubestream::unstable::wire::spdy::RstStatus::INTERNAL_ERROR)).await;
    let (mut recv, _send) = {
        finished.answered().await.unwrap();
        finished.split()
    };
    assert!(read_to_fin(&mut recv).await == pattern(0, 100_000));

    let mut all = Vec::new();
    let error = loop {
        match reset.data().await.expect("not an end") {
            Ok(data) => all.extend_from_slice(&data),
            Err(error) => break error,
        }
    };
    assert!(all == pattern(0, 100_000));
    assert!(matches!(error, StreamError::Reset(kubestream::unstable::wire::spdy::RstStatus::INTERNAL_ERROR)));
    assert_eq!(error.initiator(), Initiator::Remote);
    let refused = reset.send(Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(StreamError::Reset(_))), "{refused:?}");
    let read = reset.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(read.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn urgent_streams_go_before_the_others() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = Multiplexer::client(kubestream::upgrade::Upgraded::from_io(near), Config::default());
    let mut bulk = mux.open(named("bulk")).await.unwrap();
    bulk.set_priority(7);
    let mut urgent = mux.open(named("urgent")).await.unwrap();
    bulk.send(pattern(0, 200_000)).await.unwrap();
    urgent.send(pattern(1, 100_000)).await.unwrap();
    bulk.finish();
    urgent.finish();
    tokio::spawn(driver);
    let mut peer = Peer::new(far);
    peer.hear_syn().await;
    peer.hear_syn().await;
    let mut order = Vec::new();
    while let Some(kubestream::unstable::wire::spdy::Frame::Data { id, fin, .. }) = peer.hear().await {
        order.push(id.get());
        if fin && id.get() == 1 {
            break;
        }
    }
    assert!(order.is_sorted_by(|first, next| first >= next), "{order:?}");
}
