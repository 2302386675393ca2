//! The node's side of port-forward: connections to ports of this machine.
//!
//! Owns the dialling. Which streams belong together is the library's.

use std::io;
use std::time::Duration;

use kubestream::mux::Multiplexer;
use kubestream::portforward::{Error, PortForwardServer, Request};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Forwards until the client goes away, and with it whatever was forwarded.
pub(crate) async fn run(mux: Multiplexer) -> Result<(), Error> {
    let mut server = PortForwardServer::new(mux)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            request = server.accept() => match request.transpose()? {
                Some(request) => drop(connections.spawn(forward(request))),
                // It has ended in good order, and what it has sent may not be through yet.
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    const LAST_BYTES: Duration = Duration::from_secs(10);
    let _ = timeout(LAST_BYTES, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn forward(request: Request) -> io::Result<()> {
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
