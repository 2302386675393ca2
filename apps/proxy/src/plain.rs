//! Passes ordinary requests on: one on each connection, with its whole answer.
//!
//! No second request passes on the same connection, because it would not have been authorised.

use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderValue, Request, StatusCode, Version};
use kubestream::upgrade::{self, Pending};
use kubestream_apps::{Failure, api};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::time::timeout;

/// Passes a request and its body on, and the answer back.
pub(crate) async fn pass<C, B>(client: Pending<C>, mut backend: B, mut request: Request<()>) -> Result<(), Failure>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let headers = client.request().headers();
    let lengths: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().map(HeaderValue::to_str).collect();
    let length = match &lengths[..] {
        [] => Some(0),
        [Ok(length)] if length.bytes().all(|byte| byte.is_ascii_digit()) => length.parse::<u64>().ok(),
        _ => None,
    };
    let Some(length) = length.filter(|_| !headers.contains_key(header::TRANSFER_ENCODING)) else {
        let message = "this proxy only passes on bodies of known length";
        let response = api::failure(StatusCode::LENGTH_REQUIRED, "BadRequest", message);
        return Ok(client.respond(response).await?);
    };
    if length > 0 {
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    // The answer passes unchanged, and a client of HTTP/1.0 cannot read chunks.
    let version = if client.request().version() == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let (mut client, ahead) = client.into_io();
    let (mut reads, mut writes) = tokio::io::split(&mut backend);
    let (mut from_client, mut to_client) = tokio::io::split(&mut client);
    const REST: Duration = Duration::from_secs(5);
    let answered = {
        let up = async {
            writes.write_all(&head(&request, version)).await?;
            let mut body = ahead.chain(&mut from_client).take(length);
            copy(&mut body, &mut writes).await?;
            writes.flush().await?;
            // If the client has gone, nothing is to be answered. If it sends more, that is ignored.
            match from_client.read(&mut [0]).await {
                Ok(0) => Ok(()),
                Ok(_) => std::future::pending().await,
                Err(error) => Err(error),
            }
        };
        let down = async {
            copy(&mut reads, &mut to_client).await?;
            to_client.shutdown().await
        };
        let (up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
        tokio::select! {
            done = &mut down => done,
            // A backend may refuse a body before its end, and give its reason.
            sent = up => match sent {
                Ok(()) => return Ok(()),
                Err(_) => timeout(REST, down).await?,
            },
        }
    };
    answered?;
    // Closing a socket with unread bytes would destroy the answer on its way.
    let _ = timeout(REST, copy(&mut from_client, &mut sink())).await;
    Ok(())
}

/// Asks for JSON of at most 16 MiB.
pub(crate) async fn get_json<B>(mut backend: B, request: &Request<()>) -> Result<serde_json::Value, Failure>
where
    B: AsyncRead + AsyncWrite + Unpin,
{
    const MOST: u64 = 16 * 1024 * 1024;
    let mut answer = Vec::new();
    let asking = async {
        // HTTP/1.0 has no chunked bodies, and the answer ends with the connection.
        backend.write_all(&head(request, "HTTP/1.0")).await?;
        backend.take(MOST).read_to_end(&mut answer).await
    };
    timeout(Duration::from_secs(10), asking).await??;
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or("an answer without a head")?;
    let (head, body) = answer.split_at(end);
    let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if status != b"200" {
        return Err(format!("{}: {}", status.escape_ascii(), body.trim_ascii().escape_ascii()).into());
    }
    Ok(serde_json::from_slice(body)?)
}

/// The types of `http` exclude line breaks, so nothing can be injected here.
fn head(request: &Request<()>, version: &str) -> Vec<u8> {
    let (path, query) = (request.uri().path(), upgrade::query(request));
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut head = format!("{} {target} {version}\r\nConnection: close\r\n", request.method()).into_bytes();
    let line = |head: &mut Vec<u8>, name: &HeaderName, value: &[u8]| {
        head.extend([name.as_str().as_bytes(), b": ", value, b"\r\n"].concat());
    };
    for (name, value) in request.headers() {
        line(&mut head, name, value.as_bytes());
    }
    head.extend(b"\r\n");
    head
}
