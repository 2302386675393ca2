//! What the user says, and which server that is.

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

/// Judges a server of kubectl exec, attach and port-forward: what it speaks, and where it departs.
///
/// Without --kubeconfig or --server it is the built-in node.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// A cluster, by the configuration of kubectl: its credentials, plugins and proxies are used.
    #[arg(long, value_name = "FILE", group = "elsewhere")]
    kubeconfig: Option<PathBuf>,
    /// The context of the configuration, if it is not the current one.
    #[arg(long, requires = "kubeconfig")]
    context: Option<String>,
    /// The namespace, if it is not the context's.
    #[arg(short, long, requires = "elsewhere")]
    namespace: Option<String>,
    /// The pod to run commands in: it needs sh, head, yes, cat, stty, sleep and sha256sum.
    #[arg(long, requires = "elsewhere", conflicts_with = "create")]
    pod: Option<String>,
    /// Make a pod, and remove it again.
    #[arg(long, requires = "kubeconfig")]
    create: bool,
    /// The image of that pod: one with busybox' sh and nc.
    #[arg(long, default_value = "busybox:1", requires = "create")]
    pub(crate) image: String,
    /// The node of that pod: for a cluster without a scheduler.
    #[arg(long, requires = "create")]
    pub(crate) node: Option<String>,
    /// The container to run commands in, if it is not the pod's first.
    #[arg(short, long, requires = "elsewhere", conflicts_with = "create")]
    container: Option<String>,
    /// A container whose main process says every line of its stdin on both outputs.
    #[arg(long, value_name = "CONTAINER", requires = "elsewhere", conflicts_with = "create")]
    attach_container: Option<String>,
    /// A port of the pod that sends back what it is sent. With a --server on this machine, and without --pod, it is one of this
    /// program's own.
    #[arg(long, value_name = "PORT", requires = "elsewhere", conflicts_with = "create")]
    echo_port: Option<u16>,
    /// A bare streaming server: whatever has the paths of a kube-apiserver, or of a kubelet.
    #[arg(long, value_name = "URL", group = "elsewhere", conflicts_with_all = ["kubeconfig", "create"])]
    server: Option<String>,
    /// That server has a kubelet's paths.
    #[arg(long, requires = "server")]
    kubelet: bool,
    /// The certificate of the authority that a https server is signed by, PEM.
    #[arg(long, value_name = "FILE", requires = "server")]
    certificate_authority: Option<PathBuf>,
    /// Take any certificate of a https server's.
    #[arg(long, requires = "server", conflicts_with = "certificate_authority")]
    insecure_skip_tls_verify: bool,
    /// Our certificate, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["server", "client_key"])]
    client_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
    /// Take what is known of other servers for a failure too, as with the built-in node.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Only these cases, or all whose name begins with such a word: output, status/codes.
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only in these columns of the table: "WS v5".
    #[arg(long, value_name = "COLUMN", num_args = 1.., value_delimiter = ',')]
    pub(crate) column: Vec<String>,
    /// Say which cases there are.
    #[arg(long)]
    pub(crate) list: bool,
    /// Write the result to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the result to a file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// How often a fast exit is tried.
    #[arg(long, default_value = "1000")]
    runs: NonZeroUsize,
    /// Megabytes of the large transfers.
    #[arg(long, default_value = "100")]
    megabytes: NonZeroUsize,
    /// Seconds for whatever happens at once on a server that is well: more for one that is slow, or far.
    #[arg(long, value_name = "SECONDS", default_value_t = Scale::default().patience.as_secs())]
    patience: u64,
    /// Seconds for a case in one column.
    #[arg(long, value_name = "SECONDS", default_value_t = Scale::default().deadline.as_secs())]
    deadline: u64,
}

/// What is judged.
pub(crate) enum Judged {
    /// Something that is there, and what of it runs in this process.
    There(Target, JoinSet<()>),
    /// A cluster that a pod is to be made in.
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
                return Err(format!("there is no certificate in {}", file.display()).into());
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
            // Its pod is this machine.
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

/// Where kubectl would run a command; and whether there is such a pod at all.
async fn first_container(config: &kube::Config, pod: &Pod) -> Result<Option<String>, Failure> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(kube::Client::try_from(config.clone())?, &pod.namespace);
    let containers = pods.get(&pod.name).await?.spec.map(|spec| spec.containers).unwrap_or_default();
    Ok(containers.into_iter().next().map(|container| container.name))
}
