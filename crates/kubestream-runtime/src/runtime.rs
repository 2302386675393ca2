//! The interface of a container runtime to the server.
//!
//! This module owns the trait only.

use std::future::Future;

use kubestream::exec::{self, ExecServer, Streams};
use kubestream::portforward::Request;

/// A container runtime: it runs the commands and opens the ports.
///
/// A session that is dropped without [`ExecServer::exit`] ends for the client as a command that failed. That happens if a method
/// returns an error, panics, or has its future dropped.
///
/// # Cancel safety
/// [`Server::stop`](crate::Server::stop), and dropping the future of [`Server::serve`](crate::Server::serve), drop the futures of
/// these methods. What they run must end with them.
pub trait Runtime: Send + Sync + 'static {
    /// Runs a command in a container with these `streams`, and says with [`ExecServer::exit`] how it ended. Meanwhile poll
    /// [`ExecServer::client_gone`], and end the command when the client has gone.
    fn exec(
        &self,
        container_id: String,
        command: Vec<String>,
        streams: Streams,
        session: ExecServer,
    ) -> impl Future<Output = Result<(), exec::Error>> + Send;

    /// Connects a client to the main process of a container. The process goes on when the client has gone.
    fn attach(
        &self,
        container_id: String,
        streams: Streams,
        session: ExecServer,
    ) -> impl Future<Output = Result<(), exec::Error>> + Send;

    /// Connects a client to a port of a pod, until either side ends the connection. Its future is also dropped when the client goes
    /// away.
    fn port_forward(&self, pod_sandbox_id: &str, request: Request) -> impl Future<Output = ()> + Send;
}
