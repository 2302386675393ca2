//! Sockets that break off, and what the other end sees.
//!
//! Knows what a break looks like on a real socket. The tests say which end must see one.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything in these tests takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Checks that bytes pass from one end to the other.
pub async fn passes(from: &mut TcpStream, to: &mut TcpStream, what: &str) {
    from.write_all(b"half of it").await.unwrap();
    let mut half = [0; 10];
    to.read_exact(&mut half).await.unwrap();
    assert_eq!(half, *b"half of it", "{what}");
}

/// Returns the remaining bytes, and whether the stream ended after them.
pub async fn rest(tcp: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.unwrap_or_else(|_| panic!("it hangs"));
    (rest, read.map(drop))
}

/// Checks that no bytes are left and that the stream broke off.
pub async fn broke_off(tcp: &mut TcpStream, what: &str) {
    let (rest, end) = rest(tcp).await;
    let error = end.err().unwrap_or_else(|| panic!("an end instead of a break: {what}"));
    assert_eq!((error.kind(), rest.len()), (io::ErrorKind::ConnectionReset, 0), "{what}");
}

/// Breaks the connection off.
pub fn reset(tcp: TcpStream) {
    tcp.set_zero_linger().unwrap();
    drop(tcp);
}
