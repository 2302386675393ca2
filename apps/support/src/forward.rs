//! The server's side of port-forward: connections to ports of this machine.
//!
//! Owns the dialling. Which streams belong together is the library's.

use kubestream::AbortOnDrop;
use kubestream::portforward::{Error, Request};
use tokio::net::TcpStream;

/// Connects what a client forwards to a port, until both have ended or either breaks off.
pub async fn connect(request: Request) -> Result<(), Error> {
    let port = request.port();
    let tcp = match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(tcp) => tcp,
        Err(error) => {
            request.fail(&format!("failed to connect to localhost:{port} in the pod: {error}"));
            return Ok(());
        }
    };
    // A socket that takes no options is gone.
    let _ = tcp.set_nodelay(true);
    request.accept().relay(AbortOnDrop::new(tcp)).await
}
