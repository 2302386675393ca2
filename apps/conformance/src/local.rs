//! What this process itself has for a run: the built-in node, judged where nothing else is named, and a port that sends back.
//!
//! Owns their tasks. All of it is on loopback.

use std::net::IpAddr;

use conformance::echo;
use conformance::target::{Pod, Target};
use kubestream_apps::{Failure, node};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The node, until it is dropped.
pub(crate) async fn node() -> Result<(Target, JoinSet<()>), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut tasks = JoinSet::new();
    // Half of the cases are such that it has something to say of them.
    tasks.spawn(node::serve(listener, |_| {}));
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
    // It is ours: what others are known for is no excuse.
    target.strict = true;
    Ok((target, tasks))
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
