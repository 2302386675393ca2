//! Copies to a pod: an archive is made here, and `tar -xmf -` unpacks it there.
//!
//! Decides when the copy gets its final name. tar writes under a temporary name. After all bytes have arrived and tar
//! has reported success, one command gives the copy its final name: `mv` for a new path, or `cp -alf` for an existing
//! folder, which links each complete file into it. An interrupted copy changes nothing outside of the temporary name,
//! and removes that if the pod can still be reached.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use indicatif::ProgressBar;
use kubestream::mux::SendHalf;
use kubestream_apps::Failure;
use kubestream_apps::printable::printable;
use kubestream_apps::stdio::complain;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::pack::{PackError, pack, total};
use crate::pipe::{PipeWriter, pipe};
use crate::pod::{CommandError, Interrupted, Pod, complaints, ended, lost, pass_on};
use crate::progress;
use crate::spec::RemotePath;

/// What is sent, and how.
pub(crate) struct Upload<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) source: PathBuf,
    pub(crate) to: RemotePath,
    pub(crate) preserve: bool,
    /// tar writes directly under the final names.
    pub(crate) in_place: bool,
}

/// Where tar writes, and the commands that complete the copy.
struct Plan {
    /// The folder in which tar runs.
    folder: RemotePath,
    /// The name of the source in the archive. It is empty for a folder whose content goes directly into tar's folder.
    name: PathBuf,
    temporary: Option<RemotePath>,
    /// The commands that run after tar has reported success.
    finish: Vec<Vec<String>>,
}

impl Upload<'_> {
    pub(crate) async fn run(&self, stop: &CancellationToken) -> Result<(), Failure> {
        let plan = stoppable(stop, self.plan()).await?;
        let copied = stoppable(stop, self.copy(&plan)).await;
        if let (Err(_), Some(temporary)) = (&copied, &plan.temporary) {
            const PATIENCE: Duration = Duration::from_secs(10);
            let remove = [["rm", "-rf", &temporary.argument()].map(str::to_owned).to_vec()];
            let removed = tokio::time::timeout(PATIENCE, self.commands(&remove)).await;
            if !matches!(removed, Ok(Ok(()))) {
                complain(format_args!(
                    "warning: an incomplete copy may be left in the pod as {}",
                    printable(temporary)
                ));
            }
        }
        copied
    }

    async fn plan(&self) -> Result<Plan, Failure> {
        let source = self.source.display();
        let metadata = std::fs::metadata(&self.source).map_err(|error| format!("{source}: {error}"))?;
        if !metadata.is_dir() && !metadata.is_file() {
            return Err(format!("{source} is neither a file nor a folder").into());
        }
        let is_folder = metadata.is_dir();
        let base = self.source.file_name();
        if !self.folder_is_there(&self.to).await? {
            // With a trailing slash, the path in the pod is the folder that gets the file, and it is created.
            let below = base.filter(|_| !is_folder && self.to.means_folder());
            return self.new_name(&self.to, below);
        }
        let Some(base) = base else { return Ok(self.merge(&self.to)) };
        let base = base.to_str().ok_or_else(|| format!("{base:?} is not UTF-8, which a path in a pod must be"))?;
        let target = self.to.join(base);
        match (self.folder_is_there(&target).await?, is_folder) {
            (true, true) => Ok(self.merge(&target)),
            (true, false) => Err(format!("{target} is a folder in the pod, and {base} is not").into()),
            (false, _) => self.new_name(&target, None),
        }
    }

    /// The plan for a new path, or for a file that is replaced.
    fn new_name(&self, target: &RemotePath, below: Option<&OsStr>) -> Result<Plan, Failure> {
        let (folder, name) = target.split().ok_or_else(|| format!("{target} is not a folder in the pod"))?;
        if self.in_place {
            return Ok(Plan { folder, name: path(name, below), temporary: None, finish: Vec::new() });
        }
        let stage = stage();
        let temporary = folder.join(&stage);
        let finish = ["mv", "-f", &temporary.argument(), &target.without_slash().argument()];
        let finish = vec![finish.map(str::to_owned).to_vec()];
        Ok(Plan { folder, name: path(&stage, below), temporary: Some(temporary), finish })
    }

    /// The plan for an existing folder.
    fn merge(&self, target: &RemotePath) -> Plan {
        let folder = target.clone();
        if self.in_place {
            return Plan { folder, name: PathBuf::new(), temporary: None, finish: Vec::new() };
        }
        let stage = stage();
        let temporary = target.join(&stage);
        let link = ["cp", "-alf", &temporary.join(".").argument(), &target.argument()].map(str::to_owned).to_vec();
        let remove = ["rm", "-rf", &temporary.argument()].map(str::to_owned).to_vec();
        Plan { folder, name: stage.into(), temporary: Some(temporary), finish: vec![link, remove] }
    }

    async fn folder_is_there(&self, path: &RemotePath) -> Result<bool, Failure> {
        match self.pod.run(&["test", "-d", &path.argument()].map(str::to_owned)).await {
            Ok(()) => Ok(true),
            Err(error) => match error.downcast_ref::<CommandError>() {
                Some(ended) if ended.status.code() == Some(1) => Ok(false),
                // kubectl also takes this to mean that there is no folder.
                Some(ended) if ended.is_missing() && self.in_place => Ok(false),
                Some(ended) if ended.is_missing() => Err(needed(ended)),
                _ => Err(error),
            },
        }
    }

    async fn copy(&self, plan: &Plan) -> Result<(), Failure> {
        self.send(plan).await?;
        self.commands(&plan.finish).await
    }

    async fn commands(&self, commands: &[Vec<String>]) -> Result<(), Failure> {
        for command in commands {
            self.pod.run(command).await.map_err(|error| match error.downcast_ref::<CommandError>() {
                Some(ended) if ended.is_missing() => needed(ended),
                _ => error,
            })?;
        }
        Ok(())
    }

    async fn send(&self, plan: &Plan) -> Result<(), Failure> {
        let mut command = vec!["tar"];
        if !self.preserve {
            command.extend(["--no-same-permissions", "--no-same-owner"]);
        }
        let folder = plan.folder.argument();
        command.extend(["-xmf", "-", "-C", &folder]);
        let command: Vec<String> = command.into_iter().map(str::to_owned).collect();

        let mut session = self.pod.start(&command, true).await?;
        if !session.exec.can_end_stdin() {
            return Err("the server chose a protocol that cannot end stdin".into());
        }
        let bar = progress::bar();
        let (chunks, packed) = pipe();
        let packing = self.pack(plan.name.clone(), PipeWriter::new(chunks), bar.clone());
        let (stdin, stderr) = (session.exec.stdin.take(), session.exec.stderr.take());
        let fed = feed(packed, packing, stdin);
        let complaints = async { Ok(complaints(stderr).await) };
        let status = async { Ok(session.exec.wait().await) };
        let talked = tokio::try_join!(fed, complaints, status);
        bar.finish_and_clear();
        let (stopped, complaints, status) = talked?;
        let at = |error: Failure| match &stopped {
            Some(path) => format!("{error} (after {})", path.display()).into(),
            None => error,
        };
        let status = status.map_err(lost).map_err(at)?;
        pass_on(&ended(&command, status, complaints)?);
        if stopped.is_some() {
            return Err(at("tar ended before it had read the whole archive".into()));
        }
        session.close().await;
        Ok(())
    }

    fn pack(&self, name: PathBuf, to: PipeWriter, bar: ProgressBar) -> JoinHandle<Result<(), PackError>> {
        let source = self.source.clone();
        tokio::task::spawn_blocking(move || {
            if !bar.is_hidden() {
                progress::set_total(&bar, total(&source));
            }
            pack(&source, &name, to, &bar)
        })
    }
}

/// Sends the archive and ends stdin. If the command stops reading, returns the path that was reached. If packing fails,
/// returns that error and leaves stdin without an end.
async fn feed(
    mut packed: mpsc::Receiver<Bytes>,
    packing: JoinHandle<Result<(), PackError>>,
    stdin: Option<SendHalf>,
) -> Result<Option<PathBuf>, Failure> {
    let mut stdin = stdin.ok_or("the session has no stdin")?;
    let mut taken = true;
    while let (true, Some(chunk)) = (taken, packed.recv().await) {
        taken = stdin.send(chunk).await.is_ok();
    }
    drop(packed);
    match packing.await? {
        Ok(()) if taken => {
            stdin.finish();
            Ok(None)
        }
        Ok(()) => Ok(Some(PathBuf::from("its end"))),
        Err(stopped) if !taken => Ok(Some(stopped.path)),
        Err(error) => Err(error.into()),
    }
}

fn needed(missing: &CommandError) -> Failure {
    format!("{missing} (--in-place works without it, but leaves incomplete files if the copy is interrupted)").into()
}

fn path(name: &str, below: Option<&OsStr>) -> PathBuf {
    [OsStr::new(name)].into_iter().chain(below).collect()
}

fn stage() -> String {
    format!(".kubestream-cp-{:016x}", RandomState::new().build_hasher().finish())
}

async fn stoppable<T>(stop: &CancellationToken, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = stop.cancelled() => Err(Interrupted.into()),
    }
}
