//! Passes ordinary requests on: one on each connection, with its whole answer.
//!
//! No second request passes on the same connection, because it would not have been authorised.

use std::io::ErrorKind;
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderValue, Request, StatusCode, Version};
use kubestream::upgrade::{self, Pending};
use kubestream_apps::{Failure, api};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy, sink};
use tokio::time::timeout;

use crate::chunked;

/// Passes a request and its body on, and the answer back.
pub(crate) async fn pass<C, B>(client: Pending<C>, mut backend: B, mut request: Request<()>) -> Result<(), Failure>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let Some(body) = Body::of(client.request()) else {
        let message = "the length of the request's body is not clear";
        return Ok(client.respond(api::failure(StatusCode::BAD_REQUEST, "BadRequest", message)).await?);
    };
    match body {
        Body::Length(0) => {}
        Body::Length(length) => drop(request.headers_mut().insert(header::CONTENT_LENGTH, length.into())),
        Body::Chunked => {
            drop(request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked")));
        }
    }
    // The answer passes unchanged, and a client of HTTP/1.0 cannot read chunks.
    let version = if client.request().version() == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let (mut client, ahead) = client.into_io();
    let (mut reads, mut writes) = tokio::io::split(&mut backend);
    let (from_client, mut to_client) = tokio::io::split(&mut client);
    let mut from_client = BufReader::new((&ahead[..]).chain(from_client));
    const REST: Duration = Duration::from_secs(5);
    let answered = {
        let up = async {
            writes.write_all(&head(&request, version)).await?;
            writes.flush().await?;
            match body {
                Body::Length(length) => drop(copy(&mut (&mut from_client).take(length), &mut writes).await?),
                Body::Chunked => chunked::pass(&mut from_client, &mut writes).await?,
            }
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
                // It has no end that the backend could wait for.
                Err(error) if error.kind() == ErrorKind::InvalidData => return Err(error.into()),
                Err(_) => timeout(REST, down).await?,
            },
        }
    };
    answered?;
    // Closing a socket with unread bytes would destroy the answer on its way.
    let _ = timeout(REST, copy(&mut from_client, &mut sink())).await;
    Ok(())
}

/// How long a request's body is.
#[derive(Clone, Copy)]
enum Body {
    Length(u64),
    Chunked,
}

impl Body {
    /// `None` if the next server could find another length (RFC 9112 §6.3).
    fn of(request: &Request<()>) -> Option<Self> {
        let lines = |name| request.headers().get_all(name).iter().map(HeaderValue::to_str).collect::<Vec<_>>();
        match (&lines(header::CONTENT_LENGTH)[..], &lines(header::TRANSFER_ENCODING)[..]) {
            ([], []) => Some(Self::Length(0)),
            ([Ok(length)], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().ok().map(Self::Length)
            }
            ([], [Ok(coding)]) if coding.eq_ignore_ascii_case("chunked") && request.version() == Version::HTTP_11 => {
                Some(Self::Chunked)
            }
            _ => None,
        }
    }
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
