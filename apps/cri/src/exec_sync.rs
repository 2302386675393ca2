//! ExecSync: a command whose outputs are the answer, as the kubelet's probes want it.
//!
//! Owns that it ends in time, and that no more is collected than an answer holds.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use kubestream_apps::process::Place;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::v1::ExecSyncResponse;

/// Bytes of each output. The kubelet takes answers of 16 MiB.
const MOST: usize = 7 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("exec: {0:?}: {1}")]
    Start(String, #[source] io::Error),
    #[error("command {0:?} timed out after {1:?}")]
    Timeout(Vec<String>, Duration),
    #[error("command {0:?} wrote more than {MOST} bytes")]
    TooLong(Vec<String>),
    #[error("command {0:?}: {1}")]
    Io(Vec<String>, #[source] io::Error),
}

/// Runs a command to its end; `limit` zero is none.
pub(crate) async fn run(command: Vec<String>, place: Place, limit: Duration) -> Result<ExecSyncResponse, Error> {
    let mut process = Command::new(&command[0]);
    if let Some(directory) = place.directory {
        process.current_dir(directory);
    }
    let process = process.args(&command[1..]).env_clear().envs(place.environment.unwrap_or_default());
    let process = process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = process.spawn().map_err(|error| Error::Start(command[0].clone(), error))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id as i32)));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    // As containerd: what the command has left running is heard to its end, too.
    let run = async {
        let outputs = async { tokio::try_join!(collect(out, &mut stdout), collect(err, &mut stderr)) };
        tokio::try_join!(outputs, child.wait())
    };
    let ended = timeout(if limit.is_zero() { Duration::MAX } else { limit }, run).await;
    match ended {
        Ok(Ok((_, status))) => {
            // What it has left running is the container's.
            std::mem::forget(group);
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            Ok(ExecSyncResponse { stdout, stderr, exit_code: code.unwrap_or(255) })
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => Err(Error::TooLong(command)),
        Ok(Err(error)) => Err(Error::Io(command, error)),
        Err(_) => Err(Error::Timeout(command, limit)),
    }
}

/// To the end of an output, or to where it is more than an answer holds.
async fn collect(from: Option<impl AsyncRead + Unpin>, to: &mut Vec<u8>) -> io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    from.take(MOST as u64 + 1).read_to_end(to).await?;
    if to.len() > MOST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

/// A command that is given up is ended, and all that it has started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already, at best.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
