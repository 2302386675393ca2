//! However the bytes are cut on the wire, all streams arrive whole and in order, with and without windows.

use std::time::Duration;

use kubestream::StreamError;
use kubestream::mux::{FlowControl, Multiplexer, RecvHalf, SendHalf, Stream};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use support::fragment::{Fragmented, Random};
use support::{accept, client, config, named, pattern, server};

/// Some streams with their bytes in each direction, and how the IO cuts them.
#[derive(Clone, Debug)]
struct Plan {
    streams: Vec<Transfer>,
    seed: u64,
    most: usize,
    pipe: usize,
}

#[derive(Clone, Debug)]
struct Transfer {
    chunks: Vec<usize>,
    /// As owned pieces, or through tokio's traits.
    owned: bool,
}

impl Arbitrary for Plan {
    fn arbitrary(g: &mut Gen) -> Self {
        let most = *g.choose(&[1, 2, 7, 100, 1000, 4096]).unwrap();
        let pipe = *g.choose(&[1, 50, 4000, 70_000]).unwrap();
        // About as many steps for each way of cutting.
        let total = most.min(pipe) * 400;
        let streams = usize::from(u8::arbitrary(g) % 6) + 1;
        let transfer = |g: &mut Gen| {
            let chunks = usize::from(u8::arbitrary(g) % 12);
            let chunk = |g: &mut Gen| usize::arbitrary(g) % (total / streams / chunks.max(1) * 2 + 2);
            Transfer { chunks: (0..chunks).map(|_| chunk(g)).collect(), owned: bool::arbitrary(g) }
        };
        Self { streams: (0..streams).map(|_| transfer(g)).collect(), seed: u64::arbitrary(g), most, pipe }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let plan = self.clone();
        let fewer = (0..self.streams.len()).map(move |gone| {
            let mut fewer = plan.clone();
            fewer.streams.remove(gone);
            fewer
        });
        Box::new(fewer.filter(|plan| !plan.streams.is_empty()))
    }
}

#[test]
fn every_stream_arrives_whole_in_auto_and_auto() {
    check(FlowControl::Auto, FlowControl::Auto);
}

#[test]
fn every_stream_arrives_whole_in_auto_and_off() {
    check(FlowControl::Auto, FlowControl::Off);
    check(FlowControl::Off, FlowControl::Auto);
}

#[test]
fn every_stream_arrives_whole_in_off_and_off() {
    check(FlowControl::Off, FlowControl::Off);
}

#[test]
fn every_stream_arrives_whole_in_strict_and_strict() {
    check(FlowControl::Strict, FlowControl::Strict);
}

#[test]
fn every_stream_arrives_whole_from_strict_to_auto() {
    check(FlowControl::Strict, FlowControl::Auto);
}

#[test]
fn every_stream_arrives_whole_from_auto_to_strict() {
    check(FlowControl::Auto, FlowControl::Strict);
}

fn check(near: FlowControl, far: FlowControl) {
    let property = move |plan: Plan| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(carry(plan, near, far));
        true
    };
    QuickCheck::new().tests(25).quickcheck(Property(property));
}

struct Property<F>(F);

impl<F: Fn(Plan) -> bool + 'static> quickcheck::Testable for Property<F> {
    fn result(&self, g: &mut Gen) -> quickcheck::TestResult {
        let plan = Plan::arbitrary(g);
        let failed =
            |plan: &Plan| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.0)(plan.clone()))).is_err();
        if !failed(&plan) {
            return quickcheck::TestResult::passed();
        }
        let mut least = plan;
        while let Some(less) = least.shrink().find(|plan| failed(plan)) {
            least = less;
        }
        quickcheck::TestResult::error(format!("{least:?}"))
    }
}

/// The opener sends on every stream, the acceptor sends it back, and both read to the end.
async fn carry(plan: Plan, near_control: FlowControl, far_control: FlowControl) {
    let (near, far) = duplex(plan.pipe);
    let near = Fragmented::new(near, plan.seed, plan.most);
    let far = Fragmented::new(far, !plan.seed, plan.most);
    let (opener, one) = client(near, config(|config| config.spdy.flow_control = near_control));
    let (acceptor, two) = server(far, config(|config| config.spdy.flow_control = far_control));

    let count = plan.streams.len();
    let seed = plan.seed;
    let echoes = tokio::spawn(async move {
        let mut echoes = Vec::new();
        for _ in 0..count {
            let stream = accept(&acceptor).await;
            echoes.push(tokio::spawn(echo(stream)));
        }
        for echo in echoes {
            echo.await.unwrap();
        }
        acceptor
    });
    let mut transfers = Vec::new();
    for (at, transfer) in plan.streams.into_iter().enumerate() {
        transfers.push(tokio::spawn(there_and_back(opener.clone(), at, transfer, seed)));
    }
    let all = async {
        for transfer in transfers {
            transfer.await.unwrap();
        }
        let acceptor = echoes.await.unwrap();
        let (first, second) = tokio::join!(opener.shutdown(), acceptor.shutdown());
        first.unwrap();
        second.unwrap();
    };
    timeout(Duration::from_secs(3600), all).await.expect("not stuck");
    one.await.unwrap().unwrap();
    two.await.unwrap().unwrap();
}

async fn echo(mut stream: Stream) {
    while let Some(data) = stream.data().await {
        stream.send(data.unwrap()).await.unwrap();
    }
    stream.finish();
}

async fn there_and_back(mux: Multiplexer, at: usize, transfer: Transfer, seed: u64) {
    let stream = mux.open(named(&at.to_string())).await.unwrap();
    let len = transfer.chunks.iter().sum();
    let (recv, send) = stream.split();
    let sent = pattern(at, len);
    let writer = tokio::spawn(write(send, sent.clone(), transfer.clone()));
    let came = read(recv, transfer.owned, seed).await.unwrap();
    assert!(came == sent, "stream {at}: {} of {len} bytes", came.len());
    writer.await.unwrap().unwrap();
}

async fn write(mut send: SendHalf, mut rest: bytes::Bytes, transfer: Transfer) -> Result<(), StreamError> {
    for chunk in transfer.chunks {
        let chunk = rest.split_to(chunk);
        if transfer.owned {
            send.send(chunk).await?;
        } else {
            send.write_all(&chunk).await.unwrap();
        }
    }
    send.finish();
    Ok(())
}

async fn read(mut recv: RecvHalf, owned: bool, seed: u64) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    let mut random = Random::new(seed);
    let mut buf = [0; 5000];
    loop {
        if owned || random.below(3) == 0 {
            match recv.data().await {
                Some(data) => all.extend_from_slice(&data?),
                None => return Ok(all),
            }
        } else {
            let room = random.below(buf.len()) + 1;
            match recv.read(&mut buf[..room]).await.unwrap() {
                0 => return Ok(all),
                read => all.extend_from_slice(&buf[..read]),
            }
        }
    }
}
