//! The server's side of port-forward: connections to ports of this machine.
//!
//! Owns the dialling. Which streams belong together is the library's.

use std::io;

use kubestream::portforward::Request;
use tokio::net::TcpStream;

/// Connects what a client forwards to a port, until either has ended.
pub(crate) async fn connect(request: Request) -> io::Result<()> {
    let port = request.port();
    let mut tcp = match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(tcp) => tcp,
        Err(error) => {
            request.fail(&format!("failed to connect to localhost:{port} in the pod: {error}"));
            return Ok(());
        }
    };
    tcp.set_nodelay(true)?;
    let mut connection = request.accept();
    // Either end may break off: that is its own affair, and the other's end of it.
    const BUFFER: usize = 32 * 1024;
    tokio::io::copy_bidirectional_with_sizes(&mut connection, &mut tcp, BUFFER, BUFFER).await.map(drop)
}
