//! An echo port on this machine, for servers whose pods are this machine.

use std::io;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Opens a port that sends back what it receives, up to the end, while its tasks live. Returns the port.
///
/// # Errors
/// Fails if no port can be opened.
pub async fn serve(tasks: &mut JoinSet<()>) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Ok((tcp, _)) = listener.accept() => drop(connections.spawn(send_back(tcp))),
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok(port)
}

async fn send_back(mut tcp: TcpStream) {
    let (mut from, mut to) = tcp.split();
    // A client that breaks off needs nothing sent back.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// Returns a port that was free a moment ago.
///
/// # Errors
/// Fails if no port is free.
pub async fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}
