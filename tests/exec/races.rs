//! Row 44: the end of a session over TCP, while the client writes. With other servers such clients lose the tail of the
//! output.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use kubestream::exec::Streams;
use kubestream::mux::Multiplexer;
use kubestream::mux::SpdyConfig;
use kubestream::status::ExitStatus;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use kubestream::upgrade::Version;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite};

use support::peer::{Peer, carried, data, goaway, syn, window_update};
use support::{Settled, exec_client, exec_server, pattern, tcp_pair};

const OUTPUT: usize = 3_000_000;
const RUNS: usize = 200;

/// Writes at once and exits, as `head -c 3000000` does. It does not read stdin.
async fn command(mux: Multiplexer) {
    let mut process = mux.accept_exec(Streams { stderr: false, ..Streams::PIPES }).await.unwrap();
    process.stdout.as_mut().unwrap().send(pattern(0, OUTPUT)).await.unwrap();
    process.exit(ExitStatus::Code(7)).await.unwrap();
}

fn check(frames: &[Frame], run: usize) {
    let (output, ended) = carried(frames, 5);
    assert!(output.len() == OUTPUT && ended, "run {run}: {} bytes", output.len());
    assert!(output == pattern(0, OUTPUT), "run {run}");
    let status = ExitStatus::decode(Version::V4, &carried(frames, 1).0).unwrap();
    assert_eq!(status, Some(ExitStatus::Code(7)), "run {run}");
    assert_eq!(frames.last(), Some(&goaway(5)), "run {run}");
}

fn streams() -> [Frame; 3] {
    [(1, "error"), (3, "stdin"), (5, "stdout")].map(|(id, kind)| syn(id, &[("streamtype", kind)]))
}

#[tokio::test]
async fn a_client_that_answers_every_data_frame_gets_all_output_and_the_status() {
    for run in 0..RUNS {
        let (near, far) = tcp_pair().await;
        let (mux, driver) = exec_server(near, Version::V4);
        tokio::spawn(command(mux));
        let mut peer = Peer::new(far);
        for frame in streams() {
            peer.say(frame).await;
        }
        let mut frames = Vec::new();
        let mut ping = 1;
        while let Some(frame) = timeout(Duration::from_secs(60), peer.hear()).await.expect("stuck") {
            if let Frame::Data { id, data, .. } = &frame {
                let len = data.len().max(1) as u32;
                peer.say(window_update(id.get(), len)).await;
                peer.say(window_update(0, len)).await;
                peer.say(Frame::Ping(ping)).await;
                ping += 2;
            }
            frames.push(frame);
            if matches!(frames.last(), Some(Frame::GoAway { .. })) {
                break;
            }
        }
        frames.retain(|frame| !matches!(frame, Frame::Ping(_)));
        check(&frames, run);
        drop(peer);
        driver.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_client_that_still_sends_stdin_gets_all_output_and_the_status() {
    for run in 0..RUNS {
        let (near, far) = tcp_pair().await;
        let (mux, driver) = exec_server(near, Version::V4);
        tokio::spawn(command(mux));
        let (read, write) = far.into_split();
        let mut read = FramedRead::new(read, Codec::new(SpdyConfig::default()));
        let mut write = FramedWrite::new(write, Codec::new(SpdyConfig::default()));
        for frame in streams() {
            write.send(frame).await.unwrap();
        }
        let typing = tokio::spawn(async move {
            let typed = pattern(1, 32 * 1024);
            while write.send(data(3, typed.clone())).await.is_ok() {}
        });
        let mut frames = Vec::new();
        while let Some(frame) = timeout(Duration::from_secs(60), read.next()).await.expect("stuck") {
            frames.push(frame.unwrap_or_else(|error| panic!("run {run}: {error}")));
            if matches!(frames.last(), Some(Frame::GoAway { .. })) {
                break;
            }
        }
        check(&frames, run);
        typing.abort();
        let _ = typing.await;
        drop(read);
        driver.await.unwrap().unwrap();
    }
}

/// Our own client types without pause while the command ends.
async fn a_client_of_ours_types(settled: impl Settled + Copy) {
    for run in 0..RUNS / 4 {
        let (near, far) = tcp_pair().await;
        let (server, one) = exec_server(near, settled);
        tokio::spawn(command(server));
        let (client, two) = exec_client(far, settled);
        let mut exec = client.exec(Streams { stderr: false, ..Streams::PIPES }).await.unwrap();
        let mut stdin = exec.stdin.take().unwrap();
        let typing = tokio::spawn(async move {
            let typed = pattern(1, 32 * 1024);
            while stdin.send(typed.clone()).await.is_ok() {}
        });
        let output = timeout(Duration::from_secs(60), exec.wait_with_output(OUTPUT)).await.expect("stuck").unwrap();
        assert!(output.stdout == pattern(0, OUTPUT) && output.status == ExitStatus::Code(7), "run {run}");
        typing.await.unwrap();
        drop(client);
        one.await.unwrap().unwrap();
        two.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_client_of_ours_gets_all_output_and_the_status_whatever_it_types() {
    a_client_of_ours_types(Version::V4).await;
}

mod over_websocket {
    use kubestream::protocol::Subprotocol;

    use super::*;
    use support::websocket::{BINARY, CLOSE, PING, PONG, WebSocketPeer, carried_on, frame};

    #[tokio::test]
    async fn a_client_that_pings_and_types_without_pause_gets_all_output_and_the_status() {
        let output = pattern(0, OUTPUT);
        let typed = [&[0], &pattern(1, 4 * 1024)[..]].concat();
        let noise = [frame(0x80 | PING, b"ping", true), frame(0x80 | BINARY, &typed, true)].concat();
        for run in 0..RUNS {
            let (near, far) = tcp_pair().await;
            let (mux, driver) = exec_server(near, Subprotocol::V5);
            tokio::spawn(command(mux));
            let (read, write) = far.into_split();
            let mut says = WebSocketPeer::client(tokio::io::join(tokio::io::empty(), write));
            let mut hears = WebSocketPeer::client(tokio::io::join(read, tokio::io::sink()));
            let noise = noise.clone();
            let noise = tokio::spawn(async move { while says.try_raw(&noise).await {} });
            let heard = timeout(Duration::from_secs(60), hears.hear_to_close());
            let mut frames = heard.await.unwrap_or_else(|_| panic!("run {run}: stuck"));
            frames.retain(|(opcode, _)| *opcode != PONG);
            assert!(carried_on(&frames, 1) == output, "run {run}: {} frames", frames.len());
            let status = ExitStatus::decode(Version::V5, &carried_on(&frames, 3)).unwrap();
            assert_eq!(status, Some(ExitStatus::Code(7)), "run {run}");
            assert_eq!(frames.last(), Some(&(CLOSE, 1000u16.to_be_bytes().to_vec())), "run {run}");
            noise.abort();
            let _ = noise.await;
            drop(hears);
            driver.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_client_of_ours_gets_all_output_and_the_status_whatever_it_types() {
        a_client_of_ours_types(Subprotocol::V5).await;
    }
}
