//! The node's attach: one main process for all clients. It outlives each of them.
//!
//! The process repeats every line of its stdin on stdout, after `out:`, and on stderr, after `err:`.

use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kubestream::exec::{Error, ExecServer};
use kubestream::status::{ExitStatus, Status};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::{OnceCell, broadcast, mpsc};

use crate::signals;

const SCRIPT: &str = r#"while IFS= read -r line; do echo "out:$line"; echo "err:$line" >&2; done"#;
/// A client that has ended its stdin is detached after the outputs have been silent for this long.
const ANSWERED: Duration = Duration::from_millis(200);
/// How many pieces a slow client may be behind before it misses some.
const BEHIND: usize = 1024;

/// The container's main process. The first attach starts it.
#[derive(Default)]
pub(crate) struct Main(OnceCell<Process>);

struct Process {
    stdin: mpsc::Sender<Bytes>,
    stdout: broadcast::Sender<Bytes>,
    stderr: broadcast::Sender<Bytes>,
}

impl Main {
    /// Connects a client to the process until the client ends its stdin or goes away.
    pub(crate) async fn attach(&self, mut server: ExecServer) -> Result<(), Error> {
        let process = match self.0.get_or_try_init(|| async { Process::start() }).await {
            Ok(process) => process,
            Err(error) => {
                let status = Status::internal_error(format!("error attaching to container: {error}"));
                return server.exit(ExitStatus::Failed(Box::new(status))).await;
            }
        };
        let (mut said, mut complained) = (process.stdout.subscribe(), process.stderr.subscribe());
        let (mut stdin, mut out, mut err) = (server.stdin.take(), server.stdout.take(), server.stderr.take());
        let mut typing = stdin.is_some();
        loop {
            // An output that the client did not ask for is not sent. A client that lags continues with the oldest piece
            // that is left.
            tokio::select! {
                biased;
                data = said.recv() => if let (Ok(data), Some(out)) = (data, &mut out) {
                    let _ = out.send(data).await;
                },
                data = complained.recv() => if let (Ok(data), Some(err)) = (data, &mut err) {
                    let _ = err.send(data).await;
                },
                data = async { stdin.as_mut()?.data().await }, if typing => match data {
                    Some(Ok(data)) => drop(process.stdin.send(data).await),
                    _ => typing = false,
                },
                () = tokio::time::sleep(ANSWERED), if !typing && stdin.is_some() => break,
                () = server.client_gone() => return Ok(()),
            }
        }
        drop((out, err));
        server.exit(ExitStatus::Success).await
    }
}

impl Process {
    fn start() -> std::io::Result<Self> {
        signals::default_for_commands();
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (stdin, mut typed) = mpsc::channel::<Bytes>(16);
        let (stdout, stderr) = (broadcast::Sender::new(BEHIND), broadcast::Sender::new(BEHIND));
        let (to, from, complains) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        tokio::spawn(tell(from, stdout.clone()));
        tokio::spawn(tell(complains, stderr.clone()));
        tokio::spawn(async move {
            let Some(mut to) = to else { return };
            while let Some(data) = typed.recv().await {
                if to.write_all(&data).await.is_err() {
                    return;
                }
            }
            // No client can attach any more. The process reads the end of its stdin, and its exit is awaited.
            drop(to);
            let _ = child.wait().await;
        });
        Ok(Self { stdin, stdout, stderr })
    }
}

/// Sends an output to all attached clients, which may be none.
async fn tell(from: Option<impl AsyncRead + Unpin>, to: broadcast::Sender<Bytes>) {
    let Some(mut from) = from else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(4096);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => drop(to.send(buffer.split().freeze())),
        }
    }
}
