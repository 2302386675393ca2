//! The state of the runtime: sandboxes, containers, and pulled images.
//!
//! Records which container belongs to which sandbox. A sandbox is only a record, because its containers share this
//! machine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tonic::Status;

use crate::container::{Container, State};
use crate::image::name;
use crate::time::nanos;
use crate::v1::{ContainerConfig, PodSandboxConfig};

/// What a container runs if neither it nor its image names a command.
const PAUSE: [&str; 2] = ["sleep", "infinity"];

#[derive(Debug)]
pub(crate) struct Store {
    /// The shell commands of images.
    commands: HashMap<String, String>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Arc<Container>>,
    images: BTreeSet<String>,
    /// The runtime stops, so nothing new is started.
    ended: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
    pub(crate) handler: String,
    pub(crate) created: i64,
    pub(crate) ready: bool,
}

impl Store {
    pub(crate) fn new(images: Vec<(String, String)>) -> Self {
        let commands = images.into_iter().map(|(image, command)| (name(&image), command)).collect();
        Self { commands, inner: Mutex::default() }
    }

    pub(crate) fn add_sandbox(&self, config: PodSandboxConfig, handler: String) -> Result<String, Status> {
        let id = id()?;
        let created = nanos(SystemTime::now());
        let sandbox = Sandbox { id: id.clone(), config, handler, created, ready: true };
        let mut inner = self.inner();
        if inner.ended {
            return Err(Status::unavailable("the runtime is stopping"));
        }
        inner.sandboxes.insert(id.clone(), sandbox);
        Ok(id)
    }

    /// Finds a sandbox by its id or by the beginning of it, which is what crictl shows.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Sandbox, Status> {
        let inner = self.inner();
        let found = only(&inner.sandboxes, id).cloned();
        found.ok_or_else(|| Status::not_found(format!("there is no pod sandbox {id:?}")))
    }

    pub(crate) fn sandboxes(&self) -> Vec<Sandbox> {
        self.inner().sandboxes.values().cloned().collect()
    }

    /// Ends what runs in a sandbox. If it does not exist, nothing is done.
    pub(crate) async fn stop_sandbox(&self, id: &str) {
        let Ok(sandbox) = self.sandbox(id) else { return };
        // From now on no container is added to it.
        if let Some(sandbox) = self.inner().sandboxes.get_mut(&sandbox.id) {
            sandbox.ready = false;
        }
        let containers = self.containers().into_iter().filter(|container| container.sandbox == sandbox.id);
        stop(containers.collect(), Duration::ZERO).await;
    }

    pub(crate) async fn remove_sandbox(&self, id: &str) {
        self.stop_sandbox(id).await;
        if let Ok(sandbox) = self.sandbox(id) {
            let mut inner = self.inner();
            inner.containers.retain(|_, container| container.sandbox != sandbox.id);
            inner.sandboxes.remove(&sandbox.id);
        }
    }

    pub(crate) fn add_container(&self, sandbox: &str, config: ContainerConfig) -> Result<String, Status> {
        let sandbox = self.sandbox(sandbox)?;
        let id = id()?;
        let (folder, file) = (&sandbox.config.log_directory, &config.log_path);
        let log = (!folder.is_empty() && !file.is_empty()).then(|| PathBuf::from(folder).join(file));
        let program = self.program(&config);
        let container = Container::new(id.clone(), sandbox.id.clone(), config, program, log)
            .map_err(|error| Status::internal(format!("the container's log: {error}")))?;
        let mut inner = self.inner();
        if !inner.sandboxes.get(&sandbox.id).is_some_and(|sandbox| sandbox.ready) {
            return Err(Status::failed_precondition(format!("pod sandbox {} is not ready", sandbox.id)));
        }
        inner.containers.insert(id.clone(), Arc::new(container));
        Ok(id)
    }

    /// Returns what a container runs: its own command, or that of its image.
    fn program(&self, config: &ContainerConfig) -> Vec<String> {
        let own: Vec<String> = config.command.iter().chain(&config.args).cloned().collect();
        if !own.is_empty() {
            return own;
        }
        match config.image.as_ref().and_then(|image| self.commands.get(&name(&image.image))) {
            Some(command) => vec!["sh".to_owned(), "-c".to_owned(), command.clone()],
            None => PAUSE.map(str::to_owned).to_vec(),
        }
    }

    /// Finds a container by its id or by the beginning of it.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        let inner = self.inner();
        let found = only(&inner.containers, id).cloned();
        found.ok_or_else(|| Status::not_found(format!("there is no container {id:?}")))
    }

    /// Finds a container that runs, so that a client can be connected to it.
    pub(crate) fn running(&self, id: &str) -> Result<Arc<Container>, Status> {
        let container = self.container(id)?;
        match container.state() {
            State::Running { .. } => Ok(container),
            State::Created | State::Exited { .. } => {
                Err(Status::failed_precondition(format!("container {} is not running", container.id)))
            }
        }
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.inner().containers.values().cloned().collect()
    }

    pub(crate) async fn remove_container(&self, id: &str) {
        let Ok(container) = self.container(id) else { return };
        container.stop(Duration::ZERO).await;
        self.inner().containers.remove(&container.id);
    }

    pub(crate) fn add_image(&self, image: String) {
        self.inner().images.insert(image);
    }

    pub(crate) fn remove_image(&self, image: &str) {
        self.inner().images.remove(image);
    }

    pub(crate) fn images(&self) -> Vec<String> {
        self.inner().images.iter().cloned().collect()
    }

    /// Ends everything that was started.
    pub(crate) async fn end(&self, grace: Duration) {
        {
            let mut inner = self.inner();
            inner.ended = true;
            inner.sandboxes.values_mut().for_each(|sandbox| sandbox.ready = false);
        }
        stop(self.containers(), grace).await;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops all of them at once.
async fn stop(containers: Vec<Arc<Container>>, grace: Duration) {
    let mut stopping: JoinSet<()> = JoinSet::new();
    for container in containers {
        stopping.spawn(async move { container.stop(grace).await });
    }
    while stopping.join_next().await.is_some() {}
}

/// Returns the only value whose id begins so.
fn only<'a, T>(all: &'a BTreeMap<String, T>, id: &str) -> Option<&'a T> {
    if id.is_empty() {
        return None;
    }
    let mut found = all.range(id.to_owned()..).take_while(|(other, _)| other.starts_with(id));
    match (found.next(), found.next()) {
        (Some((other, one)), next) if next.is_none() || other == id => Some(one),
        _ => None,
    }
}

/// True if all labels of the selector are among the labels.
pub(crate) fn selects(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn id() -> Result<String, Status> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Status::internal(format!("cannot create an id: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::ImageSpec;

    #[test]
    fn a_container_runs_its_own_command_or_its_images_or_sleeps() {
        let store = Store::new(vec![("local/web".to_owned(), "serve $PORT".to_owned())]);
        let program = |image: &str, command: &[&str], args: &[&str]| {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let image = Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() });
            let config = ContainerConfig { image, command: owned(command), args: owned(args), ..Default::default() };
            store.program(&config)
        };
        assert_eq!(program("local/web:latest", &[], &[]), ["sh", "-c", "serve $PORT"]);
        assert_eq!(program("local/web", &["echo"], &["hello"]), ["echo", "hello"]);
        assert_eq!(program("local/web", &[], &["hello"]), ["hello"]);
        assert_eq!(program("local/web:1", &[], &[]), PAUSE);
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_where_no_other_begins_so() {
        let all = BTreeMap::from([("ab".to_owned(), 1), ("abc".to_owned(), 2), ("b".to_owned(), 3)]);
        let found = ["ab", "abc", "a", "b", "c", "", "abcd"].map(|id| only(&all, id).copied());
        assert_eq!(found, [Some(1), Some(2), None, Some(3), None, None, None]);
    }
}
