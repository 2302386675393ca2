//! The server's side of port-forward: connections to ports of this machine.
//!
//! Dials the ports. The library pairs the streams.

use std::net::{Ipv4Addr, Ipv6Addr};

use kubestream::AbortOnDrop;
use kubestream::portforward::{Error, Request};
use tokio::net::TcpStream;

/// Connects a client's request to a port, until both directions have ended or either side breaks off.
pub async fn connect(request: Request) -> Result<(), Error> {
    let port = request.port();
    let tcp = match dial(port).await {
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

/// Connects to localhost as kubelets do: over IPv4, and over IPv6 if that fails.
async fn dial(port: u16) -> Result<TcpStream, String> {
    let ipv4 = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(tcp) => return Ok(tcp),
        Err(error) => error,
    };
    let ipv6 = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await;
    ipv6.map_err(|ipv6| format!("over IPv4: {ipv4}, over IPv6: {ipv6}"))
}
