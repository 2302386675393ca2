//! The server's side of port-forward: connections to ports of this machine.
//!
//! Dials the ports. The library pairs the streams.

use kubestream::AbortOnDrop;
use kubestream::portforward::{Error, Request};
use tokio::net::TcpStream;

/// Connects a client's request to a port, until both directions have ended or either side breaks off.
pub async fn connect(request: Request) -> Result<(), Error> {
    let port = request.port();
    let tcp = match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(tcp) => tcp,
        Err(error) => {
            request.fail(&format!("failed to connect to localhost:{port} in the pod: {error}"));
            return Ok(());
        }
    };
    // If setting the option fails, the socket has gone, and the relay reports it.
    let _ = tcp.set_nodelay(true);
    request.accept().relay(AbortOnDrop::new(tcp)).await
}
