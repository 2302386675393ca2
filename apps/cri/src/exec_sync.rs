//! ExecSync: runs a command and returns its outputs, as the kubelet's probes need it.
//!
//! Limits the time and the size of the outputs.

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

/// The limit of each output in bytes. The kubelet accepts answers of up to 16 MiB.
const MOST: usize = 7 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("exec: {0:?}: {1}")]
    Start(String, #[source] io::Error),
    #[error("the command {:?} timed out after {} s", .0.join(" "), .1.as_secs_f64())]
    Timeout(Vec<String>, Duration),
    #[error("the command {:?} wrote more than {} bytes to one output", .0.join(" "), MOST)]
    TooLong(Vec<String>),
    #[error("the command {:?} cannot be followed to its end: {}", .0.join(" "), .1)]
    Io(Vec<String>, #[source] io::Error),
}

/// Runs a command to its end. A `limit` of zero means no limit.
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
    // Like containerd, this also reads to their end the outputs of what the command leaves running.
    let run = async {
        let outputs = async { tokio::try_join!(collect(out, &mut stdout), collect(err, &mut stderr)) };
        tokio::try_join!(outputs, child.wait())
    };
    let ended = timeout(if limit.is_zero() { Duration::MAX } else { limit }, run).await;
    match ended {
        Ok(Ok((_, status))) => {
            // What the command leaves running belongs to the container.
            std::mem::forget(group);
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            Ok(ExecSyncResponse { stdout, stderr, exit_code: code.unwrap_or(255) })
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => Err(Error::TooLong(command)),
        Ok(Err(error)) => Err(Error::Io(command, error)),
        Err(_) => Err(Error::Timeout(command, limit)),
    }
}

/// Reads an output to its end, or to the limit.
async fn collect(from: Option<impl AsyncRead + Unpin>, to: &mut Vec<u8>) -> io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    from.take(MOST as u64 + 1).read_to_end(to).await?;
    if to.len() > MOST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

/// Kills a command and all that it started, if this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The group may have ended already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
