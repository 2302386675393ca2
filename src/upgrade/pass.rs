//! Passes a handshake on through a proxy: the client's request to a backend, and the backend's answer to the client.
//!
//! Decides which headers are passed on. The two connections are joined only once the client has got a valid 101
//! (CVE-2018-1002105). The caller chooses the backend and may rewrite the request.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{Asked, exchange, not_switched, passed_head};
use super::error::UpgradeError;
use super::head::{self, HeadReader};
use super::query;
use super::server::{self, Pending};
use super::upgraded::Upgraded;
use super::websocket;
use crate::protocol::{Transport, X_STREAM_PROTOCOL_VERSION};

impl<IO> Pending<IO> {
    /// The request for a backend: the client's request without some of its headers:
    /// - It has no hop-by-hop headers (RFC 9110 §7.6.1). [`pass_on`](Self::pass_on) adds its own.
    /// - It has no `Origin`: the backend would compare it with its own host name, and could refuse it. Over WebSocket,
    ///   `pass_on` checks the client's `Origin` itself ([`Config::allowed_origins`](super::Config::allowed_origins)).
    /// - It has no `Sec-WebSocket-Extensions`, such as `permessage-deflate`: no tap and no translator could read what the
    ///   two ends compress, and Kubernetes has no extension. `pass_on` sends no request that has this header.
    /// - It has no token in `Sec-WebSocket-Protocol`. [`bearer_token`](Self::bearer_token) returns the token.
    ///
    /// It keeps `Authorization` and `Cookie`: replace them if the backend must not see the client's credentials. You
    /// can change everything else, too, such as the path or `X-Forwarded-For`.
    #[must_use]
    pub fn to_pass_on(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.request().method().clone();
        *request.uri_mut() = self.request().uri().clone();
        query::copy_long(self.request(), &mut request);
        *request.headers_mut() = end_to_end(self.request().headers());
        for name in [header::ORIGIN, header::SEC_WEBSOCKET_EXTENSIONS] {
            request.headers_mut().remove(name);
        }
        request
    }
}

impl<IO> Pending<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Passes this upgrade on to a backend: sends `request` to the backend, and passes the backend's answer back to the
    /// client. `request` is the result of [`to_pass_on`](Self::to_pass_on), with your changes.
    ///
    /// Returns the client's and the backend's connection once the backend's 101 was written to the client. Both sides
    /// have switched to the same protocol, which may be one that this crate does not know:
    /// [`Upgraded::protocol_name`] and [`Upgraded::transport`] say which.
    ///
    /// The 101 must switch to the transport that the client asks for, and to one of its protocols. Over WebSocket it
    /// must also answer the client's key. Every other answer is passed back to the client with at most
    /// [`Config::max_refusal_body`](super::Config::max_refusal_body) bytes of its body, and both connections are
    /// closed. A redirect is neither followed nor shown to the client.
    ///
    /// # Errors
    /// [`UpgradeError::Backend`] if the backend failed, or the request for it is not valid. If the backend refused, its
    /// answer was passed back to the client. If its answer was not valid, the client got a 502; if it did not answer in
    /// time, a 504; if the request is not valid, a 500.
    ///
    /// Every other error is about the client. Either its request is not valid: then the client was answered as by
    /// [`accept`](Self::accept). Or the 101 could not be written to it.
    ///
    /// # Cancel safety
    /// If dropped before completion, both connections are dropped.
    pub async fn pass_on<B>(
        self,
        mut backend: B,
        request: Request<()>,
    ) -> Result<(Upgraded<IO>, Upgraded<B>), UpgradeError>
    where
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let asked = match self.asked() {
            Ok(asked) => asked,
            Err(error) => return Err(self.refuse(error, &[]).await),
        };
        let config = self.config.clone();
        let mut reader = HeadReader::new(config.max_head);
        let passed = async {
            let head = passed_head(&request, asked.transport)?;
            let response = exchange(&mut backend, &head, asked.transport, &mut reader, &config).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(not_switched(&mut backend, response, head.len(), &mut reader, &config).await);
            }
            asked.check_switch(&response)?;
            let protocol = chosen(&request, &response, asked.transport)?;
            Ok((response, protocol))
        };
        let (response, protocol) = match passed.await {
            Ok(passed) => passed,
            Err(error) => {
                // If the answer cannot be written either, the first error is the one that matters.
                let _ = self.respond(answer_for_backend(&error)).await;
                return Err(UpgradeError::Backend(Box::new(error)));
            }
        };
        let (mut client, from_client) = self.into_io();
        let head = switched_head(&response, asked.transport);
        server::write(&mut client, &head, &config).await?;
        let passed_on = Some((asked.transport, protocol.into_boxed_str()));
        let client = Upgraded { passed_on: passed_on.clone(), ..Upgraded::new(client, from_client, None) };
        let backend = Upgraded { passed_on, ..Upgraded::new(backend, reader.into_rest(), None) };
        Ok((client, backend))
    }

    /// The upgrade that the client asks for, if it is a valid one.
    fn asked(&self) -> Result<Asked, UpgradeError> {
        let transport = self.transport().ok_or(UpgradeError::NotAnUpgrade)?;
        // A request that cannot be passed on is the client's fault, not the backend's.
        if !matches!(*self.request().method(), Method::GET | Method::POST) {
            return Err(UpgradeError::NotAnUpgrade);
        }
        let path = self.request().uri().path_and_query();
        if !path.is_some_and(|path| path.as_str().bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(head::BAD_START_LINE);
        }
        let key = match transport {
            Transport::Spdy => None,
            Transport::WebSocket => {
                let answer = websocket::check_request(self.request(), &self.config.allowed_origins)?;
                self.bearer_token()?;
                Some(websocket::Key { key: String::new(), answer })
            }
        };
        Ok(Asked { transport, key })
    }
}

/// The protocol that the backend chose. It must be one of the protocols that were passed on.
fn chosen(request: &Request<()>, response: &Response<()>, transport: Transport) -> Result<String, UpgradeError> {
    let lines = response.headers().get_all(transport.offers()).iter();
    let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()));
    let name = lines.collect::<Vec<_>>().join(", ");
    // Over SPDY Go's servers name no protocol for v1, and over WebSocket none if the client offered none.
    if name.is_empty() || head::elements(request.headers(), &transport.offers()).any(|offer| offer == name) {
        Ok(name)
    } else {
        Err(UpgradeError::ProtocolNotOffered { name })
    }
}

/// The head of the 101 for the client.
fn switched_head(response: &Response<()>, transport: Transport) -> Vec<u8> {
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    head::put_headers(&mut head, &end_to_end(response.headers()));
    head::put_header(&mut head, "Connection", b"Upgrade");
    head::put_header(&mut head, "Upgrade", transport.token().as_bytes());
    head.extend_from_slice(b"\r\n");
    head
}

/// The answer that a proxy gives its client when the backend did not switch: the backend's refusal, a 504 if the
/// backend did not answer in time, a 500 if the request for it is not valid, or else a 502. Use it if you upgrade the
/// two sides one after the other, and send it by [`Pending::respond`]. Call [`Pending::check`] before the backend's
/// upgrade, so that the backend does nothing for a client that is then refused. [`Pending::pass_on`] sends this answer
/// by itself. For [`UpgradeError::Fallback`], the answer is about the error over SPDY.
#[must_use]
pub fn answer_for_backend(error: &UpgradeError) -> Response<Bytes> {
    if let UpgradeError::Refused { response: refusal, .. } = error {
        let mut response = Response::new(refusal.body().clone());
        *response.status_mut() = refusal.status();
        *response.headers_mut() = end_to_end(refusal.headers());
        return response;
    }
    if let UpgradeError::Fallback { spdy: error, .. } | UpgradeError::Backend(error) = error {
        return answer_for_backend(error);
    }
    // The client does not see a redirect: if it followed one, it would send the credentials elsewhere (CVE-2020-8559).
    const FAILED: &str = "the backend did not upgrade the connection";
    match error {
        UpgradeError::InvalidRequest(_) => {
            server::plain(StatusCode::INTERNAL_SERVER_ERROR, "the request cannot be passed on")
        }
        UpgradeError::Timeout => server::plain(StatusCode::GATEWAY_TIMEOUT, "the backend did not answer in time"),
        UpgradeError::Redirected { .. } => server::plain(StatusCode::BAD_GATEWAY, FAILED),
        // The rest of an error of a socket may name what the client must not know.
        UpgradeError::Io(error) => server::plain(StatusCode::BAD_GATEWAY, format!("{FAILED}: {}", error.kind())),
        error => server::plain(StatusCode::BAD_GATEWAY, format!("{FAILED}: {error}")),
    }
}

/// The headers without the hop-by-hop ones: those that `Connection` lists, and `HOP_BY_HOP` (RFC 9110 §7.6.1).
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    let listed: Vec<HeaderName> = head::elements(&headers, &header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        // A client must not be able to remove the handshake's own headers by listing them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_for_a_backend_is_that_of_its_last_connection() {
        let refused = |status, body: &'static str| {
            let response = Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap();
            Box::new(UpgradeError::Refused { response: Box::new(response), truncated: false, sent: 200 })
        };
        let fallback = UpgradeError::Fallback { websocket: refused(403, "no WS"), spdy: refused(404, "no pod") };
        for error in [fallback, UpgradeError::Backend(refused(404, "no pod"))] {
            let answer = answer_for_backend(&error);
            assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::NOT_FOUND, &b"no pod"[..]));
        }
        let late = UpgradeError::Fallback { websocket: refused(403, "no WS"), spdy: Box::new(UpgradeError::Timeout) };
        assert_eq!(answer_for_backend(&late).status(), StatusCode::GATEWAY_TIMEOUT);
    }
}
