//! Opening, accepting and refusing streams.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use kubestream::mux::SpdyConfig;
use kubestream::mux::{Config, Multiplexer};
use kubestream::mux::{Headers, RstStatus};
use kubestream::unstable::wire::spdy::{Codec, Frame, SettingId, Settings};
use kubestream::upgrade::Upgraded;
use kubestream::{ConnectionError, StreamError};
use tokio::io::{AsyncReadExt, duplex};
use tokio_util::codec::Decoder;

use support::peer::{Peer, fin, goaway, reply, rst, syn};
use support::{accept, client, config, named, server, until};

#[tokio::test(start_paused = true)]
async fn streams_opened_together_leave_together_and_wait_for_no_reply() {
    let (near, mut far) = duplex(1 << 20);
    let (mux, driver) = Multiplexer::client(Upgraded::from_io(near), Config::default());
    let mut streams = Vec::new();
    for name in ["error", "stdin", "stdout"] {
        streams.push(mux.open(named(name)).await.unwrap());
    }
    streams[1].send(Bytes::from_static(b"early")).await.unwrap();
    tokio::spawn(driver);

    let mut first = BytesMut::with_capacity(1 << 16);
    far.read_buf(&mut first).await.unwrap();
    let mut codec = Codec::new(SpdyConfig::default());
    let mut names = Vec::new();
    let mut early = Bytes::new();
    while let Some(frame) = codec.decode(&mut first).unwrap() {
        match frame {
            Frame::SynStream { id, headers, .. } => names.push((id.get(), headers.get("name").unwrap().to_owned())),
            Frame::Data { id, data, .. } if id.get() == 3 => early = data,
            Frame::Settings(_) => assert!(names.is_empty(), "SETTINGS come first"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(names, [(1, "error".into()), (3, "stdin".into()), (5, "stdout".into())]);
    assert_eq!(&early[..], b"early");
}

#[tokio::test(start_paused = true)]
async fn a_server_says_nothing_before_the_clients_first_frame() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    tokio::time::sleep(std::time::Duration::from_secs(9)).await;
    assert_eq!(mux.stats().sent, 0);

    peer.say(Frame::Ping(1)).await;
    assert_eq!(peer.hear().await, Some(Frame::Ping(1)));
}

#[tokio::test(start_paused = true)]
async fn open_waits_where_the_peers_limit_of_streams_is_reached() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(Frame::Settings(Settings::single(SettingId::MAX_CONCURRENT_STREAMS, 1))).await;
    let (rtt, ()) = tokio::join!(mux.ping(), peer.echo());
    rtt.unwrap();

    let mut first = mux.open(named("first")).await.unwrap();
    assert!(mux.open(named("dropped")).now_or_never().is_none());
    let second = tokio::spawn({
        let mux = mux.clone();
        async move { mux.open(named("second")).await.unwrap() }
    });
    assert_eq!(peer.hear_syn().await, (1, named("first")));

    first.finish();
    assert_eq!(peer.hear().await, Some(fin(1)));
    assert!(!second.is_finished(), "half a stream is still one");
    peer.say(reply(1)).await;
    peer.say(fin(1)).await;
    assert_eq!(second.await.unwrap().id(), 3, "the open that was dropped took no id");
    assert_eq!(peer.hear_syn().await, (3, named("second")));

    let third = tokio::spawn({
        let mux = mux.clone();
        async move { mux.open(named("third")).await.unwrap() }
    });
    peer.say(Frame::Settings(Settings::single(SettingId::MAX_CONCURRENT_STREAMS, 2))).await;
    assert_eq!(third.await.unwrap().id(), 5, "the limit was raised");
}

#[tokio::test(start_paused = true)]
async fn the_opener_learns_what_the_acceptor_made_of_a_stream() {
    let (near, far) = duplex(1 << 20);
    let (client, _one) = client(near, Config::default());
    let (server, _two) = server(far, Config::default());
    let mut streams = Vec::new();
    for name in ["reply", "reply_with", "refuse", "reject", "drop", "unfit"] {
        streams.push((name, client.open(named(name)).await.unwrap()));
    }

    let mut taken = Vec::new();
    for _ in 0..streams.len() {
        let incoming = server.accept().await.unwrap().unwrap();
        match incoming.headers().get("name").unwrap() {
            "reply" => taken.push(incoming.reply()),
            "reply_with" => taken.push(incoming.reply_with(Headers::from_iter([("port", "80")])).unwrap()),
            "refuse" => incoming.refuse(),
            "reject" => incoming.reject(RstStatus::CANCEL),
            "drop" => drop(incoming),
            _ => {
                let unfit = incoming.reply_with(Headers::from_iter([("connection", "close")]));
                assert!(matches!(unfit, Err(ConnectionError::InvalidHeader(_))));
            }
        }
    }

    for (name, stream) in &mut streams {
        match (*name, stream.answered().await) {
            ("reply", Ok(headers)) => assert!(headers.is_empty()),
            ("reply_with", Ok(headers)) => assert_eq!(headers.get("port"), Some("80")),
            ("reject", Err(StreamError::Reset(status))) => assert_eq!(status, RstStatus::CANCEL),
            ("refuse" | "drop" | "unfit", Err(StreamError::Reset(status))) => {
                assert_eq!(status, RstStatus::REFUSED_STREAM);
            }
            (name, answer) => panic!("{name}: {answer:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_opens_streams_too() {
    let (near, far) = duplex(1 << 20);
    let (client, _one) = client(near, Config::default());
    let (server, _two) = server(far, Config::default());
    let mut ours = server.open(named("from the server")).await.unwrap();
    let incoming = client.accept().await.unwrap().unwrap();
    assert_eq!((incoming.id(), incoming.headers()), (2, &named("from the server")));
    let _theirs = incoming.reply();
    ours.answered().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_reset_before_it_was_accepted_is_never_seen() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[("name", "gone")])).await;
    peer.say(rst(1, RstStatus::CANCEL)).await;
    peer.say(syn(3, &[("name", "there")])).await;
    until(|| mux.stats().streams == 1).await;
    assert_eq!(accept(&mux).await.id(), 3);
}

#[tokio::test(start_paused = true)]
async fn streams_beyond_the_limit_are_refused_and_those_within_it_live() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = server(near, config(|config| config.spdy.max_streams = 2));
    let mut peer = Peer::new(far);
    for id in [1, 3, 5] {
        peer.say(syn(id, &[])).await;
    }
    assert_eq!(peer.hear().await, Some(rst(5, RstStatus::REFUSED_STREAM)));
    let _both = (accept(&mux).await, accept(&mux).await);
    assert_eq!([peer.hear().await, peer.hear().await], [Some(reply(1)), Some(reply(3))]);
}

#[tokio::test(start_paused = true)]
async fn headers_that_cannot_be_sent_are_the_openers_error_alone() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    for name in ["Connection", "host", "two words", ""] {
        let refused = mux.open(Headers::from_iter([(name, "x")])).await;
        assert!(matches!(refused, Err(ConnectionError::InvalidHeader(_))), "{name:?}");
    }
    let _stream = mux.open(named("fit")).await.unwrap();
    assert_eq!(peer.hear_syn().await, (1, named("fit")));
}

#[tokio::test(start_paused = true)]
async fn after_the_peers_goaway_taken_streams_go_on_and_new_ones_fail() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let mut taken = mux.open(named("taken")).await.unwrap();
    let mut untaken = mux.open(named("untaken")).await.unwrap();
    peer.hear_syn().await;
    peer.hear_syn().await;
    peer.say(reply(1)).await;
    peer.say(goaway(1)).await;
    peer.say(support::peer::data(1, "after the GOAWAY")).await;
    peer.say(fin(1)).await;

    let refused = untaken.answered().await;
    assert!(matches!(refused, Err(StreamError::Reset(RstStatus::REFUSED_STREAM))), "{refused:?}");
    let refused = mux.open(named("late")).await;
    assert!(matches!(refused, Err(ConnectionError::GoneAway { last_good: 1, .. })), "{refused:?}");
    assert_eq!(taken.data().await.unwrap().unwrap(), "after the GOAWAY");
    assert!(taken.data().await.is_none());
    taken.send(Bytes::from_static(b"the other way")).await.unwrap();
    assert_eq!(peer.hear().await, Some(support::peer::data(1, "the other way")));
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_opened_and_sent_before_it_closed_is_still_accepted_and_read() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    peer.say(support::peer::data(1, "all of it")).await;
    peer.say(fin(1)).await;
    peer.say(goaway(0)).await;
    drop(peer);
    driver.await.unwrap().unwrap();

    let mut stream = accept(&mux).await;
    assert_eq!(stream.data().await.unwrap().unwrap(), "all of it");
    assert!(stream.data().await.is_none());
    assert!(mux.accept().await.is_none(), "an orderly end");
}
