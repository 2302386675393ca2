//! The interface of a container runtime to the server.
//!
//! This module owns the trait only.

use std::future::Future;

use kubestream::exec::{self, ExecServer, Streams};
use kubestream::portforward::Request;

/// A container runtime, as the server needs it: it runs the commands and opens the ports.
///
/// If a session is dropped without [`ExecServer::exit`], the client is told that the command failed. That happens if a
/// method returns an error or panics, or if its future is dropped.
///
/// # Cancel safety
/// [`Server::stop`](crate::Server::stop), and dropping the future of [`Server::serve`](crate::Server::serve), drop the
/// futures of these methods. Commands and connections that a method runs must end when its future is dropped.
pub trait Runtime: Send + Sync + 'static {
    /// Runs a command in a container with these `streams`, and says with [`ExecServer::exit`] how it ended. Meanwhile
    /// poll [`ExecServer::client_gone`], and end the command when the client has gone.
    ///
    /// # Errors
    /// The error of the session, which [`Server::serve`](crate::Server::serve) returns as
    /// [`Error::Session`](crate::Error::Session).
    fn exec(
        &self,
        container_id: String,
        command: Vec<String>,
        streams: Streams,
        session: ExecServer,
    ) -> impl Future<Output = Result<(), exec::Error>> + Send;

    /// Connects a client to the main process of a container, with these `streams`. The process must go on when the
    /// client has gone.
    ///
    /// # Errors
    /// As for [`exec`](Self::exec).
    fn attach(
        &self,
        container_id: String,
        streams: Streams,
        session: ExecServer,
    ) -> impl Future<Output = Result<(), exec::Error>> + Send;

    /// Connects a client to a port of a pod: dials the port, calls [`Request::accept`] or [`Request::fail`], and copies
    /// the bytes until both sides have ended. It is called once for each forwarded connection. Its future is dropped
    /// when the client goes away.
    fn port_forward(&self, pod_sandbox_id: &str, request: Request) -> impl Future<Output = ()> + Send;
}
