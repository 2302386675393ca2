//! Makes the backend's request out of the client's.
//!
//! Knows what of a client's head must not reach a server that trusts the proxy's credentials: the client's own
//! credentials, another identity, and a path that leads out of the backend's URL. It authenticates nobody.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use kubestream::upgrade;
use kubestream_apps::{Failure, api};
use url::Url;

/// What every request to the backend gets.
pub(crate) struct Rewrite {
    host: HeaderValue,
    /// The path of the backend's URL, which comes before that of each request. It does not end with a slash.
    prefix: String,
    credentials: Option<HeaderValue>,
}

impl Rewrite {
    /// # Errors
    /// The URL has a part that no request would have, or the token is not one.
    pub(crate) fn new(url: &Url, token: Option<String>) -> Result<Self, Failure> {
        let unused = [
            ("a user or a password", !url.username().is_empty() || url.password().is_some()),
            ("a query", url.query().is_some()),
            ("a fragment", url.fragment().is_some()),
        ];
        if let Some((part, _)) = unused.into_iter().find(|(_, is_there)| *is_there) {
            return Err(format!("the backend's URL must not have {part}").into());
        }
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self {
            host: HeaderValue::try_from(host)?,
            prefix: url.path().trim_end_matches('/').to_owned(),
            credentials: token.map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose()?,
        })
    }

    /// A request of the proxy's own.
    pub(crate) fn own(&self, path: &str) -> Result<Request<()>, http::Error> {
        let mut request = Request::get(format!("{}{path}", self.prefix)).header(header::HOST, &self.host).body(())?;
        if let Some(credentials) = &self.credentials {
            request.headers_mut().insert(header::AUTHORIZATION, credentials.clone());
        }
        Ok(request)
    }

    /// Makes a client's request, without its hop-by-hop headers, the backend's. `target` are a path and a query that
    /// replace the client's.
    ///
    /// # Errors
    /// The path leads out of the backend's URL, or is too long behind it.
    pub(crate) fn apply(&self, request: &mut Request<()>, target: Option<&str>, from: IpAddr) -> Result<(), Failure> {
        let (path, query) = match target {
            Some(target) => target.split_once('?').unwrap_or((target, "")),
            None => (request.uri().path(), upgrade::query(request)),
        };
        if !self.prefix.is_empty() && leads_out(path) {
            return Err(format!("the path {path:?} leads out of the URL of the backend").into());
        }
        let (path, query) = (format!("{}{path}", self.prefix), query.to_owned());
        *request.uri_mut() = path.parse()?;
        upgrade::set_query(request, &query)?;
        let headers = request.headers_mut();
        headers.remove(header::AUTHORIZATION);
        headers.remove(header::COOKIE);
        let ended: Vec<HeaderName> = headers.keys().filter(|name| ends_here(name)).cloned().collect();
        for name in ended {
            headers.remove(name);
        }
        if let Some(credentials) = &self.credentials {
            headers.insert(header::AUTHORIZATION, credentials.clone());
        }
        headers.append("x-forwarded-for", HeaderValue::try_from(from.to_string())?);
        headers.insert(header::HOST, self.host.clone());
        Ok(())
    }
}

/// Refuses a request that is to run as somebody else: by impersonation, or as a front proxy names its client. The
/// backend would trust such a header, since it comes with the proxy's credentials. Without the header the request would
/// run with all rights of the proxy, which the client has not asked for.
///
/// # Errors
/// The answer for the client.
pub(crate) fn check_identity(headers: &HeaderMap) -> Result<(), Box<Response<Bytes>>> {
    let Some(name) = headers.keys().find(|name| names_identity(name)) else { return Ok(()) };
    let message = format!("this proxy does not pass on the header {name}: all its requests run as one user, its own");
    Err(Box::new(api::failure(StatusCode::FORBIDDEN, "Forbidden", &message)))
}

/// Some servers take an underscore for a hyphen.
fn names_identity(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with("impersonate-")
        || name.starts_with("x-remote-extra-")
        || ["x-remote-user", "x-remote-uid", "x-remote-group"].contains(&&name[..])
}

/// What a front proxy says of its client, and what a browser says of the site of a request: it was judged here, like
/// the Origin.
fn ends_here(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    ["x-remote-", "sec-fetch-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a server may read the path as one that does not begin with what stands before it: by `..`, also where the
/// dots or the slashes are percent-encoded, or by `*`, which means the whole server.
fn leads_out(path: &str) -> bool {
    let mut plain = path.to_ascii_lowercase();
    for (encoded, sign) in [("%2e", "."), ("%2f", "/"), ("%5c", "/"), ("\\", "/")] {
        plain = plain.replace(encoded, sign);
    }
    let is_dots = |segment: &str| segment.split([';', '%']).next() == Some("..");
    !path.starts_with('/') || plain.split('/').any(is_dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_url_of_the_backend() {
        let rewrite = Rewrite::new(&"http://gateway:80/k8s/clusters/c-1/".parse().unwrap(), None).unwrap();
        let asked = |path: &str| {
            let mut request = Request::get(path).body(()).unwrap();
            rewrite.apply(&mut request, None, [127, 0, 0, 1].into()).map(|()| request.uri().to_string())
        };
        for path in ["/version", "/", "/api?a=..", "/a..b/..c/...", "/%41?watch=1"] {
            assert_eq!(asked(path).unwrap(), format!("/k8s/clusters/c-1{path}"));
        }
        for path in ["/..", "/../c-2/api", "/api/%2e%2E/x", "/.%2e/x", "/..%2fc-2", "/..%5Cc-2", "/..;x/c-2", "/a/.."] {
            assert!(asked(path).is_err(), "{path}");
        }
        let mut all = Request::options("*").body(()).unwrap();
        assert!(rewrite.apply(&mut all, None, [127, 0, 0, 1].into()).is_err());
        assert_eq!(rewrite.own("/pods").unwrap().uri(), "/k8s/clusters/c-1/pods");
    }

    #[test]
    fn a_url_has_no_part_that_would_be_dropped() {
        for url in ["http://me@a/", "http://:secret@a/", "http://a/?cluster=c-1", "http://a/#c-1"] {
            assert!(Rewrite::new(&url.parse().unwrap(), None).is_err(), "{url}");
        }
    }
}
