//! A port of this machine that sends back what it is sent: for servers whose pods are this machine.

use std::io;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Sends back whatever comes, up to its end, as long as its tasks live. Says at which port.
///
/// # Errors
/// Where there is no port.
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
    // Who breaks off wants nothing back.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// A port that was free a moment ago.
///
/// # Errors
/// Where there is none.
pub async fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}
