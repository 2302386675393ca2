//! Listening where the user says.
//!
//! Only names the address in the error. The programs accept the connections.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Listens on an address.
///
/// # Errors
/// The system's, with the address.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listening = TcpListener::bind(address).await;
    listening.map_err(|error| io::Error::new(error.kind(), format!("unable to listen on {address}: {error}")))
}
