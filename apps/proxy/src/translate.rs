//! Translates between a client on one transport and a backend on the other.
//!
//! Performs the two handshakes. The backend's comes first, so that the client gets its refusal instead of a 101.

use http::{Method, Request, StatusCode};
use kubestream::exec::{self, ExecRequest, Streams};
use kubestream::tap::Side;
use kubestream::upgrade::{self, Config, Pending, Protocol, Transport};
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

/// `request` is what the backend would get without translation.
pub(crate) async fn pass<C, B>(
    client: Pending<C>,
    backend: B,
    mut request: Request<()>,
    to: Translate,
) -> Result<(), Failure>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // The backend gets a new request, which would hide a fault in the client's.
    let method = client.request().method();
    if ![Method::GET, Method::POST].contains(method) {
        let message = format!("the server does not allow {method} here");
        let response = api::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message);
        return Ok(client.respond(response).await?);
    }
    // The API server's path ends with the operation, and the kubelet's begins with it.
    let path = client.request().uri().path();
    let forwards = path.ends_with("/portforward") || path.starts_with("/portForward/");
    let streams = if forwards { Ok(Streams::default()) } else { streams(client.request()) };
    let streams = match streams {
        Ok(streams) => streams,
        Err(error) => {
            let response = api::failure(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string());
            return Ok(client.respond(response).await?);
        }
    };
    let (supported, offers): (_, &[Protocol]) = match (forwards, to) {
        (true, Translate::Spdy) => (Protocol::ANY_PORT_FORWARD, &[Protocol::SpdyPortForward]),
        (true, Translate::Websocket) => (Protocol::ANY_PORT_FORWARD, &[Protocol::TunneledPortForward]),
        (false, Translate::Spdy) => (Protocol::ANY_EXEC, Protocol::SPDY_EXEC),
        (false, Translate::Websocket) => (Protocol::ANY_EXEC, Protocol::WEBSOCKET_EXEC),
    };
    // The headers of one transport's handshake mean nothing to the other.
    let foreign: Vec<_> = request.headers().keys().filter(|name| is_handshake(name.as_str())).cloned().collect();
    for name in foreign {
        request.headers_mut().remove(name);
    }
    *request.method_mut() = if to == Translate::Spdy { Method::POST } else { Method::GET };
    let backend = match upgrade::connect(backend, request, offers, &Config::default()).await {
        Ok(backend) => backend,
        Err(error) => {
            client.respond(upgrade::answer_for_backend(&error)).await?;
            return Err(error.into());
        }
    };
    let client = client.accept(supported).await?;
    let translated = if forwards {
        translate_port_forward(client, backend, mux::Config::default(), &portforward::Options::default()).await
    } else {
        translate_exec(client, backend, streams, mux::Config::exec(), &exec::Options::default()).await
    };
    match translated {
        // A client that goes away is not reported.
        Err(error) if error.side() != Some(Side::Client) => Err(error.into()),
        _ => Ok(()),
    }
}

fn streams(request: &Request<()>) -> Result<Streams, exec::Error> {
    Ok(ExecRequest::from_query(request.uri().query().unwrap_or_default())?.streams)
}

fn is_handshake(name: &str) -> bool {
    name.starts_with("sec-websocket-") || name == "x-stream-protocol-version"
}
