//! A handshake that a proxy passes on: the request to a backend, and the answer back.
//!
//! Owns what of a request a proxy may pass on, and that nothing but a verified 101 that the client has got makes a connection of
//! the two (CVE-2018-1002105). Which backend that is, and what is rewritten for it, is the caller's.

use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{Asked, exchange, not_switched, passed_head};
use super::error::{HeadFault, UpgradeError};
use super::head::{self, HeadReader};
use super::server::{self, Pending};
use super::websocket;
use crate::initiator::Initiator;
use crate::protocol::{Carrier, X_STREAM_PROTOCOL_VERSION};

/// The two connections of a handshake that was passed on: both sides have switched protocols.
#[must_use]
#[non_exhaustive]
pub struct PassedOn<C, B> {
    /// The connection to the client.
    pub client: C,
    /// Bytes that were read from the client behind its request. They belong to the new protocol.
    pub from_client: Bytes,
    /// The connection to the backend.
    pub backend: B,
    /// Bytes that were read from the backend behind its 101. They belong to the new protocol.
    pub from_backend: Bytes,
    /// What both sides have switched to.
    pub carrier: Carrier,
    /// The name of the protocol that the backend has chosen. Empty if the backend named none.
    pub protocol: String,
}

/// Which side of a proxy failed. Whatever could be answered to the client was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The client: what it asks for cannot be passed on, or it took no answer.
    #[error("the client: {0}")]
    Client(#[source] UpgradeError),
    /// The backend: it refused, which the client was told in its words; or it is no server of this protocol, which is a 502,
    /// or a 504 where it said nothing.
    #[error("the backend: {0}")]
    Backend(#[source] UpgradeError),
}

impl PassError {
    /// Who caused the error.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Client(error) | Self::Backend(error) => error.initiator(),
        }
    }
}

impl<IO> Pending<IO> {
    /// The request as a backend should have it: without what is between two neighbours only (RFC 9110 §7.6.1), which is put
    /// there anew, without the bearer token, which [`bearer_token`](Self::bearer_token) has, and without `Origin`, which is
    /// about this host, and for a WebSocket is checked here. The caller rewrites what it likes: where it leads to, the credentials, who it is
    /// forwarded for.
    #[must_use]
    pub fn to_pass_on(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.request().method().clone();
        *request.uri_mut() = self.request().uri().clone();
        *request.headers_mut() = end_to_end(self.request().headers());
        request.headers_mut().remove(header::ORIGIN);
        request
    }
}

impl<IO> Pending<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Passes this upgrade on to a backend: sends it `request`, which is [`to_pass_on`](Self::to_pass_on)'s with the caller's
    /// changes, and passes its answer back to the client.
    ///
    /// It succeeds only if the backend answers with a 101 that switches to the carrier and to one of the protocols that the client
    /// asks for, over WebSocket also with the answer to the client's key, and only once the client has that answer. Every other
    /// answer is passed back to the client, with at most [`Config::max_refusal_body`](super::Config::max_refusal_body) bytes of its
    /// body, and both connections are closed. A redirect is neither followed nor shown to the client.
    ///
    /// # Errors
    /// [`PassError`] says which side failed. The client has been answered.
    ///
    /// # Cancel safety
    /// Dropping the future drops both connections.
    pub async fn pass_on<B>(self, mut backend: B, request: Request<()>) -> Result<PassedOn<IO, B>, PassError>
    where
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let asked = match self.asked() {
            Ok(asked) => asked,
            Err(error) => return Err(PassError::Client(self.refuse(error, &[]).await)),
        };
        let config = self.config.clone();
        let mut reader = HeadReader::new(config.max_head);
        let passed = async {
            let head = passed_head(&request, asked.carrier)?;
            let response = exchange(&mut backend, &head, &mut reader, &config).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(not_switched(&mut backend, response, &mut reader, &config).await);
            }
            asked.check_switch(&response)?;
            let protocol = chosen(&request, &response, asked.carrier)?;
            Ok((response, protocol))
        };
        let (response, protocol) = match passed.await {
            Ok(passed) => passed,
            Err(error) => {
                // The error says more than that the answer to it was not taken.
                let _ = self.respond(answer_for_backend(&error)).await;
                return Err(PassError::Backend(error));
            }
        };
        let (mut client, from_client) = self.into_io();
        let head = switched_head(&response, asked.carrier);
        server::write(&mut client, &head, &config).await.map_err(PassError::Client)?;
        let (carrier, from_backend) = (asked.carrier, reader.into_rest());
        Ok(PassedOn { client, from_client, backend, from_backend, carrier, protocol })
    }

    /// What the client asks for, if it is what we know.
    fn asked(&self) -> Result<Asked, UpgradeError> {
        let carrier = self.carrier().ok_or(UpgradeError::NotAnUpgrade)?;
        // What could not be passed on is the client's fault, and no backend's.
        if !matches!(*self.request().method(), Method::GET | Method::POST) {
            return Err(UpgradeError::NotAnUpgrade);
        }
        let path = self.request().uri().path_and_query();
        if !path.is_some_and(|path| path.as_str().bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(HeadFault::StartLine.into());
        }
        let key = match carrier {
            Carrier::Spdy => None,
            Carrier::WebSocket => {
                let answer = websocket::check_request(self.request(), &self.config.origins)?;
                self.bearer_token()?;
                Some(websocket::Key { key: String::new(), answer })
            }
        };
        Ok(Asked { carrier, key })
    }
}

impl<C, B> fmt::Debug for PassedOn<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassedOn")
            .field("carrier", &self.carrier)
            .field("protocol", &self.protocol)
            .field("from_client", &self.from_client.len())
            .field("from_backend", &self.from_backend.len())
            .finish_non_exhaustive()
    }
}

/// The protocol that a backend chose, which has to be one of those that were passed on.
fn chosen(request: &Request<()>, response: &Response<()>, carrier: Carrier) -> Result<String, UpgradeError> {
    let lines = response.headers().get_all(carrier.offers()).iter();
    let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()));
    let name = lines.collect::<Vec<_>>().join(", ");
    // Go's servers of SPDY name none for the first version, and those of WebSocket where none was asked for.
    if name.is_empty() || head::elements(request.headers(), &carrier.offers()).any(|offer| offer == name) {
        Ok(name)
    } else {
        Err(UpgradeError::ProtocolNotOffered { name })
    }
}

/// The backend's 101, as the client gets it.
fn switched_head(response: &Response<()>, carrier: Carrier) -> Vec<u8> {
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    head::put_headers(&mut head, &end_to_end(response.headers()));
    head::put_header(&mut head, "Connection", b"Upgrade");
    head::put_header(&mut head, "Upgrade", carrier.token().as_bytes());
    head.extend_from_slice(b"\r\n");
    head
}

/// What a proxy tells its client of a backend that did not switch: a refusal in the backend's words, and else a 502, or a 504
/// where it said nothing. Use it if you upgrade the two sides one after the other; [`Pending::pass_on`] does it by itself.
#[must_use]
pub fn answer_for_backend(error: &UpgradeError) -> Response<Bytes> {
    if let UpgradeError::Refused(refusal) = error {
        let mut response = Response::new(refusal.body.clone());
        *response.status_mut() = refusal.status;
        *response.headers_mut() = end_to_end(&refusal.headers);
        return response;
    }
    // A redirect is not even shown: whoever follows it takes the credentials along (CVE-2020-8559).
    let (status, message) = match error {
        UpgradeError::InvalidRequest(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the request cannot be passed on"),
        UpgradeError::Timeout => (StatusCode::GATEWAY_TIMEOUT, "the backend did not answer in time"),
        _ => (StatusCode::BAD_GATEWAY, "the backend did not upgrade the connection"),
    };
    server::plain(status, message)
}

/// Headers without those of one hop: those that `Connection` lists, and those that are always so (RFC 9110 §7.6.1).
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    let listed: Vec<HeaderName> = head::elements(&headers, &header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        // A client that lists what the handshake is made of must not take it away.
        .filter(|name| !name.as_str().starts_with("sec-websocket-"))
        .filter(|name| *name != X_STREAM_PROTOCOL_VERSION && *name != header::HOST)
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers
}

const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
