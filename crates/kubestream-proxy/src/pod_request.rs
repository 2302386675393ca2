//! A streaming request in the form of the kube-apiserver's API, and the kubelet's path and query for it.
//!
//! This module owns both forms and the checks between them. It must not look up a pod's node or its containers: the
//! caller knows them.

use http::Uri;

use kubestream::Initiator;
use kubestream::exec::ExecRequest;
use kubestream::upgrade::{UpgradeError, asked_ports};

/// What a streaming request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // the streaming API has these three
pub enum Operation {
    /// Exec: to run a command in a container.
    Exec,
    /// Attach: to read and write the main process of a container.
    Attach,
    /// Port-forward: to connect to ports of the pod.
    PortForward,
}

/// A streaming request in the form of the kube-apiserver's API: `/api/v1/namespaces/{namespace}/pods/{pod}/exec?…`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodRequest {
    /// What the request asks for. Authorise it with the verb `create` on `pods/exec`, `pods/attach` or
    /// `pods/portforward`, whatever the method is: a WebSocket is a GET (kubernetes#78741).
    pub operation: Operation,
    /// The namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container, for exec and attach. A kubelet needs it: if the request names none, look up the pod, and set its
    /// only or default container before [`to_kubelet`](Self::to_kubelet).
    pub container: Option<String>,
    /// The query for the kubelet.
    query: String,
}

impl PodRequest {
    /// Reads the path and the query of a request to a kube-apiserver. `None` if its path is not that of exec, attach or
    /// port-forward.
    ///
    /// # Errors
    /// [`PodRequestError`] if the request is not valid. A kube-apiserver or a kubelet answers such a request with 400.
    pub fn from_api(uri: &Uri) -> Result<Option<Self>, PodRequestError> {
        Self::from_path(uri.path(), uri.query().unwrap_or_default())
    }

    /// As [`from_api`](Self::from_api), with a query that may be too long for a URI: see
    /// [`upgrade::query`](kubestream::upgrade::query).
    ///
    /// # Errors
    /// As [`from_api`](Self::from_api).
    pub fn from_path(path: &str, query: &str) -> Result<Option<Self>, PodRequestError> {
        let parts: Vec<&str> = path.split('/').collect();
        let ["", "api", "v1", "namespaces", namespace, "pods", pod, operation] = parts[..] else { return Ok(None) };
        let operation = match operation {
            "exec" => Operation::Exec,
            "attach" => Operation::Attach,
            "portforward" => Operation::PortForward,
            _ => return Ok(None),
        };
        if !reads_alike(query) {
            return Err(PodRequestError::Query);
        }
        let (container, query) = if operation == Operation::PortForward {
            (None, ports(query))
        } else {
            // A query has no other fault.
            let mut request = ExecRequest::from_query(query).map_err(|_| PodRequestError::NoStreams)?;
            match operation {
                Operation::Exec if request.command.is_empty() => return Err(PodRequestError::NoCommand),
                Operation::Exec => {}
                _ => request.command.clear(),
            }
            let query = request.to_kubelet_query();
            (request.container, query)
        };
        for name in [Some(namespace), Some(pod), container.as_deref()].into_iter().flatten() {
            check_name(name)?;
        }
        Ok(Some(Self { operation, namespace: namespace.to_owned(), pod: pod.to_owned(), container, query }))
    }

    /// The path and query of the same request to a kubelet: `/exec/{namespace}/{pod}/{container}?command=…`.
    ///
    /// # Errors
    /// [`PodRequestError::NoContainer`] for exec and attach without a container, and [`PodRequestError::Name`] if the
    /// caller has set a name that is not valid.
    pub fn to_kubelet(&self) -> Result<String, PodRequestError> {
        let Self { namespace, pod, query, .. } = self;
        for name in [Some(namespace), Some(pod), self.container.as_ref()].into_iter().flatten() {
            check_name(name)?;
        }
        let container = || self.container.as_ref().ok_or_else(|| PodRequestError::NoContainer { pod: pod.clone() });
        let path = match self.operation {
            Operation::Exec => format!("/exec/{namespace}/{pod}/{}", container()?),
            Operation::Attach => format!("/attach/{namespace}/{pod}/{}", container()?),
            Operation::PortForward => format!("/portForward/{namespace}/{pod}"),
        };
        Ok(if query.is_empty() { path } else { format!("{path}?{query}") })
    }

    /// The ports that the request names, in its order. Only requests for legacy port-forward name ports, and
    /// [`Tap::new`](kubestream::tap::Tap::new) needs these. Empty for all other requests.
    ///
    /// # Errors
    /// [`UpgradeError::InvalidPort`] if the request names something that is not a port.
    pub fn ports(&self) -> Result<Vec<u16>, UpgradeError> {
        let asked = self.operation == Operation::PortForward && !self.query.is_empty();
        if asked { asked_ports(&self.query) } else { Ok(Vec::new()) }
    }
}

/// Whether Go's `net/url`, with which a backend reads the query, finds the same pairs in it as `form_urlencoded`. Go drops
/// a pair with a semicolon or with an escape that is not valid, and keeps bytes that are not UTF-8.
fn reads_alike(query: &str) -> bool {
    let mut parts = query.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else { return false };
        bytes.push(byte);
        bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
    }
    !query.contains(';') && std::str::from_utf8(&bytes).is_ok()
}

/// The kubelet's query for the ports that a legacy port-forward request names: one list.
fn ports(query: &str) -> String {
    let ports: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, value)| matches!(&name[..], "ports" | "port") && !value.is_empty())
        .map(|(_, value)| value)
        .collect();
    if ports.is_empty() {
        return String::new();
    }
    form_urlencoded::Serializer::new(String::new()).append_pair("port", &ports.join(",")).finish()
}

/// Names become part of a path unchanged, so a name that is not valid in Kubernetes could change where the path leads.
fn check_name(name: &str) -> Result<(), PodRequestError> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = name.len() <= 253
        && name.bytes().all(|byte| letter(byte) || matches!(byte, b'-' | b'.'))
        && name.as_bytes().first().copied().is_some_and(letter)
        && name.as_bytes().last().copied().is_some_and(letter);
    if fits { Ok(()) } else { Err(PodRequestError::Name(name.to_owned())) }
}

/// Why a streaming request cannot be turned into one for a kubelet. If Kubernetes has a text for the same case, it is
/// used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PodRequestError {
    /// The request asks for no stream.
    #[error("you must specify at least 1 of stdin, stdout, stderr")]
    NoStreams,
    /// An exec request names no command.
    #[error("you must specify a command")]
    NoCommand,
    /// The request names no container, and the caller has set none.
    #[error("a container name must be specified for pod {pod}")]
    NoContainer {
        /// The pod.
        pod: String,
    },
    /// The name of a namespace, pod or container is not valid in Kubernetes.
    #[error("{0:?} is not a valid name of a namespace, pod or container")]
    Name(String),
    /// The query has a semicolon, an escape that is not valid, or text that is not UTF-8. The backend, which is written in
    /// Go, would read it as something else.
    #[error("the query can be read in two ways: escape semicolons, and send text as UTF-8")]
    Query,
}

impl PodRequestError {
    /// Who caused the error: always the client.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        Initiator::Remote
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<Option<PodRequest>, PodRequestError> {
        PodRequest::from_api(&format!("/api/v1/namespaces/default/pods/web/{path}").parse().unwrap())
    }

    fn leads(path: &str) -> String {
        read(path).unwrap().unwrap().to_kubelet().unwrap()
    }

    #[test]
    fn the_apis_form_becomes_the_kubelets() {
        assert_eq!(
            leads("exec?command=sh&command=-c&command=echo+hi&container=main&stdin=true&stdout=true&stderr=true"),
            "/exec/default/web/main?command=sh&command=-c&command=echo+hi&error=1&input=1&output=1"
        );
        assert_eq!(
            leads("exec?command=sh&container=a&stdin&tty&stdout&stderr"),
            "/exec/default/web/a?command=sh&input=1&output=1&tty=1"
        );
        assert_eq!(leads("attach?container=main&stdout=1&command=none"), "/attach/default/web/main?output=1");
        assert_eq!(leads("portforward"), "/portForward/default/web");
        assert_eq!(leads("portforward?ports=80&ports=81"), "/portForward/default/web?port=80%2C81");
    }

    #[test]
    fn the_ports_of_legacy_port_forward_are_told() {
        let ports = |path| read(path).unwrap().unwrap().ports();
        assert_eq!(ports("portforward?ports=80&ports=443").unwrap(), [80, 443]);
        assert_eq!(ports("portforward").unwrap(), [0; 0]);
        assert!(matches!(ports("portforward?ports=x"), Err(UpgradeError::InvalidPort { port }) if port == "x"));
        assert_eq!(ports("exec?command=a&stdout=1&ports=80").unwrap(), [0; 0]);
    }

    #[test]
    fn a_container_may_be_set_where_there_is_one() {
        let mut request = read("exec?command=true&stdout=true").unwrap().unwrap();
        let missing = request.to_kubelet().unwrap_err();
        assert_eq!(missing.to_string(), "a container name must be specified for pod web");
        request.container = Some("only".to_owned());
        assert_eq!(request.to_kubelet().unwrap(), "/exec/default/web/only?command=true&output=1");
        request.container = Some("../../run".to_owned());
        assert_eq!(request.to_kubelet(), Err(PodRequestError::Name("../../run".to_owned())));
    }

    #[test]
    fn what_leads_elsewhere_is_none_of_ours() {
        for path in ["log", "", "exec/x", "proxy"] {
            assert_eq!(read(path), Ok(None), "{path}");
        }
        for path in ["/exec/default/web/main", "/api/v1/pods/web/exec", "/apis/v1/namespaces/default/pods/web/exec"] {
            assert_eq!(PodRequest::from_api(&path.parse().unwrap()), Ok(None), "{path}");
        }
    }

    #[test]
    fn a_query_that_go_reads_differently_is_refused() {
        for query in [
            "command=a;command=b",
            "command=%zz",
            "command=a%",
            "command=%4",
            "command=%ff",
            "%ff&command=a",
            "command=%c3&x=%a4",
        ] {
            assert_eq!(read(&format!("exec?stdout=1&{query}")), Err(PodRequestError::Query), "{query}");
            assert_eq!(read(&format!("log?{query}")), Ok(None), "no streaming request");
        }
        assert_eq!(read("portforward?ports=80;ports=81"), Err(PodRequestError::Query));
        let escaped = "exec?command=a%3Bb%25zz+%C3%A4%EF%BF%BD&stdout=1&container=a";
        assert_eq!(leads(escaped), "/exec/default/web/a?command=a%3Bb%25zz+%C3%A4%EF%BF%BD&output=1");
    }

    /// Go takes the first of several values, also if it is empty.
    #[test]
    fn the_first_container_counts() {
        let container = |query| read(&format!("exec?command=a&stdout=1&{query}")).unwrap().unwrap().container;
        assert_eq!(container("container=a&container=b"), Some("a".to_owned()));
        assert_eq!(container("container=&container=b"), None);
    }

    #[test]
    fn what_cannot_be_is_said_in_gos_words() {
        assert_eq!(
            read("exec?command=true").unwrap_err().to_string(),
            "you must specify at least 1 of stdin, stdout, stderr"
        );
        assert_eq!(read("exec?stdout=true"), Err(PodRequestError::NoCommand));
        for name in ["..", "%2e%2e", "a%2Fb", "-a", "A", ""] {
            let uri = format!("/api/v1/namespaces/default/pods/{name}/portforward").parse().unwrap();
            assert_eq!(PodRequest::from_api(&uri), Err(PodRequestError::Name(name.to_owned())), "{name}");
        }
        let container = read("exec?command=true&stdout&container=..%2F..");
        assert_eq!(container, Err(PodRequestError::Name("../..".to_owned())));
    }
}
