//! Sandboxes and containers as CRI's answers show them, and CRI's filters.

use crate::container::{Container, State};
use crate::image::name;
use crate::store::{Sandbox, selects};
use crate::v1::{
    self, ContainerAttributes, ContainerFilter, ContainerState, ContainerStats, ContainerStatsFilter, ContainerStatus,
    LinuxPodSandboxStatus, Namespace, PodSandbox, PodSandboxAttributes, PodSandboxFilter, PodSandboxNetworkStatus,
    PodSandboxState, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatus,
};

impl Sandbox {
    fn state(&self) -> i32 {
        if self.ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }.into()
    }

    pub(crate) fn passes(&self, filter: &PodSandboxFilter) -> bool {
        self.id.starts_with(&filter.id)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == self.state())
            && selects(&filter.label_selector, &self.config.labels)
    }

    pub(crate) fn passes_for_stats(&self, filter: &PodSandboxStatsFilter) -> bool {
        self.id.starts_with(&filter.id) && selects(&filter.label_selector, &self.config.labels)
    }

    pub(crate) fn item(&self) -> PodSandbox {
        PodSandbox {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state(),
            created_at: self.created,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
        }
    }

    pub(crate) fn status(&self) -> PodSandboxStatus {
        // A kubelet recreates a pod if its namespaces differ from those that it asked for.
        let context = self.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = context.and_then(|context| context.namespace_options.clone());
        PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state(),
            created_at: self.created,
            network: Some(PodSandboxNetworkStatus { ip: "127.0.0.1".to_owned(), additional_ips: Vec::new() }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
        }
    }

    /// Statistics with names but without figures, because nothing is measured.
    pub(crate) fn stats(&self) -> PodSandboxStats {
        let attributes = PodSandboxAttributes {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        };
        PodSandboxStats { attributes: Some(attributes), ..PodSandboxStats::default() }
    }
}

impl State {
    fn shown(&self) -> i32 {
        match self {
            Self::Created => ContainerState::ContainerCreated,
            Self::Running { .. } => ContainerState::ContainerRunning,
            Self::Exited { .. } => ContainerState::ContainerExited,
        }
        .into()
    }
}

impl Container {
    fn image(&self) -> String {
        name(self.config.image.as_ref().map_or("", |image| &image.image))
    }

    pub(crate) fn passes(&self, filter: &ContainerFilter) -> bool {
        self.id.starts_with(&filter.id)
            && self.sandbox.starts_with(&filter.pod_sandbox_id)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == self.state().shown())
            && selects(&filter.label_selector, &self.config.labels)
    }

    pub(crate) fn passes_for_stats(&self, filter: &ContainerStatsFilter) -> bool {
        self.id.starts_with(&filter.id)
            && self.sandbox.starts_with(&filter.pod_sandbox_id)
            && selects(&filter.label_selector, &self.config.labels)
    }

    pub(crate) fn item(&self) -> v1::Container {
        v1::Container {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox.clone(),
            metadata: self.config.metadata.clone(),
            image: self.config.image.clone(),
            image_ref: self.image(),
            state: self.state().shown(),
            created_at: self.created,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            image_id: self.image(),
        }
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        let state = self.state();
        let mut status = ContainerStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: state.shown(),
            created_at: self.created,
            image: self.config.image.clone(),
            image_ref: self.image(),
            image_id: self.image(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: self.log.path().map_or_else(String::new, |path| path.display().to_string()),
            ..ContainerStatus::default()
        };
        match state {
            State::Created => {}
            State::Running { started, .. } => status.started_at = started,
            State::Exited { started, finished, code, reason, message } => {
                (status.started_at, status.finished_at) = (started, finished);
                (status.exit_code, status.reason, status.message) = (code, reason.to_owned(), message);
            }
        }
        status
    }

    /// Statistics with names but without figures, because nothing is measured.
    pub(crate) fn stats(&self) -> ContainerStats {
        let attributes = ContainerAttributes {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        };
        ContainerStats { attributes: Some(attributes), ..ContainerStats::default() }
    }
}
