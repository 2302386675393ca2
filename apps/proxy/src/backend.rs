//! Passes requests to the backend.
//!
//! Decides who is let in, and connects. [`Rewrite`] makes the backend's requests. After both sides have switched
//! protocols, the library passes the bytes.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use clap::Args;
use http::header;
use http::{Request, Response, StatusCode};
use kubestream::AbortOnDrop;
use kubestream::upgrade::{self, Config, Pending, UpgradeError};
use kubestream_apps::guard::{self, Hosts};
use kubestream_apps::transport::{self, Tls};
use kubestream_apps::{Failure, Origins, api};
use kubestream_proxy::{self as proxy, Pipe, PipeOutcome, PodRequest, PodRequestError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

use crate::plain;
use crate::record::{Record, Recording};
use crate::rewrite::{self, Rewrite};
use crate::tokens::{Secrets, Tokens};
use crate::translate::{Translate, Translation};

/// A client's connection. If either side breaks off, the other side must not see an orderly end.
type Client = AbortOnDrop<TcpStream>;

#[derive(Args)]
pub(crate) struct Target {
    /// The URL of the kube-apiserver to pass requests to, or of a server with the same paths. If the URL has a path, it
    /// comes before the path of each request.
    #[arg(long, value_name = "URL", required_unless_present = "kubelet", conflicts_with = "kubelet")]
    backend: Option<Url>,
    /// The URL of a kubelet to pass requests to. The proxy then takes the place of the API server: its clients use the
    /// API server's paths. A path of the URL comes before the kubelet's paths.
    #[arg(long, value_name = "URL")]
    kubelet: Option<Url>,
    #[command(flatten)]
    tokens: Tokens,
    /// For sessions, always use this transport to the backend, and translate the sessions of clients that use the other
    /// transport. Without a value, the option means "spdy". It cannot be used together with --record, which needs
    /// sessions that pass unchanged.
    #[arg(
        long,
        value_enum,
        value_name = "TRANSPORT",
        num_args = 0..=1,
        default_missing_value = "spdy",
        conflicts_with = "record"
    )]
    translate: Option<Translate>,
    #[command(flatten)]
    hosts: Hosts,
    #[command(flatten)]
    origins: Origins,
    #[command(flatten)]
    tls: Tls,
}

pub(crate) struct Backend {
    url: Url,
    is_kubelet: bool,
    token: Option<String>,
    rewrite: Rewrite,
    translate: Option<Translate>,
    hosts: Hosts,
    tls: Tls,
    config: Config,
    record: Record,
}

impl Backend {
    pub(crate) fn new(target: Target, record: Record) -> Result<Self, Failure> {
        let Target { backend, kubelet, tokens, translate, hosts, origins, tls } = target;
        let is_kubelet = kubelet.is_some();
        let url = backend.or(kubelet).ok_or("one of --backend and --kubelet is required")?;
        let Secrets { client: token, backend: credentials } = tokens.read()?;
        let rewrite = Rewrite::new(&url, credentials)?;
        let mut config = origins.config();
        config.long_queries = true;
        Ok(Self { url, is_kubelet, token, rewrite, translate, hosts, tls, config, record })
    }

    /// Serves one connection of a client. It carries one request.
    pub(crate) async fn answer(&self, client: TcpStream, from: SocketAddr) -> Result<(), Failure> {
        transport::set_options(&client)?;
        let own = client.local_addr()?.ip();
        let pending = upgrade::accept(AbortOnDrop::new(client), &self.config).await?;
        if let Err(refusal) = self.guard(&pending, own) {
            return Ok(pending.respond(*refusal).await?);
        }
        if !self.is_known(&pending) {
            let response = api::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
            return Ok(pending.respond(response).await?);
        }
        if let Err(refusal) = rewrite::check_identity(pending.request().headers()) {
            return Ok(pending.respond(*refusal).await?);
        }
        let path = match self.location(&pending) {
            Ok(path) => path,
            Err(error) => {
                let response = api::failure(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string());
                return Ok(pending.respond(response).await?);
            }
        };
        let mut request = pending.to_pass_on();
        if let Err(error) = self.rewrite.apply(&mut request, path.as_deref(), from.ip()) {
            let response = api::failure(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string());
            return Ok(pending.respond(response).await?);
        }
        if path.is_none() && self.is_kubelet {
            return self.answer_for_api(pending).await;
        }
        let (pending, translation) = match self.translates(&pending) {
            None => (pending, None),
            Some(to) => {
                let (pending, translation) = Translation::of(pending, to).await?;
                (pending, Some(translation))
            }
        };
        let recording = match self.record.begin(&pending) {
            Ok(recording) => recording,
            Err(response) => return Ok(pending.respond(*response).await?),
        };
        let how = (translation, recording);
        if self.url.scheme() == "http" {
            let backend = match self.dial().await {
                Ok(backend) => backend,
                Err(error) => return unreachable(pending, &error).await,
            };
            // Without TLS on either side, the Linux kernel can move the bytes.
            #[cfg(target_os = "linux")]
            return self.pass(pending, backend, request, how, Pipe::splice).await;
            #[cfg(not(target_os = "linux"))]
            return self.pass(pending, backend, request, how, Pipe::run).await;
        }
        let backend = match transport::connect_over(self.url.as_str(), &self.tls, AbortOnDrop::new).await {
            Ok(backend) => backend,
            Err(error) => return unreachable(pending, &error).await,
        };
        self.pass(pending, backend, request, how, Pipe::run).await
    }

    async fn pass<B, Moving>(
        &self,
        pending: Pending<Client>,
        backend: B,
        request: Request<()>,
        (translation, recording): (Option<Translation>, Option<Recording>),
        run: impl FnOnce(Pipe<Client, B>) -> Moving,
    ) -> Result<(), Failure>
    where
        B: AsyncRead + AsyncWrite + Unpin,
        Moving: Future<Output = PipeOutcome>,
    {
        if !pending.is_upgrade() {
            return plain::pass(pending, backend, request).await;
        }
        if let Some(translation) = translation {
            return translation.run(pending, backend, request).await.map_err(|error| self.explain(error));
        }
        let pipe = proxy::forward(pending, backend, request).await.map_err(|error| self.explain(error.into()))?;
        let outcome = match recording {
            Some(recording) => recording.run(pipe).await?,
            None => run(pipe).await,
        };
        // A client that goes away is not reported.
        outcome.backend.map_or(Ok(()), |error| Err(self.failed(&error)))
    }

    fn translates(&self, pending: &Pending<Client>) -> Option<Translate> {
        self.translate.filter(|to| pending.transport().is_some_and(|asked| asked != to.transport()))
    }

    /// Refuses web pages, because their requests would get the proxy's own credentials. A page that has only made its own
    /// name lead here knows no token.
    fn guard(&self, pending: &Pending<Client>, own: IpAddr) -> Result<(), Box<Response<Bytes>>> {
        if self.token.is_none() {
            self.hosts.check(pending.request(), &[own])?;
        }
        guard::check_origin(pending.request().headers(), &self.config.allowed_origins)
    }

    /// Checks the bearer token, in the `Authorization` header or in the subprotocol of a browser, which cannot set that
    /// header.
    fn is_known(&self, pending: &Pending<Client>) -> bool {
        let Some(token) = &self.token else { return true };
        let header = pending.request().headers().get(header::AUTHORIZATION);
        let header = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let offered = pending.bearer_token().ok().flatten().map(upgrade::BearerToken::as_str);
        [header, offered].into_iter().flatten().any(|offered| same(offered.as_bytes(), token.as_bytes()))
    }

    /// Returns the path of a streaming request at a kubelet. An API server gets the client's own path.
    fn location(&self, pending: &Pending<Client>) -> Result<Option<String>, PodRequestError> {
        if !self.is_kubelet {
            return Ok(None);
        }
        let request = pending.request();
        let request = PodRequest::from_path(request.uri().path(), upgrade::query(request))?;
        request.map(|request| request.to_kubelet()).transpose()
    }

    async fn dial(&self) -> std::io::Result<AbortOnDrop<TcpStream>> {
        Ok(AbortOnDrop::new(transport::connect_tcp(&self.url).await?))
    }

    /// Names the backend in its error.
    fn explain(&self, error: Failure) -> Failure {
        match error.downcast::<UpgradeError>() {
            Ok(error) => match *error {
                UpgradeError::Backend(error) => self.failed(&error),
                other => other.into(),
            },
            Err(other) => other,
        }
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Failure {
        format!("the backend {}: {error}", transport::address(&self.url)).into()
    }

    /// Answers kubectl's other requests in place of an API server: about the API, and about the pod.
    async fn answer_for_api(&self, pending: Pending<Client>) -> Result<(), Failure> {
        let path = pending.request().uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let response = match parts[..] {
            ["api", "v1", "namespaces", namespace, "pods", name] => match self.pod(namespace, name).await {
                Ok(Some(pod)) => api::ok(&pod),
                Ok(None) => {
                    let message = format!("pods \"{name}\" not found");
                    api::failure(StatusCode::NOT_FOUND, "NotFound", &message)
                }
                Err(error) => api::failure(StatusCode::BAD_GATEWAY, "InternalError", &error.to_string()),
            },
            _ => api::discovery(&parts).unwrap_or_else(|| {
                let message = format!("the server could not find the requested resource: {path}");
                api::failure(StatusCode::NOT_FOUND, "NotFound", &message)
            }),
        };
        Ok(pending.respond(response).await?)
    }

    /// Returns a pod of the kubelet's.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<serde_json::Value>, Failure> {
        let request = self.rewrite.own("/pods")?;
        let mut list = plain::get_json(transport::connect(self.url.as_str(), &self.tls).await?, &request).await?;
        let pods = list.get_mut("items").and_then(|items| items.as_array_mut()).map(std::mem::take);
        let pods = pods.ok_or("the kubelet's list of pods has no items")?;
        let mut found =
            pods.into_iter().find(|pod| pod["metadata"]["namespace"] == namespace && pod["metadata"]["name"] == name);
        if let Some(pod) = &mut found {
            // A kubelet leaves these fields out of the items of a list.
            pod["kind"] = "Pod".into();
            pod["apiVersion"] = "v1".into();
        }
        Ok(found)
    }
}

async fn unreachable(pending: Pending<Client>, error: &std::io::Error) -> Result<(), Failure> {
    const UNREACHABLE: &str = "the backend cannot be reached";
    // The rest of the error names what the client must not know.
    let message = format!("{UNREACHABLE}: {}", error.kind());
    pending.respond(api::failure(StatusCode::BAD_GATEWAY, "ServiceUnavailable", &message)).await?;
    Err(format!("{UNREACHABLE}: {error}").into())
}

/// Compares two tokens without showing by its duration where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}
