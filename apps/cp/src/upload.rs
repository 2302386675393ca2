//! Copies to a pod: an archive is made here, and `tar -xmf -` unpacks it there.
//!
//! Decides when the copy gets its final name. tar writes under a temporary name. After all bytes have arrived and tar
//! has reported success, one command gives the copy its final name: `mv` for a new path, or `cp -dRlf` for an existing
//! folder, which links each complete file into it. Only after that, another tar gives the folders that are new there
//! their owners and modes. An interrupted copy changes nothing outside of the temporary name, and removes that if the
//! pod can still be reached.
//!
//! Leaves the owner, the mode and the time of each folder that is there as they are.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
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

use crate::pack::{PackError, Selection, folders, pack, total};
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
    what: Selection,
    temporary: Option<RemotePath>,
    /// The commands that run after tar has reported success.
    finish: Vec<Finish>,
}

enum Finish {
    Run(Vec<String>),
    /// tar in this folder, for these folders.
    Unpack(RemotePath, Selection),
}

impl Finish {
    fn run<const N: usize>(command: [&str; N]) -> Self {
        Self::Run(command.map(str::to_owned).to_vec())
    }
}

impl Upload<'_> {
    pub(crate) async fn run(&self, stop: &CancellationToken) -> Result<(), Failure> {
        let plan = stoppable(stop, self.plan()).await?;
        let copied = stoppable(stop, self.copy(&plan)).await;
        if let (Err(_), Some(temporary)) = (&copied, &plan.temporary) {
            const PATIENCE: Duration = Duration::from_secs(10);
            let remove = [Finish::run(["rm", "-rf", &temporary.argument()])];
            let removed = tokio::time::timeout(PATIENCE, self.finish(&remove)).await;
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
        let Some(base) = base else { return self.merge(&self.to).await };
        let base = base.to_str().ok_or_else(|| format!("{base:?} is not UTF-8, which a path in a pod must be"))?;
        let target = self.to.join(base);
        match (self.folder_is_there(&target).await?, is_folder) {
            (true, true) => self.merge(&target).await,
            (true, false) => Err(format!("{target} is a folder in the pod, and {base} is not").into()),
            (false, _) => self.new_name(&target, None),
        }
    }

    /// The plan for a new path, or for a file that is replaced.
    fn new_name(&self, target: &RemotePath, below: Option<&OsStr>) -> Result<Plan, Failure> {
        let (folder, name) = target.split().ok_or_else(|| format!("{target} is not a folder in the pod"))?;
        if self.in_place {
            return Ok(Plan { folder, what: named(path(name, below)), temporary: None, finish: Vec::new() });
        }
        let stage = stage();
        let temporary = folder.join(&stage);
        let finish = Finish::run(["mv", "-f", &temporary.argument(), &target.without_slash().argument()]);
        let what = named(path(&stage, below));
        Ok(Plan { folder, what, temporary: Some(temporary), finish: vec![finish] })
    }

    /// The plan for an existing folder.
    async fn merge(&self, target: &RemotePath) -> Result<Plan, Failure> {
        let folder = target.clone();
        if self.in_place {
            let what = Selection { there: self.there(target).await?.0, ..Selection::default() };
            return Ok(Plan { folder, what, temporary: None, finish: Vec::new() });
        }
        let stage = stage();
        let temporary = target.join(&stage);
        let mut finish = vec![Finish::run(["cp", "-dRlf", &temporary.join(".").argument(), &target.argument()])];
        // What `cp` makes has the umask applied and belongs to the user of the container.
        if self.preserve
            && let (there, true) = self.there(target).await?
        {
            let new = Selection { there, folders_alone: true, ..Selection::default() };
            finish.push(Finish::Unpack(target.clone(), new));
        }
        finish.push(Finish::run(["rm", "-rf", &temporary.argument()]));
        Ok(Plan { folder, what: named(stage.into()), temporary: Some(temporary), finish })
    }

    /// Returns which of the folders below the source are below `target` already, and whether any is not.
    async fn there(&self, target: &RemotePath) -> Result<(HashSet<PathBuf>, bool), Failure> {
        /// How many bytes of names are asked for at once. In a URL each may be three.
        const NAMES: usize = 16 * 1024;
        let (mut there, mut any_is_new) = (HashSet::new(), false);
        // Below a folder that is new, everything is.
        let mut level = folders(&self.source, Path::new(""));
        while !level.is_empty() {
            let mut found = Vec::new();
            let mut rest = &level[..];
            while !rest.is_empty() {
                let mut room = NAMES;
                let fits = rest.iter().take_while(|name| {
                    let fits = room > 0;
                    room = room.saturating_sub(name.as_os_str().len() + 2);
                    fits
                });
                let (now, later) = rest.split_at(fits.count());
                found.extend(self.pod.folders(target, now).await?);
                rest = later;
            }
            let before = there.len();
            there.extend(level.iter().filter(|name| found.contains(name)).cloned());
            any_is_new |= there.len() - before < level.len();
            level = level
                .iter()
                .filter(|name| there.contains(*name))
                .flat_map(|name| folders(&self.source, name))
                .collect();
        }
        Ok((there, any_is_new))
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
        self.send(&plan.folder, &plan.what).await?;
        self.finish(&plan.finish).await
    }

    async fn finish(&self, finish: &[Finish]) -> Result<(), Failure> {
        for step in finish {
            let command = match step {
                Finish::Run(command) => command,
                Finish::Unpack(folder, what) => {
                    self.send(folder, what).await?;
                    continue;
                }
            };
            self.pod.run(command).await.map_err(|error| match error.downcast_ref::<CommandError>() {
                Some(ended) if ended.is_missing() => needed(ended),
                _ => error,
            })?;
        }
        Ok(())
    }

    async fn send(&self, folder: &RemotePath, what: &Selection) -> Result<(), Failure> {
        let mut command = vec!["tar"];
        if !self.preserve {
            command.extend(["--no-same-permissions", "--no-same-owner"]);
        }
        let folder = folder.argument();
        command.extend(["-xmf", "-", "-C", &folder]);
        let command: Vec<String> = command.into_iter().map(str::to_owned).collect();

        let mut session = self.pod.start(&command, true).await?;
        if !session.exec.can_end_stdin() {
            return Err("the server chose a protocol that cannot end stdin".into());
        }
        let bar = progress::bar();
        let (chunks, packed) = pipe();
        let packing = self.pack(what.clone(), PipeWriter::new(chunks), bar.clone());
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

    fn pack(&self, what: Selection, to: PipeWriter, bar: ProgressBar) -> JoinHandle<Result<(), PackError>> {
        let source = self.source.clone();
        tokio::task::spawn_blocking(move || {
            if !bar.is_hidden() && !what.folders_alone {
                progress::set_total(&bar, total(&source));
            }
            pack(&source, &what, to, &bar)
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

fn named(name: PathBuf) -> Selection {
    Selection { name, ..Selection::default() }
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
