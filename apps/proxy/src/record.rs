//! Records sessions as they happen, as evidence of what was done in them.
//!
//! Nothing passes before it is written. A session waits for the disk without a time limit, and is closed if its
//! recording can no longer be written. "Written" means that the system has accepted the bytes; they are synced to the
//! disk at the end of a recording only. Bytes become streams elsewhere. A recording has its header before the backend is
//! asked. If the recorder cannot follow a session, the session is closed, or passes if the user said so; the recording
//! says it in both cases.
//!
//! Each recording is a file of its own, and readable at any time. Its last line is a marker that says how the session
//! ended. Without that marker the recording was cut off: the proxy ended, or could not write.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use clap::Args;
use http::{Response, StatusCode};
use kubestream::exec::ExecRequest;
use kubestream::mux::Config;
use kubestream::status::TerminalSize;
use kubestream::tap::{Side, StreamName, Tap, TapEvent};
use kubestream::upgrade::{self, Pending, Protocol};
use kubestream_apps::{Failure, api};
use kubestream_proxy::{Observer, Operation, Pipe, PipeOutcome, PodRequest};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_write_buf;

use crate::asciicast::{self, Kind, Text};
use crate::beside;

/// The size in the header of a recording. A client with a terminal sends its own size at once.
const SIZE: TerminalSize = TerminalSize { width: 80, height: 24 };

#[derive(Args)]
pub(crate) struct Record {
    /// Record each exec and attach session into a file of its own in this directory, as asciicast v2. The proxy then
    /// refuses every upgrade that is not exec, attach or port-forward, and every other request that may lead to a running
    /// process, such as those to nodes/NAME/proxy. Not recorded are port-forward, and what Kubernetes itself starts when
    /// an object is created or changed: a pod, a job, an ephemeral container.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Also record what is typed. Requires --record.
    #[arg(long, requires = "record")]
    record_input: bool,
    /// Let a session go on that cannot be recorded, because its protocol is unknown or its bytes cannot be read. Its
    /// recording says where it is incomplete. Without this option such a session is closed. Requires --record.
    #[arg(long, requires = "record")]
    allow_unrecorded: bool,
}

impl Record {
    /// Checks that the directory exists, because a proxy that cannot record must not start.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.record.as_ref().map_or(Ok(()), |directory| std::fs::read_dir(directory).map(drop))
    }

    /// Starts the recording of a request, or returns the response that refuses it. An unknown upgrade is refused,
    /// because it could be a session in another spelling.
    pub(crate) fn begin<IO>(&self, asked: &Pending<IO>) -> Result<Option<Recording>, Box<Response<Bytes>>> {
        let Some(directory) = self.record.as_deref() else { return Ok(None) };
        let (path, query) = (asked.request().uri().path(), upgrade::query(asked.request()));
        let refused = |message: &str| Box::new(api::failure(StatusCode::FORBIDDEN, "Forbidden", message));
        if !asked.is_upgrade() {
            let unknown =
                "this proxy records sessions, and passes on no other request that may lead to a running process";
            return if beside::passes(path) { Ok(None) } else { Err(refused(unknown)) };
        }
        let request = PodRequest::from_path(path, query)
            .map_err(|error| Box::new(api::failure(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string())))?;
        let unknown = || refused("this proxy records sessions, and does not pass on unknown upgrades");
        self.open(directory, &request.ok_or_else(unknown)?, query).map_err(|error| {
            let message = format!("the session cannot be recorded: {error}");
            Box::new(api::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message))
        })
    }

    fn open(&self, directory: &Path, request: &PodRequest, query: &str) -> io::Result<Option<Recording>> {
        let what = match request.operation {
            Operation::Exec => "exec",
            Operation::Attach => "attach",
            Operation::PortForward => return Ok(None),
        };
        let now = SystemTime::now();
        let container = request.container.as_deref().unwrap_or("-");
        let title = format!("{what} {}/{}/{container}", request.namespace, request.pod);
        let command = if request.operation == Operation::Exec {
            ExecRequest::from_query(query).map(|asked| asked.command.join(" "))
        } else {
            Ok(String::new())
        };
        let time = humantime::format_rfc3339_seconds(now).to_string().replace([':', '-'], "");
        // `PodRequest` has checked the names: they contain no slash and begin with no dot. A file name has at most 255
        // bytes.
        let part = |name: &str| name.get(..63).unwrap_or(name).to_owned();
        let prefix = format!("{time}_{}_{}_{}_", part(&request.namespace), part(&request.pod), part(container));
        let mut builder = tempfile::Builder::new();
        let mut file = builder.prefix(&prefix).suffix(".cast").rand_bytes(12).tempfile_in(directory)?;
        // If the disk is full, the session is refused before the backend is asked.
        file.write_all(&asciicast::header(SIZE, now, &title, &command.unwrap_or_default()))?;
        let (operation, input, must_follow) = (request.operation, self.record_input, !self.allow_unrecorded);
        Ok(Some(Recording { file, operation, input, must_follow }))
    }
}

/// The recording of a session. If the session does not come about, its file is removed.
pub(crate) struct Recording {
    file: NamedTempFile,
    operation: Operation,
    input: bool,
    must_follow: bool,
}

impl Recording {
    /// Passes a session on and records it.
    pub(crate) async fn run<C, B>(self, pipe: Pipe<C, B>) -> Result<PipeOutcome, Failure>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let (file, path) = self.file.keep()?;
        let mut recorder = Recorder::new(file, self.input, pipe.settled(self.operation), self.must_follow);
        if recorder.tap.is_none() {
            recorder.give_up(format!("not followed: the protocol {:?}", pipe.protocol()));
        }
        let moved = if recorder.lost.is_none() { Some(pipe.run_with(&mut recorder).await) } else { None };
        let lost = recorder.lost.take();
        let finished = async { recorder.finish().await?.sync_data().await };
        let closed = |why: &dyn std::fmt::Display| {
            Err(format!("the recording {}: {why}: the session was closed", path.display()).into())
        };
        match (finished.await, lost, moved) {
            (Err(error), _, _) => closed(&error),
            (Ok(()), None, Some(moved)) => Ok(moved),
            (Ok(()), lost, _) => closed(&lost.unwrap_or_default()),
        }
    }
}

struct Recorder {
    file: tokio::fs::File,
    /// Lines that are still to be written, of at most one piece in each direction.
    waiting: BytesMut,
    failed: Option<io::Error>,
    /// `None` if the protocol is unknown.
    tap: Option<Tap>,
    /// A session that cannot be followed is closed.
    must_follow: bool,
    /// Why the session is closed, if it cannot be followed.
    lost: Option<String>,
    began: Instant,
    input: bool,
    /// The texts of the streams.
    texts: HashMap<(Side, u32), (Kind, Text)>,
    /// How the session ends, as far as it is known. An error counts more than the command's status.
    ending: Option<String>,
    /// True when the last line has been formed.
    is_said: bool,
}

impl Recorder {
    fn new(file: File, input: bool, protocol: Option<Protocol>, must_follow: bool) -> Self {
        Self {
            file: tokio::fs::File::from_std(file),
            waiting: BytesMut::new(),
            failed: None,
            tap: protocol.map(|protocol| Tap::new(protocol, &[], &Config::default())),
            must_follow,
            lost: None,
            began: Instant::now(),
            input,
            texts: HashMap::new(),
            ending: None,
            is_said: false,
        }
    }

    /// Turns what the tap has found into lines.
    fn read(&mut self) {
        while let Some(event) = self.tap.as_mut().and_then(Tap::poll_event) {
            match event {
                TapEvent::Data { side, stream, data } => {
                    let kind = match (side, &stream.name) {
                        (Side::Server, StreamName::Stdout | StreamName::Stderr) => Kind::Output,
                        (Side::Client, StreamName::Stdin) if self.input => Kind::Input,
                        _ => continue,
                    };
                    let (_, text) = self.texts.entry((side, stream.id)).or_insert_with(|| (kind, Text::default()));
                    let text = text.push(&data);
                    self.say(kind, &text);
                }
                TapEvent::Resize(Ok(TerminalSize { width, height })) => {
                    self.say(Kind::Resize, &format!("{width}x{height}"))
                }
                TapEvent::Status(status) => {
                    let ending = status.map_or_else(|error| format!("no status: {error}"), |status| status.to_string());
                    self.ending.get_or_insert_with(|| format!("ended: {ending}"));
                }
                TapEvent::Fault { side, error } => {
                    self.give_up(format!("not followed: the {side}: {error}"));
                }
                _ => {}
            }
        }
    }

    /// Records what is missing from here on, and repeats it at the end. Closes the session, unless it may pass all the
    /// same.
    fn give_up(&mut self, why: String) {
        self.say(Kind::Marker, &why);
        if self.must_follow {
            self.lost.get_or_insert_with(|| why.clone());
        }
        self.ending = Some(why);
        self.is_said = true;
    }

    fn say(&mut self, kind: Kind, text: &str) {
        if !text.is_empty() {
            self.waiting.extend_from_slice(&asciicast::event(self.began.elapsed(), kind, text));
            self.is_said = false;
        }
    }

    /// Writes the rest: incomplete characters, and how the session ended.
    async fn finish(mut self) -> io::Result<tokio::fs::File> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        for (kind, mut text) in std::mem::take(&mut self.texts).into_values() {
            self.say(kind, &text.finish());
        }
        if !self.is_said {
            let ending = self.ending.take();
            self.say(Kind::Marker, ending.as_deref().unwrap_or("ended: without a status"));
        }
        self.file.write_all_buf(&mut self.waiting).await?;
        self.file.flush().await?;
        Ok(self.file)
    }

    /// Writes the waiting lines, and is ready when all are written.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waiting.has_remaining() {
            ready!(poll_write_buf(Pin::new(&mut self.file), cx, &mut self.waiting))?;
        }
        Pin::new(&mut self.file).poll_flush(cx)
    }
}

impl Observer for Recorder {
    fn observe(&mut self, side: Side, bytes: &Bytes) -> ControlFlow<()> {
        if let Some(tap) = &mut self.tap {
            tap.feed(side, bytes.clone());
        }
        self.read();
        if self.lost.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        match ready!(self.poll_written(cx)) {
            Ok(()) => Poll::Ready(ControlFlow::Continue(())),
            Err(error) => {
                self.failed.get_or_insert(error);
                Poll::Ready(ControlFlow::Break(()))
            }
        }
    }

    fn end(&mut self, side: Side) {
        if let Some(tap) = &mut self.tap {
            tap.end(side);
        }
        self.read();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use kubestream::upgrade::{self, Config};
    use kubestream_proxy as proxy;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    const STDOUT: &[u8] = b"\x82\x06\x01hello";

    /// A client and a server after their handshake over WebSocket, and the pipe between them.
    async fn between() -> (DuplexStream, DuplexStream, Pipe<DuplexStream, DuplexStream>) {
        between_in(Protocol::WEBSOCKET_EXEC_V5[0]).await
    }

    async fn between_in(protocol: Protocol) -> (DuplexStream, DuplexStream, Pipe<DuplexStream, DuplexStream>) {
        let ((near, client_side), (backend_side, far)) = (duplex(1000), duplex(1000));
        let protocols = &[protocol];
        let asking = async {
            let request = http::Request::get("http://a/exec").body(()).unwrap();
            upgrade::connect(near, request, protocols, &Config::default()).await.unwrap()
        };
        let serving =
            async { upgrade::accept(far, &Config::default()).await.unwrap().accept(protocols).await.unwrap() };
        let passing = async {
            let pending = upgrade::accept(client_side, &Config::default()).await.unwrap();
            let request = pending.to_pass_on();
            proxy::forward(pending, backend_side, request).await.unwrap()
        };
        let (client, server, pipe) = tokio::join!(asking, serving, passing);
        (client.into_parts().0, server.into_parts().0, pipe)
    }

    fn recording(directory: &Path, must_follow: bool) -> Recording {
        let mut file = tempfile::Builder::new().suffix(".cast").tempfile_in(directory).unwrap();
        file.write_all(b"{}\n").unwrap();
        Recording { file, operation: Operation::Exec, input: false, must_follow }
    }

    fn text(directory: &Path) -> String {
        let path = std::fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
        std::fs::read_to_string(path).unwrap()
    }

    const UNMASKED: &str =
        "not followed: the client: the peer sent a malformed WebSocket frame: a client's frame that is not masked";

    #[tokio::test]
    async fn a_session_that_cannot_be_followed_is_closed_before_its_bytes_pass() {
        let directory = tempfile::tempdir().unwrap();
        let (mut client, mut server, pipe) = between().await;
        let running = tokio::spawn(recording(directory.path(), true).run(pipe));
        server.write_all(STDOUT).await.unwrap();
        let mut shown = [0; STDOUT.len()];
        client.read_exact(&mut shown).await.unwrap();
        // A frame without a mask.
        client.write_all(b"\x82\x02\x00a").await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"");
        let closed = running.await.unwrap().unwrap_err().to_string();
        assert!(closed.ends_with(&format!("{UNMASKED}: the session was closed")), "{closed}");
        assert_eq!(markers(&text(directory.path())), [UNMASKED]);
    }

    /// A command would run whose recording has nothing in it.
    #[tokio::test]
    async fn a_session_of_an_unknown_protocol_is_closed_before_its_bytes_pass() {
        let directory = tempfile::tempdir().unwrap();
        // No backend of exec takes it.
        let (mut client, mut server, pipe) = between_in(Protocol::TunneledPortForward).await;
        client.write_all(b"\x82\x82\0\0\0\0\x00a").await.unwrap();
        let closed = recording(directory.path(), true).run(pipe).await.unwrap_err().to_string();
        assert!(closed.ends_with("the protocol \"SPDY/3.1+portforward.k8s.io\": the session was closed"), "{closed}");
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"");
        assert_eq!(markers(&text(directory.path())).len(), 1);
    }

    fn markers(text: &str) -> Vec<serde_json::Value> {
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line[1] == "m").map(|line| line[2].clone()).collect()
    }

    #[tokio::test]
    async fn what_cannot_be_followed_passes_if_the_user_said_so_and_the_last_line_says_it() {
        let directory = tempfile::tempdir().unwrap();
        let (mut client, mut server, pipe) = between().await;
        let running = tokio::spawn(recording(directory.path(), false).run(pipe));
        // The client sends a frame without a mask, and the server goes on.
        client.write_all(b"\x82\x02\x00a").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"\x82\x02\x00a");
        server.write_all(STDOUT).await.unwrap();
        server.shutdown().await.unwrap();
        client.read_to_end(&mut heard).await.unwrap();
        assert!(heard.ends_with(STDOUT));
        running.await.unwrap().unwrap();
        let text = text(directory.path());
        assert!(text.contains("\"o\",\"hello\""), "{text}");
        assert_eq!(markers(&text), [UNMASKED, UNMASKED]);
        assert!(text.ends_with(&format!("\"m\",\"{UNMASKED}\"]\n")));
    }

    /// A session waits for its disk. Nothing is lost, and nothing passes before it is written.
    #[tokio::test]
    async fn a_slow_disk_slows_the_session_down() {
        let (mut disk, file) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(file));
        let (mut client, mut server, pipe) = between().await;
        let mut recorder = Recorder::new(file, false, Some(Protocol::WEBSOCKET_EXEC_V5[0]), true);
        let running = tokio::spawn(async move {
            pipe.run_with(&mut recorder).await;
            recorder.finish().await
        });
        const COUNT: usize = 20_000;
        let sending = tokio::spawn(async move {
            for _ in 0..COUNT {
                server.write_all(STDOUT).await.unwrap();
            }
            server.shutdown().await.unwrap();
        });
        let mut heard = Vec::new();
        let waited = tokio::time::timeout(Duration::from_millis(300), client.read_to_end(&mut heard)).await;
        assert!(waited.is_err() && heard.len() < COUNT * STDOUT.len() / 2, "{}", heard.len());
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            disk.read_to_string(&mut text).unwrap();
            text
        });
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), COUNT * STDOUT.len());
        drop(client);
        sending.await.unwrap();
        running.await.unwrap().unwrap();
        let text = reading.await.unwrap();
        assert_eq!(text.matches("hello").count(), COUNT);
        assert!(text.ends_with("\"m\",\"ended: without a status\"]\n"));
    }

    #[tokio::test]
    async fn a_recording_that_cannot_be_written_ends_the_session() {
        let file = File::open("/dev/null").unwrap();
        let (mut client, mut server, pipe) = between().await;
        let mut recorder = Recorder::new(file, false, Some(Protocol::WEBSOCKET_EXEC_V5[0]), true);
        let _ = server.write_all(STDOUT).await;
        let moved = pipe.run_with(&mut recorder).await;
        assert!(moved.stopped && moved.to_client == 0);
        recorder.finish().await.unwrap_err();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}
