//! Copies from a pod: `tar cf -` runs there, and its archive is unpacked here.
//!
//! Decides when a copied file gets its final name. A single file gets it only after tar has reported success, or no
//! more than that a file changed while it was read. The files of a folder get theirs as soon as their bytes are
//! complete, so if tar reports an error at the end, the copy fails but the files stay.

use std::future::pending;
use std::path::PathBuf;

use bytes::Bytes;
use kubestream::exec::Reader;
use kubestream::status::ExitStatus;
use kubestream_apps::Failure;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::pipe::{PipeReader, pipe};
use crate::place::Destination;
use crate::pod::{Interrupted, Pod, complaints, ended, lost, pass_on};
use crate::progress;
use crate::spec::RemotePath;
use crate::unpack::unpack;

pub(crate) async fn download(
    pod: &Pod,
    from: &RemotePath,
    to: PathBuf,
    preserve: bool,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let command = ["tar", "cf", "-", &from.argument()].map(str::to_owned);
    let bar = progress::bar();
    let name = from.split().map(|(_, name)| name.into());
    let (blocks, mut blocked) = watch::channel(false);
    let destination = Destination { path: to, name, preserve, blocks };
    let mut session = tokio::select! {
        session = pod.start(&command, false) => session?,
        () = stop.cancelled() => return Err(Interrupted.into()),
    };
    let (chunks, unpacked) = pipe();
    let (done, unpacking) = oneshot::channel();
    // The end of the program waits for no thread of its own, unlike for one of the runtime.
    std::thread::spawn({
        let (member, bar) = (from.member(), bar.clone());
        move || done.send(unpack(PipeReader::new(unpacked), &member, &destination, &bar))
    });
    let (stdout, stderr) = (session.exec.stdout.take(), session.exec.stderr.take());
    let talk = async {
        let relayed = relay(stdout, chunks);
        let complaints = async { Ok(complaints(stderr).await) };
        let status = async { Ok(session.exec.wait().await) };
        tokio::try_join!(relayed, complaints, status)
    };
    let talked = tokio::select! {
        talked = talk => Some(talked),
        () = stop.cancelled() => None,
    };
    // The unpacking gets no more input, so it ends soon and removes incomplete files.
    let unpacked = tokio::select! {
        unpacked = unpacking => Some(unpacked?),
        // A pipe may have no reader. There is no incomplete file then.
        () = async {
            stop.cancelled().await;
            if blocked.wait_for(|blocks| *blocks).await.is_err() {
                pending::<()>().await;
            }
        } => None,
    };
    bar.finish_and_clear();
    let (Some(talked), Some(unpacked)) = (talked, unpacked) else { return Err(Interrupted.into()) };
    let Ok(((), complaints, status)) = talked else {
        return Err(unpacked.err().map_or_else(|| "the archive continues after its end".into(), Into::into));
    };
    let status = status.map_err(lost)?;
    let said = if has_warned(&status, &complaints) { complaints } else { ended(&command, status, complaints)? };
    pass_on(&said);
    if let Some(whole) = unpacked? {
        whole.persist()?;
    }
    session.close().await;
    Ok(())
}

/// True if GNU tar has found nothing worse than a file that changed while it was read, as a log does. Its archive then
/// has as many bytes as the file had at first. For kubectl, too, this is a success.
///
/// The exit code alone does not say it: with the same code GNU tar reports a file that became shorter, which it fills
/// up with zeros, and other tars report every error.
fn has_warned(status: &ExitStatus, complaints: &str) -> bool {
    const CHANGED: &str = ": file changed as we read it";
    const HARMLESS: &str = "tar: Removing leading `";
    status.code() == Some(1)
        && complaints.contains(CHANGED)
        && complaints.lines().all(|line| line.ends_with(CHANGED) || line.starts_with(HARMLESS))
}

/// The unpacking has ended and takes no more of the archive.
struct NotTaken;

/// Passes stdout on until it ends or the connection is lost. The status tells which.
async fn relay(stdout: Option<Reader>, to: mpsc::Sender<Bytes>) -> Result<(), NotTaken> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    while let Some(Ok(data)) = stdout.data().await {
        to.send(data).await.map_err(|_| NotTaken)?;
    }
    Ok(())
}
