//! What passing time does to a connection. The tests set the clock.

use std::time::Duration;

use futures_util::FutureExt;
use kubestream::mux::Config;
use kubestream::unstable::wire::spdy::Frame;
use kubestream::{ConnectionError, Initiator};
use tokio::io::duplex;
use tokio::time::{Instant, sleep};

use support::peer::{Peer, data, goaway, reply, syn};
use support::{accept, client, config, named, pattern, server, until};

#[tokio::test(start_paused = true)]
async fn a_ping_comes_back_from_one_of_ours_with_the_time_it_took() {
    let (near, far) = duplex(1024);
    let (client, _one) = client(near, Config::default());
    let (server, _two) = server(far, Config::default());
    let (first, second, third) = tokio::join!(client.ping(), client.ping(), server.ping());
    for took in [first, second, third] {
        assert!(took.unwrap() < Duration::from_secs(60));
    }
}

#[tokio::test(start_paused = true)]
async fn echoes_find_their_pings_whatever_their_order_and_dropped_pings_are_forgotten() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    assert!(mux.ping().now_or_never().is_none());
    let [first, second] = [mux.clone(), mux.clone()].map(|mux| tokio::spawn(async move { mux.ping().await.unwrap() }));
    for id in [1, 3, 5] {
        assert_eq!(peer.hear().await, Some(Frame::Ping(id)));
    }
    peer.say(Frame::Ping(5)).await;
    second.await.unwrap();
    assert!(!first.is_finished());
    peer.say(Frame::Ping(1)).await;
    peer.say(Frame::Ping(77)).await;
    peer.say(Frame::Ping(3)).await;
    first.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_ping_fails_with_the_connection() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let waiting = tokio::spawn({
        let mux = mux.clone();
        async move { mux.ping().await }
    });
    peer.hear().await;
    drop(peer);
    assert!(matches!(waiting.await.unwrap(), Err(ConnectionError::Lost)));
    assert!(matches!(mux.ping().await, Err(ConnectionError::Lost)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_each_10_seconds_and_dead_after_60() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = client(near, Config::default());
    let began = Instant::now();
    let mut peer = Peer::new(far);
    for (asked, ping) in (1..=5).zip([1, 3, 5, 7, 9]) {
        assert_eq!(peer.hear().await, Some(Frame::Ping(ping)));
        assert_eq!(began.elapsed().as_secs(), 10 * asked);
    }
    assert_eq!(peer.hear().await, None);
    assert_eq!(began.elapsed().as_secs(), 60);
    let error = driver.await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectionError::KeepaliveTimeout(after) if after.as_secs() == 60), "{error:?}");
    assert_eq!(error.initiator(), Initiator::Remote);
    assert!(matches!(mux.open(named("late")).await, Err(ConnectionError::KeepaliveTimeout(_))));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_lives_and_one_that_talks_is_not_asked() {
    let (near, far) = duplex(1 << 20);
    let (mux, _driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    for _ in 0..100 {
        peer.echo().await;
    }
    peer.say(syn(1, &[])).await;
    let mut stream = accept(&mux).await;
    assert_eq!(peer.hear().await, Some(reply(1)));
    for _ in 0..100 {
        sleep(Duration::from_secs(9)).await;
        peer.say(data(1, "still here")).await;
        stream.data().await.unwrap().unwrap();
    }
    assert!(peer.hear().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn without_keepalive_nothing_is_asked_until_the_connection_idles_out() {
    let (near, far) = duplex(1 << 20);
    let (mux, driver) = client(
        near,
        config(|config| {
            config.keepalive_interval = None;
            config.idle_timeout = Some(Duration::from_secs(600));
        }),
    );
    let began = Instant::now();
    let mut peer = Peer::new(far);
    let _stream = mux.open(named("idle")).await.unwrap();
    peer.hear_syn().await;
    sleep(Duration::from_secs(500)).await;
    peer.say(reply(1)).await;
    assert_eq!(peer.hear_all().await, [goaway(0)]);
    assert_eq!(began.elapsed().as_secs(), 1100);
    drop(peer);
    let error = driver.await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectionError::IdleTimeout(after) if after.as_secs() == 600), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn two_of_ours_stay_connected_for_days() {
    let (near, far) = duplex(1024);
    let (client, one) = client(near, Config::default());
    let (server, two) = server(far, Config::default());
    sleep(Duration::from_secs(3 * 24 * 3600)).await;
    assert!(!one.is_finished() && !two.is_finished());
    let _ours = client.open(named("after days")).await.unwrap();
    accept(&server).await;
}

#[tokio::test(start_paused = true)]
async fn silence_does_not_count_while_we_ourselves_do_not_read() {
    let (near, far) = duplex(64 * 1024);
    let (mux, driver) = client(near, Config::default());
    let mut peer = Peer::new(far);
    let (mut unread, _send) = mux.open(named("unread")).await.unwrap().split();
    peer.hear_syn().await;
    peer.say(reply(1)).await;
    let talker = tokio::spawn(async move {
        for part in 0..60 {
            peer.say(data(1, pattern(part, 30_000))).await;
        }
        peer
    });
    until(|| mux.stats().stalled_by.is_some()).await;
    sleep(Duration::from_secs(3600)).await;
    assert!(!driver.is_finished());
    let mut came = 0;
    while came < 60 * 30_000 {
        came += unread.data().await.unwrap().unwrap().len();
    }
    let mut peer = talker.await.unwrap();
    // PINGs keep the middleboxes open meanwhile.
    let during: Vec<_> = std::iter::from_fn(|| peer.hear().now_or_never().flatten()).collect();
    assert!(during.len() > 300 && during.iter().all(|frame| matches!(frame, Frame::Ping(_))), "{}", during.len());
    let resumed = Instant::now();
    assert!(matches!(peer.hear().await, Some(Frame::Ping(_))));
    assert!((9..=11).contains(&resumed.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_server_finds_out_that_its_client_is_gone() {
    let (near, far) = duplex(64 * 1024);
    let (mux, driver) = server(near, Config::default());
    let mut peer = Peer::new(far);
    peer.say(syn(1, &[])).await;
    let _unread = accept(&mux).await;
    let talker = tokio::spawn(async move {
        let mut part = 0;
        while tokio::time::timeout(Duration::from_secs(10), peer.try_say(data(1, pattern(part, 30_000)))).await.is_ok()
        {
            part += 1;
        }
    });
    until(|| mux.stats().stalled_by.is_some()).await;
    talker.await.unwrap();
    let gone = driver.await.unwrap();
    assert!(matches!(gone, Err(ConnectionError::Io(_))), "{gone:?}");
}
