//! The query of a request, which may be longer than an `http::Uri` can be.
//!
//! Keeps a long query among the request's extensions, and joins it with the path again. It does not interpret it.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Request, Uri};

use super::error::UpgradeError;

/// How many bytes of path and query an `http::Uri` can have.
pub(super) const MAX_TARGET: usize = u16::MAX as usize - 1;

/// A query that does not fit into the request's URI, which then has none.
#[derive(Clone)]
struct LongQuery(Arc<str>);

/// The query of a request, without the `?`, however long it is. Empty if there is none.
///
/// An `http::Uri` holds at most 65,534 bytes of path and query, and kubectl puts a whole command into the query. A longer
/// query is kept beside the URI: [`set_query`] puts it there, and so does [`accept`](super::accept) if
/// [`Config::long_queries`](super::Config::long_queries) is set. The URI then has no query. If the URI has a query, that
/// query counts.
pub fn query<B>(request: &Request<B>) -> &str {
    request.uri().query().or_else(|| long(request)).unwrap_or_default()
}

/// Replaces the query of a request, by one of any length. It has no `?` before it. Empty removes the query.
/// [`connect`](super::connect) and [`Pending::pass_on`](super::Pending::pass_on) send it.
///
/// ```
/// use kubestream::exec::{ExecRequest, Streams};
/// use kubestream::upgrade;
///
/// let script = "echo hello\n".repeat(10_000);
/// let wanted = ExecRequest::new(["sh", "-c", &script], Streams::OUTPUT);
/// let mut request = http::Request::get("https://10.0.0.1:6443/api/v1/namespaces/default/pods/web/exec").body(())?;
/// upgrade::set_query(&mut request, &wanted.to_query())?;
/// assert_eq!(upgrade::query(&request), wanted.to_query());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`UpgradeError::InvalidRequest`] if the query is not percent-encoded, or the URI has no path.
pub fn set_query<B>(request: &mut Request<B>, query: &str) -> Result<(), UpgradeError> {
    if !is_encoded(query) {
        return Err(UpgradeError::InvalidRequest("the query is not percent-encoded".to_owned()));
    }
    let path = request.uri().path();
    let fits = path.len().saturating_add(query.len()) < MAX_TARGET;
    let target = if fits && !query.is_empty() { format!("{path}?{query}") } else { path.to_owned() };
    let mut parts = request.uri().clone().into_parts();
    let no_path = || UpgradeError::InvalidRequest("the URI has no path".to_owned());
    parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| no_path())?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| no_path())?;
    request.extensions_mut().remove::<LongQuery>();
    if !fits {
        request.extensions_mut().insert(LongQuery(query.into()));
    }
    Ok(())
}

/// The query that is kept beside the URI.
pub(super) fn long<B>(request: &Request<B>) -> Option<&str> {
    if request.uri().query().is_some() {
        return None;
    }
    request.extensions().get::<LongQuery>().map(|LongQuery(query)| &**query)
}

/// Gives `to` the query that is kept beside the URI of `from`.
pub(super) fn copy_long(from: &Request<()>, to: &mut Request<()>) {
    if let Some(query) = from.extensions().get::<LongQuery>() {
        to.extensions_mut().insert(query.clone());
    }
}

fn is_encoded(query: &str) -> bool {
    query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_of_any_length_is_the_one_that_was_set_last() {
        for uri in ["https://node:10250/exec/web", "/exec/web", "/exec/web?old=1"] {
            let mut request = Request::get(uri).body(()).unwrap();
            let path = "/exec/web".len();
            for len in [1, MAX_TARGET - path - 1, MAX_TARGET - path, 200_000, 3, 0] {
                let long = "x".repeat(len);
                set_query(&mut request, &long).unwrap();
                assert_eq!(query(&request), long);
                assert_eq!(request.uri().path(), "/exec/web");
                assert_eq!(request.uri().host().is_some(), uri.starts_with("https"));
                assert_eq!(request.uri().query().is_none(), len == 0 || len + 1 + path > MAX_TARGET, "{len}");
                assert_eq!(query(&request.clone()), long);
            }
        }
    }

    #[test]
    fn what_a_query_cannot_hold_is_refused() {
        let mut request = Request::get("/?a=b").body(()).unwrap();
        for bad in ["a b", "a\r\nb", "a#b", "caf\u{e9}", &format!("{} b", "a".repeat(MAX_TARGET))] {
            assert!(matches!(set_query(&mut request, bad), Err(UpgradeError::InvalidRequest(_))), "{bad:?}");
        }
        assert_eq!(query(&request), "a=b");
        let mut authority = Request::get("node:80").body(()).unwrap();
        assert!(matches!(set_query(&mut authority, "a"), Err(UpgradeError::InvalidRequest(_))));
    }
}
