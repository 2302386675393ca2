//! A pod of our own in somebody's cluster.
//!
//! Owns it from its making to its removal. What it runs is what the cases need, with busybox' programs.

use std::error::Error;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::target;

/// Says every line of its stdin on both outputs.
const ATTACH: &str = "while IFS= read -r line; do echo \"out:$line\"; echo \"err:$line\" >&2; done; exec sleep 7200";
/// Sends back what it is sent. A shell is the first process: one that collects what others leave behind.
const MAIN: &str = "nc -ll -p 7007 -e cat & while :; do sleep 60; done";
const ECHO_PORT: u16 = 7007;
/// Nobody listens there.
const REFUSED_PORT: u16 = 7008;
/// Pulled, placed and started.
const STARTED: Duration = Duration::from_secs(180);
/// Where not even its maker is left to remove it.
const LONGEST_SECONDS: u32 = 4 * 60 * 60;

/// The pod, until it is removed.
#[derive(Debug)]
pub struct Created {
    pods: Api<Pod>,
    name: String,
}

impl Created {
    /// Has one made. It is there from now on, though it does not run yet.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn new(client: Client, namespace: &str, image: &str, node: Option<&str>) -> Result<Self, kube::Error> {
        let container = |name: &str, script: &str, stdin: bool| {
            json!({
                "name": name,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", script],
                "stdin": stdin,
            })
        };
        let pod = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "kubestream-conformance-", "labels": {"app": "kubestream-conformance"}},
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 1,
                "activeDeadlineSeconds": LONGEST_SECONDS,
                "containers": [container("main", MAIN, false), container("attach", ATTACH, true)],
            },
        }))
        .map_err(kube::Error::SerdeError)?;
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let made = pods.create(&PostParams::default(), &pod).await?;
        Ok(Self { pods, name: made.metadata.name.unwrap_or_default() })
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
            if containers.len() == 2 && containers.iter().all(|container| container.ready) {
                return Ok(target::Pod {
                    namespace: namespace.to_owned(),
                    name: self.name.clone(),
                    container: Some("main".into()),
                    attach: Some("attach".into()),
                    echo: Some(ECHO_PORT),
                    refused: REFUSED_PORT,
                });
            }
            if began.elapsed() > STARTED || status.phase.as_deref() == Some("Failed") {
                let said = serde_json::to_string(&status)?;
                return Err(format!("the pod {} does not run: {said}", self.name).into());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Has it removed.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn remove(&self) -> Result<(), kube::Error> {
        self.pods.delete(&self.name, &DeleteParams::default().grace_period(1)).await.map(drop)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
