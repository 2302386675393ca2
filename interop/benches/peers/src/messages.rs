//! WebSocket libraries at both ends, with v5's framing in the messages: the channel, then its bytes.
//!
//! Does the same work with each library. Messages are built as any user would build them, without a flush between them.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;

use bench_support::raw::{ECHOES, WARM_UP};
use bench_support::table::Sample;
use bench_support::{Flavor, Meter, Outcome, Plan, aligned, ends, latencies};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;

/// A connection whose messages have the type `M`.
struct Messages<S, M> {
    socket: S,
    wrap: fn(Bytes) -> M,
    /// Returns `None` for a message that is not binary.
    unwrap: fn(M) -> Option<Bytes>,
}

impl<S, M, E> Messages<S, M>
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    async fn feed(&mut self, channel: u8, data: &[u8]) -> Outcome<()> {
        let mut message = BytesMut::with_capacity(data.len() + 1);
        message.put_u8(channel);
        message.put_slice(data);
        self.socket.feed((self.wrap)(message.freeze())).await?;
        Ok(())
    }

    async fn flush(&mut self) -> Outcome<()> {
        self.socket.flush().await?;
        Ok(())
    }

    /// Returns the data of the next message, or `None` if the other end is done.
    async fn next(&mut self) -> Outcome<Option<Bytes>> {
        let Some(Ok(message)) = self.socket.next().await else { return Ok(None) };
        Ok((self.unwrap)(message).map(|data| data.slice(1..)))
    }

    async fn send_all(&mut self, channel: u8, data: &[u8], writes: usize) -> Outcome<()> {
        for _ in 0..writes {
            self.feed(channel, data).await?;
        }
        self.flush().await
    }

    async fn take(&mut self, bytes: usize) -> Outcome<()> {
        let mut left = bytes;
        while left > 0 {
            left -= self.next().await?.ok_or("the end came early")?.len();
        }
        Ok(())
    }

    async fn serve(mut self, work: Work) -> Outcome<()> {
        match work {
            Work::ToServer(plan) => {
                for part in [plan.warm_up(), plan] {
                    self.take(part.bytes).await?;
                    self.send_all(STDOUT, &[1], 1).await?;
                }
            }
            Work::ToClient(plan) => {
                let data = aligned(plan.size);
                for part in [plan.warm_up(), plan] {
                    self.take(1).await?;
                    self.send_all(STDOUT, &data, part.writes()).await?;
                }
            }
            Work::Echo => {
                while let Some(data) = self.next().await? {
                    self.send_all(STDOUT, &data, 1).await?;
                }
            }
        }
        // Until the client has received everything.
        while self.next().await?.is_some() {}
        Ok(())
    }

    async fn measure(mut self, work: Work) -> Outcome<Sample> {
        let sample = match work {
            Work::ToServer(plan) => {
                let data = aligned(plan.size);
                let mut meter = Meter::start();
                for part in [plan.warm_up(), plan] {
                    meter = Meter::start();
                    self.send_all(STDIN, &data, part.writes()).await?;
                    self.take(1).await?;
                }
                meter.transferred(plan)
            }
            Work::ToClient(plan) => {
                let mut meter = Meter::start();
                for part in [plan.warm_up(), plan] {
                    meter = Meter::start();
                    self.send_all(STDIN, &[1], 1).await?;
                    self.take(part.bytes).await?;
                }
                meter.transferred(plan)
            }
            Work::Echo => {
                let mut taken = Vec::new();
                for trip in 0..WARM_UP + ECHOES {
                    let began = Instant::now();
                    self.send_all(STDIN, &[7], 1).await?;
                    self.take(1).await?;
                    if trip >= WARM_UP {
                        taken.push(began.elapsed());
                    }
                }
                latencies(taken)
            }
        };
        self.socket.close().await?;
        Ok(sample)
    }
}

#[derive(Clone, Copy, Debug)]
enum Work {
    ToServer(Plan),
    ToClient(Plan),
    Echo,
}

const URL: &str = "ws://127.0.0.1/";

fn tungstenite(flavor: Flavor, work: Work) -> Outcome<Sample> {
    fn messages<S>(socket: S) -> Messages<S, tungstenite::Message> {
        Messages {
            socket,
            wrap: tungstenite::Message::Binary,
            unwrap: |message| message.is_binary().then(|| message.into_data()),
        }
    }
    let server =
        move |io: TcpStream| async move { messages(tokio_tungstenite::accept_async(io).await?).serve(work).await };
    ends(flavor, server, move |io| async move {
        messages(tokio_tungstenite::client_async(URL, io).await?.0).measure(work).await
    })
}

fn websockets(flavor: Flavor, work: Work) -> Outcome<Sample> {
    use tokio_websockets::{ClientBuilder, Message, ServerBuilder};
    fn messages<S>(socket: S) -> Messages<S, Message> {
        Messages {
            socket,
            wrap: Message::binary::<Bytes>,
            unwrap: |message| message.is_binary().then(|| message.into_payload().into()),
        }
    }
    let server =
        move |io: TcpStream| async move { messages(ServerBuilder::new().accept(io).await?.1).serve(work).await };
    ends(flavor, server, move |io| async move {
        messages(ClientBuilder::new().uri(URL)?.connect_on(io).await?.0).measure(work).await
    })
}

pub(crate) fn tungstenite_to_server(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    tungstenite(flavor, Work::ToServer(plan))
}

pub(crate) fn tungstenite_to_client(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    tungstenite(flavor, Work::ToClient(plan))
}

pub(crate) fn tungstenite_echo(flavor: Flavor) -> Outcome<Sample> {
    tungstenite(flavor, Work::Echo)
}

pub(crate) fn websockets_to_server(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    websockets(flavor, Work::ToServer(plan))
}

pub(crate) fn websockets_to_client(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    websockets(flavor, Work::ToClient(plan))
}

pub(crate) fn websockets_echo(flavor: Flavor) -> Outcome<Sample> {
    websockets(flavor, Work::Echo)
}
