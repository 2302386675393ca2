//! The options of the command line, and the server that they name.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use conformance::echo;
use conformance::scale::Scale;
use conformance::target::{Paths, Pod, Target};
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kubestream_apps::Failure;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::task::JoinSet;

use crate::local;

/// Tests a server of kubectl exec, attach and port-forward, and reports where it departs from the protocols.
///
/// Without --kubeconfig or --server it tests the built-in node.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Path to the kubeconfig file of the cluster to test. Its credentials, exec plugins and proxies are used.
    #[arg(long, value_name = "FILE", group = "elsewhere")]
    kubeconfig: Option<PathBuf>,
    /// The name of the kubeconfig context to use [default: the current context].
    #[arg(long, requires = "kubeconfig")]
    context: Option<String>,
    /// The namespace of the pod [default: the context's namespace, or "default"].
    #[arg(short, long, requires = "elsewhere")]
    namespace: Option<String>,
    /// The pod to run commands in. It needs sh, head, yes, cat, stty, sleep and sha256sum.
    #[arg(long, requires = "elsewhere", conflicts_with = "create")]
    pod: Option<String>,
    /// Create a pod for the run, and delete it at the end.
    #[arg(long, requires = "kubeconfig")]
    create: bool,
    /// The image of the pod that --create makes. It needs busybox' sh and nc.
    #[arg(long, default_value = "busybox:1", requires = "create")]
    pub(crate) image: String,
    /// The node of the pod that --create makes, for a cluster without a scheduler [default: the scheduler's choice].
    #[arg(long, requires = "create")]
    pub(crate) node: Option<String>,
    /// The container to run commands in [default: the pod's first container].
    #[arg(short, long, requires = "elsewhere", conflicts_with = "create")]
    container: Option<String>,
    /// A container whose main process repeats each line of its stdin on stdout and stderr. Without this option, attach
    /// is tested only on the built-in node, on a pod of --create, and with --server but without --pod. In the last case
    /// the container is "main".
    #[arg(long, value_name = "CONTAINER", requires = "elsewhere", conflicts_with = "create")]
    attach_container: Option<String>,
    /// A port of the pod on which a program sends back the bytes that it receives. Without this option, port-forward is
    /// tested only on the built-in node, on a pod of --create, and with a --server on this machine but without --pod.
    /// In the last case this program opens such a port itself.
    #[arg(long, value_name = "PORT", requires = "elsewhere", conflicts_with = "create")]
    echo_port: Option<u16>,
    /// The URL of a server outside a cluster: one with the paths of a kube-apiserver or, with --kubelet, of a kubelet.
    #[arg(long, value_name = "URL", group = "elsewhere", conflicts_with_all = ["kubeconfig", "create"])]
    server: Option<String>,
    /// Use the paths of a kubelet with --server.
    #[arg(long, requires = "server")]
    kubelet: bool,
    /// Path to a PEM file with the certificate of the authority that signed the server's certificate.
    #[arg(long, value_name = "FILE", requires = "server")]
    certificate_authority: Option<PathBuf>,
    /// Do not check the server's certificate. This makes the connection insecure.
    #[arg(long, requires = "server", conflicts_with = "certificate_authority")]
    insecure_skip_tls_verify: bool,
    /// Path to a PEM file with the client certificate.
    #[arg(long, value_name = "FILE", requires_all = ["server", "client_key"])]
    client_certificate: Option<PathBuf>,
    /// Path to a PEM file with the key of the client certificate.
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
    /// Count known departures as failures, too. A known departure from the protocols is one that widely used servers
    /// have. For the built-in node this option is always on.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Run these cases only. A NAME is the full name of a case, such as status/codes, or the part before the slash for
    /// a group of cases, such as output.
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Run the cases in these columns of the table only, for example "WS v5".
    #[arg(long, value_name = "COLUMN", num_args = 1.., value_delimiter = ',')]
    pub(crate) column: Vec<String>,
    /// List the cases and exit. No case is run.
    #[arg(long)]
    pub(crate) list: bool,
    /// Write the result to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the result to this file as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// How many short commands to run in each column. Each of them exits at once.
    #[arg(long, default_value = "1000")]
    runs: NonZeroUsize,
    /// The size of each large transfer, in megabytes (10^6 bytes).
    #[arg(long, default_value = "100")]
    megabytes: NonZeroUsize,
    /// The time limit, in seconds, for a step that a healthy server does at once. Raise it for a slow or distant
    /// server.
    #[arg(long, value_name = "SECONDS", default_value_t = Scale::default().patience.as_secs())]
    patience: u64,
    /// The time limit, in seconds, for one case in one column.
    #[arg(long, value_name = "SECONDS", default_value_t = Scale::default().deadline.as_secs())]
    deadline: u64,
}

/// The server to test.
pub(crate) enum Judged {
    /// A server that exists, with the tasks of this process that it needs.
    There(Target, JoinSet<()>),
    /// A cluster in which a pod is still to be created.
    Create { config: Box<kube::Config>, namespace: String },
}

impl Arguments {
    pub(crate) fn scale(&self) -> Scale {
        Scale {
            fast_exits: self.runs.get(),
            megabytes: self.megabytes.get(),
            patience: Duration::from_secs(self.patience),
            deadline: Duration::from_secs(self.deadline),
            ..Scale::default()
        }
    }

    pub(crate) async fn judged(&self) -> Result<Judged, Failure> {
        if let Some(file) = &self.kubeconfig {
            let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
            let config = kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?;
            let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
            if self.create {
                return Ok(Judged::Create { config: Box::new(config), namespace });
            }
            let Some(pod) = &self.pod else { return Err("--kubeconfig needs --pod or --create".into()) };
            let mut pod = self.pod_of(namespace, pod);
            if pod.container.is_none() {
                pod.container = first_container(&config, &pod).await?;
            }
            return Ok(Judged::There(Target::new(&config, pod)?, JoinSet::new()));
        }
        let Some(server) = &self.server else {
            let (target, tasks) = local::node().await?;
            return Ok(Judged::There(target, tasks));
        };
        let mut config = kube::Config::new(server.parse()?);
        if let Some(file) = &self.certificate_authority {
            let certificates = CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>()?;
            if certificates.is_empty() {
                return Err(format!("{} contains no certificate", file.display()).into());
            }
            config.root_cert = Some(certificates.iter().map(|certificate| certificate.to_vec()).collect());
        }
        config.accept_invalid_certs = self.insecure_skip_tls_verify;
        config.auth_info.client_certificate = self.client_certificate.as_ref().map(|path| path.display().to_string());
        config.auth_info.client_key = self.client_key.as_ref().map(|path| path.display().to_string());
        let (mut pod, mut tasks) = (self.pod_of("default".into(), "demo"), JoinSet::new());
        if self.pod.is_none() {
            pod.attach = pod.attach.or_else(|| Some("main".into()));
        }
        if pod.echo.is_none() && self.pod.is_none() && config.cluster_url.host().is_some_and(local::is_loopback) {
            // The pods of that server are this machine.
            pod.echo = Some(echo::serve(&mut tasks).await?);
            pod.refused = echo::free_port().await?;
            pod.takes_many = true;
        }
        let mut target = Target::new(&config, pod)?;
        target.paths = if self.kubelet { Paths::Kubelet } else { Paths::ApiServer };
        target.has_containers = false;
        Ok(Judged::There(target, tasks))
    }

    fn pod_of(&self, namespace: String, name: &str) -> Pod {
        Pod {
            namespace: self.namespace.clone().unwrap_or(namespace),
            name: self.pod.clone().unwrap_or_else(|| name.to_owned()),
            container: self.container.clone(),
            attach: self.attach_container.clone(),
            echo: self.echo_port,
            refused: 1,
            takes_many: false,
        }
    }
}

/// Returns the container that kubectl would choose, and fails if the pod does not exist.
async fn first_container(config: &kube::Config, pod: &Pod) -> Result<Option<String>, Failure> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(kube::Client::try_from(config.clone())?, &pod.namespace);
    let containers = pods.get(&pod.name).await?.spec.map(|spec| spec.containers).unwrap_or_default();
    Ok(containers.into_iter().next().map(|container| container.name))
}
