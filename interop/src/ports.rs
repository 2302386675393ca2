//! Ports of the "pod", which is this machine.
//!
//! Owns what listens on them, for as long as the runtime of the test. What a test does with them is its own.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// One that sends back what it is sent, to its end.
///
/// # Panics
/// Where there is none to be had.
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

/// One on which nobody listens.
///
/// # Panics
/// Where there is none to be had.
pub async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address").port()
}
