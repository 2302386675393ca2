//! Payloads are not copied on their way.

use bytes::{BufMut, Bytes, BytesMut};
use kubestream::mux::Config;
use kubestream::mux::SpdyConfig;
use kubestream::unstable::wire::spdy::Codec;
use tokio::io::{AsyncWriteExt, duplex};
use tokio_util::codec::Encoder;

use support::io::Recorded;
use support::peer::{Peer, carried, fin, syn};
use support::{accept, client, named, pattern, server, until};

#[tokio::test(start_paused = true)]
async fn sent_bytes_reach_the_transport_where_they_are() {
    let (near, far) = duplex(1 << 20);
    let (near, pieces) = Recorded::new(near);
    let (mux, _driver) = client(near, Config::default());
    let mut stream = mux.open(named("out")).await.unwrap();
    let sent: Vec<Bytes> = (0..8).map(|seed| pattern(seed, 5000 + seed)).collect();
    for piece in &sent {
        stream.send(piece.clone()).await.unwrap();
    }
    drop(mux);
    stream.finish();
    drop(stream);
    let mut peer = Peer::new(far);
    let frames = peer.hear_all().await;
    assert!(carried(&frames, 1).0 == sent.concat());
    let pieces = pieces.lock().unwrap();
    for piece in &sent {
        assert!(pieces.contains(&(piece.as_ptr().addr(), piece.len())));
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_came_are_slices_of_a_few_read_buffers() {
    let (near, far) = duplex(1 << 20);
    let (client, _one) = client(near, Config::default());
    let (server, _two) = server(far, Config::default());
    let mut ours = client.open(named("in")).await.unwrap();
    let mut theirs = accept(&server).await;
    let sent = pattern(0, 4 << 20);
    let writer = tokio::spawn({
        let sent = sent.clone();
        async move {
            ours.send(sent).await.unwrap();
            ours.finish();
            ours
        }
    });
    let mut kept = Vec::new();
    while let Some(data) = theirs.data().await {
        kept.push(data.unwrap());
    }
    writer.await.unwrap();
    assert!(kept.concat() == sent);

    // Slices of one buffer are adjacent, with at most a frame's head between them.
    let starts_anew = |pair: &&[Bytes]| match pair {
        [before, after] => {
            let end = before.as_ptr().addr() + before.len();
            after.as_ptr().addr().checked_sub(end).is_none_or(|gap| gap > 8)
        }
        _ => false,
    };
    let buffers = kept.windows(2).filter(starts_anew).count() + 1;
    let fewest = (4 << 20) / (128 * 1024);
    assert!(buffers <= fewest * 2, "{buffers} buffers for {} pieces", kept.len());
    assert!(kept.len() > buffers * 2, "{} pieces in {buffers} buffers", kept.len());
}

#[tokio::test(start_paused = true)]
async fn a_frame_is_handed_on_before_it_is_whole() {
    const WHOLE: usize = 4 << 20;
    let (near, mut far) = duplex(64 * 1024);
    let (mux, _driver) = server(near, Config::default());
    let mut wire = BytesMut::new();
    Codec::new(SpdyConfig::default()).encode(syn(1, &[]), &mut wire).unwrap();
    wire.put_u32(1);
    wire.put_u32(0x0100_0000 | WHOLE as u32);
    far.write_all(&wire).await.unwrap();
    let mut stream = accept(&mux).await;

    let sent = pattern(0, WHOLE);
    let mut came = BytesMut::new();
    for part in sent.chunks(64 * 1024) {
        far.write_all(part).await.unwrap();
        let before = came.len() + part.len();
        while came.len() < before {
            came.extend_from_slice(&stream.data().await.unwrap().unwrap());
        }
        assert!(mux.stats().unread == 0);
    }
    assert!(came == sent);
    assert!(stream.data().await.is_none(), "FIN comes with the last piece");
}

#[tokio::test(start_paused = true)]
async fn a_few_kept_bytes_do_not_keep_the_buffer_they_came_in() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    for seed in 0..10 {
        peer.say(support::peer::data(1, pattern(seed, 100))).await;
        peer.say(support::peer::data(1, pattern(seed, 30_000))).await;
    }
    peer.say(fin(1)).await;
    let mut stream = accept(&mux).await;
    until(|| mux.stats().unread >= 300_000).await;
    let mut small = Vec::new();
    let mut large = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        if data.len() <= 100 { small.push(data) } else { large.push(data) }
    }
    for few in &small {
        let behind = few.as_ptr().addr() + few.len() + 8;
        assert!(large.iter().all(|many| many.as_ptr().addr() != behind), "copied out");
    }
    assert_eq!((small.len(), small.concat().len()), (10, 1000));
}
