//! Where a request to a kube-apiserver leads: the kubelet's path and query for it.
//!
//! Owns the two forms and the checks between them. Which node a pod is on, and its containers, is the caller's to know.

use http::Uri;

use crate::Initiator;
use crate::exec::{ExecRequest, RequestError};
use crate::upgrade::{PortsError, asked_ports};

/// What a request wants of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // the streaming API has these three
pub enum Operation {
    /// A command in a container.
    Exec,
    /// A container's own process.
    Attach,
    /// Connections to ports.
    PortForward,
}

/// A streaming request in the API's form: `/api/v1/namespaces/{namespace}/pods/{pod}/exec?…`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodRequest {
    /// What it wants. Whether the client may is asked as `create` of `pods/exec`, `pods/attach` or `pods/portforward`, whatever
    /// the method: a WebSocket is a GET (kubernetes#78741).
    pub operation: Operation,
    /// The namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container, for exec and attach. Where the request has none the caller sets the pod's only one.
    pub container: Option<String>,
    /// The kubelet's query.
    query: String,
}

impl PodRequest {
    /// Reads a request. `None`: its path is of something else.
    ///
    /// # Errors
    /// [`LocationError`]: a kube-apiserver or a kubelet answers the same with 400.
    pub fn from_api(uri: &Uri) -> Result<Option<Self>, LocationError> {
        let parts: Vec<&str> = uri.path().split('/').collect();
        let ["", "api", "v1", "namespaces", namespace, "pods", pod, operation] = parts[..] else { return Ok(None) };
        let operation = match operation {
            "exec" => Operation::Exec,
            "attach" => Operation::Attach,
            "portforward" => Operation::PortForward,
            _ => return Ok(None),
        };
        let query = uri.query().unwrap_or_default();
        let (container, query) = if operation == Operation::PortForward {
            (None, ports(query))
        } else {
            let mut request = ExecRequest::from_query(query)?;
            match operation {
                Operation::Exec if request.command.is_empty() => return Err(LocationError::NoCommand),
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

    /// The path and query that a kubelet has for it.
    ///
    /// # Errors
    /// [`LocationError::NoContainer`] for exec and attach without one, and [`LocationError::Name`] where a name that was set
    /// since is none.
    pub fn to_kubelet(&self) -> Result<String, LocationError> {
        let Self { namespace, pod, query, .. } = self;
        for name in [Some(namespace), Some(pod), self.container.as_ref()].into_iter().flatten() {
            check_name(name)?;
        }
        let container = || self.container.as_ref().ok_or_else(|| LocationError::NoContainer { pod: pod.clone() });
        let path = match self.operation {
            Operation::Exec => format!("/exec/{namespace}/{pod}/{}", container()?),
            Operation::Attach => format!("/attach/{namespace}/{pod}/{}", container()?),
            Operation::PortForward => format!("/portForward/{namespace}/{pod}"),
        };
        Ok(if query.is_empty() { path } else { format!("{path}?{query}") })
    }
}

impl PodRequest {
    /// The ports that it names, in its order: those of the old form of port-forward, as a [`Tap`](super::Tap) has to know them. The
    /// newer forms name none.
    ///
    /// # Errors
    /// [`PortsError::Invalid`].
    pub fn ports(&self) -> Result<Vec<u16>, PortsError> {
        let asked = self.operation == Operation::PortForward && !self.query.is_empty();
        if asked { Ok(asked_ports(&self.query)?.to_vec()) } else { Ok(Vec::new()) }
    }
}

/// The ports that the old form of port-forward names: one list for the kubelet.
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

/// Names go into a path as they are: what is no name of Kubernetes could lead elsewhere.
fn check_name(name: &str) -> Result<(), LocationError> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = name.len() <= 253
        && name.bytes().all(|byte| letter(byte) || matches!(byte, b'-' | b'.'))
        && name.as_bytes().first().copied().is_some_and(letter)
        && name.as_bytes().last().copied().is_some_and(letter);
    if fits { Ok(()) } else { Err(LocationError::Name(name.to_owned())) }
}

/// Why a request leads nowhere: the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// It asks for no stream.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Exec without a command.
    #[error("you must specify a command")]
    NoCommand,
    /// The request names no container, and nobody has set one.
    #[error("a container name must be specified for pod {pod}")]
    NoContainer {
        /// The pod.
        pod: String,
    },
    /// A namespace, pod or container that cannot be one.
    #[error("{0:?} is no name")]
    Name(String),
}

impl LocationError {
    /// Who caused the error: always the client.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        Initiator::Remote
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<Option<PodRequest>, LocationError> {
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
    fn the_ports_of_the_old_form_are_told() {
        let ports = |path| read(path).unwrap().unwrap().ports();
        assert_eq!(ports("portforward?ports=80&ports=443"), Ok(vec![80, 443]));
        assert_eq!(ports("portforward"), Ok(vec![]));
        assert_eq!(ports("portforward?ports=x"), Err(PortsError::Invalid("x".to_owned())));
        assert_eq!(ports("exec?command=a&stdout=1&ports=80"), Ok(vec![]));
    }

    #[test]
    fn a_container_may_be_set_where_there_is_one() {
        let mut request = read("exec?command=true&stdout=true").unwrap().unwrap();
        let missing = request.to_kubelet().unwrap_err();
        assert_eq!(missing.to_string(), "a container name must be specified for pod web");
        request.container = Some("only".to_owned());
        assert_eq!(request.to_kubelet().unwrap(), "/exec/default/web/only?command=true&output=1");
        request.container = Some("../../run".to_owned());
        assert_eq!(request.to_kubelet(), Err(LocationError::Name("../../run".to_owned())));
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
    fn what_cannot_be_is_said_in_gos_words() {
        assert_eq!(
            read("exec?command=true").unwrap_err().to_string(),
            "you must specify at least 1 of stdin, stdout, stderr"
        );
        assert_eq!(read("exec?stdout=true"), Err(LocationError::NoCommand));
        for name in ["..", "%2e%2e", "a%2Fb", "-a", "A", ""] {
            let uri = format!("/api/v1/namespaces/default/pods/{name}/portforward").parse().unwrap();
            assert_eq!(PodRequest::from_api(&uri), Err(LocationError::Name(name.to_owned())), "{name}");
        }
        let container = read("exec?command=true&stdout&container=..%2F..");
        assert_eq!(container, Err(LocationError::Name("../..".to_owned())));
    }
}
