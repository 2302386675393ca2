//! Translates between a client on one transport and a backend on the other.
//!
//! Performs the two handshakes. The client's request is judged before the backend hears of it. The backend's handshake
//! comes first, so that the client gets its refusal instead of a 101.

use http::{Method, Request, StatusCode};
use kubestream::exec::{self, ExecRequest, Streams};
use kubestream::tap::Side;
use kubestream::upgrade::{self, Config, Pending, Protocol, Transport, UpgradeError};
use kubestream::{mux, portforward};
use kubestream_apps::{Failure, api};
use kubestream_proxy::{translate_exec, translate_port_forward};
use tokio::io::{AsyncRead, AsyncWrite};

/// The transport of sessions at the backend.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Translate {
    Spdy,
    Websocket,
}

impl Translate {
    pub(crate) fn transport(self) -> Transport {
        match self {
            Self::Spdy => Transport::Spdy,
            Self::Websocket => Transport::WebSocket,
        }
    }
}

/// A session whose client was found to be answerable with a 101.
pub(crate) struct Translation {
    to: Translate,
    /// The streams of an exec. Port-forward has none.
    streams: Option<Streams>,
}

impl Translation {
    /// Judges a client's request. The backend gets a new request, which would hide a fault in the client's, and a command
    /// must not run there for a client that is then refused.
    ///
    /// # Errors
    /// The client was answered, or is gone.
    pub(crate) async fn of<C>(client: Pending<C>, to: Translate) -> Result<(Pending<C>, Self), Failure>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let method = client.request().method();
        if ![Method::GET, Method::POST].contains(method) {
            let message = format!("the server does not allow {method} here");
            let response = api::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message);
            client.respond(response).await?;
            return Err(message.into());
        }
        // The API server's path ends with the operation, and the kubelet's begins with it.
        let path = client.request().uri().path();
        let forwards = path.ends_with("/portforward") || path.starts_with("/portForward/");
        let streams = if forwards { Ok(None) } else { streams(client.request()).map(Some) };
        let translation = match streams {
            Ok(streams) => Self { to, streams },
            Err(error) => {
                let response = api::failure(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string());
                client.respond(response).await?;
                return Err(error.into());
            }
        };
        if client.check(translation.supported()).is_err() {
            // This answers the client.
            client.accept(translation.supported()).await?;
            return Err("the client was not refused".into());
        }
        Ok((client, translation))
    }

    /// What the client may speak.
    fn supported(&self) -> &'static [Protocol] {
        if self.streams.is_none() { Protocol::ANY_PORT_FORWARD } else { Protocol::ANY_EXEC }
    }

    /// What the backend may speak.
    fn offers(&self) -> &'static [Protocol] {
        match (self.streams, self.to) {
            (None, Translate::Spdy) => &[Protocol::SpdyPortForward],
            (None, Translate::Websocket) => &[Protocol::TunneledPortForward],
            (Some(_), Translate::Spdy) => Protocol::SPDY_EXEC,
            (Some(_), Translate::Websocket) => Protocol::WEBSOCKET_EXEC,
        }
    }

    /// Upgrades the backend, then the client, and translates. `request` is what the backend would get without
    /// translation.
    pub(crate) async fn run<C, B>(self, client: Pending<C>, backend: B, mut request: Request<()>) -> Result<(), Failure>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        // The headers of one transport's handshake mean nothing to the other.
        let foreign: Vec<_> = request.headers().keys().filter(|name| is_handshake(name.as_str())).cloned().collect();
        for name in foreign {
            request.headers_mut().remove(name);
        }
        *request.method_mut() = if self.to == Translate::Spdy { Method::POST } else { Method::GET };
        let backend = match upgrade::connect(backend, request, self.offers(), &Config::default()).await {
            Ok(backend) => backend,
            Err(error) => {
                client.respond(upgrade::answer_for_backend(&error)).await?;
                return Err(UpgradeError::Backend(Box::new(error)).into());
            }
        };
        let client = client.accept(self.supported()).await?;
        let translated = match self.streams {
            None => {
                let options = portforward::Options::default();
                translate_port_forward(client, backend, mux::Config::default(), &options).await
            }
            Some(streams) => {
                translate_exec(client, backend, streams, mux::Config::exec(), &exec::Options::default()).await
            }
        };
        match translated {
            // A client that goes away is not reported.
            Err(error) if error.side() != Some(Side::Client) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn streams(request: &Request<()>) -> Result<Streams, exec::Error> {
    Ok(ExecRequest::from_query(upgrade::query(request))?.streams)
}

fn is_handshake(name: &str) -> bool {
    name.starts_with("sec-websocket-") || name == "x-stream-protocol-version"
}
