//! What the proxy passes on, to whom, and for whom.
//!
//! Owns the credentials: the client's end here, and the backend gets the proxy's own. What passes once both have switched is the
//! library's.

use std::net::SocketAddr;

use clap::Args;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use kubestream::AbortOnDrop;
use kubestream::mux::TcpLiveness;
use kubestream::upgrade::{self, Config, Pending};
use kubestream_apps::transport::{self, Tls};
use kubestream_apps::{Failure, api};
use kubestream_proxy::{self as proxy, Pipe, PipeOutcome, PodRequest, PodRequestError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

use crate::plain;
use crate::record::{Record, Recording};
use crate::translate::{self, Translate};

/// Whose connection breaks off is no end for the other.
type Client = AbortOnDrop<TcpStream>;

#[derive(Args)]
pub(crate) struct Target {
    /// A kube-apiserver, or whatever speaks like one.
    #[arg(long, value_name = "URL", required_unless_present = "kubelet", conflicts_with = "kubelet")]
    backend: Option<Url>,
    /// A kubelet: the proxy stands where the API server stands.
    #[arg(long, value_name = "URL")]
    kubelet: Option<Url>,
    /// Ask clients for this bearer token.
    #[arg(long)]
    token: Option<String>,
    /// Our own bearer token at the backend.
    #[arg(long, value_name = "TOKEN")]
    backend_token: Option<String>,
    /// The backend has sessions over this carrier alone: those of clients on the other are translated. Not with --record, which
    /// follows what is passed on untouched.
    #[arg(
        long,
        value_enum,
        value_name = "CARRIER",
        num_args = 0..=1,
        default_missing_value = "spdy",
        conflicts_with = "record"
    )]
    translate: Option<Translate>,
    #[command(flatten)]
    tls: Tls,
}

pub(crate) struct Backend {
    url: Url,
    is_kubelet: bool,
    token: Option<String>,
    credentials: Option<HeaderValue>,
    translate: Option<Translate>,
    tls: Tls,
    config: Config,
    record: Record,
}

impl Backend {
    pub(crate) fn new(target: Target, record: Record) -> Result<Self, Failure> {
        let Target { backend, kubelet, token, backend_token, translate, tls } = target;
        let is_kubelet = kubelet.is_some();
        let url = backend.or(kubelet).ok_or("--backend or --kubelet says where to")?;
        let credentials = backend_token.map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose()?;
        Ok(Self { url, is_kubelet, token, credentials, translate, tls, config: Config::default(), record })
    }

    /// Serves one connection of a client's, which has one request.
    pub(crate) async fn answer(&self, client: TcpStream, from: SocketAddr) -> Result<(), Failure> {
        client.set_nodelay(true)?;
        TcpLiveness::default().apply(&client)?;
        let pending = upgrade::accept(AbortOnDrop::new(client), &self.config).await?;
        if !self.is_known(&pending) {
            let response = api::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
            return Ok(pending.respond(response).await?);
        }
        let path = match self.location(&pending) {
            Ok(path) => path,
            Err(error) => {
                let response = api::failure(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string());
                return Ok(pending.respond(response).await?);
            }
        };
        let mut request = pending.to_pass_on();
        if let Err(error) = self.rewrite(&mut request, path.as_deref(), from) {
            let response = api::failure(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string());
            return Ok(pending.respond(response).await?);
        }
        if path.is_none() && self.is_kubelet {
            return self.answer_for_api(pending).await;
        }
        let recording = match self.record.begin(&pending) {
            Ok(recording) => recording,
            Err(response) => return Ok(pending.respond(*response).await?),
        };
        if self.url.scheme() == "http" {
            let backend = match self.dial().await {
                Ok(backend) => backend,
                Err(error) => return unreachable(pending, &error).await,
            };
            // Plain on both sides: the kernel moves the bytes, where it can.
            #[cfg(target_os = "linux")]
            return self.pass(pending, backend, request, recording, Pipe::splice).await;
            #[cfg(not(target_os = "linux"))]
            return self.pass(pending, backend, request, recording, Pipe::run).await;
        }
        let backend = match transport::connect_over(self.url.as_str(), &self.tls, AbortOnDrop::new).await {
            Ok(backend) => backend,
            Err(error) => return unreachable(pending, &error).await,
        };
        self.pass(pending, backend, request, recording, Pipe::run).await
    }

    async fn pass<B, Moving>(
        &self,
        pending: Pending<Client>,
        backend: B,
        request: Request<()>,
        recording: Option<Recording>,
        run: impl FnOnce(Pipe<Client, B>) -> Moving,
    ) -> Result<(), Failure>
    where
        B: AsyncRead + AsyncWrite + Unpin,
        Moving: Future<Output = PipeOutcome>,
    {
        if !pending.is_upgrade() {
            return plain::pass(pending, backend, request).await;
        }
        if let Some(to) = self.translates(&pending) {
            return translate::pass(pending, backend, request, to).await;
        }
        let pipe = proxy::forward(pending, backend, request).await?;
        report(match recording {
            Some(recording) => recording.run(pipe).await?,
            None => run(pipe).await,
        })
    }

    fn translates(&self, pending: &Pending<Client>) -> Option<Translate> {
        self.translate.filter(|to| pending.carrier() != Some(to.carrier()))
    }

    /// A token of a header's, or of a browser's, which has none to set.
    fn is_known(&self, pending: &Pending<Client>) -> bool {
        let Some(token) = &self.token else { return true };
        let header = pending.request().headers().get(header::AUTHORIZATION);
        let header = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let offered = pending.bearer_token().ok().flatten().map(upgrade::BearerToken::as_str);
        [header, offered].into_iter().flatten().any(|offered| same(offered.as_bytes(), token.as_bytes()))
    }

    /// Where a streaming request leads at a kubelet; at an API server it leads where it led.
    fn location(&self, pending: &Pending<Client>) -> Result<Option<String>, PodRequestError> {
        if !self.is_kubelet {
            return Ok(None);
        }
        PodRequest::from_api(pending.request().uri())?.map(|request| request.to_kubelet()).transpose()
    }

    fn rewrite(&self, request: &mut Request<()>, path: Option<&str>, from: SocketAddr) -> Result<(), Failure> {
        if let Some(path) = path {
            *request.uri_mut() = path.parse()?;
        }
        let headers = request.headers_mut();
        headers.remove(header::AUTHORIZATION);
        headers.remove(header::COOKIE);
        // Who somebody says that they are would be said with our credentials.
        let identities: Vec<HeaderName> = headers.keys().filter(|name| is_identity(name.as_str())).cloned().collect();
        for name in identities {
            headers.remove(name);
        }
        if let Some(credentials) = &self.credentials {
            headers.insert(header::AUTHORIZATION, credentials.clone());
        }
        headers.append("x-forwarded-for", HeaderValue::try_from(from.ip().to_string())?);
        let host = self.url.host_str().unwrap_or_default();
        let host = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        headers.insert(header::HOST, HeaderValue::try_from(host)?);
        Ok(())
    }

    async fn dial(&self) -> std::io::Result<AbortOnDrop<TcpStream>> {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, self.url.port_or_known_default().unwrap_or(80))).await?;
        tcp.set_nodelay(true)?;
        TcpLiveness::default().apply(&tcp)?;
        Ok(AbortOnDrop::new(tcp))
    }

    /// What kubectl asks beside its sessions, where there is no API server: about the API, and what pod it is.
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

    /// A pod of the kubelet's.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<serde_json::Value>, Failure> {
        let mut request = Request::get("/pods").body(())?;
        if let Some(credentials) = &self.credentials {
            request.headers_mut().insert(header::AUTHORIZATION, credentials.clone());
        }
        let mut list = plain::get_json(transport::connect(self.url.as_str(), &self.tls).await?, &request).await?;
        let pods = list.get_mut("items").and_then(|items| items.as_array_mut()).map(std::mem::take);
        let pods = pods.ok_or("the kubelet's list of pods has none")?;
        let mut found =
            pods.into_iter().find(|pod| pod["metadata"]["namespace"] == namespace && pod["metadata"]["name"] == name);
        if let Some(pod) = &mut found {
            // A kubelet leaves them out of a list's items.
            pod["kind"] = "Pod".into();
            pod["apiVersion"] = "v1".into();
        }
        Ok(found)
    }
}

/// Impersonation, and what a front proxy says of its clients.
fn is_identity(name: &str) -> bool {
    ["impersonate-", "x-remote-"].iter().any(|prefix| name.starts_with(prefix))
}

async fn unreachable(pending: Pending<Client>, error: &std::io::Error) -> Result<(), Failure> {
    let message = format!("the backend cannot be reached: {error}");
    Ok(pending.respond(api::failure(StatusCode::BAD_GATEWAY, "ServiceUnavailable", &message)).await?)
}

/// Clients that go away are no news.
fn report(outcome: PipeOutcome) -> Result<(), Failure> {
    outcome.backend.map_or(Ok(()), |error| Err(format!("the backend: {error}").into()))
}

/// Without telling by its time where two tokens differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}
