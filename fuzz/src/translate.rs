//! Tests a session that is translated twice: from any protocol to any other, and on to a third.
//!
//! Plays the two users. Time is virtual and passes only while no task can run.

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use kubestream::exec::{Exec, ExecServer, Options, Reader, Streams};
use kubestream::mux::{Config, Multiplexer, SendHalf};
use kubestream::status::{ExitStatus, Status, TerminalSize};
use kubestream::upgrade::{Protocol, Upgraded, Version};
use kubestream_proxy::translate_exec;
use tokio::io::{DuplexStream, duplex};
use tokio::time::{sleep, timeout};

use crate::io;

/// One write: its length, and whether something else happens first.
#[derive(Arbitrary, Debug)]
struct Piece {
    len: u16,
    late: bool,
}

impl Piece {
    /// Its bytes, at least one, so that a reader of all bytes has waited for it. Their values tell the pieces apart.
    fn bytes(&self, stream: u8, at: usize) -> Vec<u8> {
        let first = stream.wrapping_add(u8::try_from(at % 251).unwrap());
        (0..=self.len % 1000).map(|place| first.wrapping_add(u8::try_from(place % 253).unwrap())).collect()
    }

    async fn data(&self, stream: u8, at: usize) -> Bytes {
        if self.late {
            sleep(Duration::from_secs(1)).await;
        }
        self.bytes(stream, at).into()
    }
}

fn all(stream: u8, pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().enumerate().flat_map(|(at, piece)| piece.bytes(stream, at)).collect()
}

#[derive(Debug)]
struct Plan {
    /// The protocols of the client, of the connection between the translators, and of the server.
    protocols: [Protocol; 3],
    streams: Streams,
    /// How many bytes fit between two ends.
    room: usize,
    stdin: Vec<Piece>,
    stdout: Vec<Piece>,
    stderr: Vec<Piece>,
    sizes: Vec<(u8, u8)>,
    /// The process does not read its stdin.
    deaf: bool,
    status: ExitStatus,
}

/// With any three protocols in a row, the outputs, stdin and the last size of a session arrive as they were sent, and
/// so does the status, as far as each protocol can express it.
pub fn translate(input: &[u8]) {
    const PATIENCE: Duration = Duration::from_secs(60 * 60);
    if let Ok(plan) = plan(&mut Unstructured::new(input)) {
        io::run(async { timeout(PATIENCE, Box::pin(session(&plan))).await.expect("it hangs") });
    }
}

fn plan(input: &mut Unstructured<'_>) -> Result<Plan> {
    let mut protocol = || input.choose(Protocol::ANY_EXEC).copied();
    let protocols = [protocol()?, protocol()?, protocol()?];
    let mut streams = *input.choose(&[Streams::OUTPUT, Streams::PIPES, Streams::TTY])?;
    streams.stdin = input.arbitrary()?;
    let room = *input.choose(&[4096, 300, 64])?;
    let deaf = u8::arbitrary(input)? % 4 == 3;
    let status = match u8::arbitrary(input)? % 4 {
        0 => ExitStatus::Success,
        1 => ExitStatus::Code(i32::from(u8::arbitrary(input)?.max(1))),
        2 => ExitStatus::Code(i32::arbitrary(input)?.max(1)),
        _ => ExitStatus::Failed(Box::new(Status::internal_error(String::arbitrary(input)?))),
    };
    let sizes = input.arbitrary()?;
    Ok(Plan {
        protocols,
        streams,
        room,
        stdin: input.arbitrary()?,
        stdout: input.arbitrary()?,
        stderr: input.arbitrary()?,
        sizes,
        deaf,
        status,
    })
}

impl Plan {
    fn can_end_stdin(&self) -> bool {
        self.protocols.iter().all(|protocol| protocol.can_end_stdin())
    }

    fn last_size(&self) -> Option<TerminalSize> {
        let old = |protocol: &Protocol| matches!(protocol, Protocol::SpdyExec(version) if *version < Version::V3);
        let last = self.sizes.last().filter(|_| self.streams.tty && !self.protocols.iter().any(old));
        last.map(|size| self.size(size))
    }

    /// All sizes differ, so that the last one can be recognised.
    fn size(&self, size: &(u8, u8)) -> TerminalSize {
        let at = self.sizes.iter().position(|other| std::ptr::eq(other, size)).unwrap_or_default();
        TerminalSize { width: u16::try_from(at).unwrap_or(u16::MAX), height: size.1.into() }
    }

    /// What is left of the status after each version that it passed.
    fn said(&self) -> ExitStatus {
        self.protocols.iter().rev().fold(self.status.clone(), |status, protocol| {
            let version = protocol.version().unwrap();
            ExitStatus::decode(version, &status.encode(version)).unwrap().unwrap()
        })
    }
}

async fn session(plan: &Plan) {
    let [from, between, to] = plan.protocols;
    let [(client, first), (second, third), (fourth, server)] = [(); 3].map(|()| duplex(plan.room));
    let end = |io: DuplexStream, protocol| Upgraded::new(io, Bytes::new(), Some(protocol));
    let (client, client_driver) = Multiplexer::client(end(client, from), Config::exec());
    let (server, server_driver) = Multiplexer::server(end(server, to), Config::exec());
    let options = Options::default();
    let there = translate_exec(end(first, from), end(second, between), plan.streams, Config::exec(), &options);
    let back = translate_exec(end(third, between), end(fourth, to), plan.streams, Config::exec(), &options);
    let user = async move {
        let exec = client.exec(plan.streams).await.unwrap();
        drop(client);
        use_remote(plan, exec).await;
    };
    let process = async move {
        let process = server.accept_exec(plan.streams).await.unwrap();
        drop(server);
        be_process(plan, process).await;
    };
    let (there, back, ..) = tokio::join!(there, back, client_driver, server_driver, user, process);
    there.unwrap();
    back.unwrap();
}

async fn use_remote(plan: &Plan, mut exec: Exec) {
    let (stdin, resize) = (exec.stdin.take(), exec.resize.take());
    let (stdout, stderr) = (exec.stdout.take(), exec.stderr.take());
    let typing = async {
        let Some(mut stdin) = stdin else { return };
        for (at, piece) in plan.stdin.iter().enumerate() {
            let sent = stdin.send(piece.data(b'i', at).await).await;
            assert!(sent.is_ok() || plan.deaf, "{sent:?}");
        }
        stdin.finish();
    };
    let sizing = async {
        let Some(mut resize) = resize else { return };
        for size in &plan.sizes {
            let sent = resize.resize(plan.size(size)).await;
            // If the last size was lost on its way, no reader waits for it.
            assert!(sent.is_ok() || plan.last_size().is_none(), "{sent:?}");
        }
    };
    let ((), (), stdout, stderr, status) = tokio::join!(typing, sizing, collect(stdout), collect(stderr), exec.wait());
    assert!(stdout.is_none_or(|read| read == all(b'o', &plan.stdout)), "stdout");
    assert!(stderr.is_none_or(|read| read == all(b'e', &plan.stderr)), "stderr");
    assert_eq!(status.unwrap(), plan.said());
}

async fn collect(output: Option<Reader>) -> Option<Vec<u8>> {
    let (mut output, mut read) = (output?, Vec::new());
    while let Some(data) = output.data().await {
        read.extend_from_slice(&data.unwrap());
    }
    Some(read)
}

async fn be_process(plan: &Plan, mut process: ExecServer) {
    let (stdin, resize) = (process.stdin.as_mut().filter(|_| !plan.deaf), process.resize.as_mut());
    let reading = async {
        let Some(stdin) = stdin else { return };
        let (sent, mut read) = (all(b'i', &plan.stdin), Vec::new());
        while read.len() < sent.len() || plan.can_end_stdin() {
            match stdin.data().await {
                Some(data) => read.extend_from_slice(&data.unwrap()),
                None => break,
            }
        }
        assert!(read == sent, "stdin");
    };
    let seeing = async {
        let (Some(last), Some(resize)) = (plan.last_size(), resize) else { return };
        while resize.next().await.expect("a terminal without its last size") != last {}
    };
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let outputs = tokio::join!(reading, seeing, write(stdout, b'o', &plan.stdout), write(stderr, b'e', &plan.stderr));
    // This comes last, because after all outputs have ended a status is awaited for a limited time only.
    drop(outputs);
    process.exit(plan.status.clone()).await.unwrap();
}

async fn write(mut output: Option<SendHalf>, stream: u8, pieces: &[Piece]) -> Option<SendHalf> {
    for (at, piece) in pieces.iter().enumerate() {
        if let Some(output) = &mut output {
            output.send(piece.data(stream, at).await).await.unwrap();
        }
    }
    output
}
