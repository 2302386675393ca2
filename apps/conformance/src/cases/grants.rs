//! A client that sends WINDOW_UPDATE to a server that may have no flow control.
//!
//! Holds a client that works with single frames. The library's own client sends no WINDOW_UPDATE until the server has
//! shown that it has flow control.

use bytes::BytesMut;
use kubestream::exec::Streams;
use kubestream::mux::Headers;
use kubestream::mux::SpdyConfig;
use kubestream::status::ExitStatus;
use kubestream::unstable::wire::spdy::StreamId;
use kubestream::unstable::wire::spdy::{Codec, Frame};
use kubestream::upgrade::{Protocol, Upgraded, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder};

use crate::bench::{Bench, within};
use crate::target::Io;
use crate::verdict::{Departure, Instead, Outcome, failed};

const ERROR: u32 = 1;
const STDOUT: u32 = 3;
const STDERR: u32 = 5;

/// Runs a command, and answers each DATA frame of its output with a WINDOW_UPDATE for the stream and another for the
/// session. Returns the length of the output and the status.
pub(super) async fn run(bench: &Bench, command: &[&str]) -> Outcome<(usize, Outcome<ExitStatus>)> {
    let Protocol::SpdyExec(version) = bench.column.protocol else {
        return Err(Departure::NotOffered("WebSocket has no windows".into()));
    };
    let url = bench.exec_url(command, Streams::OUTPUT);
    let upgraded = bench.offer(&url, &[bench.column.protocol]).await?.instead_of("an upgrade")?;
    let mut came = 0;
    let conversation = converse(upgraded, version, &mut came);
    let ended = within("the end of the command", bench.scale.patience, conversation).await;
    Ok((came, ended.and_then(|status| status)))
}

async fn converse(upgraded: Upgraded<Box<dyn Io>>, version: Version, came: &mut usize) -> Outcome<ExitStatus> {
    let (mut io, ahead, _) = upgraded.into_parts();
    let mut codec = Codec::new(SpdyConfig::default());
    let mut out = BytesMut::new();
    for (id, kind) in [(ERROR, "error"), (STDOUT, "stdout"), (STDERR, "stderr")] {
        let syn = Frame::SynStream {
            id: StreamId::new(id),
            associated: StreamId::SESSION,
            priority: 0,
            slot: 0,
            fin: false,
            unidirectional: false,
            headers: Headers::from_iter([("streamtype", kind)]),
        };
        codec.encode(syn, &mut out).instead_of("a frame")?;
    }
    io.write_all(&out).await.instead_of("a server that reads")?;
    let (mut input, mut said, mut is_over) = (BytesMut::from(&ahead[..]), Vec::new(), false);
    let mut goodbye = None;
    loop {
        out.clear();
        while let Some(frame) = codec.decode(&mut input).instead_of("a frame")? {
            match frame {
                Frame::Data { id, data, .. } if id.get() == ERROR => said.extend_from_slice(&data),
                Frame::Data { id, fin, data } => {
                    if id.get() == STDOUT {
                        *came += data.len();
                        is_over |= fin;
                    }
                    for id in [id, StreamId::SESSION].into_iter().filter(|_| !data.is_empty()) {
                        codec
                            .encode(Frame::WindowUpdate { id, delta: data.len() as u32 }, &mut out)
                            .instead_of("a frame")?;
                    }
                }
                Frame::RstStream { id, .. } if id.get() == STDOUT => is_over = true,
                Frame::GoAway { status, .. } => goodbye = Some(status),
                _ => {}
            }
        }
        // The status may have come in part. Cut JSON does not parse, and cut text has no exit code.
        let status = ExitStatus::decode(version, &said).ok().flatten();
        let whole = |status: &ExitStatus| version >= Version::V4 || matches!(status, ExitStatus::Code(_));
        if let Some(status) = status.filter(|status| is_over && whole(status)) {
            return Ok(status);
        }
        // If the server is gone, the next read shows it.
        let _ = io.write_all(&out).await;
        // Without this, the full buffer would grow by 64 bytes at a time.
        input.reserve(32 * 1024);
        let read = io.read_buf(&mut input).await.instead_of("a status")?;
        if read == 0 {
            let goodbye = goodbye.map_or_else(|| "no GOAWAY".to_owned(), |status| format!("a GOAWAY of {status:?}"));
            return Err(failed("a status", format_args!("the end of the connection, and {goodbye}")));
        }
    }
}
