//! What this process serves for a run: the built-in node, tested if no other server is named, and an echo port.
//!
//! Holds their tasks. Everything listens on loopback only.

use std::net::IpAddr;

use conformance::echo;
use conformance::target::{Pod, Target};
use kubestream_apps::Failure;
use kubestream_apps::guard::Hosts;
use kubestream_apps::node::Node;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Starts the node, which serves until its tasks are dropped.
pub(crate) async fn node() -> Result<(Target, JoinSet<()>), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut tasks = JoinSet::new();
    // Half of the cases provoke errors, so the node's log is discarded.
    tasks.spawn(Node::new(Hosts::default(), |_| {}).serve(listener));
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
    let mut target = Target::new(&kube::Config::new(url.parse()?), pod)?;
    // The node is part of this project, so known departures of other servers do not excuse it.
    target.strict = true;
    Ok((target, tasks))
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
