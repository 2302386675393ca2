//! Ports of the "pod", which is this machine.
//!
//! Opens ports that listen while the test's runtime lives. The tests decide what to do with them.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// A port that sends back what it receives, to the end.
///
/// # Panics
/// Panics if no port is free.
pub async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = tcp.split();
                tokio::io::copy(&mut reads, &mut writes).await?;
                writes.shutdown().await
            });
        }
    });
    port
}

/// A port on which nothing listens.
///
/// # Panics
/// Panics if no port is free.
pub async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address").port()
}
