//! Streams of bytes on one TCP connection, without Kubernetes: this crate's over raw SPDY, h2's and yamux's.
//!
//! Holds what each end does. All of them frame the same bytes, with windows as each library offers them.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{AsyncReadExt, AsyncWriteExt};
use http::{Request, Response};
use kubestream::mux::{Config, Headers, Multiplexer};
use kubestream::upgrade::Upgraded;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::compat::TokioAsyncReadCompatExt;

use bench_support::table::Sample;
use bench_support::{Flavor, Meter, Outcome, Plan, aligned, ends};

/// The window of each stream and connection of h2, whose default of 64 KiB would hold it up. This crate's and yamux's
/// windows grow by themselves.
const WINDOW: u32 = 1 << 20;
const OPENS: usize = 8_000;

pub(crate) fn ours(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let server = move |io| async move {
        let (mux, driver) = Multiplexer::server(Upgraded::from_io(io), Config::default());
        tokio::spawn(driver);
        let mut stream = mux.accept().await.ok_or("no stream")??.reply();
        for part in [plan.warm_up(), plan] {
            let mut left = part.bytes;
            while left > 0 {
                left -= stream.data().await.ok_or("the stream ended")??.len();
            }
            stream.send(Bytes::from_static(&[1])).await?;
        }
        stream.finish();
        mux.gone().await;
        Ok(())
    };
    ends(flavor, server, move |io| async move {
        let (mux, driver) = Multiplexer::client(Upgraded::from_io(io), Config::default());
        tokio::spawn(driver);
        let mut stream = mux.open(Headers::from_iter([("streamtype", "data")])).await?;
        let (data, mut meter) = (aligned(plan.size), Meter::start());
        for part in [plan.warm_up(), plan] {
            meter = Meter::start();
            for _ in 0..part.writes() {
                stream.send(data.clone()).await?;
            }
            stream.data().await.ok_or("no answer")??;
        }
        let sample = meter.transferred(plan);
        drop(stream);
        mux.shutdown().await?;
        Ok(sample)
    })
}

/// Opens streams, and closes each from both ends.
pub(crate) fn ours_opens(flavor: Flavor, at_once: usize) -> Outcome<Sample> {
    let server = move |io| async move {
        let (mux, driver) = Multiplexer::server(Upgraded::from_io(io), Config::default());
        tokio::spawn(driver);
        while let Some(Ok(incoming)) = mux.accept().await {
            let mut stream = incoming.reply();
            tokio::spawn(async move {
                while stream.data().await.transpose()?.is_some() {}
                stream.finish();
                Outcome::Ok(())
            });
        }
        Ok(())
    };
    ends(flavor, server, move |io| async move {
        let (mux, driver) = Multiplexer::client(Upgraded::from_io(io), Config::default());
        tokio::spawn(driver);
        let mux = Arc::new(mux);
        let meter = Meter::start();
        let mut openers = JoinSet::new();
        for _ in 0..at_once {
            let mux = Arc::clone(&mux);
            openers.spawn(async move {
                for _ in 0..OPENS / at_once {
                    let mut stream = mux.open(Headers::from_iter([("streamtype", "data")])).await?;
                    stream.finish();
                    stream.answered().await?;
                    while stream.data().await.transpose()?.is_some() {}
                }
                Outcome::Ok(())
            });
        }
        while let Some(opener) = openers.join_next().await {
            opener??;
        }
        let sample = opened(&meter);
        mux.shutdown().await?;
        Ok(sample)
    })
}

fn opened(meter: &Meter) -> Sample {
    let used = meter.read();
    Sample::new()
        .with("ops/s", OPENS as f64 / used.seconds)
        .with("CPU µs/op", used.cpu / OPENS as f64 * 1e6)
        .with("allocs/op", used.allocations / OPENS as f64)
}

/// Answers each request: after its body where the plan has one, with a byte for each part of it.
async fn h2_server(io: TcpStream, plan: Option<Plan>) -> Outcome<()> {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).max_frame_size(32 * 1024);
    let mut connection = builder.handshake::<_, Bytes>(io).await?;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let Some(plan) = plan else {
            respond.send_response(Response::new(()), true)?;
            continue;
        };
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut answer = respond.send_response(Response::new(()), false)?;
            for part in [plan.warm_up(), plan] {
                let mut left = part.bytes;
                while left > 0 {
                    let data = body.data().await.ok_or("the stream ended")??;
                    left -= data.len();
                    body.flow_control().release_capacity(data.len())?;
                }
                answer.send_data(Bytes::from_static(&[1]), false)?;
            }
            answer.send_data(Bytes::new(), true)?;
            Outcome::Ok(())
        });
    }
    Ok(())
}

async fn h2_client(io: TcpStream) -> Outcome<h2::client::SendRequest<Bytes>> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).max_frame_size(32 * 1024);
    let (client, connection) = builder.handshake(io).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn request() -> Outcome<Request<()>> {
    Ok(Request::post("http://localhost/").body(())?)
}

pub(crate) fn h2(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    ends(
        flavor,
        move |io| h2_server(io, Some(plan)),
        move |io| async move {
            let mut client = h2_client(io).await?;
            let (response, mut stream) = client.send_request(request()?, false)?;
            let mut answer = response.await?.into_body();
            let (data, mut meter) = (aligned(plan.size), Meter::start());
            for part in [plan.warm_up(), plan] {
                meter = Meter::start();
                for _ in 0..part.writes() {
                    let mut data = data.clone();
                    while !data.is_empty() {
                        stream.reserve_capacity(data.len());
                        let room = poll_fn(|cx| stream.poll_capacity(cx)).await.ok_or("the stream ended")??;
                        stream.send_data(data.split_to(room.min(data.len())), false)?;
                    }
                }
                answer.data().await.ok_or("no answer")??;
            }
            // The server has all that it waited for, and may have left the stream.
            Ok(meter.transferred(plan))
        },
    )
}

pub(crate) fn h2_opens(flavor: Flavor, at_once: usize) -> Outcome<Sample> {
    ends(
        flavor,
        move |io| h2_server(io, None),
        move |io| async move {
            let client = h2_client(io).await?;
            let meter = Meter::start();
            let mut openers = JoinSet::new();
            for _ in 0..at_once {
                let mut client = client.clone();
                openers.spawn(async move {
                    for _ in 0..OPENS / at_once {
                        client = client.ready().await?;
                        let (response, _) = client.send_request(request()?, true)?;
                        let mut body = response.await?.into_body();
                        while body.data().await.transpose()?.is_some() {}
                    }
                    Outcome::Ok(())
                });
            }
            while let Some(opener) = openers.join_next().await {
                opener??;
            }
            Ok(opened(&meter))
        },
    )
}

/// Drives a connection, and hands on the first stream that the other end opens.
async fn yamux_stream(mut connection: yamux::Connection<impl yamux_io::Io>, opens: bool) -> Outcome<yamux::Stream> {
    let stream = if opens {
        poll_fn(|cx| connection.poll_new_outbound(cx)).await?
    } else {
        poll_fn(|cx| connection.poll_next_inbound(cx)).await.ok_or("no stream")??
    };
    tokio::spawn(async move { while let Some(Ok(_)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {} });
    Ok(stream)
}

/// What yamux asks of a connection.
mod yamux_io {
    pub(crate) trait Io: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin + Send + 'static {}
    impl<T: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin + Send + 'static> Io for T {}
}

pub(crate) fn yamux(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let server = move |io: TcpStream| async move {
        let connection = yamux::Connection::new(io.compat(), yamux::Config::default(), yamux::Mode::Server);
        let mut stream = yamux_stream(connection, false).await?;
        let mut buffer = vec![0; 256 * 1024];
        for part in [plan.warm_up(), plan] {
            let mut left = part.bytes;
            while left > 0 {
                let most = left.min(buffer.len());
                match stream.read(&mut buffer[..most]).await? {
                    0 => return Err("the stream ended".into()),
                    count => left -= count,
                }
            }
            stream.write_all(&[1]).await?;
            stream.flush().await?;
        }
        // The client ends first.
        match stream.read(&mut buffer).await? {
            0 => Ok(()),
            _ => Err("more than the plan".into()),
        }
    };
    ends(flavor, server, move |io| async move {
        let connection = yamux::Connection::new(io.compat(), yamux::Config::default(), yamux::Mode::Client);
        let mut stream = yamux_stream(connection, true).await?;
        let (data, mut meter) = (aligned(plan.size), Meter::start());
        for part in [plan.warm_up(), plan] {
            meter = Meter::start();
            for _ in 0..part.writes() {
                stream.write_all(&data).await?;
            }
            stream.flush().await?;
            stream.read_exact(&mut [0]).await?;
        }
        let sample = meter.transferred(plan);
        stream.close().await?;
        Ok(sample)
    })
}
