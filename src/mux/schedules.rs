//! Tests that run the handles and drivers of both ends in threads, under a scheduler that may switch threads at every
//! lock. In every order, each thread is woken when there is something for it to do, and each end gets what the other
//! end sent.
//!
//! This module owns the pipe between the ends, and how many orders are tried. `shuttle` chooses the orders. It fails if
//! no thread can move, and prints a failing schedule so that it can be replayed. Time stands still, so a thread that
//! only a timer would wake is never woken. Run the tests with
//!
//! ```text
//! RUSTFLAGS='--cfg shuttle' cargo test --lib --target-dir target/shuttle schedules
//! ```
//!
//! and with `KUBESTREAM_SCHEDULES=10000` for longer.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::Mutex;
use shuttle::{Config as Schedules, Runner};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::codec::{Decoder, Encoder};

use super::{Config, Multiplexer, Stream};
use crate::exec::Streams;
use crate::protocol::Subprotocol;
use crate::protocol::{Protocol, Version};
use crate::session::{ConnectionError, StreamError};
use crate::status::ExitStatus;
use crate::upgrade::Upgraded;
use crate::wire::SpdyConfig;
use crate::wire::spdy::{Codec, Frame, Headers, RstStatus, Setting, SettingId, Settings};

/// How many orders of each kind a transcript is played in.
fn orders() -> usize {
    std::env::var("KUBESTREAM_SCHEDULES").map_or(100, |orders| orders.parse().unwrap())
}

/// Plays a transcript in random orders of its threads, and in the orders that find bugs of a few steps (PCT).
fn in_any_order<F: Future<Output = ()> + 'static>(transcript: impl Fn() -> F + Clone + Send + Sync + 'static) {
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // The runtime is never dropped: after a failure it has wakers of threads that no longer exist.
    let _stopped = Box::leak(Box::new(clock)).enter();
    let mut config = Schedules::new();
    // A connection's futures are large in a debug build.
    config.stack_size = 512 * 1024;
    let play = move || block_on(transcript());
    Runner::new(RandomScheduler::new(orders()), config.clone()).run(play.clone());
    for depth in [2, 4] {
        Runner::new(PctScheduler::new(depth, orders()), config.clone()).run(play.clone());
    }
}

/// One direction of the pipe.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end of a pipe that holds few bytes, so that its writer often has to wait.
struct End {
    read: Arc<Mutex<Way>>,
    write: Arc<Mutex<Way>>,
    capacity: usize,
}

fn pipe(capacity: usize) -> (End, End) {
    let (up, down) = (Arc::new(Mutex::default()), Arc::new(Mutex::default()));
    let near = End { read: Arc::clone(&down), write: Arc::clone(&up), capacity };
    (near, End { read: up, write: down, capacity })
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut way = self.read.lock().unwrap();
        if way.bytes.is_empty() && !way.ended {
            way.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = way.bytes.len().min(buf.remaining());
        buf.put_slice(&way.bytes.drain(..count).collect::<Vec<_>>());
        let writer = way.writer.take();
        drop(way);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut way = self.write.lock().unwrap();
        if way.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = self.capacity.saturating_sub(way.bytes.len());
        if room == 0 {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(bytes.len());
        way.bytes.extend(&bytes[..count]);
        let reader = way.reader.take();
        drop(way);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        end(&self.write);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        end(&self.read);
        end(&self.write);
    }
}

fn end(way: &Mutex<Way>) {
    let mut way = way.lock().unwrap();
    way.ended = true;
    let wakers = [way.reader.take(), way.writer.take()];
    drop(way);
    wakers.into_iter().flatten().for_each(Waker::wake);
}

type DriverTask = JoinHandle<Result<(), ConnectionError>>;

/// Both ends of a connection. The pipe holds `capacity` bytes, and each stream may hold `budget` bytes.
fn ends(protocol: Protocol, capacity: usize, budget: usize) -> ((Multiplexer, Multiplexer), [DriverTask; 2]) {
    let (near, far) = pipe(capacity);
    let mut config = Config::default();
    (config.send_buffer, config.stream_receive_budget, config.receive_budget) = (budget, budget, 8 * budget);
    let upgraded = |io| Upgraded::new(io, Bytes::new(), Some(protocol));
    let (client, near) = Multiplexer::client(upgraded(near), config.clone());
    let (server, far) = Multiplexer::server(upgraded(far), config);
    ((client, server), [spawn(near), spawn(far)])
}

const SPDY: Protocol = Protocol::SpdyExec(Version::V4);

fn spdy() -> ((Multiplexer, Multiplexer), [DriverTask; 2]) {
    ends(SPDY, 24, 16)
}

async fn both_end_well(drivers: [DriverTask; 2]) {
    for driver in drivers {
        driver.await.unwrap().unwrap();
    }
}

fn headers() -> Headers {
    Headers::from_iter([("streamtype", "data")])
}

async fn accepted(server: &Multiplexer) -> Stream {
    server.accept().await.unwrap().unwrap().reply()
}

async fn send_all(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) {
    for piece in bytes.chunks(5) {
        to.write_all(piece).await.unwrap();
    }
    to.shutdown().await.unwrap();
}

async fn read_all(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut said = Vec::new();
    from.read_to_end(&mut said).await.unwrap();
    said
}

const UP: &[u8] = b"what goes up in pieces, over a window at a time";
const DOWN: &[u8] = b"and what comes down meanwhile, in pieces as well";

/// Each half of a stream runs in its own thread. The windows and the pipe are often full.
#[test]
fn both_ways_of_a_stream_arrive_whole() {
    in_any_order(|| async {
        let ((client, server), drivers) = spdy();
        let server = spawn(async move {
            let (recv, send) = accepted(&server).await.split();
            let sends = spawn(send_all(send, DOWN));
            assert_eq!(read_all(recv).await, UP);
            sends.await.unwrap();
        });
        let (recv, send) = client.open(headers()).await.unwrap().split();
        drop(client);
        let sends = spawn(send_all(send, UP));
        assert_eq!(read_all(recv).await, DOWN);
        sends.await.unwrap();
        server.await.unwrap();
        both_end_well(drivers).await;
    });
}

/// A process writes both outputs while its stdin is written, and then exits. This runs over both transports.
#[test]
fn a_session_gets_its_outputs_and_its_exit_code() {
    for protocol in [SPDY, Protocol::WebSocketExec(Subprotocol::V5)] {
        in_any_order(move || async move {
            let ((client, server), drivers) = ends(protocol, 64, 16);
            let process = spawn(async move {
                let mut process = server.accept_exec(Streams::PIPES).await.unwrap();
                drop(server);
                let errors = spawn(send_all(process.stderr.take().unwrap(), DOWN));
                let echo = read_all(process.stdin.take().unwrap()).await;
                send_all(process.stdout.take().unwrap(), &echo).await;
                errors.await.unwrap();
                process.exit(ExitStatus::Code(7)).await.unwrap();
            });
            let mut exec = client.exec(Streams::PIPES).await.unwrap();
            drop(client);
            let types = spawn(send_all(exec.stdin.take().unwrap(), UP));
            let output = exec.wait_with_output(1000).await.unwrap();
            assert_eq!((&output.stdout[..], &output.stderr[..]), (UP, DOWN));
            assert_eq!(output.status, ExitStatus::Code(7));
            types.await.unwrap();
            process.await.unwrap();
            both_end_well(drivers).await;
        });
    }
}

/// Two threads accept, and one of them drops each of its calls after one poll. No stream is lost with a dropped call,
/// and the thread that still waits is woken.
#[test]
fn every_stream_is_accepted_once_though_calls_are_dropped() {
    const STREAMS: usize = 2;
    in_any_order(|| async {
        let ((client, server), drivers) = spdy();
        let take = |accepted: Option<Result<super::Incoming, ConnectionError>>| {
            accepted.map(|incoming| incoming.unwrap().reply().finish()).is_some()
        };
        let patient = {
            let server = server.clone();
            spawn(async move {
                let mut count = 0;
                while take(server.accept().await) {
                    count += 1;
                }
                count
            })
        };
        let hasty = spawn(async move {
            let mut count = 0;
            for _ in 0..STREAMS {
                count += usize::from(server.accept().now_or_never().is_some_and(take));
                yield_now().await;
            }
            count
        });
        let opened: Vec<_> = (0..STREAMS)
            .map(|_| {
                let client = client.clone();
                spawn(async move {
                    let mut stream = client.open(headers()).await.unwrap();
                    stream.finish();
                    stream.answered().await.unwrap();
                    assert!(stream.data().await.is_none());
                })
            })
            .collect();
        drop(client);
        for opened in opened {
            opened.await.unwrap();
        }
        assert_eq!(patient.await.unwrap() + hasty.await.unwrap(), STREAMS);
        both_end_well(drivers).await;
    });
}

/// A peer allows one stream at a time. Three threads wait to open one, and each stream that ends lets one of them in.
#[test]
fn who_waits_to_open_is_let_in_when_a_stream_ends() {
    const STREAMS: usize = 3;
    in_any_order(|| async {
        let (near, mut peer) = pipe(24);
        let (client, driver) = Multiplexer::client(Upgraded::from_io(near), Config::default());
        let driver = spawn(driver);
        let peer = spawn(async move {
            let (mut codec, mut wire, mut read) = (Codec::new(SpdyConfig::default()), BytesMut::new(), BytesMut::new());
            let one = Setting::new(0, SettingId::MAX_CONCURRENT_STREAMS, 1);
            codec.encode(Frame::Settings(Settings::new(false, vec![one])), &mut wire).unwrap();
            // The peer sends this before it has heard from the client, which may have opened all streams by then.
            peer.write_all(&wire.split()).await.unwrap();
            let mut opened = 0;
            loop {
                match codec.decode(&mut read).unwrap() {
                    Some(Frame::SynStream { id, fin: false, .. }) => {
                        opened += 1;
                        codec
                            .encode(Frame::SynReply { id, fin: true, headers: Headers::default() }, &mut wire)
                            .unwrap();
                        peer.write_all(&wire.split()).await.unwrap();
                    }
                    Some(_) => {}
                    None if peer.read_buf(&mut read).await.unwrap() == 0 => return opened,
                    None => {}
                }
            }
        });
        let open = |client: Multiplexer| async move {
            let mut stream = client.open(headers()).await.unwrap();
            stream.finish();
            assert!(stream.data().await.is_none());
        };
        let opened: Vec<_> = (0..STREAMS).map(|_| spawn(open(client.clone()))).collect();
        drop(client);
        for opened in opened {
            opened.await.unwrap();
        }
        driver.await.unwrap().unwrap();
        assert_eq!(peer.await.unwrap(), STREAMS);
    });
}

/// Several threads drop their clones at once, and one of them waits for a PING before. The last clone ends the
/// connection.
#[test]
fn the_last_handle_ends_the_connection_whoever_drops_it() {
    in_any_order(|| async {
        let ((client, server), drivers) = spdy();
        let handles: Vec<_> = [client.clone(), client, server.clone(), server]
            .into_iter()
            .enumerate()
            .map(|(at, handle)| {
                spawn(async move {
                    if at == 0 {
                        // This fails if the other end has ended first.
                        let _ = handle.ping().await;
                    }
                    drop(handle.clone());
                })
            })
            .collect();
        for handle in handles {
            handle.await.unwrap();
        }
        both_end_well(drivers).await;
    });
}

/// Two threads of each end send a PING at once.
#[test]
fn every_ping_gets_its_own_echo() {
    in_any_order(|| async {
        let ((client, server), drivers) = spdy();
        let ping = |handle: &Multiplexer| {
            let handle = handle.clone();
            spawn(async move { handle.ping().await })
        };
        for asked in [ping(&client), ping(&server), ping(&client), ping(&server)] {
            asked.await.unwrap().unwrap();
        }
        drop((client, server));
        both_end_well(drivers).await;
    });
}

/// A reader resets the stream while the other end is writing more than there is room for.
#[test]
fn a_reset_ends_a_writer_that_waits() {
    in_any_order(|| async {
        let ((client, server), drivers) = spdy();
        let writer = spawn(async move {
            let mut stream = accepted(&server).await;
            loop {
                if let Err(error) = stream.send(Bytes::from_static(UP)).await {
                    return error;
                }
            }
        });
        let mut stream = client.open(headers()).await.unwrap();
        stream.answered().await.unwrap();
        stream.reset(RstStatus::CANCEL);
        assert_eq!(writer.await.unwrap().to_string(), StreamError::Reset(RstStatus::CANCEL).to_string());
        drop(client);
        both_end_well(drivers).await;
    });
}

/// Without flow control, an unread stream stops the reading of the socket. When the stream is read, the bytes behind it
/// arrive.
#[test]
fn what_an_unread_stream_has_held_up_comes_when_it_is_read() {
    in_any_order(|| async {
        let (near, far) = pipe(24);
        let mut config = Config::default();
        (config.send_buffer, config.stream_receive_budget, config.receive_budget) = (16, 8, 8);
        config.spdy.flow_control = super::FlowControl::Off;
        let (client, near) = Multiplexer::client(Upgraded::from_io(near), config.clone());
        let (server, far) = Multiplexer::server(Upgraded::from_io(far), config);
        let drivers = [spawn(near), spawn(far)];
        let writer = spawn(async move {
            let (first, second) = (accepted(&server).await, accepted(&server).await);
            let first = spawn(send_all(first.split().1, DOWN));
            let second = spawn(send_all(second.split().1, UP));
            first.await.unwrap();
            second.await.unwrap();
        });
        let first = client.open(headers()).await.unwrap().split().0;
        let second = client.open(headers()).await.unwrap().split().0;
        drop(client);
        let second = spawn(read_all(second));
        yield_now().await;
        assert_eq!(read_all(first).await, DOWN);
        assert_eq!(second.await.unwrap(), UP);
        writer.await.unwrap();
        both_end_well(drivers).await;
    });
}

/// A driver is dropped at any time, while other threads wait for an answer, for bytes, for a stream, for a PING and for
/// the end.
#[test]
fn nobody_waits_for_a_driver_that_is_gone() {
    in_any_order(|| async {
        let ((client, server), [mut near, far]) = {
            let (near, far) = pipe(24);
            let (client, near) = Multiplexer::client(Upgraded::from_io(near), Config::default());
            let (server, far) = Multiplexer::server(Upgraded::from_io(far), Config::default());
            ((client, server), [near, far])
        };
        let far = spawn(far);
        let accepts = spawn(async move {
            while let Some(Ok(incoming)) = server.accept().await {
                drop(incoming.reply().split());
            }
        });
        let dropped = spawn(async move {
            for _ in 0..3 {
                if (&mut near).now_or_never().is_some() {
                    return;
                }
                yield_now().await;
            }
        });
        let (reader, echo, end) = (client.clone(), client.clone(), client.clone());
        let waiting = [
            spawn(async move {
                let Ok(mut stream) = reader.open(headers()).await else { return };
                let _ = stream.answered().await;
                while let Some(Ok(_)) = stream.data().await {}
            }),
            spawn(async move { while echo.ping().await.is_ok() {} }),
            spawn(async move {
                assert_eq!(end.closed().await.unwrap_err().to_string(), ConnectionError::DriverGone.to_string())
            }),
            spawn(async move { while let Some(Ok(_)) = client.accept().await {} }),
        ];
        dropped.await.unwrap();
        for waiting in waiting {
            waiting.await.unwrap();
        }
        accepts.await.unwrap();
        let _ = far.await.unwrap();
    });
}

/// One thread shuts the connection down while others write and read. What was written arrives, and every thread ends.
#[test]
fn a_shutdown_sends_what_was_taken_first() {
    in_any_order(|| async {
        let ((client, server), drivers) = spdy();
        let reader = spawn(async move {
            let Some(Ok(incoming)) = server.accept().await else { return (Vec::new(), true) };
            let mut stream = incoming.reply();
            let mut said = Vec::new();
            while let Some(data) = stream.data().await {
                match data {
                    Ok(data) => said.extend_from_slice(&data),
                    Err(_) => return (said, false),
                }
            }
            (said, true)
        });
        let mut stream = client.open(headers()).await.unwrap();
        let shuts = spawn(async move { client.shutdown().await });
        let mut taken = Vec::new();
        for piece in UP.chunks(5) {
            if stream.send(Bytes::from_static(piece)).await.is_err() {
                break;
            }
            taken.extend_from_slice(piece);
        }
        drop(stream);
        shuts.await.unwrap().unwrap();
        let (said, _) = reader.await.unwrap();
        assert!(taken.starts_with(&said) || said.starts_with(&taken));
        for driver in drivers {
            let _ = driver.await.unwrap();
        }
    });
}
