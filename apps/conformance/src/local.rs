//! What this process serves for a run: the built-in node, tested if no other server is named, and an echo port.
//!
//! Holds their tasks. The node is reached in memory, and the port listens on loopback only.

use std::net::IpAddr;
use std::sync::Arc;

use conformance::echo;
use conformance::target::{Pod, Target};
use kubestream::upgrade;
use kubestream_apps::Failure;
use kubestream_apps::guard::Hosts;
use kubestream_apps::node::Node;
use tokio::task::JoinSet;

/// Starts the node and the echo port, which serves until its tasks are dropped.
pub(crate) async fn node() -> Result<(Target, JoinSet<()>), Failure> {
    // Half of the cases provoke errors, so the node's log is discarded.
    let node = Arc::new(Node::new(Hosts::default(), upgrade::Config::default(), |_| {}));
    let mut tasks = JoinSet::new();
    let echo = echo::serve(&mut tasks).await?;
    let pod = Pod {
        namespace: "default".into(),
        name: "demo".into(),
        container: None,
        attach: Some("main".into()),
        echo: Some(echo),
        refused: echo::free_port().await?,
        takes_many: true,
    };
    // In memory, because any process of the machine could run commands through a socket.
    let mut target = Target::in_process(pod, move || node.connect())?;
    // The node is part of this project, so known departures of other servers do not excuse it.
    target.strict = true;
    Ok((target, tasks))
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use conformance::target::Operation;

    /// Anybody on the machine could run commands through a socket.
    #[tokio::test]
    async fn the_built_in_node_has_no_port() {
        let (target, _tasks) = super::node().await.unwrap();
        assert!(target.url(Operation::Exec, None, "").starts_with("http://localhost/"));
        target.dial().await.unwrap();
    }
}
