//! A pod of our own in somebody's cluster.
//!
//! Owns it from its making to its removal. What it runs is what the cases need, with busybox' programs.

use std::error::Error;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::target;

/// Says every line of its stdin on both outputs.
const ATTACH: &str = "while IFS= read -r line; do echo \"out:$line\"; echo \"err:$line\" >&2; done; exec sleep 7200";
/// Sends back what it is sent. A shell is the first process: one that collects what others leave behind.
/// nc's backlog is short, so that of many connections at a time some are never served: tcpsvd, where there is one, has a longer.
const MAIN: &str =
    "if command -v tcpsvd >/dev/null; then tcpsvd -c 1000 -b 128 0.0.0.0 7007 cat & else nc -ll -p 7007 -e cat & fi
    while :; do sleep 60; done";
const ECHO_PORT: u16 = 7007;
/// Nobody listens there.
const REFUSED_PORT: u16 = 7008;
/// Pulled, placed and started.
const STARTED: Duration = Duration::from_secs(180);
/// Why a container waits that will not start.
const HOPELESS: [&str; 4] = ["ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"];
/// Where not even its maker is left to remove it.
const LONGEST_SECONDS: u32 = 4 * 60 * 60;

/// The pod, from before it is made until it is removed.
#[derive(Debug)]
pub struct Created {
    pods: Api<Pod>,
    pod: Pod,
    name: String,
}

impl Created {
    /// Names one, and has not made it yet. The name is ours, so that it can be removed whatever becomes of the answer.
    ///
    /// # Errors
    /// Where what it is to be is no pod.
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
                // A quota may ask for them.
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

    /// Has it made.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn make(&self) -> Result<(), kube::Error> {
        self.pods.create(&PostParams::default(), &self.pod).await.map(drop)
    }

    /// Waits until it runs.
    ///
    /// # Errors
    /// Where it does not, with what the cluster says of it.
    pub async fn started(&self, namespace: &str) -> Result<target::Pod, Box<dyn Error + Send + Sync>> {
        let began = tokio::time::Instant::now();
        loop {
            let status = self.pods.get(&self.name).await?.status.unwrap_or_default();
            let containers = status.container_statuses.clone().unwrap_or_default();
            // Whatever else a cluster puts beside them.
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

    /// Has it removed, if it is there. It is tried a few times, each for a bounded time.
    ///
    /// # Errors
    /// What the API server said last.
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
        Err(format!("the pod {} is left behind: {last}", self.name).into())
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
