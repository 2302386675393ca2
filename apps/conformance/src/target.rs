//! The server to test, and how to reach it.
//!
//! Holds dialling, credentials and paths. It knows nothing of the cases.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt;
use kubestream_apps::names;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

/// A connection, directly or through TLS and proxies.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// The subresource of the pod that is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Exec,
    Attach,
    PortForward,
}

/// The paths that the server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    ApiServer,
    Kubelet,
}

/// What runs in the pod, as far as the cases need it.
#[derive(Clone, Debug)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// The container in which commands are run. `None` leaves the choice to the server.
    pub container: Option<String>,
    /// The container whose main process repeats each line of its stdin on both outputs. With `None`, attach is not
    /// tested.
    pub attach: Option<String>,
    /// A port that sends back what it receives, up to its end. With `None`, port-forward is not tested.
    pub echo: Option<u16>,
    /// A port on which nothing listens.
    pub refused: u16,
    /// The echo port is known to accept many concurrent connections.
    pub takes_many: bool,
}

/// The server, and the pod on it.
pub struct Target {
    pub pod: Pod,
    pub paths: Paths,
    /// The server has more than one container, so a request can name one that does not exist.
    pub has_containers: bool,
    /// Known departures of other servers count as failures here.
    pub strict: bool,
    base: String,
    connect: BoxCloneSyncService<Uri, Box<dyn Io>, BoxError>,
    authorise: BoxCloneSyncService<Request<()>, Request<()>, BoxError>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The credentials are not shown.
        f.debug_struct("Target").field("base", &self.base).field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl Target {
    /// A target that is reached by a client's configuration, as kube has it.
    ///
    /// # Errors
    /// Fails if the configuration is unusable: an unsupported proxy, an invalid key, or a plugin that fails. It also
    /// fails if a name of the pod is not valid, because the names become parts of paths.
    pub fn new(config: &kube::Config, pod: Pod) -> Result<Self, Box<dyn Error + Send + Sync>> {
        names::check("namespace", &pod.namespace)?;
        names::check("pod", &pod.name)?;
        for container in [&pod.container, &pod.attach].into_iter().flatten() {
            names::check("container", container)?;
        }
        Ok(Self {
            pod,
            paths: Paths::ApiServer,
            has_containers: true,
            strict: false,
            base: config.cluster_url.to_string().trim_end_matches('/').to_owned(),
            connect: connector(config)?,
            authorise: authoriser(config)?,
        })
    }

    /// A target inside this process. `dial` opens each connection to it.
    ///
    /// # Errors
    /// Fails if a name of the pod is not valid.
    pub fn in_process<IO: Io + 'static>(
        pod: Pod,
        dial: impl Fn() -> IO + Clone + Send + Sync + 'static,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut target = Self::new(&kube::Config::new("http://localhost".parse()?), pod)?;
        target.connect = BoxCloneSyncService::new(service_fn(move |_: Uri| {
            let io: Box<dyn Io> = Box::new(dial());
            async { Ok(io) }
        }));
        Ok(target)
    }

    /// Returns the path and query of a request to the pod.
    #[must_use]
    pub fn url(&self, operation: Operation, container: Option<&str>, query: &str) -> String {
        let Self { base, pod: Pod { namespace, name, .. }, .. } = self;
        let path = match (self.paths, operation) {
            (Paths::ApiServer, operation) => {
                let operation = match operation {
                    Operation::Exec => "exec",
                    Operation::Attach => "attach",
                    Operation::PortForward => "portforward",
                };
                format!("api/v1/namespaces/{namespace}/pods/{name}/{operation}")
            }
            (Paths::Kubelet, Operation::PortForward) => format!("portForward/{namespace}/{name}"),
            (Paths::Kubelet, operation) => {
                let operation = if operation == Operation::Attach { "attach" } else { "exec" };
                format!("{operation}/{namespace}/{name}/{}", container.unwrap_or("main"))
            }
        };
        format!("{base}/{path}?{query}")
    }

    /// Opens a connection, including TLS and the configured proxies.
    ///
    /// # Errors
    /// Fails if the connection cannot be made.
    pub async fn dial(&self) -> Result<Box<dyn Io>, BoxError> {
        self.connect.clone().oneshot(self.base.parse()?).await
    }

    /// Adds the credentials and the impersonation of the configuration.
    ///
    /// # Errors
    /// Fails if a plugin or the renewal of a token fails.
    pub async fn authorised(&self, request: Request<()>) -> Result<Request<()>, BoxError> {
        self.authorise.clone().oneshot(request).await
    }
}

fn connector(config: &kube::Config) -> Result<BoxCloneSyncService<Uri, Box<dyn Io>, BoxError>, BoxError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_secs(10)));
    let Some(proxy) = &config.proxy_url else {
        return Ok(boxed(config.rustls_https_connector_with_connector(tcp)?));
    };
    match proxy.scheme_str() {
        Some("http") => {
            let mut tunnel = Tunnel::new(proxy.clone(), tcp);
            // The name and password for the proxy, if its URL contains them.
            let matched = Matcher::builder().all(proxy.to_string()).build().intercept(&config.cluster_url);
            if let Some(password) = matched.as_ref().and_then(|proxy| proxy.basic_auth()) {
                tunnel = tunnel.with_auth(password.clone());
            }
            Ok(boxed(config.rustls_https_connector_with_connector(tunnel)?))
        }
        Some("socks5") => {
            let socks = SocksV5::new(proxy.clone(), tcp);
            Ok(boxed(config.rustls_https_connector_with_connector(socks)?))
        }
        other => {
            Err(format!("the proxy's URL must begin with http or socks5, not {}", other.unwrap_or("nothing")).into())
        }
    }
}

/// Turns a connector of hyper's into one of tokio's.
fn boxed<C>(connector: C) -> BoxCloneSyncService<Uri, Box<dyn Io>, BoxError>
where
    C: Service<Uri, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
    C::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let tokio = connector.map_response(|io| Box::new(TokioIo::new(io)) as Box<dyn Io>).map_err(Into::into);
    BoxCloneSyncService::new(tokio)
}

fn authoriser(config: &kube::Config) -> Result<BoxCloneSyncService<Request<()>, Request<()>, BoxError>, BoxError> {
    // The layers of kube change a request before they pass it to a service. This service returns the changed request as
    // its answer.
    let back = service_fn(|request: Request<String>| async { Ok::<_, BoxError>(Response::new(request)) });
    let back = config.extra_headers_layer()?.layer(back);
    Ok(match config.auth_layer()? {
        Some(layer) => bare(layer.layer(back)),
        None => bare(back),
    })
}

/// Adapts a service to requests without a body.
fn bare<S>(service: S) -> BoxCloneSyncService<Request<()>, Request<()>, BoxError>
where
    S: Service<Request<String>, Response = Response<Request<String>>, Error = BoxError, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    let service = service.map_request(|request: Request<()>| request.map(|()| String::new()));
    BoxCloneSyncService::new(service.map_response(|answer| answer.into_body().map(drop)))
}
