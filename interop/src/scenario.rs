//! The accepting side of the README's scenarios, over this library.
//!
//! Serves a foreign client that opens the streams. The client judges the result.

use bytes::Bytes;
use kubestream::StreamError;
use kubestream::mux::RstStatus;
use kubestream::mux::{Config, Incoming, Multiplexer, RecvHalf, SendHalf};
use kubestream::upgrade::Upgraded;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::transfer::{digest, read_all, send_pattern};

/// Serves a connection to its end.
///
/// # Panics
/// Panics, in the task of its stream, if a stream does not follow its scenario. The client then gets no answer.
pub async fn serve<IO>(io: IO, config: Config)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mux, driver) = Multiplexer::server(Upgraded::from_io(io), config);
    tokio::spawn(driver);
    while let Some(Ok(incoming)) = mux.accept().await {
        tokio::spawn(act(mux.clone(), incoming));
    }
}

async fn act(mux: Multiplexer, incoming: Incoming) {
    let headers = incoming.headers().clone();
    let scenario = headers.get("scenario").expect("a scenario");
    let length = headers.get("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
    if scenario == "refuse" {
        return incoming.refuse();
    }
    let stream = match scenario {
        "headers" => incoming.reply_with(headers.clone()).expect("the received bytes can be sent"),
        _ => incoming.reply(),
    };
    let (mut recv, mut send) = stream.split();
    let acted = match scenario {
        "echo" => echo_back(&mut recv, &mut send).await,
        "half-close" => match read_all(&mut recv).await {
            Ok(all) => send.send(all.into()).await,
            Err(error) => Err(error),
        },
        "reset" => {
            let data = recv.data().await;
            send.reset(RstStatus::CANCEL);
            assert!(matches!(data, Some(Ok(_))), "{data:?}");
            return;
        }
        "source" | "goaway" => send_pattern(&mut send, length).await,
        "sink" => match read_all(&mut recv).await {
            Ok(all) => send.send(digest(&all).into()).await,
            Err(error) => Err(error),
        },
        "ping" => {
            for _ in 0..10 {
                mux.ping().await.expect("an answer");
            }
            send.send(Bytes::from_static(b"10 pings")).await
        }
        "headers" => Ok(()),
        other => panic!("unknown scenario {other:?}"),
    };
    acted.unwrap_or_else(|error| panic!("{scenario}: {error}"));
    send.finish();
    if scenario == "goaway" {
        mux.shutdown().await.expect("an orderly end");
    }
}

async fn echo_back(recv: &mut RecvHalf, send: &mut SendHalf) -> Result<(), StreamError> {
    while let Some(data) = recv.data().await {
        send.send(data?).await?;
    }
    Ok(())
}
