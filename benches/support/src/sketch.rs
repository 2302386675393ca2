//! What framing costs at least: an 8 byte head before each write, over raw TCP on tokio, and nothing else.
//!
//! Holds a sketch of a multiplexer and no features of one: no flow control, no headers, no end of a stream. It works
//! either in the tasks that have and want the bytes, or with a hop to a task that owns the connection.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::table::Sample;
use super::{Flavor, Meter, Outcome, PAGE, Plan, aligned, aligned_mut, ends};

const HEAD: usize = 8;
const READ: usize = 256 * 1024;
/// How many pieces wait between two tasks.
const QUEUED: usize = 16;
/// How many buffers a reader keeps for reuse.
const SPARES: usize = 16;

/// Each frame is written by the task that has its bytes. Several streams have a task each, which take turns. One task
/// reads what it wants: all frames, in their order.
pub fn bulk(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let server = move |mut io: TcpStream| async move {
        let mut block = vec![0; READ + PAGE];
        let buffer = aligned_mut(&mut block, READ);
        let mut frames = Frames::default();
        for part in [plan.warm_up(), plan] {
            let (mut left, mut held) = (part.bytes, 0);
            while left > 0 {
                held += read(&mut io, &mut buffer[held..]).await?;
                let mut at = 0;
                while let Some(piece) = frames.next(&buffer[at..held])? {
                    at += piece.end;
                    left -= piece.end - piece.begin;
                }
                buffer.copy_within(at..held, 0);
                held -= at;
            }
            io.write_all(&[1]).await?;
        }
        Ok(())
    };
    ends(flavor, server, move |io| async move {
        let (mut answers, writes) = io.into_split();
        let writes = Arc::new(Mutex::new(writes));
        let mut meter = Meter::start();
        for part in [plan.warm_up(), plan] {
            meter = Meter::start();
            let mut writers = JoinSet::new();
            for number in 0..part.streams {
                let writes = Arc::clone(&writes);
                writers.spawn(async move {
                    let data = aligned(part.size);
                    for _ in 0..part.writes() / part.streams {
                        write(&mut *writes.lock().await, number, data.clone()).await?;
                    }
                    Outcome::Ok(())
                });
            }
            all(writers).await?;
            answers.read_u8().await?;
        }
        Ok(meter.transferred(plan))
    })
}

/// As [`bulk`], with a hop at each end: one task writes what others hand to it, and one reads and hands on. Each stream
/// has a task of its own behind them.
pub fn bulk_with_hops(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let server = move |mut io: TcpStream| async move {
        let (mut frames, mut buffers) = (Frames::default(), Buffers::default());
        for part in [plan.warm_up(), plan] {
            let (mut readers, mut streams) = (JoinSet::new(), Vec::new());
            for _ in 0..part.streams {
                let (hand, mut handed) = mpsc::channel::<Bytes>(QUEUED);
                streams.push(hand);
                readers.spawn(async move {
                    let mut bytes = 0;
                    while let Some(piece) = handed.recv().await {
                        bytes += piece.len();
                    }
                    if bytes == part.bytes / part.streams { Outcome::Ok(()) } else { Err("bytes are missing".into()) }
                });
            }
            let (mut left, mut rest) = (part.bytes, Bytes::new());
            while left > 0 {
                let whole = buffers.filled(&mut io, &rest).await?;
                let mut at = 0;
                while let Some(piece) = frames.next(&whole[at..])? {
                    let data = whole.slice(at + piece.begin..at + piece.end);
                    left -= data.len();
                    at += piece.end;
                    streams.get(piece.stream).ok_or("an unknown stream")?.send(data).await?;
                }
                rest = whole.slice(at..);
            }
            drop(streams);
            all(readers).await?;
            io.write_all(&[1]).await?;
        }
        Ok(())
    };
    ends(flavor, server, move |io| async move {
        let (mut answers, mut writes) = io.into_split();
        let (hand, mut handed) = mpsc::channel::<(usize, Bytes)>(QUEUED);
        let writing = tokio::spawn(async move {
            while let Some((number, data)) = handed.recv().await {
                write(&mut writes, number, data).await?;
            }
            Outcome::Ok(())
        });
        let mut meter = Meter::start();
        for part in [plan.warm_up(), plan] {
            meter = Meter::start();
            let mut writers = JoinSet::new();
            for number in 0..part.streams {
                let hand = hand.clone();
                writers.spawn(async move {
                    let data = aligned(part.size);
                    for _ in 0..part.writes() / part.streams {
                        hand.send((number, data.clone())).await?;
                    }
                    Outcome::Ok(())
                });
            }
            all(writers).await?;
            answers.read_u8().await?;
        }
        let sample = meter.transferred(plan);
        drop(hand);
        writing.await??;
        Ok(sample)
    })
}

async fn all(mut tasks: JoinSet<Outcome<()>>) -> Outcome<()> {
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

async fn read(io: &mut TcpStream, buffer: &mut [u8]) -> Outcome<usize> {
    match io.read(buffer).await? {
        0 => Err("the end came early".into()),
        count => Ok(count),
    }
}

/// Writes a frame with one call, if the socket takes all of it.
async fn write(io: &mut (impl AsyncWrite + Unpin), stream: usize, data: Bytes) -> Outcome<()> {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&u32::try_from(stream)?.to_be_bytes());
    head[4..].copy_from_slice(&u32::try_from(data.len())?.to_be_bytes());
    io.write_all_buf(&mut Buf::chain(head.as_slice(), data)).await?;
    Ok(())
}

/// A piece of a frame's payload, and where it is in the bytes that were read.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    stream: usize,
    begin: usize,
    end: usize,
}

/// Where the reader is in a frame.
#[derive(Debug, Default)]
struct Frames {
    stream: usize,
    left: usize,
}

impl Frames {
    /// The next piece of payload at the begin of `bytes`, behind its head if that is there. `None` if more must be read
    /// first.
    fn next(&mut self, bytes: &[u8]) -> Outcome<Option<Piece>> {
        let mut begin = 0;
        if self.left == 0 {
            let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
            let mut head = head.as_slice();
            self.stream = usize::try_from(head.get_u32())?;
            self.left = usize::try_from(head.get_u32())?;
            begin = HEAD;
        }
        let end = bytes.len().min(begin + self.left);
        self.left -= end - begin;
        // A head alone is a piece without bytes: its reader goes on behind it.
        Ok((end > 0).then_some(Piece { stream: self.stream, begin, end }))
    }
}

/// Buffers that begin at a page, and are used again when nobody has a piece of them.
#[derive(Default)]
struct Buffers(VecDeque<Bytes>);

impl Buffers {
    /// A buffer with `rest` at its begin and, behind that, what one read brings.
    async fn filled(&mut self, io: &mut TcpStream, rest: &[u8]) -> Outcome<Bytes> {
        let mut buffer = self.free();
        buffer[..rest.len()].copy_from_slice(rest);
        let filled = rest.len() + read(io, &mut buffer[rest.len()..]).await?;
        let whole = buffer.freeze();
        if self.0.len() == SPARES {
            self.0.pop_front();
        }
        self.0.push_back(whole.clone());
        Ok(whole.slice(..filled))
    }

    fn free(&mut self) -> BytesMut {
        let at = self.0.iter().position(Bytes::is_unique);
        if let Some(Ok(buffer)) = at.and_then(|at| self.0.remove(at)).map(Bytes::try_into_mut) {
            return buffer;
        }
        let mut block = BytesMut::zeroed(READ + PAGE);
        block.advance(block.as_ptr().align_offset(PAGE));
        block.truncate(READ);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() -> Outcome<()> {
        let mut wire = Vec::new();
        for (stream, payload) in [(0u32, &b"abc"[..]), (7, b"defgh"), (1, b"")] {
            wire.extend(stream.to_be_bytes());
            wire.extend(u32::try_from(payload.len())?.to_be_bytes());
            wire.extend(payload);
        }
        for cut in 1..=wire.len() {
            let (mut frames, mut held, mut got) = (Frames::default(), Vec::new(), Vec::new());
            for arrived in wire.chunks(cut) {
                held.extend(arrived);
                while let Some(piece) = frames.next(&held)? {
                    got.extend(held[piece.begin..piece.end].iter().map(|byte| (piece.stream, *byte)));
                    held.drain(..piece.end);
                }
            }
            let expected: Vec<_> =
                b"abc".iter().map(|byte| (0, *byte)).chain(b"defgh".iter().map(|byte| (7, *byte))).collect();
            assert_eq!(got, expected, "cut into {cut}");
            assert!(held.is_empty());
        }
        Ok(())
    }

    #[test]
    fn every_byte_arrives_with_and_without_hops() -> Outcome<()> {
        let plan = Plan { bytes: 64 * 32 * 1024, ..Plan::default() };
        for flavor in Flavor::ALL {
            for streams in [1, 8] {
                // Both fail if bytes are missing.
                bulk(flavor, Plan { streams, ..plan })?;
                bulk_with_hops(flavor, Plan { streams, ..plan })?;
            }
        }
        Ok(())
    }
}
