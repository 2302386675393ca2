//! A pod that this program creates in the user's cluster.
//!
//! Holds the pod from its creation to its deletion. Its containers run what the cases need, with programs of busybox.

use std::error::Error;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::target;

/// Repeats each line of its stdin on both outputs.
const ATTACH: &str = "while IFS= read -r line; do echo \"out:$line\"; echo \"err:$line\" >&2; done; exec sleep 7200";
/// Sends back what it receives. The first process is a shell, because a shell collects orphaned processes. nc has a
/// short backlog and drops some of many concurrent connections, so tcpsvd is used where it exists.
const MAIN: &str =
    "if command -v tcpsvd >/dev/null; then tcpsvd -c 1000 -b 128 0.0.0.0 7007 cat & else nc -ll -p 7007 -e cat & fi
    while :; do sleep 60; done";
const ECHO_PORT: u16 = 7007;
/// A port on which nothing listens.
const REFUSED_PORT: u16 = 7008;
/// The time limit for pulling, scheduling and starting the pod.
const STARTED: Duration = Duration::from_secs(180);
/// The waiting reasons of a container that will never start.
const HOPELESS: [&str; 4] = ["ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"];
/// After this time the pod ends by itself, in case this program cannot delete it.
const LONGEST_SECONDS: u32 = 4 * 60 * 60;

/// The pod, from before its creation until its deletion.
#[derive(Debug)]
pub struct Created {
    pods: Api<Pod>,
    pod: Pod,
    name: String,
}

impl Created {
    /// Names the pod, and does not create it yet. The name is chosen here, so that the pod can be deleted even if the
    /// answer to its creation is lost.
    ///
    /// # Errors
    /// Fails if the description is not a valid pod.
    pub fn named(client: Client, namespace: &str, image: &str, node: Option<&str>) -> Result<Self, serde_json::Error> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("kubestream-conformance-{:x}-{}", since.as_millis(), std::process::id());
        let container = |name: &str, script: &str, stdin: bool| {
            json!({
                "name": name,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", script],
                "stdin": stdin,
                // A quota may require these.
                "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "2", "memory": "256Mi"}},
            })
        };
        let pod = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "kubestream-conformance"}},
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 1,
                "activeDeadlineSeconds": LONGEST_SECONDS,
                "containers": [container("main", MAIN, false), container("attach", ATTACH, true)],
            },
        }))?;
        Ok(Self { pods: Api::namespaced(client, namespace), pod, name })
    }

    /// Creates the pod.
    ///
    /// # Errors
    /// Fails with the API server's error.
    pub async fn make(&self) -> Result<(), kube::Error> {
        self.pods.create(&PostParams::default(), &self.pod).await.map(drop)
    }

    /// Waits until the pod runs.
    ///
    /// # Errors
    /// Fails with what the cluster says about a pod that does not run.
    pub async fn started(&self, namespace: &str) -> Result<target::Pod, Box<dyn Error + Send + Sync>> {
        let began = tokio::time::Instant::now();
        loop {
            let status = self.pods.get(&self.name).await?.status.unwrap_or_default();
            let containers = status.container_statuses.clone().unwrap_or_default();
            // A cluster may add containers of its own; they do not count.
            let is_ready = |name: &str| containers.iter().any(|container| container.name == name && container.ready);
            if is_ready("main") && is_ready("attach") {
                return Ok(target::Pod {
                    namespace: namespace.to_owned(),
                    name: self.name.clone(),
                    container: Some("main".into()),
                    attach: Some("attach".into()),
                    echo: Some(ECHO_PORT),
                    refused: REFUSED_PORT,
                    takes_many: false,
                });
            }
            let waits =
                containers.iter().filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
            let in_vain = waits.into_iter().any(|reason| HOPELESS.contains(&reason));
            if in_vain || began.elapsed() > STARTED || status.phase.as_deref() == Some("Failed") {
                let said = serde_json::to_string(&status)?;
                return Err(format!("the pod {} does not run: {said}", self.name).into());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Deletes the pod, if it exists. Tries a few times, each with a time limit.
    ///
    /// # Errors
    /// Fails with the API server's last error.
    pub async fn remove(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        const TRIES: usize = 5;
        const EACH: Duration = Duration::from_secs(10);
        let at_once = DeleteParams::default().grace_period(1);
        let mut last = String::new();
        for _ in 0..TRIES {
            match tokio::time::timeout(EACH, self.pods.delete(&self.name, &at_once)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(()),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = format!("no answer within {} s", EACH.as_secs()),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(format!("the pod {} was not deleted: {last}", self.name).into())
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
