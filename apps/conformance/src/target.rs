//! The server that is judged, and how it is reached.
//!
//! Owns the dialling, the credentials and the paths. It must not know what a case wants of them.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

/// A connection, whatever it goes through.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What is asked for of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Exec,
    Attach,
    PortForward,
}

/// Whose paths the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    ApiServer,
    Kubelet,
}

/// What runs there, as far as a case needs it.
#[derive(Clone, Debug)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// Where commands are run; the pod's own choice where it is not said.
    pub container: Option<String>,
    /// Whose main process says every line of its stdin on both outputs; without, attach is not tried.
    pub attach: Option<String>,
    /// A port that sends back what it is sent, up to its end; without, port-forward is not tried.
    pub echo: Option<u16>,
    /// A port that nobody listens on.
    pub refused: u16,
    /// The port that sends back is known to take many connections at a time.
    pub takes_many: bool,
}

/// The server, and what is on it.
pub struct Target {
    pub pod: Pod,
    pub paths: Paths,
    /// It has more than one container to run a command in, and so can be asked for one that it has not.
    pub has_containers: bool,
    /// Nothing is forgiven: what others are known to do is a failure here.
    pub strict: bool,
    base: String,
    connect: BoxCloneSyncService<Uri, Box<dyn Io>, BoxError>,
    authorise: BoxCloneSyncService<Request<()>, Request<()>, BoxError>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what it is reached with.
        f.debug_struct("Target").field("base", &self.base).field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl Target {
    /// Reached as a client of Kubernetes would, by the configuration of one.
    ///
    /// # Errors
    /// Where the configuration is not to be used: no such proxy, a key that is none, a plugin that fails.
    pub fn new(config: &kube::Config, pod: Pod) -> Result<Self, Box<dyn Error + Send + Sync>> {
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

    /// The path and query of a request to the pod.
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

    /// A connection of its own, past TLS and whatever proxies there are.
    ///
    /// # Errors
    /// Whatever keeps it from coming about.
    pub async fn dial(&self) -> Result<Box<dyn Io>, BoxError> {
        self.connect.clone().oneshot(self.base.parse()?).await
    }

    /// Adds the credentials, and whom they are to act for.
    ///
    /// # Errors
    /// Where a plugin or a token's renewal fails.
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
            // Its name and password, if its URL has them.
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
        other => Err(format!("a proxy is reached by http or socks5, not {}", other.unwrap_or("nothing")).into()),
    }
}

/// A connector of hyper's as one of tokio's.
fn boxed<C>(connector: C) -> BoxCloneSyncService<Uri, Box<dyn Io>, BoxError>
where
    C: Service<Uri, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
    C::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let tokio = connector.map_response(|io| Box::new(TokioIo::new(io)) as Box<dyn Io>).map_err(Into::into);
    BoxCloneSyncService::new(tokio)
}

fn authoriser(config: &kube::Config) -> Result<BoxCloneSyncService<Request<()>, Request<()>, BoxError>, BoxError> {
    // The layers change a request on its way to a service: here to one that answers with the request itself.
    let back = service_fn(|request: Request<String>| async { Ok::<_, BoxError>(Response::new(request)) });
    let back = config.extra_headers_layer()?.layer(back);
    Ok(match config.auth_layer()? {
        Some(layer) => bare(layer.layer(back)),
        None => bare(back),
    })
}

/// Of requests that have no body.
fn bare<S>(service: S) -> BoxCloneSyncService<Request<()>, Request<()>, BoxError>
where
    S: Service<Request<String>, Response = Response<Request<String>>, Error = BoxError, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    let service = service.map_request(|request: Request<()>| request.map(|()| String::new()));
    BoxCloneSyncService::new(service.map_response(|answer| answer.into_body().map(drop)))
}
