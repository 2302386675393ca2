//! The sessions behind the URLs: commands in containers, containers' main processes, and ports.
//!
//! Decides what a client is connected to, and for how long. The library handles URLs and transports.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kubestream::exec::{self, ExecServer, Reader, Resizes};
use kubestream::mux::SendHalf;
use kubestream::portforward::Request;
use kubestream::status::{ExitStatus, Status};
use kubestream_apps::process::Feeding;
use kubestream_apps::{forward, process};
use kubestream_runtime::Runtime;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use crate::container::{Container, Input};
use crate::fanout::Fanout;
use crate::store::Store;

/// If a client has ended its own stdin but the process reads on, the client is detached after the outputs have been
/// silent for this long.
const ANSWERED: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Streams {
    store: Arc<Store>,
}

impl Streams {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Runtime for Streams {
    async fn exec(
        &self,
        container_id: String,
        command: Vec<String>,
        streams: exec::Streams,
        session: ExecServer,
    ) -> Result<(), exec::Error> {
        match self.store.running(&container_id) {
            Ok(container) => {
                let tty = streams.tty;
                process::run(&command, tty, &container.place(tty), session).await
            }
            Err(status) => session.exit(failed(status.message())).await,
        }
    }

    async fn attach(&self, container_id: String, _: exec::Streams, session: ExecServer) -> Result<(), exec::Error> {
        match self.store.running(&container_id) {
            Ok(container) => attach(&container, session).await,
            Err(status) => session.exit(failed(status.message())).await,
        }
    }

    async fn port_forward(&self, sandbox: &str, request: Request) {
        match self.store.sandbox(sandbox) {
            Ok(sandbox) if sandbox.ready => {
                // Either end may break off. The relay tells the other end, and nothing else is to be done.
                let _ = forward::connect(request).await;
            }
            Ok(_) => request.fail("the pod sandbox is not ready"),
            Err(status) => request.fail(status.message()),
        }
    }
}

/// Connects a client until the process has ended, the client has left, or the client has ended its stdin and the
/// outputs are silent.
async fn attach(container: &Arc<Container>, mut session: ExecServer) -> Result<(), exec::Error> {
    let spoke = Notify::new();
    let stdin = session.stdin.take().filter(|_| container.config.stdin);
    let once = stdin.is_some() && container.config.stdin_once && !container.config.tty;
    let shown = {
        let stdout = session.stdout.take().map(|to| (container.stdout.view(), to));
        let stderr = session.stderr.take().map(|to| (container.stderr.view(), to));
        let spoke = &spoke;
        async move {
            tokio::try_join!(show(&container.stdout, stdout, spoke), show(&container.stderr, stderr, spoke))?;
            container.ended().await;
            Ok::<(), TooSlow>(())
        }
    };
    let mut feeding = stdin.map(|from| {
        let to = Arc::clone(container);
        Feeding::start(|moved| feed(from, to, moved))
    });
    let answered = async {
        let Some(feeding) = &mut feeding else { return pending().await };
        feeding.over().await;
        if once {
            container.input(Input::End).await;
            return pending().await;
        }
        while timeout(ANSWERED, spoke.notified()).await.is_ok() {}
    };
    let resized = resize(session.resize.take(), container);
    let status = tokio::select! {
        shown = shown => match shown {
            Ok(()) => ExitStatus::Success,
            Err(TooSlow) => failed("detached: the outputs were not read for too long"),
        },
        () = answered => ExitStatus::Success,
        () = resized => ExitStatus::Success,
        () = session.client_gone() => {
            // The process may be slow to read. It still gets all that the client has sent.
            let container = Arc::clone(container);
            tokio::spawn(async move {
                if let Some(feeding) = &mut feeding {
                    feeding.last().await;
                }
                if once {
                    container.input(Input::End).await;
                }
            });
            return Ok(());
        }
    };
    session.exit(status).await
}

/// The client was too slow and was detached from an output.
struct TooSlow;

async fn show(
    output: &Fanout,
    viewed: Option<(mpsc::Receiver<Bytes>, SendHalf)>,
    spoke: &Notify,
) -> Result<(), TooSlow> {
    let Some((mut from, mut to)) = viewed else { return Ok(()) };
    while let Some(data) = from.recv().await {
        spoke.notify_one();
        if to.send(data).await.is_err() {
            // The client did not ask for this output, or has left.
            return Ok(());
        }
    }
    if output.has_ended() { Ok(()) } else { Err(TooSlow) }
}

async fn feed(mut from: Reader, container: Arc<Container>, moved: watch::Sender<()>) {
    while let Some(Ok(data)) = from.data().await {
        container.input(Input::Data(data)).await;
        moved.send_replace(());
    }
}

/// Never ends, because a terminal without further sizes keeps its last one.
async fn resize(sizes: Option<Resizes>, container: &Container) {
    if let Some(mut sizes) = sizes {
        while let Some(size) = sizes.next().await {
            container.input(Input::Size(size)).await;
        }
    }
    pending().await
}

fn failed(message: &str) -> ExitStatus {
    ExitStatus::Failed(Box::new(Status::internal_error(format!("error in the container runtime: {message}"))))
}
