//! CRI's runtime service: the kubelet's calls about sandboxes, containers and streams.
//!
//! Answers the calls; [`store`](crate::store) and [`container`](crate::container) do the work. Calls that are not here
//! are answered as unimplemented.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kubestream::exec::Streams as Wanted;
use kubestream_runtime::{Error, Server};
use tonic::{Code, Request, Response, Status};

use crate::exec_sync;
use crate::store::Store;
use crate::streams::Streams;
use crate::time::nanos;
use crate::v1::runtime_service_server::RuntimeService;
use crate::v1::{
    AttachRequest, AttachResponse, CgroupDriver, ContainerStatsRequest, ContainerStatsResponse, ContainerStatusRequest,
    ContainerStatusResponse, CreateContainerRequest, CreateContainerResponse, ExecRequest, ExecResponse,
    ExecSyncRequest, ExecSyncResponse, LinuxRuntimeConfiguration, ListContainerStatsRequest,
    ListContainerStatsResponse, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest,
    ListPodSandboxResponse, ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, PodSandboxStatsRequest,
    PodSandboxStatsResponse, PodSandboxStatusRequest, PodSandboxStatusResponse, PortForwardRequest,
    PortForwardResponse, RemoveContainerRequest, RemoveContainerResponse, RemovePodSandboxRequest,
    RemovePodSandboxResponse, ReopenContainerLogRequest, ReopenContainerLogResponse, RunPodSandboxRequest,
    RunPodSandboxResponse, RuntimeCondition, RuntimeConfigRequest, RuntimeConfigResponse, RuntimeStatus,
    StartContainerRequest, StartContainerResponse, StatusRequest, StatusResponse, StopContainerRequest,
    StopContainerResponse, StopPodSandboxRequest, StopPodSandboxResponse, UpdateRuntimeConfigRequest,
    UpdateRuntimeConfigResponse, VersionRequest, VersionResponse,
};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Debug)]
pub(crate) struct Sandboxes {
    store: Arc<Store>,
    streams: Server<Streams>,
}

impl Sandboxes {
    pub(crate) fn new(store: Arc<Store>, streams: Server<Streams>) -> Self {
        Self { store, streams }
    }
}

#[tonic::async_trait]
impl RuntimeService for Sandboxes {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "kubestream".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let holds =
            |name: &str| RuntimeCondition { r#type: name.to_owned(), status: true, ..RuntimeCondition::default() };
        let status = RuntimeStatus { conditions: vec![holds("RuntimeReady"), holds("NetworkReady")] };
        Ok(Response::new(StatusResponse { status: Some(status), ..StatusResponse::default() }))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
        Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        // This call sets the addresses of pods. All pods here use this machine's.
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let RunPodSandboxRequest { config, runtime_handler } = request.into_inner();
        let config = config.ok_or_else(|| Status::invalid_argument("a pod sandbox must have a config"))?;
        if config.metadata.is_none() {
            return Err(Status::invalid_argument("a pod sandbox must have metadata"));
        }
        let pod_sandbox_id = self.store.add_sandbox(config, runtime_handler)?;
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        self.store.stop_sandbox(&request.into_inner().pod_sandbox_id).await;
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        self.store.remove_sandbox(&request.into_inner().pod_sandbox_id).await;
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let sandbox = self.store.sandbox(&request.into_inner().pod_sandbox_id)?;
        let containers = self.store.containers().into_iter().filter(|container| container.sandbox == sandbox.id);
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(sandbox.status()),
            info: HashMap::new(),
            containers_statuses: containers.map(|container| container.status()).collect(),
            timestamp: nanos(SystemTime::now()),
        }))
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let sandboxes = self.store.sandboxes().into_iter().filter(|sandbox| sandbox.passes(&filter));
        Ok(Response::new(ListPodSandboxResponse { items: sandboxes.map(|sandbox| sandbox.item()).collect() }))
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let CreateContainerRequest { pod_sandbox_id, config, .. } = request.into_inner();
        let config = config.ok_or_else(|| Status::invalid_argument("a container must have a config"))?;
        let container_id = self.store.add_container(&pod_sandbox_id, config)?;
        Ok(Response::new(CreateContainerResponse { container_id }))
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let container = self.store.container(&request.into_inner().container_id)?;
        if !self.store.sandbox(&container.sandbox)?.ready {
            return Err(Status::failed_precondition(format!("pod sandbox {} is not ready", container.sandbox)));
        }
        container.start().map_err(Status::failed_precondition)?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let StopContainerRequest { container_id, timeout } = request.into_inner();
        // A container that does not exist needs no removal.
        if let Ok(container) = self.store.container(&container_id) {
            container.stop(seconds(timeout)).await;
        }
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        self.store.remove_container(&request.into_inner().container_id).await;
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let containers = self.store.containers().into_iter().filter(|container| container.passes(&filter));
        Ok(Response::new(ListContainersResponse { containers: containers.map(|container| container.item()).collect() }))
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let status = self.store.container(&request.into_inner().container_id)?.status();
        Ok(Response::new(ContainerStatusResponse { status: Some(status), info: HashMap::new() }))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let container = self.store.running(&request.into_inner().container_id)?;
        container.log.reopen().map_err(|error| Status::internal(format!("the container's log: {error}")))?;
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let ExecSyncRequest { container_id, cmd, timeout } = request.into_inner();
        not_empty(&cmd)?;
        let container = self.store.running(&container_id)?;
        let ran = exec_sync::run(cmd, container.place(false), seconds(timeout)).await;
        ran.map(Response::new).map_err(|error| {
            let code = match error {
                exec_sync::Error::Timeout(..) => Code::DeadlineExceeded,
                exec_sync::Error::TooLong(_) => Code::ResourceExhausted,
                exec_sync::Error::Start(..) | exec_sync::Error::Io(..) => Code::Unknown,
            };
            Status::new(code, error.to_string())
        })
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request.into_inner();
        not_empty(&cmd)?;
        let container = self.store.running(&container_id)?;
        let streams = Wanted { stdin, stdout, stderr, tty };
        let url = self.streams.exec_url(&container.id, cmd, streams).map_err(status)?;
        Ok(Response::new(ExecResponse { url }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let AttachRequest { container_id, stdin, tty, stdout, stderr } = request.into_inner();
        let container = self.store.running(&container_id)?;
        let streams = Wanted { stdin, stdout, stderr, tty };
        let url = self.streams.attach_url(&container.id, streams).map_err(status)?;
        Ok(Response::new(AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let PortForwardRequest { pod_sandbox_id, port } = request.into_inner();
        let sandbox = self.store.sandbox(&pod_sandbox_id)?;
        if !sandbox.ready {
            return Err(Status::failed_precondition(format!("pod sandbox {} is not ready", sandbox.id)));
        }
        let no_port = |port: &i32| Status::invalid_argument(format!("{port} is not a port"));
        let ports: Vec<u16> =
            port.iter().map(|port| u16::try_from(*port).map_err(|_| no_port(port))).collect::<Result<_, _>>()?;
        let url = self.streams.port_forward_url(sandbox.id, &ports).map_err(status)?;
        Ok(Response::new(PortForwardResponse { url }))
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let stats = self.store.container(&request.into_inner().container_id)?.stats();
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let containers = self.store.containers().into_iter().filter(|container| container.passes_for_stats(&filter));
        Ok(Response::new(ListContainerStatsResponse { stats: containers.map(|container| container.stats()).collect() }))
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let stats = self.store.sandbox(&request.into_inner().pod_sandbox_id)?.stats();
        Ok(Response::new(PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let sandboxes = self.store.sandboxes().into_iter().filter(|sandbox| sandbox.passes_for_stats(&filter));
        Ok(Response::new(ListPodSandboxStatsResponse { stats: sandboxes.map(|sandbox| sandbox.stats()).collect() }))
    }
}

/// Converts a timeout of CRI, which is in whole seconds. Negative counts as zero.
fn seconds(timeout: i64) -> Duration {
    Duration::from_secs(u64::try_from(timeout).unwrap_or(0))
}

fn not_empty(command: &[String]) -> Result<(), Status> {
    if command.is_empty() { Err(Status::invalid_argument("the command is empty")) } else { Ok(()) }
}

/// Returns why there is no URL, with the code that its variant of `Error` documents.
fn status(error: Error) -> Status {
    let code = match error {
        Error::NoContainer | Error::NoSandbox | Error::TtyAndStderr | Error::NoStreams => Code::InvalidArgument,
        Error::TooMany => Code::ResourceExhausted,
        Error::Stopping => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, error.to_string())
}
