//! The server of a client program: one on the network, or the node inside the program.
//!
//! Knows the way there, and the paths of a pod. It makes no upgrade.

use std::fmt;
use std::io;
use std::sync::Arc;

use kubestream::upgrade::{self, UpgradeError};
use url::Url;

use crate::Failure;
use crate::guard::Hosts;
use crate::names::{self, InvalidName};
use crate::node::Node;
use crate::stdio::complain;
use crate::transport::{self, Io, Tls, Unreachable};

/// A server, which is connected to for each session.
#[derive(Debug)]
pub struct Server {
    base: String,
    reached: Reached,
}

#[derive(Debug)]
enum Reached {
    OverTcp(Tls),
    /// In memory, because any process of the machine could connect to a socket.
    InThisProcess(Arc<Node>),
}

impl Server {
    /// The server at a URL, or without one a node in this process, which reports errors on stderr.
    #[must_use]
    pub fn new(url: Option<&str>, tls: Tls) -> Self {
        match url {
            Some(url) => Self { base: url.trim_end_matches('/').to_owned(), reached: Reached::OverTcp(tls) },
            None => {
                let node = Node::new(Hosts::default(), upgrade::Config::default(), |line| complain(line));
                Self { base: "http://localhost".to_owned(), reached: Reached::InThisProcess(Arc::new(node)) }
            }
        }
    }

    /// The URL of an operation of a pod, such as `exec`, at a kube-apiserver.
    ///
    /// # Errors
    /// A name is not valid, and would lead elsewhere.
    pub fn pod(&self, namespace: &str, pod: &str, operation: &str) -> Result<String, InvalidName> {
        names::check("namespace", namespace)?;
        names::check("pod", pod)?;
        Ok(format!("{}/api/v1/namespaces/{namespace}/pods/{pod}/{operation}", self.base))
    }

    /// The URL of an exec at a kubelet.
    ///
    /// # Errors
    /// A name is not valid, and would lead elsewhere.
    pub fn kubelet_exec(&self, namespace: &str, pod: &str, container: &str) -> Result<String, InvalidName> {
        names::check("namespace", namespace)?;
        names::check("pod", pod)?;
        names::check("container", container)?;
        Ok(format!("{}/exec/{namespace}/{pod}/{container}", self.base))
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Those of the network and of TLS.
    pub async fn connect(&self) -> io::Result<Box<dyn Io>> {
        match &self.reached {
            Reached::OverTcp(tls) => transport::connect(&self.base, tls).await,
            Reached::InThisProcess(node) => Ok(Box::new(node.connect())),
        }
    }

    /// Names the server in the error of an upgrade, which knows only the other end of a connection.
    #[must_use]
    pub fn explain(&self, error: UpgradeError) -> Failure {
        match (error, &self.reached) {
            (UpgradeError::Io(error), _) if error.get_ref().is_some_and(|error| error.is::<Unreachable>()) => {
                error.into()
            }
            (error, Reached::OverTcp(_)) => match Url::parse(&self.base) {
                Ok(url) => AtServer { address: transport::address(&url), error }.into(),
                Err(_) => error.into(),
            },
            (error, Reached::InThisProcess(_)) => error.into(),
        }
    }
}

/// An upgrade that failed, with the address of the server. Its source is the error of the upgrade, which says whether
/// another attempt is of use.
#[derive(Debug)]
struct AtServer {
    address: String,
    error: UpgradeError,
}

impl fmt::Display for AtServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.error)
    }
}

impl std::error::Error for AtServer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
