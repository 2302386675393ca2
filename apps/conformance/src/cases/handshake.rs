//! Requests that arrive in ways no client should send them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use kubestream::exec::Streams;
use kubestream::status::ExitStatus;
use kubestream::upgrade::{Protocol, Upgraded};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::bench::{Bench, rest, within};
use crate::known;
use crate::target::Io;
use crate::verdict::{Instead, Outcome, expect, failed};

pub(super) async fn byte_by_byte(bench: Bench) -> Outcome {
    let protocol = bench.newest()?;
    let url = bench.exec_url(&["true"], Streams::OUTPUT);
    let slow = Dribbling(bench.dial().await?);
    let upgraded = bench.offer_over(slow, &url, &[protocol]).await?.instead_of("an upgrade")?;
    expect(upgraded.protocol(), Some(protocol))
}

pub(super) async fn early_bytes(bench: Bench) -> Outcome {
    let protocol = bench.newest()?;
    let command = ["sh", "-c", "read line; echo \"got $line\"; exit 7"];
    let url = bench.exec_url(&command, Streams::PIPES);
    let early = Early::new(&bench, &url, protocol).await?;
    let session = early_session(&bench, early, protocol).await;
    // A server that lost the early bytes looks like one that does not answer, so silence is counted as that loss.
    session.map_err(|departure| departure.known_silence(&known::EARLY_BYTES_LOST))
}

async fn early_session(bench: &Bench, early: Early, protocol: Protocol) -> Outcome {
    let upgraded = Upgraded::new(early, Bytes::new(), Some(protocol));
    let mut session = bench.session_on(upgraded, Streams::PIPES).await?;
    let mut stdin = session.exec.stdin.take();
    if let Some(stdin) = &mut stdin {
        stdin.send(Bytes::from_static(b"early\n")).await.instead_of("stdin")?;
    }
    let (stdout, mut out) = (session.exec.stdout.take(), Vec::new());
    let heard = |data: Bytes| out.extend_from_slice(&data);
    let status = rest(bench.scale.patience, &mut session.exec, stdout, heard).await?;
    expect((String::from_utf8_lossy(&out).as_ref(), status), ("got early\n", ExitStatus::Code(7)))
}

pub(super) async fn endless_head(bench: Bench) -> Outcome {
    const MEGABYTES: usize = 4;
    let url = bench.exec_url(&["true"], Streams::OUTPUT);
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    let mut io = bench.dial().await?;
    let flood = async {
        io.write_all(format!("GET /{path} HTTP/1.1\r\nHost: conformance\r\n").as_bytes()).await?;
        let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
        for _ in 0..MEGABYTES * 1000 {
            io.write_all(line.as_bytes()).await?;
        }
        io.flush().await
    };
    // The server may close or reset while the client still writes.
    let _ = within("an end", bench.scale.patience, flood).await?;
    let mut answer = Vec::new();
    let mut io = io.take(64 * 1024);
    let _ = within("an end of the connection", bench.scale.patience, io.read_to_end(&mut answer)).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).map(str::to_owned);
    match status.as_deref() {
        None if answer.is_empty() => Ok(()),
        Some(status) if status.starts_with('4') => Ok(()),
        _ => Err(failed("431, another 4xx, or the end of the connection", answer)),
    }
}

/// Writes one byte at a time.
struct Dribbling(Box<dyn Io>);

impl AsyncRead for Dribbling {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dribbling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // Each byte is flushed, or TLS would put several into one record.
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Pin::new(&mut self.0).poll_write(cx, &buf[..buf.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Writes the head of the request and the first bytes of the session at once, and removes the head of the answer from
/// what is read.
struct Early {
    io: Box<dyn Io>,
    head: Bytes,
    /// The head of the request, then the session's first bytes.
    first: BytesMut,
    answer: BytesMut,
    answered: bool,
}

impl Early {
    async fn new(bench: &Bench, url: &str, protocol: Protocol) -> Outcome<Self> {
        let request = bench.request(bench.method(), url).await?.body(()).instead_of("a request")?;
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let host = request.uri().authority().map_or("", |authority| authority.as_str());
        let mut head = format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n", request.method());
        for (name, value) in request.headers() {
            head += &format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
        }
        let names = [protocol.name()];
        let names = if names[0].is_empty() { &[][..] } else { &names };
        for (name, value) in bench.upgrade_headers(names) {
            head += &format!("{name}: {value}\r\n");
        }
        if bench.column.is_spdy() {
            head += "Content-Length: 0\r\n";
        }
        head += "\r\n";
        let (first, answer) = (BytesMut::new(), BytesMut::new());
        Ok(Self { io: bench.dial().await?, head: head.into(), first, answer, answered: false })
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.first.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.first))?;
            self.first.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Early {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if !this.head.is_empty() {
            this.first.extend_from_slice(&std::mem::take(&mut this.head));
            this.first.extend_from_slice(buf);
            // The head is reported as written already, because it goes out first.
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(this.poll_first(cx))?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_first(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl AsyncRead for Early {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.answered {
            let mut piece = [0; 4096];
            let mut read = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                let head = String::from_utf8_lossy(&this.answer);
                return Poll::Ready(Err(io::Error::other(format!(
                    "the end of the connection within the head of the answer: {head}"
                ))));
            }
            this.answer.extend_from_slice(read.filled());
            if let Some(end) = this.answer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = this.answer.split_to(end + 4);
                let switched = format!("HTTP/1.1 {}", StatusCode::SWITCHING_PROTOCOLS.as_str());
                if !head.starts_with(switched.as_bytes()) {
                    let head = String::from_utf8_lossy(&head);
                    return Poll::Ready(Err(io::Error::other(format!("no upgrade: {head}"))));
                }
                this.answered = true;
            }
        }
        if this.answer.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let piece = this.answer.split_to(this.answer.len().min(buf.remaining()));
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}
